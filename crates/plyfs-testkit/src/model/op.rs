//! The operations the model understands, and their text.
use std::fmt;

/// How a name is renamed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Move {
    /// `rename(2)`.
    Plain,
    /// RENAME_NOREPLACE.
    NoReplace,
    /// RENAME_EXCHANGE.
    Exchange,
}

/// One operation on a view. A path begins with a slash, or with `@N` for what is held in slot N.
#[derive(Clone, Debug)]
pub enum Op {
    /// Makes a directory.
    Mkdir(String),
    /// Makes an empty file.
    Create(String),
    /// Makes a symbolic link: path and target.
    Symlink(String, String),
    /// Makes a hard link: what and as what.
    Link(String, String),
    /// Opens with O_CREAT and O_TRUNC, and writes.
    Write(String, String),
    /// Adds to a file that is there.
    Append(String, String),
    /// Sets the size of a file.
    Truncate(String, usize),
    /// Sets the permission bits.
    Chmod(String, u32),
    /// Removes a name that is no directory.
    Unlink(String),
    /// Removes an empty directory.
    Rmdir(String),
    /// Renames.
    Rename(Move, String, String),
    /// Keeps what is at a path in a slot, as one who has it open.
    Hold(u8, String),
    /// Lets go of what a slot holds.
    Drop(u8),
    /// Ends the view and opens another over the same layers; nothing is held any more.
    Reopen,
}

/// The operation in the language of the engine's tests.
impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mkdir(path) => write!(f, "mkdir {path}"),
            Self::Create(path) => write!(f, "create {path}"),
            Self::Symlink(path, target) => write!(f, "sym {target} {path}"),
            Self::Link(old, new) => write!(f, "ln {old} {new}"),
            Self::Write(path, text) => write!(f, "write {path} {text}"),
            Self::Append(path, text) => write!(f, "append {path} {text}"),
            Self::Truncate(path, size) => write!(f, "trunc {path} {size}"),
            Self::Chmod(path, mode) => write!(f, "chmod {mode:o} {path}"),
            Self::Unlink(path) => write!(f, "rm {path}"),
            Self::Rmdir(path) => write!(f, "rmdir {path}"),
            Self::Rename(Move::Plain, from, to) => write!(f, "mv {from} {to}"),
            Self::Rename(Move::NoReplace, from, to) => write!(f, "mvn {from} {to}"),
            Self::Rename(Move::Exchange, from, to) => write!(f, "xchg {from} {to}"),
            Self::Hold(slot, path) => write!(f, "hold {slot} {path}"),
            Self::Drop(slot) => write!(f, "drop {slot}"),
            Self::Reopen => write!(f, "reopen"),
        }
    }
}
