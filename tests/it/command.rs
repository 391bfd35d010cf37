//! The command line: grammar, output and exit codes.
use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use plyfs_testkit::{
    Stack, bin, mount_plyfs, mounted_at, need_fuse, need_root, plant, unmount, wait_until,
};

use crate::support::{assert_ok, names, read};

fn run(program: &Path, words: &[&str]) -> Output {
    Command::new(program)
        .args(words)
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Unmounts by the command, which waits for the daemon.
fn umount(mnt: &Path) {
    let out = Command::new(bin()).arg("umount").arg(mnt).output().unwrap();
    assert_eq!(assert_ok(&out), "");
    assert_eq!(mounted_at(mnt), None);
}

fn stack() -> Stack {
    Stack::planted(&["f a = 1\nf d/x = 2", "f b = 3\nf d/y = 4"])
}

/// `lowerdir=L0:L1,upperdir=U,workdir=W` of the stack.
fn layers(stack: &Stack) -> String {
    stack
        .options("")
        .into_string()
        .unwrap()
        .trim_end_matches(',')
        .to_owned()
}

#[test]
fn the_strict_command_mounts_and_says_nothing() {
    need_fuse!();
    let stack = stack();
    let mut command = Command::new(bin());
    command.arg("mount");
    for lower in stack.lowers() {
        command.arg("--lower").arg(lower);
    }
    command
        .arg("--upper")
        .arg(stack.upper())
        .arg("--work")
        .arg(stack.work());
    let out = command
        .args(["-o", "nodev,timeout=60"])
        .arg(stack.mnt())
        .output()
        .unwrap();
    assert_eq!(
        (assert_ok(&out), text(&out.stderr)),
        (String::new(), String::new())
    );
    assert_eq!(names(stack.mnt()), ["a", "b", "d"]);
    assert_eq!(names(stack.mnt().join("d")), ["x", "y"]);
    umount(&stack.mnt());
    assert_eq!(names(stack.mnt()), Vec::<String>::new());
}

#[test]
fn what_container_tools_pass_is_taken() {
    need_fuse!();
    for form in [
        "{layers},,volatile",
        "{layers},",
        "{layers},private",
        "{layers},context=\"system_u:object_r:container_file_t:s0:c1,c2\"",
        "{layers},userxattr,xino=off,metacopy=off,x-systemd.automount",
    ] {
        let stack = stack();
        let options = form.replace("{layers}", &layers(&stack));
        let out = run(&bin(), &["-o", &options, stack.mnt().to_str().unwrap()]);
        assert_eq!(assert_ok(&out), "", "{options}");
        assert_eq!(read(stack.mnt().join("d/y")), "4", "{options}");
        fs::write(stack.mnt().join("n"), "5").unwrap();
        umount(&stack.mnt());
        assert_eq!(read(stack.upper().join("n")), "5", "{options}");
    }
}

#[test]
fn an_unknown_option_is_a_warning_for_the_mount_program() {
    need_fuse!();
    let stack = stack();
    let options = format!("frobnicate=1,{},ino32_t,noauto", layers(&stack));
    let out = run(&bin(), &["-o", &options, stack.mnt().to_str().unwrap()]);
    assert_ok(&out);
    let said = text(&out.stderr);
    assert_eq!(said.lines().count(), 2, "{said}");
    assert!(
        said.contains("frobnicate") && said.contains("ino32_t"),
        "{said}"
    );
    umount(&stack.mnt());
}

#[test]
fn every_order_of_words_mounts() {
    need_fuse!();
    let stack = stack();
    let (layers, mnt) = (layers(&stack), stack.mnt());
    let mnt = mnt.to_str().unwrap();
    let (first, rest) = layers.split_once(',').unwrap();
    let glued = format!("-o{layers}");
    for words in [
        vec!["overlay", mnt, "-o", first, "-o", rest, "-o", "dev,suid"],
        vec![&glued, mnt],
        vec!["-o", &layers, "--", mnt],
        vec![mnt, "-o", &layers],
    ] {
        assert_eq!(assert_ok(&run(&bin(), &words)), "");
        assert_eq!(
            mounted_at(&stack.mnt()).as_deref(),
            Some("fuse.plyfs"),
            "{words:?}"
        );
        umount(&stack.mnt());
    }
}

/// The program under another name, as packages install it.
fn named(stack: &Stack, name: &str) -> PathBuf {
    let link = stack.dir().join(name);
    symlink(bin(), &link).unwrap();
    link
}

#[test]
fn called_as_fuse_overlayfs() {
    need_fuse!();
    let stack = stack();
    let program = named(&stack, "fuse-overlayfs");
    for word in ["--version", "-V"] {
        let version = assert_ok(&run(&program, &[word]));
        assert!(version.starts_with("fuse-overlayfs: version "), "{version}");
    }
    assert!(assert_ok(&run(&program, &["--help"])).contains("lowerdir="));
    let out = run(
        &program,
        &["-o", &layers(&stack), stack.mnt().to_str().unwrap()],
    );
    assert_ok(&out);
    assert_eq!(
        mounted_at(&stack.mnt()).as_deref(),
        Some("fuse.fuse-overlayfs")
    );
    umount(&stack.mnt());
}

#[test]
fn called_as_a_helper_of_mount() {
    need_fuse!();
    let stack = stack();
    let program = named(&stack, "mount.fuse.plyfs");
    let mnt = stack.mnt();
    let words = [
        "src",
        mnt.to_str().unwrap(),
        "-sv",
        "-o",
        &layers(&stack),
        "-t",
        "fuse.plyfs",
    ];
    assert_ok(&run(&program, &words));
    assert_eq!(mounted_at(&mnt).as_deref(), Some("fuse.plyfs"));
    umount(&mnt);
    // mount(8) knows 32 as "the mount failed" and 1 as "called wrongly".
    let out = run(
        &program,
        &["src", mnt.to_str().unwrap(), "-o", "lowerdir=/nowhere"],
    );
    assert_eq!(out.status.code(), Some(32));
    assert_eq!(run(&program, &["-o"]).status.code(), Some(1));
}

#[test]
fn help_and_version() {
    for words in [
        &["-h"][..],
        &["--help"],
        &["help"],
        &["mount", "--help"],
        &["diff", "-h"],
    ] {
        let out = assert_ok(&run(&bin(), words));
        assert!(out.contains("Usage"), "{words:?}: {out}");
    }
    for words in [&["-V"][..], &["--version"], &["version"]] {
        let out = assert_ok(&run(&bin(), words));
        assert!(
            out.starts_with("plyfs ") && out.trim().lines().count() == 1,
            "{out}"
        );
    }
    assert!(assert_ok(&run(&bin(), &["mount", "--help"])).contains("redirect_dir="));
    assert_eq!(run(&bin(), &[]).status.code(), Some(2));
}

#[test]
fn any_name_can_be_a_layer() {
    need_fuse!();
    let stack = Stack::new(0);
    let odd = stack.dir().join("a:b,c\\d e\n\u{e4}");
    fs::create_dir(&odd).unwrap();
    let bytes = stack.dir().join(OsString::from_vec(b"\xff\xfe".to_vec()));
    let sub = |dir: &Path, name: &str| {
        fs::create_dir_all(dir.join(name)).unwrap();
        dir.join(name)
    };
    let (l0, l1) = (sub(&odd, "l0"), sub(&bytes, "l1"));
    let (upper, work) = (sub(&odd, "u"), sub(&odd, "w"));
    plant(&l0, "f a = 1");
    plant(&l1, "f b = 2");
    let escaped = |path: &Path| {
        let mut out = Vec::new();
        for byte in path.as_os_str().as_encoded_bytes() {
            if matches!(byte, b':' | b',' | b'\\') {
                out.push(b'\\');
            }
            out.push(*byte);
        }
        OsString::from_vec(out)
    };
    let mut options = OsString::from("lowerdir=");
    for (between, path) in [
        ("", &l0),
        (":", &l1),
        (",upperdir=", &upper),
        (",workdir=", &work),
    ] {
        options.push(between);
        options.push(escaped(path));
    }
    let mnt = sub(&odd, "m m");
    assert_ok(
        &Command::new(bin())
            .arg("-o")
            .arg(&options)
            .arg(&mnt)
            .output()
            .unwrap(),
    );
    assert_eq!(names(&mnt), ["a", "b"]);
    fs::write(mnt.join("a"), "3").unwrap();
    let out = Command::new(bin()).arg("diff").arg(&mnt).output().unwrap();
    assert_eq!(assert_ok(&out), "C /a\n");
    umount(&mnt);
    assert_eq!(read(upper.join("a")), "3");
}

#[test]
fn relative_and_linked_paths() {
    need_fuse!();
    let stack = stack();
    symlink("l1", stack.dir().join("link")).unwrap();
    symlink("mnt", stack.dir().join("to-mnt")).unwrap();
    let options = "lowerdir=l0:./work/../link,upperdir=upper,workdir=work";
    let inside = |words: &[&str]| {
        Command::new(bin())
            .args(words)
            .current_dir(stack.dir())
            .output()
            .unwrap()
    };
    assert_ok(&inside(&["-o", options, "to-mnt"]));
    assert_eq!(names(stack.mnt()), ["a", "b", "d"]);
    fs::remove_file(stack.mnt().join("b")).unwrap();
    assert_eq!(assert_ok(&inside(&["diff", "mnt"])), "D /b\n");
    assert_ok(&inside(&["umount", "to-mnt"]));
    assert_eq!(mounted_at(&stack.mnt()), None);
}

#[test]
fn five_hundred_layers_in_one_option() {
    need_fuse!();
    let stack = Stack::new(500);
    for (i, lower) in stack.lowers().iter().enumerate() {
        plant(lower, &format!("f n{i}\nf same = {i}"));
    }
    let out = run(
        &bin(),
        &["-o", &layers(&stack), stack.mnt().to_str().unwrap()],
    );
    assert_ok(&out);
    assert_eq!(names(stack.mnt()).len(), 501);
    assert_eq!(read(stack.mnt().join("same")), "0");
    umount(&stack.mnt());
}

#[test]
fn in_the_foreground_until_a_signal() {
    need_fuse!();
    let stack = stack();
    for flag in ["-f", "-d"] {
        let mut child = Command::new(bin())
            .args([flag, "-o", &layers(&stack)])
            .arg(stack.mnt())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        wait_until("the mount is there", || mounted_at(&stack.mnt()).is_some());
        assert_eq!(read(stack.mnt().join("a")), "1");
        let pid = Pid::from_raw(child.id().cast_signed());
        kill(pid, Signal::SIGTERM).unwrap();
        assert!(child.wait().unwrap().success(), "{flag}");
        assert_eq!(mounted_at(&stack.mnt()), None);
    }
}

#[test]
fn umount_says_what_is_wrong() {
    need_fuse!();
    let stack = stack();
    let mnt = stack.mnt();
    let ask = |words: &[&str]| {
        let out = Command::new(bin())
            .arg("umount")
            .args(words)
            .arg(&mnt)
            .output()
            .unwrap();
        (out.status.code(), text(&out.stderr))
    };
    let (code, said) = ask(&[]);
    assert!(
        code == Some(1) && said.contains("nothing is mounted on"),
        "{said}"
    );
    let m = mount_plyfs(&stack, "");
    let file = fs::File::open(m.join("a")).unwrap();
    let (code, said) = ask(&[]);
    assert!(
        code == Some(1) && said.contains("is in use") && said.contains("--lazy"),
        "{said}"
    );
    assert!(m.join("a").exists());
    assert_eq!(ask(&["--lazy"]), (Some(0), String::new()));
    assert_eq!(mounted_at(&mnt), None);
    drop(file);
    assert!(m.wait().success());
}

#[test]
fn umount_leaves_other_file_systems_alone() {
    need_root!();
    let stack = stack();
    let none: Option<&str> = None;
    let flags = nix::mount::MsFlags::empty();
    nix::mount::mount(Some("t"), &stack.mnt(), Some("tmpfs"), flags, none).unwrap();
    let out = Command::new(bin())
        .arg("umount")
        .arg(stack.mnt())
        .output()
        .unwrap();
    assert!(
        text(&out.stderr).contains("tmpfs") && out.status.code() == Some(1),
        "{out:?}"
    );
    unmount(&stack.mnt()).unwrap();
}

#[test]
fn a_mount_can_follow_umount_at_once() {
    need_fuse!();
    let stack = stack();
    for _ in 0..10 {
        assert_ok(&run(
            &bin(),
            &["-o", &layers(&stack), stack.mnt().to_str().unwrap()],
        ));
        umount(&stack.mnt());
    }
}

/// What is done in the mount for the tests of diff.
fn change(root: &Path) {
    fs::write(root.join("a"), "changed").unwrap();
    fs::remove_file(root.join("d/y")).unwrap();
    fs::create_dir(root.join("new")).unwrap();
    fs::write(root.join("new/f"), "").unwrap();
    symlink("f", root.join("new/l")).unwrap();
    fs::rename(root.join("b"), root.join("c")).unwrap();
    fs::write(root.join(OsString::from_vec(b"\xffn\n".to_vec())), "").unwrap();
}

const CHANGES: &str =
    "C /a\nD /b\nA /c\nC /d\nD /d/y\nA /new\nA /new/f\nA /new/l\nA /\\xffn\\x0a\n";

#[test]
fn diff_of_a_live_mount_and_of_its_upper() {
    need_fuse!();
    let stack = stack();
    let m = mount_plyfs(&stack, "");
    let live = || {
        assert_ok(
            &Command::new(bin())
                .arg("diff")
                .arg(m.path())
                .output()
                .unwrap(),
        )
    };
    assert_eq!(live(), "");
    change(m.path());
    assert_eq!(live(), CHANGES);
    m.unmount();
    let mut command = Command::new(bin());
    command.arg("diff").arg("--upper").arg(stack.upper());
    for lower in stack.lowers() {
        command.arg("--lower").arg(lower);
    }
    assert_eq!(assert_ok(&command.output().unwrap()), CHANGES);

    let json = assert_ok(&command.arg("--json").output().unwrap());
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    let entry = |path: &str| {
        let all = json.as_array().unwrap();
        all.iter().find(|e| e["path"] == path).cloned().unwrap()
    };
    assert_eq!(json.as_array().unwrap().len(), CHANGES.lines().count());
    assert_eq!(
        entry("/a"),
        serde_json::json!({"kind": "C", "path": "/a", "type": "file"})
    );
    assert_eq!(entry("/b")["kind"], "D");
    assert_eq!(entry("/new")["type"], "dir");
    assert_eq!(entry("/new/l")["type"], "symlink");
    assert_eq!(entry("/\u{fffd}n\n")["path_bytes"], "2fff6e0a");
}

#[test]
fn diff_says_what_is_wrong() {
    need_fuse!();
    let stack = stack().read_only();
    let m = mount_plyfs(&stack, "");
    let out = Command::new(bin())
        .arg("diff")
        .arg(m.path())
        .output()
        .unwrap();
    assert!(
        text(&out.stderr).contains("read-only") && out.status.code() == Some(1),
        "{out:?}"
    );
    m.unmount();
    let out = Command::new(bin())
        .arg("diff")
        .arg(stack.mnt())
        .output()
        .unwrap();
    assert!(text(&out.stderr).contains("nothing is mounted"), "{out:?}");
    assert_eq!(run(&bin(), &["diff"]).status.code(), Some(2));
    let out = run(&bin(), &["diff", "--upper", "/nowhere"]);
    assert!(
        text(&out.stderr).contains("/nowhere") && out.status.code() == Some(1),
        "{out:?}"
    );
}

#[test]
fn the_demo_shows_everything_and_leaves_nothing() {
    need_fuse!();
    need_root!();
    let stack = Stack::new(0);
    let dir = stack.dir().join("demo");
    fs::create_dir(&dir).unwrap();
    let words = ["demo", "--dir", dir.to_str().unwrap()];
    let in_namespace = Command::new("unshare")
        .arg("-Urm")
        .arg(bin())
        .args(words)
        .output();
    for out in [run(&bin(), &words), in_namespace.unwrap()] {
        let said = assert_ok(&out);
        for part in [
            "mounted, type fuse.plyfs",
            "Delete",
            "  D /etc/",
            "  A /new/file",
            "Done",
        ] {
            assert!(said.contains(part), "{part:?} is missing in:\n{said}");
        }
        assert_eq!(text(&out.stderr), "");
        assert_eq!(names(&dir), Vec::<String>::new());
    }
}
