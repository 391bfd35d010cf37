//! The language of layers and expectations.
//!
//! Sections are separated by `|`, words by spaces or commas. In a layer section (`lower:`, topmost
//! first, and `upper:`) each object is one word, after it what it has beyond its kind:
//!
//! ```text
//! /f=TEXT   file (TEXT may be @N: N bytes)   /d   directory    /l->TARGET  symbolic link
//! /f==/g    hard link of /g                  wh /f  whiteout   xwh /f      xattr whiteout
//! fifo /f, sock /f, chr /f (1:3), blk /f (7:0)
//! opaque[=x]  redirect=VALUE  metacopy  impure  origin  mode=755  own=1:2  t=SECONDS
//! flags=LETTERS (chattr)  size=N  nlink=N  x:NAME=VALUE   …and !NAME for what must not be there
//! ```

/// What kind of object a word plants or expects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum What {
    Dir,
    File(Vec<u8>),
    Symlink(String),
    Link(String),
    Whiteout,
    XattrWhiteout,
    Fifo,
    Socket,
    Char,
    Block,
}

/// One object of a section.
#[derive(Clone, Debug)]
pub(crate) struct Object {
    pub(crate) what: What,
    /// Begins with a slash; the root is `/`.
    pub(crate) path: String,
    pub(crate) attrs: Vec<Attr>,
}

/// What an object has, or must not have, beyond its kind.
#[derive(Clone, Debug)]
pub(crate) struct Attr {
    pub(crate) name: String,
    pub(crate) value: String,
    pub(crate) absent: bool,
}

impl Object {
    pub(crate) fn attr(&self, name: &str) -> Option<&str> {
        let found = self.attrs.iter().find(|a| a.name == name && !a.absent);
        found.map(|a| a.value.as_str())
    }
}

/// The sections of a text: title and body.
pub(crate) fn sections(text: &str) -> Vec<(&str, &str)> {
    let parts = text.split('|').map(str::trim).filter(|s| !s.is_empty());
    parts
        .map(|s| {
            let (title, body) = s
                .split_once(':')
                .unwrap_or_else(|| panic!("a section needs a title and a colon: {s:?}"));
            (title.trim(), body.trim())
        })
        .collect()
}

/// The objects of a section.
pub(crate) fn objects(body: &str) -> Vec<Object> {
    let mut out: Vec<Object> = Vec::new();
    let mut kind: Option<What> = None;
    for word in body
        .split_whitespace()
        .map(|w| w.trim_end_matches(','))
        .filter(|w| !w.is_empty())
    {
        if word.starts_with('/') {
            out.push(object(word, kind.take()));
            continue;
        }
        kind = match word {
            "wh" => Some(What::Whiteout),
            "xwh" => Some(What::XattrWhiteout),
            "fifo" => Some(What::Fifo),
            "sock" => Some(What::Socket),
            "chr" => Some(What::Char),
            "blk" => Some(What::Block),
            _ => None,
        };
        if kind.is_none() {
            let last = out.last_mut();
            let last = last.unwrap_or_else(|| panic!("{word:?} belongs to no object"));
            last.attrs.push(attr(word));
        }
    }
    assert!(kind.is_none(), "a kind without a path ends {body:?}");
    out
}

fn object(word: &str, kind: Option<What>) -> Object {
    let (path, what) = if let Some(what) = kind {
        (word, what)
    } else if let Some((path, to)) = word.split_once("==") {
        (path, What::Link(to.to_owned()))
    } else if let Some((path, target)) = word.split_once("->") {
        (path, What::Symlink(target.to_owned()))
    } else if let Some((path, content)) = word.split_once('=') {
        (path, What::File(content_of(content)))
    } else {
        (word, What::Dir)
    };
    let path = match path.trim_end_matches('/') {
        "" => "/",
        path => path,
    };
    Object {
        what,
        path: path.to_owned(),
        attrs: Vec::new(),
    }
}

/// `@N` stands for N bytes that differ from their neighbours.
pub(crate) fn content_of(text: &str) -> Vec<u8> {
    match text.strip_prefix('@').and_then(|n| n.parse().ok()) {
        Some(n) => (0..n).map(|i: usize| (i % 251) as u8 + 1).collect(),
        None => text.as_bytes().to_vec(),
    }
}

fn attr(word: &str) -> Attr {
    let (absent, word) = match word.strip_prefix('!') {
        Some(rest) => (true, rest),
        None => (false, word),
    };
    let (name, value) = word.split_once('=').unwrap_or((word, ""));
    Attr {
        name: name.to_owned(),
        value: value.to_owned(),
        absent,
    }
}
