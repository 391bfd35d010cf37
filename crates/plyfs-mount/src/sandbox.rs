//! The sandbox: what a daemon takes from itself before it answers the first request.
//!
//! A daemon that serves has everything open: the connection, the roots of the layers, its state
//! file, its log. From then on it needs neither paths nor most of its privileges. [`enter`] is called
//! where each daemon begins to serve, the first one and those that take over, while the process has
//! one thread:
//!
//! 1. *A root directory with nothing in it* but `/proc` and the journal's sockets, read-only, in a
//!    mount namespace of its own. Layers were opened through private mounts, so that `..` ends at the root of each. Needs
//!    CAP_SYS_ADMIN over the mount namespace: root, and root of a user namespace.
//! 2. *No new privileges*, which also keeps setuid programs from being of use.
//! 3. *Capabilities*: those that the mount's options need ([`needed`]), in all sets.
//! 4. *System calls*: a list (`plyfs_sys::confine::calls`). No sockets are made, no programs run, no
//!    processes made or signalled, nothing is mounted, no memory becomes code.
//!
//! # A call that is not on the list
//!
//! answers ENOSYS in a release build, as C libraries fall back on it; the error names the call.
//! Killing would be the stronger wall, but a call that was forgotten would then cost a container
//! its root file system where now it costs one request an error. Debug builds are killed, and not
//! replaced, so that a test finds what was forgotten.
//!
//! # Landlock is not used
//!
//! It looks up the tree at each open, refuses what was opened by file handle (no way leads from
//! there to a layer's root: index and origin would break), and a process in it may not unmount.
//! An empty root costs nothing per request and takes away what Landlock would forbid.
//!
//! # What stays outside
//!
//! [`crate::outside`] unmounts, and the holder makes the next daemon: both have one thread, hold no
//! layer and read nothing of what a layer or a client says, but for the journal that the next
//! daemon starts from before it is in the sandbox.
use std::path::Path;

use plyfs_format::names::XattrNamespace;
use plyfs_fuse::Data;
use plyfs_sys::SysError;
use plyfs_sys::confine::calls::Denied;
use plyfs_sys::confine::caps::Capabilities;
use plyfs_sys::confine::{self, calls, caps, root};
use plyfs_union::{OwnerStore, Union};

use crate::control::in_force::{InForce, Why};
use crate::spec::MountSpec;

/// All paths that a daemon still uses: about clients and itself, and the socket of the log.
const KEPT: [&str; 2] = ["/proc", "/run/systemd/journal"];

/// What is in force.
#[derive(Debug, Default)]
pub(crate) struct Report {
    done: Vec<String>,
    missing: Vec<String>,
}

/// Goes into the sandbox, as far as this machine lets the process.
pub(crate) fn enter(spec: &MountSpec, union: &Union) -> Report {
    let mut report = Report::default();
    report.note(
        "own root",
        root::leave_for_empty(&KEPT.map(Path::new)).map(|()| String::new()),
    );
    let privileges = confine::no_new_privileges();
    report.note("no new privileges", privileges.map(|()| String::new()));
    let kept = caps::keep_only(needed(spec, union));
    report.note("capabilities", kept.map(names));
    let denied = if cfg!(debug_assertions) {
        Denied::Kills
    } else {
        Denied::Fails
    };
    // The last step: what it denies the others need.
    let listed = calls::allow_only_listed(denied);
    report.note("system calls", listed.map(|n| n.to_string()));
    if !report.missing.is_empty() {
        tracing::info!("not in the sandbox: {}", report.missing.join("; "));
    }
    report
}

/// The capabilities that this mount's requests can need.
fn needed(spec: &MountSpec, union: &Union) -> Capabilities {
    use Capabilities as C;
    let mut needed = C::DAC_READ_SEARCH | C::FOWNER;
    let own = &spec.union.ownership;
    // A user's own `trusted.*` and most `security.*` attributes take it as well.
    if union.xattr_namespace() == XattrNamespace::Trusted
        || spec.union.xattrs
        || spec.session.data == Data::Passthrough
        || own.store == OwnerStore::SecurityMark
    {
        needed |= C::SYS_ADMIN;
    }
    if spec.upper.is_some() {
        needed |= C::CHOWN | C::DAC_OVERRIDE | C::FSETID | C::SETGID | C::SETUID;
        needed |= C::LINUX_IMMUTABLE | C::MKNOD | C::SETFCAP | C::MAC_ADMIN;
    }
    needed
}

fn names(kept: Capabilities) -> String {
    let names: Vec<String> = kept
        .iter_names()
        .map(|(name, _)| name.to_lowercase())
        .collect();
    match names.as_slice() {
        [] => "none".to_owned(),
        names => names.join(" "),
    }
}

impl Report {
    fn note(&mut self, what: &str, done: Result<String, SysError>) {
        match done {
            Ok(how) if how.is_empty() => self.done.push(what.to_owned()),
            Ok(how) => self.done.push(format!("{what}: {how}")),
            Err(e) => self.missing.push(format!("no {what} ({e})")),
        }
    }

    /// For those who ask what is in force.
    pub(crate) fn in_force(&self) -> InForce {
        let value = match (self.done.is_empty(), self.missing.is_empty()) {
            (_, true) => "on",
            (false, false) => "partly",
            (true, false) => "off",
        };
        let parts: Vec<&str> = self
            .done
            .iter()
            .chain(&self.missing)
            .map(|s| &**s)
            .collect();
        InForce::new("sandbox", value, Why::Probed).noting(&parts.join(", "))
    }
}

/// For a mount without one.
pub(crate) fn off(why: Why, note: &str) -> InForce {
    InForce::new("sandbox", "off", why).noting(note)
}
