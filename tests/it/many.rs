//! Many inodes known and many files open at once: the daemon stays within its budgets.
//!
//! `PLYFS_MANY=1000000 cargo nextest run -p plyfs-tests -E 'test(/^many::/)'` makes it a million inodes
//! and 11,000 open files.
use std::fs::{self, File, Permissions};
use std::os::unix::fs::{FileExt, PermissionsExt};

use plyfs_testkit::{Stack, bin, mount_program, need_fuse};

use crate::support::names;

/// Names in one directory.
const IN_DIR: usize = 1000;
/// Descriptors that the daemon may have.
const LIMIT: usize = 600;
/// Descriptors of a daemon beside those of its budget: the connection, roots, locks, threads.
const OTHER_DESCRIPTORS: usize = 60;
/// Bytes of memory a lower file may take that the kernel knows: docs/performance.md has 25 MiB for
/// 100,000; the journal, listings and the allocator's rest are added.
const PER_INODE: usize = 700;

fn status(pid: u32, field: &str) -> usize {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = text.lines().find_map(|l| l.strip_prefix(field)).unwrap();
    let kib = line.trim_start_matches(':').trim().trim_end_matches(" kB");
    kib.parse::<usize>().unwrap() << 10
}

fn descriptors(pid: u32) -> usize {
    names(format!("/proc/{pid}/fd")).len()
}

#[test]
fn many_inodes_and_many_open_files_fit_into_the_budgets() {
    need_fuse!();
    let all = std::env::var("PLYFS_MANY").map_or(20_000, |n| n.parse().unwrap());
    let opened = all / 100 + 1000;
    let stack = Stack::new(1);
    for dir in 0..all / IN_DIR {
        let dir = stack.lower(0).join(format!("d{dir}"));
        fs::create_dir(&dir).unwrap();
        (0..IN_DIR).for_each(|i| drop(File::create(dir.join(format!("f{i}"))).unwrap()));
    }
    let some = |i: usize| i * (all / opened);
    for i in (0..opened).map(some) {
        let path = format!("d{}/f{}", i / IN_DIR, i % IN_DIR);
        fs::write(stack.lower(0).join(path), i.to_string()).unwrap();
    }
    // A daemon that may have far fewer descriptors than programs have files open.
    let program = stack.dir().join("plyfs");
    let script = format!(
        "#!/bin/sh\nulimit -n {LIMIT}\nexec {} \"$@\"\n",
        bin().display()
    );
    fs::write(&program, script).unwrap();
    fs::set_permissions(&program, Permissions::from_mode(0o755)).unwrap();
    let m = mount_program(&program, &stack, "").unwrap();
    let pid = m.pid().unwrap();
    let before = status(pid, "VmRSS");
    let path = |i: usize| m.join(format!("d{}/f{}", i / IN_DIR, i % IN_DIR));
    let known = (0..all).filter(|i| fs::symlink_metadata(path(*i)).is_ok());
    assert_eq!(known.count(), all);
    let grown = status(pid, "VmRSS").saturating_sub(before);
    let mut files: Vec<File> = (0..opened)
        .map(|i| File::open(path(some(i))).unwrap())
        .collect();
    for (i, file) in files.iter().enumerate() {
        let mut text = [0; 20];
        let n = file.read_at(&mut text, 0).unwrap();
        assert_eq!(text[..n].escape_ascii().to_string(), some(i).to_string());
    }
    // New files, open and without a name, cost a descriptor each and no more.
    let nameless = 200;
    for i in 0..nameless {
        let path = m.join(format!("gone{i}"));
        let file = File::create_new(&path).unwrap();
        fs::remove_file(&path).unwrap();
        file.write_at(b"x", 0).unwrap();
        files.push(file);
    }
    let held = descriptors(pid);
    println!(
        "{all} inodes: {grown} bytes more; {} open: {held} descriptors",
        files.len()
    );
    // Half of the limit is the budget.
    let budget = LIMIT / 2 + nameless + OTHER_DESCRIPTORS;
    assert!(held <= budget, "{held} descriptors of {budget}");
    assert!(
        grown <= all * PER_INODE + (16 << 20),
        "{grown} bytes for {all} inodes"
    );
    for file in &files[opened..] {
        let mut text = [0; 2];
        assert_eq!(file.read_at(&mut text, 0).unwrap(), 1);
    }
    drop(files);
    m.unmount();
}
