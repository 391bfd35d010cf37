use super::*;

fn acl(text: &str) -> Acl {
    try_acl(text).unwrap()
}

/// `u::rwx u:9:r-x g::r-x m::r-x o::r-x`, the short form of setfacl with every field written out.
fn try_acl(text: &str) -> Result<Acl, Malformed> {
    let entry = |word: &str| {
        let [class, id, perm] = word.split(':').collect::<Vec<_>>().try_into().unwrap();
        let tag = match (class, id) {
            ("u", "") => Tag::UserObj,
            ("u", id) => Tag::User(id.parse().unwrap()),
            ("g", "") => Tag::GroupObj,
            ("g", id) => Tag::Group(id.parse().unwrap()),
            ("m", _) => Tag::Mask,
            ("o", _) => Tag::Other,
            _ => panic!("{word}"),
        };
        let bits = perm
            .bytes()
            .fold(0, |bits, b| bits << 1 | u8::from(b != b'-'));
        Entry { tag, perm: bits }
    };
    Acl::new(text.split_whitespace().map(entry).collect())
}

fn bytes(hex: &str) -> Vec<u8> {
    crate::hex::decode(hex.as_bytes()).unwrap()
}

/// Values that Linux 6.18 showed for `setfacl -m u:7:rwx,g:8:r,d:u:9:rx` on a directory of mode 755.
#[test]
fn what_the_kernel_wrote_round_trips() {
    for (hex, text) in [
        (
            "0200000001000700ffffffff020007000700000004000500ffffffff080004000800000010000700ffffffff20000500ffffffff",
            "u::rwx u:7:rwx g::r-x g:8:r-- m::rwx o::r-x",
        ),
        (
            "0200000001000700ffffffff020005000900000004000500ffffffff10000500ffffffff20000500ffffffff",
            "u::rwx u:9:r-x g::r-x m::r-x o::r-x",
        ),
    ] {
        let list = acl(text);
        assert_eq!(Acl::parse(&bytes(hex)), Ok(Some(list.clone())));
        assert_eq!(list.encode(), bytes(hex));
    }
}

#[test]
fn values_refused() {
    let valid = acl("u::rwx g::r-x o::r-x").encode();
    let with = |offset: usize, byte: u8| {
        let mut value = valid.clone();
        value[offset] = byte;
        value
    };
    for (value, why) in [
        (vec![], "version"),
        (vec![2, 0, 0], "version"),
        (with(0, 1), "version"),
        (valid[..27].to_vec(), "8-byte"),
        (with(4, 3), "tag"),
        (with(5, 1), "tag"),
        (with(6, 8), "rwx"),
        (with(7, 1), "rwx"),
        (with(4, 4), "order"),
        (valid[..20].to_vec(), "others"),
    ] {
        let e = Acl::parse(&value).unwrap_err();
        assert!(e.why.contains(why), "{value:02x?}: {e}");
    }
    assert_eq!(Acl::parse(&VERSION), Ok(None));
}

#[test]
fn lists_refused() {
    for text in [
        "",
        "u::rwx",
        "u::rwx g::r-x",
        "g::r-x u::rwx o::r-x",
        "u::rwx u::rwx g::r-x o::r-x",
        "u::rwx g::r-x g::r-x o::r-x",
        "u::rwx g::r-x o::r-x o::r-x",
        "u::rwx u:7:rwx g::r-x o::r-x",
        "u::rwx g::r-x g:8:r-x o::r-x",
        "u::rwx g::r-x u:7:rwx m::rwx o::r-x",
        "u::rwx g::r-x m::rwx m::rwx o::r-x",
        "u::rwx g::r-x m::rwx",
        "u::rwx u:4294967295:rwx g::r-x m::rwx o::r-x",
        "",
    ] {
        assert!(try_acl(text).is_err(), "{text}");
    }
    assert!(
        try_acl("u::rwx g::r-x m::rwx o::r-x").is_ok(),
        "a mask without need is fine"
    );
}

/// The first three rows are what Linux 6.18 gave new objects in a directory with that default ACL.
#[test]
fn new_objects_inherit() {
    let default = "u::rwx u:9:r-x g::r-x m::r-x o::r-x";
    for (default, asked, is_dir, mode, access) in [
        (
            default,
            0o666,
            false,
            0o644,
            Some("u::rw- u:9:r-x g::r-x m::r-- o::r--"),
        ),
        (
            default,
            0o100_666,
            false,
            0o100_644,
            Some("u::rw- u:9:r-x g::r-x m::r-- o::r--"),
        ),
        (default, 0o777, true, 0o755, Some(default)),
        (
            default,
            0o7000,
            false,
            0o7000,
            Some("u::--- u:9:r-x g::r-x m::--- o::---"),
        ),
        ("u::rwx g::r-x o::---", 0o666, false, 0o640, None),
        ("u::rwx g::r-x o::---", 0o1777, true, 0o1750, None),
        (
            "u::rwx g::r-x m::rw- o::---",
            0o777,
            false,
            0o760,
            Some("u::rwx g::r-x m::rw- o::---"),
        ),
    ] {
        let got = inherit(&acl(default), asked, is_dir);
        assert_eq!(got.mode, mode, "{default} {asked:o}");
        assert_eq!(got.access, access.map(acl), "{default} {asked:o}");
        assert_eq!(got.default, is_dir.then(|| acl(default)));
    }
}

#[test]
fn modes_of_lists() {
    for (text, mode, exact) in [
        ("u::rwx g::r-x o::r--", 0o754, true),
        ("u::rw- g::r-x m::r-- o::---", 0o640, false),
        ("u::rw- u:7:rwx g::rwx m::-w- o::--x", 0o621, false),
    ] {
        let got = acl(text).equiv_mode(0o102_000);
        assert_eq!(
            got,
            EquivMode {
                mode: 0o102_000 | mode,
                exact
            },
            "{text}"
        );
    }
    let list = Acl::from_mode(0o100_751);
    assert_eq!(list, acl("u::rwx g::r-x o::--x"));
    assert_eq!(
        list.equiv_mode(0),
        EquivMode {
            mode: 0o751,
            exact: true
        }
    );
}

#[test]
fn chmod() {
    for (before, mode, after) in [
        ("u::rwx g::rwx o::rwx", 0o100_640, "u::rw- g::r-- o::---"),
        (
            "u::rwx u:7:rwx g::rwx m::rwx o::rwx",
            0o640,
            "u::rw- u:7:rwx g::rwx m::r-- o::---",
        ),
    ] {
        assert_eq!(
            acl(before).chmod_masq(mode),
            acl(after),
            "{before} {mode:o}"
        );
    }
}

#[test]
fn ids_are_mapped() {
    let list = acl("u::rwx u:7:rwx g::r-x g:8:r-- m::rwx o::r-x");
    let mapped = list
        .map_ids(|u| Some(u + 1000), |g| Some(g + 2000))
        .unwrap();
    assert_eq!(
        mapped,
        acl("u::rwx u:1007:rwx g::r-x g:2008:r-- m::rwx o::r-x")
    );
    assert_eq!(list.map_ids(Some, |_| None), None);
}
