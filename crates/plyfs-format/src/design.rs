//! The on-disk format: what plyfs reads and writes in layers, upper and workdir.
//!
//! The authority is kernel overlayfs. An upper that plyfs wrote mounts under kernel overlayfs with the same view, and
//! the other way round. Where this document and the kernel differ, this document is wrong. Values that stand in tests
//! as "what the kernel wrote" were read from uppers of Linux 6.18 on x86_64 (ext4, xfs).
//!
//! # Directories
//!
//! | place | what |
//! |---|---|
//! | `upper/` | the changes, as they look in the union, plus the marks below |
//! | `work/work/` | objects being staged (`#` and a number); emptied at mount |
//! | `work/index/` | with `index=on`: one entry per indexed object, see [`crate::index`] |
//!
//! # Marks
//!
//! A mark is an extended attribute of [`crate::names::XattrNamespace`]: `trusted.overlay.*`, or `user.overlay.*` where
//! the mount has no CAP_SYS_ADMIN in the initial user namespace. A mount reads and writes one namespace. `P` stands for
//! the prefix.
//!
//! | mark | on | value | module |
//! |---|---|---|---|
//! | character device 0:0 | a name | the name does not exist below | [`crate::whiteout`] |
//! | `P.whiteout` | empty regular file in a directory with `P.opaque` = `x` | any; the file is a whiteout | [`crate::whiteout`] |
//! | `P.opaque` | directory | `y` nothing below shows, `x` may hold xattr whiteouts; anything else means nothing | [`crate::opaque`] |
//! | `P.redirect` | directory, or metacopy file | name in the same parent, or `/path` from the layer root | [`crate::redirect`] |
//! | `P.metacopy` | regular file | empty, or header and fs-verity digest: data is in a lower | [`crate::metacopy`] |
//! | `P.origin` | copied-up object, upper root | file handle of the lower object; empty if unknown | [`crate::origin`] |
//! | `P.impure` | upper directory | `y`: holds objects with origin, a listing must ask for their numbers | [`crate::names`] |
//! | `P.nlink` | indexed file | `U+1`, `L-1`: link count of the union, relative | [`crate::nlink`] |
//! | `P.upper` | index entry of a directory, index directory | file handle of the upper directory | [`crate::origin`] |
//! | `P.uuid` | upper root | 16 bytes, identity of the union | [`crate::names`] |
//! | `P.protattr` | object | letters `a`, `i`: append-only, immutable | [`crate::protattr`] |
//!
//! `origin` and `upper` share one layout, all bytes, no padding:
//!
//! ```text
//! 0 version = 0 | 1 magic = 0xfb | 2 length of the whole | 3 flags | 4 handle type | 5 uuid[16] | 21 file handle
//! flags: 1 big endian, 2 any endian, 4 handle of an upper object
//! ```
//!
//! # Names of users
//!
//! A user's name that begins with our prefix gets one more `overlay.` on disk: `trusted.overlay.opaque` asked for
//! through the mount is `trusted.overlay.overlay.opaque` on disk. So an overlay can be stored in an overlay, and a user
//! never reaches a mark. Escaped names are copied up like any other; private ones are not. The other namespace is not
//! ours and passes. fuse-overlayfs's names have no escaped form: they are hidden and cannot be set.
//!
//! # What others wrote
//!
//! Read in lower layers, and in an upper that has them already; written only where the backing filesystem leaves no
//! choice.
//!
//! | mark | meaning | module |
//! |---|---|---|
//! | `.wh.NAME` | whiteout | [`crate::aufs`] |
//! | `.wh..wh..opq` | its directory is opaque | [`crate::aufs`] |
//! | other `.wh..wh.*` | hidden | [`crate::aufs`] |
//! | `user.fuseoverlayfs.opaque` = `y` | opaque | [`crate::names`] |
//! | `user.containers.override_stat` and two older names | `UID:GID:MODE[:TYPE]` to show instead | [`crate::override_stat`] |
//!
//! # When a mark is malformed
//!
//! [`crate::Malformed`] says which rule it breaks. The layer answers EIO for a redirect or a metacopy, for the object
//! behind it cannot be known (the kernel: EINVAL and EIO). A malformed origin, nlink or protattr counts as absent and
//! is logged, as in the kernel: it costs a stable number or a count, not the data.
//!
//! # Where we are stricter than the kernel
//!
//! - A redirect with `.`, `..`, NUL or a name over 255 bytes is malformed. The kernel takes it and fails, or finds nothing,
//!   when it looks the name up.
//! - A `metacopy` length field must equal the size; so must the header of `origin` fit its length field.
//! - An escaped name needs the whole `overlay.`; the kernel compares one byte less in the `trusted` namespace, so that
//!   `trusted.overlay.overlayX` counts as escaped there. No one writes such names.
//!
//! # Decisions
//!
//! *2026-11-21: private names of fuse-overlayfs are hidden in both directions.* They would let a container change what its
//! own layer means (opaque, owner). Rejected: passing them, as the kernel does, which has no use for them.
