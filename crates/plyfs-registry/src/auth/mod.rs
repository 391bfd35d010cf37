//! Who asks: what a registry demands, and the header that answers it.
mod challenge;
mod files;
mod helper;
mod token;

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ureq::Agent;
use ureq::http::{HeaderMap, header};

use crate::error::{Object, Result};
use crate::retry::Retry;
pub use files::Sources;

use challenge::Challenge;
use token::Token;

/// What somebody proves themselves with.
#[derive(Clone, PartialEq, Eq)]
pub enum Credentials {
    /// A name and a password.
    Password {
        /// Who.
        user: String,
        /// The secret.
        password: String,
    },
    /// A refresh token to be changed into access tokens.
    Identity(String),
    /// An access token, sent as it is.
    Registry(String),
}

impl std::fmt::Debug for Credentials {
    /// Secrets do not get into logs.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Password { user, .. } => write!(f, "Password({user:?}, …)"),
            Self::Identity(_) => f.write_str("Identity(…)"),
            Self::Registry(_) => f.write_str("Registry(…)"),
        }
    }
}

/// What one registry has asked for so far, and the tokens it was answered with.
#[derive(Debug)]
pub(crate) struct Auth {
    sources: Sources,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    demanded: Option<Challenge>,
    /// By repository, read when first asked for; `None` when there are none.
    credentials: HashMap<String, Option<Credentials>>,
    tokens: HashMap<String, Token>,
}

/// For whom and what a request is made.
pub(crate) struct Request<'a> {
    pub(crate) agent: &'a Agent,
    /// The registry as the operator names it.
    pub(crate) registry: &'a str,
    pub(crate) repository: &'a str,
    /// Space separated, as in `repository:library/alpine:pull`.
    pub(crate) scope: &'a str,
    pub(crate) object: &'a Object,
    pub(crate) retry: Retry,
    /// Whether secrets may go over plain http.
    pub(crate) insecure: bool,
}

impl Auth {
    pub(crate) fn new(sources: Sources) -> Self {
        Self {
            sources,
            state: Mutex::default(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Every change of the state is one assignment, so a panic elsewhere leaves it whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The `Authorization` for a request, as far as the registry has said what it wants.
    pub(crate) fn header(&self, request: &Request<'_>) -> Result<Option<String>> {
        let mut state = self.state();
        let Some(challenge) = state.demanded.clone() else {
            return Ok(None);
        };
        let credentials = self.credentials(&mut state, request)?;
        match challenge {
            Challenge::Basic => Ok(credentials.as_ref().and_then(basic)),
            Challenge::Bearer(bearer) => {
                if let Some(Credentials::Registry(token)) = credentials {
                    return Ok(Some(format!("Bearer {token}")));
                }
                if let Some(token) = state.tokens.get(request.scope).filter(|t| t.is_fresh()) {
                    return Ok(Some(token.header()));
                }
                // Fetched under the lock: threads that want the same token wait for one request.
                let token = token::fetch(&bearer, credentials.as_ref(), request)?;
                let header = token.header();
                state.tokens.insert(request.scope.to_owned(), token);
                Ok(Some(header))
            }
        }
    }

    /// Takes in a 401 to a request that carried `sent`. Whether another attempt makes sense.
    pub(crate) fn challenged(&self, headers: &HeaderMap, sent: Option<&str>) -> bool {
        let offered = headers.get_all(header::WWW_AUTHENTICATE);
        let texts = offered.iter().filter_map(|v| v.to_str().ok());
        let Some(challenge) = challenge::choose(texts) else {
            return false;
        };
        let mut state = self.state();
        let is_new = state.demanded.as_ref() != Some(&challenge);
        // A token may have run out before its time; other tokens stay.
        let before = state.tokens.len();
        state
            .tokens
            .retain(|_, token| sent != Some(token.header().as_str()));
        let dropped = state.tokens.len() < before;
        if is_new {
            state.demanded = Some(challenge);
        }
        is_new || dropped || sent.is_none()
    }

    /// What was used to prove who we are, for an error.
    pub(crate) fn explain(&self, registry: &str, repository: &str) -> String {
        match self.state().credentials.get(repository) {
            Some(Some(Credentials::Password { user, .. })) => format!(
                "the credentials of {user:?} do not suffice: log in again (podman login {registry})"
            ),
            Some(Some(_)) => {
                format!("the stored token does not suffice: log in again (podman login {registry})")
            }
            Some(None) => format!(
                "no credentials for {registry} in {}: log in (podman login {registry}, or docker \
                 login), or check the name",
                self.sources
            ),
            None => format!("it may not exist, or need a login (podman login {registry})"),
        }
    }

    fn credentials(&self, state: &mut State, request: &Request<'_>) -> Result<Option<Credentials>> {
        if let Some(known) = state.credentials.get(request.repository) {
            return Ok(known.clone());
        }
        let found = self.sources.find(request.registry, request.repository)?;
        let repository = request.repository.to_owned();
        state.credentials.insert(repository, found.clone());
        Ok(found)
    }
}

/// The header for a name and a password.
pub(crate) fn basic(credentials: &Credentials) -> Option<String> {
    match credentials {
        Credentials::Password { user, password } => Some(format!(
            "Basic {}",
            STANDARD.encode(format!("{user}:{password}"))
        )),
        Credentials::Identity(_) | Credentials::Registry(_) => None,
    }
}
