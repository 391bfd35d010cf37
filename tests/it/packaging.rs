//! What is installed: names, manual pages, completions; all of them say what the program can do.
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use plyfs_testkit::{bin, has_program};

use crate::support::{assert_ok, read};

/// Installs the program under test into a directory of its own.
fn install(dest: &Path, words: &[&str]) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/install");
    let out = Command::new(script)
        .args(words)
        .env("DESTDIR", dest)
        .env("PREFIX", "/usr")
        .env("BINARY", bin())
        .output()
        .unwrap();
    assert_ok(&out);
}

fn help(words: &[&str]) -> String {
    let out = Command::new(bin())
        .args(words)
        .arg("--help")
        .output()
        .unwrap();
    String::from_utf8(out.stdout).unwrap()
}

/// The subcommands that `plyfs --help` lists.
fn subcommands() -> Vec<String> {
    let text = help(&[]);
    let list = text
        .split("Commands:\n")
        .nth(1)
        .unwrap()
        .split("\n\n")
        .next()
        .unwrap();
    let names: Vec<String> = list
        .lines()
        .filter(|l| l.starts_with("  ") && !l.starts_with("   "))
        .filter_map(|l| l.split_whitespace().next())
        .filter(|name| *name != "help")
        .map(str::to_owned)
        .collect();
    assert!(names.len() >= 7, "{names:?}");
    names
}

fn files_below(dir: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
        if entry.file_type().unwrap().is_dir() {
            all.extend(files_below(&entry.path()));
        } else {
            all.push(entry.path());
        }
    }
    all
}

#[test]
fn everything_is_installed_and_taken_away_again() {
    let dest = tempfile::tempdir().unwrap();
    install(dest.path(), &["--fuse-overlayfs"]);
    let at = |path: &str| dest.path().join(path);
    for name in [
        "usr/bin/fuse-overlayfs",
        "usr/sbin/mount.plyfs",
        "usr/sbin/mount.fuse.plyfs",
    ] {
        let out = Command::new(at(name)).arg("--version").output().unwrap();
        assert!(out.status.success(), "{name}");
    }
    let version = Command::new(at("usr/bin/plyfs"))
        .arg("version")
        .output()
        .unwrap();
    assert!(version.stdout.starts_with(b"plyfs "));

    for shell in [
        "usr/share/bash-completion/completions/plyfs",
        "usr/share/zsh/site-functions/_plyfs",
        "usr/share/fish/vendor_completions.d/plyfs.fish",
    ] {
        let text = read(at(shell));
        for name in subcommands() {
            assert!(text.contains(&name), "{shell} does not know {name}");
        }
        assert!(text.contains("prometheus"), "{shell} knows no options");
    }
    completions_are_taken(&at("usr/share"));
    let man = at("usr/share/man");
    for name in subcommands() {
        let page = man.join(format!("man1/plyfs-{name}.1"));
        assert!(page.exists(), "{}", page.display());
    }
    install(dest.path(), &["--uninstall"]);
    assert_eq!(files_below(dest.path()), Vec::<PathBuf>::new());
}

/// Each shell that is here reads its completions; bash answers with them.
fn completions_are_taken(share: &Path) {
    let run = |shell: &str, words: &[&str], file: &str| {
        let out = Command::new(shell)
            .args(words)
            .arg(share.join(file))
            .output()
            .unwrap();
        assert_ok(&out)
    };
    let script = "source \"$0\"; COMP_WORDS=(plyfs mou); COMP_CWORD=1; _plyfs plyfs mou plyfs; echo \"${COMPREPLY[@]}\"";
    let answer = run("bash", &["-c", script], "bash-completion/completions/plyfs");
    assert_eq!(answer.trim(), "mount");
    if has_program("zsh") {
        run("zsh", &["-n"], "zsh/site-functions/_plyfs");
    }
    if has_program("fish") {
        let file = "fish/vendor_completions.d/plyfs.fish";
        run("fish", &["-n"], file);
    }
}

#[test]
fn the_manual_has_every_option_and_no_warning() {
    let dest = tempfile::tempdir().unwrap();
    install(dest.path(), &[]);
    let man = dest.path().join("usr/share/man");
    let page = read(man.join("man8/mount.plyfs.8"));
    // The long help names every option of the table.
    let long = help(&["mount"]);
    let listed = long.split("Mount options:\n").nth(1).unwrap();
    let words = listed
        .split_whitespace()
        .filter_map(|w| w.split('=').next());
    let options = [
        "lowerdir",
        "upperdir",
        "workdir",
        "redirect_dir",
        "nosuid",
        "clone_fd",
    ];
    for name in options {
        assert!(words.clone().any(|w| w == name), "the help lacks {name}");
    }
    let escaped = |name: &str| name.replace('-', "\\-");
    let in_page = |name: &str| page.contains(&format!("\\fB{}\\fR", escaped(name)));
    for name in options {
        assert!(in_page(name), "mount.plyfs(8) lacks {name}");
    }
    // Those with an explanation begin a line of the help.
    for line in listed
        .lines()
        .filter(|l| l.starts_with("  ") && l.trim_start().contains("  "))
    {
        let first = line.split_whitespace().next().unwrap();
        let name = first.split('=').next().unwrap();
        assert!(in_page(name), "mount.plyfs(8) lacks {name}");
    }
    if !has_program("groff") {
        eprintln!("no groff: the pages are not formatted");
        return;
    }
    for page in files_below(&man).into_iter().filter(|p| !p.is_symlink()) {
        let out = Command::new("groff")
            .args(["-man", "-Tutf8", "-ww", "-z"])
            .arg(&page)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&out.stderr);
        assert!(
            out.status.success() && said.is_empty(),
            "{}: {said}",
            page.display()
        );
    }
}
