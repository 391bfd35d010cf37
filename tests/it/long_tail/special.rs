//! Programs that run, sockets and fifos that carry, devices that answer.
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{FileExt, FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use nix::errno::Errno;
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use plyfs_testkit::wait_until;

use super::both;
use super::extremes::on_both;
use crate::support::{agree, errno, read, run};

/// A program that waits for its input to end.
fn plant_program(dir: &Path) {
    fs::copy("/bin/cat", dir.join("program")).unwrap();
    fs::set_permissions(dir.join("program"), PermissionsExt::from_mode(0o755)).unwrap();
}

/// Starts it. Another test of this process that is about to start a program may hold the descriptor
/// by which ours was written for a moment more.
fn started(program: &Path) -> Child {
    let mut child = None;
    wait_until("nobody writes the program", || {
        let mut command = Command::new(program);
        child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .ok();
        child.is_some()
    });
    child.unwrap()
}

/// A program that runs cannot be written, a file that is written cannot be run.
fn busy(program: &Path) {
    let mut run = started(program);
    run.stdin.as_mut().unwrap().write_all(b"it runs").unwrap();
    assert_eq!(
        errno(OpenOptions::new().write(true).open(program)),
        Errno::ETXTBSY
    );
    assert_eq!(
        errno(nix::unistd::truncate(program, 0).map_err(Into::into)),
        Errno::ETXTBSY
    );
    let output = run.wait_with_output().unwrap();
    assert_eq!(output.stdout, b"it runs");
    let writer = OpenOptions::new().append(true).open(program).unwrap();
    assert_eq!(errno(Command::new(program).spawn()), Errno::ETXTBSY);
    drop(writer);
    let output = started(program).wait_with_output().unwrap();
    assert!(output.status.success());
}

#[test]
fn programs_that_run_are_not_written() {
    on_both(plant_program, |m| {
        fs::create_dir(m.join("new")).unwrap();
        plant_program(&m.join("new"));
        busy(&m.join("new/program"));
        busy(&m.join("program"));
        // Copied up while it runs: by its attributes, which is allowed.
        let mut run = started(&m.join("program"));
        fs::set_permissions(m.join("program"), PermissionsExt::from_mode(0o700)).unwrap();
        fs::rename(m.join("program"), m.join("other")).unwrap();
        fs::write(m.join("program"), "another").unwrap();
        drop(run.stdin.take());
        assert!(run.wait().unwrap().success());
        // Written, it is another program.
        both(m.join("other"))
            .write_all_at(b"#!/bin/sh\necho script; exit #", 0)
            .unwrap();
        wait_until("nobody writes the script", || {
            let said = Command::new(m.join("other")).output();
            said.is_ok_and(|said| said.stdout == b"script\n")
        });
    });
}

#[test]
fn sockets_carry() {
    agree(&["d d"], |m| {
        // Names of sockets are short: by the working directory of a program it would be, here by a link.
        let link = std::env::temp_dir().join(format!("plyfs-socket-{}", std::process::id()));
        std::os::unix::fs::symlink(m, &link).unwrap();
        let path = link.join("d/socket");
        let listener = UnixListener::bind(&path).unwrap();
        assert!(
            fs::symlink_metadata(m.join("d/socket"))
                .unwrap()
                .file_type()
                .is_socket()
        );
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let (mut peer, _) = listener.accept().unwrap();
                let mut said = String::new();
                peer.read_to_string(&mut said).unwrap();
                assert_eq!(said, "hello");
            });
            UnixStream::connect(&path)
                .unwrap()
                .write_all(b"hello")
                .unwrap();
        });
        assert_eq!(errno(File::open(&path)), Errno::ENXIO);
        // The name moves with the socket; without the listener nobody answers.
        fs::rename(&path, link.join("moved")).unwrap();
        UnixStream::connect(link.join("moved")).unwrap();
        drop(listener);
        wait_until("the listener is gone", || {
            errno(UnixStream::connect(link.join("moved"))) == Errno::ECONNREFUSED
        });
        assert_eq!(
            errno(UnixListener::bind(link.join("moved"))),
            Errno::EADDRINUSE
        );
        fs::remove_file(&link).unwrap();
    });
}

#[test]
fn fifos_carry() {
    agree(&["p lower"], |m| {
        mkfifo(&m.join("new"), Mode::from_bits_truncate(0o600)).unwrap();
        for name in ["lower", "new"] {
            let path = m.join(name);
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    let mut fifo = OpenOptions::new().write(true).open(&path).unwrap();
                    fifo.write_all(b"through").unwrap();
                });
                assert_eq!(read(&path), "through");
            });
            // Copied up or renamed, it carries on.
            run(m, "chmod", &["640", name]);
            let moved = m.join(format!("{name}-moved"));
            fs::rename(&path, &moved).unwrap();
            let reader = both(&moved);
            OpenOptions::new()
                .write(true)
                .open(&moved)
                .unwrap()
                .write_all(b"again")
                .unwrap();
            let mut seen = [0; 5];
            (&reader).read_exact(&mut seen).unwrap();
            assert_eq!(&seen, b"again");
        }
    });
}

#[test]
fn devices_of_the_lower_answer() {
    agree(&["c null 1 3\nc zero 1 5"], |m| {
        fs::write(m.join("null"), "gone").unwrap();
        assert_eq!(read(m.join("null")), "");
        run(m, "chmod", &["666", "null"]);
        fs::write(m.join("null"), "gone").unwrap();
        let mut seen = [1; 16];
        File::open(m.join("zero"))
            .unwrap()
            .read_exact(&mut seen)
            .unwrap();
        assert_eq!(seen, [0; 16]);
    });
}
