//! Kills the daemon after the N-th step of one request, for each N and each kind of request.
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
use nix::sys::stat::{Mode, SFlag, mknod};
use plyfs_testkit::Stack;
use rustix::fs::{XattrFlags, removexattr, setxattr};

use super::guarded::Guarded;
use crate::support::{names, read};

/// A kind of request: how the kernel calls it, how to make ready for it in an empty directory, the
/// call, and what must be there afterwards.
pub(super) struct Case {
    request: &'static str,
    name: &'static str,
    ready: fn(&Path),
    call: fn(&Path),
    then: fn(&Path),
}

const fn case(
    request: &'static str,
    name: &'static str,
    ready: fn(&Path),
    call: fn(&Path),
    then: fn(&Path),
) -> Case {
    Case {
        request,
        name,
        ready,
        call,
        then,
    }
}

fn nothing(_: &Path) {}

fn one_file(d: &Path) {
    fs::write(d.join("f"), "text").unwrap();
}

fn exchange(d: &Path, a: &str, b: &str) {
    let flags = RenameFlags::RENAME_EXCHANGE;
    renameat2(AT_FDCWD, &d.join(a), AT_FDCWD, &d.join(b), flags).unwrap();
}

/// The lower has `l` = lower, `dir/in` and `empty/` in each directory `dN`.
pub(super) const CASES: [Case; 20] = [
    case(
        "mknod",
        "file",
        nothing,
        |d| drop(File::create_new(d.join("f")).unwrap()),
        |d| assert_eq!(fs::metadata(d.join("f")).unwrap().nlink(), 1),
    ),
    case(
        "mknod",
        "over a whiteout",
        |d| fs::remove_file(d.join("l")).unwrap(),
        |d| mknod(&d.join("l"), SFlag::S_IFIFO, Mode::S_IRUSR, 0).unwrap(),
        |d| assert!(!d.join("l").is_file()),
    ),
    case(
        "mkdir",
        "directory",
        nothing,
        |d| fs::create_dir(d.join("n")).unwrap(),
        |d| assert_eq!(names(d.join("n")), Vec::<String>::new()),
    ),
    case(
        "mkdir",
        "over a whiteout",
        |d| fs::remove_dir_all(d.join("dir")).unwrap(),
        |d| fs::create_dir(d.join("dir")).unwrap(),
        |d| assert_eq!(names(d.join("dir")), Vec::<String>::new()),
    ),
    case(
        "symlink",
        "link",
        nothing,
        |d| symlink("target", d.join("s")).unwrap(),
        |d| assert_eq!(fs::read_link(d.join("s")).unwrap(), Path::new("target")),
    ),
    case(
        "link",
        "upper",
        one_file,
        |d| fs::hard_link(d.join("f"), d.join("g")).unwrap(),
        |d| assert_eq!(fs::metadata(d.join("g")).unwrap().nlink(), 2),
    ),
    case(
        "link",
        "lower",
        nothing,
        |d| fs::hard_link(d.join("l"), d.join("g")).unwrap(),
        |d| assert_eq!(read(d.join("g")), "lower"),
    ),
    case(
        "unlink",
        "upper",
        one_file,
        |d| unlink_open(d, "f", "text"),
        |d| assert!(!d.join("f").exists()),
    ),
    case(
        "unlink",
        "lower",
        nothing,
        |d| unlink_open(d, "l", "lower"),
        |d| assert!(!d.join("l").exists()),
    ),
    case(
        "unlink",
        "one of two names",
        |d| {
            one_file(d);
            fs::hard_link(d.join("f"), d.join("g")).unwrap();
        },
        |d| fs::remove_file(d.join("f")).unwrap(),
        |d| {
            assert!(!d.join("f").exists());
            assert_eq!(read(d.join("g")), "text");
        },
    ),
    case(
        "rmdir",
        "lower",
        nothing,
        |d| fs::remove_dir(d.join("empty")).unwrap(),
        |d| assert!(!d.join("empty").exists()),
    ),
    case(
        "rmdir",
        "merged",
        |d| fs::remove_file(d.join("dir/in")).unwrap(),
        |d| fs::remove_dir(d.join("dir")).unwrap(),
        |d| assert!(!d.join("dir").exists()),
    ),
    case(
        "rename",
        "file",
        one_file,
        |d| fs::rename(d.join("f"), d.join("g")).unwrap(),
        |d| {
            assert!(!d.join("f").exists());
            assert_eq!(read(d.join("g")), "text");
        },
    ),
    case(
        "rename",
        "lower over lower",
        |d| fs::write(d.join("x"), "x").unwrap(),
        |d| {
            let open = File::open(d.join("l")).unwrap();
            fs::rename(d.join("x"), d.join("l")).unwrap();
            assert_eq!(std::io::read_to_string(open).unwrap(), "lower");
        },
        |d| {
            assert!(!d.join("x").exists());
            assert_eq!(read(d.join("l")), "x");
        },
    ),
    case(
        "rename",
        "lower file",
        nothing,
        |d| fs::rename(d.join("l"), d.join("dir/moved")).unwrap(),
        |d| {
            assert!(!d.join("l").exists());
            assert_eq!(read(d.join("dir/moved")), "lower");
        },
    ),
    case(
        "rename",
        "lower directory",
        nothing,
        |d| fs::rename(d.join("dir"), d.join("moved")).unwrap(),
        |d| {
            assert!(!d.join("dir").exists());
            assert_eq!(read(d.join("moved/in")), "inner");
        },
    ),
    case(
        "rename",
        "exchange",
        one_file,
        |d| exchange(d, "f", "dir"),
        |d| {
            assert_eq!(read(d.join("dir")), "text");
            assert_eq!(read(d.join("f/in")), "inner");
        },
    ),
    case(
        "setattr",
        "copies up",
        nothing,
        |d| fs::set_permissions(d.join("l"), fs::Permissions::from_mode(0o600)).unwrap(),
        |d| {
            assert_eq!(fs::metadata(d.join("l")).unwrap().mode() & 0o777, 0o600);
            assert_eq!(read(d.join("l")), "lower");
        },
    ),
    case(
        "setxattr",
        "create",
        nothing,
        |d| setxattr(d.join("l"), "user.x", b"v", XattrFlags::CREATE).unwrap(),
        |d| assert!(setxattr(d.join("l"), "user.x", b"v", XattrFlags::CREATE).is_err()),
    ),
    case(
        "removexattr",
        "remove",
        |d| setxattr(d.join("l"), "user.x", b"v", XattrFlags::empty()).unwrap(),
        |d| removexattr(d.join("l"), "user.x").unwrap(),
        |d| assert!(removexattr(d.join("l"), "user.x").is_err()),
    ),
];

/// The requests that only a mount with data=passthrough answers.
pub(super) const PASSED_CASES: [Case; 5] = [
    case(
        "create",
        "file",
        nothing,
        |d| {
            let mut file = File::create_new(d.join("f")).unwrap();
            file.write_all(b"text").unwrap();
        },
        |d| {
            assert_eq!(fs::metadata(d.join("f")).unwrap().nlink(), 1);
            assert_eq!(read(d.join("f")), "text");
        },
    ),
    case(
        "open",
        "to read",
        nothing,
        |d| assert_eq!(read(d.join("l")), "lower"),
        |d| assert_eq!(read(d.join("l")), "lower"),
    ),
    case(
        "open",
        "copies up",
        nothing,
        |d| {
            let mut file = File::options().append(true).open(d.join("l")).unwrap();
            file.write_all(b" and upper").unwrap();
        },
        |d| assert_eq!(read(d.join("l")), "lower and upper"),
    ),
    case(
        "open",
        "cuts",
        one_file,
        |d| fs::write(d.join("f"), "new").unwrap(),
        |d| {
            assert_eq!(read(d.join("f")), "new");
        },
    ),
    // The writer is sent to a second inode, whose file is not the one that the reader has.
    case(
        "open",
        "beside a reader from before",
        nothing,
        |d| {
            let before = File::open(d.join("l")).unwrap();
            let mut file = File::options().append(true).open(d.join("l")).unwrap();
            file.write_all(b" and upper").unwrap();
            assert_eq!(read(d.join("l")), "lower and upper");
            assert_eq!(std::io::read_to_string(&before).unwrap(), "lower");
        },
        |d| assert_eq!(read(d.join("l")), "lower and upper"),
    ),
];

/// What is open when its last name goes keeps its data.
fn unlink_open(d: &Path, name: &str, text: &str) {
    let open = File::open(d.join(name)).unwrap();
    fs::remove_file(d.join(name)).unwrap();
    assert_eq!(open.metadata().unwrap().nlink(), 0);
    assert_eq!(std::io::read_to_string(open).unwrap(), text);
}

/// More steps than any request has; one that needs more would never be done.
const MOST: usize = 400;

/// Kills after each step of each case; at least `least` daemons die of it.
pub(super) fn all(cases: &[Case], options: &str, least: u64) {
    let stack = Stack::new(1);
    let plant = |i: usize| {
        let dir = stack.lower(0).join(format!("d{i}"));
        fs::create_dir(&dir).unwrap();
        plyfs_testkit::plant(&dir, "f l = lower\nd dir\nf dir/in = inner\nd empty");
    };
    // Lowers do not change while they are mounted, so all directories are there before.
    (0..2000).for_each(plant);
    let m = Guarded::mount(&stack, options);
    let mut next = 0;
    let mut died = 0;
    for case in cases {
        let mut steps = 0;
        loop {
            steps += 1;
            assert!(steps < MOST, "{} {} never ends", case.request, case.name);
            let dir = m.path().join(format!("d{next}"));
            next += 1;
            (case.ready)(&dir);
            let before = m.pid();
            m.ask(&format!("die {} {steps}", case.request));
            println!("{} {}: step {steps}", case.request, case.name);
            (case.call)(&dir);
            if m.pid() == before {
                // It is done in fewer steps; the daemon is not to die of another request.
                m.ask("die nothing 0");
                (case.then)(&dir);
                break;
            }
            died += 1;
            (case.then)(&dir);
            m.forget_caches();
            (case.then)(&dir);
        }
    }
    println!("{died} deaths in {} kinds of requests", cases.len());
    assert!(died > least);
    assert_eq!(m.restarts(), died);
    m.unmount();
}
