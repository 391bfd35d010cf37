//! Opens where the kernel passes data through: what each is bound to, and that nothing stays behind.
use std::collections::HashMap;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use plyfs_sys::{Errno, SysError};
use plyfs_testkit::need_root;
use plyfs_union::{Backings, Caller, How, OpenCounts, SetAttr, Union, Way};

use crate::client::{Client, Held};
use crate::world::World;

const READ: How = How {
    reads: true,
    writes: false,
    appends: false,
    syncs: false,
    truncates: false,
    by_kernel: false,
};
const WRITE: How = How {
    reads: false,
    writes: true,
    ..READ
};
const BOTH: How = How {
    writes: true,
    ..READ
};

/// What stands in for the kernel's table of backing files.
#[derive(Debug, Default)]
struct Table {
    files: Mutex<HashMap<u32, u64>>,
    last: Mutex<u32>,
    refuses: AtomicBool,
}

#[derive(Debug, Clone, Default)]
struct Registered(Arc<Table>);

impl Backings for Registered {
    fn register(&self, file: BorrowedFd<'_>, _written: bool) -> plyfs_sys::Result<u32> {
        if self.0.refuses.load(Ordering::Relaxed) {
            return Err(SysError::new("register", Errno::ELOOP));
        }
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        let ino = std::fs::metadata(path).unwrap().ino();
        let mut last = self.0.last.lock();
        *last += 1;
        self.0.files.lock().insert(*last, ino);
        Ok(*last)
    }

    fn unregister(&self, backing: u32) {
        assert!(self.0.files.lock().remove(&backing).is_some());
    }
}

impl Registered {
    /// Whether the kernel passes data through to this file.
    fn is(&self, way: Way, path: &Path) -> bool {
        match way {
            Way::Passed(backing) | Way::Asked(backing) => {
                self.0.files.lock()[&backing] == std::fs::metadata(path).unwrap().ino()
            }
            Way::Served { .. } => panic!("served"),
        }
    }

    fn count(&self) -> usize {
        self.0.files.lock().len()
    }
}

fn open(world: &World) -> (Arc<Union>, Client, Registered) {
    let union = world.open();
    let registered = Registered::default();
    union.pass_through(Box::new(registered.clone()));
    let client = Client::new(Arc::clone(&union));
    (union, client, registered)
}

/// Opens as the VFS does: a name that is stale is looked up once more.
fn open_at(client: &Client, path: &str, how: How) -> (Arc<Held>, Way) {
    let mut node = client.node(path).unwrap();
    let first = client.union.open_file(&Caller::ROOT, node.id, how);
    let way = match first {
        Err(e) if e.errno() == Errno::ESTALE => {
            assert!(e.is_ordinary(), "it is no news for the log");
            node = client.node(path).unwrap();
            client.union.open_file(&Caller::ROOT, node.id, how).unwrap()
        }
        other => other.unwrap(),
    };
    (node, way)
}

#[test]
fn all_opens_of_a_file_share_one_registration_until_the_last_close() {
    need_root!();
    let world = World::new("lower: /f=1 | upper:");
    let (union, client, registered) = open(&world);
    let (node, first) = open_at(&client, "/f", READ);
    let (_, second) = open_at(&client, "/f", READ);
    assert_eq!(first, second);
    assert!(registered.is(first, &world.lower(0).join("f")));
    let counts = OpenCounts {
        passed: 1,
        served: 0,
        opens: 2,
    };
    assert_eq!(union.open_counts(), counts);
    union.release(node.id, false);
    assert_eq!(registered.count(), 1);
    union.release(node.id, false);
    assert_eq!(registered.count(), 0);
    drop(node);
    world.verify(&union);
}

#[test]
fn a_writer_gets_the_upper_file_and_another_number_while_the_lower_is_read() {
    need_root!();
    for (layers, writes) in [
        ("lower: /f=1 | upper:", WRITE),
        ("lower: /f=1 | upper:", BOTH),
        ("opts: metacopy | lower: /f=1 | upper:", WRITE),
        (
            "lower: /f=1 | upper:",
            How {
                truncates: true,
                ..READ
            },
        ),
    ] {
        let world = World::new(layers);
        let (union, client, registered) = open(&world);
        let (old, reader) = open_at(&client, "/f", READ);
        if layers.contains("metacopy") {
            let chmod = SetAttr {
                mode: Some(0o600),
                ..SetAttr::default()
            };
            union.setattr(&Caller::ROOT, old.id, &chmod).unwrap();
            // The data is the lower's still, and so is what it is bound to.
            let (same, way) = open_at(&client, "/f", READ);
            assert_eq!((same.id, way), (old.id, reader));
            union.release(same.id, false);
        }
        let (new, writer) = open_at(&client, "/f", writes);
        assert_ne!(old.id, new.id, "the kernel has two inodes now");
        assert!(registered.is(reader, &world.lower(0).join("f")));
        assert!(registered.is(writer, &world.upper().join("f")));
        let (a, mut b) = (
            union.getattr(old.id).unwrap(),
            union.getattr(new.id).unwrap(),
        );
        assert_eq!((a.size, b.size), (1, u64::from(!writes.truncates)));
        b.size = a.size;
        assert_eq!(a, b, "but for the size they are one file");
        assert!(!union.keeps_attributes(old.id, &a) && !union.keeps_attributes(new.id, &b));
        // Whoever comes later sees what is written, by whichever number.
        let (later, way) = open_at(&client, "/f", READ);
        assert_eq!((later.id, way), (new.id, writer));
        // An ioctl of the kernel's, such as that of lsattr.
        let ioctl = How {
            by_kernel: true,
            ..READ
        };
        let opened = union.open_file(&Caller::ROOT, old.id, ioctl);
        assert!(matches!(opened, Ok(Way::Asked(_))));
        union.release(old.id, false);
        // Who has no name to look up, and so comes again, may read; the upper, by requests.
        let caller = Caller {
            pid: 12,
            ..Caller::ROOT
        };
        let stale = || {
            union
                .open_file(&caller, old.id, READ)
                .map_err(|e| e.errno())
        };
        assert_eq!(stale(), Err(Errno::ESTALE));
        assert!(matches!(stale(), Ok(Way::Asked(_))));
        union.release(old.id, false);
        let write = union.open_file(&caller, old.id, WRITE);
        assert_eq!(write.unwrap_err().errno(), Errno::ESTALE);
        union.release(later.id, false);
        union.release(new.id, writes.writes);
        union.release(old.id, false);
        assert_eq!(
            (registered.count(), union.open_counts()),
            (0, OpenCounts::default())
        );
        drop((later, new, old));
        world.verify(&union);
    }
}

#[test]
fn nothing_is_split_where_nobody_reads() {
    need_root!();
    let world = World::new("lower: /f=1 | upper:");
    let (union, client, registered) = open(&world);
    let (old, _) = open_at(&client, "/f", READ);
    union.release(old.id, false);
    let (new, writer) = open_at(&client, "/f", WRITE);
    assert_eq!(old.id, new.id);
    assert!(registered.is(writer, &world.upper().join("f")));
    union.release(new.id, true);
    drop((old, new));
    world.verify(&union);
}

#[test]
fn the_old_number_keeps_the_lower_data_for_all_that_asks_us() {
    need_root!();
    let world = World::new("lower: /f=12345 /g= | upper:");
    let (union, client, _) = open(&world);
    let (old, _) = open_at(&client, "/f", READ);
    let cut = How {
        truncates: true,
        ..WRITE
    };
    let (new, _) = open_at(&client, "/f", cut);
    assert_eq!(union.seek(old.id, 3, plyfs_sys::io::SEEK_DATA).unwrap(), 3);
    assert!(union.seek(new.id, 3, plyfs_sys::io::SEEK_DATA).is_err());
    let g = client.node("/g").unwrap();
    let copied = union.copy_range(&Caller::ROOT, (old.id, 0), (g.id, 0), 5);
    assert_eq!(copied.unwrap(), 5);
    union.release(new.id, true);
    union.release(old.id, false);
    drop((old, new, g));
    world.verify(&union);
}

#[test]
fn an_open_for_writing_obeys_the_flags_of_chattr() {
    need_root!();
    let world = World::new("lower: /a=1 flags=a /i=1 flags=i /f=1 | upper:");
    let (union, client, _) = open(&world);
    let append = How {
        appends: true,
        ..WRITE
    };
    let refused = |path: &str, how| {
        let node = client.node(path).unwrap();
        let result = union.open_file(&Caller::ROOT, node.id, how);
        result.map_err(|e| e.errno())
    };
    assert_eq!(refused("/i", append), Err(Errno::EPERM));
    assert_eq!(refused("/a", WRITE), Err(Errno::EPERM));
    let cut = How {
        truncates: true,
        ..append
    };
    assert_eq!(refused("/a", cut), Err(Errno::EPERM));
    // Each write is looked at: the descriptor can lose O_APPEND.
    let (a, way) = open_at(&client, "/a", append);
    assert!(matches!(way, Way::Asked(_)), "{way:?}");
    union.release(a.id, true);
    drop(a);
    world.verify(&union);
}

#[test]
fn writes_that_take_suid_off_are_asked_for() {
    need_root!();
    let world = World::new("lower: /s=1 mode=4755 /f=1 | upper:");
    let (union, client, _) = open(&world);
    let (s, way) = open_at(&client, "/s", WRITE);
    assert!(matches!(way, Way::Asked(_)), "{way:?}");
    let (f, way) = open_at(&client, "/f", WRITE);
    assert!(matches!(way, Way::Passed(_)), "{way:?}");
    let mut attr = union.getattr(f.id).unwrap();
    assert!(union.keeps_attributes(f.id, &attr));
    attr.mode |= 0o2000;
    assert!(
        !union.keeps_attributes(f.id, &attr),
        "a write that the kernel makes by itself may take it off"
    );
    union.release(f.id, true);
    union.release(s.id, true);
    drop((s, f));
    world.verify(&union);
}

#[test]
fn what_may_be_mapped_for_writing_is_asked_for_its_attributes() {
    need_root!();
    let world = World::new("upper: /f=1");
    let (union, client, _) = open(&world);
    let (f, _) = open_at(&client, "/f", WRITE);
    let attr = union.getattr(f.id).unwrap();
    assert!(union.keeps_attributes(f.id, &attr));
    open_at(&client, "/f", BOTH);
    assert!(!union.keeps_attributes(f.id, &attr));
    union.release(f.id, true);
    union.release(f.id, true);
    assert!(
        !union.keeps_attributes(f.id, &attr),
        "a mapping outlives it"
    );
    drop(f);
    world.verify(&union);
}

#[test]
fn a_file_that_the_kernel_refuses_is_served_and_stays_so_while_it_is_open() {
    need_root!();
    let world = World::new("lower: /f=1 | upper:");
    let (union, client, registered) = open(&world);
    registered.0.refuses.store(true, Ordering::Relaxed);
    let (old, way) = open_at(&client, "/f", READ);
    assert_eq!(way, Way::Served { cached: true });
    registered.0.refuses.store(false, Ordering::Relaxed);
    // The kernel takes no passthrough open beside a cached one.
    let (new, way) = open_at(&client, "/f", WRITE);
    assert_eq!((new.id, way), (old.id, Way::Served { cached: false }));
    union.release(old.id, false);
    union.release(new.id, true);
    let (_, way) = open_at(&client, "/f", WRITE);
    assert!(registered.is(way, &world.upper().join("f")));
    union.release(old.id, true);
    drop((old, new));
    world.verify(&union);
}

/// However opens, closes and copy-ups meet: a writer is bound to the upper, one number to one file,
/// and in the end nothing is registered.
#[test]
fn opens_and_closes_balance_whoever_comes_between() {
    need_root!();
    let files: String = (0..200).map(|i| format!(" /f{i}=1")).collect();
    let world = World::new(&format!("lower:{files} | upper:"));
    let (union, _, registered) = open(&world);
    let end = Instant::now() + Duration::from_secs(2);
    let upper = world.upper();
    std::thread::scope(|scope| {
        for thread in 0..4_usize {
            let (union, registered, upper) = (&union, &registered, &upper);
            scope.spawn(move || {
                let client = Client::new(Arc::clone(union));
                for round in 0..200 {
                    if Instant::now() >= end {
                        break;
                    }
                    let path = format!("/f{round}");
                    let mut open = Vec::new();
                    for how in [READ, if thread == 0 { WRITE } else { READ }, BOTH, READ] {
                        let (node, way) = open_at(&client, &path, how);
                        let in_upper = || registered.is(way, &upper.join(&path[1..]));
                        assert!(!how.writes || in_upper(), "{path}");
                        open.push((node, how));
                    }
                    for (node, how) in open {
                        union.release(node.id, how.writes);
                    }
                }
            });
        }
    });
    assert_eq!(
        (registered.count(), union.open_counts()),
        (0, OpenCounts::default())
    );
    world.verify(&union);
}
