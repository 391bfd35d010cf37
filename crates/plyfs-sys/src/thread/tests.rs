use plyfs_testkit::need_root;

use super::{ActAs, set_umask};
use crate::make::mkdir;
use crate::scratch::{Scratch, as_name};
use crate::stat::stat;

#[test]
fn every_thread_has_its_own_umask() {
    let scratch = Scratch::new("");
    std::thread::scope(|scope| {
        for (name, mask, mode) in [("a", 0, 0o777), ("b", 0o077, 0o700), ("c", 0o027, 0o750)] {
            let scratch = &scratch;
            scope.spawn(move || {
                for round in 0..20 {
                    set_umask(mask).unwrap();
                    let name = format!("{name}{round}");
                    mkdir(scratch.fd(), as_name(&name), 0o777).unwrap();
                    assert_eq!(stat(scratch.at(&name)).unwrap().perm(), mode);
                }
            });
        }
    });
}

#[test]
fn ids_are_acted_as_and_given_back() {
    need_root!();
    let scratch = Scratch::new("m 777 .");
    let scratch = &scratch;
    let made_by = move |name: &str| {
        mkdir(scratch.fd(), as_name(name), 0o755).unwrap();
        let found = stat(scratch.at(name)).unwrap();
        (found.uid, found.gid)
    };
    let (ask, asked) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        // Another thread is not concerned, if it was there before.
        let beside = scope.spawn(move || {
            asked.recv().unwrap();
            made_by("beside")
        });
        let _acting = ActAs::new(1000, 2000).unwrap();
        assert_eq!(made_by("as-user"), (1000, 2000));
        ask.send(()).unwrap();
        assert_eq!(beside.join().unwrap(), (0, 0));
    });
    assert_eq!(made_by("after"), (0, 0));
}

#[test]
fn privileges_go_with_the_user_and_come_back() {
    need_root!();
    let scratch = Scratch::new("d closed\nm 700 closed");
    let closed = scratch.dir("closed");
    let make = |name: &str| {
        use std::os::fd::AsFd;
        mkdir(closed.as_fd(), as_name(name), 0o755).map_err(|e| e.errno())
    };
    {
        let _acting = ActAs::new(1000, 1000).unwrap();
        assert_eq!(make("x"), Err(crate::Errno::EACCES));
    }
    assert_eq!(make("x"), Ok(()));
}
