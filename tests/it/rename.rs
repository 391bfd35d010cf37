//! Renaming: within the upper, out of a lower, over things, and with flags.
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};

use crate::support::{agree, as_user, errno, names, read};

fn flagged(m: &Path, from: &str, to: &str, flags: RenameFlags) -> nix::Result<()> {
    renameat2(AT_FDCWD, &m.join(from), AT_FDCWD, &m.join(to), flags)
}

#[test]
fn a_lower_file_moves_and_leaves_nothing() {
    agree(
        &[
            "d to",
            "f d/a = 1\nu 3:4 d/a\nt 66 d/a\nl d/l -> a\nt 67 d/l",
        ],
        |m| {
            fs::rename(m.join("d/a"), m.join("d/b")).unwrap();
            fs::rename(m.join("d/b"), m.join("to/c")).unwrap();
            fs::rename(m.join("d/l"), m.join("to/l")).unwrap();
            assert_eq!(names(m.join("d")), Vec::<String>::new());
            assert_eq!(names(m.join("to")), ["c", "l"]);
            assert_eq!(read(m.join("to/c")), "1");
            assert_eq!(fs::metadata(m.join("to/c")).unwrap().mtime(), 66);
        },
    );
}

#[test]
fn the_target_is_replaced() {
    agree(&["f a = a\nf b = b", "f c = c\nf a = hidden"], |m| {
        fs::rename(m.join("a"), m.join("b")).unwrap();
        assert_eq!(names(m), ["b", "c"]);
        fs::write(m.join("new"), "new").unwrap();
        fs::rename(m.join("new"), m.join("c")).unwrap();
        assert_eq!(
            (read(m.join("b")), read(m.join("c"))),
            ("a".into(), "new".into())
        );
    });
}

#[test]
fn a_file_moves_over_a_whiteout() {
    agree(&["w gone\nf a = 1", "f gone = old"], |m| {
        fs::rename(m.join("a"), m.join("gone")).unwrap();
        assert_eq!(names(m), ["gone"]);
        fs::rename(m.join("gone"), m.join("a")).unwrap();
        assert_eq!(names(m), ["a"]);
    });
}

#[test]
fn an_upper_directory_moves_with_its_content() {
    agree(&["d d", "f d/lower"], |m| {
        fs::create_dir_all(m.join("new/sub")).unwrap();
        fs::write(m.join("new/sub/f"), "1").unwrap();
        fs::rename(m.join("new"), m.join("d/moved")).unwrap();
        assert_eq!(read(m.join("d/moved/sub/f")), "1");
        fs::rename(m.join("d/moved/sub"), m.join("sub")).unwrap();
        assert_eq!(names(m.join("sub")), ["f"]);
        fs::write(m.join("sub/g"), "2").unwrap();
        assert_eq!(names(m.join("d/moved")), Vec::<String>::new());
    });
}

#[test]
fn a_lower_directory_does_not_move() {
    // Both answer EXDEV, as without redirect_dir they must, and mv copies.
    agree(&["d merged", "f lower/a = 1\nf merged/b"], |m| {
        for dir in ["lower", "merged"] {
            assert_eq!(
                errno(fs::rename(m.join(dir), m.join("other"))),
                Errno::EXDEV
            );
        }
        crate::support::run(m, "mv", &["lower", "merged/moved"]);
        assert_eq!(names(m), ["merged"]);
        assert_eq!(read(m.join("merged/moved/a")), "1");
    });
}

#[test]
fn directories_replace_only_empty_directories() {
    agree(
        &["f full/a\nd empty", "f full/b\nf hollow/x\nf file"],
        |m| {
            fs::create_dir(m.join("new")).unwrap();
            fs::write(m.join("new/n"), "").unwrap();
            assert_eq!(
                errno(fs::rename(m.join("new"), m.join("full"))),
                Errno::ENOTEMPTY
            );
            assert_eq!(
                errno(fs::rename(m.join("new"), m.join("file"))),
                Errno::ENOTDIR
            );
            assert_eq!(
                errno(fs::rename(m.join("file"), m.join("empty"))),
                Errno::EISDIR
            );
            fs::rename(m.join("new"), m.join("empty")).unwrap();
            assert_eq!(names(m.join("empty")), ["n"]);
            // A merged directory that shows nothing is empty, and what it hid stays hidden.
            fs::remove_file(m.join("hollow/x")).unwrap();
            fs::rename(m.join("empty"), m.join("hollow")).unwrap();
            assert_eq!(names(m.join("hollow")), ["n"]);
            assert_eq!(names(m), ["file", "full", "hollow"]);
        },
    );
}

#[test]
fn a_directory_does_not_move_into_itself() {
    agree(&["d d"], |m| {
        fs::create_dir_all(m.join("a/b")).unwrap();
        assert_eq!(
            errno(fs::rename(m.join("a"), m.join("a/b/c"))),
            Errno::EINVAL
        );
        assert_eq!(
            errno(fs::rename(m.join("a/b"), m.join("a"))),
            Errno::ENOTEMPTY
        );
        assert_eq!(errno(fs::rename(m.join("no"), m.join("x"))), Errno::ENOENT);
    });
}

#[test]
fn noreplace_refuses_what_exists() {
    agree(&["f a = 1\nw gone", "f b = 2\nf gone\nf lower = 3"], |m| {
        let flags = RenameFlags::RENAME_NOREPLACE;
        assert_eq!(flagged(m, "a", "b", flags), Err(Errno::EEXIST));
        assert_eq!(flagged(m, "a", "a", flags), Err(Errno::EEXIST));
        flagged(m, "a", "gone", flags).unwrap();
        flagged(m, "lower", "new", flags).unwrap();
        assert_eq!(names(m), ["b", "gone", "new"]);
    });
}

#[test]
fn exchange_swaps_two_names() {
    agree(&["f a = a\nf d/x = x", "f b = b\nl l -> b"], |m| {
        let flags = RenameFlags::RENAME_EXCHANGE;
        flagged(m, "a", "b", flags).unwrap();
        assert_eq!(
            (read(m.join("a")), read(m.join("b"))),
            ("b".into(), "a".into())
        );
        fs::create_dir(m.join("new")).unwrap();
        fs::write(m.join("new/n"), "n").unwrap();
        flagged(m, "new", "l", flags).unwrap();
        assert_eq!(read(m.join("l/n")), "n");
        assert_eq!(fs::read_link(m.join("new")).unwrap(), Path::new("b"));
        assert_eq!(flagged(m, "a", "missing", flags), Err(Errno::ENOENT));
        flagged(m, "a", "d/x", flags).unwrap();
        assert_eq!(read(m.join("d/x")), "b");
    });
}

#[test]
fn renaming_one_name_of_a_file_to_another_does_nothing() {
    agree(&["f lower\nh linked -> lower"], |m| {
        fs::write(m.join("a"), "1").unwrap();
        fs::hard_link(m.join("a"), m.join("b")).unwrap();
        fs::rename(m.join("a"), m.join("b")).unwrap();
        assert_eq!(names(m), ["a", "b", "linked", "lower"]);
        fs::rename(m.join("a"), m.join("a")).unwrap();
    });
}

#[test]
fn open_files_follow_their_name() {
    use std::io::{Read, Seek, Write};
    agree(&["f a = lower\nf victim = victim"], |m| {
        let mut file = fs::OpenOptions::new()
            .read(true)
            .write(true)
            .open(m.join("a"))
            .unwrap();
        let mut victim = fs::File::open(m.join("victim")).unwrap();
        fs::rename(m.join("a"), m.join("victim")).unwrap();
        file.write_all(b"LOW").unwrap();
        let mut text = String::new();
        file.rewind().unwrap();
        file.read_to_string(&mut text).unwrap();
        assert_eq!(text, "LOWer");
        assert_eq!(read(m.join("victim")), "LOWer");
        text.clear();
        victim.read_to_string(&mut text).unwrap();
        assert_eq!(text, "victim");
    });
}

#[test]
fn back_and_forth_leaves_no_trace() {
    agree(&["f d/a = 1\nf d/b = 2"], |m| {
        for _ in 0..20 {
            fs::rename(m.join("d/a"), m.join("x")).unwrap();
            fs::rename(m.join("d/b"), m.join("d/a")).unwrap();
            fs::rename(m.join("x"), m.join("d/b")).unwrap();
        }
        assert_eq!(
            (read(m.join("d/a")), read(m.join("d/b"))),
            ("1".into(), "2".into())
        );
        assert_eq!(names(m), ["d"]);
    });
}

#[test]
fn sticky_directories_protect_the_files_of_others() {
    agree(
        &["d d\nm 1777 d\nf d/root\nf d/own\nu 1000:1000 d/own"],
        |m| {
            assert!(!as_user(&m.join("d"), "mv -f root x").0);
            assert!(!as_user(&m.join("d"), "mv -f own root").0);
            assert!(as_user(&m.join("d"), "mv own mine").0);
        },
    );
}

#[test]
fn rename_whiteout_is_refused() {
    agree(&["f a = 1"], |m| {
        let moved = flagged(m, "a", "b", RenameFlags::RENAME_WHITEOUT);
        assert_eq!(moved, Err(Errno::EINVAL));
        assert_eq!(names(m), ["a"]);
    });
}
