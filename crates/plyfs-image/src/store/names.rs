//! Names of images and containers.
use crate::error::{ImageError, Result};

/// Longest name of an image, tag included.
const MAX_NAME: usize = 383;
/// Longest tag.
const MAX_TAG: usize = 128;

/// `NAME` or `NAME:TAG` with its tag, "latest" where none is given.
///
/// # Errors
/// When it is no name an image can have.
pub fn normalized(name: &str) -> Result<String> {
    let bad = |why: &str| {
        Err(ImageError::malformed(
            format!("image name {name:?}"),
            format!("{why}; write it as NAME:TAG, for example app:1.0"),
        ))
    };
    // A colon before the last slash belongs to a port.
    let after_slash = name.rfind('/').map_or(0, |i| i + 1);
    let (path, tag) = match name[after_slash..].split_once(':') {
        Some((last, tag)) => (&name[..after_slash + last.len()], tag),
        None => (name, "latest"),
    };
    if path.is_empty() || name.len() > MAX_NAME {
        return bad("it is empty or too long");
    }
    let ok_path = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "._-/:".contains(c);
    let host_end = path.find('/').unwrap_or(0);
    let (host, rest) = path.split_at(host_end);
    let ok_host = host
        .chars()
        .all(|c| ok_path(c.to_ascii_lowercase()) || "[]".contains(c));
    if !ok_host || !rest.chars().all(|c| ok_path(c) && c != ':') {
        return bad("it holds something else than lower case letters, digits and ._-/");
    }
    if path
        .split('/')
        .any(|part| !part.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '['))
    {
        return bad("a part of it does not begin with a letter or digit");
    }
    let ok_tag = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    if tag.is_empty() || tag.len() > MAX_TAG || !tag.chars().all(ok_tag) {
        return bad("its tag holds something else than letters, digits and ._-");
    }
    Ok(format!("{path}:{tag}"))
}

/// Checks the name of a container.
///
/// # Errors
/// When it is none a container can have.
pub fn check_container_name(name: &str) -> Result<()> {
    let ok = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    let begins = name.starts_with(|c: char| c.is_ascii_alphanumeric());
    if begins && name.len() <= 128 && name.chars().all(ok) {
        return Ok(());
    }
    Err(ImageError::malformed(
        format!("container name {name:?}"),
        "use letters, digits and ._-, a letter or digit first, 128 at most",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_images() {
        for (name, want) in [
            ("app", Some("app:latest")),
            ("app:1.0", Some("app:1.0")),
            ("localhost:5000/a/b", Some("localhost:5000/a/b:latest")),
            ("localhost:5000/a/b:Tag_1", Some("localhost:5000/a/b:Tag_1")),
            (
                "docker.io/library/debian:12",
                Some("docker.io/library/debian:12"),
            ),
            ("", None),
            (":x", None),
            ("App", None),
            ("a b", None),
            ("a:", None),
            ("a:b:c", None),
            ("../x", None),
            ("a//b", None),
            ("a/../b", None),
        ] {
            assert_eq!(normalized(name).ok().as_deref(), want, "{name}");
        }
    }

    #[test]
    fn names_of_containers() {
        assert!(check_container_name("web-1").is_ok());
        for bad in ["", ".", "..", "a/b", "-a", "a b"] {
            assert!(check_container_name(bad).is_err(), "{bad}");
        }
    }
}
