//! How long does `plyfs image import` take for an image, beside `tar -x` of the same layers?
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;

use crate::fixture::{kept_root, walk};
use crate::machine::load;
use crate::{Machine, Summary};

/// How layers are packed: a name, and the program that packs standard input.
const PACKINGS: [(&str, &[&str]); 3] = [
    ("plain", &["cat"]),
    ("gzip", &["gzip", "-6"]),
    ("zstd", &["zstd", "-q", "-3"]),
];
/// What goes into which layer; the last takes the rest.
const LAYERS: [&[&str]; 4] = [
    &["./usr/lib"],
    &["./usr/share"],
    &["./usr/bin", "./usr/sbin", "./usr/include"],
    &["."],
];

/// What to measure.
#[derive(Debug)]
pub struct Unpacking {
    /// The plyfs binary.
    pub plyfs: PathBuf,
    /// Samples of each.
    pub rounds: usize,
    /// Where everything happens.
    pub scratch: PathBuf,
    /// Whether each sample ends when all is on the disk.
    pub sync: bool,
}

/// One way of unpacking, and what its samples took.
#[derive(Debug, Default)]
struct Taken {
    wall: Vec<f64>,
    cpu: Vec<f64>,
}

impl Unpacking {
    /// Measures, and returns the section for RESULTS.md.
    ///
    /// # Errors
    /// When a program is missing or fails, or the two do not unpack the same number of files.
    pub fn run(&self) -> Result<String> {
        let dir = tempfile::tempdir_in(&self.scratch)?;
        let tars = self.tars(dir.path())?;
        let size: u64 = tars
            .iter()
            .map(|t| fs::metadata(t).map_or(0, |m| m.len()))
            .sum();
        let mut out = self.heading(size)?;
        for (packing, program) in PACKINGS {
            let layout = dir.path().join(packing);
            let layers = layout_of(&layout, &tars, packing, program)?;
            let (mut by_plyfs, mut by_tar) = (Taken::default(), Taken::default());
            for round in 0..self.rounds {
                for turn in 0..2 {
                    let store = dir.path().join("unpacked");
                    if (round + turn) % 2 == 0 {
                        let files = self.sample(&mut by_plyfs, || self.plyfs(&layout, &store))?;
                        ensure!(files > 1000, "plyfs unpacked {files} files only");
                    } else {
                        let files = self.sample(&mut by_tar, || tar(&layers, &store))?;
                        ensure!(files > 1000, "tar unpacked {files} files only");
                    }
                    fs::remove_dir_all(&store)?;
                    eprintln!("{packing}: round {} of {}", round + 1, self.rounds);
                }
            }
            let seconds = |samples: &[f64]| Summary::of(samples).map_or(0.0, |s| s.median);
            let (tar, plyfs) = (seconds(&by_tar.wall), seconds(&by_plyfs.wall));
            let cpu = seconds(&by_plyfs.cpu) / seconds(&by_tar.cpu);
            writeln!(
                out,
                "| {packing} | {tar:.2} s | {plyfs:.2} s | {:.2} ({cpu:.2}) |",
                plyfs / tar
            )?;
            fs::remove_dir_all(&layout)?;
        }
        writeln!(out, "\nLoad at the end: {}.", load())?;
        Ok(out)
    }

    fn heading(&self, size: u64) -> Result<String> {
        let machine = Machine::here(self.scratch.display().to_string());
        let mut out = String::new();
        writeln!(
            out,
            "## {}, commit {}: unpacking\n",
            machine.date, machine.commit
        )?;
        writeln!(
            out,
            "Linux {}, {} x {}, in {}{}; {} layers of {} MB together, {} rounds.\n",
            machine.kernel,
            machine.processors,
            machine.processor,
            machine.filesystem,
            if self.sync {
                ", both synced to the disk"
            } else {
                ""
            },
            LAYERS.len(),
            size / 1_000_000,
            self.rounds
        )?;
        writeln!(
            out,
            "| layers | tar -x, one after the other | plyfs image import | ratio (cpu) |"
        )?;
        writeln!(out, "|---|--:|--:|--:|")?;
        Ok(out)
    }

    /// The layers as plain archives, from a real root file system.
    fn tars(&self, dir: &Path) -> Result<Vec<PathBuf>> {
        let root = dir.join("root");
        fs::create_dir(&root)?;
        let archive = kept_root()?.context("no root file system is kept: run scripts/realroot")?;
        done(
            Command::new("tar")
                .arg("-xpf")
                .arg(archive)
                .arg("-C")
                .arg(&root),
        )?;
        let mut tars = Vec::new();
        let mut before: Vec<String> = Vec::new();
        for (i, paths) in LAYERS.iter().enumerate() {
            let tar = dir.join(format!("{i}.tar"));
            let mut command = Command::new("tar");
            command.arg("-cf").arg(&tar).arg("-C").arg(&root);
            command.args(["--xattrs", "--xattrs-include=security.*", "--numeric-owner"]);
            // Whatever another layer has is not in the rest.
            command.args(before.iter().map(|p| format!("--exclude={p}/*")));
            done(command.args(*paths))?;
            before.extend(paths.iter().map(|p| (*p).to_owned()));
            tars.push(tar);
        }
        fs::remove_dir_all(&root)?;
        Ok(tars)
    }

    /// Times `work`; how many objects there are afterwards.
    fn sample(&self, taken: &mut Taken, work: impl FnOnce() -> Result<PathBuf>) -> Result<usize> {
        let (begun, cpu) = (Instant::now(), cpu()?);
        let dir = work()?;
        if self.sync {
            done(Command::new("sync").arg("-f").arg(&dir))?;
        }
        taken.wall.push(begun.elapsed().as_secs_f64());
        taken.cpu.push(self::cpu()? - cpu);
        let mut found = BTreeMap::new();
        walk(&dir, Path::new(""), &mut found)?;
        Ok(found.len())
    }

    fn plyfs(&self, layout: &Path, store: &Path) -> Result<PathBuf> {
        let mut command = Command::new(&self.plyfs);
        command
            .arg("--root")
            .arg(store)
            .args(["image", "import", "--quiet"]);
        done(command.arg(layout).stdout(Stdio::null()))?;
        Ok(store.join("layers"))
    }
}

fn tar(layers: &[PathBuf], to: &Path) -> Result<PathBuf> {
    for (i, layer) in layers.iter().enumerate() {
        let dir = to.join(i.to_string());
        fs::create_dir_all(&dir)?;
        let mut command = Command::new("tar");
        command.args(["--xattrs", "--xattrs-include=*", "--numeric-owner", "-xpf"]);
        done(command.arg(layer).arg("-C").arg(dir))?;
    }
    Ok(to.to_owned())
}

/// Makes an OCI layout of the layers; their blobs, which tar tells the packing of by itself.
fn layout_of(
    dir: &Path,
    tars: &[PathBuf],
    packing: &str,
    program: &[&str],
) -> Result<Vec<PathBuf>> {
    let blobs = dir.join("blobs/sha256");
    fs::create_dir_all(&blobs)?;
    let media = match packing {
        "plain" => String::from("application/vnd.oci.image.layer.v1.tar"),
        packed => format!("application/vnd.oci.image.layer.v1.tar+{packed}"),
    };
    let (mut ids, mut layers, mut paths) = (Vec::new(), Vec::new(), Vec::new());
    for tar in tars {
        let packed = dir.join("packed");
        let mut command = Command::new(program[0]);
        command.args(&program[1..]).stdin(fs::File::open(tar)?);
        done(command.stdout(fs::File::create(&packed)?))?;
        ids.push(format!("sha256:{}", sha256(tar)?));
        let (path, descriptor) = blob(&blobs, &packed, &media)?;
        layers.push(descriptor);
        paths.push(path);
    }
    let config = serde_json::json!({"architecture": "amd64", "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": ids}});
    let put = |document: serde_json::Value, media: &str| -> Result<serde_json::Value> {
        let path = dir.join("document");
        fs::write(&path, serde_json::to_vec(&document)?)?;
        Ok(blob(&blobs, &path, media)?.1)
    };
    let config = put(config, "application/vnd.oci.image.config.v1+json")?;
    let manifest = serde_json::json!({"schemaVersion": 2, "config": config, "layers": layers});
    let manifest = put(manifest, "application/vnd.oci.image.manifest.v1+json")?;
    let index = serde_json::json!({"schemaVersion": 2, "manifests": [manifest]});
    fs::write(dir.join("index.json"), serde_json::to_vec(&index)?)?;
    fs::write(dir.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#)?;
    Ok(paths)
}

/// Gives a file its place among the blobs; its path and its descriptor.
fn blob(blobs: &Path, file: &Path, media: &str) -> Result<(PathBuf, serde_json::Value)> {
    let digest = sha256(file)?;
    let path = blobs.join(&digest);
    fs::rename(file, &path)?;
    let size = fs::metadata(&path)?.len();
    let descriptor = serde_json::json!({
        "mediaType": media, "digest": format!("sha256:{digest}"), "size": size });
    Ok((path, descriptor))
}

fn sha256(file: &Path) -> Result<String> {
    let out = Command::new("sha256sum")
        .arg(file)
        .output()
        .context("start sha256sum")?;
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    Ok(text.split(' ').next().unwrap_or_default().to_owned())
}

fn done(command: &mut Command) -> Result<()> {
    let status = command
        .status()
        .with_context(|| format!("start {command:?}"))?;
    ensure!(status.success(), "{command:?} ended with {status}");
    Ok(())
}

/// Processor time of all children so far, in seconds.
#[allow(clippy::cast_precision_loss)]
fn cpu() -> Result<f64> {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    let time = usage.user_time() + usage.system_time();
    Ok(time.num_microseconds() as f64 / 1e6)
}
