//! Mappings beside calls, direct I/O, appends by many, holes, and what fallocate cannot do here.
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{FileExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::process::Command;

use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, fallocate};
use nix::unistd::{Whence, lseek};
use plyfs_tests::fsx::Mapping;

use super::both;
use plyfs_testkit::{Stack, mount_plyfs, need_fuse};

use crate::support::{agree, on_plyfs, read};

const PAGE: usize = 4096;

#[test]
fn mappings_and_calls_see_each_other() {
    agree(&["d d"], |m| {
        fs::write(m.join("f"), vec![b'.'; 3 * PAGE]).unwrap();
        let (one, two) = (both(m.join("f")), both(m.join("f")));
        let (first, second) = (
            Mapping::writable(&one, 3 * PAGE).unwrap(),
            Mapping::readable(&two, 3 * PAGE).unwrap(),
        );
        first.write(PAGE - 3, b"mapped").unwrap();
        assert_eq!(second.read(PAGE - 3, 6).unwrap(), b"mapped");
        let mut seen = [0; 6];
        two.read_exact_at(&mut seen, PAGE as u64 - 3).unwrap();
        assert_eq!(&seen, b"mapped");
        two.write_all_at(b"called", 2 * PAGE as u64).unwrap();
        assert_eq!(first.read(2 * PAGE, 6).unwrap(), b"called");
        drop((one, two));
        first.write(0, b"after close").unwrap();
        assert!(read(m.join("f")).starts_with("after close"));
    });
}

/// Kernel overlayfs leaves a mapping from before copy-up on the lower file.
#[test]
fn mappings_see_what_is_written_after_copy_up() {
    let text = ".".repeat(3 * PAGE);
    on_plyfs(&[&format!("f f = {text}")], "", |stack, m| {
        let before = Mapping::readable(&File::open(m.join("f")).unwrap(), 3 * PAGE).unwrap();
        assert_eq!(before.read(PAGE, 4).unwrap(), b"....");
        let writer = both(m.join("f"));
        let by_writer = Mapping::writable(&writer, 3 * PAGE).unwrap();
        writer.write_all_at(b"call", PAGE as u64).unwrap();
        assert_eq!(before.read(PAGE, 4).unwrap(), b"call");
        by_writer.write(2 * PAGE, b"map").unwrap();
        assert_eq!(before.read(2 * PAGE, 3).unwrap(), b"map");
        writer.set_len(PAGE as u64 + 2).unwrap();
        assert_eq!(before.read(PAGE, 4).unwrap(), b"ca\0\0");
        assert_eq!(read(stack.lower(0).join("f")), text);
    });
}

#[test]
fn direct_io_and_the_page_cache_agree() {
    agree(&["d d"], |m| {
        let path = m.join("f");
        fs::write(&path, vec![1; 8 * PAGE]).unwrap();
        let direct = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_DIRECT)
            .open(&path);
        let direct = direct.unwrap();
        let mut room = vec![2; 3 * PAGE];
        let skip = room.as_ptr().align_offset(PAGE);
        let buffer = &mut room[skip..skip + 2 * PAGE];
        direct.write_all_at(buffer, PAGE as u64).unwrap();
        assert_eq!(fs::read(&path).unwrap()[PAGE..3 * PAGE], [2; 2 * PAGE]);
        both(&path)
            .write_all_at(&[3; PAGE], 2 * PAGE as u64)
            .unwrap();
        direct.read_exact_at(buffer, 2 * PAGE as u64).unwrap();
        assert_eq!((buffer[0], buffer[PAGE]), (3, 1));
        // At the end, and behind it.
        assert_eq!(direct.read_at(buffer, 8 * PAGE as u64).unwrap(), 0);
        direct.write_all_at(buffer, 10 * PAGE as u64).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().len(), 12 * PAGE as u64);
    });
}

#[test]
fn appends_of_many_do_not_overwrite_each_other() {
    agree(&["f log = begin\\n"], |m| {
        let by_thread = |number: usize| {
            let mut log = OpenOptions::new().append(true).open(m.join("log")).unwrap();
            for line in 0..200 {
                let text = format!("thread {number} line {line} {}\n", "x".repeat(line % 40));
                assert_eq!(log.write(text.as_bytes()).unwrap(), text.len());
            }
        };
        let script = "for i in $(seq 50); do echo process $0 line $i >>log; done";
        let processes: Vec<_> = (0..3)
            .map(|i| {
                Command::new("sh")
                    .args(["-c", script, &i.to_string()])
                    .current_dir(m)
                    .spawn()
            })
            .collect();
        std::thread::scope(|scope| {
            for number in 0..6 {
                scope.spawn(move || by_thread(number));
            }
        });
        for process in processes {
            assert!(process.unwrap().wait().unwrap().success());
        }
        let log = read(m.join("log"));
        assert_eq!(log.lines().count(), 1 + 6 * 200 + 3 * 50);
        for number in 0..6 {
            let own = log
                .lines()
                .filter(|l| l.starts_with(&format!("thread {number} ")));
            let numbers = own.map(|l| l.split(' ').nth(3).unwrap().parse::<usize>().unwrap());
            assert!(numbers.eq(0..200), "the lines of thread {number}");
        }
        // The order in which they came is nobody's business.
        fs::write(m.join("log"), "").unwrap();
    });
}

fn data_at(path: &Path, from: i64) -> (Result<i64, Errno>, Result<i64, Errno>) {
    let file = File::open(path).unwrap();
    (
        lseek(&file, from, Whence::SeekData),
        lseek(&file, from, Whence::SeekHole),
    )
}

#[test]
fn holes_of_lower_files_are_told() {
    crate::long_tail::extremes::on_both(
        |layer| {
            let file = File::create(layer.join("f")).unwrap();
            file.set_len(8 << 20).unwrap();
            file.write_all_at(b"data", 4 << 20).unwrap();
        },
        |m| {
            let told = |path: &Path| {
                assert_eq!(data_at(path, 0), (Ok(4 << 20), Ok(0)));
                let (data, hole) = data_at(path, 4 << 20);
                // The file system may have reserved more than was written.
                assert!(
                    data == Ok(4 << 20) && hole.unwrap() <= 6 << 20,
                    "{data:?} {hole:?}"
                );
                assert_eq!(data_at(path, 7 << 20), (Err(Errno::ENXIO), Ok(7 << 20)));
                assert_eq!(
                    data_at(path, 8 << 20),
                    (Err(Errno::ENXIO), Err(Errno::ENXIO))
                );
            };
            told(&m.join("f"));
            fs::set_permissions(m.join("f"), fs::Permissions::from_mode(0o600)).unwrap();
            told(&m.join("f"));
        },
    );
}

/// The kernel's FUSE client passes on some kinds of fallocate only; kernel overlayfs all of them.
#[test]
fn what_the_fuse_client_cannot_do() {
    on_plyfs(&["d d"], "", |_, m| {
        let file = File::create_new(m.join("f")).unwrap();
        file.write_all_at(&[1; 4 * PAGE], 0).unwrap();
        for flags in [
            FallocateFlags::FALLOC_FL_COLLAPSE_RANGE,
            FallocateFlags::FALLOC_FL_INSERT_RANGE,
            FallocateFlags::FALLOC_FL_UNSHARE_RANGE,
        ] {
            let done = fallocate(&file, flags, PAGE as i64, PAGE as i64);
            assert_eq!(done, Err(Errno::EOPNOTSUPP), "{flags:?}");
        }
    });
}

/// What the kernel has not stored yet is data, whoever wrote it and in whatever layer the file is;
/// one thread must be enough to find that out.
#[test]
fn data_that_is_not_stored_yet_is_no_hole() {
    need_fuse!();
    let lower = |layer: &Path| {
        let file = File::create(layer.join("sparse")).unwrap();
        file.set_len(16 * PAGE as u64).unwrap();
    };
    for options in ["", "threads=1", "writeback=0"] {
        let stack = Stack::new(1);
        lower(stack.lower(0));
        let stack = stack.sealed();
        let m = mount_plyfs(&stack, options);
        File::create(m.join("new")).unwrap();
        for name in ["sparse", "new"] {
            let file = both(m.join(name));
            file.set_len(16 * PAGE as u64).unwrap();
            let seek =
                |from: usize, whence| lseek(&file, from as i64, whence).map(|at| at as usize);
            let map = Mapping::writable(&file, 16 * PAGE).unwrap();
            map.write(8 * PAGE, b"data").unwrap();
            assert_eq!(seek(0, Whence::SeekData), Ok(8 * PAGE), "{options} {name}");
            assert_eq!(
                seek(8 * PAGE, Whence::SeekHole),
                Ok(9 * PAGE),
                "{options} {name}"
            );
            file.write_all_at(b"data", 4 * PAGE as u64).unwrap();
            assert_eq!(seek(0, Whence::SeekHole), Ok(0), "{options} {name}");
            assert_eq!(seek(0, Whence::SeekData), Ok(4 * PAGE), "{options} {name}");
            file.write_all_at(&[1; 8 * PAGE], 9 * PAGE as u64).unwrap();
            assert_eq!(
                seek(8 * PAGE, Whence::SeekHole),
                Ok(17 * PAGE),
                "{options} {name}"
            );
            map.write(5 * PAGE, b"data").unwrap();
            assert_eq!(
                seek(4 * PAGE, Whence::SeekHole),
                Ok(6 * PAGE),
                "{options} {name}"
            );
        }
        m.unmount();
        stack.assert_lowers_unchanged();
    }
}
