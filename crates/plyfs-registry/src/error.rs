//! Why the registry did not give or take something, and what to do about it.
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use oci_spec::image::Digest;

/// The result of everything that talks to a registry.
pub type Result<T> = std::result::Result<T, RegistryError>;

/// What a request was about, in words: `manifest 3.20 of docker.io/library/alpine`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object(pub(crate) String);

impl Object {
    /// Names a thing in words.
    pub fn new(words: impl Into<String>) -> Self {
        Self(words.into())
    }
}

impl fmt::Display for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One error of the list that a registry answers with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiError {
    /// Such as `MANIFEST_UNKNOWN`.
    pub code: String,
    /// For people; may be empty.
    pub message: String,
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.code.is_empty(), self.message.is_empty()) {
            (false, false) => write!(f, "{}: {}", self.code, self.message),
            (false, true) => f.write_str(&self.code),
            _ => f.write_str(&self.message),
        }
    }
}

/// Why the registry did not give or take something.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// The name of an image cannot be understood.
    #[error("{text:?} is no image reference: {reason}")]
    BadReference {
        /// As typed.
        text: String,
        /// What is wrong.
        reason: String,
    },
    /// The platform cannot be understood.
    #[error("{text:?} is no platform: write OS/ARCH or OS/ARCH/VARIANT, such as linux/arm64")]
    BadPlatform {
        /// As typed.
        text: String,
    },
    /// The registry could not be reached, or the connection broke.
    #[error("{object}: {reason}{advice}")]
    Connection {
        /// What was asked for.
        object: Object,
        /// What failed, with the host.
        reason: String,
        /// What to do; begins with "; " where there is any.
        advice: &'static str,
        /// Whether another attempt may work.
        transient: bool,
    },
    /// The registry answered with an error.
    #[error("{object}: {host} answers {status}{}{}", listed(.errors), advice(*.status))]
    Status {
        /// What was asked for.
        object: Object,
        /// Who answered.
        host: String,
        /// The HTTP status.
        status: u16,
        /// What the registry says about it.
        errors: Vec<ApiError>,
        /// How long it asks us to wait.
        retry_after: Option<Duration>,
    },
    /// The registry wants to know who asks, or does not let them.
    #[error("{object}: {host} denies access ({status}{}); {credentials}", listed(.errors))]
    Denied {
        /// What was asked for.
        object: Object,
        /// Who answered.
        host: String,
        /// The HTTP status, 401 or 403.
        status: u16,
        /// What the registry says about it.
        errors: Vec<ApiError>,
        /// Which credentials were used, and what to do.
        credentials: String,
    },
    /// The answer is not what the distribution API says.
    #[error("{object}: {host} does not keep to the distribution API: {reason}")]
    Protocol {
        /// What was asked for.
        object: Object,
        /// Who answered.
        host: String,
        /// What is wrong with the answer.
        reason: String,
    },
    /// The bytes are not those the digest names.
    #[error(
        "{object}: the content has digest {actual}; it was damaged on its way or in the registry: \
         try again, and if it stays, have it pushed again"
    )]
    WrongDigest {
        /// What was asked for; names the digest it should have.
        object: Object,
        /// What the bytes hash to.
        actual: String,
    },
    /// The length is not what the manifest says.
    #[error("{object}: the manifest says {expected} bytes, the registry has {actual}")]
    WrongSize {
        /// What was asked for.
        object: Object,
        /// By the manifest.
        expected: u64,
        /// By the registry, in words ("more" when it did not end).
        actual: String,
    },
    /// A hash we do not know.
    #[error("digest {digest} cannot be checked: only sha256 and sha512 are known")]
    UnknownAlgorithm {
        /// The digest.
        digest: Digest,
    },
    /// A manifest that is none, or of a kind that holds no image.
    #[error("{object}: {reason}")]
    BadManifest {
        /// What was asked for.
        object: Object,
        /// What is wrong with it.
        reason: String,
    },
    /// The image is not there for this platform.
    #[error("{object}: no image for {wanted}; there is {}: choose one with --platform", .available.join(", "))]
    NoPlatform {
        /// What was asked for.
        object: Object,
        /// Which platform.
        wanted: String,
        /// Those the index has.
        available: Vec<String>,
    },
    /// A file of credentials cannot be used.
    #[error("credential file {path:?}: {reason}")]
    CredentialFile {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A credential helper failed.
    #[error("credential helper {program}, named by {path:?}, for {server}: {reason}")]
    CredentialHelper {
        /// The program.
        program: String,
        /// The file that names it.
        path: PathBuf,
        /// For which server.
        server: String,
        /// What went wrong.
        reason: String,
    },
    /// A certificate of the operator cannot be used.
    #[error("certificate {path:?}: {reason}")]
    Certificate {
        /// The file or directory.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The store did not take or give something.
    #[error(transparent)]
    Store(#[from] plyfs_image::ImageError),
    /// Stopped because of another failure.
    #[error("{object}: stopped, as another transfer failed")]
    Cancelled {
        /// What was being moved.
        object: Object,
    },
    /// Reading or writing on our side failed.
    #[error("{object}: {doing}: {source}")]
    Local {
        /// What was being moved.
        object: Object,
        /// Reading or writing.
        doing: &'static str,
        /// What failed.
        source: std::io::Error,
    },
}

impl RegistryError {
    /// Whether the same request may work a little later.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Connection { transient, .. } => *transient,
            Self::Status { status, .. } => matches!(status, 408 | 429 | 500 | 502 | 503 | 504),
            _ => false,
        }
    }

    /// How long the registry asks us to wait.
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Status { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    /// The HTTP status, if the registry answered with one.
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Status { status, .. } | Self::Denied { status, .. } => Some(*status),
            _ => None,
        }
    }
}

/// The registry's own words, for the end of a sentence.
fn listed(errors: &[ApiError]) -> String {
    let words: Vec<_> = errors.iter().map(ToString::to_string).collect();
    if words.is_empty() {
        return String::new();
    }
    format!(" ({})", words.join("; "))
}

/// What an operator can do about a status.
fn advice(status: u16) -> &'static str {
    match status {
        404 => "; check name and tag (some registries hide what needs a login)",
        413 => "; it is larger than this registry takes",
        429 => "; too many requests: wait, or log in for a higher limit",
        500..=599 => "; the registry is in trouble: try again later",
        _ => "",
    }
}
