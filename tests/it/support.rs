//! How a test judges: the same work on kernel overlayfs and on plyfs, the same result on both.
use std::io;
use std::path::Path;
use std::process::{Command, Output};
use std::time::{SystemTime, UNIX_EPOCH};

use plyfs_testkit::{
    Mounted, Rules, Stack, Tree, can_pass_through, diff_with, mount_kernel, mount_plyfs, need_fuse,
    need_overlay, snapshot,
};

/// Does `work` in the merged directory of two equal stacks, one mounted by the kernel and one by
/// plyfs. What `work` asserts must hold on both; afterwards both show the same tree, show it again
/// after a remount by themselves and by each other, and no lower layer has changed. Where the
/// kernel is new enough plyfs does it once more with the data passed through.
pub(crate) fn agree(lowers: &[&str], work: impl Fn(&Path)) {
    need_overlay!();
    need_fuse!();
    let since = written_in_this_test();
    let (oracle, subject) = (Stack::planted(lowers), Stack::planted(lowers));
    let expected = work_on("kernel overlayfs", mount_kernel(&oracle, ""), &work);
    let got = work_on("plyfs", mount_plyfs(&subject, ""), &work);
    let written = Rules {
        written_since: Some(since),
        ..Rules::default()
    };
    same(
        "kernel overlayfs and plyfs after the same work",
        &expected,
        &got,
        &written,
    );

    let rules = Rules::default();
    let again = view(mount_plyfs(&subject, ""));
    same("plyfs before and after a remount", &got, &again, &rules);
    let by_plyfs = view(mount_plyfs(&oracle, ""));
    same(
        "what the kernel wrote, by the kernel and by plyfs",
        &expected,
        &by_plyfs,
        &rules,
    );
    let by_kernel = view(mount_kernel(&subject, ""));
    same(
        "what plyfs wrote, by plyfs and by the kernel",
        &got,
        &by_kernel,
        &rules,
    );
    oracle.assert_lowers_unchanged();
    subject.assert_lowers_unchanged();
    if can_pass_through() {
        let passed = Stack::planted(lowers);
        let mounted = mount_plyfs(&passed, "data=passthrough");
        let got = work_on("plyfs that passes data through", mounted, &work);
        let what = "kernel overlayfs and plyfs that passes data through";
        same(what, &expected, &got, &written);
        passed.assert_lowers_unchanged();
    }
}

/// The earliest mtime that this test can have written: coarse file times lag behind the clock, and
/// what is planted is years older.
pub(crate) fn written_in_this_test() -> i128 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    now.as_nanos().cast_signed() - 2_000_000_000
}

fn work_on(who: &str, mounted: Mounted, work: &impl Fn(&Path)) -> Tree {
    // Shown only when the test fails: the last line says on which side it did.
    eprintln!("working on {who}");
    work(mounted.path());
    view(mounted)
}

fn view(mounted: Mounted) -> Tree {
    let tree = snapshot(mounted.path());
    mounted.unmount();
    tree
}

/// Fails unless two trees are the same by `rules`.
pub(crate) fn same(what: &str, a: &Tree, b: &Tree, rules: &Rules) {
    let lines = diff_with(a, b, rules);
    assert!(lines.is_empty(), "{what}:\n{}", lines.join("\n"));
}

/// Works on a stack mounted by plyfs alone: for what kernel overlayfs does otherwise.
pub(crate) fn on_plyfs(lowers: &[&str], options: &str, work: impl Fn(&Stack, &Mounted)) {
    need_fuse!();
    let stack = Stack::planted(lowers);
    let mounted = mount_plyfs(&stack, options);
    work(&stack, &mounted);
    mounted.unmount();
    stack.assert_lowers_unchanged();
}

/// The content of a file, as text.
pub(crate) fn read(path: impl AsRef<Path>) -> String {
    let path = path.as_ref();
    std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// The names in a directory, sorted.
pub(crate) fn names(dir: impl AsRef<Path>) -> Vec<String> {
    let dir = dir.as_ref();
    let entries = std::fs::read_dir(dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display()));
    let mut names: Vec<_> = entries
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

/// The errno that a call failed with.
pub(crate) fn errno<T>(result: io::Result<T>) -> nix::errno::Errno {
    match result {
        Ok(_) => nix::errno::Errno::UnknownErrno,
        Err(e) => nix::errno::Errno::from_raw(e.raw_os_error().unwrap_or(0)),
    }
}

/// Runs a shell script in `dir` as the user and group 1000; its output and whether it succeeded.
pub(crate) fn as_user(dir: &Path, script: &str) -> (bool, String) {
    let run = Command::new("setpriv")
        .args([
            "--reuid=1000",
            "--regid=1000",
            "--clear-groups",
            "sh",
            "-c",
            script,
        ])
        .current_dir(dir)
        .output()
        .unwrap();
    let text = [run.stdout, run.stderr].concat();
    (
        run.status.success(),
        String::from_utf8_lossy(&text).into_owned(),
    )
}

/// Runs a program in `dir` that must succeed; its output.
pub(crate) fn run(dir: &Path, program: &str, args: &[&str]) -> String {
    let run = Command::new(program)
        .args(args)
        .current_dir(dir)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&[run.stdout, run.stderr].concat()).into_owned();
    assert!(
        run.status.success(),
        "{program} {args:?}: {}: {text}",
        run.status
    );
    text
}

/// Fails unless a program succeeded; what it printed.
pub(crate) fn assert_ok(out: &Output) -> String {
    assert!(
        out.status.success(),
        "{:?}: {}",
        out.status,
        String::from_utf8_lossy(&out.stderr)
    );
    String::from_utf8_lossy(&out.stdout).into_owned()
}
