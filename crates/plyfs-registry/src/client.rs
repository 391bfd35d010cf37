//! One registry: how it is reached, who asks, and each request made until it is answered.
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use ureq::Agent;
use ureq::http::header::{AUTHORIZATION, HeaderName};
use ureq::http::{Method, Uri};

use crate::auth::{self, Auth, Sources};
use crate::error::{Object, RegistryError, Result};
use crate::http::{self, Answer, Ask, Content, Timeouts};
use crate::reference::Reference;
use crate::repository::Repository;
use crate::retry::Retry;
use crate::tls;
use crate::url::Origin;

/// How to talk to a registry.
#[derive(Debug, Clone)]
pub struct Options {
    /// Whether it has to speak TLS with a certificate that is trusted.
    pub tls_verify: bool,
    /// A directory of further CA certificates (`*.crt`) in place of `/etc/containers/certs.d/HOST`.
    pub cert_dir: Option<PathBuf>,
    /// Where credentials are looked for.
    pub credentials: Sources,
    /// How often to try again.
    pub retry: Retry,
    /// How long making a connection may take.
    pub connect_timeout: Duration,
    /// How long a connection may be silent.
    pub idle_timeout: Duration,
    /// Blobs larger than this are sent in pieces of this size.
    pub chunk: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            tls_verify: true,
            cert_dir: None,
            credentials: Sources::usual(),
            retry: Retry::default(),
            connect_timeout: Duration::from_secs(30),
            idle_timeout: Duration::from_mins(2),
            chunk: 64 << 20,
        }
    }
}

/// One registry.
#[derive(Debug)]
pub struct Client {
    agent: Agent,
    host: String,
    api_host: String,
    auth: Auth,
    options: Options,
    /// The scheme it speaks, once it has answered.
    scheme: Mutex<Option<&'static str>>,
}

/// What is asked of one repository, and with which rights.
pub(crate) struct Call<'a> {
    pub(crate) method: Method,
    pub(crate) url: &'a str,
    pub(crate) headers: &'a [(HeaderName, String)],
    pub(crate) repository: &'a str,
    pub(crate) scope: &'a str,
    pub(crate) object: &'a Object,
}

impl Client {
    /// A client for the registry of `reference`. Connects when first asked for something.
    pub fn new(reference: &Reference, options: Options) -> Result<Self> {
        let verify = options.tls_verify;
        let (tls, own_tls) = tls::config(reference.host(), verify, options.cert_dir.as_deref())?;
        let timeouts = Timeouts {
            connect: options.connect_timeout,
            idle: options.idle_timeout,
        };
        Ok(Self {
            agent: http::agent(tls, own_tls, timeouts),
            host: reference.host().to_owned(),
            api_host: reference.api_host().to_owned(),
            auth: Auth::new(options.credentials.clone()),
            options,
            scheme: Mutex::new(None),
        })
    }

    /// The repository of `reference`, which has to be in this registry.
    pub fn repository(&self, reference: &Reference) -> Repository<'_> {
        Repository::new(self, reference.repository())
    }

    /// Host and port as the operator names them.
    pub fn host(&self) -> &str {
        &self.host
    }

    pub(crate) fn retry(&self) -> Retry {
        self.options.retry
    }

    pub(crate) fn chunk(&self) -> u64 {
        self.options.chunk.max(1)
    }

    /// Asks whether there is a registry, and what it wants to know of us.
    pub fn ping(&self) -> Result<()> {
        self.base().map(drop)
    }

    /// `https://HOST` or `http://HOST`, found out by the first request.
    pub(crate) fn base(&self) -> Result<String> {
        // Held while the first one asks: threads that start together ask once.
        let mut known = self.scheme.lock().unwrap_or_else(PoisonError::into_inner);
        let scheme = match *known {
            Some(scheme) => scheme,
            None => {
                let scheme = self.options.retry.repeat(|| self.find_scheme())?;
                *known = Some(scheme);
                scheme
            }
        };
        Ok(format!("{scheme}://{}", self.api_host))
    }

    fn find_scheme(&self) -> Result<&'static str> {
        match self.ping_with("https") {
            Ok(()) => Ok("https"),
            Err(by_tls) if self.options.tls_verify => Err(by_tls),
            // The operator allows plain http. If that fails too, TLS was what was meant.
            Err(by_tls @ RegistryError::Connection { .. }) => {
                self.ping_with("http").map_err(|by_http| match by_http {
                    RegistryError::Connection { .. } => by_tls,
                    answered => answered,
                })?;
                Ok("http")
            }
            Err(e) => Err(e),
        }
    }

    fn ping_with(&self, scheme: &str) -> Result<()> {
        let object = Object(format!("registry {}", self.host));
        let ask = Ask {
            method: Method::GET,
            url: format!("{scheme}://{}/v2/", self.api_host),
            headers: Vec::new(),
            content: Content::Nothing,
            object: &object,
        };
        let answer = http::get(&self.agent, ask)?;
        match answer.status() {
            200..=299 => Ok(()),
            401 | 403 => {
                self.auth.challenged(answer.headers(), None);
                Ok(())
            }
            404 => Err(answer.protocol_error(
                &object,
                "it does not know /v2/, so it is no registry".to_owned(),
            )),
            _ => Err(answer.into_error(&object)),
        }
    }

    /// Makes one request and answers what the registry wants to know of us; no other repetition.
    ///
    /// `content` is asked anew for each attempt. Credentials go along only to the registry itself.
    pub(crate) fn once<'c>(
        &self,
        call: &Call<'_>,
        content: &mut dyn FnMut() -> Result<Content<'c>>,
    ) -> Result<Answer> {
        let is_own = self.is_own(call.url)?;
        let request = auth::Request {
            agent: &self.agent,
            registry: &self.host,
            repository: call.repository,
            scope: call.scope,
            object: call.object,
            retry: self.options.retry,
            insecure: !self.options.tls_verify,
        };
        let mut left = 2;
        loop {
            let login = if is_own {
                self.auth.header(&request)?
            } else {
                None
            };
            let mut headers = call.headers.to_vec();
            headers.extend(login.iter().map(|l| (AUTHORIZATION, l.clone())));
            let ask = Ask {
                method: call.method.clone(),
                url: call.url.to_owned(),
                headers,
                content: content()?,
                object: call.object,
            };
            let answer = match ask.content {
                Content::Nothing => http::get(&self.agent, ask)?,
                _ => http::exchange(&self.agent, ask)?,
            };
            let came_from_own = Origin::of(&answer.uri) == Origin::of(&self.own_uri()?);
            let demands = answer.status() == 401 && came_from_own && left > 0;
            if demands && self.auth.challenged(answer.headers(), login.as_deref()) {
                left -= 1;
                continue;
            }
            return self.allowed(answer, call);
        }
    }

    /// A 401 or 403 as an error that says who we were; everything else as it is.
    fn allowed(&self, answer: Answer, call: &Call<'_>) -> Result<Answer> {
        let status = answer.status();
        if !matches!(status, 401 | 403) {
            return Ok(answer);
        }
        let host = answer.host();
        let errors = match answer.into_error(call.object) {
            RegistryError::Status { errors, .. } => errors,
            _ => Vec::new(),
        };
        Err(RegistryError::Denied {
            object: call.object.clone(),
            host,
            status,
            errors,
            credentials: self.auth.explain(&self.host, call.repository),
        })
    }

    /// Makes a request without a body until it is answered with one of `accepted`.
    pub(crate) fn get(&self, call: &Call<'_>, accepted: &[u16]) -> Result<Answer> {
        self.options.retry.repeat(|| self.get_once(call, accepted))
    }

    /// The same without a repetition, for those who repeat more than the request.
    pub(crate) fn get_once(&self, call: &Call<'_>, accepted: &[u16]) -> Result<Answer> {
        let answer = self.once(call, &mut || Ok(Content::Nothing))?;
        expect(answer, accepted, call.object)
    }

    /// Makes a request with a small body until it is answered with one of `accepted`.
    pub(crate) fn send(&self, call: &Call<'_>, body: &[u8], accepted: &[u16]) -> Result<Answer> {
        self.options.retry.repeat(|| {
            let answer = self.once(call, &mut || Ok(Content::Bytes(body)))?;
            expect(answer, accepted, call.object)
        })
    }

    fn own_uri(&self) -> Result<Uri> {
        let base = self.base()?;
        base.parse().map_err(|e| RegistryError::BadReference {
            text: self.host.clone(),
            reason: format!("{base} is no URL: {e}"),
        })
    }

    fn is_own(&self, url: &str) -> Result<bool> {
        let own = Origin::of(&self.own_uri()?);
        let asked = url.parse::<Uri>().ok().as_ref().and_then(Origin::of);
        Ok(own == asked)
    }
}

/// The answer, if its status is one of `accepted`.
pub(crate) fn expect(answer: Answer, accepted: &[u16], object: &Object) -> Result<Answer> {
    if accepted.contains(&answer.status()) {
        return Ok(answer);
    }
    Err(answer.into_error(object))
}
