//! Deliberate faults, in debug builds alone, by which tests prove that they would find a fault.
//!
//! `PLYFS_SABOTAGE=NAME` makes one happen; `scripts/sabotage` lists them and what finds each.

/// Whether the fault is to happen.
#[cfg(debug_assertions)]
pub(crate) fn sabotaged(fault: &str) -> bool {
    use std::sync::OnceLock;
    static CHOSEN: OnceLock<Option<String>> = OnceLock::new();
    let chosen = CHOSEN.get_or_init(|| std::env::var("PLYFS_SABOTAGE").ok());
    chosen.as_deref() == Some(fault)
}

/// Release builds do nothing wrong on purpose.
#[cfg(not(debug_assertions))]
pub(crate) const fn sabotaged(_fault: &str) -> bool {
    false
}
