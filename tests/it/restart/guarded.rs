//! A mount with a daemon in the background, and killing it.
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use nix::mount::{MntFlags, umount2};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use plyfs_testkit::{Stack, bin, mounted_at, private_mounts, wait_until};
use serde_json::Value;

/// A mount whose daemon is in the background; dropped, it is gone whatever happened.
pub(super) struct Guarded {
    mnt: PathBuf,
    log: PathBuf,
    /// Of the state file, which keeps its name.
    state: PathBuf,
    holder: i32,
}

impl Guarded {
    pub(super) fn mount(stack: &Stack, options: &str) -> Self {
        private_mounts();
        let mnt = stack.mnt();
        let log = stack.dir().join("log");
        let out = Command::new(bin())
            .arg("-o")
            .arg(stack.options(options))
            .arg(&mnt)
            .env("PLYFS_LOG_FILE", &log)
            .env("PLYFS_LOG", "info")
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&out.stderr);
        assert!(out.status.success(), "{said}");
        let minor = nix::sys::stat::minor(fs::metadata(&mnt).unwrap().dev());
        let mut guarded = Self {
            mnt,
            log,
            state: PathBuf::from(format!("/run/plyfs/{minor}.json")),
            holder: 0,
        };
        guarded.holder = parent_of(guarded.pid());
        guarded
    }

    pub(super) fn path(&self) -> &Path {
        &self.mnt
    }

    /// The process that serves now.
    pub(super) fn pid(&self) -> i32 {
        // It may just be written.
        let until = Instant::now() + Duration::from_secs(10);
        loop {
            match self.read_pid() {
                Some(pid) => return pid,
                None => assert!(Instant::now() < until, "no state file"),
            }
        }
    }

    fn read_pid(&self) -> Option<i32> {
        let text = fs::read_to_string(&self.state).ok()?;
        let state: Value = serde_json::from_str(&text).ok()?;
        i32::try_from(state["pid"].as_i64()?).ok()
    }

    /// Kills the daemon and waits until another one has taken over.
    pub(super) fn kill(&self) {
        let pid = self.pid();
        self.kill_daemon();
        wait_until("another daemon has taken over", || self.pid() != pid);
    }

    /// Kills whoever serves now.
    pub(super) fn kill_daemon(&self) {
        kill(Pid::from_raw(self.pid()), Signal::SIGKILL).ok();
    }

    pub(super) fn kill_holder(&self) {
        kill(Pid::from_raw(parent_of(self.pid())), Signal::SIGKILL).unwrap();
    }

    pub(super) fn kill_stand_in(&self) {
        kill(Pid::from_raw(self.stand_in().unwrap()), Signal::SIGKILL).unwrap();
    }

    /// The child of the daemon that does the holder's work if that has ended.
    fn stand_in(&self) -> Option<i32> {
        let pid = self.pid();
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?;
        let mut pids = children.split_whitespace().filter_map(|p| p.parse().ok());
        pids.find(|pid: &i32| {
            let name = fs::read_to_string(format!("/proc/{pid}/comm"));
            name.is_ok_and(|name| name.trim() == "plyfs-stand-in")
        })
    }

    /// `plyfs upgrade` to another program, which this test's plyfs asks for.
    pub(super) fn upgrade(&self, program: &Path) -> Result<Value, String> {
        let out = Command::new(bin())
            .args(["upgrade", "--json", "--program"])
            .args([program, &self.mnt])
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&out.stdout).into_owned();
        let row: Value = serde_json::from_str(&said).unwrap_or_default();
        match (out.status.success(), row["error"].as_str()) {
            (true, _) => Ok(row),
            (false, Some(e)) => Err(e.to_owned()),
            (false, None) => Err(String::from_utf8_lossy(&out.stderr).into_owned()),
        }
    }

    pub(super) fn holder_is_gone(&self) -> bool {
        let line = fs::read(format!("/proc/{}/cmdline", self.holder));
        line.is_err() || line.is_ok_and(|line| line.is_empty())
    }

    /// What the kernel can forget of the mount it forgets, so that the daemon is asked.
    pub(super) fn forget_caches(&self) {
        // A remount prunes the names of this file system alone (`reconfigure_super()`).
        let flags = nix::mount::MsFlags::MS_REMOUNT | nix::mount::MsFlags::MS_NOATIME;
        let none = None::<&str>;
        nix::mount::mount(none, &self.mnt, none, flags, none).unwrap();
    }

    /// Whether daemon and state file have gone.
    pub(super) fn has_gone(&self) -> bool {
        self.read_pid().is_none()
    }

    pub(super) fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// What the daemon answers to a command at its control socket.
    pub(super) fn ask(&self, command: &str) -> Value {
        let until = Instant::now() + Duration::from_secs(30);
        loop {
            let asked = UnixStream::connect(self.state.with_extension("sock")).and_then(|mut s| {
                s.set_read_timeout(Some(Duration::from_secs(10)))?;
                writeln!(s, "{{\"version\":1,\"command\":\"{command}\"}}")?;
                let mut line = String::new();
                BufReader::new(s).read_line(&mut line)?;
                Ok(serde_json::from_str(&line)?)
            });
            match asked {
                Ok(answer) => return answer,
                // A daemon that was just killed answers nothing; the next one does.
                Err(e) => assert!(Instant::now() < until, "{command}: {e}"),
            }
        }
    }

    pub(super) fn status(&self) -> Value {
        self.ask("status")["status"].clone()
    }

    pub(super) fn restarts(&self) -> u64 {
        self.status()["restarts"].as_u64().unwrap()
    }

    pub(super) fn unmount(self) {
        let out = Command::new(bin())
            .arg("umount")
            .arg(&self.mnt)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&out.stderr).into_owned();
        assert!(out.status.success(), "{said}\n{}", self.log());
        let log = self.log();
        assert!(!log.contains("ERROR"), "{log}");
        let lost = log.lines().filter(|l| l.contains("took over"));
        lost.for_each(|l| assert!(l.contains("lost=0"), "{l}"));
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        if mounted_at(&self.mnt).is_some() {
            umount2(&self.mnt, MntFlags::MNT_DETACH).ok();
        }
        if std::thread::panicking() {
            kill(Pid::from_raw(self.holder), Signal::SIGKILL).ok();
            if let Some(pid) = self.read_pid() {
                let others = [self.stand_in().unwrap_or(pid), parent_of(pid), pid];
                let others = others.into_iter().filter(|pid| *pid > 1);
                for pid in others {
                    kill(Pid::from_raw(pid), Signal::SIGKILL).ok();
                }
            }
            println!("{}", self.log());
        }
    }
}

/// 0 where there is no such process.
fn parent_of(pid: i32) -> i32 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or(") X 0".to_owned());
    let behind_name = stat.rsplit(')').next().unwrap();
    behind_name
        .split_whitespace()
        .nth(1)
        .unwrap()
        .parse()
        .unwrap()
}
