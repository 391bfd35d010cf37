//! Fetching a blob into a file: resumed where it stopped, checked while it arrives.
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::time::Duration;

use oci_spec::image::Descriptor;
use plyfs_image::digest::Hasher;
use ureq::http::{Method, header};

use crate::digest::hasher_like;
use crate::error::{Object, RegistryError, Result};
use crate::http::{self, Answer};
use crate::progress::Progress;
use crate::repository::Repository;

const BUFFER: usize = 256 << 10;

impl Repository<'_> {
    /// Fetches a blob into `file`. What the file holds already counts as the beginning of the blob.
    ///
    /// When this succeeds the file holds the blob and nothing else. When it fails the file
    /// holds a beginning that a later call goes on from; bytes that proved wrong are cut off.
    /// The file is not synced.
    pub fn fetch_blob(
        &self,
        blob: &Descriptor,
        file: &mut File,
        progress: &dyn Progress,
    ) -> Result<()> {
        let object = self.object("blob", blob.digest());
        let mut partial = Partial::open(blob, file, &object)?;
        // A beginning from an earlier call may be damaged, and so may one this call has resumed.
        let mut resumed = partial.length > 0;
        let mut failures = 0;
        let mut furthest = partial.length;
        progress.at(blob, partial.length);
        loop {
            if partial.length == blob.size() {
                match partial.verify() {
                    Err(RegistryError::WrongDigest { .. }) if resumed => {
                        progress.retrying(blob, "what was kept of it is damaged", Duration::ZERO);
                        partial.restart()?;
                        resumed = false;
                    }
                    verified => return verified,
                }
            }
            resumed |= partial.length > 0;
            let Err(error) = self.fetch_rest(&mut partial, progress) else {
                continue;
            };
            // Progress is to get further than ever, or a registry could keep us here.
            failures = if partial.length > furthest {
                1
            } else {
                failures + 1
            };
            furthest = furthest.max(partial.length);
            let (pause, reason) = self.client.retry().pause(failures, error)?;
            progress.retrying(blob, &reason, pause);
            std::thread::sleep(pause);
        }
    }

    /// Fetches a small blob, such as a config, whole.
    pub fn fetch_small(&self, blob: &Descriptor, limit: u64) -> Result<Vec<u8>> {
        let object = self.object("blob", blob.digest());
        if blob.size() > limit {
            return Err(RegistryError::BadManifest {
                object,
                reason: format!(
                    "it is said to have {} bytes, more than {limit}",
                    blob.size()
                ),
            });
        }
        let url = self.url(&format!("blobs/{}", blob.digest()))?;
        let scope = self.pull_scope();
        let call = self.call(Method::GET, &url, &[], &scope, &object);
        let bytes = self.client.retry().repeat(|| {
            let answer = self.client.get_once(&call, &[200])?;
            answer.read(limit, &object)
        })?;
        if bytes.len() as u64 != blob.size() {
            return Err(RegistryError::WrongSize {
                object,
                expected: blob.size(),
                actual: bytes.len().to_string(),
            });
        }
        let actual = crate::digest::of(&bytes, blob.digest())?;
        if actual != blob.digest().as_ref() {
            return Err(RegistryError::WrongDigest { object, actual });
        }
        Ok(bytes)
    }

    /// One request for what is missing, and what came of it.
    fn fetch_rest(&self, partial: &mut Partial<'_>, progress: &dyn Progress) -> Result<()> {
        let object = partial.object;
        let url = self.url(&format!("blobs/{}", partial.blob.digest()))?;
        let scope = self.pull_scope();
        let from = partial.length;
        let range = (from > 0).then(|| (header::RANGE, format!("bytes={from}-")));
        let headers: Vec<_> = range.into_iter().collect();
        let call = self.call(Method::GET, &url, &headers, &scope, object);
        let answer = self.client.get_once(&call, &[200, 206, 416])?;
        match answer.status() {
            206 => check_range(&answer, from, partial)?,
            200 => {
                check_length(&answer, partial)?;
                if from > 0 {
                    // It gives everything again, whatever was asked for.
                    partial.restart()?;
                }
            }
            // It does not have what comes next, or has no ranges: begin anew.
            _ if from > 0 => return partial.restart(),
            _ => return Err(answer.into_error(object)),
        }
        partial.receive(answer, progress)
    }
}

/// `Content-Range: bytes FROM-TO/TOTAL` has to begin where the file ends.
fn check_range(answer: &Answer, from: u64, partial: &Partial<'_>) -> Result<()> {
    let text = answer.header(header::CONTENT_RANGE).unwrap_or_default();
    let parsed = text.strip_prefix("bytes ").and_then(|range| {
        let (span, total) = range.split_once('/')?;
        let (start, _) = span.split_once('-')?;
        Some((start.parse::<u64>().ok()?, total.parse::<u64>().ok()))
    });
    match parsed {
        Some((start, total)) if start == from => match total {
            Some(total) if total != partial.blob.size() => Err(partial.wrong_size(total)),
            _ => Ok(()),
        },
        _ => {
            let reason = format!("asked for bytes from {from}, it answers with {text:?}");
            Err(answer.protocol_error(partial.object, reason))
        }
    }
}

/// `Content-Length` of a whole blob has to be its size.
fn check_length(answer: &Answer, partial: &Partial<'_>) -> Result<()> {
    let length = answer.header(header::CONTENT_LENGTH);
    match length.and_then(|l| l.parse::<u64>().ok()) {
        Some(length) if length != partial.blob.size() => Err(partial.wrong_size(length)),
        _ => Ok(()),
    }
}

/// The beginning of a blob in a file.
struct Partial<'a> {
    blob: &'a Descriptor,
    object: &'a Object,
    file: &'a mut File,
    length: u64,
    hasher: Hasher,
}

impl<'a> Partial<'a> {
    /// Takes over what the file holds.
    fn open(blob: &'a Descriptor, file: &'a mut File, object: &'a Object) -> Result<Self> {
        let mut partial = Self {
            blob,
            object,
            file,
            length: 0,
            hasher: hasher_like(blob.digest())?,
        };
        let there = partial.file.metadata().map(|m| m.len());
        if there.map_err(partial.local("reading what was kept of it"))? > blob.size() {
            partial.restart()?;
            return Ok(partial);
        }
        partial.read_kept()?;
        Ok(partial)
    }

    fn read_kept(&mut self) -> Result<()> {
        let reading = self.local("reading what was kept of it");
        self.file.seek(SeekFrom::Start(0)).map_err(&reading)?;
        let mut buffer = vec![0; BUFFER];
        loop {
            let count = match self.file.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(count) => count,
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(reading(e)),
            };
            self.hasher.update(buffer.get(..count).unwrap_or_default());
            self.length += count as u64;
        }
    }

    /// Throws away what is there.
    fn restart(&mut self) -> Result<()> {
        let cutting = self.local("cutting off what was kept of it");
        self.file.set_len(0).map_err(&cutting)?;
        self.file.seek(SeekFrom::Start(0)).map_err(&cutting)?;
        self.length = 0;
        self.hasher = hasher_like(self.blob.digest())?;
        Ok(())
    }

    /// Appends a body; fails when it ends early or goes on too long.
    fn receive(&mut self, answer: Answer, progress: &dyn Progress) -> Result<()> {
        let host = answer.host();
        let mut body = answer.response.into_body().into_reader();
        let mut buffer = vec![0; BUFFER];
        loop {
            let count = match body.read(&mut buffer) {
                Ok(count) => count,
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(self.broken(&host, &e.into())),
            };
            if count == 0 {
                return self.ended(&host);
            }
            if count as u64 > self.blob.size() - self.length {
                self.restart()?;
                return Err(RegistryError::WrongSize {
                    object: self.object.clone(),
                    expected: self.blob.size(),
                    actual: "more".to_owned(),
                });
            }
            let bytes = buffer.get(..count).unwrap_or_default();
            let writing = self.local("writing it to disk");
            self.file.write_all(bytes).map_err(writing)?;
            self.hasher.update(bytes);
            self.length += count as u64;
            progress.at(self.blob, self.length);
            if progress.is_cancelled() {
                return Err(RegistryError::Cancelled {
                    object: self.object.clone(),
                });
            }
        }
    }

    fn ended(&self, host: &str) -> Result<()> {
        if self.length == self.blob.size() {
            return Ok(());
        }
        let early = std::io::Error::from(std::io::ErrorKind::UnexpectedEof);
        Err(self.broken(host, &early.into()))
    }

    /// A connection that broke, with how far it got.
    fn broken(&self, host: &str, error: &ureq::Error) -> RegistryError {
        let mut error = http::connection_error(self.object, host, error);
        if let RegistryError::Connection { reason, .. } = &mut error {
            reason.push_str(&format!(
                " (after {} of {} bytes)",
                self.length,
                self.blob.size()
            ));
        }
        error
    }

    /// Compares the digest; wrong bytes are not kept.
    fn verify(&mut self) -> Result<()> {
        let actual = self.hasher.clone().finish_text();
        if actual == self.blob.digest().as_ref() {
            return Ok(());
        }
        self.restart()?;
        Err(RegistryError::WrongDigest {
            object: self.object.clone(),
            actual,
        })
    }

    fn wrong_size(&self, actual: u64) -> RegistryError {
        RegistryError::WrongSize {
            object: self.object.clone(),
            expected: self.blob.size(),
            actual: actual.to_string(),
        }
    }

    /// Makes errors of our own disk.
    fn local(&self, doing: &'static str) -> impl Fn(std::io::Error) -> RegistryError + 'static {
        let object = self.object.clone();
        move |source| RegistryError::Local {
            object: object.clone(),
            doing,
            source,
        }
    }
}
