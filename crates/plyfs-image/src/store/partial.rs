//! Blobs that are being fetched: kept in staging, so that the next attempt goes on with them.
use std::fs::{File, TryLockError};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::PathBuf;

use super::Store;
use crate::digest::Digest;
use crate::error::{ImageError, Result};

/// The beginning of a blob, perhaps from an earlier attempt. Nobody else has it meanwhile: it is
/// locked as long as this value, or the process, lives.
#[derive(Debug)]
pub struct Partial {
    file: File,
    path: PathBuf,
}

impl Store {
    /// The beginning of a blob that an earlier attempt left, or an empty file. Calls `waiting`
    /// once if somebody else fetches the blob now, and waits for them.
    ///
    /// Nothing in it is checked. The blob may have got its name while this waited.
    ///
    /// # Errors
    /// When the file cannot be made or locked.
    pub fn partial(&self, blob: &Digest, waiting: impl FnOnce()) -> Result<Partial> {
        // The same checks as for the name it gets in the end.
        self.place("blobs", blob)?;
        let name = format!("fetch-{}-{}", blob.algorithm(), blob.digest());
        let path = self.root.join("staging").join(name);
        let failed = |e| ImageError::file("opening", &path, e);
        let mut waiting = Some(waiting);
        loop {
            let opened = File::options()
                .create(true)
                .truncate(false)
                .read(true)
                .write(true)
                .mode(0o600)
                .open(&path);
            let file = opened.map_err(failed)?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => {
                    if let Some(waiting) = waiting.take() {
                        waiting();
                    }
                    file.lock().map_err(failed)?;
                }
                Err(TryLockError::Error(e)) => return Err(failed(e)),
            }
            // Who had the lock before may have removed the file: then it is nobody's any more.
            let own = file.metadata().map_err(failed)?;
            match path.symlink_metadata() {
                Ok(there) if (there.dev(), there.ino()) == (own.dev(), own.ino()) => {
                    return Ok(Partial { file, path });
                }
                Ok(_) => {}
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
                Err(e) => return Err(failed(e)),
            }
        }
    }
}

impl Partial {
    /// The file, to be appended to.
    pub fn file(&mut self) -> &mut File {
        &mut self.file
    }

    /// Takes it away: the blob is in the store, or nobody wants it.
    ///
    /// # Errors
    /// When it cannot be removed.
    pub fn remove(self) -> Result<()> {
        std::fs::remove_file(&self.path).map_err(|e| ImageError::file("removing", &self.path, e))
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Seek, Write};
    use std::sync::mpsc::channel;

    use super::*;

    #[test]
    fn what_was_fetched_is_there_for_the_next_who_asks() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let blob = crate::digest::of_bytes(b"blob").unwrap();
        let mut first = store.partial(&blob, || panic!("nobody has it")).unwrap();
        first.file().write_all(b"bl").unwrap();
        drop(first);
        let mut again = store.partial(&blob, || panic!("nobody has it")).unwrap();
        let mut text = String::new();
        again.file().rewind().unwrap();
        again.file().read_to_string(&mut text).unwrap();
        assert_eq!(text, "bl");

        let (waits, waited) = channel();
        std::thread::scope(|scope| {
            let (store, blob) = (&store, &blob);
            let second = scope.spawn(move || store.partial(blob, || waits.send(()).unwrap()));
            waited.recv().unwrap();
            again.remove().unwrap();
            let mut second = second.join().unwrap().unwrap();
            assert_eq!(second.file().metadata().unwrap().len(), 0);
            // It is the one under the name, not the one that was removed.
            second.remove().unwrap();
        });
        assert_eq!(
            std::fs::read_dir(dir.path().join("staging"))
                .unwrap()
                .count(),
            0
        );
    }
}
