//! How a mount outlives its daemon, and why it is built so.
//!
//! # Two processes, one table of descriptors
//!
//! The daemon is the child of a holder, made by `clone(CLONE_FILES)`: both have one and the same
//! table of descriptors. Whatever the daemon has open (the connection, the layers, files without
//! a name, locks) stays open under its number when it is killed, and costs nothing until then. The
//! holder does nothing but wait. It then makes the next daemon the same way.
//!
//! The holder has a stand-in, a child of the daemon that shares the table too and acts when both
//! have died. Two processes could not watch each other from above: nobody can be made the parent of
//! a process that runs. Made by the daemon before it has anything in memory, it costs a few pages.
//! Who makes the next daemon takes a number in the journal first, so it is one of them.
//!
//! # Another program
//!
//! `plyfs upgrade` has the daemon note a path and end. The holder copies itself with its
//! descriptors, and the copy becomes that program (`plyfs hold`): no program that runs could be
//! given the table, as becoming another program parts from it. What the operator said at first goes
//! along as it was said. The holder waits until a daemon of the new program is about to serve, and
//! goes on itself if none is. See `crate::journal::change` for who decides.
//!
//! Rejected: ending the old daemon between two requests. A kill at any step is survived
//! anyhow, so a second way would only be tested less.
//!
//! Rejected: handing each descriptor over by SCM_RIGHTS, as each file that loses its last name would
//! cost a message before it may; systemd's store of descriptors, which holds them but cannot say
//! which means what.
//!
//! # What is noted, and when
//!
//! [`crate::Journal`] is memory shared by holder and daemons. A process that is killed has made
//! all its stores up to some point and none behind it, so the journal needs neither locks nor a log,
//! but an order of stores in which each prefix means something.
//!
//! An inode is noted by the slot of its directory, its name there, and what is to be found: 64 bytes
//! and the name. Handles need no entry, there are none; with passthrough the journal has what each inode of
//! the kernel is bound to, how often it is open, and the number by which the connection, which
//! lives on, knows the file. Caches need none, they are built again.
//!
//! *Each change on disk of what a name means is noted before* at the inode that has the name: a pin
//! for an object that is about to lose its last name, `REMOVED` at a lower one, the new place of what
//! moves. Whether it then happened the disk says: the object is at its name or not. A copy-up
//! changes what is behind a name and not what it means, so it is found without a note.
//!
//! # Requests in progress
//!
//! The kernel sends a request again that was read and not answered (FUSE_NOTIFY_RESEND). Most can
//! simply be done twice. The others lean on the kernel's own checks: it holds the directory's lock
//! from the first try to the reply, asks to make only what it knows to be missing and to remove
//! only what it knows to be there. So "exists" answers a MKNOD that is sent again by the object, and
//! "missing" an UNLINK by success. Only renames, XATTR_CREATE and REMOVEXATTR need to know whether
//! they have happened: these note it in the record of the request.
//!
//! Lookups are counted before the reply that tells of them is sent, and the record has the list:
//! a request sent again first gives the counts back. A kill between two stores counts too much and
//! never too little; so does a FORGET that a dead daemon had read. The inode then stays known
//! until the mount ends, which is all that is lost.
//!
//! # Where it ends
//!
//! A request that crashes three daemons in a row is answered EIO. Daemons that die five times
//! within ten seconds without answering anything are not replaced.
