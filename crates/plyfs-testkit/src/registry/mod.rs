//! Registries for tests: a small one in this process that fails on demand, and docker-registry.
mod http;
mod real;
mod serve;

use std::collections::{BTreeMap, VecDeque};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard};

use sha2::{Digest, Sha256};

pub use real::{RealRegistry, RegistrySetup, TlsFiles};

/// What goes wrong with one request.
#[derive(Debug, Clone)]
pub enum Fault {
    /// The connection ends without an answer.
    Drop,
    /// The connection ends after so many bytes of the body.
    CutAfter(usize),
    /// One byte of the body is another.
    Flip(usize),
    /// The body is longer by so many bytes, and the headers say so.
    Longer(usize),
    /// The body is shorter by so many bytes, and the headers say so.
    Shorter(usize),
    /// `Range` is not looked at.
    WholeAlways,
    /// Another status, with these headers and body.
    Status(u16, Vec<(String, String)>, String),
    /// A redirect to this URL.
    Redirect(String),
    /// Of the body of the request so many bytes are taken, then the connection ends.
    TakeOnly(usize),
}

/// A request as it came in.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    /// GET, PUT, ...
    pub method: String,
    /// With the query.
    pub path: String,
    /// Names in lower case.
    pub headers: BTreeMap<String, String>,
    /// How many bytes of a body came.
    pub body: usize,
    /// The body, where it is a short text.
    pub text: String,
}

impl Seen {
    /// A header, empty where there is none.
    #[must_use]
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }
}

/// Who may ask.
#[derive(Debug, Clone)]
pub enum Login {
    /// Everybody.
    Anyone,
    /// Those with this `Authorization` header.
    Basic(String),
    /// Those with a token, which the token server at `/token` of this registry gives to those
    /// with this `Authorization` header, or to everybody.
    Bearer(Option<String>),
}

#[derive(Debug)]
struct State {
    blobs: BTreeMap<(String, String), Vec<u8>>,
    manifests: BTreeMap<(String, String), (String, Vec<u8>)>,
    uploads: BTreeMap<u64, Vec<u8>>,
    login: Login,
    tokens: BTreeMap<String, String>,
    faults: VecDeque<(String, Fault)>,
    seen: Vec<Seen>,
    counter: u64,
    dead: bool,
    /// Mounts are answered as if the blob were not there.
    no_mounts: bool,
    min_chunk: Option<usize>,
}

/// A registry in this process that keeps everything in memory and fails on demand.
#[derive(Debug)]
pub struct FakeRegistry {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
}

impl FakeRegistry {
    /// Starts one on a port of its own.
    #[must_use]
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(Mutex::new(State {
            blobs: BTreeMap::new(),
            manifests: BTreeMap::new(),
            uploads: BTreeMap::new(),
            login: Login::Anyone,
            tokens: BTreeMap::new(),
            faults: VecDeque::new(),
            seen: Vec::new(),
            counter: 0,
            dead: false,
            no_mounts: false,
            min_chunk: None,
        }));
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            for connection in listener.incoming().flatten() {
                if shared.lock().unwrap().dead {
                    return;
                }
                let shared = Arc::clone(&shared);
                std::thread::spawn(move || serve::connection(connection, &shared, address));
            }
        });
        Self { address, state }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// `127.0.0.1:PORT`.
    #[must_use]
    pub fn host(&self) -> String {
        self.address.to_string()
    }

    /// Stores a blob; its digest.
    #[must_use]
    pub fn put_blob(&self, repository: &str, bytes: &[u8]) -> String {
        let digest = digest_of(bytes);
        let key = (repository.to_owned(), digest.clone());
        self.state().blobs.insert(key, bytes.to_vec());
        digest
    }

    /// A blob that was pushed.
    #[must_use]
    pub fn blob(&self, repository: &str, digest: &str) -> Option<Vec<u8>> {
        let key = (repository.to_owned(), digest.to_owned());
        self.state().blobs.get(&key).cloned()
    }

    /// Stores a manifest under a tag and its digest; its digest.
    pub fn put_manifest(&self, repository: &str, tag: &str, kind: &str, bytes: &[u8]) -> String {
        let digest = digest_of(bytes);
        let stored = (kind.to_owned(), bytes.to_vec());
        let mut state = self.state();
        for name in [tag, &digest] {
            let key = (repository.to_owned(), name.to_owned());
            state.manifests.insert(key, stored.clone());
        }
        digest
    }

    /// A manifest that was pushed: its type and bytes.
    #[must_use]
    pub fn manifest(&self, repository: &str, name: &str) -> Option<(String, Vec<u8>)> {
        let key = (repository.to_owned(), name.to_owned());
        self.state().manifests.get(&key).cloned()
    }

    /// The next request whose `METHOD PATH` contains `part` meets a fault; several wait in line.
    pub fn fail(&self, part: &str, fault: Fault) {
        self.state().faults.push_back((part.to_owned(), fault));
    }

    /// How many faults no request has met yet.
    #[must_use]
    pub fn faults_left(&self) -> usize {
        self.state().faults.len()
    }

    /// Who may ask from now on.
    pub fn require(&self, login: Login) {
        self.state().login = login;
    }

    /// All tokens given so far are no longer good.
    pub fn expire_tokens(&self) {
        self.state().tokens.clear();
    }

    /// Mounts from other repositories are answered with an upload.
    pub fn refuse_mounts(&self) {
        self.state().no_mounts = true;
    }

    /// Announces a smallest size of pieces.
    pub fn min_chunk(&self, bytes: usize) {
        self.state().min_chunk = Some(bytes);
    }

    /// The requests so far.
    #[must_use]
    pub fn seen(&self) -> Vec<Seen> {
        self.state().seen.clone()
    }

    /// Those whose `METHOD PATH` contains `part`.
    #[must_use]
    pub fn seen_with(&self, part: &str) -> Vec<Seen> {
        let has = |seen: &Seen| format!("{} {}", seen.method, seen.path).contains(part);
        self.seen().into_iter().filter(has).collect()
    }
}

impl Drop for FakeRegistry {
    fn drop(&mut self) {
        self.state().dead = true;
        // Wakes the thread that accepts, which sees that it is over.
        drop(TcpStream::connect(self.address));
    }
}

/// The sha256 digest of bytes, as registries write it.
#[must_use]
pub fn digest_of(bytes: &[u8]) -> String {
    use std::fmt::Write;
    let hash = Sha256::digest(bytes);
    hash.iter().fold("sha256:".to_owned(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}
