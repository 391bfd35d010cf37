//! Any program with the mount-program grammar: plyfs, fuse-overlayfs, a build of yesterday.
use std::path::Path;
use std::process::Command;

use anyhow::{Result, bail};

use super::{Mounted, Subject};
use crate::daemon::Daemon;
use crate::site::Stack;

/// A mount program, called as `COMMAND -f -o lowerdir=…,upperdir=…,workdir=… MOUNTPOINT`.
#[derive(Debug, Clone)]
pub struct Program {
    name: String,
    command: Vec<String>,
}

impl Program {
    /// A subject `name` that runs `command`; its words are separated by spaces.
    ///
    /// # Errors
    /// When the command is empty.
    pub fn new(name: &str, command: &str) -> Result<Self> {
        let words: Vec<_> = command.split_whitespace().map(str::to_owned).collect();
        if name.is_empty() || words.is_empty() {
            bail!("a contender is NAME=COMMAND, not {name:?}={command:?}");
        }
        Ok(Self {
            name: name.to_owned(),
            command: words,
        })
    }

    /// A subject from `NAME=COMMAND`.
    ///
    /// # Errors
    /// When there is no name or no command.
    pub fn parse(text: &str) -> Result<Self> {
        let Some((name, command)) = text.split_once('=') else {
            bail!("a contender is NAME=COMMAND, not {text:?}");
        };
        Self::new(name, command)
    }

    fn options(stack: &Stack) -> String {
        let lowers: Vec<_> = stack
            .lowers
            .iter()
            .map(|path| path.to_string_lossy())
            .collect();
        let (upper, work) = (stack.upper.display(), stack.work.display());
        format!(
            "lowerdir={},upperdir={upper},workdir={work}",
            lowers.join(":")
        )
    }
}

impl Subject for Program {
    fn name(&self) -> &str {
        &self.name
    }

    fn version(&self) -> String {
        let said = Command::new(&self.command[0]).arg("--version").output();
        let said = said.map(|out| String::from_utf8_lossy(&out.stdout).into_owned());
        let first = said
            .unwrap_or_default()
            .lines()
            .next()
            .unwrap_or_default()
            .to_owned();
        format!("{first} ({})", self.command.join(" "))
    }

    fn mount(&self, stack: &Stack) -> Result<Mounted> {
        let mut command = self.command.clone();
        command.extend(["-f".to_owned(), "-o".to_owned(), Self::options(stack)]);
        command.push(stack.mountpoint.display().to_string());
        let log = stack
            .mountpoint
            .parent()
            .unwrap_or(Path::new("/tmp"))
            .join("daemon.log");
        let daemon = Daemon::start(&command, &stack.mountpoint, log)?;
        Ok(Mounted::served(stack.mountpoint.clone(), daemon))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_contender_is_a_name_and_a_command() {
        let program = Program::parse("old=/opt/plyfs -o volatile").unwrap();
        assert_eq!(program.name, "old");
        assert_eq!(program.command, ["/opt/plyfs", "-o", "volatile"]);
        for bad in ["old", "=x", "old=", "old= "] {
            assert!(Program::parse(bad).is_err(), "{bad:?}");
        }
    }
}
