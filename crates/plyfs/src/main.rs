//! What did the operator type? The binary: subcommands, exit codes, output.
#![forbid(unsafe_code)]
// Comments on arguments are the texts of `--help`, where `[:TAG]` is no link.
#![allow(rustdoc::broken_intra_doc_links)]

mod args;
mod cmd;
mod diff;
mod exit;
mod logging;
mod options_text;
mod output;
mod progress;
mod report;

use std::ffi::{OsStr, OsString};
use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches};
use plyfs_mount::compat::CalledAs;

use crate::args::Cli;

#[global_allocator]
static ALLOCATOR: plyfs_sys::alloc::Allocator = plyfs_sys::alloc::Allocator;

fn main() -> ExitCode {
    let words: Vec<OsString> = std::env::args_os().collect();
    let program = words.first().cloned().unwrap_or_else(|| "plyfs".into());
    let called = CalledAs::from_program(&program);
    let rest = words.get(1..).unwrap_or_default();
    if is_mount_program_call(called, rest) {
        return cmd::compat::run(rest.to_vec(), called);
    }
    let parsed = options_text::with_option_list(Cli::command())
        .try_get_matches_from(words)
        .and_then(|matches| Cli::from_arg_matches(&matches));
    let cli = match parsed {
        Ok(cli) => cli,
        Err(e) => return exit::usage(&e),
    };
    logging::configure(cli.log);
    exit::code(cli.command.run(cli.root.as_deref()))
}

/// Whether the words follow the grammar of mount programs: called by such a name, or `-o` without
/// a subcommand before it.
fn is_mount_program_call(called: CalledAs, words: &[OsString]) -> bool {
    let is_subcommand = |word: &OsString| {
        let names = Cli::command();
        word == "help" || names.find_subcommand(word).is_some()
    };
    if called != CalledAs::Plyfs {
        return true;
    }
    let has_options = |word: &&OsString| {
        let bytes = OsStr::as_encoded_bytes(word);
        bytes.starts_with(b"-o")
    };
    !behind_global_options(words)
        .first()
        .is_some_and(is_subcommand)
        && words.iter().any(|w| has_options(&w))
}

/// The words without the options that may stand before a subcommand.
fn behind_global_options(mut words: &[OsString]) -> &[OsString] {
    const GLOBAL: [&str; 3] = ["--log", "--log-file", "--root"];
    let is_whole = |word: &OsString| GLOBAL.iter().any(|g| word == g);
    let has_value = |word: &OsString| {
        let bytes = word.as_encoded_bytes();
        let rest = |g: &str| {
            bytes
                .strip_prefix(g.as_bytes())
                .map(|r| r.starts_with(b"="))
        };
        GLOBAL.iter().any(|g| rest(g) == Some(true))
    };
    loop {
        words = match words {
            [name, _, rest @ ..] if is_whole(name) => rest,
            [both, rest @ ..] if has_value(both) => rest,
            _ => return words,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_grammar_is_told_from_the_words() {
        for (words, want) in [
            (&["-o", "lowerdir=/a", "/m"][..], true),
            (&["overlay", "/m", "-olowerdir=/a"], true),
            (&["-f", "-o", "ro", "/m"], true),
            (&["mount", "-o", "ro", "/m"], false),
            (
                &["--log", "info", "--log-file=f", "mount", "-o", "ro"],
                false,
            ),
            (&["--root", "/r", "mount", "-o", "ro", "x", "/m"], false),
            (&["--log", "info", "-o", "ro", "/m"], true),
            (&["help", "-o"], false),
            (&["-V"], false),
            (&["--help"], false),
            (&[], false),
        ] {
            let words: Vec<OsString> = words.iter().map(OsString::from).collect();
            assert_eq!(
                is_mount_program_call(CalledAs::Plyfs, &words),
                want,
                "{words:?}"
            );
            assert!(is_mount_program_call(CalledAs::FuseOverlayfs, &words));
        }
    }

    #[test]
    fn the_command_line_is_consistent() {
        options_text::with_option_list(Cli::command()).debug_assert();
    }
}
