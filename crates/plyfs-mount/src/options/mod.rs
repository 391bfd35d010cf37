//! The options of a mount: one table, one grammar, two ways of treating what is not in the table.

pub mod defs;
pub mod parse;
pub mod suggest;

pub use defs::{Meaning, OPTIONS, OptionDef, Origin, Takes};
pub use parse::{Given, Mode, OptionError, Parsed, parse};

#[cfg(test)]
mod tests;
