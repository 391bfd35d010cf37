//! URLs as far as registries use them: origins, relative locations, queries.
use ureq::http::Uri;

/// Scheme, host and port of a URL: who gets to see credentials.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Origin {
    pub(crate) scheme: String,
    pub(crate) host: String,
    pub(crate) port: u16,
}

impl Origin {
    /// The origin of an absolute http or https URL.
    pub(crate) fn of(uri: &Uri) -> Option<Self> {
        let scheme = uri.scheme_str()?.to_owned();
        let default = match scheme.as_str() {
            "https" => 443,
            "http" => 80,
            _ => return None,
        };
        Some(Self {
            host: uri.host()?.to_ascii_lowercase(),
            port: uri.port_u16().unwrap_or(default),
            scheme,
        })
    }
}

/// Where a `Location` leads, seen from the URL that answered with it.
pub(crate) fn resolve(base: &Uri, location: &str) -> Option<Uri> {
    let scheme = base.scheme_str()?;
    let authority = base.authority()?;
    let text = if location.contains("://") && !location.starts_with('/') {
        location.to_owned()
    } else if let Some(rest) = location.strip_prefix("//") {
        format!("{scheme}://{rest}")
    } else if location.starts_with('/') {
        format!("{scheme}://{authority}{location}")
    } else {
        let parent = base.path().rsplit_once('/').map_or("", |(dir, _)| dir);
        format!("{scheme}://{authority}{parent}/{location}")
    };
    let uri: Uri = text.parse().ok()?;
    Origin::of(&uri)?;
    Some(uri)
}

/// A URL with further parameters in its query.
pub(crate) fn with_query(url: &str, pairs: &[(&str, &str)]) -> String {
    let mut text = url.to_owned();
    for (name, value) in pairs {
        text.push(if text.contains('?') { '&' } else { '?' });
        text.push_str(name);
        text.push('=');
        text.push_str(&escape(value));
    }
    text
}

/// Percent-encodes all but what stands for itself in a query value.
pub(crate) fn escape(value: &str) -> String {
    let mut text = String::with_capacity(value.len());
    for byte in value.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~:/,".contains(&byte) {
            text.push(char::from(byte));
        } else {
            text.push_str(&format!("%{byte:02X}"));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locations_are_followed_as_a_browser_would() {
        let base: Uri = "https://r.example:5000/v2/a/blobs/x?q=1".parse().unwrap();
        for (location, want) in [
            ("/v2/y?z=1", Some("https://r.example:5000/v2/y?z=1")),
            ("//cdn.example/y", Some("https://cdn.example/y")),
            ("http://cdn.example/y", Some("http://cdn.example/y")),
            ("y", Some("https://r.example:5000/v2/a/blobs/y")),
            ("/y?u=http://z", Some("https://r.example:5000/y?u=http://z")),
            ("ftp://cdn.example/y", None),
            ("file:///etc/passwd", None),
            ("", Some("https://r.example:5000/v2/a/blobs/")),
        ] {
            let got = resolve(&base, location).map(|u| u.to_string());
            assert_eq!(got.as_deref(), want, "{location}");
        }
    }

    #[test]
    fn origins_know_default_ports() {
        let origin = |text: &str| Origin::of(&text.parse().unwrap());
        assert_eq!(
            origin("https://A.example/x"),
            origin("https://a.example:443/y")
        );
        assert_ne!(origin("https://a.example"), origin("http://a.example"));
        assert_ne!(
            origin("https://a.example"),
            origin("https://a.example:5000")
        );
        assert_eq!(origin("ftp://a.example"), None);
    }

    #[test]
    fn queries_are_escaped() {
        assert_eq!(
            with_query(
                "http://x/t?a=1",
                &[("scope", "repository:a/b:pull,push"), ("s", "a b&c")]
            ),
            "http://x/t?a=1&scope=repository:a/b:pull,push&s=a%20b%26c"
        );
    }
}
