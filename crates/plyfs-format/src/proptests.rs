//! Properties of all formats: no input makes a parser panic, and what is written reads back.

use proptest::collection::vec;
use proptest::prelude::*;

use crate::acl::{Acl, Entry, Tag, inherit};
use crate::idmap::{IdMap, IdRange};
use crate::ino::Xino;
use crate::names::XattrNamespace;
use crate::nlink::{Base, Nlink};
use crate::origin::Origin;
use crate::override_stat::{Kind, OverrideStat};
use crate::redirect::Redirect;
use crate::*;

fn namespaces() -> impl Strategy<Value = XattrNamespace> {
    prop_oneof![Just(XattrNamespace::Trusted), Just(XattrNamespace::User)]
}

/// Text near the grammars, which random bytes hardly ever are.
fn near_text() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop::sample::select(vec![
        "/",
        ".",
        "..",
        ":",
        "-",
        "+",
        "U",
        "L",
        "0",
        "7",
        "8",
        "65536",
        "4294967295",
        "4294967296",
        "file",
        "block",
        "char",
        "dir",
        "a",
        "\0",
        ".wh.",
        "opq",
        "overlay.",
        "trusted.",
        "user.",
        "fuseoverlayfs.",
        "00fb1d00",
        "#",
    ]);
    vec(piece, 0..12).prop_map(|pieces| pieces.concat().into_bytes())
}

/// A correct value with some bytes overwritten, cut or added.
fn damaged(value: Vec<u8>) -> impl Strategy<Value = Vec<u8>> {
    let edits = vec((any::<prop::sample::Index>(), any::<u8>()), 0..4);
    (edits, 0..=value.len(), vec(any::<u8>(), 0..3)).prop_map(move |(edits, keep, tail)| {
        let mut bytes = value.clone();
        for (at, byte) in edits {
            if let Some(slot) = (!bytes.is_empty()).then(|| at.index(bytes.len())) {
                bytes[slot] = byte;
            }
        }
        bytes.truncate(keep);
        bytes.extend(tail);
        bytes
    })
}

fn inputs() -> impl Strategy<Value = Vec<u8>> {
    let origin = Origin {
        handle_type: 1,
        uuid: [3; 16],
        fid: vec![5; 8],
        is_upper: false,
    };
    let list = Acl::from_mode(0o755).encode();
    prop_oneof![
        vec(any::<u8>(), 0..200),
        near_text(),
        damaged(origin.encode()),
        damaged(index::index_name(&origin).unwrap()),
        damaged(list),
        damaged(vec![0, 36, 0, 1]),
    ]
}

fn names() -> impl Strategy<Value = Vec<u8>> {
    vec(
        any::<u8>().prop_filter("in a name", |b| !matches!(b, 0 | b'/')),
        1..20,
    )
    .prop_filter("an entry of a directory", |name| {
        name != b"." && name != b".."
    })
}

fn acls() -> impl Strategy<Value = Acl> {
    let perms = (0..8u8, 0..8u8, 0..8u8);
    let named = (
        vec((0..u32::MAX, 0..8u8), 0..4),
        vec((0..u32::MAX, 0..8u8), 0..4),
    );
    (perms, named, prop::option::of(0..8u8)).prop_map(|((user, group, other), (us, gs), mask)| {
        let entry = |tag, perm| Entry { tag, perm };
        let mask = mask.or((!us.is_empty() || !gs.is_empty()).then_some(5));
        let mut entries = vec![entry(Tag::UserObj, user)];
        entries.extend(us.into_iter().map(|(id, perm)| entry(Tag::User(id), perm)));
        entries.push(entry(Tag::GroupObj, group));
        entries.extend(gs.into_iter().map(|(id, perm)| entry(Tag::Group(id), perm)));
        entries.extend(mask.map(|perm| entry(Tag::Mask, perm)));
        entries.push(entry(Tag::Other, other));
        Acl::new(entries).unwrap()
    })
}

/// Filesystem and number, near each other and at the bits where the parts of a union's number meet.
fn real_inos() -> impl Strategy<Value = (u32, u64)> {
    (0..40u32, 0..4u64, prop::option::of(56..64u32))
        .prop_map(|(fsid, low, bit)| (fsid, low | bit.map_or(0, |bit| 1 << bit)))
}

fn kinds() -> impl Strategy<Value = Kind> {
    prop_oneof![
        Just(Kind::File),
        Just(Kind::Dir),
        Just(Kind::Symlink),
        Just(Kind::Pipe),
        Just(Kind::Socket),
        any::<(u32, u32)>().prop_map(|(major, minor)| Kind::Block { major, minor }),
        any::<(u32, u32)>().prop_map(|(major, minor)| Kind::Char { major, minor }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1024))]

    /// What is accepted is also written back to something that means the same.
    #[test]
    fn parsers_are_total_and_stable(bytes in inputs(), namespace in namespaces()) {
        if let Ok(redirect) = redirect::parse(&bytes) {
            prop_assert_eq!(redirect.encode(), Ok(bytes.clone()));
        }
        if let Ok(Some(origin)) = origin::parse(&bytes) {
            prop_assert_eq!(origin::parse(&origin.encode()), Ok(Some(origin)));
        }
        if let Ok(Some(origin)) = index::parse_index_name(&bytes) {
            let name = index::index_name(&origin);
            prop_assert!(name.is_none_or(|n| index::parse_index_name(&n) == Ok(Some(origin))));
        }
        if let Ok(nlink) = nlink::parse(&bytes) {
            prop_assert_eq!(nlink::parse(&nlink.encode()), Ok(nlink));
            let _shown = nlink.apply(u32::MAX, 0);
        }
        if let Ok(stat) = override_stat::parse(&bytes) {
            prop_assert_eq!(override_stat::parse(&stat.encode()), Ok(stat));
        }
        if let Ok(Some(list)) = Acl::parse(&bytes) {
            prop_assert_eq!(Acl::parse(&list.encode()), Ok(Some(list)));
        }
        if let Ok(protection) = protattr::parse(&bytes) {
            prop_assert!(protattr::encode(protection).is_some());
        }
        if let Some(name) = aufs::whited_out(&bytes) {
            prop_assert!(bytes.len() > 255 || name.contains(&b'/') || aufs::whiteout_name(name) == Some(bytes.clone()));
        }
        let _meaning = (opaque::parse(&bytes), metacopy::parse(&bytes), aufs::classify(&bytes));
        let _name = namespace.from_disk(&bytes);
        if let Ok(text) = str::from_utf8(&bytes) {
            let _map = IdMap::parse(text);
        }
    }

    #[test]
    fn user_names_survive_the_disk(name in near_text(), own in any::<bool>(), namespace in namespaces()) {
        let name = if own { [namespace.prefix().as_bytes(), &name].concat() } else { name };
        let disk = namespace.to_disk(&name);
        prop_assert!(!namespace.is_private(&disk), "a user can never reach a private name");
        if !names::is_foreign_private(&name) {
            let shown = namespace.from_disk(&disk);
            prop_assert_eq!(shown.as_deref(), Some(&name[..]));
        }
    }

    #[test]
    fn redirects_round_trip(path in vec(names(), 1..10)) {
        let redirect = Redirect::Absolute(path.clone());
        prop_assert_eq!(redirect::parse(&redirect::encode_absolute(&path).unwrap()), Ok(redirect));
        let relative = redirect::encode_relative(&path[0]).unwrap();
        prop_assert_eq!(redirect::parse(&relative), Ok(Redirect::Relative(relative)));
    }

    #[test]
    fn origins_round_trip(
        handle_type in any::<u8>(), uuid in any::<[u8; 16]>(), fid in vec(any::<u8>(), 0..=128), is_upper in any::<bool>(),
    ) {
        let origin = Origin { handle_type, uuid, fid, is_upper };
        prop_assert_eq!(origin::parse(&origin.encode()), Ok(Some(origin)));
    }

    #[test]
    fn stats_round_trip(uid: u32, gid: u32, mode in 0..=0o7777u32, kind in prop::option::of(kinds())) {
        let stat = OverrideStat { uid, gid, mode, kind };
        prop_assert_eq!(override_stat::parse(&stat.encode()), Ok(stat));
    }

    #[test]
    fn nlinks_round_trip(union in 1..100_000u32, real in 1..100_000u32) {
        let nlink = Nlink::relative(Base::Lower, union, real).unwrap();
        prop_assert_eq!(nlink::parse(&nlink.encode()), Ok(nlink));
        prop_assert_eq!(nlink.apply(0, real), Some(union));
    }

    #[test]
    fn id_maps_are_one_to_one(ranges in vec((0..200u32, 0..200u32, 1..20u32), 1..8), id in 0..250u32) {
        let ranges = ranges.into_iter().map(|(container, host, len)| IdRange { container, host, len });
        if let Ok(map) = IdMap::new(ranges) {
            if let Some(host) = map.to_host(id) {
                prop_assert_eq!(map.to_container(host), Some(id));
            }
            if let Some(container) = map.to_container(id) {
                prop_assert_eq!(map.to_host(container), Some(id));
            }
        }
    }

    #[test]
    fn xino_never_collides(filesystems in 1..40u32, a in real_inos(), b in real_inos(), seq in 0..4u64) {
        let xino = Xino::for_filesystems(filesystems);
        let (x, y, own) = (xino.encode(a.0, a.1), xino.encode(b.0, b.1), xino.own(seq));
        prop_assert!(x.is_none() || a == b || x != y);
        prop_assert!(own.is_none() || own != x);
        if a.0 < filesystems && a.1 < 4 {
            prop_assert!(x.is_some(), "small numbers of every filesystem fit");
        }
    }

    #[test]
    fn inherited_modes_and_lists_agree(default in acls(), mode in 0..=0o7777u32, is_dir: bool) {
        let new = inherit(&default, mode, is_dir);
        prop_assert_eq!(new.mode & !mode, 0, "inheritance never grants what was not asked for");
        prop_assert_eq!(new.mode & !default.equiv_mode(mode).mode, 0, "nor what the list does not grant");
        prop_assert_eq!(new.mode & 0o7000, mode & 0o7000);
        if let Some(access) = &new.access {
            prop_assert_eq!(access.equiv_mode(mode).mode, new.mode);
            prop_assert_eq!(Acl::parse(&access.encode()), Ok(new.access.clone()));
        }
        let changed = default.chmod_masq(mode);
        prop_assert_eq!(changed.equiv_mode(mode).mode, mode, "chmod and stat agree");
    }
}
