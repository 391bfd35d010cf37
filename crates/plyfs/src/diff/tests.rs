//! Stacks written out by hand, and the lines that come out.
use std::fs;
use std::os::unix::fs::symlink;

use plyfs_sys::process;
use plyfs_sys::xattr::SetFlags;

use super::*;

struct Stack(tempfile::TempDir);

impl Stack {
    fn new() -> Self {
        let stack = Self(tempfile::tempdir().unwrap());
        for dir in ["u", "l0", "l1"] {
            fs::create_dir(stack.at(dir)).unwrap();
        }
        stack
    }

    fn at(&self, path: &str) -> PathBuf {
        self.0.path().join(path)
    }

    fn file(&self, path: &str) -> &Self {
        self.dir(path.rsplit_once('/').unwrap().0);
        fs::write(self.at(path), path).unwrap();
        self
    }

    fn dir(&self, path: &str) -> &Self {
        fs::create_dir_all(self.at(path)).unwrap();
        self
    }

    fn whiteout(&self, path: &str) -> &Self {
        self.dir(path.rsplit_once('/').unwrap().0);
        let (dir, name) = path.rsplit_once('/').unwrap();
        let dir = plyfs_sys::open::open_dir_path(&self.at(dir)).unwrap();
        let name = Name::new(name.as_bytes()).unwrap();
        plyfs_sys::make::mknod(std::os::fd::AsFd::as_fd(&dir), name, 0o020_000, (0, 0)).unwrap();
        self
    }

    fn mark(&self, path: &str, name: &str, value: &[u8]) -> &Self {
        self.dir(path);
        let dir = plyfs_sys::open::open_dir_path(&self.at(path)).unwrap();
        let name = format!("user.overlay.{name}");
        xattr::set(At::object(&dir), name.as_bytes(), value, SetFlags::empty()).unwrap();
        self
    }

    fn lines(&self) -> Vec<String> {
        let found = changes(&self.at("u"), &[self.at("l0"), self.at("l1")]).unwrap();
        found
            .iter()
            .map(|c| format!("{} {}", c.kind.letter(), String::from_utf8_lossy(&c.path)))
            .collect()
    }
}

#[test]
fn an_empty_upper_changes_nothing() {
    let s = Stack::new();
    s.file("l0/a").file("l1/b/c");
    assert!(s.lines().is_empty());
}

#[test]
fn added_changed_and_deleted() {
    if process::euid() != 0 {
        return;
    }
    let s = Stack::new();
    s.file("l0/etc/a")
        .file("l1/etc/b")
        .file("l1/etc/c")
        .file("l1/gone/x");
    s.file("u/etc/a")
        .file("u/etc/n")
        .whiteout("u/etc/b")
        .whiteout("u/etc/never")
        .whiteout("u/gone");
    symlink("x", s.at("u/link")).unwrap();
    assert_eq!(
        s.lines(),
        [
            "C /etc", "C /etc/a", "D /etc/b", "A /etc/n", "D /gone", "A /link"
        ]
    );
}

#[test]
fn whiteouts_between_the_lowers_count_too() {
    if process::euid() != 0 {
        return;
    }
    let s = Stack::new();
    s.file("l1/a")
        .whiteout("l0/a")
        .whiteout("u/a")
        .file("l1/b")
        .whiteout("l0/b")
        .file("u/b");
    assert_eq!(s.lines(), ["A /b"]);
}

#[test]
fn aufs_names_are_read() {
    let s = Stack::new();
    s.file("l1/a").file("l1/d/x").file("l1/d/y");
    s.file("u/.wh.a")
        .file("u/.wh.never")
        .file("u/d/.wh..wh..opq")
        .file("u/d/y")
        .file("u/d/z");
    assert_eq!(s.lines(), ["D /a", "C /d", "D /d/x", "C /d/y", "A /d/z"]);
}

#[test]
fn an_opaque_directory_deletes_what_it_hides() {
    let s = Stack::new();
    s.file("l0/d/x").file("l1/d/sub/y").file("l1/d/sub/z");
    s.mark("u/d", "opaque", b"y").file("u/d/sub/z");
    assert_eq!(
        s.lines(),
        ["C /d", "C /d/sub", "D /d/sub/y", "C /d/sub/z", "D /d/x"]
    );
}

#[test]
fn a_renamed_directory_is_added_with_its_lower_content() {
    let s = Stack::new();
    s.file("l0/old/x").file("l1/old/deep/y").file("l1/new/z");
    s.mark("u/new", "redirect", b"/old")
        .file("u/new/n")
        .file("u/.wh.old");
    assert_eq!(
        s.lines(),
        [
            "C /new",
            "A /new/deep",
            "A /new/deep/y",
            "A /new/n",
            "A /new/x",
            "D /new/z",
            "D /old"
        ]
    );
}

#[test]
fn a_directory_counts_when_its_attributes_changed() {
    let s = Stack::new();
    s.dir("l0/same").dir("l0/mode").dir("u/same").dir("u/mode");
    let time = fs::metadata(s.at("l0/same")).unwrap().modified().unwrap();
    for dir in ["l0/same", "l0/mode", "u/same", "u/mode"] {
        fs::File::open(s.at(dir))
            .unwrap()
            .set_modified(time)
            .unwrap();
    }
    fs::set_permissions(
        s.at("u/mode"),
        std::os::unix::fs::PermissionsExt::from_mode(0o700),
    )
    .unwrap();
    assert_eq!(s.lines(), ["C /mode"]);
}

#[test]
fn types_may_change() {
    let s = Stack::new();
    s.file("l0/a").file("l0/d/x").file("u/a/n").file("u/d");
    assert_eq!(s.lines(), ["C /a", "A /a/n", "C /d"]);
}

#[test]
fn without_lowers_whiteouts_are_deletions() {
    let s = Stack::new();
    s.file("u/d/.wh.a").file("u/d/n");
    let found = changes(&s.at("u"), &[]).unwrap();
    let lines: Vec<_> = found
        .iter()
        .map(|c| (c.kind.letter(), c.file_type))
        .collect();
    assert_eq!(
        lines,
        [('A', Some("dir")), ('D', None), ('A', Some("file"))]
    );
}
