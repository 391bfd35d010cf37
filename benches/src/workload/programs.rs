//! Programs that run in the merged view or build something in it.
use std::fs;
use std::process::Command;

use anyhow::{Context, Result};

use super::Done;
use crate::fixture::{PYTHON_HOME, finds_python};
use crate::ground;
use crate::site::Site;

/// Modules that come with a few hundred files.
const IMPORTS: &str =
    "import asyncio, email.message, http.client, json, sqlite3, unittest, xml.dom";
/// Source files of the project that is built.
const SOURCES: usize = 40;

/// Whether a program of this name starts.
pub(super) fn is_here(program: &str) -> bool {
    Command::new(program)
        .arg("--version")
        .output()
        .is_ok_and(|out| out.status.success())
}

/// Whether there is a Python whose library a layer can hold.
pub(super) fn has_python() -> bool {
    finds_python()
}

/// One program that runs once.
pub(super) fn once(_: &Site) -> Done {
    Done::units(1)
}

/// Starts Python with its library in the merged view.
pub(super) fn python(site: &Site) -> Result<Done> {
    let home = site.path(PYTHON_HOME);
    let check = "assert asyncio.__file__.startswith(sys.prefix), asyncio.__file__";
    let mut python = Command::new("/usr/bin/python3");
    python
        .args(["-s", "-c", &format!("import sys; {IMPORTS}; {check}")])
        .env_clear()
        .env("PYTHONHOME", &home)
        .env("PYTHONDONTWRITEBYTECODE", "1");
    run(&mut python)
}

/// `chroot DIR /bin/true`.
pub(super) fn chroot_true(site: &Site) -> Result<Done> {
    run(Command::new("chroot").arg(&site.root).arg("/bin/true"))
}

/// Nothing: the mount is the work.
pub(super) fn nothing(site: &Site) -> Result<Done> {
    fs::symlink_metadata(&site.root).context("stat of the root")?;
    Ok(Done::units(1))
}

/// Writes a project with a header, so many sources and a makefile.
pub(super) fn build_prepare(site: &Site) -> Result<()> {
    fs::write(site.path("all.h"), "int part(int number);\n")?;
    let mut objects = String::from("main.o");
    let mut sum = String::from("0");
    for number in 0..SOURCES {
        let text = format!(
            "#include <stdio.h>\n#include <stdlib.h>\n#include <string.h>\n#include \"all.h\"\n\
             int part{number}(int n) {{ char text[64]; snprintf(text, sizeof text, \"%d\", n);\n\
             return (int)strlen(text) + abs(n) + {number}; }}\n"
        );
        fs::write(site.path(format!("part{number}.c")), text)?;
        objects.push_str(&format!(" part{number}.o"));
        sum.push_str(&format!(" + part{number}(argc)"));
    }
    let declared: String = (0..SOURCES)
        .map(|number| format!("int part{number}(int n);\n"))
        .collect();
    let main = format!("{declared}int main(int argc, char **argv) {{ return ({sum}) < 0; }}\n");
    fs::write(site.path("main.c"), main)?;
    let make = format!("program: {objects}\n\tcc -o $@ $^\n%.o: %.c all.h\n\tcc -O1 -c -o $@ $<\n");
    fs::write(site.path("Makefile"), make).context("write the makefile")
}

/// `make -j2`.
pub(super) fn build(site: &Site) -> Result<Done> {
    run(Command::new("make")
        .args(["-s", "-j2", "-C"])
        .arg(&site.root))
}

/// What was built runs.
pub(super) fn build_check(site: &Site) -> Result<()> {
    run(&mut Command::new(site.path("program"))).map(drop)
}

/// Runs a program that has to end well.
pub(super) fn run(command: &mut Command) -> Result<Done> {
    ground::command(command)?;
    Ok(Done::units(1))
}
