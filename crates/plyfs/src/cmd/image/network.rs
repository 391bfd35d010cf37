//! What pull and push share: which registry, who asks, and whom to trust.
use std::path::PathBuf;

use anyhow::Context;
use clap::ArgAction;
use plyfs_registry::{Client, Credentials, Options, Reference, Sources};

/// How to talk to a registry.
#[derive(Debug, clap::Args)]
pub(crate) struct Network {
    /// Whether the registry has to speak TLS with a trusted certificate; false allows any
    /// certificate, and plain http
    #[arg(
        long,
        value_name = "BOOL",
        default_value_t = true,
        default_missing_value = "true",
        num_args = 0..=1,
        require_equals = true,
        action = ArgAction::Set
    )]
    pub tls_verify: bool,
    /// Directory with further CA certificates (*.crt), in place of /etc/containers/certs.d/HOST
    #[arg(long, value_name = "DIR")]
    pub cert_dir: Option<PathBuf>,
    /// File with credentials, in place of those of podman and docker
    #[arg(long, value_name = "FILE", conflicts_with = "creds")]
    pub authfile: Option<PathBuf>,
    /// Credentials; others on this machine can see them, so better log in
    #[arg(long, value_name = "USER:PASSWORD")]
    pub creds: Option<String>,
    /// How many layers move at a time
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u8).range(1..=32))]
    pub jobs: u8,
}

impl Network {
    /// A client for the registry of `reference`.
    pub(super) fn client(&self, reference: &Reference) -> anyhow::Result<Client> {
        let credentials = match (&self.creds, &self.authfile) {
            (Some(text), _) => {
                let (user, password) = text
                    .split_once(':')
                    .context("--creds has to be USER:PASSWORD")?;
                Sources::given(Credentials::Password {
                    user: user.to_owned(),
                    password: password.to_owned(),
                })
            }
            (None, Some(file)) => Sources::file(file),
            (None, None) => Sources::usual(),
        };
        let options = Options {
            tls_verify: self.tls_verify,
            cert_dir: self.cert_dir.clone(),
            credentials,
            ..Options::default()
        };
        Ok(Client::new(reference, options)?)
    }
}
