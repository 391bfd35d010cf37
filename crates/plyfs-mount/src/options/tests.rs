//! What every client writes into `-o`, and what becomes of it.
use proptest::prelude::*;

use super::*;

/// Effective options as `name=value` lines, or the error.
fn read(options: &str, mode: Mode) -> Result<Vec<String>, OptionError> {
    let mut parsed = Parsed::default();
    parse(options.as_bytes(), mode, &mut parsed)?;
    let line = |g: &Given| match g.def.takes {
        Takes::Nothing => g.def.name.to_owned(),
        _ => format!("{}={}", g.def.name, g.text()),
    };
    Ok(parsed.given.iter().map(line).collect())
}

fn warnings(options: &str) -> Vec<String> {
    let mut parsed = Parsed::default();
    parse(options.as_bytes(), Mode::Compat, &mut parsed).unwrap();
    parsed.warnings
}

#[test]
fn what_clients_pass_is_understood() {
    for (options, want) in [
        (
            "lowerdir=/a:/b,upperdir=/u,workdir=/w",
            vec!["lowerdir=/a:/b", "upperdir=/u", "workdir=/w"],
        ),
        // Podman: an empty option, and one at the end.
        (
            "lowerdir=/a,workdir=/w,,volatile",
            vec!["lowerdir=/a", "workdir=/w", "volatile"],
        ),
        (",lowerdir=/a,", vec!["lowerdir=/a"]),
        ("", vec![]),
        // buildah overlay volumes.
        (
            "lowerdir=/a\\:b,upperdir=/u,workdir=/w,private",
            vec!["lowerdir=/a:b", "upperdir=/u", "workdir=/w"],
        ),
        ("upperdir=/a\\,b\\\\c\\d", vec!["upperdir=/a,b\\c\\d"]),
        ("context=\"a:b,c,d\",ro", vec!["ro"]),
        ("context=\"a:b\",context=c,ro", vec!["ro"]),
        (
            "x-systemd.requires=/a,X-foo=\\,,comment=b c,defaults,_netdev,nofail,dev",
            vec!["dev"],
        ),
        (
            "uidmapping=:0:1000:1:1:100000:65536,userxattr",
            vec!["uidmapping=:0:1000:1:1:100000:65536", "userxattr"],
        ),
        (
            "xino=off,xattr_permissions=0,verity=off",
            vec!["xattr_permissions=0"],
        ),
    ] {
        assert_eq!(read(options, Mode::Compat).unwrap(), want, "{options}");
    }
}

#[test]
fn a_list_is_split_at_unescaped_colons() {
    for (options, want) in [
        ("lowerdir=/a:/b", vec!["/a", "/b"]),
        ("lowerdir=/a\\:b:/c\\\\:/d", vec!["/a:b", "/c\\", "/d"]),
        ("lowerdir=/a::/b:", vec!["/a", "", "/b", ""]),
    ] {
        let mut parsed = Parsed::default();
        parse(options.as_bytes(), Mode::Strict, &mut parsed).unwrap();
        let list: Vec<String> = parsed.given[0]
            .list()
            .into_iter()
            .map(|p| String::from_utf8(p).unwrap())
            .collect();
        assert_eq!(list, want, "{options}");
    }
}

#[test]
fn broken_strings_are_errors_in_both_modes() {
    for (options, want) in [
        ("lowerdir", "needs a value"),
        ("lowerdir=", "needs a value"),
        ("=x", "no name"),
        ("ro=1", "takes no value"),
        ("volatile=", "takes no value"),
        ("context=\"a,b", "no partner"),
        ("lowerdir=/a\0b", "NUL"),
    ] {
        for mode in [Mode::Strict, Mode::Compat] {
            let said = read(options, mode).unwrap_err().to_string();
            assert!(said.contains(want), "{options}: {said}");
        }
    }
}

#[test]
fn strict_mode_refuses_what_has_no_effect() {
    for (options, want) in [
        ("uperdir=/u", "did you mean \"upperdir\"?"),
        ("banana=/u", "unknown mount option \"banana\""),
        ("ino32_t", "no effect: plyfs decides"),
        ("plugins=x", "\"plugins=x\" has no effect"),
        ("direct_io", "no effect"),
    ] {
        let said = read(options, Mode::Strict).unwrap_err().to_string();
        assert!(said.contains(want), "{options}: {said}");
        assert!(!said.contains('\n'), "{said}");
    }
}

#[test]
fn compat_mode_warns_once_for_each_and_goes_on() {
    let said = warnings("banana,private,fast_ino=1,lowerdir=/a,context=\"u:r\"");
    assert_eq!(said.len(), 3, "{said:?}");
    assert!(
        said[0].contains("banana") && said[1].contains("fast_ino=1"),
        "{said:?}"
    );
}

#[test]
fn names_in_the_table_are_unique() {
    for (i, def) in OPTIONS.iter().enumerate() {
        assert!(
            OPTIONS[i + 1..].iter().all(|d| d.name != def.name),
            "{}",
            def.name
        );
    }
}

proptest! {
    #[test]
    fn no_string_makes_the_parser_panic(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
        for mode in [Mode::Strict, Mode::Compat] {
            let mut parsed = Parsed::default();
            if parse(&bytes, mode, &mut parsed).is_ok() {
                for given in &parsed.given {
                    drop(given.list());
                }
            }
        }
    }

    #[test]
    fn any_path_survives_escaping(path in "[a-z:,\\\\=\" ]{1,20}", other in "[a-z:,\\\\]{1,20}") {
        let escape = |p: &str| p.replace('\\', "\\\\").replace(':', "\\:").replace(',', "\\,");
        let text = format!("ro,lowerdir={}:{},dev", escape(&path), escape(&other));
        let mut parsed = Parsed::default();
        parse(text.as_bytes(), Mode::Strict, &mut parsed).unwrap();
        prop_assert_eq!(parsed.given.len(), 3);
        prop_assert_eq!(parsed.given[1].list(), vec![path.into_bytes(), other.into_bytes()]);
    }
}

/// Every option that fuse-overlayfs 1.16 and 2.0 and kernel overlayfs know, with a value they take:
/// each is acted on, granted because it asks for what is so, or ignored with the reason.
const KNOWN_ELSEWHERE: &[(&str, &[&str])] = &[
    (
        "fuse-overlayfs 1.16",
        &[
            "redirect_dir=off",
            "context=x",
            "lowerdir=/a",
            "upperdir=/u",
            "workdir=/w",
            "uidmapping=0:10:5",
            "gidmapping=:0:10:5:5:100:20",
            "timeout=1000000000.0",
            "threaded=1",
            "fsync=1",
            "fast_ino=1",
            "writeback=1",
            "noxattrs=1",
            "plugins=/p",
            "xattr_permissions=2",
            "squash_to_root",
            "squash_to_uid=3",
            "squash_to_gid=3",
            "static_nlink",
            "volatile",
            "noacl",
            "allow_root",
            "default_permissions",
            "allow_other",
            "suid",
            "nosuid",
            "dev",
            "nodev",
            "exec",
            "noexec",
            "atime",
            "noatime",
            "diratime",
            "nodiratime",
            "splice_write",
            "splice_read",
            "splice_move",
            "kernel_cache",
            "max_write=65536",
            "ro",
        ],
    ),
    (
        "fuse-overlayfs 2.0",
        &[
            "fast_ino_check=1",
            "xino=auto",
            "xino=on",
            "xino=off",
            "ino32_t",
            "rw",
        ],
    ),
    (
        "kernel overlayfs",
        &[
            "lowerdir+=/a",
            "datadir+=/a",
            "redirect_dir=on",
            "redirect_dir=follow",
            "redirect_dir=nofollow",
            "index=on",
            "index=off",
            "uuid=on",
            "uuid=auto",
            "uuid=null",
            "uuid=off",
            "nfs_export=on",
            "nfs_export=off",
            "userxattr",
            "xino=off",
            "metacopy=on",
            "metacopy=off",
            "verity=off",
            "verity=on",
            "verity=require",
            "override_creds",
            "nooverride_creds",
        ],
    ),
];

#[test]
fn every_option_of_the_others_is_known() {
    for (whose, options) in KNOWN_ELSEWHERE {
        for option in *options {
            let name = option.split_once('=').map_or(*option, |(name, _)| name);
            assert!(
                OptionDef::find(name.as_bytes()).is_some(),
                "{whose}: {option}"
            );
            // In a list, as clients write it, with empty options around.
            let mut parsed = Parsed::default();
            let list = format!("lowerdir=/l,,{option},");
            parse(list.as_bytes(), Mode::Compat, &mut parsed)
                .unwrap_or_else(|e| panic!("{whose}: {option}: {e}"));
            let acted = parsed.given.len() > 1;
            for line in &parsed.warnings {
                let reason = line.split_once("has no effect: ").map(|(_, why)| why);
                assert!(
                    !acted && reason.is_some_and(|why| why.len() > 10),
                    "{whose}: {line}"
                );
            }
            assert!(parsed.warnings.len() <= 1, "{:?}", parsed.warnings);
        }
    }
}
