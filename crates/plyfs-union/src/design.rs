//! Semantics of the merged view, where it differs from kernel overlayfs, and why it is built so.
//!
//! `docs/semantics.md` is the list of differences for users. This module says why the engine has
//! the shape it has.
//!
//! # No handles
//!
//! OPEN, OPENDIR, CREATE and FLUSH are answered ENOSYS once, and the kernel then opens files by
//! itself. A request names an inode and nothing else, so all state is per inode: an LRU of open
//! files ([`crate::files`]) stands in for handles, and a file that has lost its last name is
//! pinned by a descriptor until the kernel forgets it, since nobody tells whether it is open.
//! Copy-up waits for the first change, whoever makes it.
//!
//! # Opens, where data is passed through
//!
//! With passthrough there are opens after all, and [`crate::opens`] holds what they need: which data
//! file each of the kernel's inodes is bound to. Nothing else of the engine knows of them. A file
//! whose data rises while the lower file is bound gets a second number; both are one
//! [`crate::Inode`], so that names and attributes stay one.
//!
//! Rejected: a second `Inode` for the copy. `fchmod` through a descriptor of before the copy-up would
//! change a file without a name.
//!
//! # Lowers are indexed, the upper is asked
//!
//! Lowers never change while mounted. So the merged listing of a directory's lower part
//! ([`crate::lower_index`]) is built once and is right for ever: it answers which layers have a
//! name, whether a whiteout is needed, and what a listing shows, without a system call and
//! without an invalidation that could be forgotten. The upper changes, and it is asked each
//! time; the kernel's own caches make that rare.
//!
//! Rejected: one merged listing a directory, corrected after every change. It saves a `statx` of
//! the upper on cold lookups and makes every operation a place where memory and disk can differ.
//!
//! # Places in a listing are hashes
//!
//! Without handles a stream of READDIR requests is a sequence of unrelated requests with an
//! offset. The offset is a hash of the name ([`crate::Cookie`]) and of nothing else. A listing can be dropped and built again, names can come and go, the daemon can be
//! replaced, and a stream goes on where it was: what stayed is shown once.
//!
//! # A name lock a directory, no global lock
//!
//! [`crate::lock`] has the order. The kernel already keeps two changes of one directory apart;
//! the lock is for copy-up, which publishes into a directory for a request on another inode, and
//! for the engine without a kernel above it. Renames of directories need no lock of the whole
//! tree: an inode knows its parent as an inode, not as a path.
//!
//! # Places of upper objects are locked, not verified
//!
//! A call on an upper object goes through a name of it. [`plyfs_layer::Obj`] holds its names under
//! a lock that the call takes for reading and a rename or unlink for writing, so that the name
//! cannot come to mean another object in between. That costs no system call, where opening the
//! object and checking its number would cost three.
//!
//! # Numbers
//!
//! `st_ino` follows `ovl_getattr()`: that of the lower object a copy was made from, found again
//! by the origin mark, unless that object is a hard link. FUSE's number of an inode is separate
//! and never used twice: two names of a lower hard link show one `st_ino` and are two inodes,
//! because each becomes a file of its own when it is copied up.
