//! Requests that hang, as on a dead disk, must not stop the others.
use std::fs;
use std::path::Path;
use std::sync::mpsc::channel;
use std::time::Duration;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use plyfs_testkit::{Stack, mount_plyfs, need_fuse};

use crate::support::names;

/// Requests that hang at one time; fewer than the threads that serve.
const HANGING: usize = 10;
/// Longer than anything but a request that nobody serves.
const PATIENCE: Duration = Duration::from_secs(60);

/// A stopped daemon; dropping this lets it go on, or nothing could be unmounted.
struct Stopped(Pid);

impl Stopped {
    fn new(pid: u32) -> Self {
        let pid = Pid::from_raw(pid.cast_signed());
        kill(pid, Signal::SIGSTOP).unwrap();
        Self(pid)
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        kill(self.0, Signal::SIGCONT).unwrap();
    }
}

fn plant(dir: &Path, files: usize) {
    fs::create_dir(dir).unwrap();
    for i in 0..files {
        fs::write(dir.join(format!("f{i}")), "x").unwrap();
    }
}

/// The lower layer that hangs is a mount of plyfs itself, whose daemon is stopped.
#[test]
fn requests_are_served_while_others_hang_on_their_layer() {
    need_fuse!();
    let (slow, outer) = (Stack::new(1), Stack::new(2));
    plant(&slow.lower(0).join("slow"), 2 * HANGING);
    plant(&outer.lower(0).join("quick"), 1000);
    let disk = mount_plyfs(&slow, "");
    let no = None::<&Path>;
    mount(Some(disk.path()), outer.lower(1), no, MsFlags::MS_BIND, no).unwrap();
    let mounted = mount_plyfs(&outer, "");
    // The directories are known; what is in them has not been asked of the layer.
    assert_eq!(names(mounted.path()), ["quick", "slow"]);
    assert_eq!(names(mounted.join("slow")).len(), 2 * HANGING);
    // As many requests as it takes for all but one thread to have nothing to do.
    for i in 0..100 {
        fs::metadata(mounted.join(format!("quick/f{i}"))).unwrap();
    }

    let stopped = Stopped::new(disk.pid().unwrap());
    let (done, finished) = channel();
    let path = mounted.path().to_owned();
    let hanging: Vec<_> = (0..HANGING)
        .map(|i| {
            let (path, done) = (path.join(format!("slow/f{i}")), done.clone());
            std::thread::spawn(move || {
                let content = fs::read_to_string(path);
                done.send(()).unwrap();
                content.unwrap()
            })
        })
        .collect();
    let (quick_done, quick_finished) = channel();
    let quick = path.clone();
    std::thread::spawn(move || {
        for i in 100..1000 {
            fs::metadata(quick.join(format!("quick/f{i}"))).unwrap();
        }
        fs::write(quick.join("quick/new"), "data").unwrap();
        fs::remove_file(quick.join("quick/f0")).unwrap();
        quick_done.send(()).unwrap();
    });
    let served = quick_finished.recv_timeout(PATIENCE);
    let hang = finished.try_recv().is_err();
    drop(stopped);
    for reader in hanging {
        assert_eq!(reader.join().unwrap(), "x");
    }
    assert!(
        served.is_ok(),
        "nobody served while {HANGING} requests hung"
    );
    assert!(hang, "the layer did not hang, so nothing was shown");
    mounted.unmount();
    umount2(outer.lower(1), MntFlags::empty()).unwrap();
    disk.unmount();
}
