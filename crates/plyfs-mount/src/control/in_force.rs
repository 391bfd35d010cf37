//! Which options are in force, and why: given, the default, or found out about the layers.
use std::time::Duration;

use plyfs_format::names::XattrNamespace;
use plyfs_fuse::Data;
use plyfs_layer::Caps;
use plyfs_sys::mount::MountFlags;
use plyfs_union::{RedirectDir, Union};
use serde::{Deserialize, Serialize};

use crate::options::Meaning;
use crate::spec::MountSpec;

/// Why something is as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Why {
    /// Whoever mounted said so.
    Given,
    /// Nobody said otherwise.
    Default,
    /// It was tried.
    Probed,
}

/// One option in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InForce {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: String,
    /// Where the value is from.
    pub why: Why,
    /// What a reader may want to know besides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

impl InForce {
    pub(crate) fn new(name: &str, value: impl Into<String>, why: Why) -> Self {
        Self {
            name: name.to_owned(),
            value: value.into(),
            why,
            note: None,
        }
    }

    pub(crate) fn noting(mut self, note: &str) -> Self {
        self.note = Some(note.to_owned());
        self
    }
}

/// The options of a mount that has been opened.
#[must_use]
pub fn options(spec: &MountSpec, union: &Union) -> Vec<InForce> {
    let mut all = of_spec(spec);
    if let Some(caps) = union.upper_caps() {
        let marks = !union.deletes_by_name();
        all.extend(of_caps(spec, caps, marks));
        let lacks_marks = "asked for, but the upper takes no marks";
        let lacks_index = "asked for, but the layers have no file handles or xattrs";
        for (name, asked, off, why) in [
            (
                "index",
                spec.union.index && !union.has_index(),
                "off",
                lacks_index,
            ),
            (
                "metacopy",
                spec.union.metacopy && !marks,
                "off",
                lacks_marks,
            ),
            (
                "redirect_dir",
                makes_redirects(spec) && !marks,
                "follow",
                lacks_marks,
            ),
        ] {
            if asked {
                all.retain(|o| o.name != name);
                all.push(InForce::new(name, off, Why::Probed).noting(why));
            }
        }
    } else {
        let ns = namespace_name(union.xattr_namespace());
        all.push(InForce::new("xattrs", ns, Why::Probed).noting("no upper: only read"));
    }
    all
}

fn makes_redirects(spec: &MountSpec) -> bool {
    spec.union.redirect_dir == RedirectDir::On
}

const CACHED: &str = "opens and warm reads cost no request, and all see every change at once";
const PASSED: &str = "tried: the kernel takes files from this process; `opens` tells of the rest";

fn data_name(data: Data) -> &'static str {
    match data {
        Data::Cached => "cached",
        Data::Passthrough => "passthrough",
    }
}

fn on(value: bool) -> &'static str {
    if value { "on" } else { "off" }
}

fn of_spec(spec: &MountSpec) -> Vec<InForce> {
    let u = &spec.union;
    let redirect = match u.redirect_dir {
        RedirectDir::On => "on",
        RedirectDir::Follow => "follow",
        RedirectDir::NoFollow => "nofollow",
    };
    let seconds = |d: Duration, forever: &str| match d {
        Duration::MAX => forever.to_owned(),
        d => d.as_secs_f64().to_string(),
    };
    let s = &spec.session;
    let known: [(&str, String); 9] = [
        ("data", data_name(s.data).to_owned()),
        ("redirect_dir", redirect.to_owned()),
        ("metacopy", on(u.metacopy).to_owned()),
        ("index", on(u.index).to_owned()),
        ("volatile", on(u.volatile).to_owned()),
        ("timeout", seconds(s.timeout, "forever")),
        ("threads", s.threads.to_string()),
        ("slow", seconds(s.slow, "never")),
        ("max_write", s.max_write.to_string()),
    ];
    let was_given = |name: &str| spec.given.iter().any(|g| sets(g.def.meaning) == Some(name));
    let mut all: Vec<InForce> = known
        .iter()
        .map(|(name, value)| {
            let why = if was_given(name) {
                Why::Given
            } else {
                Why::Default
            };
            let option = InForce::new(name, value.as_str(), why);
            match (*name, s.data) {
                ("data", Data::Cached) if why == Why::Default => option.noting(CACHED),
                ("data", Data::Passthrough) => option.noting(PASSED),
                _ => option,
            }
        })
        .collect();
    let flags = flag_names(spec.settings.flags);
    all.push(InForce::new("flags", flags, flags_why(spec)));
    all.push(allow_other(spec));
    all.extend(others(spec));
    all
}

/// Options with an effect that stand for themselves: layers are told elsewhere.
fn others(spec: &MountSpec) -> Vec<InForce> {
    let is_layer = |m| {
        use Meaning as M;
        matches!(
            m,
            M::Lowers | M::LowerAppend | M::DataAppend | M::Upper | M::Work
        )
    };
    let mut rest: Vec<InForce> = Vec::new();
    for given in &spec.given {
        let meaning = given.def.meaning;
        let told = sets(meaning).is_some() || is_layer(meaning);
        let idle = matches!(meaning, Meaning::Granted | Meaning::NoEffect(_));
        let flag = matches!(meaning, Meaning::Set(_) | Meaning::Clear(_));
        if told || idle || flag || meaning == Meaning::AllowOther {
            continue;
        }
        // The last one wins.
        rest.retain(|o| o.name != given.def.name);
        rest.push(InForce::new(given.def.name, given.text(), Why::Given));
    }
    rest
}

/// The name under which the effect of an option is told.
fn sets(meaning: Meaning) -> Option<&'static str> {
    Some(match meaning {
        Meaning::RedirectDir => "redirect_dir",
        Meaning::Metacopy => "metacopy",
        Meaning::Index => "index",
        Meaning::Volatile | Meaning::Fsync => "volatile",
        Meaning::Timeout => "timeout",
        Meaning::Threads | Meaning::Threaded => "threads",
        Meaning::Slow => "slow",
        Meaning::Data => "data",
        Meaning::MaxWrite => "max_write",
        Meaning::UserXattr => "xattrs",
        Meaning::NoSandbox => "sandbox",
        _ => return None,
    })
}

fn allow_other(spec: &MountSpec) -> InForce {
    let given = spec
        .given
        .iter()
        .any(|g| g.def.meaning == Meaning::AllowOther);
    let why = if given { Why::Given } else { Why::Default };
    let option = InForce::new("allow_other", on(spec.settings.allow_other), why);
    match (given, spec.settings.allow_other) {
        (false, true) => option.noting("root lets everybody in"),
        _ => option,
    }
}

fn flags_why(spec: &MountSpec) -> Why {
    let is_flag = |m| matches!(m, Meaning::Set(_) | Meaning::Clear(_));
    if spec.given.iter().any(|g| is_flag(g.def.meaning)) {
        Why::Given
    } else {
        Why::Default
    }
}

fn flag_names(flags: MountFlags) -> String {
    let first = if flags.contains(MountFlags::RDONLY) {
        "ro"
    } else {
        "rw"
    };
    let rest = flags
        .difference(MountFlags::RDONLY)
        .iter_names()
        .map(|(name, _)| match name {
            "SYNCHRONOUS" => "sync".to_owned(),
            name => name.to_lowercase(),
        });
    let all: Vec<String> = std::iter::once(first.to_owned()).chain(rest).collect();
    all.join(",")
}

fn namespace_name(ns: XattrNamespace) -> &'static str {
    match ns {
        XattrNamespace::Trusted => "trusted.overlay.*",
        XattrNamespace::User => "user.overlay.*",
    }
}

/// Why the upper cannot have the kernel's whiteouts and opaque marks.
fn no_devices(caps: Caps) -> &'static str {
    match caps {
        Caps { xattr: None, .. } => "no xattr could say that a directory is opaque",
        Caps {
            whiteout: false, ..
        } => "char 0:0 cannot be made here",
        Caps {
            exchange: false, ..
        } => "names cannot change places in one step (RENAME_EXCHANGE)",
        _ => "as it was when the upper was new",
    }
}

/// What was found out about the upper decides the formats.
fn of_caps(spec: &MountSpec, caps: Caps, marks: bool) -> Vec<InForce> {
    let given = spec.union.xattr_namespace.is_some();
    let xattrs = match caps.xattr {
        Some(ns) if given => InForce::new("xattrs", namespace_name(ns), Why::Given),
        Some(ns) => InForce::new("xattrs", namespace_name(ns), Why::Probed),
        None => InForce::new("xattrs", "none", Why::Probed)
            .noting("the upper's file system takes none of the overlay's marks"),
    };
    let whiteouts = match (marks, caps.rename_whiteout) {
        (true, true) => InForce::new("whiteouts", "char 0:0", Why::Probed)
            .noting("RENAME_WHITEOUT makes them in one step"),
        (true, false) => InForce::new("whiteouts", "char 0:0", Why::Probed),
        (false, _) => InForce::new("whiteouts", ".wh.NAME", Why::Probed).noting(no_devices(caps)),
    };
    let exchange = InForce::new("exchange", on(caps.exchange), Why::Probed);
    vec![xattrs, whiteouts, exchange]
}
