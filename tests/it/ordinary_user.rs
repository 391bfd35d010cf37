//! Mounts of an ordinary user, by way of fusermount3: no capability, no device, marks of its own.
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use plyfs_testkit::{Stack, bin, mounted_at, need, need_fuse, wait_until};

use crate::support::{errno, names, read};

const USER: u32 = 1000;

/// Shows, to this test alone, `path` as an ordinary machine has it.
fn shown(stack: &Stack, name: &str, path: &str) -> PathBuf {
    let own = stack.dir().join(name);
    if !own.exists() {
        fs::write(&own, "").unwrap();
    }
    mount(
        Some(&own),
        path,
        None::<&str>,
        MsFlags::MS_BIND,
        None::<&str>,
    )
    .unwrap();
    own
}

/// A stack whose directories belong to the user, on a machine where everybody may open /dev/fuse.
fn machine(specs: &[&str], fuse_conf: &str) -> Stack {
    let stack = Stack::planted(specs);
    let everybody = Mode::from_bits_truncate(0o666);
    let device = stack.dir().join("fuse");
    mknod(&device, SFlag::S_IFCHR, everybody, makedev(10, 229)).unwrap();
    fs::set_permissions(&device, fs::Permissions::from_mode(0o666)).unwrap();
    shown(&stack, "fuse", "/dev/fuse");
    fs::write(stack.dir().join("fuse.conf"), fuse_conf).unwrap();
    shown(&stack, "fuse.conf", "/etc/fuse.conf");
    for dir in [stack.upper(), stack.work(), stack.mnt()] {
        chown(dir, Some(USER), Some(USER)).unwrap();
    }
    stack
}

/// Runs a program as the user.
fn by_user(program: &Path, words: &[&str]) -> Output {
    Command::new("setpriv")
        .args([
            "--reuid=1000",
            "--regid=1000",
            "--clear-groups",
            "--inh-caps=-all",
        ])
        .arg(program)
        .args(words)
        .env("XDG_RUNTIME_DIR", "/nowhere")
        .output()
        .unwrap()
}

fn said(out: &Output) -> String {
    String::from_utf8_lossy(&[out.stdout.as_slice(), &out.stderr].concat()).into_owned()
}

#[test]
fn a_user_mounts_works_and_unmounts() {
    need_fuse!();
    need!("fusermount3");
    let mine = ["d", "d/a", "d/b", "gone", "tree", "tree/x", "tree/x/y"]
        .map(|n| format!("u 1000:1000 {n}"));
    let lower = format!(
        "f d/a = 1\nf d/b = 2\nf gone = 3\nf tree/x/y = 4\n{}\nf root = 5\nm 644 root",
        mine.join("\n")
    );
    let lowers = [lower.as_str()];
    let stack = machine(&lowers, "");
    let (mnt, options) = (stack.mnt(), stack.options("").into_string().unwrap());
    let mnt_text = mnt.to_str().unwrap();
    let program = bin();
    for round in 0..2 {
        let out = by_user(&program, &["-o", &options, mnt_text]);
        assert!(out.status.success(), "{}", said(&out));
        assert_eq!(mounted_at(&mnt).as_deref(), Some("fuse.plyfs"));
        let script = match round {
            0 => "cat d/a root && echo more >>d/a && rm gone && rm -r tree && mkdir tree && mv d/b moved &&
                  ln d/a linked && ln -s a d/link && mkfifo pipe && chmod 700 d && test ! -e tree/x &&
                  ! chown 0 d/a 2>/dev/null && ! mknod dev c 1 3 2>/dev/null && echo x >new",
            _ => "test ! -e gone && test -z \"$(ls -A tree)\" && cat d/a moved && test -p pipe && stat -c %u:%h linked",
        };
        // The kernel keeps all others out, root included.
        assert_eq!(errno(fs::read_dir(&mnt)), Errno::EACCES);
        let script = format!("cd {mnt_text} && {script}");
        let out = by_user(Path::new("sh"), &["-c", &script]);
        assert!(out.status.success(), "round {round}: {}", said(&out));
        let out = by_user(Path::new("fusermount3"), &["-u", mnt_text]);
        assert!(out.status.success(), "{}", said(&out));
        assert_eq!(mounted_at(&mnt), None);
        wait_until("the upper is let go of", || {
            let work = fs::File::open(stack.work()).unwrap();
            nix::fcntl::Flock::lock(work, nix::fcntl::FlockArg::LockExclusiveNonblock).is_ok()
        });
    }
    // Marks that a user may set, and whiteouts without privilege.
    let upper = stack.upper();
    let opaque = xattr::get(upper.join("tree"), "user.overlay.opaque").unwrap();
    assert_eq!(opaque.as_deref(), Some(&b"y"[..]));
    assert_eq!(
        fs::metadata(upper.join("gone")).map(|m| m.rdev()).unwrap(),
        0
    );
    assert_eq!(read(upper.join("d/a")), "1more\n");
    stack.assert_lowers_unchanged();
}

/// A daemon that gains no rights may not use fusermount3: the process outside of its sandbox does.
#[test]
fn a_users_daemon_is_confined_and_unmounts_when_asked_to_stop() {
    need_fuse!();
    need!("fusermount3");
    let stack = machine(&["f a = 1\nu 1000:1000 a"], "");
    let (mnt, options) = (stack.mnt(), stack.options("").into_string().unwrap());
    let mnt_text = mnt.to_str().unwrap();
    let out = by_user(&bin(), &["-o", &options, mnt_text]);
    assert!(out.status.success(), "{}", said(&out));
    let script = format!(
        "echo more >>{mnt_text}/a
         for pid in $(pgrep -f -x -u 1000 '.* {mnt_text}'); do
             test \"$(cat /proc/$pid/comm)\" = plyfs && break
         done
         grep -q 'NoNewPrivs:.*1' /proc/$pid/status && grep -q 'Seccomp:.*2' /proc/$pid/status
         kill -TERM $pid"
    );
    let out = by_user(Path::new("sh"), &["-ec", &script]);
    assert!(out.status.success(), "{}", said(&out));
    wait_until("the mount is gone", || mounted_at(&mnt).is_none());
    assert_eq!(read(stack.upper().join("a")), "1more\n");
}

#[test]
fn others_are_let_in_where_the_machine_allows_it() {
    need_fuse!();
    need!("fusermount3");
    let stack = machine(&["f a = 1"], "# nothing\n");
    let (mnt, options) = (
        stack.mnt(),
        stack.options("allow_other").into_string().unwrap(),
    );
    let mnt_text = mnt.to_str().unwrap();
    let program = bin();
    let out = by_user(&program, &["-o", &options, mnt_text]);
    assert!(!out.status.success());
    assert!(said(&out).contains("user_allow_other"), "{}", said(&out));
    assert_eq!(mounted_at(&mnt), None);
    fs::write(stack.dir().join("fuse.conf"), "user_allow_other\n").unwrap();
    let out = by_user(&program, &["-o", &options, mnt_text]);
    assert!(out.status.success(), "{}", said(&out));
    // Root, and somebody who is neither.
    assert_eq!(names(&mnt), ["a"]);
    let other = Command::new("setpriv")
        .args(["--reuid=1001", "--regid=1001", "--clear-groups", "cat"])
        .arg(mnt.join("a"))
        .output()
        .unwrap();
    assert_eq!(said(&other), "1");
    let out = by_user(&program, &["umount", mnt_text]);
    assert!(out.status.success(), "{}", said(&out));
    assert_eq!(mounted_at(&mnt), None);
}
