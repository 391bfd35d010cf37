//! The file systems that are compared, and how each of them mounts a stack.
mod kernel;
mod mounted;
mod plain;
mod program;

use anyhow::Result;

pub use kernel::KernelOverlay;
pub(crate) use kernel::NAME as REFERENCE;
pub use mounted::Mounted;
pub use plain::Plain;
pub use program::{Grammar, Program};

use crate::site::Stack;

/// A file system that shows a stack of layers as one tree.
pub trait Subject {
    /// The name in tables.
    fn name(&self) -> &str;

    /// What exactly was measured: a version, a path.
    fn version(&self) -> String;

    /// Whether it copies files up. A plain directory does not, and has no answer to a workload
    /// that is about copying up.
    fn copies_up(&self) -> bool {
        true
    }

    /// Whether it writes to an upper with copy-up; one that does not is asked to read only.
    fn writes(&self) -> bool {
        true
    }

    /// Mounts `stack`.
    ///
    /// # Errors
    /// When it does not mount; the text carries what the program said.
    fn mount(&self, stack: &Stack) -> Result<Mounted>;
}
