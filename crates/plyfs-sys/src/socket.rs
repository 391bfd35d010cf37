//! Local sockets: who is at the other end, and connecting without waiting for ever.
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, UnixAddr, connect, getsockopt, setsockopt, socket,
    socketpair, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike};

use crate::error::{Errno, Result, SysError};

/// Connects to the socket `path`. A listener that accepts nobody lets the queue fill, and
/// `connect(2)` would then wait for ever: it waits for `patience`, as do later reads and writes.
///
/// # Errors
/// ENOENT, ECONNREFUSED without a listener, EACCES, EAGAIN when the time is over.
pub fn connect_local(path: &Path, patience: Duration) -> Result<UnixStream> {
    let none = SockFlag::SOCK_CLOEXEC;
    let fd = socket(AddressFamily::Unix, SockType::Stream, none, None)
        .map_err(|e| SysError::new("socket", e))?;
    let wait = TimeVal::milliseconds(i64::try_from(patience.as_millis()).unwrap_or(i64::MAX));
    setsockopt(&fd, sockopt::SendTimeout, &wait)
        .and_then(|()| setsockopt(&fd, sockopt::ReceiveTimeout, &wait))
        .map_err(|e| SysError::new("setsockopt", e))?;
    let address = UnixAddr::new(path).map_err(|e| SysError::new("socket address", e))?;
    connect(fd.as_raw_fd(), &address).map_err(|e| SysError::new("connect", e))?;
    Ok(UnixStream::from(fd))
}

/// Two ends of a local connection on which each write arrives as one message.
///
/// # Errors
/// EMFILE and the like.
pub fn pair_of_messages() -> Result<(OwnedFd, OwnedFd)> {
    let flags = SockFlag::SOCK_CLOEXEC;
    socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags)
        .map_err(|e| SysError::new("socketpair", e))
}

/// Waits until something can be read, or the other end has ended; false where the time is over.
///
/// # Errors
/// Practically none.
pub fn wait_readable(fd: &impl AsFd, patience: Duration) -> Result<bool> {
    let until = Instant::now() + patience;
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        let mut polled = [PollFd::new(fd.as_fd(), PollFlags::POLLIN)];
        match poll(&mut polled, timeout) {
            Err(Errno::EINTR) => {}
            Err(e) => return Err(SysError::new("poll", e)),
            Ok(ready) => return Ok(ready > 0),
        }
    }
}

/// The user at the other end of a connected local socket (SO_PEERCRED), as this process's user
/// namespace names it.
///
/// # Errors
/// ENOTSOCK and the like.
pub fn user_of(socket: &impl AsFd) -> Result<u32> {
    getsockopt(socket, sockopt::PeerCredentials)
        .map(|peer| peer.uid())
        .map_err(|e| SysError::new("getsockopt(SO_PEERCRED)", e))
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn a_full_queue_is_not_waited_for() {
        let dir = std::env::temp_dir().join(format!("plyfs-socket-{}", std::process::id()));
        let listener = UnixListener::bind(&dir).unwrap();
        let mut held = Vec::new();
        let patience = Duration::from_millis(20);
        // Nobody accepts: at some length the queue is full (4096 by default).
        let end = (0..20_000).find_map(|_| match connect_local(&dir, patience) {
            Ok(stream) => {
                held.push(stream);
                None
            }
            Err(e) => Some(e.errno()),
        });
        std::fs::remove_file(&dir).unwrap();
        assert!(
            matches!(end, Some(Errno::EAGAIN | Errno::EMFILE)),
            "{end:?}"
        );
        let other = held.first().unwrap();
        assert_eq!(user_of(other).unwrap(), crate::process::euid());
        drop(listener);
        let gone = connect_local(&dir, patience).unwrap_err();
        assert_eq!(gone.errno(), Errno::ENOENT);
    }
}
