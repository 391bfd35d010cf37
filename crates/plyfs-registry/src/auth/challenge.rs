//! What `WWW-Authenticate` asks for.

/// How to prove who we are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Challenge {
    /// Name and password with each request.
    Basic,
    /// A token from somewhere.
    Bearer(Bearer),
}

/// Where tokens come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Bearer {
    /// The URL of the token server.
    pub(super) realm: String,
    /// Whom the token is for.
    pub(super) service: Option<String>,
}

/// The best of what a registry offers: Bearer before Basic.
pub(super) fn choose<'a>(headers: impl Iterator<Item = &'a str>) -> Option<Challenge> {
    let offered: Vec<_> = headers.flat_map(parse).collect();
    let bearer = offered.iter().find_map(|(scheme, parameters)| {
        if !scheme.eq_ignore_ascii_case("bearer") {
            return None;
        }
        let value = |name: &str| {
            let mut found = parameters.iter().filter(|(n, _)| n == name);
            found.next().map(|(_, value)| value.clone())
        };
        Some(Challenge::Bearer(Bearer {
            realm: value("realm")?,
            service: value("service"),
        }))
    });
    bearer.or_else(|| {
        let has_basic = offered.iter().any(|(s, _)| s.eq_ignore_ascii_case("basic"));
        has_basic.then_some(Challenge::Basic)
    })
}

type Parameters = Vec<(String, String)>;

/// The challenges in one header: a scheme, then `name=value` or `name="value"` with commas, and
/// the next scheme after a comma.
fn parse(header: &str) -> Vec<(String, Parameters)> {
    let mut challenges: Vec<(String, Parameters)> = Vec::new();
    let mut rest = header;
    loop {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        let end = rest.find([' ', '\t', ',', '=']).unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        if word.is_empty() {
            return challenges;
        }
        let Some(value) = after.trim_start().strip_prefix('=') else {
            challenges.push((word.to_owned(), Vec::new()));
            rest = after;
            continue;
        };
        let (value, after) = parse_value(value.trim_start());
        if let Some((_, parameters)) = challenges.last_mut() {
            parameters.push((word.to_ascii_lowercase(), value));
        }
        rest = after;
    }
}

/// A token or a quoted string, and what follows it.
fn parse_value(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([',', ' ', '\t']).unwrap_or(text.len());
        let (value, rest) = text.split_at(end);
        return (value.to_owned(), rest);
    };
    let mut value = String::new();
    let mut chars = quoted.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return (value, quoted.get(at + 1..).unwrap_or_default()),
            '\\' => value.extend(chars.next().map(|(_, c)| c)),
            c => value.push(c),
        }
    }
    (value, "")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(headers: &[&str]) -> Option<Challenge> {
        choose(headers.iter().copied())
    }

    fn bearer(realm: &str, service: Option<&str>) -> Option<Challenge> {
        Some(Challenge::Bearer(Bearer {
            realm: realm.to_owned(),
            service: service.map(str::to_owned),
        }))
    }

    #[test]
    fn challenges_are_read_in_all_their_forms() {
        let docker = r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:a/b:pull,push",error="x""#;
        assert_eq!(
            chosen(&[docker]),
            bearer("https://auth.docker.io/token", Some("registry.docker.io"))
        );
        assert_eq!(
            chosen(&[r#"Basic realm="Registry Realm""#]),
            Some(Challenge::Basic)
        );
        assert_eq!(
            chosen(&[r#"basic realm="a, Bearer", BEARER Realm=https://t/x , service="s \"q\"""#]),
            bearer("https://t/x", Some("s \"q\""))
        );
        assert_eq!(
            chosen(&["Basic", "Bearer realm=https://t"]),
            bearer("https://t", None)
        );
        assert_eq!(chosen(&["Negotiate, Basic"]), Some(Challenge::Basic));
    }

    #[test]
    fn what_is_no_challenge_offers_nothing() {
        for header in [
            "",
            ",,",
            "Bearer",
            "Bearer service=x",
            "Digest realm=\"x\"",
            "=",
            "realm=x",
        ] {
            assert_eq!(chosen(&[header]), None, "{header:?}");
        }
        assert_eq!(
            chosen(&["Bearer realm=\"unclosed"]),
            bearer("unclosed", None)
        );
    }
}
