//! Mounts that must be refused: one clear line, an exit status, and nothing changed on disk.
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use nix::mount::{MsFlags, mount};
use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use plyfs_testkit::{
    Rules, Stack, bin, diff_with, mount_kernel, mount_plyfs, mounted_at, need_fuse, need_overlay,
    need_root, snapshot, unmount, wait_until,
};

use crate::support::assert_ok;

/// The ordinary user that tests become.
const NOBODY: u32 = 65534;
/// Longer than the program waits for a directory in use, shorter than a hang.
const PATIENCE: &str = "30";

/// The program with a time limit: a mount that waits for itself must fail the test.
fn plyfs(program: &Path) -> Command {
    let mut command = Command::new("timeout");
    command
        .arg("--signal=KILL")
        .arg(PATIENCE)
        .arg(program)
        .stdin(Stdio::null());
    command
}

/// Words of `plyfs mount` for the directories of a stack, which a test then bends.
struct Words {
    lowers: Vec<PathBuf>,
    upper: Option<PathBuf>,
    work: Option<PathBuf>,
    mountpoint: PathBuf,
}

impl Words {
    fn of(stack: &Stack) -> Self {
        Self {
            lowers: stack.lowers().to_vec(),
            upper: Some(stack.upper()),
            work: Some(stack.work()),
            mountpoint: stack.mnt(),
        }
    }

    fn strict(&self) -> Vec<OsString> {
        let mut words = vec![OsString::from("mount")];
        let lowers = self.lowers.iter().map(|dir| ("--lower", dir));
        let upper = self.upper.iter().map(|dir| ("--upper", dir));
        let work = self.work.iter().map(|dir| ("--work", dir));
        for (word, dir) in lowers.chain(upper).chain(work) {
            words.extend([word.into(), dir.into()]);
        }
        words.push(self.mountpoint.clone().into());
        words
    }

    fn compat(&self) -> Vec<OsString> {
        let mut options = OsString::from("lowerdir=");
        for (i, lower) in self.lowers.iter().enumerate() {
            options.push(if i == 0 { "" } else { ":" });
            options.push(lower);
        }
        for (name, dir) in [(",upperdir=", &self.upper), (",workdir=", &self.work)] {
            if let Some(dir) = dir {
                options.push(name);
                options.push(dir);
            }
        }
        vec!["-o".into(), options, self.mountpoint.clone().into()]
    }
}

/// Asserts that the output is a failure told in one line that contains `want`.
fn assert_told(out: &Output, want: &str) {
    let said = String::from_utf8_lossy(&out.stderr);
    let code = out.status.code();
    assert!(
        matches!(code, Some(1 | 2)),
        "exit {code:?}, expected a refusal: {said}"
    );
    assert_eq!(
        said.trim_end().lines().count(),
        1,
        "more than one line: {said}"
    );
    assert!(said.contains(want), "{said:?} does not say {want:?}");
    assert!(out.stdout.is_empty(), "{:?}", out.stdout);
}

/// Both grammars refuse, say `want`, and change nothing below the stack's directory.
fn refused(stack: &Stack, words: &Words, want: &str) {
    let before = snapshot(stack.dir());
    for args in [words.strict(), words.compat()] {
        let out = plyfs(&bin()).args(&args).output().unwrap();
        assert_told(&out, want);
        assert_eq!(mounted_at(&stack.mnt()), None, "mounted in spite of {want}");
        let changes = diff_with(&before, &snapshot(stack.dir()), &Rules::exact());
        assert!(
            changes.is_empty(),
            "changed on disk:\n{}",
            changes.join("\n")
        );
    }
}

fn stack() -> (Stack, Words) {
    let stack = Stack::planted(&["f a = 1\nd d", "f b = 2"]);
    let words = Words::of(&stack);
    (stack, words)
}

#[test]
fn a_layer_that_is_missing() {
    let (stack, mut words) = stack();
    words.lowers[1] = stack.dir().join("nowhere");
    refused(&stack, &words, "nowhere\" does not exist");
    for role in ["upper", "workdir"] {
        let mut words = Words::of(&stack);
        let gone = Some(stack.dir().join("gone"));
        if role == "upper" {
            words.upper = gone
        } else {
            words.work = gone
        }
        refused(
            &stack,
            &words,
            &format!("{role} \"{}", stack.dir().join("gone").display()),
        );
    }
}

#[test]
fn a_layer_that_is_a_file() {
    let (stack, mut words) = stack();
    words.lowers[0] = stack.lower(0).join("a");
    refused(&stack, &words, "is not a directory");
    let mut words = Words::of(&stack);
    words.upper = Some(stack.lower(0).join("a"));
    refused(&stack, &words, "upper");
}

#[test]
fn a_layer_that_is_a_dangling_link() {
    let (stack, mut words) = stack();
    words.lowers[0] = stack.dir().join("link");
    symlink("nowhere", &words.lowers[0]).unwrap();
    refused(&stack, &words, "does not exist");
}

#[test]
fn a_layer_that_may_not_be_read() {
    need_root!();
    let (stack, words) = stack();
    fs::set_permissions(stack.lower(1), fs::Permissions::from_mode(0o711)).unwrap();
    let program = shared_program(&stack);
    let out = as_nobody(&program, &words);
    assert_told(&out, "cannot be read");
    assert!(
        String::from_utf8_lossy(&out.stderr).contains("/l1\""),
        "{out:?}"
    );
}

/// A copy of the program where every user can start it.
fn shared_program(stack: &Stack) -> PathBuf {
    let program = stack.dir().join("plyfs");
    fs::copy(bin(), &program).unwrap();
    program
}

fn as_nobody(program: &Path, words: &Words) -> Output {
    plyfs(program)
        .args(words.strict())
        .uid(NOBODY)
        .gid(NOBODY)
        .output()
        .unwrap()
}

#[test]
fn a_layer_given_twice() {
    let (stack, mut words) = stack();
    words.lowers.push(stack.lower(0).to_owned());
    refused(&stack, &words, "are the same directory");
    let mut words = Words::of(&stack);
    words.lowers.push(stack.dir().join("link"));
    symlink(stack.lower(1), stack.dir().join("link")).unwrap();
    refused(&stack, &words, "are the same directory");
}

#[test]
fn more_than_500_layers() {
    let (stack, mut words) = stack();
    words.lowers = (0..501)
        .map(|i| stack.dir().join(format!("n{i}")))
        .collect();
    words
        .lowers
        .iter()
        .for_each(|dir| fs::create_dir(dir).unwrap());
    refused(&stack, &words, "501 lower layers given: at most 500");
}

#[test]
fn no_layer_at_all() {
    let (stack, words) = stack();
    let out = plyfs(&bin())
        .args(["mount"])
        .arg(&words.mountpoint)
        .output()
        .unwrap();
    assert_told(&out, "no lower layer");
    let out = plyfs(&bin())
        .args(["-o", "ro"])
        .arg(stack.mnt())
        .output()
        .unwrap();
    assert_told(&out, "no lower layer");
}

#[test]
fn upper_without_workdir_and_the_other_way_round() {
    let (stack, mut words) = stack();
    words.work = None;
    refused(&stack, &words, "has no workdir");
    let mut words = Words::of(&stack);
    words.upper = None;
    refused(&stack, &words, "has no upper");
}

#[test]
fn a_workdir_on_another_file_system() {
    need_root!();
    let (stack, words) = stack();
    let none: Option<&str> = None;
    mount(
        Some("tmpfs"),
        &stack.work(),
        Some("tmpfs"),
        MsFlags::empty(),
        none,
    )
    .unwrap();
    refused(&stack, &words, "not on the same mounted file system");
    unmount(&stack.work()).unwrap();
}

#[test]
fn a_workdir_on_another_mount_of_the_same_file_system() {
    need_root!();
    let (stack, words) = stack();
    let other = stack.dir().join("other");
    fs::create_dir(&other).unwrap();
    let none: Option<&str> = None;
    mount(Some(&other), &stack.work(), none, MsFlags::MS_BIND, none).unwrap();
    refused(&stack, &words, "not on the same mounted file system");
    unmount(&stack.work()).unwrap();
}

#[test]
fn workdir_and_upper_within_each_other() {
    let (stack, mut words) = stack();
    words.work = Some(stack.upper().join("w"));
    fs::create_dir(stack.upper().join("w")).unwrap();
    refused(&stack, &words, "lies inside upper");
    words.upper = Some(stack.work().join("deep/u"));
    words.work = Some(stack.work());
    fs::create_dir_all(stack.work().join("deep/u")).unwrap();
    refused(&stack, &words, "lies inside workdir");
    words.upper = Some(stack.work());
    refused(&stack, &words, "are the same directory");
}

#[test]
fn an_upper_or_workdir_in_use_by_a_live_mount() {
    need_fuse!();
    let (stack, _) = stack();
    let live = mount_plyfs(&stack, "");
    let other = Stack::planted(&["f a"]);
    let spare = |name: &str| {
        let dir = stack.dir().join(name);
        fs::create_dir(&dir).unwrap();
        Some(dir)
    };
    let mut words = Words::of(&other);
    (words.upper, words.work) = (spare("upper2"), Some(stack.work()));
    refused(&other, &words, "workdir");
    let start = Instant::now();
    let out = plyfs(&bin()).args(words.strict()).output().unwrap();
    assert_told(&out, "in use by another mount");
    assert!(
        start.elapsed() >= Duration::from_secs(1),
        "it did not wait for a mount that ends"
    );
    (words.upper, words.work) = (Some(stack.upper()), spare("work2"));
    refused(&other, &words, "in use by another mount");
    live.unmount();
    let again = mount_plyfs(&stack, "");
    assert!(again.join("a").exists());
}

#[test]
fn a_workdir_whose_mount_is_just_ending_is_waited_for() {
    need_fuse!();
    let (stack, words) = stack();
    let live = mount_plyfs(&stack, "");
    let other = stack.dir().join("mnt2");
    fs::create_dir(&other).unwrap();
    let args = Words {
        mountpoint: other.clone(),
        ..words
    }
    .strict();
    let mut second = plyfs(&bin())
        .args(args)
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    std::thread::sleep(Duration::from_millis(300));
    live.unmount();
    assert!(second.wait().unwrap().success());
    assert!(other.join("a").exists());
    unmount(&other).unwrap();
}

#[test]
fn a_workdir_in_use_by_the_kernels_overlayfs() {
    need_root!();
    need_overlay!();
    let (stack, words) = stack();
    let live = mount_kernel(&stack, "");
    let other = stack.dir().join("mnt2");
    fs::create_dir(&other).unwrap();
    let out = plyfs(&bin())
        .args(
            Words {
                mountpoint: other,
                ..words
            }
            .strict(),
        )
        .output()
        .unwrap();
    assert_told(&out, "in use by another mount");
    live.unmount();
}

#[test]
fn an_upper_equal_to_a_lower_or_around_one() {
    let (stack, mut words) = stack();
    words.upper = Some(stack.lower(0).to_owned());
    refused(&stack, &words, "are the same directory");
    let inner = stack.upper().join("inner");
    fs::create_dir(&inner).unwrap();
    let mut words = Words::of(&stack);
    words.lowers[1] = inner;
    refused(&stack, &words, "lies inside upper");
}

#[test]
fn a_mountpoint_that_is_missing_or_a_file() {
    let (stack, mut words) = stack();
    words.mountpoint = stack.dir().join("nowhere");
    refused(&stack, &words, "mountpoint");
    words.mountpoint = stack.lower(0).join("a");
    refused(&stack, &words, "is not a directory");
}

#[test]
fn a_mountpoint_inside_what_is_written_does_not_hang() {
    let (stack, mut words) = stack();
    for dir in [stack.upper(), stack.work()] {
        words.mountpoint = dir.join("m/deep");
        fs::create_dir_all(&words.mountpoint).unwrap();
        refused(&stack, &words, "the mount would contain itself");
    }
}

#[test]
fn a_mountpoint_that_is_a_layer_itself_works() {
    need_fuse!();
    let (stack, mut words) = stack();
    for dir in [stack.lower(1).to_owned(), stack.upper()] {
        words.mountpoint.clone_from(&dir);
        let out = plyfs(&bin()).args(words.strict()).output().unwrap();
        assert_ok(&out);
        assert_eq!(fs::read_to_string(dir.join("a")).unwrap(), "1");
        assert_eq!(fs::read_to_string(dir.join("b")).unwrap(), "2");
        let out = plyfs(&bin()).arg("umount").arg(&dir).output().unwrap();
        assert_ok(&out);
    }
    stack.assert_lowers_unchanged();
}

/// Mounts in the foreground and kills the daemon, which leaves a dead mount.
fn kill_while_mounted(stack: &Stack, words: &[OsString]) {
    let mut child = Command::new(bin()).arg("-f").args(words).spawn().unwrap();
    wait_until("the mount answers", || stack.mnt().join("a").exists());
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn a_mountpoint_with_a_dead_mount() {
    need_fuse!();
    let (stack, words) = stack();
    kill_while_mounted(&stack, &words.compat());
    let out = plyfs(&bin()).args(words.strict()).output().unwrap();
    assert_told(&out, "holds a dead FUSE mount");
    unmount(&stack.mnt()).unwrap();
}

#[test]
fn dev_fuse_missing() {
    need_root!();
    let (stack, words) = stack();
    // In the mount namespace of this thread alone (Stack::new).
    let none: Option<&str> = None;
    mount(Some("tmpfs"), "/dev", Some("tmpfs"), MsFlags::empty(), none).unwrap();
    mknod(
        "/dev/null",
        SFlag::S_IFCHR,
        Mode::from_bits_truncate(0o666),
        makedev(1, 3),
    )
    .unwrap();
    refused(&stack, &words, "/dev/fuse does not exist");
    unmount(Path::new("/dev")).unwrap();
}

#[test]
fn dev_fuse_not_permitted() {
    need_root!();
    let (stack, words) = stack();
    let program = shared_program(&stack);
    let node = stack.dir().join("fuse");
    mknod(
        &node,
        SFlag::S_IFCHR,
        Mode::from_bits_truncate(0o600),
        makedev(10, 229),
    )
    .unwrap();
    let none: Option<&str> = None;
    mount(Some(&node), "/dev/fuse", none, MsFlags::MS_BIND, none).unwrap();
    assert_told(&as_nobody(&program, &words), "/dev/fuse may not be opened");
    unmount(Path::new("/dev/fuse")).unwrap();
}

#[test]
fn a_broken_option_string() {
    let (stack, _) = stack();
    let (l, m) = (stack.lower(0).display().to_string(), stack.mnt());
    for (options, want) in [
        ("lowerdir", "needs a value"),
        ("lowerdir=", "needs a value"),
        (&format!("lowerdir={l}::"), "is not understood"),
        (&format!("lowerdir={l},=x"), "has no name"),
        (&format!("lowerdir={l},ro=1"), "takes no value"),
        (&format!("lowerdir={l},timeout=soon"), "expected seconds"),
        (&format!("lowerdir={l},threads=0"), "expected a number"),
        (&format!("lowerdir={l},context=\"a,b"), "has no partner"),
        (
            &format!("lowerdir={l},redirect_dir=maybe"),
            "expected on, follow",
        ),
    ] {
        for words in [vec!["-o", options], vec!["mount", "-o", options]] {
            let out = plyfs(&bin()).args(&words).arg(&m).output().unwrap();
            assert_told(&out, want);
        }
    }
    for words in [
        &["-o"][..],
        &["-o", "lowerdir=/"],
        &["-o", "lowerdir=/", "a", "b", "c"],
    ] {
        let out = plyfs(&bin()).args(words).output().unwrap();
        assert_told(&out, "");
    }
    assert_eq!(mounted_at(&m), None);
}

#[test]
fn an_unknown_option_is_an_error_that_suggests_one() {
    let (stack, words) = stack();
    for (option, want) in [
        ("upprdir=/x", "did you mean \"upperdir\"?"),
        ("volatle", "did you mean \"volatile\"?"),
        ("ino32_t", "has no effect"),
        ("uidmapping=0:1", "DISK:SHOWN:COUNT"),
        ("frobnicate", "unknown mount option"),
    ] {
        let mut args = words.strict();
        args.splice(1..1, [OsString::from("-o"), option.into()]);
        let out = plyfs(&bin()).args(&args).output().unwrap();
        assert_told(&out, want);
    }
    let out = plyfs(&bin())
        .args([OsStr::new("mont")])
        .arg(stack.mnt())
        .output()
        .unwrap();
    assert_eq!(out.status.code(), Some(2));
    assert!(
        String::from_utf8_lossy(&out.stderr).contains("mount"),
        "{out:?}"
    );
}

#[test]
fn layers_given_in_two_ways_at_once() {
    let (stack, words) = stack();
    let mut args = words.strict();
    let twice = format!("upperdir={}", stack.upper().display());
    args.splice(1..1, [OsString::from("-o"), twice.into()]);
    assert_told(
        &plyfs(&bin()).args(&args).output().unwrap(),
        "leave one out",
    );
}

#[test]
fn the_workdir_of_a_volatile_mount_that_was_killed() {
    need_fuse!();
    let (stack, words) = stack();
    mount_plyfs(&stack, "volatile").unmount();
    mount_plyfs(&stack, "volatile").unmount();
    let mut options = words.compat();
    options[1].push(",volatile");
    kill_while_mounted(&stack, &options);
    unmount(&stack.mnt()).unwrap();
    refused(&stack, &words, "volatile");
    // What containers/storage removes before it mounts.
    fs::remove_dir_all(stack.work().join("work/incompat/volatile")).unwrap();
    mount_plyfs(&stack, "").unmount();
}
