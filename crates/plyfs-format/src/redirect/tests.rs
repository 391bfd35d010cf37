use super::*;

fn absolute(names: &[&str]) -> Redirect {
    Redirect::Absolute(names.iter().map(|n| n.as_bytes().to_vec()).collect())
}

#[test]
fn accepted() {
    for (value, redirect) in [
        ("d", Redirect::Relative(b"d".to_vec())),
        ("...", Redirect::Relative(b"...".to_vec())),
        (
            " with space\n",
            Redirect::Relative(b" with space\n".to_vec()),
        ),
        ("/d", absolute(&["d"])),
        ("/a/b/c", absolute(&["a", "b", "c"])),
        ("/.a/b..", absolute(&[".a", "b.."])),
    ] {
        assert_eq!(parse(value.as_bytes()), Ok(redirect.clone()), "{value}");
        assert_eq!(
            redirect.encode().as_deref(),
            Ok(value.as_bytes()),
            "{value}"
        );
    }
    assert!(parse("\u{fc}\u{df}".as_bytes()).is_ok());
    assert!(parse(b"\xff\xfe").is_ok(), "names need not be UTF-8");
}

#[test]
fn refused() {
    for value in [
        &b""[..],
        b"/",
        b"//",
        b"/a/",
        b"/a//b",
        b"//a",
        b"a/b",
        b"a/",
        b".",
        b"..",
        b"/..",
        b"/a/../b",
        b"/a/./b",
        b"a\0",
        b"/a\0b/c",
        &[b'a'; 256],
    ] {
        assert!(parse(value).is_err(), "{}", value.escape_ascii());
    }
}

#[test]
fn length_limits() {
    assert!(parse(&[b'a'; 255]).is_ok());
    let longest: Vec<u8> = [b'/', b'a'].repeat(2047);
    assert_eq!(longest.len(), 4094);
    assert!(parse(&longest).is_ok());
    let just: Vec<u8> = [&longest[..], b"b"].concat();
    assert!(parse(&just).is_ok());
    let over: Vec<u8> = [&just[..], b"b"].concat();
    assert_eq!(
        parse(&over).unwrap_err().why,
        "the path is longer than 4095 bytes"
    );
    assert!(encode_absolute(vec!["a"; 2048]).is_err());
}

#[test]
fn what_cannot_be_encoded() {
    assert!(encode_absolute(Vec::<Vec<u8>>::new()).is_err());
    assert!(encode_absolute(["a", "b/c"]).is_err());
    assert!(encode_absolute(["a", ".."]).is_err());
    assert!(encode_relative(b"a/b").is_err());
    assert!(encode_relative(b"").is_err());
}
