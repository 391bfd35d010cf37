//! The first message of the kernel, kept for the daemons after the first, and the call for what
//! dead ones have left unanswered.
//!
//! fuser begins with a handshake. A daemon that takes over has nobody to shake hands with: it
//! gets the message that the first one got through a socket, and the descriptor of the socket
//! then becomes that of the connection.
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};

use plyfs_sys::{socket, takeover};
use plyfs_union::Journal;

use crate::ops::Adapter;

/// Longest message with which a kernel begins; it refuses to write one into less than this.
const ROOM: usize = 64 << 10;
/// Offset of the second word of flags in the first message (struct fuse_in_header, fuse_init_in).
const FLAGS2_AT: usize = 40 + 16;
/// FUSE_HAS_RESEND in that word.
const HAS_RESEND: u32 = 1 << 7;
/// FUSE_NOTIFY_RESEND.
const NOTIFY_RESEND: i32 = 7;

/// Whose connection it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Connection {
    /// A new one.
    New,
    /// That of a daemon that died.
    Inherited,
}

/// A session on a connection whose first message is kept in the journal.
pub(crate) fn shake_hands(
    adapter: Adapter,
    dev_fuse: &OwnedFd,
    config: fuser::Config,
    journal: &Journal,
    connection: Connection,
) -> io::Result<fuser::Session<Adapter>> {
    let hello = match connection {
        Connection::New => first_message(dev_fuse, journal)?,
        Connection::Inherited => journal.hello(),
    };
    let (ours, theirs) = socket::pair_of_messages()?;
    let mut ours = File::from(ours);
    ours.write_all(&hello)?;
    let acl = fuser::SessionACL::All;
    let session = fuser::Session::from_fd(adapter, theirs, acl, config)?;
    let mut reply = [0; 4096];
    let len = ours.read(&mut reply)?;
    takeover::replace(session.as_fd(), dev_fuse.as_fd())?;
    let mut dev_fuse = File::from(dev_fuse.try_clone()?);
    let reply = &reply[..len];
    match connection {
        Connection::New => {
            journal.keep_agreement(reply);
            dev_fuse.write_all(reply)?;
        }
        // The kernel keeps to what was agreed on, whatever this program would have said.
        Connection::Inherited if reply != journal.agreement() => {
            let text = "another agreement with the kernel than the mount has";
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        Connection::Inherited => ask_again(&mut dev_fuse)?,
    }
    Ok(session)
}

fn first_message(dev_fuse: &OwnedFd, journal: &Journal) -> io::Result<Vec<u8>> {
    let mut hello = vec![0; ROOM];
    let len = File::from(dev_fuse.try_clone()?).read(&mut hello)?;
    hello.truncate(len);
    journal.keep_hello(&hello);
    let flags = hello.get(FLAGS2_AT..FLAGS2_AT + 4);
    let flags = flags.and_then(|f| f.try_into().ok());
    if flags.map_or(0, u32::from_ne_bytes) & HAS_RESEND == 0 {
        journal.is_of_no_use("the kernel cannot send requests again (Linux 6.9 can)");
    }
    Ok(hello)
}

/// Has the kernel send again what was read and not answered. One message, whole: fuse_out_header.
fn ask_again(dev_fuse: &mut File) -> io::Result<()> {
    let mut message = [0; 16];
    message[..4].copy_from_slice(&16u32.to_ne_bytes());
    message[4..8].copy_from_slice(&NOTIFY_RESEND.to_ne_bytes());
    dev_fuse.write_all(&message)
}
