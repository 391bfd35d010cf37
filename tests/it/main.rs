//! Does the mounted file system behave? One module a topic; see `support` for how they judge.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod attr;
mod bad_input;
mod budget;
mod clients;
mod command;
mod copy_up;
mod copy_up_faults;
mod create;
mod diff_tar;
mod doctor;
mod hanging;
mod image;
mod interchange;
mod io;
mod judge;
mod lifecycle;
mod link;
mod long_tail;
mod lookup;
mod mount_program;
mod nested;
mod never_written;
mod ordinary_user;
mod owner;
mod packaging;
mod passthrough;
mod place;
mod powerloss;
mod programs;
mod protect;
mod readdir;
mod realroot;
mod registry;
mod remove;
mod rename;
mod restart;
mod semantics;
mod status;
mod suites;
mod support;
mod tidy;
mod uppers;
mod userns;
mod xattrs;
