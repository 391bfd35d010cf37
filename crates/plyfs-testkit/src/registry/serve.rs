//! The distribution API of the fake registry.
use std::io::BufReader;
use std::net::{SocketAddr, TcpStream};
use std::sync::Mutex;

use super::http::{Answer, read_body, read_head};
use super::{Fault, Login, Seen, State, digest_of};

/// Answers the one request of a connection.
pub(super) fn connection(stream: TcpStream, state: &Mutex<State>, address: SocketAddr) {
    let mut writer = stream.try_clone().unwrap();
    let mut reader = BufReader::new(stream);
    let Some(mut seen) = read_head(&mut reader) else {
        // What servers say to those who begin with TLS.
        Answer::new(400).send(&mut writer);
        return;
    };
    let fault = take_fault(&mut state.lock().unwrap(), &seen);
    let limit = match fault {
        Some(Fault::TakeOnly(limit)) => limit,
        _ => usize::MAX,
    };
    let body = read_body(&mut reader, &seen, limit);
    seen.body = body.len();
    if body.len() < 4096 {
        seen.text = String::from_utf8_lossy(&body).into_owned();
    }
    let answer = {
        let mut state = state.lock().unwrap();
        state.seen.push(seen.clone());
        match &fault {
            Some(Fault::Drop) => return,
            Some(Fault::TakeOnly(_)) => {
                take_part(&mut state, &seen, &body);
                return;
            }
            Some(Fault::Status(status, headers, body)) => Answer {
                status: *status,
                headers: headers.clone(),
                body: body.clone().into(),
                ..Answer::default()
            },
            Some(Fault::Redirect(to)) => Answer::new(307).with("Location", to),
            Some(Fault::WholeAlways) => {
                seen.headers.remove("range");
                route(&mut state, &seen, body, address)
            }
            _ => route(&mut state, &seen, body, address),
        }
    };
    let mut answer = answer;
    answer.without_body = seen.method == "HEAD";
    match fault {
        Some(Fault::CutAfter(bytes)) => answer.cut = Some(bytes),
        Some(Fault::Flip(at)) => answer.body[at] ^= 1,
        Some(Fault::Longer(by)) => answer.body.extend(vec![0; by]),
        Some(Fault::Shorter(by)) => answer.body.truncate(answer.body.len() - by),
        _ => {}
    }
    answer.send(&mut writer);
}

fn take_fault(state: &mut State, seen: &Seen) -> Option<Fault> {
    let line = format!("{} {}", seen.method, seen.path);
    let at = state
        .faults
        .iter()
        .position(|(part, _)| line.contains(part))?;
    state.faults.remove(at).map(|(_, fault)| fault)
}

/// Keeps what came of an upload that broke off.
fn take_part(state: &mut State, seen: &Seen, body: &[u8]) {
    let number = seen.path.rsplit('/').next().unwrap_or_default();
    let number = number.split('?').next().unwrap_or_default();
    if let Some(upload) = number.parse().ok().and_then(|n| state.uploads.get_mut(&n)) {
        upload.extend_from_slice(body);
    }
}

fn route(state: &mut State, seen: &Seen, body: Vec<u8>, address: SocketAddr) -> Answer {
    let (path, query) = seen.path.split_once('?').unwrap_or((&seen.path, ""));
    if path == "/token" {
        return give_token(state, seen, query);
    }
    let Some(rest) = path.strip_prefix("/v2/") else {
        return Answer::error(404, "NOT_FOUND", "no such page");
    };
    if let Some(refusal) = check_login(state, seen, address) {
        return refusal;
    }
    if rest.is_empty() {
        return Answer::new(200);
    }
    if let Some((repository, name)) = rest.split_once("/manifests/") {
        return manifests(state, seen, repository, name, body);
    }
    if let Some((repository, rest)) = rest.split_once("/blobs/uploads/") {
        return uploads(state, seen, repository, rest, query, &body);
    }
    if let Some((repository, digest)) = rest.split_once("/blobs/") {
        let key = (repository.to_owned(), digest.to_owned());
        return match state.blobs.get(&key) {
            Some(bytes) => ranged(seen, bytes),
            None => Answer::error(404, "BLOB_UNKNOWN", "blob unknown to registry"),
        };
    }
    if let Some(repository) = rest.strip_suffix("/tags/list") {
        return tags(state, repository, query);
    }
    Answer::error(404, "NOT_FOUND", "no such page")
}

fn check_login(state: &State, seen: &Seen, address: SocketAddr) -> Option<Answer> {
    let given = seen.header("authorization");
    let (fine, challenge) = match &state.login {
        Login::Anyone => (true, String::new()),
        Login::Basic(wanted) => (given == wanted, "Basic realm=\"fake\"".to_owned()),
        Login::Bearer(_) => {
            let token = given.strip_prefix("Bearer ").unwrap_or_default();
            let scope = state.tokens.get(token);
            let repository = seen.path.trim_start_matches("/v2/").split('/').next();
            let fits = |scope: &String| scope.contains(repository.unwrap_or_default());
            let challenge =
                format!("Bearer realm=\"http://{address}/token\",service=\"fake\",scope=\"x\"");
            (scope.is_some_and(fits), challenge)
        }
    };
    (!fine).then(|| {
        Answer::error(401, "UNAUTHORIZED", "authentication required")
            .with("WWW-Authenticate", challenge)
    })
}

fn give_token(state: &mut State, seen: &Seen, query: &str) -> Answer {
    if let Login::Bearer(Some(wanted)) = &state.login
        && seen.header("authorization") != wanted
    {
        return Answer::error(401, "UNAUTHORIZED", "wrong password");
    }
    state.counter += 1;
    let token = format!("token-{}", state.counter);
    let scope = format!("{query}&{}", seen.text);
    state.tokens.insert(token.clone(), scope);
    Answer::new(200).body(serde_json::json!({"token": token, "expires_in": 300}).to_string())
}

fn manifests(
    state: &mut State,
    seen: &Seen,
    repository: &str,
    name: &str,
    body: Vec<u8>,
) -> Answer {
    let key = |name: &str| (repository.to_owned(), name.to_owned());
    if seen.method == "PUT" {
        let digest = digest_of(&body);
        let stored = (seen.header("content-type").to_owned(), body);
        state.manifests.insert(key(&digest), stored.clone());
        state.manifests.insert(key(name), stored);
        return Answer::new(201).with("Docker-Content-Digest", digest);
    }
    match state.manifests.get(&key(name)) {
        Some((kind, bytes)) => Answer::new(200)
            .with("Content-Type", kind)
            .with("Docker-Content-Digest", digest_of(bytes))
            .body(bytes.clone()),
        None => Answer::error(404, "MANIFEST_UNKNOWN", "manifest unknown"),
    }
}

/// A blob, or its end where one is asked for.
fn ranged(seen: &Seen, bytes: &[u8]) -> Answer {
    let start = seen
        .header("range")
        .strip_prefix("bytes=")
        .and_then(|range| range.strip_suffix('-')?.parse::<usize>().ok());
    match start {
        None => Answer::new(200).body(bytes),
        Some(start) if start < bytes.len() => {
            let (last, total) = (bytes.len() - 1, bytes.len());
            Answer::new(206)
                .with("Content-Range", format!("bytes {start}-{last}/{total}"))
                .body(&bytes[start..])
        }
        Some(_) => Answer::new(416),
    }
}

fn parameter<'q>(query: &'q str, name: &str) -> Option<&'q str> {
    let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    pairs.find(|(n, _)| *n == name).map(|(_, value)| value)
}

fn uploads(
    state: &mut State,
    seen: &Seen,
    repository: &str,
    rest: &str,
    query: &str,
    body: &[u8],
) -> Answer {
    if seen.method == "POST" {
        return begin(state, repository, query);
    }
    let location = format!("/v2/{repository}/blobs/uploads/{rest}");
    let number: u64 = rest.parse().unwrap_or(0);
    let Some(upload) = state.uploads.get_mut(&number) else {
        return Answer::error(404, "BLOB_UPLOAD_UNKNOWN", "upload unknown");
    };
    let last = |length: usize| format!("0-{}", length.saturating_sub(1));
    match seen.method.as_str() {
        "GET" => Answer::new(204)
            .with("Location", location)
            .with("Range", last(upload.len())),
        "PATCH" => {
            let start = seen.header("content-range").split('-').next();
            if start.and_then(|s| s.parse().ok()) != Some(upload.len()) {
                return Answer::new(416).with("Range", last(upload.len()));
            }
            upload.extend_from_slice(body);
            Answer::new(202)
                .with("Location", location)
                .with("Range", last(upload.len()))
        }
        "PUT" => {
            let mut bytes = std::mem::take(upload);
            state.uploads.remove(&number);
            bytes.extend_from_slice(body);
            let digest = digest_of(&bytes);
            if parameter(query, "digest") != Some(&digest) {
                return Answer::error(400, "DIGEST_INVALID", "provided digest did not match");
            }
            state
                .blobs
                .insert((repository.to_owned(), digest.clone()), bytes);
            Answer::new(201).with("Docker-Content-Digest", digest)
        }
        _ => Answer::new(405),
    }
}

fn begin(state: &mut State, repository: &str, query: &str) -> Answer {
    if let (Some(digest), Some(from)) = (parameter(query, "mount"), parameter(query, "from"))
        && !state.no_mounts
        && let Some(bytes) = state.blobs.get(&(from.to_owned(), digest.to_owned()))
    {
        let key = (repository.to_owned(), digest.to_owned());
        let bytes = bytes.clone();
        state.blobs.insert(key, bytes);
        return Answer::new(201);
    }
    state.counter += 1;
    state.uploads.insert(state.counter, Vec::new());
    let location = format!("/v2/{repository}/blobs/uploads/{}", state.counter);
    let answer = Answer::new(202)
        .with("Location", location)
        .with("Range", "0-0");
    match state.min_chunk {
        Some(bytes) => answer.with("OCI-Chunk-Min-Length", bytes),
        None => answer,
    }
}

/// Two tags a page.
fn tags(state: &State, repository: &str, query: &str) -> Answer {
    let after = parameter(query, "last").unwrap_or_default();
    let names = state
        .manifests
        .keys()
        .filter(|(r, n)| r == repository && !n.contains(':'));
    let rest: Vec<_> = names
        .map(|(_, n)| n.clone())
        .filter(|n| n.as_str() > after)
        .collect();
    let page: Vec<_> = rest.iter().take(2).cloned().collect();
    let body = serde_json::json!({"name": repository, "tags": page}).to_string();
    let answer = Answer::new(200).body(body);
    match page.last() {
        Some(last) if rest.len() > 2 => {
            let link = format!("</v2/{repository}/tags/list?last={last}>; rel=\"next\"");
            answer.with("Link", link)
        }
        _ => answer,
    }
}
