//! The other side of an upgrade: this program goes on with a mount that another one has made.
use std::fs::File;
use std::io::{PipeWriter, Read};

use plyfs_sys::shared::Shared;
use plyfs_sys::takeover::{self, Left};
use plyfs_union::Journal;

use crate::daemonize::{Post, Ready, fail};
use crate::error::MountError;
use crate::holder::{self, Hold, Turn};
use crate::plan::Plan;
use crate::spec::MountSpec;

/// Version of what this program takes over.
pub const HANDOVER: u64 = Journal::VERSION;

/// What the other program has left.
#[derive(Debug)]
pub struct Heir {
    shared: Shared,
    /// What the mount is.
    pub plan: Plan,
    writer: PipeWriter,
    /// Descriptors of daemons, and the one of [`Plan::used`].
    pub left: Left,
}

impl Heir {
    /// Takes over by the numbers of journal, plan and pipe. To be called before the process opens
    /// anything.
    ///
    /// # Errors
    /// When the journal or the plan is of another version. Whoever waits at the pipe is told.
    pub fn receive([journal, plan, ready]: [i32; 3]) -> Result<Self, MountError> {
        let mut left = Left::all()?;
        let writer = PipeWriter::from(left.take(ready)?);
        let mut read = || -> Result<_, MountError> {
            let shared = Journal::memory_of(left.take(journal)?)?;
            let mut text = Vec::new();
            let plan = File::from(left.take(plan)?).read_to_end(&mut text);
            plan.map_err(MountError::Plan)?;
            let plan = serde_json::from_slice(&text).map_err(|e| MountError::Plan(e.into()))?;
            Ok((shared, plan))
        };
        match read() {
            Ok((shared, plan)) => Ok(Self {
                shared,
                plan,
                writer,
                left,
            }),
            Err(e) => {
                fail(writer, &e);
                Err(e)
            }
        }
    }

    /// What the mount is, as this program understands it.
    ///
    /// # Errors
    /// Where an option of the other program is not known.
    pub fn spec(&self) -> Result<MountSpec, MountError> {
        let spec = self.plan.spec();
        spec.map_err(|e| MountError::Plan(std::io::Error::other(e)))
    }

    /// Looks after the mount from now on; answers the exit status.
    ///
    /// # Errors
    /// When the process cannot see its descriptors. Whoever waits at the pipe is told.
    pub fn hold(
        self,
        serve: impl FnOnce(&mut Ready, Post) -> Result<(), MountError>,
    ) -> Result<i32, MountError> {
        let mut mine = match takeover::open_now() {
            Ok(open) => open,
            Err(e) => {
                let e = e.into();
                fail(self.writer, &e);
                return Err(e);
            }
        };
        let writer = takeover::number(&self.writer);
        mine.retain(|fd| *fd != writer && !self.left.numbers().contains(fd));
        let hold = Hold {
            shared: self.shared,
            mine,
            plan: self.plan,
            serve,
        };
        Ok(holder::begin(self.writer, hold, Turn::Next))
    }

    /// Tells whoever waits why the mount is not looked after.
    pub fn give_up(self, e: &MountError) {
        fail(self.writer, e);
    }
}
