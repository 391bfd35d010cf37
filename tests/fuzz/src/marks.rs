//! The marks of layers, and what else is read from extended attributes and names of strangers.
use plyfs_format::acl::Acl;
use plyfs_format::idmap::IdMap;
use plyfs_format::redirect::Redirect;
use plyfs_format::{
    aufs, index, metacopy, nlink, opaque, origin, override_stat, protattr, redirect,
};

/// Takes `data` for each of them. What is understood is written as it is read.
pub fn marks(data: &[u8]) {
    redirects(data);
    if let Ok(read) = nlink::parse(data) {
        assert_eq!(nlink::parse(&read.encode()).unwrap(), read);
        for (upper, lower) in [(0, 0), (1, u32::MAX), (u32::MAX, 1)] {
            drop(vec![read.apply(upper, lower)]);
        }
    }
    if let Ok(Some(read)) = origin::parse(data) {
        assert_eq!(origin::parse(&read.encode()).unwrap(), Some(read.clone()));
        if let Some(name) = index::index_name(&read) {
            assert_eq!(index::parse_index_name(&name).unwrap(), Some(read));
        }
    }
    if let Ok(read) = override_stat::parse(data) {
        assert_eq!(override_stat::parse(&read.encode()).unwrap(), read);
    }
    if let Ok(Some(read)) = Acl::parse(data) {
        assert_eq!(Acl::parse(&read.encode()).unwrap(), Some(read.clone()));
        let masked = read.chmod_masq(0o750);
        assert_eq!(Acl::parse(&masked.encode()).unwrap(), Some(masked));
        assert_eq!(read.equiv_mode(0o100_644).mode & !0o777, 0o100_000);
    }
    if let Ok(read) = protattr::parse(data)
        && let Some(value) = protattr::encode(read)
    {
        assert_eq!(protattr::parse(value).unwrap(), read);
    }
    drop((metacopy::parse(data), index::parse_index_name(data)));
    drop(vec![opaque::parse(data)]);
    names(data);
    if let Some(map) = str::from_utf8(data).ok().and_then(|t| IdMap::parse(t).ok()) {
        for range in map.ranges() {
            let host = map.to_host(map.to_container(range.host).unwrap());
            assert_eq!(host, Some(range.host));
        }
    }
}

/// No redirect leads anywhere but down, by names that a directory can have.
fn redirects(data: &[u8]) {
    let Ok(read) = redirect::parse(data) else {
        return;
    };
    let is_name = |name: &[u8]| {
        let path = name.is_empty() || name == b"." || name == b"..";
        !path && name.len() <= 255 && !name.iter().any(|b| matches!(b, 0 | b'/'))
    };
    match &read {
        Redirect::Relative(name) => assert!(is_name(name)),
        Redirect::Absolute(names) => {
            assert!(!names.is_empty() && names.iter().all(|name| is_name(name)));
        }
    }
    assert_eq!(redirect::parse(&read.encode().unwrap()).unwrap(), read);
}

/// Only what a directory entry can be called.
fn names(data: &[u8]) {
    if data.len() > 255 || data.iter().any(|b| matches!(b, 0 | b'/')) {
        return;
    }
    drop(vec![aufs::classify(data)]);
    if let Some(hidden) = aufs::whited_out(data) {
        assert_eq!(aufs::whiteout_name(hidden).as_deref(), Some(data));
    }
}
