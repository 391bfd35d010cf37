//! Compares directory trees attribute for attribute, from the command line.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use plyfs_testkit::{Rules, Tree, diff_with, snapshot};

const USAGE: &str = "\
usage: treecmp save DIR FILE         take down DIR into FILE
       treecmp compare [RULE…] A B   compare two trees, each a directory or a saved FILE
rules: --exact               nothing at all may have happened: inodes and ctimes count
       --written-since SEC   mtimes that are both at or after SEC (Unix time) are equal
       --skip PATH           leave out PATH and what lies below it
       --skip-xattr NAME     leave out an xattr; a trailing * matches any rest
exit status: 0 equal, 1 different (one line a difference), 2 wrong use";

/// Lines that are printed before the rest is only counted.
const MOST_LINES: usize = 200;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match run(&args) {
        Ok(code) => code,
        Err(why) => {
            eprintln!("treecmp: {why}\n{USAGE}");
            ExitCode::from(2)
        }
    }
}

fn run(args: &[String]) -> Result<ExitCode, String> {
    match args.split_first() {
        Some((verb, rest)) if verb == "save" => save(rest),
        Some((verb, rest)) if verb == "compare" => compare(rest),
        _ => Err("say save or compare".into()),
    }
}

fn save(args: &[String]) -> Result<ExitCode, String> {
    let [dir, file] = args else {
        return Err("save takes DIR and FILE".into());
    };
    let tree = load(Path::new(dir))?;
    tree.save(Path::new(file))
        .map_err(|e| format!("{file}: {e}"))?;
    Ok(ExitCode::SUCCESS)
}

fn compare(args: &[String]) -> Result<ExitCode, String> {
    let mut rules = Rules::default();
    let mut trees: Vec<PathBuf> = Vec::new();
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        let mut value = || args.next().ok_or_else(|| format!("{arg} needs a value"));
        match arg.as_str() {
            "--exact" => {
                rules = Rules {
                    skip: rules.skip,
                    ..Rules::exact()
                }
            }
            "--written-since" => {
                let seconds: i128 = value()?.parse().map_err(|e| format!("{arg}: {e}"))?;
                rules.written_since = Some(seconds * 1_000_000_000);
            }
            "--skip" => rules.skip.push(value()?.clone()),
            "--skip-xattr" => rules.skip_xattrs.push(value()?.clone()),
            _ if arg.starts_with('-') => return Err(format!("unknown rule {arg}")),
            _ => trees.push(arg.into()),
        }
    }
    let [a, b] = trees.as_slice() else {
        return Err("compare takes two trees".into());
    };
    let (first, second) = (load(a)?, load(b)?);
    let lines = diff_with(&first, &second, &rules);
    for line in lines.iter().take(MOST_LINES) {
        println!("{line}");
    }
    if lines.is_empty() {
        println!("equal: {} paths", first.nodes.len());
        return Ok(ExitCode::SUCCESS);
    }
    println!(
        "{} differences between {} and {}",
        lines.len(),
        a.display(),
        b.display()
    );
    Ok(ExitCode::FAILURE)
}

fn load(path: &Path) -> Result<Tree, String> {
    let meta = std::fs::metadata(path).map_err(|e| format!("{}: {e}", path.display()))?;
    if meta.is_dir() {
        return Ok(snapshot(path));
    }
    Tree::load(path).map_err(|e| format!("{}: {e}", path.display()))
}
