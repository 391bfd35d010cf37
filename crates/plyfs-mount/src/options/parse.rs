//! The grammar of `-o` strings: commas between options, backslash escapes, quoted labels.
//!
//! `\,` `\:` and `\\` stand for the second character; a backslash before anything else is itself,
//! because no client escapes the backslashes of a path. Commas within `context="..."` and its kin
//! belong to the value (label.FormatMountLabel of the container tools). Empty options are
//! skipped: containers/storage joins its lists with `,,`.
use super::defs::{Meaning, OPTIONS, OptionDef, Takes};
use super::suggest;

/// How options without effect are treated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// They are errors: a person typed them.
    Strict,
    /// They are warnings: a program that was written for another file system passed them.
    Compat,
}

/// An option that has an effect.
#[derive(Debug, Clone)]
pub struct Given {
    /// Its definition.
    pub def: &'static OptionDef,
    /// Its value with escapes still in; empty where it has none.
    raw: Vec<u8>,
}

impl Given {
    /// An option that was read before; None where it does nothing here.
    ///
    /// # Errors
    /// Where it is not known, or not with such a value.
    pub fn again(name: &str, raw: &[u8]) -> Result<Option<Self>, OptionError> {
        judge(name.as_bytes(), (!raw.is_empty()).then_some(raw))
    }

    /// The value as it was given.
    #[must_use]
    pub fn raw(&self) -> &[u8] {
        &self.raw
    }

    /// The value with escapes resolved.
    #[must_use]
    pub fn value(&self) -> Vec<u8> {
        unescape(&self.raw)
    }

    /// The value as text for messages and numbers.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.value()).into_owned()
    }

    /// The value as a list separated by colons, escapes resolved.
    #[must_use]
    pub fn list(&self) -> Vec<Vec<u8>> {
        split_at(&self.raw, b':')
            .into_iter()
            .map(unescape)
            .collect()
    }
}

/// The options of a mount, in the order they were given.
#[derive(Debug, Clone, Default)]
pub struct Parsed {
    /// Those with an effect.
    pub given: Vec<Given>,
    /// One line for each that was ignored.
    pub warnings: Vec<String>,
}

/// What is wrong with an option.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OptionError {
    /// Nobody knows it.
    #[error("unknown mount option {name:?}{}", hint(*.nearest))]
    Unknown {
        /// As typed.
        name: String,
        /// What may have been meant.
        nearest: Option<&'static str>,
    },
    /// It is known from elsewhere, but does nothing here.
    #[error("mount option {name:?} has no effect: {why}")]
    NoEffect {
        /// As typed, with its value.
        name: String,
        /// Why.
        why: &'static str,
    },
    /// `name` without the value it needs.
    #[error("mount option {name:?} needs a value: {name}=VALUE")]
    MissingValue {
        /// Name of the option.
        name: &'static str,
    },
    /// `name=value` where there is no value to give.
    #[error("mount option {name:?} takes no value, but is given {value:?}")]
    UnexpectedValue {
        /// Name of the option.
        name: &'static str,
        /// What was given.
        value: String,
    },
    /// A value that means nothing.
    #[error("mount option {name}={value:?} is not understood: expected {expected}")]
    BadValue {
        /// Name of the option.
        name: &'static str,
        /// What was given.
        value: String,
        /// What it would have to be.
        expected: &'static str,
    },
    /// A quotation mark is missing.
    #[error("mount option {name:?}: the quotation mark after = has no partner")]
    UnclosedQuote {
        /// Name of the option.
        name: String,
    },
    /// `=value` without a name.
    #[error("mount option {text:?} has no name before the =")]
    NoName {
        /// As typed.
        text: String,
    },
    /// No path or option can contain a NUL byte.
    #[error("mount options contain a NUL byte after {before:?}")]
    Nul {
        /// What stands before it.
        before: String,
    },
}

fn hint(nearest: Option<&'static str>) -> String {
    nearest
        .map(|n| format!("; did you mean {n:?}?"))
        .unwrap_or_default()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Reads one `-o` string and appends what it says to `into`.
///
/// # Errors
/// In strict mode every option without effect; in both a value that is missing or means nothing.
pub fn parse(options: &[u8], mode: Mode, into: &mut Parsed) -> Result<(), OptionError> {
    if let Some(at) = options.iter().position(|b| *b == 0) {
        return Err(OptionError::Nul {
            before: text(&options[..at]),
        });
    }
    for element in elements(options)? {
        let (name, value) = match element.iter().position(|b| *b == b'=') {
            Some(0) => {
                return Err(OptionError::NoName {
                    text: text(element),
                });
            }
            Some(at) => (&element[..at], Some(&element[at + 1..])),
            None => (element, None),
        };
        match judge(name, value) {
            Ok(Some(given)) => into.given.push(given),
            Ok(None) => {}
            Err(e @ (OptionError::Unknown { .. } | OptionError::NoEffect { .. }))
                if mode == Mode::Compat =>
            {
                into.warnings.push(format!("ignored: {e}"));
            }
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

/// Looks the option up: None when it is granted without doing anything.
fn judge(name: &[u8], value: Option<&[u8]>) -> Result<Option<Given>, OptionError> {
    let Some(def) = OptionDef::find(name) else {
        let typed = text(name);
        let nearest = suggest::nearest(&typed, OPTIONS.iter().map(|d| d.name));
        return Err(OptionError::Unknown {
            name: typed,
            nearest,
        });
    };
    match (def.takes, value) {
        (Takes::Value, None | Some(b"")) => {
            return Err(OptionError::MissingValue { name: def.name });
        }
        (Takes::Nothing, Some(value)) => {
            return Err(OptionError::UnexpectedValue {
                name: def.name,
                value: text(value),
            });
        }
        _ => {}
    }
    let raw = value.unwrap_or_default().to_vec();
    let no_effect = |why| OptionError::NoEffect {
        name: value.map_or_else(|| text(name), |v| format!("{}={}", text(name), text(v))),
        why,
    };
    match def.meaning {
        Meaning::Granted => Ok(None),
        Meaning::GrantedIf(values, _) if values.iter().any(|v| v.as_bytes() == raw) => Ok(None),
        Meaning::GrantedIf(_, why) | Meaning::NoEffect(why) => Err(no_effect(why)),
        _ => Ok(Some(Given { def, raw })),
    }
}

/// Splits at commas that are neither escaped nor within the quotes of a label.
fn elements(options: &[u8]) -> Result<Vec<&[u8]>, OptionError> {
    let mut found = Vec::new();
    let mut rest = options;
    while !rest.is_empty() {
        let end = match quoted_label(rest) {
            Some((name, from)) => {
                let close = rest[from..].iter().position(|b| *b == b'"');
                let close = close.ok_or_else(|| OptionError::UnclosedQuote { name: text(name) })?;
                let after = from + close + 1;
                after + first_unescaped(&rest[after..], b',')
            }
            None => first_unescaped(rest, b','),
        };
        if end > 0 {
            found.push(&rest[..end]);
        }
        rest = rest.get(end + 1..).unwrap_or_default();
    }
    Ok(found)
}

/// Name of the label option that `rest` begins with, and where its text begins, if quoted.
fn quoted_label(rest: &[u8]) -> Option<(&[u8], usize)> {
    let names: [&[u8]; 4] = [b"context", b"fscontext", b"defcontext", b"rootcontext"];
    let name = names.into_iter().find(|n| rest.starts_with(n))?;
    rest[name.len()..]
        .starts_with(b"=\"")
        .then_some((name, name.len() + 2))
}

/// Where the first `stop` stands that no backslash precedes, or the length.
fn first_unescaped(bytes: &[u8], stop: u8) -> usize {
    let mut at = 0;
    while at < bytes.len() {
        if bytes[at] == b'\\' && bytes.get(at + 1).is_some_and(|b| is_escapable(*b)) {
            at += 2;
        } else if bytes[at] == stop {
            return at;
        } else {
            at += 1;
        }
    }
    bytes.len()
}

fn split_at(bytes: &[u8], stop: u8) -> Vec<&[u8]> {
    let mut parts = Vec::new();
    let mut rest = bytes;
    loop {
        let end = first_unescaped(rest, stop);
        parts.push(&rest[..end]);
        match rest.get(end + 1..) {
            Some(tail) => rest = tail,
            None => return parts,
        }
    }
}

fn is_escapable(b: u8) -> bool {
    matches!(b, b'\\' | b',' | b':')
}

fn unescape(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len());
    let mut iter = bytes.iter().copied().peekable();
    while let Some(b) = iter.next() {
        match iter.peek() {
            Some(next) if b == b'\\' && is_escapable(*next) => out.extend(iter.next()),
            _ => out.push(b),
        }
    }
    out
}
