//! The programs that tests run: random work on mounted file systems, and what judges it.

pub mod disk;
pub mod fsx;
pub mod judge;
