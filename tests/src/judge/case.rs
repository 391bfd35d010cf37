//! A case: the layers of a stack and the steps to run on it, with its text form for files and reports.

use std::fmt::Write as _;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use super::ops::Step;
use super::text::{Bytes, Mode};

/// What an entry of a layer is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(crate) enum Kind {
    /// A directory; an empty path means the layer's root.
    Dir,
    /// A regular file of `size` bytes, with data at (offset, length, pattern seed) and holes elsewhere.
    File {
        size: u64,
        data: Vec<(u64, u64, u32)>,
    },
    /// A further name of the file made by an earlier entry of the same layer.
    Link { to: Bytes },
    /// A symbolic link.
    Symlink { target: Bytes },
    /// A named pipe.
    Fifo,
    /// A socket node.
    Socket,
    /// A character device.
    Char { major: u32, minor: u32 },
    /// A block device.
    Block { major: u32, minor: u32 },
    /// A char 0:0 device: the name below is deleted.
    Whiteout,
    /// An empty file with the whiteout xattr, in a directory that is marked to have such.
    Xwhiteout,
}

/// One name in a layer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Entry {
    pub(crate) path: Bytes,
    #[serde(flatten)]
    pub(crate) kind: Kind,
    #[serde(default = "plain_mode", skip_serializing_if = "is_plain_mode")]
    pub(crate) mode: Mode,
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(crate) uid: u32,
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(crate) gid: u32,
    /// Modification time: seconds and nanoseconds.
    #[serde(default = "plain_time", skip_serializing_if = "is_plain_time")]
    pub(crate) mtime: (i64, u32),
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) xattrs: Vec<(Bytes, Bytes)>,
}

fn plain_mode() -> Mode {
    Mode(0o755)
}

fn is_plain_mode(mode: &Mode) -> bool {
    *mode == plain_mode()
}

fn is_zero(value: &u32) -> bool {
    *value == 0
}

fn plain_time() -> (i64, u32) {
    (1_000_000_000, 0)
}

fn is_plain_time(time: &(i64, u32)) -> bool {
    *time == plain_time()
}

impl Entry {
    /// An entry with nothing odd about it.
    pub(crate) fn plain(path: Bytes, kind: Kind) -> Self {
        let (mode, mtime) = (plain_mode(), plain_time());
        Self {
            path,
            kind,
            mode,
            uid: 0,
            gid: 0,
            mtime,
            xattrs: Vec::new(),
        }
    }
}

/// Everything that is needed to run the same thing again.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Case {
    /// Mount options for both sides besides the directories, such as `redirect_dir=on`.
    pub(crate) options: String,
    /// The umask of the process that runs the steps.
    pub(crate) umask: u32,
    /// Whether the lowers lie on a file system of their own.
    pub(crate) split: bool,
    /// Topmost lower first.
    pub(crate) layers: Vec<Vec<Entry>>,
    /// What lies in a data-only layer below all others, for metacopies alone.
    pub(crate) data: Vec<Entry>,
    /// What the upper contains before the first mount.
    pub(crate) upper: Vec<Entry>,
    /// Steps that an earlier kernel mount with redirects and metacopy ran; its upper is the topmost lower.
    pub(crate) pre: Vec<Step>,
    /// The steps that are compared.
    pub(crate) steps: Vec<Step>,
}

impl Case {
    /// Whether a mount option is set.
    pub(crate) fn has(&self, option: &str) -> bool {
        has_option(&self.options, option)
    }

    /// Writes the text form: a section word a line, then one JSON object a line.
    pub(crate) fn to_text(&self) -> Result<String> {
        let mut out = String::new();
        if !self.options.is_empty() {
            writeln!(out, "options {}", self.options)?;
        }
        writeln!(out, "umask {:03o}", self.umask)?;
        if self.split {
            out.push_str("split\n");
        }
        for layer in &self.layers {
            out.push_str("layer\n");
            push_lines(&mut out, layer)?;
        }
        if !self.data.is_empty() {
            out.push_str("data\n");
            push_lines(&mut out, &self.data)?;
        }
        for (title, steps) in [("pre", &self.pre), ("steps", &self.steps)] {
            if title == "pre" && !self.upper.is_empty() {
                out.push_str("upper\n");
                push_lines(&mut out, &self.upper)?;
            }
            if !steps.is_empty() {
                writeln!(out, "{title}")?;
                push_lines(&mut out, steps)?;
            }
        }
        Ok(out)
    }

    /// Reads the text form; lines that begin with `#` are comments.
    pub(crate) fn from_text(text: &str) -> Result<Self> {
        let mut case = Case {
            umask: 0o022,
            ..Case::default()
        };
        let mut section = "";
        for (number, line) in text.lines().enumerate() {
            let line = line.trim();
            let place = || format!("line {}: {line}", number + 1);
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            if line.starts_with('{') {
                match section {
                    "layer" => {
                        let layer = case.layers.last_mut().with_context(place)?;
                        layer.push(serde_json::from_str(line).with_context(place)?);
                    }
                    "data" => case
                        .data
                        .push(serde_json::from_str(line).with_context(place)?),
                    "upper" => case
                        .upper
                        .push(serde_json::from_str(line).with_context(place)?),
                    "pre" => case
                        .pre
                        .push(serde_json::from_str(line).with_context(place)?),
                    "steps" => case
                        .steps
                        .push(serde_json::from_str(line).with_context(place)?),
                    _ => bail!("{}: before any layer, upper, pre or steps line", place()),
                }
                continue;
            }
            let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
            match word {
                "options" => case.options = rest.to_owned(),
                "umask" => case.umask = u32::from_str_radix(rest, 8).with_context(place)?,
                "split" => case.split = true,
                "layer" => {
                    case.layers.push(Vec::new());
                    section = "layer";
                }
                "data" => section = "data",
                "upper" => section = "upper",
                "pre" => section = "pre",
                "steps" => section = "steps",
                _ => bail!("{}: unknown section word {word:?}", place()),
            }
        }
        Ok(case)
    }
}

/// Whether mount options contain one.
pub(crate) fn has_option(options: &str, option: &str) -> bool {
    options.split(',').any(|word| word == option)
}

fn push_lines<T: Serialize>(out: &mut String, items: &[T]) -> Result<()> {
    for item in items {
        out.push_str(&serde_json::to_string(item)?);
        out.push('\n');
    }
    Ok(())
}
