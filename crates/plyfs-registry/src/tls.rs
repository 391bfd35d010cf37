//! Which certificates are trusted: the system's, and those of the operator for one registry.
use std::path::{Path, PathBuf};

use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};

use crate::error::{RegistryError, Result};
use crate::own_ca::OwnTls;

/// Where container tools look for the certificates of a registry, under its host and port.
const PLACES: [&str; 2] = ["/etc/containers/certs.d", "/etc/docker/certs.d"];

/// TLS for one registry: with a check of its certificate, or without any; and what makes the
/// connections where the operator has certificates for it.
pub(crate) fn config(
    host: &str,
    verify: bool,
    cert_dir: Option<&Path>,
) -> Result<(TlsConfig, OwnTls)> {
    let builder = TlsConfig::builder();
    if !verify {
        let config = builder.disable_verification(true).build();
        return Ok((config, OwnTls::default()));
    }
    let mut roots = system();
    let directories = directories(host, cert_dir);
    let mut own = Vec::new();
    for dir in &directories {
        own.extend(of_directory(dir, cert_dir.is_some())?);
    }
    roots.extend(own.iter().cloned());
    let own_tls = match directories.first() {
        Some(dir) if !own.is_empty() => {
            OwnTls::new(&roots, &own).map_err(|reason| RegistryError::Certificate {
                path: dir.clone(),
                reason,
            })?
        }
        _ => OwnTls::default(),
    };
    // A container without the system's certificates still reaches public registries.
    let roots = if roots.is_empty() {
        RootCerts::WebPki
    } else {
        RootCerts::new_with_certs(&roots)
    };
    Ok((builder.root_certs(roots).build(), own_tls))
}

fn system() -> Vec<Certificate<'static>> {
    let found = rustls_native_certs::load_native_certs();
    for error in &found.errors {
        tracing::warn!("a certificate of the system is left out: {error}");
    }
    let ders = found.certs.iter();
    ders.map(|der| Certificate::from_der(der).to_owned())
        .collect()
}

fn directories(host: &str, given: Option<&Path>) -> Vec<PathBuf> {
    if let Some(dir) = given {
        return vec![dir.to_owned()];
    }
    let home = std::env::var_os("HOME").map(PathBuf::from);
    let config = std::env::var_os("XDG_CONFIG_HOME")
        .map(PathBuf::from)
        .or_else(|| home.map(|home| home.join(".config")));
    let own = config.map(|config| config.join("containers/certs.d"));
    let places = own.into_iter().chain(PLACES.map(PathBuf::from));
    places.map(|place| place.join(host)).collect()
}

/// The certificates in the `*.crt` files of a directory.
fn of_directory(dir: &Path, must_exist: bool) -> Result<Vec<Certificate<'static>>> {
    let failed = |path: &Path, reason: String| RegistryError::Certificate {
        path: path.to_owned(),
        reason,
    };
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound && !must_exist => return Ok(Vec::new()),
        Err(e) => return Err(failed(dir, e.to_string())),
    };
    let mut certificates = Vec::new();
    for entry in entries {
        let path = entry.map_err(|e| failed(dir, e.to_string()))?.path();
        if path.extension().is_none_or(|e| e != "crt") {
            continue;
        }
        let pem = std::fs::read(&path).map_err(|e| failed(&path, e.to_string()))?;
        let before = certificates.len();
        for item in parse_pem(&pem) {
            match item {
                Ok(PemItem::Certificate(certificate)) => certificates.push(certificate),
                Ok(_) => {}
                Err(e) => return Err(failed(&path, format!("it cannot be read as PEM: {e}"))),
            }
        }
        if certificates.len() == before {
            return Err(failed(
                &path,
                "there is no PEM certificate in it".to_owned(),
            ));
        }
    }
    Ok(certificates)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_of_certificates_has_to_hold_some() {
        let dir = tempfile::tempdir().unwrap();
        let missing = dir.path().join("missing");
        assert!(of_directory(&missing, false).unwrap().is_empty());
        assert!(of_directory(&missing, true).is_err());
        std::fs::write(dir.path().join("notes.txt"), "no certificate").unwrap();
        assert!(of_directory(dir.path(), true).unwrap().is_empty());
        std::fs::write(dir.path().join("ca.crt"), "no certificate").unwrap();
        let error = of_directory(dir.path(), false).unwrap_err().to_string();
        assert!(error.contains("ca.crt") && error.contains("PEM"), "{error}");
    }
}
