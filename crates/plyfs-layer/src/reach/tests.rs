use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;

use plyfs_sys::open::Access;
use plyfs_sys::{Errno, Name, NameBuf, Result, SysError, io, open, stat};

use super::Reach;
use crate::obj::{LayerIdx, Obj};

fn name(text: &str) -> NameBuf {
    Name::new(text.as_bytes()).unwrap().to_owned()
}

struct Layer {
    dir: tempfile::TempDir,
    root: Arc<Obj>,
}

impl Layer {
    fn new(spec: &str) -> Self {
        let dir = tempfile::tempdir_in(plyfs_testkit::scratch_base()).unwrap();
        plyfs_testkit::plant(dir.path(), spec);
        let fd = open::open_dir_path(dir.path()).unwrap();
        let id = stat::stat_fd(fd.as_fd()).unwrap().id();
        let root = Obj::pinned(LayerIdx(1), id, Arc::new(fd));
        Self { dir, root }
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    /// The object at `path`, each directory on the way one of its own.
    fn obj(&self, path: &str) -> Arc<Obj> {
        let mut at = Arc::clone(&self.root);
        let mut on_disk = self.path().to_owned();
        for part in path.split('/') {
            on_disk.push(part);
            let parent = open::open_dir_path(on_disk.parent().unwrap()).unwrap();
            let fd = open::open_path(parent.as_fd(), &name(part)).unwrap();
            let id = stat::stat_fd(fd.as_fd()).unwrap().id();
            at = Obj::found(LayerIdx(1), id, &at, name(part));
        }
        at
    }
}

fn ino(reach: &Reach, obj: &Obj) -> Result<u64> {
    reach.with(obj, stat::stat).map(|s| s.ino)
}

#[test]
fn objects_are_reached_by_their_names() {
    let layer = Layer::new("f a/b/c/f = text");
    let reach = Reach::new(64);
    let f = layer.obj("a/b/c/f");
    assert_eq!(ino(&reach, &f).unwrap(), f.id().ino);
    let fd = reach.open_file(&f, Access::READ).unwrap();
    let mut buf = [0; 8];
    assert_eq!(io::pread(fd.as_fd(), &mut buf, 0).unwrap(), 4);
}

#[test]
fn a_cache_of_one_finds_everything_again() {
    let layer = Layer::new("f a/b/c/f = 1\nf d/e/f/g = 2\nf h/i/j/k = 3");
    let reach = Reach::new(1);
    let objs = ["a/b/c/f", "d/e/f/g", "h/i/j/k", "a/b", "d"].map(|p| layer.obj(p));
    for _ in 0..3 {
        for obj in &objs {
            assert_eq!(ino(&reach, obj).unwrap(), obj.id().ino);
        }
    }
}

#[test]
fn another_object_under_the_name_is_told_apart() {
    let layer = Layer::new("f d/f = 1\nf f = 1");
    let reach = Reach::new(64);
    let (d, f) = (layer.obj("d"), layer.obj("f"));
    std::fs::rename(layer.path().join("d"), layer.path().join("e")).unwrap();
    std::fs::create_dir(layer.path().join("d")).unwrap();
    std::fs::write(layer.path().join("new"), "2").unwrap();
    std::fs::rename(layer.path().join("new"), layer.path().join("f")).unwrap();
    assert_eq!(reach.dir_fd(&d).unwrap_err().errno(), Errno::ESTALE);
    let opened = reach.open_file(&f, Access::READ);
    assert_eq!(opened.unwrap_err().errno(), Errno::ESTALE);
}

#[test]
fn an_open_directory_is_found_wherever_it_moves() {
    let layer = Layer::new("f d/f = 1");
    let reach = Reach::new(64);
    let d = layer.obj("d");
    reach.dir_fd(&d).unwrap();
    std::fs::rename(layer.path().join("d"), layer.path().join("e")).unwrap();
    assert!(reach.dir_fd(&d).is_ok());
    reach.forget(&d);
    assert_eq!(reach.dir_fd(&d).unwrap_err().errno(), Errno::ENOENT);
    d.place_mut().names[0].1 = name("e");
    assert!(reach.dir_fd(&d).is_ok());
}

#[test]
fn a_pin_needs_no_name() {
    let layer = Layer::new("f f = text\nl l -> target");
    let reach = Reach::new(64);
    for path in ["f", "l"] {
        let obj = layer.obj(path);
        let pin = reach.open_pin(&obj).unwrap();
        std::fs::remove_file(layer.path().join(path)).unwrap();
        {
            let mut place = obj.place_mut();
            place.names.clear();
            place.pinned = Some(pin);
        }
        assert_eq!(ino(&reach, &obj).unwrap(), obj.id().ino);
        if path == "f" {
            reach.open_file(&obj, Access::READ | Access::WRITE).unwrap();
        }
    }
}

#[test]
fn what_has_neither_name_nor_pin_is_stale() {
    let layer = Layer::new("f f = text");
    let reach = Reach::new(64);
    let obj = layer.obj("f");
    obj.place_mut().names.clear();
    assert_eq!(ino(&reach, &obj).unwrap_err().errno(), Errno::ESTALE);
    assert_eq!(reach.dir_fd(&obj).unwrap_err().errno(), Errno::ESTALE);
    let failed: Result<()> =
        reach.with(&layer.root, |_| Err(SysError::new("anything", Errno::EIO)));
    assert_eq!(failed.unwrap_err().errno(), Errno::EIO);
}
