//! What a program must be told to look after a mount that another one has made.
//!
//! The layers, the connection and the inodes are in the journal, as descriptors and records. What is
//! left is what the operator said: it is written down as it was given, and read again.
use std::ffi::OsString;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::options::{Given, OptionError};
use crate::spec::{Invoker, MountSpec};
use crate::state::{StoredPath, absolute};

/// A mount as it was asked for. Its form belongs to the version of the journal.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Plan {
    root: bool,
    subtype: String,
    source: StoredPath,
    mountpoint: StoredPath,
    lowers: Vec<StoredPath>,
    data_only: Vec<StoredPath>,
    upper: Option<StoredPath>,
    work: Option<StoredPath>,
    threads: usize,
    sandbox: bool,
    /// Name and value of each option, escapes still in.
    options: Vec<(String, StoredPath)>,
    /// The file that says that layers of the store are in use, and the number of its lock.
    used: Option<(StoredPath, i32)>,
    /// What the command line says about the log.
    words: Vec<StoredPath>,
}

impl Plan {
    /// Writes a specification down.
    #[must_use]
    pub fn of(spec: &MountSpec) -> Self {
        let all = |paths: &[PathBuf]| paths.iter().map(|p| absolute(p)).collect();
        let given = |g: &Given| (g.def.name.to_owned(), StoredPath::from_bytes(g.raw()));
        Self {
            root: Invoker::current() == Invoker::Root,
            subtype: spec.settings.subtype.clone(),
            source: StoredPath::new(spec.settings.source.as_ref()),
            mountpoint: absolute(&spec.mountpoint),
            lowers: all(&spec.lowers),
            data_only: all(&spec.data_only),
            upper: spec.upper.as_deref().map(absolute),
            work: spec.work.as_deref().map(absolute),
            threads: spec.session.threads,
            sandbox: spec.sandbox,
            options: spec.given.iter().map(given).collect(),
            used: None,
            words: Vec::new(),
        }
    }

    /// Layers of the store are in use.
    #[must_use]
    pub fn using(mut self, file: &std::path::Path, lock: i32) -> Self {
        self.used = Some((StoredPath::new(file), lock));
        self
    }

    /// Words for the command line of the other program, before its command.
    #[must_use]
    pub fn saying(mut self, words: &[OsString]) -> Self {
        let stored = words.iter().map(|w| StoredPath::new(w.as_ref()));
        self.words = stored.collect();
        self
    }

    /// The specification again.
    ///
    /// # Errors
    /// Where this program does not know an option of the other.
    pub fn spec(&self) -> Result<MountSpec, OptionError> {
        let who = match self.root {
            true => Invoker::Root,
            false => Invoker::User,
        };
        let mut spec = MountSpec::new(self.mountpoint.to_path(), &self.subtype, who);
        let options = self.options.iter();
        let given = options.filter_map(|(name, value)| {
            Given::again(name, value.to_path().as_os_str().as_encoded_bytes()).transpose()
        });
        spec.apply(&given.collect::<Result<Vec<_>, _>>()?)?;
        let all = |paths: &[StoredPath]| paths.iter().map(StoredPath::to_path).collect();
        spec.lowers = all(&self.lowers);
        spec.data_only = all(&self.data_only);
        spec.upper = self.upper.as_ref().map(StoredPath::to_path);
        spec.work = self.work.as_ref().map(StoredPath::to_path);
        spec.settings.source = self.source.to_path().into_os_string();
        spec.session.threads = self.threads;
        spec.sandbox = self.sandbox;
        Ok(spec)
    }

    /// What was given to [`Plan::using`].
    #[must_use]
    pub fn used(&self) -> Option<(PathBuf, i32)> {
        self.used
            .as_ref()
            .map(|(path, lock)| (path.to_path(), *lock))
    }

    pub(crate) fn kept(&self) -> Option<i32> {
        self.used.as_ref().map(|(_, lock)| *lock)
    }

    pub(crate) fn words(&self) -> impl Iterator<Item = OsString> {
        self.words.iter().map(|w| w.to_path().into_os_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::{Mode, Parsed, parse};

    #[test]
    fn a_plan_says_what_was_said() {
        let options = b"lowerdir=/a\\:b:/c,upperdir=/u,workdir=/w,ro,dev,timeout=2.5,metacopy=on,\
            uidmapping=0:1000:5,squash_to_root,fsname=x,noacl,data=passthrough,redirect_dir=on,nowriteback";
        let mut parsed = Parsed::default();
        parse(options, Mode::Strict, &mut parsed).unwrap();
        let mut spec = MountSpec::new("/m".into(), "plyfs", Invoker::Root);
        spec.apply(&parsed.given).unwrap();
        spec.session.threads = 1;
        spec.sandbox = false;
        spec.settings.source = "other".into();
        let plan = Plan::of(&spec).using("/use".as_ref(), 7);
        let text = serde_json::to_vec(&plan).unwrap();
        let again: Plan = serde_json::from_slice(&text).unwrap();
        assert_eq!(again.used(), Some(("/use".into(), 7)));
        let again = again.spec().unwrap();
        assert_eq!(format!("{again:?}"), format!("{spec:?}"));
    }
}
