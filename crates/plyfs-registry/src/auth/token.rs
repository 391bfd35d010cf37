//! Access tokens: asking the token server of a registry, and how long what it gives lasts.
use std::time::{Duration, Instant};

use serde::Deserialize;
use ureq::http::{Method, header};

use super::challenge::Bearer;
use super::{Credentials, Request, basic};
use crate::error::{Object, RegistryError, Result};
use crate::http::{self, Answer, Ask, Content};
use crate::url;

const LIMIT: u64 = 1 << 20;
/// What a token lasts when its server does not say.
const LIFETIME: Duration = Duration::from_mins(1);
/// A token is let go of before it runs out, as requests take their time.
const MARGIN: Duration = Duration::from_secs(5);

/// An access token for one scope.
#[derive(Clone)]
pub(super) struct Token {
    value: String,
    ends: Instant,
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Token(…, {:?})", self.ends)
    }
}

impl Token {
    pub(super) fn is_fresh(&self) -> bool {
        Instant::now() < self.ends
    }

    pub(super) fn header(&self) -> String {
        format!("Bearer {}", self.value)
    }
}

#[derive(Deserialize)]
struct Given {
    #[serde(default)]
    token: String,
    #[serde(default)]
    access_token: String,
    expires_in: Option<u64>,
}

/// Asks the token server.
pub(super) fn fetch(
    bearer: &Bearer,
    credentials: Option<&Credentials>,
    request: &Request<'_>,
) -> Result<Token> {
    let object = Object(format!("token for {}", request.object));
    let is_plain = !bearer.realm.starts_with("https://");
    if is_plain && !(request.insecure && bearer.realm.starts_with("http://")) {
        return Err(RegistryError::Protocol {
            object,
            host: request.registry.to_owned(),
            reason: format!(
                "its token server {:?} does not speak TLS; --tls-verify=false allows that",
                bearer.realm
            ),
        });
    }
    let asked_at = Instant::now();
    let bytes = request.retry.repeat(|| {
        let answer = match credentials {
            Some(Credentials::Identity(token)) => by_refresh(bearer, token, request, &object)?,
            _ => by_get(bearer, credentials, request, &object)?,
        };
        match answer.status() {
            200 => answer.read(LIMIT, &object),
            401 | 403 => Err(refused(answer, credentials, request, &object)),
            _ => Err(answer.into_error(&object)),
        }
    })?;
    parse(&bytes, asked_at).ok_or_else(|| RegistryError::Protocol {
        object,
        host: bearer.realm.clone(),
        reason: "the answer of the token server has no token".to_owned(),
    })
}

/// The way of Docker: a GET, with Basic where there is a password.
fn by_get(
    bearer: &Bearer,
    credentials: Option<&Credentials>,
    request: &Request<'_>,
    object: &Object,
) -> Result<Answer> {
    let mut pairs = Vec::new();
    if let Some(service) = &bearer.service {
        pairs.push(("service", service.as_str()));
    }
    // Several scopes are several parameters.
    pairs.extend(request.scope.split(' ').map(|scope| ("scope", scope)));
    if let Some(Credentials::Password { user, .. }) = credentials {
        pairs.push(("account", user));
    }
    let login = credentials.and_then(basic);
    let ask = Ask {
        method: Method::GET,
        url: url::with_query(&bearer.realm, &pairs),
        headers: login
            .map(|l| (header::AUTHORIZATION, l))
            .into_iter()
            .collect(),
        content: Content::Nothing,
        object,
    };
    http::get(request.agent, ask)
}

/// The way of OAuth 2: a POST with the refresh token.
fn by_refresh(
    bearer: &Bearer,
    refresh: &str,
    request: &Request<'_>,
    object: &Object,
) -> Result<Answer> {
    let pairs = [
        ("grant_type", "refresh_token"),
        ("service", bearer.service.as_deref().unwrap_or_default()),
        ("client_id", "plyfs"),
        ("scope", request.scope),
        ("refresh_token", refresh),
    ];
    let form = url::with_query("", &pairs);
    let form = form.trim_start_matches('?').as_bytes();
    let kind = "application/x-www-form-urlencoded".to_owned();
    let ask = Ask {
        method: Method::POST,
        url: bearer.realm.clone(),
        headers: vec![(header::CONTENT_TYPE, kind)],
        content: Content::Bytes(form),
        object,
    };
    http::exchange(request.agent, ask)
}

fn refused(
    answer: Answer,
    credentials: Option<&Credentials>,
    request: &Request<'_>,
    object: &Object,
) -> RegistryError {
    let (host, status) = (answer.host(), answer.status());
    let errors = match answer.into_error(object) {
        RegistryError::Status { errors, .. } => errors,
        _ => Vec::new(),
    };
    let registry = request.registry;
    let credentials = match credentials {
        Some(Credentials::Password { user, .. }) => format!(
            "it does not take the password of {user:?}: log in again (podman login {registry})"
        ),
        Some(_) => {
            format!("it does not take the stored token: log in again (podman login {registry})")
        }
        None => {
            format!("there are no credentials for {registry}: log in (podman login {registry})")
        }
    };
    RegistryError::Denied {
        object: object.clone(),
        host,
        status,
        errors,
        credentials,
    }
}

fn parse(bytes: &[u8], asked_at: Instant) -> Option<Token> {
    let given: Given = serde_json::from_slice(bytes).ok()?;
    let value = [given.token, given.access_token]
        .into_iter()
        .find(|t| !t.is_empty())?;
    let lifetime = given.expires_in.map_or(LIFETIME, Duration::from_secs);
    // An absurd lifetime does not overflow, and a short one is used at least once.
    let lasts = lifetime
        .min(Duration::from_hours(24))
        .saturating_sub(MARGIN);
    Some(Token {
        value,
        ends: asked_at + lasts,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_have_two_names_and_an_end() {
        let now = Instant::now();
        let token = parse(br#"{"token":"a","expires_in":300}"#, now).unwrap();
        assert_eq!(token.header(), "Bearer a");
        assert_eq!(token.ends, now + Duration::from_secs(295));
        let token = parse(br#"{"access_token":"b"}"#, now).unwrap();
        assert_eq!(
            (token.value.as_str(), token.ends),
            ("b", now + Duration::from_secs(55))
        );
        let ages = format!(r#"{{"token":"a","expires_in":{}}}"#, u64::MAX);
        assert!(parse(ages.as_bytes(), now).is_some());
        let brief = parse(br#"{"token":"hidden","expires_in":1}"#, now).unwrap();
        assert!(!brief.is_fresh());
        for text in ["", "{}", r#"{"token":""}"#, "[]"] {
            assert!(parse(text.as_bytes(), now).is_none(), "{text}");
        }
        let shown = format!("{brief:?}");
        assert!(!shown.contains("hidden"), "{shown}");
    }
}
