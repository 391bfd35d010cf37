//! Mount options and the command line of mount programs: any bytes are understood or refused.
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

use plyfs_mount::MountSpec;
use plyfs_mount::compat::{self, CalledAs, Request};
use plyfs_mount::options::{Given, Mode, Parsed, parse};
use plyfs_mount::plan::Plan;
use plyfs_mount::spec::Invoker;

/// What separates the words of a command line.
const SEPARATOR: u8 = 0;

/// Takes `data` for an option string, in both grammars, and for the words of a command line.
pub fn options(data: &[u8]) {
    for mode in [Mode::Strict, Mode::Compat] {
        let mut parsed = Parsed::default();
        if parse(data, mode, &mut parsed).is_ok() {
            understood(&parsed.given);
        }
    }
    let words = data.split(|b| *b == SEPARATOR);
    let words: Vec<OsString> = words.map(|w| OsString::from_vec(w.to_vec())).collect();
    for called in [
        CalledAs::Plyfs,
        CalledAs::FuseOverlayfs,
        CalledAs::MountHelper,
    ] {
        if let Ok(Request::Mount(request)) = compat::read(words.clone(), called, Invoker::User) {
            makes_sense(&request.spec);
        }
    }
}

fn understood(given: &[Given]) {
    for one in given {
        // As a program reads it that goes on with the mount.
        let again = Given::again(one.def.name, one.raw()).unwrap();
        assert_eq!(again.map(|g| g.value()), Some(one.value()));
    }
    let mut spec = MountSpec::new("/m".into(), "plyfs", Invoker::current());
    if spec.apply(given).is_ok() {
        makes_sense(&spec);
        let again = Plan::of(&spec).spec().unwrap();
        assert_eq!(again.union.volatile, spec.union.volatile);
        assert_eq!(again.sandbox, spec.sandbox);
        assert_eq!(again.settings.flags, spec.settings.flags);
    }
}

fn makes_sense(spec: &MountSpec) {
    assert!((1..=256).contains(&spec.session.threads));
    assert!((4096..=16 << 20).contains(&spec.session.max_write));
    let ids = &spec.union.ownership;
    assert!(ids.squash_uid != Some(u32::MAX) && ids.squash_gid != Some(u32::MAX));
    // It becomes part of what the setuid helper is told.
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    assert!(spec.settings.subtype.chars().all(plain));
}
