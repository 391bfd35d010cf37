//! What another process may do, as /proc tells it.
use std::fs;

/// Credentials of a process that FUSE does not pass on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Peer {
    /// Effective capabilities, one bit each.
    pub effective: u64,
    /// Supplementary groups.
    pub groups: Vec<u32>,
}

/// The credentials of the thread `pid`; None when it has gone or /proc does not show it.
#[must_use]
pub fn look_up(pid: u32) -> Option<Peer> {
    parse(&fs::read_to_string(format!("/proc/{pid}/status")).ok()?)
}

fn parse(status: &str) -> Option<Peer> {
    let mut peer = Peer::default();
    let mut found = false;
    for line in status.lines() {
        if let Some(list) = line.strip_prefix("Groups:") {
            peer.groups = list
                .split_whitespace()
                .filter_map(|g| g.parse().ok())
                .collect();
        } else if let Some(hex) = line.strip_prefix("CapEff:") {
            peer.effective = u64::from_str_radix(hex.trim(), 16).ok()?;
            found = true;
        }
    }
    found.then_some(peer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_groups_and_capabilities() {
        let text = "Name:\tx\nGroups:\t4 24 1000 \nCapEff:\t0000000000200010\n";
        let peer = parse(text).unwrap();
        assert_eq!(
            peer,
            Peer {
                effective: 0x20_0010,
                groups: vec![4, 24, 1000]
            }
        );
        assert_eq!(parse("Name:\tx\n"), None);
    }

    #[test]
    fn knows_this_process() {
        assert!(look_up(std::process::id()).is_some());
    }
}
