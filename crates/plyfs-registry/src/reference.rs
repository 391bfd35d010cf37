//! Names of images: `[HOST[:PORT]/]NAME[:TAG][@DIGEST]`.
use std::fmt;
use std::str::FromStr;

use oci_spec::image::Digest;

use crate::error::RegistryError;

/// Where names without a host live, as Docker has it.
const DEFAULT_HOST: &str = "docker.io";
/// What docker.io's registry listens on.
const DOCKER_API: &str = "registry-1.docker.io";
const DEFAULT_TAG: &str = "latest";
/// As in the distribution specification, host included.
const NAME_LIMIT: usize = 255;

/// A name of an image in a registry.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Reference {
    host: String,
    repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

impl Reference {
    /// Host and port as the operator names them, `docker.io` where none was named.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Host and port to connect to.
    pub fn api_host(&self) -> &str {
        if self.host == DEFAULT_HOST {
            DOCKER_API
        } else {
            &self.host
        }
    }

    /// The name within the registry, without host, tag and digest.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The tag, `latest` where neither tag nor digest was given.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest, if the name is pinned to one.
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// What to ask the registry for: the digest, else the tag.
    pub fn selector(&self) -> &str {
        match &self.digest {
            Some(digest) => digest.as_ref(),
            None => self.tag.as_deref().unwrap_or(DEFAULT_TAG),
        }
    }

    /// Host and repository, as in `docker.io/library/alpine`.
    pub fn name(&self) -> String {
        format!("{}/{}", self.host, self.repository)
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.host, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

impl FromStr for Reference {
    type Err = RegistryError;

    fn from_str(text: &str) -> Result<Self, RegistryError> {
        parse(text).map_err(|reason| RegistryError::BadReference {
            text: text.to_owned(),
            reason,
        })
    }
}

fn parse(text: &str) -> Result<Reference, String> {
    let rest = text.strip_prefix("docker://").unwrap_or(text);
    if rest.contains("://") {
        return Err("only docker:// may stand before it".to_owned());
    }
    let (rest, digest) = match rest.split_once('@') {
        Some((rest, digest)) => (rest, Some(parse_digest(digest)?)),
        None => (rest, None),
    };
    let (host, rest) = split_host(rest);
    let (name, tag) = match rest.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
        _ => (rest, None),
    };
    check_host(host)?;
    let host = match host {
        "index.docker.io" | DOCKER_API => DEFAULT_HOST,
        host => host,
    };
    let repository = if host == DEFAULT_HOST && !name.contains('/') {
        format!("library/{name}")
    } else {
        name.to_owned()
    };
    check_name(name)?;
    if host.len() + 1 + repository.len() > NAME_LIMIT {
        return Err(format!("the name is longer than {NAME_LIMIT} bytes"));
    }
    let tag = match (tag, &digest) {
        (None, None) => Some(DEFAULT_TAG),
        (tag, _) => tag,
    };
    if let Some(tag) = tag {
        check_tag(tag)?;
    }
    Ok(Reference {
        host: host.to_ascii_lowercase(),
        repository,
        tag: tag.map(str::to_owned),
        digest,
    })
}

/// The first component is a host where it cannot be a part of a name: it has a dot or a port, or
/// it is `localhost`.
fn split_host(text: &str) -> (&str, &str) {
    match text.split_once('/') {
        Some((first, rest))
            if first.contains(['.', ':', '[']) || first.eq_ignore_ascii_case("localhost") =>
        {
            (first, rest)
        }
        _ => (DEFAULT_HOST, text),
    }
}

fn check_host(host: &str) -> Result<(), String> {
    let bad = |why: &str| Err(format!("host {host:?} {why}"));
    let (name, port) = match host.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((address, port)) if address.parse::<std::net::Ipv6Addr>().is_ok() => (
                "v6",
                port.strip_prefix(':').or((!port.is_empty()).then_some("")),
            ),
            _ => return bad("is no IPv6 address in brackets"),
        },
        None => match host.split_once(':') {
            Some((name, port)) => (name, Some(port)),
            None => (host, None),
        },
    };
    if let Some(port) = port
        && (port.parse::<u16>().is_err() || port.starts_with('+') || port == "0")
    {
        return bad("has no port number after the colon");
    }
    let label = |l: &str| {
        !l.is_empty()
            && l.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !l.starts_with('-')
            && !l.ends_with('-')
    };
    if !name.split('.').all(label) {
        return bad("is no host name");
    }
    Ok(())
}

fn check_name(name: &str) -> Result<(), String> {
    if name.is_empty() {
        return Err("the name is empty".to_owned());
    }
    for part in name.split('/') {
        check_component(part).map_err(|why| format!("{part:?} in the name {why}"))?;
    }
    Ok(())
}

/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`
fn check_component(part: &str) -> Result<(), &'static str> {
    if part.is_empty() {
        return Err("is empty");
    }
    if part.bytes().any(|b| b.is_ascii_uppercase()) {
        return Err("has capitals; names are lower case");
    }
    let alnum = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    if !part.bytes().all(|b| alnum(b) || b"._-".contains(&b)) {
        return Err("may have a-z, 0-9, '.', '_' and '-' only");
    }
    for separator in part.split(|c: char| c.is_ascii_alphanumeric()) {
        let dashes = separator.bytes().all(|b| b == b'-');
        if !(dashes || matches!(separator, "." | "_" | "__")) {
            return Err("has more than one separator in a row");
        }
    }
    let ends = [part.bytes().next(), part.bytes().next_back()];
    if ends.into_iter().flatten().all(alnum) {
        Ok(())
    } else {
        Err("has to begin and end with a letter or digit")
    }
}

fn check_tag(tag: &str) -> Result<(), String> {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    let fine = tag.len() <= 128
        && tag.bytes().next().is_some_and(word)
        && tag.bytes().all(|b| word(b) || b == b'.' || b == b'-');
    if fine {
        Ok(())
    } else {
        Err(format!(
            "tag {tag:?} has to be 1 to 128 of A-Z, a-z, 0-9, '_', '.' and '-', and to begin \
             with none of the last two"
        ))
    }
}

fn parse_digest(text: &str) -> Result<Digest, String> {
    text.parse()
        .map_err(|e| format!("{text:?} is no digest: {e}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_completed() {
        let hex = "a".repeat(64);
        for (text, want) in [
            ("alpine", "docker.io/library/alpine:latest"),
            ("alpine:3.20", "docker.io/library/alpine:3.20"),
            ("user/app", "docker.io/user/app:latest"),
            ("index.docker.io/alpine", "docker.io/library/alpine:latest"),
            ("registry-1.docker.io/a/b", "docker.io/a/b:latest"),
            ("localhost/a", "localhost/a:latest"),
            ("localhost:5000/a:b", "localhost:5000/a:b"),
            ("127.0.0.1:5000/a/b/c", "127.0.0.1:5000/a/b/c:latest"),
            ("[::1]:5000/a", "[::1]:5000/a:latest"),
            ("[::1]/a", "[::1]/a:latest"),
            ("Host.Example/a", "host.example/a:latest"),
            (
                "quay.io/a__b/c---d/e.f_g:T_1.2-x",
                "quay.io/a__b/c---d/e.f_g:T_1.2-x",
            ),
            ("docker://quay.io/a", "quay.io/a:latest"),
        ] {
            let parsed: Reference = text.parse().unwrap();
            assert_eq!(parsed.to_string(), want);
            assert_eq!(parsed.to_string().parse::<Reference>().unwrap(), parsed);
        }
        let pinned: Reference = format!("quay.io/a:1@sha256:{hex}").parse().unwrap();
        assert_eq!(pinned.tag(), Some("1"));
        assert_eq!(pinned.selector(), format!("sha256:{hex}"));
        let digest_alone: Reference = format!("a@sha256:{hex}").parse().unwrap();
        assert_eq!(digest_alone.tag(), None);
        assert_eq!(
            "alpine".parse::<Reference>().unwrap().api_host(),
            DOCKER_API
        );
    }

    #[test]
    fn what_is_no_name_is_refused_with_a_reason() {
        for (text, reason) in [
            ("", "empty"),
            ("quay.io/", "empty"),
            ("a//b", "empty"),
            ("a/../b", "more than one separator"),
            ("quay.io/../../etc", "more than one separator"),
            ("quay.io/-a", "begin and end"),
            ("quay.io/a..b", "more than one separator"),
            ("quay.io/a._b", "more than one separator"),
            ("Alpine", "lower case"),
            ("a:", "tag"),
            ("a:-x", "tag"),
            ("a:x y", "tag"),
            ("a b", "only"),
            ("a@sha256:12", "no digest"),
            ("a@md5", "no digest"),
            ("host:port/a", "port number"),
            ("host:/a", "port number"),
            ("host:+1/a", "port number"),
            ("host:70000/a", "port number"),
            ("[::1/a", "IPv6"),
            ("[::1]5000/a", "port number"),
            ("-a.b/c", "host name"),
            ("user@evil.example/a", "no digest"),
            ("https://quay.io/a", "docker://"),
            ("a.b/c\r\nx", "only"),
        ] {
            let error = text.parse::<Reference>().unwrap_err().to_string();
            assert!(error.contains(reason), "{text:?}: {error}");
        }
        let long = format!("quay.io/{}", "a/".repeat(130) + "a");
        assert!(long.parse::<Reference>().is_err());
        assert!(
            format!("a:{}", "t".repeat(129))
                .parse::<Reference>()
                .is_err()
        );
    }
}
