//! What an upper becomes as a layer.
use std::process::Command;

use plyfs_testkit::need_root;

use super::*;
use crate::tar::{Entry, Limits, Reader};

const OPTIONS: Options = Options {
    namespace: XattrNamespace::Trusted,
    latest: None,
};

/// Makes `lower` and `upper` by a shell script and reads the layer.
fn layer(script: &str) -> Vec<Entry> {
    let dir = tempfile::tempdir().unwrap();
    let done = Command::new("sh")
        .args(["-euc", &format!("mkdir lower upper\n{script}")])
        .current_dir(dir.path())
        .status()
        .unwrap();
    assert!(done.success());
    let lowers = [dir.path().join("lower")];
    let upper = dir.path().join("upper");
    let (tar, _) = write_changes(&upper, &lowers, Vec::new(), OPTIONS).unwrap();
    let (again, _) = write_changes(&upper, &lowers, Vec::new(), OPTIONS).unwrap();
    assert_eq!(tar, again, "the same upper gives the same bytes");
    let mut reader = Reader::new(&tar[..], Limits::default());
    let mut entries = Vec::new();
    while let Some(entry) = reader.next_entry().unwrap() {
        entries.push(entry);
    }
    entries
}

fn names(entries: &[Entry]) -> Vec<String> {
    entries
        .iter()
        .map(|e| String::from_utf8_lossy(&e.path).into_owned())
        .filter(|name| name != "./")
        .collect()
}

#[test]
fn whiteouts_only_where_something_was() {
    need_root!();
    let entries = layer(
        "touch lower/a lower/z\nmkdir lower/d\nmknod upper/a c 0 0\nmknod upper/never c 0 0\n\
         echo new >upper/z\nmkdir upper/d\nmknod upper/d/never c 0 0",
    );
    assert_eq!(names(&entries), [".wh.a", "d/", "z"]);
}

#[test]
fn opaque_only_where_something_was() {
    need_root!();
    let entries = layer(
        "mkdir lower/d upper/d upper/e\ntouch lower/d/x upper/d/y\n\
         setfattr -n trusted.overlay.opaque -v y upper/d upper/e",
    );
    assert_eq!(names(&entries), ["d/", "d/.wh..wh..opq", "d/y", "e/"]);
    assert!(entries.iter().all(|e| e.xattrs.is_empty()));
}

#[test]
fn a_renamed_directory_is_all_new() {
    need_root!();
    let entries = layer(
        "mkdir -p lower/old/sub\necho 1 >lower/old/sub/f\nmkdir upper/new\n\
         setfattr -n trusted.overlay.redirect -v old upper/new\nmknod upper/old c 0 0",
    );
    assert_eq!(
        names(&entries),
        [".wh.old", "new/", "new/sub/", "new/sub/f"]
    );
    assert_eq!(entries.last().unwrap().size, 2);
}

#[test]
fn metadata_alone_comes_with_its_data() {
    need_root!();
    let entries = layer(
        "echo lower >lower/f\ntruncate -s 6 upper/f\nchmod 600 upper/f\n\
         setfattr -n trusted.overlay.metacopy upper/f",
    );
    let f = entries.iter().find(|e| e.path == b"f").unwrap();
    assert_eq!((f.size, f.mode), (6, 0o600));
    assert!(f.xattrs.is_empty());
}

#[test]
fn links_sockets_and_xattrs() {
    need_root!();
    let entries = layer(
        "cd upper\necho x >a\nln a b\nln -s a s\nmkfifo p\nsetfattr -n user.k -v v a\n\
         setfattr -n trusted.overlay.overlay.opaque -v y a\n\
         perl -e 'use IO::Socket::UNIX; IO::Socket::UNIX->new(Local=>\"sock\",Listen=>1)'",
    );
    assert_eq!(names(&entries), ["a", "b", "p", "s"]);
    assert_eq!(entries[1].xattrs.len() + entries[0].xattrs.len(), 2);
    let b = entries.iter().find(|e| e.path == b"b").unwrap();
    assert_eq!((b.kind, &b.link[..]), (tar::Kind::HardLink, &b"a"[..]));
    let a = entries.iter().find(|e| e.path == b"a").unwrap();
    let inner = (b"trusted.overlay.opaque".to_vec(), b"y".to_vec());
    assert!(
        a.xattrs.contains(&inner),
        "escaped names come out unescaped"
    );
}

#[test]
fn capabilities_lose_the_root_of_a_namespace() {
    let mut v3 = vec![1, 0, 0, 3];
    v3.extend([7u8; 16]);
    v3.extend([9u8; 4]);
    let v2 = portable_capability(v3);
    assert_eq!((v2.len(), v2[3]), (20, 2));
}
