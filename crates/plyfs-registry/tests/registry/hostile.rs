//! Bytes from strangers: whatever comes, the answer is a value or an error, and means one thing.
use plyfs_registry::{Manifest, Object, Parsed, Platform, Reference};
use proptest::prelude::*;

/// A manifest into which anything may be mixed.
fn manifest() -> impl Strategy<Value = Vec<u8>> {
    let zeros = "0".repeat(64);
    let descriptor =
        format!(r#"{{"mediaType":"application/x","digest":"sha256:{zeros}","size":2}}"#);
    let pieces = vec![
        "{".to_owned(),
        "}".to_owned(),
        "[".to_owned(),
        "]".to_owned(),
        ",".to_owned(),
        r#""schemaVersion":2"#.to_owned(),
        r#""schemaVersion":18446744073709551616"#.to_owned(),
        r#""mediaType":"application/vnd.oci.image.manifest.v1+json""#.to_owned(),
        r#""mediaType":"application/vnd.oci.image.index.v1+json""#.to_owned(),
        r#""mediaType":7"#.to_owned(),
        format!(r#""config":{descriptor}"#),
        format!(r#""layers":[{descriptor}]"#),
        format!(r#""manifests":[{descriptor}]"#),
        r#""layers":[{"digest":"sha256:../..","size":-1}]"#.to_owned(),
        r#""manifests":null"#.to_owned(),
        "\u{0}".to_owned(),
    ];
    let built = prop::collection::vec(prop::sample::select(pieces), 0..8)
        .prop_map(|parts| format!("{{{}}}", parts.join(",")).into_bytes());
    let broken = (built.clone(), any::<prop::sample::Index>(), any::<u8>()).prop_map(
        |(mut bytes, at, byte)| {
            let place = at.index(bytes.len());
            bytes[place] = byte;
            bytes
        },
    );
    let noise = prop::collection::vec(any::<u8>(), 0..200);
    prop_oneof![4 => built, 2 => broken, 1 => noise]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn a_manifest_is_read_or_refused(bytes in manifest(), told in "[ -~]{0,60}") {
        let object = Object::new("manifest");
        if let Ok(manifest) = Manifest::new(bytes.clone(), Some(&told), None, &object) {
            prop_assert_eq!(manifest.bytes(), &bytes[..]);
            match manifest.parse(&object) {
                Ok(Parsed::Image(image)) => {
                    // What is named can be made a path of.
                    for layer in image.layers() {
                        prop_assert!(!layer.digest().digest().contains(['/', '.']));
                    }
                }
                Ok(Parsed::Index(index)) => {
                    prop_assert!(index.manifests().iter().all(|m| !m.digest().digest().contains('/')));
                }
                Err(_) => {}
            }
        }
    }

    #[test]
    fn a_name_means_what_it_says(text in "([a-zA-Z0-9._:/@-]|\\PC){0,40}") {
        if let Ok(name) = text.parse::<Reference>() {
            let shown = name.to_string();
            prop_assert_eq!(&shown.parse::<Reference>().unwrap(), &name);
            prop_assert!(!shown.contains("..") && !shown.contains(|c: char| c.is_control() || c == ' '));
            prop_assert!(!name.repository().starts_with('/'));
        }
        if let Ok(platform) = text.parse::<Platform>() {
            prop_assert_eq!(platform.to_string().parse::<Platform>().unwrap(), platform);
        }
    }
}
