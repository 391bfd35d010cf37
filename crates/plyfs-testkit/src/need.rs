//! Asks whether this machine can run a test, so that a test skips loudly instead of failing.
use std::path::Path;

/// Whether the tests run as root of the initial user namespace.
#[must_use]
pub fn is_root() -> bool {
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    let full = map.split_whitespace().eq(["0", "0", "4294967295"]);
    nix::unistd::geteuid().is_root() && full
}

/// Whether a program called `name` is in PATH or, for absolute names, is there.
#[must_use]
pub fn has_program(name: &str) -> bool {
    if name.starts_with('/') {
        return Path::new(name).exists();
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/sbin", "/sbin"].map(Path::new);
    std::env::split_paths(&path).any(|dir| dir.join(name).exists())
        || system.iter().any(|dir| dir.join(name).exists())
}

/// Whether `/dev/fuse` can be opened.
#[must_use]
pub fn can_mount_fuse() -> bool {
    std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/fuse")
        .is_ok()
}

/// Whether the kernel has overlayfs.
#[must_use]
pub fn can_mount_overlay() -> bool {
    let listed = || {
        std::fs::read_to_string("/proc/filesystems")
            .is_ok_and(|list| list.lines().any(|line| line.ends_with("\toverlay")))
    };
    // The file system may be a module that nobody has asked for yet.
    listed()
        || (std::process::Command::new("modprobe")
            .arg("overlay")
            .status()
            .is_ok()
            && listed())
}

/// Whether the kernel is new enough to pass data through to the layers (Linux 6.9).
#[must_use]
pub fn can_pass_through() -> bool {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let mut parts = release
        .split(['.', '-'])
        .map_while(|p| p.parse::<u32>().ok());
    (parts.next().unwrap_or(0), parts.next().unwrap_or(0)) >= (6, 9)
}

/// Says on stderr that a test is skipped and what it needs.
///
/// # Panics
/// Where `PLYFS_NO_SKIP` is set, as in CI: there a skipped test is a failed one.
pub fn skip(test: &str, needs: &str) {
    assert!(
        std::env::var_os("PLYFS_NO_SKIP").is_none(),
        "{test} cannot run here, and PLYFS_NO_SKIP is set: it needs {needs}"
    );
    eprintln!("SKIP {test}: needs {needs}");
}

/// Ends the test with a line on stderr unless it runs as root.
#[macro_export]
macro_rules! need_root {
    () => {
        if !$crate::is_root() {
            eprintln!(
                "SKIP {}: needs root of the initial user namespace",
                module_path!()
            );
            return;
        }
    };
}

/// Ends the test with a line on stderr unless the named programs are installed.
#[macro_export]
macro_rules! need {
    ($($program:expr),+ $(,)?) => {
        $(if !$crate::has_program($program) {
            $crate::skip(module_path!(), $program);
            return;
        })+
    };
}

/// Ends the test with a line on stderr unless a FUSE file system can be mounted here.
#[macro_export]
macro_rules! need_fuse {
    () => {
        $crate::need_root!();
        if !$crate::can_mount_fuse() {
            $crate::skip(module_path!(), "/dev/fuse");
            return;
        }
    };
}

/// Ends the test with a line on stderr unless kernel overlayfs can be mounted here.
#[macro_export]
macro_rules! need_overlay {
    () => {
        $crate::need_root!();
        if !$crate::can_mount_overlay() {
            $crate::skip(module_path!(), "kernel overlayfs");
            return;
        }
    };
}

/// Ends the test with a line on stderr unless data can be passed through to the layers here.
#[macro_export]
macro_rules! need_passthrough {
    () => {
        $crate::need_fuse!();
        if !$crate::can_pass_through() {
            eprintln!("SKIP {}: needs Linux 6.9", module_path!());
            return;
        }
    };
}
