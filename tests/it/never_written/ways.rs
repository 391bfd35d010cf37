//! The ways to change a file: by writing, by its shape, by its names and attributes.
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, FallocateFlags, RenameFlags, fallocate, renameat2, splice};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use plyfs_tests::fsx::Mapping;

use super::Holds;
use crate::support::{as_user, errno};

/// Every file has this many bytes: some pages and a piece.
pub(super) const LEN: usize = 3 * 4096 + 700;

/// What a way leaves behind.
pub(super) struct After {
    /// Where the changed file is.
    pub(super) path: PathBuf,
    pub(super) content: Vec<u8>,
    /// Whether the old reader has this file open, not one that lost its name to it.
    pub(super) same_file: bool,
}

/// Where a way is gone.
pub(super) struct Site<'a> {
    pub(super) path: PathBuf,
    /// The reader that was there before.
    pub(super) reader: &'a File,
    /// What the file holds, and the reader has seen.
    pub(super) old: Vec<u8>,
    /// Data is passed through: the reader keeps the lower file for as long as it is open.
    pub(super) passes: bool,
}

impl Site<'_> {
    fn open(&self) -> File {
        both(&self.path)
    }

    /// The name of another file beside this one.
    fn beside(&self, word: &str) -> PathBuf {
        let name = self.path.file_name().unwrap().to_string_lossy();
        self.path.with_file_name(format!("{name}.{word}"))
    }

    /// The file was changed where it is.
    fn changed(&self, content: Vec<u8>) -> After {
        After {
            path: self.path.clone(),
            content,
            same_file: true,
        }
    }

    /// `bytes` were put over the old ones at `at`.
    fn put(&self, at: usize, bytes: &[u8]) -> After {
        let mut content = self.old.clone();
        content.resize(content.len().max(at + bytes.len()), 0);
        content[at..at + bytes.len()].copy_from_slice(bytes);
        self.changed(content)
    }

    /// It has become as long as this.
    fn cut(&self, len: usize) -> After {
        let mut content = self.old.clone();
        content.resize(len, 0);
        self.changed(content)
    }
}

pub(super) fn both(path: &Path) -> File {
    OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .unwrap()
}

/// What the writer sees through its own descriptor.
fn reads(file: &File, after: After) -> After {
    let mut seen = vec![0; after.content.len()];
    file.read_exact_at(&mut seen, 0).unwrap();
    assert!(
        seen == after.content,
        "the writer does not read back what it wrote"
    );
    after
}

fn mapped(site: &Site<'_>, file: &File) -> After {
    let map = Mapping::writable(file, LEN).unwrap();
    assert_eq!(map.read(0, LEN).unwrap(), site.old);
    map.write(5000, b"by a mapping").unwrap();
    assert_eq!(map.read(5000, 12).unwrap(), b"by a mapping");
    reads(file, site.put(5000, b"by a mapping"))
}

fn allocated(site: &Site<'_>, flags: FallocateFlags, range: (usize, usize)) -> After {
    let file = site.open();
    let (at, len) = range;
    fallocate(&file, flags, at as i64, len as i64).unwrap();
    let keep = flags.contains(FallocateFlags::FALLOC_FL_KEEP_SIZE);
    let mut content = site.old.clone();
    if !keep {
        content.resize(content.len().max(at + len), 0);
    }
    let zeros = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_ZERO_RANGE;
    if flags.intersects(zeros) {
        let end = content.len().min(at + len);
        content[at.min(end)..end].fill(0);
    }
    reads(&file, site.changed(content))
}

/// A file in the mount with known bytes.
fn source(site: &Site<'_>, bytes: &[u8]) -> File {
    let path = site.beside("source");
    fs::write(&path, bytes).unwrap();
    File::open(path).unwrap()
}

pub(super) type Way = (&'static str, fn(&Site<'_>) -> After);

/// The ways to write into an open file.
pub(super) const WRITES: &[Way] = &[
    ("pwrite", |s| {
        let file = s.open();
        file.write_all_at(b"written", 4090).unwrap();
        reads(&file, s.put(4090, b"written"))
    }),
    ("write with O_WRONLY", |s| {
        OpenOptions::new()
            .write(true)
            .open(&s.path)
            .unwrap()
            .write_all(b"start")
            .unwrap();
        s.put(0, b"start")
    }),
    ("append", |s| {
        OpenOptions::new()
            .append(true)
            .open(&s.path)
            .unwrap()
            .write_all(b"end")
            .unwrap();
        s.put(LEN, b"end")
    }),
    ("write of every byte", |s| {
        let file = s.open();
        file.write_all_at(&vec![7; LEN], 0).unwrap();
        reads(&file, s.changed(vec![7; LEN]))
    }),
    ("write far behind the end", |s| {
        let file = s.open();
        file.write_all_at(b"far", 1 << 20).unwrap();
        reads(&file, s.put(1 << 20, b"far"))
    }),
    ("pwritev", |s| {
        let file = s.open();
        let parts = [std::io::IoSlice::new(b"one"), std::io::IoSlice::new(b"two")];
        assert_eq!(nix::sys::uio::pwritev(&file, &parts, 100).unwrap(), 6);
        reads(&file, s.put(100, b"onetwo"))
    }),
    ("direct write", |s| {
        let file = OpenOptions::new()
            .write(true)
            .custom_flags(libc::O_DIRECT)
            .open(&s.path);
        let mut room = vec![9; 8192];
        let skip = room.as_ptr().align_offset(4096);
        file.unwrap()
            .write_all_at(&room[skip..skip + 4096], 4096)
            .unwrap();
        room.truncate(4096);
        s.put(4096, &room)
    }),
    ("O_SYNC write", |s| {
        let file = OpenOptions::new()
            .write(true)
            .custom_flags(libc::O_SYNC)
            .open(&s.path);
        file.unwrap().write_all_at(b"sync", 1).unwrap();
        s.put(1, b"sync")
    }),
    ("splice from a pipe", |s| {
        let (out, pipe) = nix::unistd::pipe().unwrap();
        nix::unistd::write(&pipe, b"spliced").unwrap();
        let (file, mut at) = (s.open(), 300);
        let moved = splice(
            out,
            None,
            &file,
            Some(&mut at),
            7,
            nix::fcntl::SpliceFFlags::empty(),
        );
        assert_eq!(moved.unwrap(), 7);
        reads(&file, s.put(300, b"spliced"))
    }),
    ("sendfile", |s| {
        let (from, to) = (source(s, b"sent"), s.open());
        assert_eq!(
            nix::sys::sendfile::sendfile(&to, &from, None, 4).unwrap(),
            4
        );
        reads(&to, s.put(0, b"sent"))
    }),
    ("copy_file_range", |s| {
        let (from, to, mut at) = (source(s, b"copied over"), s.open(), 4000);
        let copied = nix::fcntl::copy_file_range(&from, None, &to, Some(&mut at), 11);
        assert_eq!(copied.unwrap(), 11);
        reads(&to, s.put(4000, b"copied over"))
    }),
    ("copy_file_range within the file", |s| {
        let (file, mut from, mut to) = (s.open(), 0, 8192);
        let copied = nix::fcntl::copy_file_range(&file, Some(&mut from), &file, Some(&mut to), 100);
        assert_eq!(copied.unwrap(), 100);
        reads(&file, s.put(8192, &s.old[..100]))
    }),
    ("clone of another file", |s| {
        let (from, to) = (source(s, &[3; 8192]), s.open());
        match rustix::fs::ioctl_ficlone(&to, &from) {
            Ok(()) => reads(&to, s.changed(vec![3; 8192])),
            Err(_) => s.changed(s.old.clone()),
        }
    }),
    ("through procfs", |s| {
        let link = format!("/proc/self/fd/{}", s.reader.as_raw_fd());
        let open = OpenOptions::new().write(true).open(link);
        if s.passes {
            // There is no name to look up again.
            assert_eq!(errno(open), Errno::ESTALE);
            return s.changed(s.old.clone());
        }
        open.unwrap().write_all_at(b"proc", 9).unwrap();
        s.put(9, b"proc")
    }),
    ("through a bind mount of the file", |s| {
        let place = s.beside("place");
        File::create(&place).unwrap();
        let (none, flags) = (None::<&str>, MsFlags::MS_BIND);
        mount(Some(&s.path), &place, none, flags, none).unwrap();
        let open = OpenOptions::new().read(true).write(true).open(&place);
        if s.passes {
            assert_eq!(errno(open), Errno::ESTALE);
            assert!(fs::read(&place).unwrap() == s.old, "a reader is served");
            umount2(&place, MntFlags::empty()).unwrap();
            return s.changed(s.old.clone());
        }
        open.unwrap().write_all_at(b"bound", 50).unwrap();
        umount2(&place, MntFlags::empty()).unwrap();
        s.put(50, b"bound")
    }),
    ("write by another user", |s| {
        fs::set_permissions(&s.path, PermissionsExt::from_mode(0o666)).unwrap();
        let name = s.path.file_name().unwrap().to_str().unwrap();
        let script = format!("printf other | dd conv=notrunc status=none of='{name}'");
        let (ok, said) = as_user(s.path.parent().unwrap(), &script);
        assert!(ok, "{said}");
        s.put(0, b"other")
    }),
];

/// Mappings, sizes and space.
pub(super) const SHAPES: &[Way] = &[
    ("a mapping", |s| mapped(s, &s.open())),
    (
        "a mapping that outlives its descriptor and is synced",
        |s| {
            let file = s.open();
            let map = Mapping::writable(&file, LEN).unwrap();
            drop(file);
            map.write(8192, b"late").unwrap();
            s.open().sync_all().unwrap();
            map.write(8196, b"later").unwrap();
            drop(map);
            s.put(8192, b"latelater")
        },
    ),
    ("a mapping from before another writer", |s| {
        let (file, other) = (s.open(), s.open());
        let map = Mapping::writable(&file, LEN).unwrap();
        assert_eq!(map.read(0, LEN).unwrap(), s.old);
        other.write_all_at(b"other", 20).unwrap();
        assert_eq!(
            map.read(20, 5).unwrap(),
            b"other",
            "a mapping shows what is written"
        );
        map.write(25, b"-mine").unwrap();
        reads(&other, s.put(20, b"other-mine"))
    }),
    ("ftruncate to less", |s| {
        let file = s.open();
        file.set_len(4100).unwrap();
        reads(&file, s.cut(4100))
    }),
    ("ftruncate to nothing", |s| {
        s.open().set_len(0).unwrap();
        s.cut(0)
    }),
    ("ftruncate to more", |s| {
        let file = s.open();
        file.set_len(20_000).unwrap();
        reads(&file, s.cut(20_000))
    }),
    ("truncate by path", |s| {
        nix::unistd::truncate(&s.path, 5).unwrap();
        s.cut(5)
    }),
    ("open with O_TRUNC", |s| {
        drop(File::create(&s.path).unwrap());
        s.cut(0)
    }),
    ("open with O_TRUNC and write", |s| {
        File::create(&s.path)
            .unwrap()
            .write_all(b"all new")
            .unwrap();
        s.changed(b"all new".to_vec())
    }),
    ("fallocate", |s| {
        allocated(s, FallocateFlags::empty(), (LEN, 5000))
    }),
    ("fallocate behind the end", |s| {
        allocated(s, FallocateFlags::FALLOC_FL_KEEP_SIZE, (LEN, 5000))
    }),
    ("a punched hole", |s| {
        let keep = FallocateFlags::FALLOC_FL_KEEP_SIZE;
        allocated(s, FallocateFlags::FALLOC_FL_PUNCH_HOLE | keep, (100, 9000))
    }),
    ("a zeroed range", |s| {
        allocated(s, FallocateFlags::FALLOC_FL_ZERO_RANGE, (LEN - 50, 100))
    }),
    ("writers from before each other", |s| {
        let (one, two) = (s.open(), s.open());
        one.write_all_at(b"one", 0).unwrap();
        two.write_all_at(b"two", 3).unwrap();
        reads(&one, reads(&two, s.put(0, b"onetwo")))
    }),
];

/// Changes of names and attributes, then a write.
pub(super) const NAMES: &[Way] = &[
    ("write under a new link", |s| {
        let link = s.beside("link");
        fs::hard_link(&s.path, &link).unwrap();
        both(&link).write_all_at(b"linked", 0).unwrap();
        After {
            path: link,
            ..s.put(0, b"linked")
        }
    }),
    ("write after a rename", |s| {
        let to = s.beside("renamed");
        fs::rename(&s.path, &to).unwrap();
        both(&to).write_all_at(b"renamed", 0).unwrap();
        After {
            path: to,
            ..s.put(0, b"renamed")
        }
    }),
    ("a writer from before a rename", |s| {
        let (file, to) = (s.open(), s.beside("renamed"));
        fs::rename(&s.path, &to).unwrap();
        file.write_all_at(b"moved", 0).unwrap();
        After {
            path: to,
            ..reads(&file, s.put(0, b"moved"))
        }
    }),
    ("another file renamed over it", |s| {
        let other = s.beside("other");
        fs::write(&other, b"another").unwrap();
        fs::rename(&other, &s.path).unwrap();
        After {
            same_file: false,
            ..s.changed(b"another".to_vec())
        }
    }),
    ("exchanged with another and written there", |s| {
        let other = s.beside("other");
        fs::write(&other, b"another").unwrap();
        let flags = RenameFlags::RENAME_EXCHANGE;
        renameat2(AT_FDCWD, &s.path, AT_FDCWD, &other, flags).unwrap();
        assert_eq!(fs::read(&s.path).unwrap(), b"another");
        both(&other).write_all_at(b"swapped", 0).unwrap();
        After {
            path: other,
            ..s.put(0, b"swapped")
        }
    }),
    ("unlinked and made anew", |s| {
        fs::remove_file(&s.path).unwrap();
        fs::write(&s.path, b"anew").unwrap();
        After {
            same_file: false,
            ..s.changed(b"anew".to_vec())
        }
    }),
    ("written after it was unlinked", |s| {
        let file = s.open();
        fs::remove_file(&s.path).unwrap();
        file.write_all_at(b"nameless", 3).unwrap();
        let after = reads(&file, s.put(3, b"nameless"));
        let seen = Holds::Read.look(s.reader);
        let held = if s.passes { &s.old } else { &after.content };
        assert!(seen == *held, "the old reader has the same file");
        // Nothing is left for a new reader but what is put there now.
        fs::write(&s.path, &after.content).unwrap();
        after
    }),
    ("mapped and written after it was unlinked", |s| {
        let file = s.open();
        fs::remove_file(&s.path).unwrap();
        let after = mapped(s, &file);
        fs::write(&s.path, &after.content).unwrap();
        after
    }),
    ("truncated after it was unlinked", |s| {
        let file = s.open();
        fs::remove_file(&s.path).unwrap();
        file.set_len(10).unwrap();
        let after = reads(&file, s.cut(10));
        let len = if s.passes { LEN as u64 } else { 10 };
        assert_eq!(s.reader.metadata().unwrap().len(), len);
        fs::write(&s.path, &after.content).unwrap();
        after
    }),
    ("chmod, then a write", |s| {
        fs::set_permissions(&s.path, PermissionsExt::from_mode(0o600)).unwrap();
        s.open().write_all_at(b"mode", 0).unwrap();
        s.put(0, b"mode")
    }),
    ("fchmod by the reader, then a write", |s| {
        s.reader
            .set_permissions(PermissionsExt::from_mode(0o640))
            .unwrap();
        s.open().write_all_at(b"mode", 0).unwrap();
        s.put(0, b"mode")
    }),
    ("chown, then a write", |s| {
        std::os::unix::fs::chown(&s.path, Some(12), Some(34)).unwrap();
        s.open().write_all_at(b"owner", 0).unwrap();
        s.put(0, b"owner")
    }),
    ("times set, then a write", |s| {
        let file = s.open();
        file.set_modified(std::time::UNIX_EPOCH).unwrap();
        file.write_all_at(b"time", 0).unwrap();
        s.put(0, b"time")
    }),
    ("xattrs set and removed, then a write", |s| {
        xattr::set(&s.path, "user.new", b"1").unwrap();
        xattr::remove(&s.path, "user.planted").unwrap();
        s.open().write_all_at(b"xattr", 0).unwrap();
        s.put(0, b"xattr")
    }),
    ("an ACL set, then a write", |s| {
        crate::support::run(
            s.path.parent().unwrap(),
            "setfacl",
            &["-m", "u:77:rw", s.path.to_str().unwrap()],
        );
        s.open().write_all_at(b"acl", 0).unwrap();
        s.put(0, b"acl")
    }),
    ("flags set, then a write", |s| {
        let file = s.open();
        let set = rustix::fs::ioctl_setflags(&file, rustix::fs::IFlags::NODUMP);
        // Where the layer's file system has no flags this fails, and changes nothing.
        assert!(matches!(
            set,
            Ok(()) | Err(rustix::io::Errno::NOTTY | rustix::io::Errno::OPNOTSUPP)
        ));
        file.write_all_at(b"flags", 0).unwrap();
        reads(&file, s.put(0, b"flags"))
    }),
    ("what a reader may not do", |s| {
        assert_eq!(errno(s.reader.write_at(b"x", 0)), Errno::EBADF);
        assert_eq!(errno(s.reader.set_len(0)), Errno::EINVAL);
        assert_eq!(errno(Mapping::writable(s.reader, LEN)), Errno::EACCES);
        let denied = fallocate(s.reader, FallocateFlags::empty(), 0, 10);
        assert_eq!(denied, Err(Errno::EBADF));
        s.changed(s.old.clone())
    }),
    ("opened for writing and not written", |s| {
        drop(s.open());
        s.changed(s.old.clone())
    }),
];
