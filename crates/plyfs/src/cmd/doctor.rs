//! `plyfs doctor`: what this machine and these directories can do, tried and not guessed.
use std::fs;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, bail};
use plyfs_layer::{Abilities, Caps, LayerRoot, Upper};
use plyfs_mount::control::in_force::{InForce, Why};
use plyfs_mount::list;
use plyfs_sys::{mount, process};
use serde::Serialize;

use crate::{exit, output};

/// `plyfs doctor`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Each directory is tried as the place of an upper: in a temporary directory \
    in it, which is\nremoved again, a small stack is mounted, written and unmounted. One that \
    cannot be written is\ntried as a lower layer. Exit status 1 when a mount fails."
)]
pub(crate) struct Args {
    /// Directories that are to hold layers; without any the directory for temporary files
    pub dirs: Vec<PathBuf>,
    /// Print a JSON object
    #[arg(long)]
    pub json: bool,
}

#[derive(Serialize)]
struct Report {
    machine: Machine,
    directories: Vec<Directory>,
    ok: bool,
}

#[derive(Serialize)]
struct Machine {
    plyfs: &'static str,
    kernel: String,
    /// Why /dev/fuse cannot be opened; null when it can.
    dev_fuse_error: Option<String>,
    user: u32,
    cap_sys_admin: bool,
    initial_user_namespace: bool,
    user_namespaces: Option<u64>,
    fusermount3: Option<String>,
    max_pages_limit: Option<u64>,
    kernel_overlayfs: bool,
}

#[derive(Serialize)]
struct Directory {
    path: String,
    filesystem: String,
    writable: bool,
    abilities: Option<AbilityList>,
    /// What a mount over it has chosen, and why.
    chosen: Vec<InForce>,
    /// Whether files there are passed through with `data=passthrough`: "yes", or why not. Null
    /// where the trial mount failed.
    passthrough: Option<String>,
    /// Why the trial mount failed; null when it did not.
    error: Option<String>,
}

#[derive(Serialize)]
struct AbilityList(Vec<(&'static str, bool)>);

/// Looks, tries and prints.
pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let dirs = match args.dirs.as_slice() {
        [] => vec![std::env::temp_dir()],
        given => given.to_vec(),
    };
    let directories: Vec<Directory> = dirs.iter().map(|d| examine(d)).collect();
    let report = Report {
        machine: machine(),
        ok: directories.iter().all(|d| d.error.is_none()),
        directories,
    };
    if args.json {
        output::line(serde_json::to_string_pretty(&report)?)?;
    } else {
        output::raw(for_people(&report))?;
    }
    Ok(if report.ok {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(exit::FAILED)
    })
}

fn number_in(path: &str) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

fn machine() -> Machine {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let filesystems = fs::read_to_string("/proc/filesystems").unwrap_or_default();
    Machine {
        plyfs: env!("CARGO_PKG_VERSION"),
        kernel: release.trim().to_owned(),
        dev_fuse_error: mount::open_dev_fuse().err().map(|e| e.to_string()),
        user: process::euid(),
        cap_sys_admin: process::has_sys_admin(),
        initial_user_namespace: process::in_initial_user_ns(),
        user_namespaces: number_in("/proc/sys/user/max_user_namespaces"),
        fusermount3: mount::helper().map(|p| p.display().to_string()),
        max_pages_limit: number_in("/proc/sys/fs/fuse/max_pages_limit"),
        kernel_overlayfs: filesystems.lines().any(|l| l.ends_with("\toverlay")),
    }
}

fn examine(dir: &Path) -> Directory {
    let mut found = Directory {
        path: output::escaped_path(dir),
        filesystem: filesystem_of(dir),
        writable: false,
        abilities: None,
        chosen: Vec::new(),
        passthrough: None,
        error: None,
    };
    if let Err(e) = try_out(dir, &mut found) {
        found.error = Some(format!("{e:#}"));
    }
    found
}

/// The type of the file system that is mounted nearest above the directory.
fn filesystem_of(dir: &Path) -> String {
    let full = fs::canonicalize(dir).unwrap_or_else(|_| dir.to_owned());
    let mounts = mount::mounts().unwrap_or_default();
    let above = mounts.into_iter().filter(|m| full.starts_with(&m.target));
    // Of several on one path the last one is seen.
    let nearest = above.max_by_key(|m| m.target.as_os_str().len());
    nearest.map_or_else(|| "unknown".to_owned(), |m| m.fstype)
}

fn try_out(dir: &Path, found: &mut Directory) -> anyhow::Result<()> {
    let scratch = tempfile::Builder::new()
        .prefix(".plyfs-doctor-")
        .tempdir_in(dir);
    match scratch {
        Ok(scratch) => {
            found.writable = true;
            let made = try_upper(scratch.path(), found);
            scratch
                .close()
                .context("removing the temporary directory")?;
            made
        }
        // Only read: a lower layer.
        Err(_) => {
            let scratch = tempfile::tempdir().context("a place to mount on")?;
            let mountpoint = scratch.path().join("merged");
            fs::create_dir(&mountpoint)?;
            let words = [("--lower", dir), ("-o", Path::new("data=passthrough"))];
            trial(&words[..1], &mountpoint, |at| use_it(at, found))?;
            found.passthrough = Some(match trial(&words, &mountpoint, |_| Ok(())) {
                Ok(()) => "mounts; with no file to be made it is not tried further".to_owned(),
                Err(e) => format!("no: {e:#}"),
            });
            Ok(scratch.close()?)
        }
    }
}

fn try_upper(scratch: &Path, found: &mut Directory) -> anyhow::Result<()> {
    let at = |name: &str| scratch.join(name);
    for name in ["lower", "upper", "work", "probe", "merged"] {
        fs::create_dir(at(name))?;
    }
    fs::write(at("lower").join("file"), "lower")?;
    fs::write(at("lower").join("other"), "lower")?;
    let probe = LayerRoot::open(&at("probe"))?;
    // The same code as mounting uses.
    let caps = Upper::open(probe.as_fd(), None)
        .context("what the file system can do")?
        .caps;
    let abilities = Abilities::try_in(probe.as_fd()).context("what the file system can do")?;
    found.abilities = Some(ability_list(caps, abilities));
    let (lower, upper, work) = (at("lower"), at("upper"), at("work"));
    let words = [
        ("--lower", &*lower),
        ("--upper", &*upper),
        ("--work", &*work),
    ];
    trial(&words, &at("merged"), |at| use_it(at, found))?;
    let passed = [&words[..], &[("-o", Path::new("data=passthrough"))]].concat();
    let tried = trial(&passed, &at("merged"), passes_through);
    found.passthrough = Some(tried.map_or_else(|e| format!("no: {e:#}"), |()| "yes".to_owned()));
    Ok(())
}

/// Whether the kernel takes a file of each layer.
fn passes_through(mountpoint: &Path) -> anyhow::Result<()> {
    let lower = fs::File::open(mountpoint.join("other"))?;
    let upper = fs::File::create(mountpoint.join("passed"))?;
    let all = list::ours()?;
    let own = all.iter().find(|m| m.entry.target == mountpoint);
    let status = own.context("the mount does not show")?.ask()?;
    if status.opens.is_none_or(|o| o.passed < 2) {
        bail!("the kernel takes no files of this file system");
    }
    drop((lower, upper));
    Ok(())
}

fn ability_list(caps: Caps, a: Abilities) -> AbilityList {
    AbilityList(vec![
        ("trusted xattrs", a.trusted),
        ("user xattrs", a.user),
        ("security xattrs", a.security),
        ("ACLs", a.acl),
        ("whiteouts (mknod 0:0)", caps.whiteout),
        ("RENAME_EXCHANGE", caps.exchange),
        ("RENAME_WHITEOUT", caps.rename_whiteout),
        ("O_TMPFILE", a.tmpfile),
        ("reflink", a.reflink),
        ("file handles", a.handles),
        ("d_type", a.d_type),
    ])
}

/// Mounts, uses and unmounts a stack, by the command that an operator would use.
fn trial(
    words: &[(&str, &Path)],
    mountpoint: &Path,
    using: impl FnOnce(&Path) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let own = std::env::current_exe().context("finding the program itself")?;
    let mut mount = Command::new(&own);
    mount.arg("mount");
    words.iter().for_each(|(word, dir)| {
        mount.arg(word).arg(dir);
    });
    let out = mount
        .arg(mountpoint)
        .output()
        .context("running plyfs mount")?;
    if !out.status.success() {
        let said = String::from_utf8_lossy(&out.stderr);
        bail!("{}", said.trim().trim_start_matches("plyfs: "));
    }
    let used = using(mountpoint);
    let out = Command::new(&own).arg("umount").arg(mountpoint).output()?;
    if !out.status.success() {
        let said = String::from_utf8_lossy(&out.stderr);
        bail!("after the trial: {}", said.trim());
    }
    used
}

fn use_it(mountpoint: &Path, found: &mut Directory) -> anyhow::Result<()> {
    fs::read_dir(mountpoint).context("listing the trial mount")?;
    if found.writable {
        fs::write(mountpoint.join("file"), "upper").context("changing a lower file")?;
        fs::remove_file(mountpoint.join("file")).context("deleting a lower file")?;
    }
    let all = list::ours()?;
    let own = all.iter().find(|m| m.entry.target == mountpoint);
    if let Some(Ok(status)) = own.map(list::Found::ask) {
        found.chosen = status.options;
    }
    Ok(())
}

fn for_people(report: &Report) -> String {
    let yes = |value: bool| if value { "yes" } else { "no" };
    let m = &report.machine;
    let number = |n: Option<u64>| n.map_or_else(|| "not told".to_owned(), |n| n.to_string());
    let rows = [
        ("plyfs", m.plyfs.to_owned()),
        ("kernel", m.kernel.clone()),
        (
            "/dev/fuse",
            m.dev_fuse_error
                .clone()
                .unwrap_or_else(|| "can be opened".to_owned()),
        ),
        ("user", m.user.to_string()),
        ("CAP_SYS_ADMIN", yes(m.cap_sys_admin).to_owned()),
        (
            "initial user namespace",
            yes(m.initial_user_namespace).to_owned(),
        ),
        ("user namespaces allowed", number(m.user_namespaces)),
        (
            "fusermount3",
            m.fusermount3
                .clone()
                .unwrap_or_else(|| "not found".to_owned()),
        ),
        ("fs.fuse.max_pages_limit", number(m.max_pages_limit)),
        ("kernel overlayfs", yes(m.kernel_overlayfs).to_owned()),
    ];
    let rows: Vec<Vec<String>> = rows
        .into_iter()
        .map(|(a, b)| vec![a.to_owned(), b])
        .collect();
    let mut out = output::aligned(&rows);
    for dir in &report.directories {
        out.push_str(&directory_for_people(dir));
    }
    out
}

fn directory_for_people(dir: &Directory) -> String {
    let access = if dir.writable {
        "writable"
    } else {
        "read-only: tried as a lower"
    };
    let mut out = format!("\n{} ({}, {access})\n", dir.path, dir.filesystem);
    let mut rows = Vec::new();
    for (name, value) in dir.abilities.iter().flat_map(|a| &a.0) {
        let value = if *value { "yes" } else { "no" };
        rows.push(vec![format!("  {name}"), value.to_owned()]);
    }
    for o in dir.chosen.iter().filter(|o| o.why == Why::Probed) {
        let note = o
            .note
            .as_ref()
            .map(|n| format!(" ({n})"))
            .unwrap_or_default();
        rows.push(vec![
            format!("  plyfs chooses {}", o.name),
            format!("{}{note}", o.value),
        ]);
    }
    if let Some(passthrough) = &dir.passthrough {
        let name = "  data=passthrough".to_owned();
        rows.push(vec![name, passthrough.clone()]);
    }
    let verdict = dir
        .error
        .as_ref()
        .map_or_else(|| "works".to_owned(), |e| format!("FAILS: {e}"));
    rows.push(vec!["  trial mount".to_owned(), verdict]);
    out.push_str(&output::aligned(&rows));
    out
}
