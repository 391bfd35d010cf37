//! Any program with the mount-program grammar: plyfs, fuse-overlayfs, a build of yesterday.
use std::path::Path;
use std::process::Command;

use anyhow::{Result, bail};

use super::{Mounted, Subject};
use crate::daemon::Daemon;
use crate::site::Stack;

/// How a mount program wants to be told the layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Grammar {
    /// As overlay file systems: `-o lowerdir=A:B,upperdir=U,workdir=W MOUNTPOINT`.
    #[default]
    Overlay,
    /// As unionfs-fuse: `-o cow U=RW:A=RO:B=RO MOUNTPOINT`.
    Unionfs,
    /// As mergerfs, which has no copy-up and only reads here: `A:B MOUNTPOINT`.
    Mergerfs,
}

/// A mount program, called as `COMMAND -f -o lowerdir=…,upperdir=…,workdir=… MOUNTPOINT`.
#[derive(Debug, Clone)]
pub struct Program {
    name: String,
    command: Vec<String>,
    grammar: Grammar,
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
            grammar: Grammar::Overlay,
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

    /// The same program, spoken to in another grammar.
    #[must_use]
    pub fn speaking(self, grammar: Grammar) -> Self {
        Self { grammar, ..self }
    }

    fn arguments(&self, stack: &Stack) -> Vec<String> {
        let branches = |mode: &str| {
            let branch = |path: &std::path::PathBuf| format!("{}{mode}", path.display());
            stack
                .lowers
                .iter()
                .map(branch)
                .collect::<Vec<_>>()
                .join(":")
        };
        match self.grammar {
            Grammar::Overlay => vec!["-o".to_owned(), Self::options(stack)],
            Grammar::Unionfs => {
                let upper = stack.upper.display();
                vec![
                    "-o".to_owned(),
                    "cow".to_owned(),
                    format!("{upper}=RW:{}", branches("=RO")),
                ]
            }
            Grammar::Mergerfs => vec![
                "-o".to_owned(),
                "category.search=ff".to_owned(),
                branches("=RO"),
            ],
        }
    }

    fn options(stack: &Stack) -> String {
        let lowers: Vec<_> = stack
            .lowers
            .iter()
            .map(|path| path.to_string_lossy())
            .collect();
        let (upper, work) = (stack.upper.display(), stack.work.display());
        let more = |(key, value): &(&str, &str)| format!(",{key}={value}");
        format!(
            "lowerdir={},upperdir={upper},workdir={work}{}",
            lowers.join(":"),
            stack.options.iter().map(more).collect::<String>()
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

    fn writes(&self) -> bool {
        self.grammar != Grammar::Mergerfs
    }

    fn mount(&self, stack: &Stack) -> Result<Mounted> {
        let mut command = self.command.clone();
        command.push("-f".to_owned());
        command.extend(self.arguments(stack));
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
