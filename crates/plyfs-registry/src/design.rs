//! Why the registry client is threads over ureq, what it trusts, and what it repeats.
//!
//! # Threads, not async
//!
//! A pull moves a few large bodies at a time. Four threads that block in `read(2)` do that as
//! well as a runtime does, stay readable, and can be killed at any moment without a task left
//! behind. ureq is HTTP/1.1, blocking, small, has timeouts for each read and proxies from the
//! environment; TLS is rustls with the system's roots, so a static binary needs no OpenSSL.
//! Rejected: reqwest (blocking) and oci-client, which bring tokio, hyper and some eighty crates
//! for the same four connections; oci-client besides has no resume and no credential files.
//!
//! # Nothing is believed
//!
//! The only thing that names content is a digest that came with a manifest whose own digest was
//! checked (or, for a tag, that the registry's TLS certificate stands for). Sizes are checked while
//! the bytes arrive: not one byte more than the manifest says is kept. A mismatch is never repeated
//! silently, unless the bytes before a resume may be to blame; then the blob is fetched once from
//! its beginning.
//!
//! # Credentials go to one origin
//!
//! Redirects are followed here, not by ureq: `Authorization` is sent only to the scheme, host and port
//! that the operator named (and credentials to the token server the registry names, which has to
//! speak TLS if the registry does). Credential files are read only when a registry asks.
//!
//! # What is repeated
//!
//! Connection failures, bodies cut short, 408, 429 and 5xx are repeated with a doubling, jittered wait, or the one
//! `Retry-After` asks for. What counts is failures without progress: a download on a bad line
//! goes on as long as each connection brings some bytes. Everything else is final at once.
//! An upload is resumed where the registry says it stands, or begun anew when it has forgotten.
//!
//! # Plain http
//!
//! Only `--tls-verify=false` allows it, for loopback too: first TLS without a check of the
//! certificate, then plain http. Without the flag nothing is ever sent in the clear.
