//! Programs that work while daemons are killed; each checks every answer against a copy in memory.
use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use nix::fcntl::{AT_FDCWD, PosixFadviseAdvice, RenameFlags, posix_fadvise, renameat2};
use plyfs_testkit::{Stack, has_program};

use super::guarded::Guarded;
use super::upgrade::copy_of_program;

/// Numbers that look random and are the same each time.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        self.0 >> 33
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    fn bytes(&mut self, len: u64) -> Vec<u8> {
        (0..len).map(|_| self.next() as u8).collect()
    }
}

type Step = Box<dyn FnMut(u64) + Send>;

/// Kills `count` daemons one after the other while all programs work, then checks the rest.
pub(super) fn kills(count: u64, options: &str) {
    let stack = Stack::new(2);
    plant(stack.lower(0), 1);
    plant(stack.lower(1), 2);
    let stack = stack.sealed();
    let m = Guarded::mount(&stack, options);
    let root = m.path().to_owned();
    let workers: Vec<(&str, Step)> = vec![
        ("tree", tree(&root, 1)),
        ("tree", tree(&root, 2)),
        ("lower", lower(&root)),
        ("walk", walk(&root)),
        ("xattr", xattrs(&root)),
        ("exchange", exchange(&root)),
        ("dirs", dirs(&root)),
        ("big", big(&root)),
        ("tar", untar(&root, &stack)),
        ("sqlite", sqlite(&root)),
    ];
    let programs = ["one", "two"].map(|name| copy_of_program(&stack, name));
    let mut upgrades = 0;
    let stop = AtomicBool::new(false);
    let longest = AtomicU64::new(0);
    std::thread::scope(|scope| {
        let running: Vec<_> = workers
            .into_iter()
            .map(|(name, mut step)| {
                let (stop, longest) = (&stop, &longest);
                let run = move || {
                    let mut done = 0;
                    while !stop.load(Ordering::Relaxed) {
                        let begun = Instant::now();
                        step(done);
                        if name == "walk" {
                            let took = begun.elapsed().as_millis() as u64;
                            longest.fetch_max(took, Ordering::Relaxed);
                        }
                        done += 1;
                    }
                    done
                };
                (name, scope.spawn(run))
            })
            .collect();
        let mut dice = Dice(count);
        for killed in 0..count {
            std::thread::sleep(Duration::from_millis(50 + dice.below(250)));
            if running.iter().any(|(_, worker)| worker.is_finished()) {
                break;
            }
            // One in eight ends for another program.
            if killed % 8 == 7 {
                m.upgrade(&programs[upgrades % 2]).unwrap();
                upgrades += 1;
            } else {
                m.kill();
            }
        }
        stop.store(true, Ordering::Relaxed);
        let did: Vec<_> = running
            .into_iter()
            .map(|(name, worker)| (name, worker.join().expect(name)))
            .collect();
        println!("steps: {did:?}");
        assert!(did.iter().all(|(_, steps)| *steps > 0));
    });
    assert_eq!(m.restarts(), count - upgrades as u64);
    assert_eq!(m.status()["upgrades"], upgrades);
    report(&m.log());
    println!("longest step of the walker: {longest:?} ms");
    m.unmount();
    stack.assert_lowers_unchanged();
}

/// How long taking over took, as the daemons say.
fn report(log: &str) {
    let after = log
        .lines()
        .filter_map(|l| l.split("took over after ").nth(1));
    let mut took: Vec<f64> = after
        .filter_map(|l| l.split(' ').next()?.parse().ok())
        .collect();
    took.sort_by(f64::total_cmp);
    if let (Some(median), Some(worst)) = (took.get(took.len() / 2), took.last()) {
        println!(
            "{} kills: took over after {median} ms (median), {worst} ms (worst)",
            took.len()
        );
    }
}

fn plant(layer: &Path, seed: u64) {
    let mut dice = Dice(seed);
    for i in 0..100 {
        let dir = layer.join(format!("sub/d{}", i % 10));
        fs::create_dir_all(&dir).unwrap();
        let len = dice.below(20_000);
        fs::write(dir.join(format!("f{seed}-{i}")), dice.bytes(len)).unwrap();
    }
}

/// A directory and what must be in it: files by their bytes, directories by None.
fn tree(root: &Path, seed: u64) -> Step {
    let dir = root.join(format!("tree{seed}"));
    fs::create_dir(&dir).unwrap();
    let mut model: BTreeMap<String, Option<Vec<u8>>> = BTreeMap::new();
    let mut dice = Dice(seed);
    Box::new(move |_| {
        let (a, b) = (
            format!("n{}", dice.below(30)),
            format!("n{}", dice.below(30)),
        );
        let (pa, pb) = (dir.join(&a), dir.join(&b));
        let is_dir = matches!(model.get(&a), Some(None));
        match dice.below(8) {
            0 | 1 if !is_dir => {
                let len = dice.below(70_000);
                let bytes = dice.bytes(len);
                fs::write(&pa, &bytes).unwrap();
                model.insert(a, Some(bytes));
            }
            2 => match model.remove(&a) {
                Some(Some(_)) => fs::remove_file(&pa).unwrap(),
                Some(None) => fs::remove_dir(&pa).unwrap(),
                None => assert!(fs::remove_file(&pa).is_err()),
            },
            3 if !model.contains_key(&a) => {
                fs::create_dir(&pa).unwrap();
                model.insert(a, None);
            }
            4 if model.contains_key(&a) && (!model.contains_key(&b)) => {
                fs::rename(&pa, &pb).unwrap();
                let moved = model.remove(&a).unwrap();
                model.insert(b, moved);
            }
            4 if a != b
                && matches!(
                    (model.get(&a), model.get(&b)),
                    (Some(Some(_)), Some(Some(_)))
                ) =>
            {
                fs::rename(&pa, &pb).unwrap();
                let moved = model.remove(&a).unwrap();
                model.insert(b, moved);
            }
            5 if model.contains_key(&a) && !is_dir && !model.contains_key(&b) => {
                fs::hard_link(&pa, &pb).unwrap();
                fs::remove_file(&pa).unwrap();
                let moved = model.remove(&a).unwrap();
                model.insert(b, moved);
            }
            6 if !is_dir && model.contains_key(&a) => {
                let bytes = model.remove(&a).unwrap().unwrap();
                assert!(fs::read(&pa).unwrap() == bytes, "{a}");
                let mut file = File::open(&pa).unwrap();
                fs::remove_file(&pa).unwrap();
                let mut read = Vec::new();
                file.read_to_end(&mut read).unwrap();
                assert!(read == bytes, "{a} without a name");
                let found = file.metadata().unwrap();
                assert_eq!((found.nlink(), found.len()), (0, bytes.len() as u64));
            }
            _ => {
                let mut names: Vec<String> = fs::read_dir(&dir)
                    .unwrap()
                    .map(|e| e.unwrap().file_name().into_string().unwrap())
                    .collect();
                names.sort();
                assert!(names.iter().eq(model.keys()), "{names:?}");
            }
        }
    })
}

fn files_below(dir: &Path, into: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap().map(|e| e.unwrap()) {
        match entry.file_type().unwrap().is_dir() {
            true => files_below(&entry.path(), into),
            false => into.push(entry.path()),
        }
    }
}

/// Lower files, read and then appended to.
fn lower(root: &Path) -> Step {
    let mut files = Vec::new();
    files_below(&root.join("sub"), &mut files);
    let mut model: Vec<(PathBuf, Vec<u8>)> = files
        .into_iter()
        .map(|f| (f.clone(), fs::read(f).unwrap()))
        .collect();
    let mut dice = Dice(3);
    Box::new(move |step| {
        let at = dice.below(model.len() as u64) as usize;
        let (path, bytes) = &mut model[at];
        if step < 50 || dice.below(10) < 7 {
            assert!(fs::read(&*path).unwrap() == *bytes, "{}", path.display());
        } else {
            let more = dice.bytes(100);
            let mut file = OpenOptions::new().append(true).open(&*path).unwrap();
            file.write_all(&more).unwrap();
            bytes.extend(more);
        }
    })
}

fn walk(root: &Path) -> Step {
    let dir = root.join("sub");
    Box::new(move |_| {
        let mut files = Vec::new();
        files_below(&dir, &mut files);
        assert_eq!(files.len(), 200);
        std::thread::sleep(Duration::from_millis(5));
    })
}

fn xattrs(root: &Path) -> Step {
    let path = root.join("marked");
    File::create(&path).unwrap();
    Box::new(move |step| {
        use rustix::fs::{XattrFlags, removexattr, setxattr};
        let name = format!("user.a{}", step % 5);
        let set = || setxattr(&path, &*name, b"value", XattrFlags::CREATE);
        set().unwrap();
        assert!(set().is_err());
        removexattr(&path, &*name).unwrap();
        assert!(removexattr(&path, &*name).is_err());
    })
}

fn exchange(root: &Path) -> Step {
    let (a, b) = (root.join("xa"), root.join("xb"));
    fs::write(&a, "file").unwrap();
    fs::create_dir(&b).unwrap();
    fs::write(b.join("in"), "inner").unwrap();
    Box::new(move |step| {
        renameat2(AT_FDCWD, &a, AT_FDCWD, &b, RenameFlags::RENAME_EXCHANGE).unwrap();
        let (dir, file) = if step % 2 == 0 { (&a, &b) } else { (&b, &a) };
        assert!(dir.is_dir() && file.is_file());
        assert_eq!(fs::read(dir.join("in")).unwrap(), b"inner");
    })
}

/// A directory that moves while something below it is open.
fn dirs(root: &Path) -> Step {
    let root = root.join("dirs");
    fs::create_dir_all(root.join("a/b/c")).unwrap();
    fs::create_dir(root.join("z")).unwrap();
    fs::write(root.join("a/b/c/f"), "hello").unwrap();
    Box::new(move |step| {
        let there = root.join(format!("z/b{step}"));
        fs::rename(root.join("a/b"), &there).unwrap();
        let mut file = File::open(there.join("c/f")).unwrap();
        fs::rename(&there, root.join("a/b")).unwrap();
        let mut text = String::new();
        file.read_to_string(&mut text).unwrap();
        assert_eq!(text, "hello");
    })
}

/// Large writes that are stored at once, and reads that ask the daemon.
fn big(root: &Path) -> Step {
    let path = root.join("big");
    let mut bytes = vec![0; 4 << 20];
    fs::write(&path, &bytes).unwrap();
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .open(&path)
        .unwrap();
    let mut dice = Dice(4);
    Box::new(move |step| {
        let at = dice.below(3 << 20) as usize;
        let piece = vec![step as u8; 1 << 20];
        file.write_all_at(&piece, at as u64).unwrap();
        bytes[at..at + piece.len()].copy_from_slice(&piece);
        file.sync_data().unwrap();
        posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED).unwrap();
        if step % 4 == 0 {
            assert!(fs::read(&path).unwrap() == bytes);
        }
    })
}

fn shell(script: &str, dir: &Path) {
    let out = Command::new("sh")
        .args(["-euc", script])
        .current_dir(dir)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(out.status.success(), "{script}: {said}");
}

/// An archive, unpacked and compared.
fn untar(root: &Path, stack: &Stack) -> Step {
    let tar = stack.dir().join("layer.tar");
    shell(&format!("tar cf {} sub", tar.display()), stack.lower(0));
    let dir = root.join("unpacked");
    fs::create_dir(&dir).unwrap();
    let layer = stack.lower(0).to_owned();
    Box::new(move |_| {
        let script = format!(
            "tar xf {}; diff -r sub {}/sub; rm -r sub",
            tar.display(),
            layer.display()
        );
        shell(&script, &dir);
    })
}

/// Commits, each counted.
fn sqlite(root: &Path) -> Step {
    if !has_program("sqlite3") {
        return Box::new(|_| std::thread::sleep(Duration::from_millis(50)));
    }
    let dir = root.to_owned();
    shell(
        "sqlite3 db 'create table t(a integer primary key, b text)'",
        &dir,
    );
    Box::new(move |step| {
        let script = format!(
            "test \"$(sqlite3 -cmd '.timeout 60000' db \"insert into t values({step},'text'); \
             select count(*) from t; pragma integrity_check\" | tr '\\n' ' ')\" = '{} ok '",
            step + 1
        );
        shell(&script, &dir);
    })
}
