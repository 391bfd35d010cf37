//! The redirect mark: under which name the lowers have an object that was renamed in the upper.

use crate::Malformed;

const WHAT: &str = "redirect";
/// `PATH_MAX` without the terminating NUL.
const MAX_LEN: usize = 4095;
/// The longest file name the kernel takes.
const NAME_MAX: usize = 255;

/// The longest absolute redirect that kernel overlayfs writes unless `redirect_max` says otherwise; a rename that
/// needs a longer one answers EXDEV.
pub const DEFAULT_REDIRECT_MAX: usize = 256;

/// Where to look in the layers below. Every name in it is one that a directory entry can have.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Redirect {
    /// Another name in the same parent, wherever that parent is found.
    Relative(Vec<u8>),
    /// A path from the layer root, one name per component, never empty.
    Absolute(Vec<Vec<u8>>),
}

/// Reads the value by the rules of `ovl_get_redirect_xattr()`: a leading `/` makes it absolute, then no component is
/// empty (so no `//` and no trailing `/`); without it there is no `/` at all. Besides, no name is `.` or `..`, holds a
/// NUL or is longer than a name can be: a directory cannot have such an entry, so the mark is no one's honest work.
pub fn parse(value: &[u8]) -> Result<Redirect, Malformed> {
    if value.len() > MAX_LEN {
        return Err(Malformed::new(WHAT, "the path is longer than 4095 bytes"));
    }
    match value.strip_prefix(b"/") {
        None => Ok(Redirect::Relative(checked(value)?.to_vec())),
        Some(path) => {
            let names = path
                .split(|b| *b == b'/')
                .map(|name| Ok(checked(name)?.to_vec()));
            Ok(Redirect::Absolute(names.collect::<Result<_, _>>()?))
        }
    }
}

/// The value for a path from the layer root. An error if it would not read back as the same path.
pub fn encode_absolute<I>(components: I) -> Result<Vec<u8>, Malformed>
where
    I: IntoIterator,
    I::Item: AsRef<[u8]>,
{
    let mut value = Vec::new();
    for name in components {
        value.push(b'/');
        value.extend_from_slice(checked(name.as_ref())?);
    }
    match value.len() {
        0 => Err(Malformed::new(
            WHAT,
            "the layer root itself cannot be redirected",
        )),
        1..=MAX_LEN => Ok(value),
        _ => Err(Malformed::new(WHAT, "the path is longer than 4095 bytes")),
    }
}

/// The value for another name in the same parent. An error if it is no name.
pub fn encode_relative(name: &[u8]) -> Result<Vec<u8>, Malformed> {
    checked(name).map(<[u8]>::to_vec)
}

impl Redirect {
    /// The value that reads back as this redirect; an error if a caller put in a name that is none.
    pub fn encode(&self) -> Result<Vec<u8>, Malformed> {
        match self {
            Self::Relative(name) => encode_relative(name),
            Self::Absolute(names) => encode_absolute(names),
        }
    }
}

/// `name` if a directory entry can have it.
fn checked(name: &[u8]) -> Result<&[u8], Malformed> {
    let why = match name {
        b"" => "a name in it is empty",
        b"." | b".." => "a name in it is `.` or `..`",
        _ if name.contains(&0) => "it holds a NUL byte",
        _ if name.contains(&b'/') => "a relative redirect or a name holds a `/`",
        _ if name.len() > NAME_MAX => "a name in it is longer than 255 bytes",
        _ => return Ok(name),
    };
    Err(Malformed::new(WHAT, why))
}

#[cfg(test)]
mod tests;
