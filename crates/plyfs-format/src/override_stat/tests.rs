use super::*;

fn of(uid: u32, gid: u32, mode: u32, kind: Option<Kind>) -> OverrideStat {
    OverrideStat {
        uid,
        gid,
        mode,
        kind,
    }
}

#[test]
fn round_trip() {
    for (value, stat) in [
        ("0:0:0755:dir", of(0, 0, 0o755, Some(Kind::Dir))),
        (
            "1000:1001:4755:file",
            of(1000, 1001, 0o4755, Some(Kind::File)),
        ),
        ("0:0:0777:symlink", of(0, 0, 0o777, Some(Kind::Symlink))),
        ("0:0:0600:pipe", of(0, 0, 0o600, Some(Kind::Pipe))),
        ("0:0:0600:socket", of(0, 0, 0o600, Some(Kind::Socket))),
        (
            "0:6:0660:block-8-1",
            of(0, 6, 0o660, Some(Kind::Block { major: 8, minor: 1 })),
        ),
        (
            "0:0:0666:char-1-3",
            of(0, 0, 0o666, Some(Kind::Char { major: 1, minor: 3 })),
        ),
        ("4294967295:0:0000", of(u32::MAX, 0, 0, None)),
    ] {
        assert_eq!(parse(value.as_bytes()), Ok(stat), "{value}");
        assert_eq!(stat.encode(), value.as_bytes());
    }
}

#[test]
fn other_spellings_are_read() {
    for (value, stat) in [
        ("0:0:555", of(0, 0, 0o555, None)),
        ("0:0:0100644", of(0, 0, 0o644, None)),
        ("00:007:00644:file", of(0, 7, 0o644, Some(Kind::File))),
    ] {
        assert_eq!(parse(value.as_bytes()), Ok(stat), "{value}");
    }
}

#[test]
fn refused() {
    for value in [
        "",
        "0",
        "0:0",
        "::",
        "0:0:",
        "0:0:8",
        "0:0:-1",
        "0:0:+644",
        "-1:0:644",
        "+1:0:644",
        "0:0:644:",
        "0:0:644:FILE",
        "0:0:644:file:",
        "0:0:644:block",
        "0:0:644:block-1",
        "0:0:644:block-1-2-3",
        "0:0:644:file-1-2",
        "0:0:644:char--1",
        "0:0:644:char-+1-2",
        "4294967296:0:644",
        "0:0:7777777",
        "0:0:644\n",
        " 0:0:644",
    ] {
        assert!(parse(value.as_bytes()).is_err(), "{value:?}");
    }
    assert!(parse(b"0:0:644\xff").is_err());
}

#[test]
fn type_and_permissions_come_from_the_mark() {
    let device = of(0, 0, 0o666, Some(Kind::Char { major: 1, minor: 3 }));
    assert_eq!(device.full_mode(0o100_600), 0o020_666);
    assert_eq!(of(0, 0, 0o4755, None).full_mode(0o100_600), 0o104_755);
}

#[test]
fn kinds_and_mode_bits_agree() {
    for mode in [
        0o100_000, 0o040_000, 0o120_000, 0o010_000, 0o140_000, 0o060_000, 0o020_000,
    ] {
        let kind = Kind::from_stat(mode | 0o644, 8, 1).unwrap();
        assert_eq!(kind.type_bits(), mode, "{kind:?}");
        assert_eq!(
            kind.rdev() == (8, 1),
            matches!(mode, 0o060_000 | 0o020_000),
            "{kind:?}"
        );
    }
    assert_eq!(Kind::from_stat(0o644, 0, 0), None);
}
