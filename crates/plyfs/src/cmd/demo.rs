//! `plyfs demo`: a small stack of real files, mounted, changed and taken down again.
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use plyfs_mount::error::UnmountError;
use plyfs_mount::unmount;
use plyfs_sys::mount::Unmount;
use plyfs_sys::process::{self, StopSignals};
use tempfile::TempDir;

use crate::diff::changes;
use crate::output::{escaped, line};

/// `plyfs demo`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Make the temporary directory in this directory
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
}

/// Files every system has some of; those that are missing are left out.
const BASE_FILES: [&str; 8] = [
    "/etc/os-release",
    "/etc/passwd",
    "/etc/group",
    "/etc/hosts",
    "/etc/profile",
    "/etc/services",
    "/etc/shells",
    "/etc/nsswitch.conf",
];
/// What this machine is, as a second layer.
const MACHINE_FILES: [&str; 3] = ["/proc/version", "/proc/cpuinfo", "/proc/filesystems"];
/// Exit status after Ctrl-C, as shells have it.
const EXIT_INTERRUPTED: i32 = 130;
/// How long cleaning up after Ctrl-C may take.
const CLEANING_PATIENCE: Duration = Duration::from_secs(10);
/// Set once a signal has come.
static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Runs the demonstration and leaves nothing behind, whatever happens.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    ensure!(
        process::euid() == 0 && process::has_sys_admin(),
        "the demo mounts a file system, for which it needs root or a user namespace of its own: \
         try `sudo plyfs demo` or `unshare -Urm plyfs demo`"
    );
    // Blocked first, so that Ctrl-C cannot end the process between making and cleaning up.
    let stop = StopSignals::block()?;
    let stage = Stage::new(args.dir.as_deref())?;
    stage.clean_up_on(stop)?;
    let shown = show(&stage);
    while INTERRUPTED.load(Ordering::Acquire) {
        // Whatever failed, failed because the other thread is cleaning up; it ends the process.
        std::thread::park();
    }
    let cleaned = stage.close();
    shown.and(cleaned)?;
    line("Done: the mount and the temporary directory are gone.")
}

/// The temporary directory and what is in it.
struct Stage {
    dir: TempDir,
    base: PathBuf,
    machine: PathBuf,
    upper: PathBuf,
    work: PathBuf,
    merged: PathBuf,
}

impl Stage {
    fn new(parent: Option<&Path>) -> anyhow::Result<Self> {
        let parent = parent.map_or_else(std::env::temp_dir, Path::to_path_buf);
        let dir = tempfile::Builder::new()
            .prefix("plyfs-demo-")
            .tempdir_in(&parent)
            .with_context(|| format!("making a temporary directory in {parent:?}"))?;
        let sub = |name: &str| {
            let path = dir.path().join(name);
            fs::create_dir(&path).map(|()| path)
        };
        Ok(Self {
            base: sub("base")?,
            machine: sub("machine")?,
            upper: sub("upper")?,
            work: sub("work")?,
            merged: sub("merged")?,
            dir,
        })
    }

    /// Ctrl-C ends the demo from a thread of its own: the main one may wait for the mount.
    fn clean_up_on(&self, stop: StopSignals) -> anyhow::Result<()> {
        let (merged, dir) = (self.merged.clone(), self.dir.path().to_path_buf());
        std::thread::Builder::new()
            .name("signals".into())
            .spawn(move || {
                if stop.wait().is_err() {
                    return;
                }
                INTERRUPTED.store(true, Ordering::Release);
                let until = Instant::now() + CLEANING_PATIENCE;
                // The main thread may just be adding a file or starting the mount.
                while dir.exists() && Instant::now() < until {
                    take_away(&merged);
                    if fs::remove_dir_all(&dir).is_err() {
                        std::thread::sleep(Duration::from_millis(10));
                    }
                }
                std::process::exit(EXIT_INTERRUPTED);
            })?;
        Ok(())
    }

    fn close(self) -> anyhow::Result<()> {
        take_away(&self.merged);
        let path = self.dir.path().to_path_buf();
        self.dir
            .close()
            .with_context(|| format!("removing {path:?}"))
    }
}

/// Unmounts if something is mounted; the temporary directory cannot be removed before.
fn take_away(merged: &Path) {
    match unmount::unmount(merged, Unmount::Lazy) {
        Ok(()) | Err(UnmountError::NotMounted { .. }) => {}
        Err(e) => crate::output::complain(e),
    }
}

fn show(stage: &Stage) -> anyhow::Result<()> {
    line(format_args!("Working in {}", stage.dir.path().display()))?;
    let files = copy_files(&BASE_FILES, &stage.base)?;
    line(format_args!(
        "\nLayer base: {files} files of this system's /etc"
    ))?;
    let files = copy_files(&MACHINE_FILES, &stage.machine)?;
    line(format_args!(
        "Layer machine: {files} files of /proc, stacked on top of it"
    ))?;
    let before = [fingerprint(&stage.base)?, fingerprint(&stage.machine)?];

    mount(stage)?;
    read_and_change(stage)?;

    line("\nThe merged view now:")?;
    for path in paths(&stage.merged)? {
        line(format_args!("  {}", escaped(&path)))?;
    }
    line("\n$ plyfs diff merged       # what the upper layer holds")?;
    let lowers = [stage.machine.clone(), stage.base.clone()];
    for change in changes(&stage.upper, &lowers)? {
        line(format_args!(
            "  {} {}",
            change.kind.letter(),
            escaped(&change.path)
        ))?;
    }

    line("\n$ plyfs umount merged")?;
    plyfs([OsStr::new("umount"), stage.merged.as_os_str()])?;
    let after = [fingerprint(&stage.base)?, fingerprint(&stage.machine)?];
    ensure!(
        before == after,
        "a lower layer changed: this is a bug in plyfs"
    );
    line("The lower layers are as they were: names, contents, owners, modes and times.")
}

fn mount(stage: &Stage) -> anyhow::Result<()> {
    line("\n$ plyfs mount --lower machine --lower base --upper upper --work work merged")?;
    let mut words = vec![OsStr::new("mount")];
    for (word, dir) in [
        ("--lower", &stage.machine),
        ("--lower", &stage.base),
        ("--upper", &stage.upper),
        ("--work", &stage.work),
    ] {
        words.extend([OsStr::new(word), dir.as_os_str()]);
    }
    words.push(stage.merged.as_os_str());
    plyfs(words)?;
    let entry = unmount::find(&stage.merged)?;
    line(format_args!("mounted, type {}", entry.fstype))
}

/// One of each: read through the stack, write a lower file, delete one, rename one, add one.
fn read_and_change(stage: &Stage) -> anyhow::Result<()> {
    let merged = |name: &str| stage.merged.join(name);
    let mut names = BASE_FILES.iter().filter_map(|p| p.strip_prefix('/'));
    let mut next = || names.find(|n| stage.base.join(n).exists());
    let (Some(read), Some(write), Some(delete)) = (next(), next(), next()) else {
        bail!("this system's /etc has too few files for the demo");
    };

    let text = fs::read_to_string(merged(read)).with_context(|| format!("reading {read}"))?;
    let first = text.lines().next().unwrap_or_default();
    line(format_args!("\nRead   {read}: {first:?}"))?;
    ensure!(
        text.as_bytes() == fs::read(stage.base.join(read))?,
        "{read} differs from its layer"
    );

    let added = "# written through plyfs";
    let mut file = fs::OpenOptions::new().append(true).open(merged(write))?;
    writeln!(file, "{added}")?;
    drop(file);
    let now = fs::read_to_string(merged(write))?;
    ensure!(
        now.ends_with(&format!("{added}\n")),
        "{write} does not show what was written"
    );
    line(format_args!(
        "Write  {write}: one line appended, so the file was copied up first"
    ))?;

    fs::remove_file(merged(delete)).with_context(|| format!("deleting {delete}"))?;
    ensure!(!merged(delete).exists(), "{delete} is still there");
    line(format_args!(
        "Delete {delete}: a whiteout in the upper hides it"
    ))?;

    if let Some(rename) = next() {
        fs::rename(merged(rename), merged("renamed"))
            .with_context(|| format!("renaming {rename}"))?;
        line(format_args!("Rename {rename} to renamed"))?;
    }
    fs::create_dir(merged("new"))?;
    fs::write(merged("new/file"), "only in the upper\n")?;
    line("Add    new/file")
}

/// Runs this program again with other words, as a person would.
fn plyfs<'a>(words: impl IntoIterator<Item = &'a OsStr>) -> anyhow::Result<()> {
    let own = std::env::current_exe().context("finding the program itself")?;
    let out = Command::new(own)
        .args(words)
        .stdin(Stdio::null())
        .output()?;
    if !out.status.success() {
        let said = String::from_utf8_lossy(&out.stderr);
        bail!("{}", said.trim().trim_start_matches("plyfs: "));
    }
    Ok(())
}

/// Copies those of `files` that can be read below `layer` under their own paths.
fn copy_files(files: &[&str], layer: &Path) -> anyhow::Result<usize> {
    let mut copied = 0;
    for file in files {
        let Ok(content) = fs::read(file) else {
            continue;
        };
        let to = layer.join(file.trim_start_matches('/'));
        if let Some(dir) = to.parent() {
            fs::create_dir_all(dir)?;
        }
        fs::write(&to, content).with_context(|| format!("copying {file} to {to:?}"))?;
        copied += 1;
    }
    Ok(copied)
}

/// Paths below `root`, sorted, each from the root on.
fn paths(root: &Path) -> anyhow::Result<Vec<Vec<u8>>> {
    let mut found = Vec::new();
    let mut todo = vec![root.to_path_buf()];
    while let Some(dir) = todo.pop() {
        for entry in fs::read_dir(&dir).with_context(|| format!("listing {dir:?}"))? {
            let entry = entry?;
            let path = entry.path();
            let below = path.strip_prefix(root)?;
            found.push([b"/", below.as_os_str().as_encoded_bytes()].concat());
            if entry.file_type()?.is_dir() {
                todo.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}

/// Everything about a tree that a change would show in.
type Fingerprint = BTreeMap<Vec<u8>, (u32, u32, u32, i64, i64, u64)>;

fn fingerprint(root: &Path) -> anyhow::Result<Fingerprint> {
    let mut prints = BTreeMap::new();
    for path in paths(root)? {
        let name: &OsStr = std::os::unix::ffi::OsStrExt::from_bytes(&path[1..]);
        let full = root.join(name);
        let meta = fs::symlink_metadata(&full)?;
        let mut hasher = DefaultHasher::new();
        if meta.is_file() {
            fs::read(&full)?.hash(&mut hasher);
        }
        let facts = (
            meta.mode(),
            meta.uid(),
            meta.gid(),
            meta.mtime(),
            meta.mtime_nsec(),
        );
        let (mode, uid, gid, sec, nsec) = facts;
        prints.insert(path, (mode, uid, gid, sec, nsec, hasher.finish()));
    }
    Ok(prints)
}
