//! Where credentials are kept: the files of podman and docker, in podman's order.
use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use super::{Credentials, helper};
use crate::error::{RegistryError, Result};

/// What Docker calls its own registry in credential files.
const DOCKER_KEY: &str = "https://index.docker.io/v1/";

/// Where to look for credentials.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sources {
    /// Given by the operator: these and no other.
    given: Option<Credentials>,
    /// Files in the order they are asked.
    files: Vec<File>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct File {
    path: PathBuf,
    /// Named by the operator, so that its absence is a mistake.
    must_exist: bool,
}

impl Sources {
    /// No credentials at all.
    pub fn none() -> Self {
        Self::default()
    }

    /// These credentials for every registry.
    pub fn given(credentials: Credentials) -> Self {
        Self {
            given: Some(credentials),
            files: Vec::new(),
        }
    }

    /// One file.
    pub fn file(path: impl Into<PathBuf>) -> Self {
        Self {
            given: None,
            files: vec![File {
                path: path.into(),
                must_exist: true,
            }],
        }
    }

    /// The places of podman and docker: `$REGISTRY_AUTH_FILE` alone, else
    /// `$XDG_RUNTIME_DIR/containers/auth.json`, `$XDG_CONFIG_HOME/containers/auth.json`,
    /// `$DOCKER_CONFIG/config.json` and `~/.dockercfg`.
    pub fn usual() -> Self {
        Self::usual_in(&|name| std::env::var_os(name).map(PathBuf::from), own_uid())
    }

    fn usual_in(var: &dyn Fn(&str) -> Option<PathBuf>, uid: Option<u32>) -> Self {
        let set = |name: &str| var(name).filter(|p| !p.as_os_str().is_empty());
        if let Some(path) = set("REGISTRY_AUTH_FILE") {
            return Self::file(path);
        }
        let home = set("HOME");
        let run = uid.map(|uid| PathBuf::from(format!("/run/containers/{uid}/auth.json")));
        let runtime = set("XDG_RUNTIME_DIR").map(|dir| dir.join("containers/auth.json"));
        let config = set("XDG_CONFIG_HOME").or_else(|| home.as_ref().map(|h| h.join(".config")));
        let docker = set("DOCKER_CONFIG").or_else(|| home.as_ref().map(|h| h.join(".docker")));
        let paths = [
            runtime.or(run),
            config.map(|dir| dir.join("containers/auth.json")),
            docker.map(|dir| dir.join("config.json")),
            home.map(|dir| dir.join(".dockercfg")),
        ];
        let files = paths.into_iter().flatten().map(|path| File {
            path,
            must_exist: false,
        });
        Self {
            given: None,
            files: files.collect(),
        }
    }

    /// The credentials for a repository of a registry: the first file that has any decides.
    pub(crate) fn find(&self, registry: &str, repository: &str) -> Result<Option<Credentials>> {
        if self.given.is_some() {
            return Ok(self.given.clone());
        }
        for file in &self.files {
            let Some(config) = read(file)? else { continue };
            if let Some(found) = config.find(&file.path, registry, repository)? {
                tracing::debug!(path = ?file.path, registry, "credentials found");
                return Ok(Some(found));
            }
        }
        Ok(None)
    }
}

impl fmt::Display for Sources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.files.is_empty() {
            return f.write_str("any file (none was asked)");
        }
        let paths: Vec<_> = self
            .files
            .iter()
            .map(|f| f.path.display().to_string())
            .collect();
        f.write_str(&paths.join(", "))
    }
}

/// The user this process runs as, which owns its entry in /proc.
fn own_uid() -> Option<u32> {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata("/proc/self").ok().map(|m| m.uid())
}

/// `config.json` of docker and `auth.json` of podman.
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase")]
struct Config {
    #[serde(default)]
    auths: HashMap<String, Entry>,
    #[serde(default)]
    cred_helpers: HashMap<String, String>,
    #[serde(default)]
    creds_store: String,
}

#[derive(Deserialize, Default)]
struct Entry {
    #[serde(default)]
    auth: String,
    #[serde(default)]
    username: String,
    #[serde(default)]
    password: String,
    #[serde(default)]
    identitytoken: String,
    #[serde(default)]
    registrytoken: String,
}

fn read(file: &File) -> Result<Option<Config>> {
    let failed = |reason: String| RegistryError::CredentialFile {
        path: file.path.clone(),
        reason,
    };
    let bytes = match std::fs::read(&file.path) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound && !file.must_exist => return Ok(None),
        // Another user's runtime directory, left in the environment by su or sudo.
        Err(e) if e.kind() == std::io::ErrorKind::PermissionDenied && !file.must_exist => {
            tracing::warn!("credential file {:?} is left out: {e}", file.path);
            return Ok(None);
        }
        Err(e) => return Err(failed(e.to_string())),
    };
    if bytes.trim_ascii().is_empty() {
        return Ok(Some(Config::default()));
    }
    let is_old = file.path.file_name().is_some_and(|n| n == ".dockercfg");
    let config = if is_old {
        serde_json::from_slice(&bytes).map(|auths| Config {
            auths,
            ..Config::default()
        })
    } else {
        serde_json::from_slice(&bytes)
    };
    // The text of the error names a line and a column, never what stands there.
    config.map(Some).map_err(|e| {
        failed(format!(
            "it is no credential file (line {}, column {})",
            e.line(),
            e.column()
        ))
    })
}

impl Config {
    fn find(&self, path: &Path, registry: &str, repository: &str) -> Result<Option<Credentials>> {
        let server = if registry == "docker.io" {
            DOCKER_KEY
        } else {
            registry
        };
        let of_host = self
            .cred_helpers
            .iter()
            .find(|(k, _)| host_of(k) == registry);
        if let Some((_, program)) = of_host {
            return helper::ask(program, server, path);
        }
        if !self.creds_store.is_empty()
            && let Some(found) = helper::ask(&self.creds_store, server, path)?
        {
            return Ok(Some(found));
        }
        for key in keys(registry, repository) {
            let mut entries: Vec<_> = self
                .auths
                .iter()
                .filter(|(k, _)| {
                    if k.contains("://") {
                        host_of(k) == key
                    } else {
                        alias(k) == key
                    }
                })
                .collect();
            // Several spellings of one host: the same one wins each time.
            entries.sort_by_key(|(k, _)| k.as_str());
            for (key, entry) in entries {
                if let Some(found) = entry.credentials(key, path)? {
                    return Ok(Some(found));
                }
            }
        }
        Ok(None)
    }
}

/// Whose credentials count, the most special first: `host/a/b`, `host/a`, `host`.
fn keys(registry: &str, repository: &str) -> Vec<String> {
    let full = format!("{registry}/{repository}");
    let cuts = full.match_indices('/').map(|(at, _)| at).rev();
    let shorter: Vec<_> = cuts
        .filter_map(|at| full.get(..at))
        .map(str::to_owned)
        .collect();
    std::iter::once(full.clone()).chain(shorter).collect()
}

/// The host of a key that may be a URL.
fn host_of(key: &str) -> &str {
    let rest = key.split_once("://").map_or(key, |(_, rest)| rest);
    alias(rest.split('/').next().unwrap_or(rest))
}

/// Docker's registry has three names.
fn alias(host: &str) -> &str {
    match host {
        "index.docker.io" | "registry-1.docker.io" => "docker.io",
        host => host,
    }
}

impl Entry {
    fn credentials(&self, key: &str, path: &Path) -> Result<Option<Credentials>> {
        if !self.registrytoken.is_empty() {
            return Ok(Some(Credentials::Registry(self.registrytoken.clone())));
        }
        if !self.identitytoken.is_empty() {
            return Ok(Some(Credentials::Identity(self.identitytoken.clone())));
        }
        if self.auth.is_empty() {
            let named = !self.username.is_empty();
            return Ok(named.then(|| Credentials::Password {
                user: self.username.clone(),
                password: self.password.clone(),
            }));
        }
        let failed = || RegistryError::CredentialFile {
            path: path.to_owned(),
            reason: format!("\"auth\" of {key:?} is not user:password in base64: log in again"),
        };
        let bytes = STANDARD.decode(&self.auth).map_err(|_| failed())?;
        let text = String::from_utf8(bytes).map_err(|_| failed())?;
        let (user, password) = text.split_once(':').ok_or_else(failed)?;
        Ok(Some(Credentials::Password {
            user: user.to_owned(),
            // Old versions of docker padded the text.
            password: password.trim_end_matches('\0').to_owned(),
        }))
    }
}

#[cfg(test)]
#[path = "files_tests.rs"]
mod tests;
