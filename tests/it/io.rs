//! Reading and writing: positions, holes, mappings, large files, many threads.
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, copy_file_range, fallocate};
use nix::unistd::{Whence, lseek};

use crate::support::{agree, errno, read, run};

fn both(path: impl AsRef<Path>) -> File {
    OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .unwrap()
}

/// Bytes that differ from one position to the next.
fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|i| ((i / 251) ^ i) as u8).collect()
}

#[test]
fn large_files_are_read_as_they_were_written() {
    agree(&["d d"], |m| {
        let content = pattern(20 << 20);
        fs::write(m.join("big"), &content).unwrap();
        assert!(fs::read(m.join("big")).unwrap() == content);
        let file = both(m.join("big"));
        for at in [0, 4095, 1 << 20, (20 << 20) - 5] {
            let mut part = [0; 5];
            file.read_exact_at(&mut part, at as u64).unwrap();
            assert_eq!(part, content[at..at + 5]);
        }
        assert_eq!(file.read_at(&mut [0; 10], 20 << 20).unwrap(), 0);
        file.sync_all().unwrap();
        file.sync_data().unwrap();
    });
}

#[test]
fn appends_go_to_the_end() {
    agree(&["f a = start\\n"], |m| {
        let open = || OpenOptions::new().append(true).open(m.join("a")).unwrap();
        let (mut one, mut two) = (open(), open());
        for i in 0..50 {
            writeln!(one, "one {i}").unwrap();
            writeln!(two, "two {i}").unwrap();
        }
        assert_eq!(read(m.join("a")).lines().count(), 101);
    });
}

#[test]
fn holes_are_found_and_stay() {
    agree(&["d d"], |m| {
        let file = File::create_new(m.join("sparse")).unwrap();
        file.write_all_at(b"data", 1 << 20).unwrap();
        file.set_len(4 << 20).unwrap();
        file.sync_all().unwrap();
        assert_eq!(lseek(&file, 0, Whence::SeekData).unwrap(), 1 << 20);
        assert!(lseek(&file, 1 << 20, Whence::SeekHole).unwrap() < 2 << 20);
        assert_eq!(lseek(&file, 3 << 20, Whence::SeekData), Err(Errno::ENXIO));
        assert!(file.metadata().unwrap().blocks() < 1000);
    });
}

#[test]
fn space_is_reserved_punched_and_zeroed() {
    agree(&["f lower = 0123456789"], |m| {
        let file = both(m.join("lower"));
        fallocate(&file, FallocateFlags::empty(), 0, 8192).unwrap();
        assert_eq!(file.metadata().unwrap().len(), 8192);
        let keep = FallocateFlags::FALLOC_FL_KEEP_SIZE;
        fallocate(&file, keep, 8192, 4096).unwrap();
        assert_eq!(file.metadata().unwrap().len(), 8192);
        fallocate(&file, keep | FallocateFlags::FALLOC_FL_PUNCH_HOLE, 0, 4).unwrap();
        let mut start = [1; 10];
        file.read_exact_at(&mut start, 0).unwrap();
        assert_eq!(&start, b"\0\0\0\x00456789");
        fallocate(&file, FallocateFlags::FALLOC_FL_ZERO_RANGE, 4, 4).unwrap();
        file.read_exact_at(&mut start, 0).unwrap();
        assert_eq!(&start, b"\0\0\0\0\0\0\0\x0089");
    });
}

#[test]
fn ranges_are_copied_between_files() {
    agree(&["f from = 0123456789\nf to = ----------"], |m| {
        let (from, to) = (File::open(m.join("from")).unwrap(), both(m.join("to")));
        let (mut at, mut into) = (2, 4);
        assert_eq!(
            copy_file_range(&from, Some(&mut at), &to, Some(&mut into), 5).unwrap(),
            5
        );
        assert_eq!(read(m.join("to")), "----23456-");
        let own = both(m.join("from"));
        let (mut at, mut into) = (0, 10);
        copy_file_range(&own, Some(&mut at), &own, Some(&mut into), 10).unwrap();
        assert_eq!(read(m.join("from")), "01234567890123456789");
    });
}

#[test]
fn programs_are_executed() {
    agree(&["d bin"], |m| {
        fs::copy("/bin/true", m.join("bin/prog")).unwrap();
        run(m, m.join("bin/prog").to_str().unwrap(), &[]);
        run(
            m,
            "sh",
            &[
                "-c",
                "printf '#!/bin/sh\\necho ran' >s; chmod +x s; ./s | grep -q ran",
            ],
        );
    });
}

#[test]
fn flags_of_open_are_kept() {
    agree(&["f a = content\nd d\nl l -> a"], |m| {
        let open = |flags: i32, name: &str| {
            OpenOptions::new()
                .read(true)
                .custom_flags(flags)
                .open(m.join(name))
        };
        let (nofollow, directory) = (
            nix::fcntl::OFlag::O_NOFOLLOW.bits(),
            nix::fcntl::OFlag::O_DIRECTORY.bits(),
        );
        assert_eq!(errno(open(nofollow, "l")), Errno::ELOOP);
        assert_eq!(errno(open(directory, "a")), Errno::ENOTDIR);
        assert!(open(directory, "d").is_ok());
        assert_eq!(
            errno(OpenOptions::new().write(true).open(m.join("d"))),
            Errno::EISDIR
        );
        let reader = File::open(m.join("a")).unwrap();
        assert_eq!(errno(reader.write_at(b"x", 0)), Errno::EBADF);
        assert_eq!(errno((&reader).seek(SeekFrom::Current(-1))), Errno::EINVAL);
    });
}

#[test]
fn setuid_goes_when_another_user_writes() {
    agree(&["f a = program\nm 6777 a\nf b = program\nm 6777 b"], |m| {
        let (ok, out) = crate::support::as_user(m, "echo more >>a; : >b; stat -c %a a b");
        assert_eq!((ok, out.as_str()), (true, "777\n777\n"));
    });
    agree(&["f a = program\nm 6777 a"], |m| {
        run(m, "sh", &["-c", "echo more >>a"]);
        assert_eq!(fs::metadata(m.join("a")).unwrap().mode() & 0o7777, 0o6777);
    });
}

#[test]
fn writing_moves_the_mtime_and_reading_does_not() {
    agree(&["f a = 1\nt 50 a\nf b = 2\nt 51 b"], |m| {
        assert_eq!(read(m.join("b")), "2");
        both(m.join("a")).write_all_at(b"x", 0).unwrap();
        assert!(fs::metadata(m.join("a")).unwrap().mtime() > 50);
        assert_eq!(fs::metadata(m.join("b")).unwrap().mtime(), 51);
    });
}

#[test]
fn many_threads_work_on_their_own_files() {
    agree(&["d d"], |m| {
        std::thread::scope(|scope| {
            for t in 0..8 {
                scope.spawn(move || {
                    for i in 0..40 {
                        let path = m.join(format!("d/{t}-{i}"));
                        let content = pattern(1000 * (i + 1));
                        fs::write(&path, &content).unwrap();
                        assert!(fs::read(&path).unwrap() == content);
                        if i % 3 == 0 {
                            fs::remove_file(&path).unwrap();
                        } else if i % 3 == 1 {
                            fs::rename(&path, m.join(format!("d/{t}-{i}-moved"))).unwrap();
                        }
                    }
                });
            }
        });
        assert_eq!(fs::read_dir(m.join("d")).unwrap().count(), 8 * 26);
    });
}

#[test]
fn a_reader_and_a_writer_share_a_file() {
    agree(&["d d"], |m| {
        let mut writer = File::create_new(m.join("log")).unwrap();
        let mut reader = File::open(m.join("log")).unwrap();
        let mut text = String::new();
        for i in 0..100 {
            writeln!(writer, "line {i}").unwrap();
            reader.read_to_string(&mut text).unwrap();
            assert!(text.ends_with(&format!("line {i}\n")));
        }
    });
}
