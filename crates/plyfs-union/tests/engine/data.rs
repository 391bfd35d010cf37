//! Reading and writing data.
use crate::check::check;
use crate::client::Client;
use crate::world::World;
use plyfs_sys::attr::SetTime;
use plyfs_sys::stat::Time;
use plyfs_testkit::need_root;
use plyfs_union::{NodeId, SetAttr};
use std::os::unix::fs::MetadataExt;

#[test]
fn data_comes_from_where_it_is() {
    check(
        "lower: /a=@70000 | lower: /b=2 | upper: /c=0",
        "cat /a=@70000; cat /b=2; cat /c=0; put /b 5 x; put /c 0 1; append /a z; stat /a size=70001",
        "tree: /a=@70000 size=70001, /b= size=6 /c=1",
    );
}

#[test]
fn a_reader_sees_a_later_write_of_another() {
    check(
        "lower: /f=old | upper:",
        "hold r /f; cat @r=old; write /f new; cat @r=new; put @r 0 N; cat /f=New",
        "tree: /f=New",
    );
}

#[test]
fn reading_stops_at_the_end() {
    need_root!();
    let world = World::new("lower: /f=data /d/x=1 /l->f | upper:");
    let client = Client::new(world.open());
    let f = client.node("/f").unwrap();
    let mut buf = [0; 10];
    assert_eq!(client.union.read(f.id, 0, &mut buf).unwrap(), 4);
    assert_eq!(client.union.read(f.id, 3, &mut buf).unwrap(), 1);
    assert_eq!(client.union.read(f.id, 4, &mut buf).unwrap(), 0);
    assert_eq!(client.union.read(f.id, 1 << 40, &mut buf).unwrap(), 0);
    for path in ["/d", "/l"] {
        let node = client.node(path).unwrap();
        assert!(client.union.read(node.id, 0, &mut buf).is_err());
    }
}

#[test]
fn space_is_made_and_given_back() {
    need_root!();
    check(
        "lower: /f=data /g=@8192 | upper:",
        "alloc /f 0 10000; stat /f size=10000; alloc /g 8192 1; stat /g size=8193; punch /g 0 4096; stat /g size=8193",
        "",
    );
    let world = World::new("lower: /g=@12288 | upper:");
    let mut client = Client::new(world.open());
    crate::ops::run(&world, &mut client, "punch /g 4096 4096");
    let data = client.read("/g").unwrap();
    assert!(data[4096..8192].iter().all(|b| *b == 0) && data[4095] != 0 && data[8192] != 0);
}

#[test]
fn holes_are_found() {
    need_root!();
    let world = World::new("lower: /f=@4096 size=40960 | upper:");
    let mut client = Client::new(world.open());
    for copied_up in [false, true] {
        if copied_up {
            crate::ops::run(&world, &mut client, "touch /f 5");
        }
        let node = client.node("/f").unwrap();
        let seek = |off, whence| {
            client
                .union
                .seek(node.id, off, whence)
                .map_err(|e| e.errno())
        };
        // SEEK_DATA is 3, SEEK_HOLE is 4.
        assert_eq!(seek(0, 3), Ok(0));
        assert_eq!(seek(0, 4), Ok(4096), "copied up: {copied_up}");
        assert_eq!(seek(5000, 3), Err(plyfs_sys::Errno::ENXIO));
        assert_eq!(seek(5000, 4), Ok(5000));
        assert_eq!(seek(40960, 4), Err(plyfs_sys::Errno::ENXIO));
    }
}

#[test]
fn ranges_are_copied_between_layers() {
    check(
        "lower: /a=abcdef /b=1234567 | upper: /c=xyz",
        "copy /a /b 3; cat /b=abc4567; copy /c /a 3; cat /a=xyzdef; copy /b /c 7; cat /c=abc4567",
        "tree: /a=xyzdef /b=abc4567 /c=abc4567",
    );
}

#[test]
fn a_range_copied_within_a_lower_file_reads_the_copy() {
    need_root!();
    let world = World::new("lower: /f=abcdef | upper:");
    let client = Client::new(world.open());
    let f = client.node("/f").unwrap();
    let n = client
        .union
        .copy_range(&client.caller, (f.id, 0), (f.id, 3), 3);
    assert_eq!(n.unwrap(), 3);
    assert_eq!(client.read("/f").unwrap(), b"abcabc");
}

#[test]
fn data_is_only_in_regular_files() {
    check(
        "lower: /d/x=1, fifo /p, /l->x | upper:",
        "put /p 0 x !EINVAL; trunc /d 0 !EISDIR; trunc /p 0 !EINVAL; alloc /p 0 1 !EINVAL",
        "tree: /d/x=1, fifo /p, /l->x",
    );
}

#[test]
fn big_writes_and_reads_are_whole() {
    need_root!();
    let world = World::new("lower: /f=@3000000 | upper:");
    let client = Client::new(world.open());
    let f = client.node("/f").unwrap();
    let data = vec![7; 5 << 20];
    assert_eq!(
        client
            .union
            .write(&client.caller, f.id, 1 << 20, &data)
            .unwrap(),
        data.len()
    );
    let got = client.read("/f").unwrap();
    assert_eq!(got.len(), 6 << 20);
    assert_eq!(
        got[..1 << 20],
        crate::text::content_of("@3000000")[..1 << 20]
    );
    assert_eq!(got[1 << 20..], data);
}

#[test]
fn statfs_answers_for_the_upper() {
    need_root!();
    let world = World::new("lower: /f=1 | upper:");
    let fs = world.open().statfs().unwrap();
    assert!(fs.blocks > 0 && fs.namelen == 255, "{fs:?}");
}

/// With cached writes a file shows the time the kernel keeps, not that of the store.
#[test]
fn a_store_of_pages_moves_no_time() {
    need_root!();
    let world = World::new("lower: /f=abc /g=abc | upper:");
    let client = Client::new(world.open());
    client.union.kernel_caches_writes();
    let mtime = |path: &str| {
        let found = std::fs::metadata(world.upper().join(path)).unwrap();
        (found.mtime(), found.mtime_nsec())
    };
    let at = |sec| SetAttr {
        mtime: Some(SetTime::To(Time { sec, nsec: 7 })),
        ..SetAttr::default()
    };
    // The time first, as when the kernel writes back by itself; forget puts it back.
    let f = client.node("/f").unwrap();
    client
        .union
        .setattr(&client.caller, f.id, &at(1000))
        .unwrap();
    client.union.write_back(f.id, 0, b"ABC").unwrap();
    assert_eq!(client.union.getattr(f.id).unwrap().mtime.sec, 1000);
    client.union.forget(f.id, 0);
    assert_eq!(mtime("f"), (1000, 7));
    // The time last, as at close; nothing is left to put back.
    client.union.write_back(f.id, 0, b"abc").unwrap();
    let now = client
        .union
        .setattr(&client.caller, f.id, &at(2000))
        .unwrap();
    assert_eq!((now.mtime.sec, mtime("f")), (2000, (2000, 7)));
    // Stored and never told: what the file showed before.
    let g = client.node("/g").unwrap();
    let before = client.union.getattr(g.id).unwrap().mtime;
    client.union.write_back(g.id, 0, b"ABC").unwrap();
    client.union.fsync(g.id, false).unwrap();
    assert_eq!(mtime("g"), (before.sec, i64::from(before.nsec)));
}

/// The kernel tells the time of a file whenever its own idea of the change time moves.
#[test]
fn a_time_that_is_no_other_copies_nothing_up() {
    need_root!();
    let world = World::new("lower: /f=abc | upper:");
    let client = Client::new(world.open());
    client.union.kernel_caches_writes();
    let f = client.node("/f").unwrap();
    let mtime = client.union.getattr(f.id).unwrap().mtime;
    let same = SetAttr {
        mtime: Some(SetTime::To(mtime)),
        ..SetAttr::default()
    };
    client.union.setattr(&client.caller, f.id, &same).unwrap();
    assert!(!world.upper().join("f").exists());
    client.union.unlink(NodeId::ROOT, b"f").unwrap();
    client.union.setattr(&client.caller, f.id, &same).unwrap();
    assert_eq!(client.union.getattr(f.id).unwrap().nlink, 0);
}

/// The layer's file system takes suid and capabilities away from a file that is written; pages
/// that were changed before those were set are stored after.
#[test]
fn a_store_of_pages_takes_no_privileges_away() {
    need_root!();
    let world = World::new("lower: | upper: /f=abc");
    let client = Client::new(world.open());
    let f = client.node("/f").unwrap();
    client.union.write_back(f.id, 0, b"a").unwrap();
    let capability = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let flags = plyfs_sys::xattr::SetFlags::empty();
    let name = b"security.capability";
    client
        .union
        .setxattr(&client.caller, f.id, name, &capability, flags)
        .unwrap();
    client.union.write_back(f.id, 1, b"b").unwrap();
    assert_eq!(client.union.getxattr(f.id, name).unwrap(), capability);
}

/// Where a file ends for programs is not where it ends on disk while pages are held back.
#[test]
fn a_copy_from_behind_the_end_on_disk_is_left_to_the_kernel() {
    need_root!();
    let world = World::new("lower: | upper: /f=abc /g=");
    let client = Client::new(world.open());
    client.union.kernel_caches_writes();
    let (f, g) = (client.node("/f").unwrap(), client.node("/g").unwrap());
    let copy = |from| {
        let copied = client
            .union
            .copy_range(&client.caller, (f.id, from), (g.id, from), 10);
        copied.map_err(|e| e.errno())
    };
    assert_eq!(copy(0), Ok(3));
    assert_eq!(copy(3), Err(plyfs_sys::Errno::EXDEV));
}
