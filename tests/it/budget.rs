//! What an operation may cost: FUSE requests and system calls of the daemon, which repeat exactly.
//!
//! The budgets are the table in docs/performance.md. The daemon is watched by strace: what it
//! reads from the connection are the requests, what else it calls is counted as well.
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use plyfs_testkit::{Mounted, Stack, mount_plyfs, need, need_fuse, need_passthrough};

/// Repetitions of an operation; what happens in less than half of them is not its own.
const TIMES: u32 = 50;

/// Opcodes of linux/fuse.h.
const KINDS: [(u32, &str); 21] = [
    (1, "LOOKUP"),
    (3, "GETATTR"),
    (4, "SETATTR"),
    (5, "READLINK"),
    (6, "SYMLINK"),
    (8, "MKNOD"),
    (9, "MKDIR"),
    (10, "UNLINK"),
    (11, "RMDIR"),
    (12, "RENAME"),
    (13, "LINK"),
    (14, "OPEN"),
    (15, "READ"),
    (16, "WRITE"),
    (18, "RELEASE"),
    (22, "GETXATTR"),
    (25, "FLUSH"),
    (28, "READDIR"),
    (35, "CREATE"),
    (44, "READDIRPLUS"),
    (45, "RENAME"),
];

/// The daemon's memory, its threads and the connection itself; not work on a layer.
const HOUSEKEEPING: [&str; 14] = [
    "read",
    "writev",
    "futex",
    "poll",
    "clock_gettime",
    "mprotect",
    "mmap",
    "munmap",
    "madvise",
    "brk",
    "sched_yield",
    "restart_syscall",
    "rt_sigtimedwait",
    // A debug build's check before it closes a descriptor.
    "fcntl",
];

/// What one repetition cost.
#[derive(Debug, Default, PartialEq, Eq)]
struct Cost {
    requests: BTreeMap<&'static str, u32>,
    calls: u32,
}

impl std::fmt::Display for Cost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kinds: Vec<String> = self
            .requests
            .iter()
            .map(|(kind, n)| match n {
                1 => (*kind).to_owned(),
                _ => format!("{n} {kind}"),
            })
            .collect();
        match kinds.is_empty() {
            true => write!(f, "none | {}", self.calls),
            false => write!(f, "{} | {}", kinds.join(", "), self.calls),
        }
    }
}

impl Cost {
    /// Whether it is no more than a row of the table says.
    fn is_within(&self, budget: &str) -> bool {
        let (requests, calls) = budget.split_once(" | ").unwrap_or((budget, "0"));
        let allowed = |kind: &str| {
            let entries = requests
                .split(", ")
                .map(|e| e.split_once(' ').unwrap_or(("1", e)));
            entries
                .filter(|(_, name)| *name == kind)
                .map(|(n, _)| n.parse::<u32>().unwrap())
                .sum()
        };
        let requests = self.requests.iter().all(|(kind, n)| *n <= allowed(kind));
        requests && self.calls <= calls.parse::<u32>().unwrap()
    }
}

#[test]
fn a_budget_is_read_as_it_is_written() {
    let cost = Cost {
        requests: [("LOOKUP", 1), ("WRITE", 2)].into(),
        calls: 3,
    };
    assert_eq!(cost.to_string(), "LOOKUP, 2 WRITE | 3");
    assert!(cost.is_within("LOOKUP, 2 WRITE | 3"));
    assert!(cost.is_within("GETATTR, LOOKUP, 3 WRITE | 4"));
    for less in [
        "LOOKUP, WRITE | 3",
        "2 WRITE | 3",
        "none | 3",
        "LOOKUP, 2 WRITE | 2",
    ] {
        assert!(!cost.is_within(less), "{less}");
    }
}

/// strace, attached to a daemon.
struct Trace {
    child: Child,
    file: tempfile::NamedTempFile,
}

impl Trace {
    fn attach(pid: u32) -> Self {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut child = Command::new("strace")
            .args(["-f", "-qq", "-xx", "-s", "8", "-o"])
            .arg(file.path())
            .args(["-p", &pid.to_string()])
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // strace -qq says nothing; all threads of the daemon have a tracer when it is attached.
        let tasks = format!("/proc/{pid}/task");
        plyfs_testkit::wait_until("strace has attached", || {
            assert!(child.try_wait().unwrap().is_none(), "strace ended");
            fs::read_dir(&tasks).unwrap().flatten().all(|task| {
                let status = fs::read_to_string(task.path().join("status")).unwrap_or_default();
                !status.contains("TracerPid:\t0\n")
            })
        });
        Self { child, file }
    }

    fn end(mut self) -> Vec<String> {
        kill(Pid::from_raw(self.child.id().cast_signed()), Signal::SIGINT).unwrap();
        self.child.wait().unwrap();
        let file = File::open(self.file.path()).unwrap();
        BufReader::new(file).lines().map(Result::unwrap).collect()
    }
}

/// What `TIMES` repetitions cost, for one.
fn cost(lines: &[String]) -> Cost {
    let mut requests = BTreeMap::new();
    let mut calls = 0;
    for line in lines {
        let text = line
            .split_once(' ')
            .map_or("", |(_, text)| text.trim_start());
        let name = text.split(['(', ' ']).next().unwrap_or_default();
        if name == "read" || text.starts_with("<... read resumed>") {
            if let Some(kind) = opcode(text) {
                *requests.entry(kind).or_insert(0) += 1;
            }
        } else if !text.starts_with("<...") && !name.is_empty() && !HOUSEKEEPING.contains(&name) {
            calls += u32::from(!text.starts_with(['+', '-']));
        }
    }
    let mut requests: BTreeMap<_, u32> = requests;
    requests.values_mut().for_each(|n| *n = per_time(*n));
    requests.retain(|_, n| *n > 0);
    Cost {
        requests,
        calls: per_time(calls),
    }
}

/// The nearest whole number: what happens now and then does not count.
fn per_time(n: u32) -> u32 {
    (n + TIMES / 2) / TIMES
}

/// The kind of request that was read: struct fuse_in_header begins with length and opcode.
fn opcode(text: &str) -> Option<&'static str> {
    let (_, bytes) = text.split_once('"')?;
    let (bytes, _) = bytes.split_once('"')?;
    let bytes: Option<Vec<u8>> = bytes
        .split("\\x")
        .skip(1)
        .map(|hex| u8::from_str_radix(hex, 16).ok())
        .collect();
    let code = u32::from_ne_bytes(bytes?.get(4..8)?.try_into().ok()?);
    KINDS
        .iter()
        .find(|(c, _)| *c == code)
        .map(|(_, name)| *name)
}

/// One row of the table.
struct Row {
    name: &'static str,
    prepare: fn(&Path),
    operation: fn(&Path, u32),
}

fn touch(dir: &Path, name: &str) {
    fs::write(dir.join(name), "content").unwrap();
}

fn read(dir: &Path, i: u32) {
    let mut content = Vec::new();
    let mut file = File::open(dir.join(format!("f{i}"))).unwrap();
    file.read_to_end(&mut content).unwrap();
    assert_eq!(content, b"lower");
}

fn stat(dir: &Path, i: u32) {
    fs::symlink_metadata(dir.join(format!("f{i}"))).unwrap();
}

fn miss(dir: &Path, i: u32) {
    File::open(dir.join(format!("none{i}"))).unwrap_err();
}

fn list(dir: &Path) {
    assert!(fs::read_dir(dir).unwrap().count() >= TIMES as usize);
}

fn each(dir: &Path, operation: fn(&Path, u32)) {
    (0..TIMES).for_each(|i| operation(dir, i));
}

const ROWS: [Row; 18] = [
    Row {
        name: "stat, warm",
        prepare: |d| each(d, stat),
        operation: stat,
    },
    Row {
        name: "failed open, warm",
        prepare: |d| each(d, miss),
        operation: miss,
    },
    Row {
        name: "open, read and close, warm",
        // The first read makes the kernel ask for the access time once more.
        prepare: |d| {
            each(d, read);
            each(d, read);
        },
        operation: read,
    },
    Row {
        name: "list a directory, warm",
        prepare: |d| {
            list(d);
            list(d);
        },
        operation: |d, _| list(d),
    },
    Row {
        name: "readlink, warm",
        prepare: |d| drop(fs::read_link(d.join("link")).unwrap()),
        operation: |d, _| drop(fs::read_link(d.join("link")).unwrap()),
    },
    Row {
        name: "run a program, warm",
        prepare: run_program,
        operation: |d, _| run_program(d),
    },
    Row {
        name: "stat, cold",
        prepare: |_| (),
        operation: stat,
    },
    Row {
        name: "failed open, cold",
        prepare: |_| (),
        operation: miss,
    },
    Row {
        name: "open, read and close, cold",
        prepare: |_| (),
        operation: read,
    },
    Row {
        name: "an entry of `find -ls`, cold",
        prepare: |_| (),
        operation: |d, i| {
            if i == 0 {
                for entry in fs::read_dir(d).unwrap() {
                    entry.unwrap().metadata().unwrap();
                }
            }
        },
    },
    Row {
        name: "create, write and close",
        prepare: |d| touch(d, "first"),
        operation: |d, i| touch(d, &format!("n{i}")),
    },
    Row {
        name: "rewrite a file of the upper",
        prepare: |d| (0..TIMES).for_each(|i| touch(d, &format!("n{i}"))),
        operation: |d, i| touch(d, &format!("n{i}")),
    },
    Row {
        name: "unlink what was made",
        prepare: |d| (0..TIMES).for_each(|i| touch(d, &format!("n{i}"))),
        operation: |d, i| fs::remove_file(d.join(format!("n{i}"))).unwrap(),
    },
    Row {
        name: "unlink a lower file",
        prepare: |d| each(d, stat),
        operation: |d, i| fs::remove_file(d.join(format!("f{i}"))).unwrap(),
    },
    Row {
        name: "mkdir",
        prepare: |d| touch(d, "first"),
        operation: |d, i| fs::create_dir(d.join(format!("d{i}"))).unwrap(),
    },
    Row {
        name: "rename in the upper",
        prepare: |d| (0..TIMES).for_each(|i| touch(d, &format!("n{i}"))),
        operation: |d, i| fs::rename(d.join(format!("n{i}")), d.join(format!("m{i}"))).unwrap(),
    },
    Row {
        name: "chmod in the upper",
        prepare: |d| (0..TIMES).for_each(|i| touch(d, &format!("n{i}"))),
        operation: |d, i| {
            let mode = fs::Permissions::from_mode(0o600);
            fs::set_permissions(d.join(format!("n{i}")), mode).unwrap();
        },
    },
    Row {
        name: "first write to a lower file",
        prepare: |d| each(d, stat),
        operation: |d, i| {
            let file = File::options().append(true).open(d.join(format!("f{i}")));
            std::io::Write::write_all(&mut file.unwrap(), b"more").unwrap();
        },
    },
];

/// How often an operation is measured before its budget counts as exceeded.
const TRIES: usize = 6;

fn run_program(dir: &Path) {
    assert!(Command::new(dir.join("true")).status().unwrap().success());
}

fn plant() -> Stack {
    let stack = Stack::new(1);
    let dir = stack.lower(0).join("d");
    fs::create_dir(&dir).unwrap();
    for i in 0..TIMES {
        fs::write(dir.join(format!("f{i}")), "lower").unwrap();
    }
    symlink("f0", dir.join("link")).unwrap();
    fs::copy("/bin/true", dir.join("true")).unwrap();
    stack
}

fn measure(row: &Row, options: &str) -> Cost {
    let stack = plant();
    let mounted: Mounted = mount_plyfs(&stack, options);
    let dir = mounted.join("d");
    // The way to the directory is known, and the daemon's threads have served once.
    for i in 0..40 {
        fs::symlink_metadata(mounted.join(format!("warm{i}"))).unwrap_err();
    }
    fs::symlink_metadata(dir.join("warm")).unwrap_err();
    (row.prepare)(&dir);
    let trace = Trace::attach(mounted.pid().unwrap());
    each(&dir, row.operation);
    let lines = trace.end();
    mounted.unmount();
    cost(&lines)
}

/// A table of docs/performance.md: operation, requests, calls.
fn budgets(name: &str) -> Vec<(String, String)> {
    let text = include_str!("../../docs/performance.md");
    let mark = |end| format!("<!-- {name}: {end} -->");
    let (_, table) = text.split_once(&mark("begin")).unwrap();
    let (table, _) = table.split_once(&mark("end")).unwrap();
    table
        .lines()
        .filter_map(|line| line.strip_prefix("| ")?.strip_suffix(" |"))
        .filter_map(|line| line.split_once(" | "))
        .skip(1)
        .map(|(name, cost)| (name.to_owned(), cost.to_owned()))
        .collect()
}

#[test]
fn operations_cost_what_the_documentation_says() {
    need_fuse!();
    need!("strace");
    let said = budgets("budgets");
    let names: Vec<&str> = said.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(
        names,
        ROWS.map(|row| row.name),
        "rows of docs/performance.md"
    );
    compare(&said, "writeback=0");
}

/// The operations on data: all others cost what they cost without passthrough.
#[test]
fn so_they_do_where_data_is_passed_through() {
    need_passthrough!();
    need!("strace");
    compare(&budgets("passthrough budgets"), "data=passthrough");
}

fn compare(said: &[(String, String)], options: &str) {
    assert!(!said.is_empty());
    let mut wrong = Vec::new();
    for (name, budget) in said {
        let row = ROWS.iter().find(|row| row.name == name);
        let row = row.unwrap_or_else(|| panic!("{name} is no operation"));
        // A busy machine hands requests from thread to thread, which costs calls of its own: what
        // counts is what the operation can do with.
        let mut costs = (0..TRIES).map(|_| measure(row, options));
        let mut last = costs.next().unwrap();
        while !last.is_within(budget) {
            match costs.next() {
                Some(cost) => last = cost,
                None => {
                    wrong.push(format!("| {name} | {last} |    (said: {budget})"));
                    break;
                }
            }
        }
    }
    assert!(wrong.is_empty(), "costs changed:\n{}", wrong.join("\n"));
}
