//! docker-registry on a loopback port of its own, with a directory that goes with it.
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::mount::wait_until;

/// How a registry is set up.
#[derive(Debug, Default, Clone)]
pub struct RegistrySetup {
    /// Lines of an htpasswd file (bcrypt), for Basic.
    pub htpasswd: Option<String>,
    /// Speaks TLS with these.
    pub tls: Option<TlsFiles>,
}

/// A certificate that signs itself, for 127.0.0.1 and localhost.
#[derive(Debug, Clone)]
pub struct TlsFiles {
    /// Holds `ca.crt`, as a directory of certificates for a client.
    pub dir: PathBuf,
    /// The certificate.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

impl TlsFiles {
    /// Makes them with openssl in `dir`, for a server or, as `openssl req -x509` does by itself,
    /// as those of a CA.
    #[must_use]
    pub fn make(dir: &Path, is_ca: bool) -> Self {
        let (certificate, key) = (dir.join("ca.crt"), dir.join("server.key"));
        let config = dir.join("openssl.cnf");
        let text = format!(
            "[req]\ndistinguished_name=name\nx509_extensions=v3\nprompt=no\n[name]\n\
             CN=plyfs test registry\n[v3]\nbasicConstraints=critical,CA:{is_ca}\n\
             subjectAltName=DNS:localhost,IP:127.0.0.1\n"
        );
        std::fs::write(&config, text).unwrap();
        let made = Command::new("openssl")
            .args(["req", "-x509", "-newkey", "ec", "-pkeyopt"])
            .args(["ec_paramgen_curve:P-256", "-nodes", "-days", "2", "-config"])
            .arg(&config)
            .arg("-keyout")
            .arg(&key)
            .arg("-out")
            .arg(&certificate)
            .output()
            .unwrap();
        assert!(
            made.status.success(),
            "{}",
            String::from_utf8_lossy(&made.stderr)
        );
        Self {
            dir: dir.to_owned(),
            certificate,
            key,
        }
    }
}

/// A running docker-registry, which ends with this value.
#[derive(Debug)]
pub struct RealRegistry {
    child: Child,
    port: u16,
    dir: tempfile::TempDir,
}

impl RealRegistry {
    /// Starts one, and waits until it answers.
    #[must_use]
    pub fn start(setup: &RegistrySetup) -> Self {
        // Another process may take the port between our look and the registry's start.
        for _ in 0..5 {
            if let Some(started) = Self::try_start(setup) {
                return started;
            }
        }
        panic!("docker-registry does not start: see its lines above");
    }

    fn try_start(setup: &RegistrySetup) -> Option<Self> {
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = free.local_addr().unwrap().port();
        drop(free);
        let dir = tempfile::tempdir().unwrap();
        let config = dir.path().join("config.yml");
        std::fs::write(&config, config_text(setup, port, dir.path())).unwrap();
        let child = Command::new("docker-registry")
            .arg("serve")
            .arg(&config)
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(dir.path().join("log")).unwrap())
            .spawn()
            .unwrap();
        let mut registry = Self { child, port, dir };
        let mut ended = false;
        wait_until("docker-registry answers", || {
            ended = registry.child.try_wait().unwrap().is_some();
            ended || TcpStream::connect(("127.0.0.1", port)).is_ok()
        });
        if ended {
            eprintln!("{}", registry.log());
            return None;
        }
        Some(registry)
    }

    /// `127.0.0.1:PORT`.
    #[must_use]
    pub fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// What it has logged.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    /// How many requests its log has whose line contains all of `parts`.
    #[must_use]
    pub fn count(&self, parts: &[&str]) -> usize {
        let log = self.log();
        let lines = log.lines().filter(|l| l.contains("response completed"));
        lines
            .filter(|l| parts.iter().all(|part| l.contains(part)))
            .count()
    }
}

impl Drop for RealRegistry {
    fn drop(&mut self) {
        // It may have ended by itself.
        if self.child.kill().is_ok() {
            self.child.wait().unwrap();
        }
    }
}

fn config_text(setup: &RegistrySetup, port: u16, dir: &Path) -> String {
    let data = dir.join("data");
    let mut text = format!(
        "version: 0.1\nlog:\n  level: info\n  accesslog:\n    disabled: true\nstorage:\n  \
         filesystem:\n    rootdirectory: {}\n  delete:\n    enabled: true\nhttp:\n  \
         addr: 127.0.0.1:{port}\n  secret: for-tests\n",
        data.display()
    );
    if let Some(tls) = &setup.tls {
        text.push_str(&format!(
            "  tls:\n    certificate: {}\n    key: {}\n",
            tls.certificate.display(),
            tls.key.display()
        ));
    }
    if let Some(lines) = &setup.htpasswd {
        let path = dir.join("htpasswd");
        std::fs::write(&path, lines).unwrap();
        text.push_str(&format!(
            "auth:\n  htpasswd:\n    realm: tests\n    path: {}\n",
            path.display()
        ));
    }
    text
}
