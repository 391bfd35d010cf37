//! Placeholder.

pub mod judge;
