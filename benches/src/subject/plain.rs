//! A directory without any union: what the file system below can do.
use anyhow::Result;

use super::{Mounted, Subject};
use crate::site::Stack;

/// The files themselves, unmerged.
#[derive(Debug)]
pub struct Plain;

impl Subject for Plain {
    fn name(&self) -> &'static str {
        "plain"
    }

    fn version(&self) -> String {
        "a directory".to_owned()
    }

    fn copies_up(&self) -> bool {
        false
    }

    fn mount(&self, stack: &Stack) -> Result<Mounted> {
        Ok(Mounted::nothing(stack.plain.clone()))
    }
}
