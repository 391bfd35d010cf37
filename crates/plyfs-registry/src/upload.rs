//! Sending a blob: not at all where it is known, else in one piece or in several.
use std::io::{self, Read};

use oci_spec::image::Descriptor;
use ureq::http::{Method, header};

use crate::client::expect;
use crate::error::{Object, RegistryError, Result};
use crate::http::{Answer, Content};
use crate::progress::Progress;
use crate::repository::Repository;
use crate::url;

/// The smallest piece a registry takes, if it says so.
const MIN_CHUNK_HEADER: &str = "oci-chunk-min-length";

/// Where the bytes of a blob come from; opened again when a transfer is resumed.
pub trait BlobSource {
    /// The bytes from `offset` on.
    fn open(&self, offset: u64) -> io::Result<Box<dyn Read + '_>>;
}

/// Bytes at hand.
impl BlobSource for &[u8] {
    fn open(&self, offset: u64) -> io::Result<Box<dyn Read + '_>> {
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        Ok(Box::new(self.get(start..).unwrap_or_default()))
    }
}

/// An open file; each reader has its own place in it.
impl BlobSource for std::fs::File {
    fn open(&self, offset: u64) -> io::Result<Box<dyn Read + '_>> {
        Ok(Box::new(At { file: self, offset }))
    }
}

/// A reader of a file from an offset on that leaves the file's own place alone.
struct At<'a> {
    file: &'a std::fs::File,
    offset: u64,
}

impl Read for At<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = std::os::unix::fs::FileExt::read_at(self.file, buffer, self.offset)?;
        self.offset += count as u64;
        Ok(count)
    }
}

/// How a blob got to the registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sent {
    /// It was there.
    Present,
    /// The registry took it from another repository of its own.
    Mounted,
    /// It was sent.
    Uploaded,
}

/// An upload under way at the registry.
struct Session {
    /// Where the next piece goes; changes with each answer.
    location: String,
    /// How much the registry has.
    offset: u64,
    /// The smallest piece it takes.
    min_chunk: u64,
}

impl Repository<'_> {
    /// Gets a blob into this repository: by a look, by a mount from one of the repositories
    /// `from`, else by sending it.
    pub fn send_blob(
        &self,
        blob: &Descriptor,
        source: &dyn BlobSource,
        from: &[&str],
        progress: &dyn Progress,
    ) -> Result<Sent> {
        if self.has_blob(blob)? {
            return Ok(Sent::Present);
        }
        let mut session = None;
        for other in from.iter().filter(|other| **other != self.name) {
            session = self.mount(blob, other)?;
            if session.is_none() {
                return Ok(Sent::Mounted);
            }
        }
        let upload = Upload {
            repository: self,
            blob,
            source,
            progress,
            object: self.object("upload of blob", blob.digest()),
            scope: self.push_scope(),
        };
        upload.run(session)?;
        Ok(Sent::Uploaded)
    }

    /// Asks for a blob of another repository; a session where the registry wants it sent.
    fn mount(&self, blob: &Descriptor, from: &str) -> Result<Option<Session>> {
        let object = self.object("mount of blob", blob.digest());
        let digest = blob.digest().as_ref();
        let url = self.url("blobs/uploads/")?;
        let url = url::with_query(&url, &[("mount", digest), ("from", from)]);
        let scope = format!("{} repository:{from}:pull", self.push_scope());
        let call = self.call(Method::POST, &url, &[], &scope, &object);
        match self.client.send(&call, &[], &[201, 202]) {
            Ok(answer) if answer.status() == 201 => Ok(None),
            Ok(answer) => Session::of(&answer, 0, &object).map(Some),
            // No right to read the other repository: then it is sent.
            Err(RegistryError::Denied { .. }) => self.begin_upload(&object).map(Some),
            Err(RegistryError::Status { status, .. }) if status < 500 => {
                self.begin_upload(&object).map(Some)
            }
            Err(e) => Err(e),
        }
    }

    fn begin_upload(&self, object: &Object) -> Result<Session> {
        let url = self.url("blobs/uploads/")?;
        let scope = self.push_scope();
        let call = self.call(Method::POST, &url, &[], &scope, object);
        let answer = self.client.send(&call, &[], &[202])?;
        Session::of(&answer, 0, object)
    }
}

impl Session {
    fn of(answer: &Answer, offset: u64, object: &Object) -> Result<Self> {
        let min = answer.header(MIN_CHUNK_HEADER);
        Ok(Self {
            location: answer.location(object)?.to_string(),
            offset,
            min_chunk: min.and_then(|m| m.parse().ok()).unwrap_or(0),
        })
    }
}

/// One blob on its way.
struct Upload<'a> {
    repository: &'a Repository<'a>,
    blob: &'a Descriptor,
    source: &'a dyn BlobSource,
    progress: &'a dyn Progress,
    object: Object,
    scope: String,
}

impl Upload<'_> {
    /// Sends until the registry has it all; after a failure goes on where the registry stands.
    fn run(&self, begun: Option<Session>) -> Result<()> {
        let mut session = match begun {
            Some(session) => session,
            None => self.repository.begin_upload(&self.object)?,
        };
        let (mut failures, mut furthest) = (0, 0);
        loop {
            if self.progress.is_cancelled() {
                return Err(RegistryError::Cancelled {
                    object: self.object.clone(),
                });
            }
            let Err(error) = self.send_from(&mut session) else {
                self.progress.at(self.blob, self.blob.size());
                return Ok(());
            };
            failures = if session.offset > furthest {
                1
            } else {
                failures + 1
            };
            furthest = furthest.max(session.offset);
            // The registry and we do not agree on where we are: it says where, or we begin anew.
            let is_lost = matches!(error.status(), Some(404 | 416)) && failures < 3;
            let error = if is_lost { self.broken(&error) } else { error };
            let (pause, reason) = self.repository.client.retry().pause(failures, error)?;
            self.progress.retrying(self.blob, &reason, pause);
            std::thread::sleep(pause);
            session = match self.stand(&session) {
                Some(session) => session,
                None => self.repository.begin_upload(&self.object)?,
            };
            self.progress.at(self.blob, session.offset);
        }
    }

    fn broken(&self, error: &RegistryError) -> RegistryError {
        RegistryError::Connection {
            object: self.object.clone(),
            reason: format!("the upload broke off: {error}"),
            advice: "",
            transient: true,
        }
    }

    /// Asks the registry how much it has; `None` when it has forgotten the upload.
    fn stand(&self, session: &Session) -> Option<Session> {
        let client = self.repository.client;
        let call = self.repository.call(
            Method::GET,
            &session.location,
            &[],
            &self.scope,
            &self.object,
        );
        let answer = match client.get_once(&call, &[204, 200]) {
            Ok(answer) => answer,
            Err(e) => {
                tracing::debug!("an upload is begun anew: {e}");
                return None;
            }
        };
        let offset = match answer.header(header::RANGE) {
            Some(range) => end_of(range)?,
            None => 0,
        };
        if offset > self.blob.size() {
            return None;
        }
        let location = answer.location(&self.object).ok();
        Some(Session {
            location: location.map_or_else(|| session.location.clone(), |l| l.to_string()),
            offset,
            min_chunk: session.min_chunk,
        })
    }

    fn send_from(&self, session: &mut Session) -> Result<()> {
        let chunk = self.repository.client.chunk().max(session.min_chunk);
        if session.offset == 0 && self.blob.size() <= chunk {
            return self.finish(session, self.blob.size());
        }
        while session.offset < self.blob.size() {
            let length = chunk.min(self.blob.size() - session.offset);
            self.send_chunk(session, length)?;
        }
        self.finish(session, 0)
    }

    /// One piece, with a PATCH.
    fn send_chunk(&self, session: &mut Session, length: u64) -> Result<()> {
        let end = session.offset + length;
        let range = format!("{}-{}", session.offset, end - 1);
        let headers = [
            (header::CONTENT_TYPE, "application/octet-stream".to_owned()),
            (header::CONTENT_RANGE, range),
        ];
        let location = session.location.clone();
        let answer = self.send(Method::PATCH, &location, &headers, session.offset, length)?;
        let answer = expect(answer, &[202, 201, 204], &self.object)?;
        let stands = answer.header(header::RANGE).map(end_of);
        // "0-0" is one byte as well as none.
        if let Some(stands) = stands
            && stands.map(|n| n.max(1)) != Some(end)
        {
            let reason = format!("{end} bytes were sent, it says that it has {stands:?}");
            return Err(answer.protocol_error(&self.object, reason));
        }
        session.location = answer.location(&self.object)?.to_string();
        session.offset = end;
        self.progress.at(self.blob, end);
        Ok(())
    }

    /// The last `length` bytes, and the digest by which the registry checks all of them.
    fn finish(&self, session: &Session, length: u64) -> Result<()> {
        let digest = self.blob.digest().as_ref();
        let url = url::with_query(&session.location, &[("digest", digest)]);
        let kind = "application/octet-stream".to_owned();
        let headers = [(header::CONTENT_TYPE, kind)];
        let answer = self.send(Method::PUT, &url, &headers, session.offset, length)?;
        expect(answer, &[201, 204, 202], &self.object).map(drop)
    }

    fn send(
        &self,
        method: Method,
        url: &str,
        headers: &[(header::HeaderName, String)],
        offset: u64,
        length: u64,
    ) -> Result<Answer> {
        let call = self
            .repository
            .call(method, url, headers, &self.scope, &self.object);
        self.repository.client.once(&call, &mut || {
            if length == 0 {
                return Ok(Content::Bytes(&[]));
            }
            let opened = self.source.open(offset);
            let inner = opened.map_err(|source| RegistryError::Local {
                object: self.object.clone(),
                doing: "reading it from the store",
                source,
            })?;
            let reader = Counted {
                inner: inner.take(length),
                upload: self,
                at: offset,
            };
            Ok(Content::Stream(Box::new(reader), length))
        })
    }
}

/// Tells how far a stream was read.
struct Counted<'a> {
    inner: io::Take<Box<dyn Read + 'a>>,
    upload: &'a Upload<'a>,
    at: u64,
}

impl Read for Counted<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.at += count as u64;
        self.upload.progress.at(self.upload.blob, self.at);
        Ok(count)
    }
}

/// The number of bytes in `Range: 0-END`, where END is the last one's number.
fn end_of(range: &str) -> Option<u64> {
    let range = range.strip_prefix("bytes=").unwrap_or(range);
    let (start, end) = range.split_once('-')?;
    if start != "0" {
        return None;
    }
    // Nothing yet is "0-0" with some, "0--1" or no header with others.
    match end.parse::<u64>() {
        Ok(0) => Some(0),
        Ok(last) => last.checked_add(1),
        Err(_) => (end == "-1").then_some(0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_say_how_much_is_there() {
        for (range, want) in [
            ("0-99", Some(100)),
            ("bytes=0-99", Some(100)),
            ("0-0", Some(0)),
            ("0--1", Some(0)),
            ("5-99", None),
            ("99", None),
            ("0-x", None),
            ("0-18446744073709551615", None),
        ] {
            assert_eq!(end_of(range), want, "{range}");
        }
    }

    #[test]
    fn sources_are_read_from_any_place() {
        let mut text = String::new();
        let bytes: &[u8] = b"content";
        bytes.open(3).unwrap().read_to_string(&mut text).unwrap();
        let mut file = tempfile::tempfile().unwrap();
        io::Write::write_all(&mut file, bytes).unwrap();
        BlobSource::open(&file, 3)
            .unwrap()
            .read_to_string(&mut text)
            .unwrap();
        bytes.open(30).unwrap().read_to_string(&mut text).unwrap();
        assert_eq!(text, "tenttent");
    }
}
