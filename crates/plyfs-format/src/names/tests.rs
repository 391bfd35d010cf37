use super::XattrNamespace::{Trusted, User};
use super::*;

#[test]
fn full_names() {
    assert_eq!(Trusted.opaque(), "trusted.overlay.opaque");
    assert_eq!(User.redirect(), "user.overlay.redirect");
    assert_eq!(Trusted.xwhiteouts(), "trusted.overlay.whiteouts");
    for namespace in [Trusted, User] {
        assert_eq!(namespace.marks().len(), 11);
        for mark in namespace.marks() {
            assert!(mark.starts_with(namespace.prefix()), "{mark}");
            assert!(namespace.is_private(mark.as_bytes()), "{mark}");
        }
    }
}

#[test]
fn private_is_own_prefix_and_not_escaped() {
    for (namespace, name, private) in [
        (Trusted, "trusted.overlay.opaque", true),
        (Trusted, "trusted.overlay.anything", true),
        (Trusted, "trusted.overlay.", true),
        (Trusted, "trusted.overlay.overlay", true),
        (Trusted, "trusted.overlay.overlay.opaque", false),
        (Trusted, "trusted.overlayed", false),
        (Trusted, "user.overlay.opaque", false),
        (User, "user.overlay.opaque", true),
        (User, "user.overlay.overlay.opaque", false),
        (User, "trusted.overlay.opaque", false),
        (Trusted, "", false),
    ] {
        assert_eq!(
            namespace.is_private(name.as_bytes()),
            private,
            "{namespace:?} {name}"
        );
    }
}

/// The rows of `Trusted` are what Linux 6.18 stored for `setfattr` through a mount.
#[test]
fn names_of_users_and_of_the_disk() {
    for (namespace, user, disk) in [
        (
            Trusted,
            "trusted.overlay.opaque",
            "trusted.overlay.overlay.opaque",
        ),
        (
            Trusted,
            "trusted.overlay.overlay.opaque",
            "trusted.overlay.overlay.overlay.opaque",
        ),
        (Trusted, "trusted.overlayed", "trusted.overlayed"),
        (Trusted, "user.overlay.opaque", "user.overlay.opaque"),
        (Trusted, "user.mime_type", "user.mime_type"),
        (User, "user.overlay.opaque", "user.overlay.overlay.opaque"),
        (User, "trusted.overlay.opaque", "trusted.overlay.opaque"),
    ] {
        assert_eq!(
            namespace.to_disk(user.as_bytes()),
            disk.as_bytes(),
            "{user}"
        );
        assert_eq!(
            namespace.from_disk(disk.as_bytes()).as_deref(),
            Some(user.as_bytes()),
            "{disk}"
        );
    }
}

#[test]
fn hidden_from_users() {
    for (namespace, disk) in [
        (Trusted, "trusted.overlay.origin"),
        (User, "user.overlay.origin"),
        (Trusted, "user.fuseoverlayfs.opaque"),
        (User, "user.fuseoverlayfs.override_stat"),
        (Trusted, "security.fuseoverlayfs.override_stat"),
    ] {
        assert_eq!(namespace.from_disk(disk.as_bytes()), None, "{disk}");
    }
    assert!(!is_foreign_private(b"user.fuseoverlayfs"));
}
