use super::*;

fn map(text: &str) -> IdMap {
    IdMap::parse(text).unwrap()
}

#[test]
fn both_directions() {
    let rootless = map("0:1000:1:1:100000:65536");
    for (container, host) in [
        (0, Some(1000)),
        (1, Some(100_000)),
        (65536, Some(165_535)),
        (65537, None),
        (u32::MAX, None),
    ] {
        assert_eq!(rootless.to_host(container), host, "{container}");
        if let Some(host) = host {
            assert_eq!(rootless.to_container(host), Some(container), "{host}");
        }
    }
    for unmapped in [0, 999, 1001, 99_999, 165_536] {
        assert_eq!(rootless.to_container(unmapped), None, "{unmapped}");
        assert_eq!(rootless.to_container_or_overflow(unmapped), 65534);
    }
    assert_eq!(rootless.to_host_or_overflow(70_000), 65534);
}

#[test]
fn spellings() {
    let plain = map("0:1000:1:1:100000:65536");
    assert_eq!(map(":0:1000:1:1:100000:65536"), plain);
    assert_eq!(map("1:100000:65536:0:1000:1"), plain);
    assert_eq!(map("00:01000:1:1:100000:65536"), plain);
}

#[test]
fn the_identity_maps_everything() {
    let identity = IdMap::default();
    assert!(identity.is_identity());
    assert_eq!(identity.to_host(7), Some(7));
    assert_eq!(identity.to_container(u32::MAX), Some(u32::MAX));
}

#[test]
fn many_ranges_with_gaps() {
    let ranges = (0..300).map(|i| IdRange {
        container: i * 10,
        host: 90_000 - i * 10,
        len: 5,
    });
    let map = IdMap::new(ranges).unwrap();
    assert_eq!(map.to_host(14), Some(89_994));
    assert_eq!(map.to_container(89_994), Some(14));
    assert_eq!(map.to_host(15), None);
    assert_eq!(map.ranges().len(), 300);
}

#[test]
fn refused() {
    for (text, why) in [
        ("", "has 1 fields"),
        (":", "has 1 fields"),
        ("0:1000", "has 2 fields"),
        ("0:1000:1:5", "has 4 fields"),
        ("::0:1000:1", "has 4 fields"),
        ("a:1000:1", "`a` is not a number"),
        ("0:-1:1", "`-1` is not a number"),
        ("0:+1:1", "`+1` is not a number"),
        ("0::1", "`` is not a number"),
        ("0:4294967296:1", "not a number from 0 to"),
        ("0:1000:0", "range 0:1000:0 is empty"),
        ("0:1:4294967295", "0:1:4294967295 goes past"),
        ("4294967295:0:1", "goes past"),
        (
            "0:0:10:5:100:10",
            "0:0:10 and 5:100:10 overlap on the container side",
        ),
        (
            "0:0:10:20:9:10",
            "0:0:10 and 20:9:10 overlap on the host side",
        ),
        ("0:0:1:0:0:1", "overlap"),
    ] {
        let e = IdMap::parse(text).unwrap_err().to_string();
        assert!(e.contains(why), "{text}: {e}");
    }
    assert!(IdMap::parse("0:0:4294967295").is_ok());
}
