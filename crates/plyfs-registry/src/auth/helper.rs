//! Programs that keep credentials: `docker-credential-NAME get`.
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use serde::Deserialize;

use super::Credentials;
use crate::error::{RegistryError, Result};

/// What every helper says when it has nothing; it is part of their protocol.
const NOTHING: &str = "credentials not found in native keychain";

#[derive(Deserialize)]
struct Given {
    #[serde(rename = "Username", default)]
    user: String,
    #[serde(rename = "Secret", default)]
    secret: String,
}

/// Asks the helper that `file` names; `None` when it has no credentials for the server.
pub(super) fn ask(name: &str, server: &str, file: &Path) -> Result<Option<Credentials>> {
    let program = format!("docker-credential-{name}");
    let failed = |reason: String| RegistryError::CredentialHelper {
        program: program.clone(),
        path: file.to_owned(),
        server: server.to_owned(),
        reason,
    };
    // A name with a slash would run a program from anywhere the file likes.
    if name.contains('/') {
        return Err(failed("a helper's name must not have a slash".to_owned()));
    }
    run(&program, server)
        .map_err(|e| match e.kind() {
            std::io::ErrorKind::NotFound => failed(
                "it is not installed: install it, or take its name out of the file".to_owned(),
            ),
            _ => failed(e.to_string()),
        })
        .and_then(|output| parse(output).map_err(failed))
}

fn run(program: &str, server: &str) -> std::io::Result<std::process::Output> {
    let mut child = Command::new(program)
        .arg("get")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let told = match child.stdin.take() {
        Some(mut input) => input.write_all(server.as_bytes()),
        None => Ok(()),
    };
    let output = child.wait_with_output()?;
    match told {
        // A helper that does not read has answered all the same.
        Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => Err(e),
        _ => Ok(output),
    }
}

fn parse(output: std::process::Output) -> std::result::Result<Option<Credentials>, String> {
    let said = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() {
        // Helpers report on stdout.
        let words = format!(
            "{} {}",
            said.trim(),
            String::from_utf8_lossy(&output.stderr).trim()
        );
        if words.contains(NOTHING) {
            return Ok(None);
        }
        return Err(format!("{}: {}", output.status, words.trim()));
    }
    let given: Given =
        serde_json::from_slice(&output.stdout).map_err(|_| "its answer is no JSON".to_owned())?;
    if given.secret.is_empty() && given.user.is_empty() {
        return Ok(None);
    }
    Ok(Some(match given.user.as_str() {
        "<token>" => Credentials::Identity(given.secret),
        _ => Credentials::Password {
            user: given.user,
            password: given.secret,
        },
    }))
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;
    use std::process::{ExitStatus, Output};

    use super::*;

    fn said(status: i32, stdout: &str) -> std::result::Result<Option<Credentials>, String> {
        parse(Output {
            status: ExitStatus::from_raw(status << 8),
            stdout: stdout.into(),
            stderr: b"on stderr".to_vec(),
        })
    }

    #[test]
    fn answers_of_helpers() {
        let password = Credentials::Password {
            user: "u".to_owned(),
            password: "s".to_owned(),
        };
        let login = r#"{"ServerURL":"h","Username":"u","Secret":"s"}"#;
        assert_eq!(said(0, login), Ok(Some(password)));
        let token = r#"{"Username":"<token>","Secret":"s"}"#;
        assert_eq!(
            said(0, token),
            Ok(Some(Credentials::Identity("s".to_owned())))
        );
        assert_eq!(said(0, "{}"), Ok(None));
        assert_eq!(said(1, NOTHING), Ok(None));
        assert!(said(1, "locked").unwrap_err().contains("locked on stderr"));
        assert!(said(0, "not json").unwrap_err().contains("JSON"));
    }

    #[test]
    fn helpers_that_cannot_be_run_are_named() {
        let file = Path::new("/f/config.json");
        for (name, reason) in [("is-not-installed", "not installed"), ("../../x", "slash")] {
            let error = ask(name, "h", file).unwrap_err().to_string();
            assert!(error.contains(name) && error.contains(reason), "{error}");
            assert!(error.contains("config.json"), "{error}");
        }
    }
}
