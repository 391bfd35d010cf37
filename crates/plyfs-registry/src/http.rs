//! One HTTP exchange after the other: sending, following redirects, reading errors.
use std::io::Read;
use std::time::Duration;

use serde::Deserialize;
use ureq::http::{HeaderMap, Method, Request, Response, StatusCode, Uri, header};
use ureq::tls::TlsConfig;
use ureq::unversioned::resolver::DefaultResolver;
use ureq::unversioned::transport::{
    ConnectProxyConnector, Connector, RustlsConnector, TcpConnector,
};
use ureq::{Agent, Body, SendBody};

use crate::error::{ApiError, Object, RegistryError, Result};
use crate::own_ca::OwnTls;
use crate::retry;
use crate::url::{self, Origin};

/// How long to wait for one connection, and for one read or write on it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Timeouts {
    pub(crate) connect: Duration,
    pub(crate) idle: Duration,
}

/// More redirects than any registry needs.
const REDIRECTS: usize = 8;
/// An error is a few lines; what is longer is not shown.
const ERROR_LIMIT: u64 = 64 << 10;

/// What to ask.
pub(crate) struct Ask<'a> {
    pub(crate) method: Method,
    pub(crate) url: String,
    pub(crate) headers: Vec<(header::HeaderName, String)>,
    pub(crate) content: Content<'a>,
    /// For errors.
    pub(crate) object: &'a Object,
}

/// What goes with it.
pub(crate) enum Content<'a> {
    /// A GET or HEAD.
    Nothing,
    /// A POST, PUT or PATCH with these bytes, perhaps none.
    Bytes(&'a [u8]),
    /// So many bytes of a reader.
    Stream(Box<dyn Read + 'a>, u64),
}

/// What came back, and from where.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) response: Response<Body>,
    pub(crate) uri: Uri,
}

impl Answer {
    pub(crate) fn status(&self) -> u16 {
        self.response.status().as_u16()
    }

    pub(crate) fn header(&self, name: impl header::AsHeaderName) -> Option<&str> {
        self.response.headers().get(name)?.to_str().ok()
    }

    pub(crate) fn headers(&self) -> &HeaderMap {
        self.response.headers()
    }

    /// Host and port that answered.
    pub(crate) fn host(&self) -> String {
        self.uri
            .authority()
            .map_or_else(String::new, ToString::to_string)
    }

    /// Where its `Location` leads.
    pub(crate) fn location(&self, object: &Object) -> Result<Uri> {
        let location = self.header(header::LOCATION).unwrap_or_default();
        let target = (!location.is_empty())
            .then(|| url::resolve(&self.uri, location))
            .flatten();
        target.ok_or_else(|| {
            let reason = format!("it leads to {location:?}, which is no URL");
            self.protocol_error(object, reason)
        })
    }

    /// The whole body, which may not be longer than `limit`.
    pub(crate) fn read(self, limit: u64, object: &Object) -> Result<Vec<u8>> {
        let host = self.host();
        let mut bytes = Vec::new();
        let mut reader = self.response.into_body().into_reader().take(limit + 1);
        reader
            .read_to_end(&mut bytes)
            .map_err(|e| connection_error(object, &host, &ureq::Error::from(e)))?;
        if bytes.len() as u64 > limit {
            return Err(RegistryError::Protocol {
                object: object.clone(),
                host,
                reason: format!("the answer is longer than {limit} bytes"),
            });
        }
        Ok(bytes)
    }

    /// The error that this answer is.
    pub(crate) fn into_error(self, object: &Object) -> RegistryError {
        let (host, status) = (self.host(), self.status());
        let retry_after = self
            .header(header::RETRY_AFTER)
            .and_then(retry::retry_after);
        // The status says enough if the text of the error cannot be read.
        let body = self.read(ERROR_LIMIT, object).unwrap_or_default();
        RegistryError::Status {
            object: object.clone(),
            host,
            status,
            errors: parse_errors(&body),
            retry_after,
        }
    }

    pub(crate) fn protocol_error(&self, object: &Object, reason: String) -> RegistryError {
        RegistryError::Protocol {
            object: object.clone(),
            host: self.host(),
            reason,
        }
    }
}

/// The agent for one registry: no redirects of its own, errors are answers.
pub(crate) fn agent(tls: TlsConfig, own_tls: OwnTls, timeouts: Timeouts) -> Agent {
    let config = Agent::config_builder()
        .tls_config(tls)
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .user_agent(concat!("plyfs/", env!("CARGO_PKG_VERSION")))
        .timeout_connect(Some(timeouts.connect))
        .timeout_per_read(Some(timeouts.idle))
        .timeout_per_write(Some(timeouts.idle))
        .build();
    // ureq's own chain, with ours before its TLS, which leaves alone what is encrypted already.
    let connector =
        ().chain(ConnectProxyConnector::default())
            .chain(TcpConnector::default())
            .chain(own_tls)
            .chain(RustlsConnector::default());
    Agent::with_parts(config, connector, DefaultResolver::default())
}

/// One exchange; redirects are answers.
pub(crate) fn exchange(agent: &Agent, ask: Ask<'_>) -> Result<Answer> {
    let object = ask.object;
    let bad_url = |reason: String| RegistryError::Protocol {
        object: object.clone(),
        host: ask.url.clone(),
        reason,
    };
    let uri: Uri = ask
        .url
        .parse()
        .map_err(|e| bad_url(format!("no URL: {e}")))?;
    let mut request = Request::builder()
        .method(ask.method)
        .uri(uri.clone())
        // Blobs are named by the digest of what is stored, so nobody may compress them on the way.
        .header(header::ACCEPT_ENCODING, "identity");
    for (name, value) in &ask.headers {
        request = request.header(name, value);
    }
    let built = |e: ureq::http::Error| bad_url(format!("no request can be made of it: {e}"));
    let sent = match ask.content {
        Content::Nothing => agent.run(request.body(()).map_err(built)?),
        Content::Bytes(bytes) => agent.run(request.body(bytes).map_err(built)?),
        Content::Stream(mut reader, length) => {
            let request = request.header(header::CONTENT_LENGTH, length);
            agent.run(
                request
                    .body(SendBody::from_reader(&mut *reader))
                    .map_err(built)?,
            )
        }
    };
    let host = uri.authority().map_or("", |a| a.as_str()).to_owned();
    let response = sent.map_err(|e| connection_error(object, &host, &e))?;
    tracing::trace!(%uri, status = response.status().as_u16(), "answered");
    Ok(Answer { response, uri })
}

/// A GET or HEAD that goes where it is sent. `Authorization` is only shown to the first origin.
pub(crate) fn get(agent: &Agent, ask: Ask<'_>) -> Result<Answer> {
    let Ask {
        method,
        mut url,
        mut headers,
        object,
        ..
    } = ask;
    let first = url.parse::<Uri>().ok().as_ref().and_then(Origin::of);
    for _ in 0..=REDIRECTS {
        let step = Ask {
            method: method.clone(),
            url,
            headers: headers.clone(),
            content: Content::Nothing,
            object,
        };
        let answer = exchange(agent, step)?;
        if !is_redirect(answer.response.status()) {
            return Ok(answer);
        }
        let target = answer.location(object)?;
        let next = Origin::of(&target);
        if let (Some(from), Some(to)) = (Origin::of(&answer.uri), &next)
            && from.scheme == "https"
            && to.scheme == "http"
        {
            let reason = format!("it sends us from TLS to plain http ({target})");
            return Err(answer.protocol_error(object, reason));
        }
        if next != first {
            headers.retain(|(name, _)| *name != header::AUTHORIZATION);
        }
        url = target.to_string();
    }
    Err(RegistryError::Protocol {
        object: object.clone(),
        host: url,
        reason: format!("it sends us on more than {REDIRECTS} times"),
    })
}

fn is_redirect(status: StatusCode) -> bool {
    matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308)
}

#[derive(Deserialize)]
struct ErrorBody {
    errors: Vec<ErrorEntry>,
}

#[derive(Deserialize)]
struct ErrorEntry {
    #[serde(default)]
    code: String,
    #[serde(default)]
    message: String,
}

/// The errors a registry lists; a short text in place of the list is taken as one.
fn parse_errors(body: &[u8]) -> Vec<ApiError> {
    if let Ok(body) = serde_json::from_slice::<ErrorBody>(body) {
        let entries = body.errors.into_iter();
        let plain = |text: String| text.chars().filter(|c| !c.is_control()).collect();
        return entries
            .map(|entry| ApiError {
                code: plain(entry.code),
                message: plain(entry.message),
            })
            .collect();
    }
    // Something between us and the registry may answer with a page of HTML: not worth showing.
    let text = String::from_utf8_lossy(body);
    let line = text.trim();
    let presentable = !line.is_empty()
        && line.len() <= 200
        && !line.starts_with('<')
        && !line.contains(char::is_control);
    let error = presentable.then(|| ApiError {
        code: String::new(),
        message: line.to_owned(),
    });
    error.into_iter().collect()
}

/// What a failed connection means.
pub(crate) fn connection_error(object: &Object, host: &str, error: &ureq::Error) -> RegistryError {
    let (advice, transient) = match error {
        ureq::Error::HostNotFound => ("; check the name of the registry and the network", false),
        ureq::Error::Rustls(_) | ureq::Error::Tls(_) => (tls_advice(error), false),
        ureq::Error::Io(e) if is_tls(e) => (tls_advice(error), false),
        ureq::Error::Io(e) if e.kind() == std::io::ErrorKind::ConnectionRefused => {
            ("; is the registry running there?", true)
        }
        ureq::Error::Io(_) | ureq::Error::Timeout(_) | ureq::Error::ConnectionFailed => ("", true),
        // Garbage on the line may be a proxy that restarts; it is repeated like a lost connection.
        ureq::Error::Protocol(_) | ureq::Error::BodyStalled => ("", true),
        _ => ("", false),
    };
    RegistryError::Connection {
        object: object.clone(),
        reason: format!("connection to {host}: {error}"),
        advice,
        transient,
    }
}

/// Whether an I/O error is one of TLS: rustls wraps its own into those.
fn is_tls(error: &std::io::Error) -> bool {
    error.kind() == std::io::ErrorKind::InvalidData
}

fn tls_advice(error: &ureq::Error) -> &'static str {
    let text = error.to_string();
    if text.contains("UnknownIssuer") || text.contains("SelfSigned") {
        "; put its CA into /etc/containers/certs.d/HOST:PORT/ca.crt, or use --tls-verify=false"
    } else if text.contains("InvalidContentType") || text.contains("corrupt message") {
        "; it does not speak TLS: --tls-verify=false allows plain http"
    } else if text.contains("CaUsedAsEndEntity") {
        "; its certificate is that of a CA: put this very certificate into \
         /etc/containers/certs.d/HOST:PORT/ca.crt, or use --tls-verify=false"
    } else {
        "; --tls-verify=false does without a check of its certificate"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_read_as_far_as_they_can_be() {
        let words = |body: &str| -> Vec<String> {
            let errors = parse_errors(body.as_bytes());
            errors.iter().map(ToString::to_string).collect()
        };
        assert_eq!(
            words(
                r#"{"errors":[{"code":"DENIED","message":"no\u001b[31m","detail":{"x":1}},{"code":"A"},{"message":"b"}]}"#
            ),
            ["DENIED: no[31m", "A", "b"]
        );
        assert_eq!(words("too busy\n"), ["too busy"]);
        assert!(words("<html>502</html>").is_empty());
        assert!(words("a\u{1b}[31m").is_empty());
        assert!(words("").is_empty());
        assert!(words(&"x".repeat(300)).is_empty());
    }
}
