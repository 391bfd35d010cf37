//! Just enough HTTP/1.1 for a server that closes each connection after one answer.
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;

use super::Seen;

/// Reads the head of a request.
pub(super) fn read_head(reader: &mut BufReader<TcpStream>) -> Option<Seen> {
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let mut words = line.split_whitespace();
    let mut seen = Seen {
        method: words.next()?.to_owned(),
        path: words.next()?.to_owned(),
        ..Seen::default()
    };
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let line = line.trim_end();
        if line.is_empty() {
            return Some(seen);
        }
        let (name, value) = line.split_once(':')?;
        let name = name.to_ascii_lowercase();
        seen.headers.insert(name, value.trim().to_owned());
    }
}

/// Reads the body, at most `limit` bytes of it.
pub(super) fn read_body(reader: &mut impl Read, seen: &Seen, limit: usize) -> Vec<u8> {
    let length: usize = seen.header("content-length").parse().unwrap_or(0);
    let mut body = Vec::new();
    let wanted = length.min(limit) as u64;
    // A client that goes away in the middle leaves a part, which is what it sent.
    if reader.take(wanted).read_to_end(&mut body).is_err() {
        eprintln!("fake registry: a request broke off");
    }
    body
}

/// What is sent back.
#[derive(Debug, Clone, Default)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: Vec<u8>,
    /// HEAD: headers alone.
    pub(super) without_body: bool,
    /// Where the body is cut off, with headers that promise all of it.
    pub(super) cut: Option<usize>,
}

impl Answer {
    pub(super) fn new(status: u16) -> Self {
        Self {
            status,
            ..Self::default()
        }
    }

    pub(super) fn with(mut self, name: &str, value: impl ToString) -> Self {
        self.headers.push((name.to_owned(), value.to_string()));
        self
    }

    pub(super) fn body(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.body = bytes.into();
        self
    }

    /// An error as registries list them.
    pub(super) fn error(status: u16, code: &str, message: &str) -> Self {
        let body = serde_json::json!({"errors": [{"code": code, "message": message}]});
        Self::new(status).body(body.to_string())
    }

    /// Writes it; a client that went away does not hear it.
    pub(super) fn send(&self, stream: &mut TcpStream) {
        let mut head = format!("HTTP/1.1 {} Status\r\nConnection: close\r\n", self.status);
        for (name, value) in &self.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        if self.status != 204 {
            head.push_str(&format!("Content-Length: {}\r\n", self.body.len()));
        }
        head.push_str("\r\n");
        let end = match (self.without_body, self.cut) {
            (true, _) => 0,
            (false, Some(cut)) => cut.min(self.body.len()),
            (false, None) => self.body.len(),
        };
        let mut bytes = head.into_bytes();
        bytes.extend_from_slice(&self.body[..end]);
        if stream
            .write_all(&bytes)
            .and_then(|()| stream.flush())
            .is_err()
        {
            eprintln!("fake registry: a client left before its answer");
        }
    }
}
