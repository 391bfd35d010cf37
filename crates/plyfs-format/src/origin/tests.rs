use super::*;

fn bytes(hex: &str) -> Vec<u8> {
    crate::hex::decode(hex.as_bytes()).unwrap()
}

/// Marks that overlayfs of Linux 6.18 on x86_64 wrote: ext4 without UUID, xfs with UUID, and the `upper` mark of an
/// index directory on xfs.
#[cfg(target_endian = "little")]
#[test]
fn what_the_kernel_wrote_round_trips() {
    let xfs = *b"\xb0\x87\x52\x40\xd5\x6d\x49\x92\x9d\xfb\x8e\xa0\x96\xb7\xc5\x3f";
    for (value, handle_type, uuid, fid, is_upper) in [
        (
            "00fb1d000100000000000000000000000000000000d9c098007a2d26c0",
            1,
            [0; 16],
            "d9c098007a2d26c0",
            false,
        ),
        (
            "00fb210081b0875240d56d49929dfb8ea096b7c53f840000000000000061c90501",
            0x81,
            xfs,
            "840000000000000061c90501",
            false,
        ),
        (
            "00fb210481b0875240d56d49929dfb8ea096b7c53f80000a00000000009773c0c1",
            0x81,
            xfs,
            "80000a00000000009773c0c1",
            true,
        ),
    ] {
        let origin = Origin {
            handle_type,
            uuid,
            fid: bytes(fid),
            is_upper,
        };
        assert_eq!(parse(&bytes(value)), Ok(Some(origin.clone())));
        assert_eq!(origin.encode(), bytes(value));
    }
}

/// A valid mark with one header byte changed.
fn with(offset: usize, byte: u8) -> Vec<u8> {
    let origin = Origin {
        handle_type: 1,
        uuid: [9; 16],
        fid: vec![1, 2, 3, 4],
        is_upper: false,
    };
    let mut value = origin.encode();
    value[offset] = byte;
    value
}

#[test]
fn unknown_origins() {
    let foreign = FLAG_CPU_ENDIAN ^ FLAG_BIG_ENDIAN;
    for value in [
        vec![],
        with(0, 1),
        with(3, 1 << 3),
        with(3, 0x80),
        with(3, foreign),
    ] {
        assert_eq!(parse(&value), Ok(None), "{value:02x?}");
    }
    let any = parse(&with(3, foreign | FLAG_ANY_ENDIAN)).unwrap();
    assert!(any.is_some(), "a handle for any byte order is read on both");
}

#[test]
fn malformed_origins() {
    for (value, why) in [
        (vec![0], "shorter"),
        (with(2, 25)[..20].to_vec(), "shorter"),
        (with(1, 0xfa), "magic"),
        (with(2, 26), "length field"),
        (with(2, 20), "length field"),
        (with(2, 0), "length field"),
        (with(2, 255), "length field"),
        ([&with(2, 150)[..], &[0; 125]].concat(), "128"),
    ] {
        let e = parse(&value).unwrap_err();
        assert!(e.why.contains(why), "{value:02x?}: {e}");
    }
}

#[test]
fn bytes_after_the_stated_length_are_ignored() {
    let long = [&with(1, MAGIC)[..], &[0xaa; 9]].concat();
    assert_eq!(parse(&long), parse(&with(1, MAGIC)));
}

#[test]
fn a_handle_no_kernel_makes_has_no_origin() {
    let origin = Origin {
        handle_type: 1,
        uuid: [0; 16],
        fid: vec![0; 129],
        is_upper: false,
    };
    assert_eq!(origin.encode(), b"");
}
