//! `plyfs man` and `plyfs completions`: written from the command line and the table of options.
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::CommandFactory;
use clap_complete::Shell;
use clap_mangen::roff::{Roff, bold, italic, roman};
use plyfs_mount::options::{Meaning, OPTIONS, OptionDef, Takes};

use crate::args::Cli;
use crate::options_text;

/// When what the pages say last changed; the same sources make the same pages.
const DATE: &str = "2026-11-29";

/// `plyfs man`.
#[derive(Debug, clap::Args)]
pub(crate) struct ManArgs {
    /// Directory to write plyfs.1, a page a subcommand and mount.plyfs.8 into
    pub dir: PathBuf,
}

/// `plyfs completions`.
#[derive(Debug, clap::Args)]
pub(crate) struct CompletionArgs {
    /// The shell
    pub shell: Shell,
}

/// Prints the completions of a shell.
pub(crate) fn completions(args: &CompletionArgs) -> anyhow::Result<()> {
    let mut text = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "plyfs", &mut text);
    let mut out = std::io::stdout().lock();
    out.write_all(&text)?;
    Ok(out.flush()?)
}

/// Writes all pages.
pub(crate) fn run(args: &ManArgs) -> anyhow::Result<()> {
    fs::create_dir_all(&args.dir).with_context(|| format!("making {:?}", args.dir))?;
    let mut command = options_text::with_option_list(Cli::command()).disable_help_subcommand(true);
    command.build();
    pages(&command, &args.dir)?;
    write(&args.dir.join("mount.plyfs.8"), &mount_page())
}

/// The page of a command and those of its subcommands: `plyfs-mount.1` and so on.
fn pages(command: &clap::Command, dir: &Path) -> anyhow::Result<()> {
    // A built command knows its name with those of its parents before it.
    let name = command.get_display_name().unwrap_or(command.get_name());
    let page = clap_mangen::Man::new(command.clone())
        .manual("plyfs")
        .date(DATE)
        .source(concat!("plyfs ", env!("CARGO_PKG_VERSION")));
    let mut text = Vec::new();
    page.render(&mut text)?;
    write(&dir.join(format!("{name}.1")), &text)?;
    command
        .get_subcommands()
        .filter(|sub| !sub.is_hide_set())
        .try_for_each(|sub| pages(sub, dir))
}

fn write(path: &Path, text: &[u8]) -> anyhow::Result<()> {
    fs::write(path, text).with_context(|| format!("writing {path:?}"))
}

/// mount.plyfs(8), which clap knows nothing of.
fn mount_page() -> Vec<u8> {
    let mut page = Roff::new();
    let source = concat!("plyfs ", env!("CARGO_PKG_VERSION"));
    page.control("TH", ["mount.plyfs", "8", DATE, source, "plyfs"]);
    page.control("SH", ["NAME"]);
    page.text([roman(
        "mount.plyfs - mount a stack of layers by mount(8) or as a mount program",
    )]);
    page.control("SH", ["SYNOPSIS"]);
    for line in [
        "mount -t fuse.plyfs -o lowerdir=A:B,upperdir=U,workdir=W plyfs MOUNTPOINT",
        "mount.plyfs [-f] [-d] -o OPTION[,OPTION...] [SOURCE] MOUNTPOINT",
    ] {
        page.control("PP", []);
        page.text([bold(line)]);
    }
    page.control("SH", ["DESCRIPTION"]);
    page.text([roman(
        "The same program as plyfs(1), by the name under which mount(8) and container tools call \
         it. It returns once the mount answers; the daemon ends with the mount. An option that is \
         not known is a warning.",
    )]);
    page.control("SH", ["OPTIONS"]);
    OPTIONS.iter().for_each(|def| option(&mut page, def));
    page.control("SH", ["FSTAB"]);
    page.text([roman(
        "plyfs /merged fuse.plyfs lowerdir=/app:/base,upperdir=/changes,workdir=/scratch 0 0",
    )]);
    page.control("SH", ["EXIT STATUS"]);
    page.text([roman(
        "0 mounted, 1 called wrongly, 32 the mount failed, as mount(8) wants it.",
    )]);
    page.control("SH", ["SEE ALSO"]);
    page.text([bold("plyfs"), roman("(1), "), bold("mount"), roman("(8)")]);
    page.render().into_bytes()
}

fn option(page: &mut Roff, def: &OptionDef) {
    let mut name = vec![bold(def.name)];
    match def.takes {
        Takes::Nothing => {}
        Takes::Value => name.extend([roman("="), italic("VALUE")]),
        Takes::Either => name.extend([roman("[="), italic("VALUE"), roman("]")]),
    }
    page.control("TP", []);
    page.text(name);
    page.text([roman(explain(def.meaning))]);
}

fn explain(meaning: Meaning) -> String {
    if let Some(summary) = meaning.summary() {
        return format!("{summary}.");
    }
    match meaning {
        Meaning::NoEffect(why) => format!("Accepted without effect: {why}."),
        Meaning::GrantedIf(values, why) => {
            format!(
                "Accepted with {}; otherwise without effect: {why}.",
                values.join(", ")
            )
        }
        Meaning::Granted => "Accepted: it is always so, or speaks to other programs.".to_owned(),
        _ => "Flag of any mount, see mount(8).".to_owned(),
    }
}
