//! One case: layers, operations, and what must come out.
use plyfs_testkit::need_root;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use plyfs_sys::stat::Kind;

use crate::client::Client;
use crate::ops;
use crate::text::{Object, What, content_of, objects, sections};
use crate::view::{Seen, View, of_dir};
use crate::world::World;

const MARK: &str = "trusted.overlay.";

/// Plants `layers`, does `ops`, and compares with `expect`: `tree:` is all that the view shows,
/// `upper:` all that is in the upper. Directories that are only on the way need no word of their
/// own. Marks other than origin and impure count as part of what is expected of the upper.
pub(crate) fn check(layers: &str, ops: &str, expect: &str) {
    need_root!();
    let world = World::new(layers);
    // On failure the case itself belongs into the message.
    let done = catch_unwind(AssertUnwindSafe(|| check_in(&world, ops, expect)));
    if let Err(cause) = done {
        eprintln!("the case:\n  {layers:?}\n  {ops:?}\n  {expect:?}");
        resume_unwind(cause);
    }
}

fn check_in(world: &World, ops: &str, expect: &str) {
    let mut client = Client::new(world.open());
    ops::run(world, &mut client, ops);
    client.held.clear();
    let shown = world.verify(&client.union);
    for (title, body) in sections(expect) {
        let (view, marks) = match title {
            "tree" => (shown.clone(), false),
            "upper" => (of_dir(&world.upper()), true),
            _ => panic!("no such section of expectations: {title:?}"),
        };
        let problems = compare(&objects(body), &view, marks);
        assert!(
            problems.is_empty(),
            "{title}: {}\nit is: {}",
            problems.join("; "),
            render(&view)
        );
    }
}

/// What of `expected` is not so, and what is there that nobody expected.
fn compare(expected: &[Object], view: &View, marks: bool) -> Vec<String> {
    let mut problems = Vec::new();
    for object in expected {
        match view.get(&object.path) {
            None => problems.push(format!("{} is missing", object.path)),
            Some(seen) => problems
                .extend(mismatch(object, seen, view).map(|m| format!("{}: {m}", object.path))),
        }
    }
    for (path, seen) in view {
        let named = expected.iter().find(|o| o.path == *path);
        let inside = format!("{}/", path.trim_end_matches('/'));
        let on_the_way = path == "/" || expected.iter().any(|o| o.path.starts_with(&inside));
        if named.is_none() && !(seen.kind == Kind::Dir && on_the_way) {
            problems.push(format!("{path} is too much"));
        }
        if marks {
            for mark in ["opaque", "redirect", "metacopy"] {
                let is = seen.xattrs.contains_key(&format!("{MARK}{mark}"));
                let wanted = named.is_some_and(|o| o.attrs.iter().any(|a| a.name == mark));
                if is && !wanted {
                    problems.push(format!("{path} is marked {mark}"));
                }
            }
        }
    }
    problems
}

fn mismatch(object: &Object, seen: &Seen, view: &View) -> Option<String> {
    let wrong = |what: String| Some(what);
    let whiteout = seen.kind == Kind::Char && seen.rdev == (0, 0);
    let kind = match &object.what {
        What::Dir => Kind::Dir,
        What::File(_) | What::XattrWhiteout => Kind::File,
        What::Link(_) => seen.kind,
        What::Symlink(_) => Kind::Symlink,
        What::Whiteout | What::Char => Kind::Char,
        What::Fifo => Kind::Fifo,
        What::Socket => Kind::Socket,
        What::Block => Kind::Block,
    };
    if seen.kind != kind || whiteout != (object.what == What::Whiteout) {
        return wrong(format!("is a {}", word(&object.path, seen)));
    }
    match &object.what {
        What::File(content) if object.attr("size").is_none() && *content != seen.content => {
            return wrong(format!("has {:?}", seen.content.escape_ascii().to_string()));
        }
        What::Symlink(target) if target.as_bytes() != seen.content => {
            return wrong(format!(
                "says {:?}",
                seen.content.escape_ascii().to_string()
            ));
        }
        What::Link(to) if view.get(to).is_none_or(|other| other.ino != seen.ino) => {
            return wrong(format!("is not the same file as {to}"));
        }
        _ => {}
    }
    object.attrs.iter().find_map(|attr| {
        let is = shown(seen, &attr.name);
        match (&is, attr.absent) {
            (Some(_), true) => Some(format!("has {}", attr.name)),
            (None, false) => Some(format!("has no {}", attr.name)),
            (Some(is), false) if !matches_value(&attr.name, &attr.value, is) => {
                Some(format!("{} is {is:?}", attr.name))
            }
            _ => None,
        }
    })
}

fn matches_value(name: &str, wanted: &str, is: &str) -> bool {
    match name {
        "origin" | "impure" | "metacopy" => true,
        "opaque" if wanted.is_empty() => is == "y",
        _ => content_of(wanted).escape_ascii().to_string() == is,
    }
}

fn shown(seen: &Seen, name: &str) -> Option<String> {
    let xattr = |name: &str| seen.xattrs.get(name).map(|v| v.escape_ascii().to_string());
    match name {
        "mode" => Some(format!("{:o}", seen.mode)),
        "own" => Some(format!("{}:{}", seen.uid, seen.gid)),
        "t" => Some(seen.mtime.0.to_string()),
        "size" => Some(seen.size.to_string()),
        "nlink" => Some(seen.nlink.to_string()),
        _ => match name.strip_prefix("x:") {
            Some(name) => xattr(name),
            None => xattr(&format!("{MARK}{name}")),
        },
    }
}

/// A view in the language of expectations, to be read and to be copied.
pub(crate) fn render(view: &View) -> String {
    let inner: BTreeMap<_, _> = view.iter().filter(|(p, _)| *p != "/").collect();
    let words = inner.iter().filter_map(|(path, seen)| {
        let inside = format!("{path}/");
        let plain = seen.kind == Kind::Dir && inner.keys().any(|p| p.starts_with(&inside));
        let marks: Vec<_> = ["opaque", "redirect", "metacopy"]
            .iter()
            .filter_map(|m| Some(format!(" {m}={}", shown(seen, m)?)))
            .collect();
        (!plain || !marks.is_empty()).then(|| word(path, seen) + &marks.concat())
    });
    words.collect::<Vec<_>>().join(", ")
}

fn word(path: &str, seen: &Seen) -> String {
    let content = || seen.content.escape_ascii().to_string();
    match seen.kind {
        Kind::Dir => path.to_owned(),
        Kind::File if seen.content.len() > 40 => format!("{path} size={}", seen.size),
        Kind::File => format!("{path}={}", content()),
        Kind::Symlink => format!("{path}->{}", content()),
        Kind::Char if seen.rdev == (0, 0) => format!("wh {path}"),
        Kind::Char => format!("chr {path}"),
        Kind::Block => format!("blk {path}"),
        Kind::Fifo => format!("fifo {path}"),
        Kind::Socket => format!("sock {path}"),
    }
}
