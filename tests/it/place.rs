//! A store and its sources in a directory of their own, for the tests of images.
use std::path::PathBuf;
use std::process::{Command, Output};

use plyfs_testkit::bin;

use crate::support::run;

/// A directory with a store, sources and places to mount.
pub(crate) struct Place {
    pub(crate) dir: tempfile::TempDir,
}

impl Place {
    pub(crate) fn new() -> Self {
        let base = plyfs_testkit::scratch_base();
        let dir = tempfile::tempdir_in(base).unwrap();
        Self { dir }
    }

    pub(crate) fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(bin());
        command.arg("--root").arg(self.at("store")).args(args);
        command.current_dir(self.dir.path());
        command
    }

    pub(crate) fn output(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    /// Runs plyfs, which must succeed; what it printed.
    pub(crate) fn plyfs(&self, args: &[&str]) -> String {
        let done = self.output(args);
        let said = String::from_utf8_lossy(&done.stderr);
        assert!(
            done.status.success(),
            "plyfs {args:?}: {}: {said}",
            done.status
        );
        String::from_utf8_lossy(&done.stdout).trim().to_owned()
    }

    pub(crate) fn sh(&self, script: &str) -> String {
        run(self.dir.path(), "sh", &["-euc", script])
    }

    /// An OCI layout `layout` with image `app:1`: a base, and layers with whiteouts, an opaque
    /// directory, hard links, xattrs, a capability, devices and odd owners.
    pub(crate) fn layout(&self) {
        self.sh(
            "umoci init --layout layout; umoci new --image layout:1; umoci unpack --image layout:1 b\n\
             cd b/rootfs; mkdir -p etc usr/bin var/log data/deep/er tmp gone\n\
             echo root:x:0:0::/:/bin/sh >etc/passwd; echo one >etc/conf; ln etc/conf etc/link\n\
             ln -s ../etc/conf usr/conf; chmod 1777 tmp; chown 12:34 data; touch gone/a gone/b\n\
             setfattr -n user.note -v n data/deep; cp /bin/cat usr/bin/cap\n\
             setcap cap_net_raw+ep usr/bin/cap; chmod 4755 usr/bin/cap; setcap cap_net_raw+ep usr/bin/cap\n\
             mkfifo var/p; mknod var/null c 1 3; seq 5000 >data/deep/er/f; cd ../..\n\
             umoci repack --image layout:1 b; rm -r b; umoci unpack --image layout:1 b; cd b/rootfs\n\
             rm -r gone etc/link; echo two >etc/conf; mkdir gone; touch gone/new; rm data/deep/er/f\n\
             cd ../..; umoci repack --image layout:1 b; rm -r b\n\
             mkdir opq; echo only >opq/only\n\
             umoci insert --opaque --image layout:1 opq /data; umoci insert --whiteout --image layout:1 /var/log\n\
             umoci config --image layout:1 --config.env A=b --config.cmd /bin/true",
        );
    }
}
