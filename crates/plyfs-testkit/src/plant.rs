//! Plants a small tree from text, one object a line.
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use nix::sys::stat::{Mode, SFlag, makedev, mknod};

/// Plants `spec` into the directory `root`. One object a line; missing parents are made:
///
/// ```text
/// f PATH = CONTENT        a file (\n in CONTENT is a newline)
/// d PATH                  a directory
/// o PATH                  an opaque directory
/// w PATH                  a whiteout (char 0:0)
/// l PATH -> TARGET        a symbolic link
/// h PATH -> EXISTING      a hard link
/// p PATH                  a fifo
/// c PATH MAJOR MINOR      a character device
/// m MODE PATH             chmod to octal MODE
/// u UID:GID PATH          chown
/// x PATH NAME = VALUE     an xattr
/// t SECONDS PATH          the mtime
/// ```
///
/// # Panics
/// On a line that does not parse or cannot be done: a broken test must not look like a pass.
pub fn plant(root: &Path, spec: &str) {
    for line in spec
        .lines()
        .map(str::trim)
        .filter(|l| !l.is_empty() && !l.starts_with('#'))
    {
        let (verb, rest) = line.split_once(' ').unwrap_or((line, ""));
        if let Err(why) = plant_line(root, verb, rest.trim()) {
            panic!("planting {line:?} in {}: {why}", root.display());
        }
    }
}

/// Sets every mtime below `root` to one moment in 2017, then those that `spec` names.
pub(crate) fn settle(root: &Path, spec: &str) {
    let mut todo = vec![root.to_owned()];
    while let Some(path) = todo.pop() {
        if path.symlink_metadata().unwrap().is_dir() {
            todo.extend(path.read_dir().unwrap().map(|entry| entry.unwrap().path()));
        }
        set_mtime(&path, 1_500_000_000).unwrap();
    }
    let times: Vec<_> = spec
        .lines()
        .map(str::trim)
        .filter(|l| l.starts_with("t "))
        .collect();
    plant(root, &times.join("\n"));
}

fn plant_line(root: &Path, verb: &str, rest: &str) -> Result<(), Box<dyn std::error::Error>> {
    match verb {
        "f" => {
            let (path, content) = rest.split_once(" =").unwrap_or((rest, ""));
            let content = content.strip_prefix(' ').unwrap_or(content);
            std::fs::write(with_parent(root, path)?, content.replace("\\n", "\n"))?;
        }
        "d" => std::fs::create_dir_all(root.join(rest))?,
        "o" => {
            std::fs::create_dir_all(root.join(rest))?;
            xattr::set(root.join(rest), "trusted.overlay.opaque", b"y")?;
        }
        "w" => {
            mknod(
                &with_parent(root, rest)?,
                SFlag::S_IFCHR,
                Mode::empty(),
                makedev(0, 0),
            )?;
        }
        "l" => {
            let (path, target) = pair(rest, " -> ")?;
            symlink(target, with_parent(root, path)?)?;
        }
        "h" => {
            let (path, existing) = pair(rest, " -> ")?;
            std::fs::hard_link(root.join(existing), with_parent(root, path)?)?;
        }
        "p" => mknod(
            &with_parent(root, rest)?,
            SFlag::S_IFIFO,
            Mode::from_bits_truncate(0o644),
            0,
        )?,
        "c" => {
            let (path, numbers) = pair(rest, " ")?;
            let (major, minor) = pair(numbers, " ")?;
            let dev = makedev(major.parse()?, minor.parse()?);
            let mode = Mode::from_bits_truncate(0o600);
            mknod(&with_parent(root, path)?, SFlag::S_IFCHR, mode, dev)?;
        }
        "m" => {
            let (mode, path) = pair(rest, " ")?;
            let mode = std::fs::Permissions::from_mode(u32::from_str_radix(mode, 8)?);
            std::fs::set_permissions(root.join(path), mode)?;
        }
        "u" => {
            let (ids, path) = pair(rest, " ")?;
            let (uid, gid) = pair(ids, ":")?;
            let (uid, gid) = (uid.parse()?, gid.parse()?);
            std::os::unix::fs::lchown(root.join(path), Some(uid), Some(gid))?;
        }
        "x" => {
            let (path, attr) = pair(rest, " ")?;
            let (name, value) = pair(attr, " = ")?;
            xattr::set(
                root.join(path),
                OsStr::from_bytes(name.as_bytes()),
                value.as_bytes(),
            )?;
        }
        "t" => {
            let (seconds, path) = pair(rest, " ")?;
            set_mtime(&root.join(path), seconds.parse()?)?;
        }
        _ => return Err("unknown verb".into()),
    }
    Ok(())
}

fn pair<'a>(text: &'a str, separator: &str) -> Result<(&'a str, &'a str), String> {
    text.split_once(separator)
        .ok_or_else(|| format!("{separator:?} is missing"))
}

fn with_parent(root: &Path, path: &str) -> std::io::Result<std::path::PathBuf> {
    let full = root.join(path);
    if let Some(parent) = full.parent() {
        std::fs::create_dir_all(parent)?;
    }
    Ok(full)
}

fn set_mtime(path: &Path, seconds: i64) -> nix::Result<()> {
    use nix::fcntl::AT_FDCWD;
    use nix::sys::stat::{UtimensatFlags, utimensat};
    use nix::sys::time::TimeSpec;
    let time = TimeSpec::new(seconds, 0);
    utimensat(
        AT_FDCWD,
        path,
        &time,
        &time,
        UtimensatFlags::NoFollowSymlink,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plants_what_it_says() {
        let dir = tempfile::tempdir().unwrap();
        plant(
            dir.path(),
            "f a/b = one\\n\nm 640 a/b\nl c -> a/b\nh d -> a/b\nt 7 a/b\np q",
        );
        assert_eq!(
            std::fs::read_to_string(dir.path().join("c")).unwrap(),
            "one\n"
        );
        let tree = crate::snapshot(dir.path());
        assert_eq!(tree.node("d").unwrap().same_file_as.as_deref(), Some("a/b"));
        assert_eq!(tree.node("a/b").unwrap().mtime, 7_000_000_000);
        assert_eq!(tree.node("q").unwrap().kind, crate::Kind::Fifo);
    }

    #[test]
    #[should_panic(expected = "unknown verb")]
    fn a_broken_line_is_refused() {
        plant(Path::new("/nonexistent"), "z a");
    }
}
