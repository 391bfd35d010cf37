//! Listing directories: what, in which order, and how it goes on.
use plyfs_testkit::need_root;
use std::collections::{BTreeSet, HashSet};

use plyfs_sys::stat::Kind;
use plyfs_union::{Cookie, Flow, Make, NodeId, Union};

use crate::check::check;
use crate::client::Client;
use crate::world::World;

/// Up to `most` names behind `after`, and where to go on.
fn batch(union: &Union, dir: NodeId, after: Cookie, most: usize) -> (Vec<Vec<u8>>, Cookie) {
    let (mut names, mut next) = (Vec::new(), after);
    union
        .readdir(dir, after, |e| {
            if names.len() == most {
                return Flow::Break(());
            }
            assert!(e.next > next, "cookies do not grow");
            next = e.next;
            names.push(e.name.to_vec());
            Flow::Continue(())
        })
        .unwrap();
    (names, next)
}

/// All names, read in batches of `size`; `between` is called after each batch.
fn in_batches(
    union: &Union,
    dir: NodeId,
    size: usize,
    mut between: impl FnMut(usize),
) -> Vec<Vec<u8>> {
    let (mut all, mut at) = (Vec::new(), Cookie(2));
    for round in 0.. {
        let (names, next) = batch(union, dir, at, size);
        if names.is_empty() {
            return all;
        }
        all.extend(names);
        at = next;
        between(round);
    }
    unreachable!()
}

fn make_file(union: &Union, dir: NodeId, name: &[u8]) {
    let make = Make::Node(Kind::File.mode_bits() | 0o644, (0, 0));
    union
        .make(&plyfs_union::Caller::ROOT, dir, name, make)
        .unwrap();
}

#[test]
fn names_of_all_layers_are_listed_once() {
    check(
        "lower: /a=1 /b=1 wh /c | lower: /b=2 /c=2 /d=2 | upper: /a=0 /e=0 wh /d",
        "ls /=a,b,e; create /c; create /d; ls /=a,b,c,d,e; rm /a; ls /=b,c,d,e",
        "",
    );
}

#[test]
fn dots_come_first_and_have_the_right_numbers() {
    need_root!();
    let world = World::new("lower: /d/e/x=1 | upper: /u/v/w=1");
    let client = Client::new(world.open());
    for (dir, parent) in [("/d/e", "/d"), ("/d", "/"), ("/", "/"), ("/u/v", "/u")] {
        let node = client.node(dir).unwrap();
        let (own, up) = (
            client.attr(dir).unwrap().ino,
            client.attr(parent).unwrap().ino,
        );
        let mut seen = Vec::new();
        let list = client.union.readdir(node.id, Cookie(0), |e| {
            seen.push((e.name.to_vec(), e.ino, e.kind));
            Flow::Continue(())
        });
        list.unwrap();
        assert_eq!(seen[0], (b".".to_vec(), own, Kind::Dir), "{dir}");
        assert_eq!(seen[1], (b"..".to_vec(), up, Kind::Dir), "{dir}");
        assert!(seen.len() > 2);
        let (names, _) = batch(&client.union, node.id, Cookie(1), 1);
        assert_eq!(names, [b"..".to_vec()]);
    }
}

#[test]
fn only_directories_are_listed() {
    check(
        "lower: /f=1 /l->f | upper: /g=0",
        "ls /f= !ENOTDIR; ls /l= !ENOTDIR; ls /g= !ENOTDIR; stat /f/x !ENOTDIR",
        "",
    );
}

fn crowd(n: usize) -> World {
    let world = World::new("lower: /d/zz=1 | lower: /d/yy=1 | upper: /d");
    for i in 0..n {
        let layer = match i % 3 {
            0 => world.upper(),
            1 => world.lower(0).to_owned(),
            _ => world.lower(1).to_owned(),
        };
        std::fs::write(layer.join(format!("d/n{i}")), "").unwrap();
    }
    world.resealed()
}

#[test]
fn batches_of_any_size_give_the_same_list() {
    need_root!();
    let world = crowd(300);
    let client = Client::new(world.open());
    let dir = client.node("/d").unwrap();
    let whole = client.union.names(dir.id).unwrap();
    assert_eq!(whole.len(), 302);
    for size in [1, 2, 7, 100, 301, 302, 303] {
        assert_eq!(
            in_batches(&client.union, dir.id, size, |_| {}),
            whole,
            "batches of {size}"
        );
    }
    // The order is the same for another view, so a stream may go on there.
    let (first, at) = batch(&client.union, dir.id, Cookie(2), 150);
    let other = Client::new(world.open());
    let dir = other.node("/d").unwrap();
    let (rest, _) = batch(&other.union, dir.id, at, 1000);
    assert_eq!([first, rest].concat(), whole);
}

#[test]
fn a_stream_is_not_disturbed_by_what_happens_between_its_batches() {
    need_root!();
    let world = crowd(300);
    let client = Client::new(world.open());
    let dir = client.node("/d").unwrap();
    let before: BTreeSet<_> = client.union.names(dir.id).unwrap().into_iter().collect();
    let mut removed = HashSet::new();
    let names = in_batches(&client.union, dir.id, 10, |round| {
        make_file(&client.union, dir.id, format!("new{round}").as_bytes());
        let gone = format!("n{}", round * 7 % 300);
        if client.union.unlink(dir.id, gone.as_bytes()).is_ok() {
            removed.insert(gone.into_bytes());
        }
        // Copy-up moves a name from one layer to another under the reader.
        let risen = format!("/d/n{}", (round * 7 + 1) % 300);
        if let Ok(node) = client.node(&risen) {
            client
                .union
                .write(&client.caller, node.id, 0, b"x")
                .unwrap();
        }
    });
    let seen: BTreeSet<_> = names.iter().cloned().collect();
    assert_eq!(seen.len(), names.len(), "a name came twice");
    let missing: Vec<_> = before
        .difference(&seen)
        .filter(|n| !removed.contains(*n))
        .collect();
    assert!(
        missing.is_empty(),
        "names that were there all the time did not come: {missing:?}"
    );
}

#[test]
fn removing_what_was_listed_empties_a_directory() {
    need_root!();
    // rm -rf: list a batch, remove it, go on at the cookie.
    let world = crowd(300);
    let client = Client::new(world.open());
    let dir = client.node("/d").unwrap();
    let mut at = Cookie(2);
    loop {
        let (names, next) = batch(&client.union, dir.id, at, 25);
        if names.is_empty() {
            break;
        }
        for name in names {
            client.union.unlink(dir.id, &name).unwrap();
        }
        at = next;
    }
    assert!(client.union.names(dir.id).unwrap().is_empty());
    client.union.rmdir(NodeId::ROOT, b"d").unwrap();
    drop(dir);
    world.verify(&client.union);
}

/// Two names of one 64-bit FNV-1a hash, the base of cookies.
const TWINS: [&str; 2] = ["8yn0iYCKYHlIj4-BwPqk", "GReLUrM4wMqfg9yzV3KQ"];

#[test]
fn names_with_one_hash_are_told_apart() {
    need_root!();
    for layers in [
        "lower: /d/8yn0iYCKYHlIj4-BwPqk=a /d/GReLUrM4wMqfg9yzV3KQ=b /d/x=1 | upper:",
        "lower: /d/8yn0iYCKYHlIj4-BwPqk=a | upper: /d/GReLUrM4wMqfg9yzV3KQ=b /d/x=1",
        "lower: /d/x=1 | upper: /d/8yn0iYCKYHlIj4-BwPqk=a /d/GReLUrM4wMqfg9yzV3KQ=b",
    ] {
        let world = World::new(layers);
        let mut client = Client::new(world.open());
        let dir = client.node("/d").unwrap();
        let whole = client.union.names(dir.id).unwrap();
        assert_eq!(whole.len(), 3);
        for size in [1, 2] {
            assert_eq!(
                in_batches(&client.union, dir.id, size, |_| {}),
                whole,
                "{layers}"
            );
        }
        crate::ops::run(
            &world,
            &mut client,
            "cat /d/8yn0iYCKYHlIj4-BwPqk=a; cat /d/GReLUrM4wMqfg9yzV3KQ=b; rm /d/8yn0iYCKYHlIj4-BwPqk; \
             stat /d/8yn0iYCKYHlIj4-BwPqk !ENOENT; cat /d/GReLUrM4wMqfg9yzV3KQ=b; ls /d=GReLUrM4wMqfg9yzV3KQ,x; \
             create /d/8yn0iYCKYHlIj4-BwPqk",
        );
        assert_eq!(client.union.names(dir.id).unwrap().len(), 3);
        drop(dir);
        world.verify(&client.union);
    }
}

#[test]
fn a_twin_that_goes_between_batches_does_not_take_the_other_along() {
    need_root!();
    let world = World::new(
        "lower: /x=1 | upper: /d/8yn0iYCKYHlIj4-BwPqk=a /d/GReLUrM4wMqfg9yzV3KQ=b /d/x=1",
    );
    for remove_first in [true, false] {
        let client = Client::new(world.open());
        let dir = client.node("/d").unwrap();
        // Read up to and with the first twin.
        let whole = client.union.names(dir.id).unwrap();
        let is_twin = |n: &Vec<u8>| TWINS.iter().any(|t| t.as_bytes() == n);
        let first = whole.iter().position(is_twin).unwrap();
        let (_, at) = batch(&client.union, dir.id, Cookie(2), first + 1);
        let (gone, stays) = if remove_first {
            (first, first + 1)
        } else {
            (first + 1, first)
        };
        client.union.unlink(dir.id, &whole[gone]).unwrap();
        // A new stream drops the cached listing, as another reader's would.
        client.union.names(dir.id).unwrap();
        let (rest, _) = batch(&client.union, dir.id, at, 10);
        let came = rest.contains(&whole[stays]);
        make_file(&client.union, dir.id, &whole[gone]);
        assert_eq!(came, remove_first, "{rest:?}");
    }
}

#[test]
fn many_layers_merge() {
    need_root!();
    let mut layers = String::new();
    for i in 0..20 {
        layers += &format!("lower: /d/own{i}={i} /d/all={i} /d/s/deep{i}={i} |");
    }
    let world = World::new(&format!("{layers} upper:"));
    let client = Client::new(world.open());
    let names = client.union.names(client.node("/d").unwrap().id).unwrap();
    assert_eq!(names.len(), 22);
    let names = client.union.names(client.node("/d/s").unwrap().id).unwrap();
    assert_eq!(names.len(), 20);
    assert_eq!(client.read("/d/all").unwrap(), b"0");
    assert_eq!(client.read("/d/own19").unwrap(), b"19");
    world.verify(&client.union);
}

#[test]
fn a_hundred_thousand_names() {
    need_root!();
    const N: usize = 100_000;
    // A lower tree of empty links of one file is quick to make and to look through.
    let world = World::new("lower: /d/zz=1 | upper:");
    let dir = world.lower(0).join("d");
    let mut first = dir.join("zz");
    for i in 0..N {
        // ext4 allows 65,000 links of a file.
        let name = dir.join(format!("file{i:06}"));
        if i % 50_000 == 0 {
            std::fs::write(&name, "").unwrap();
            first = name;
        } else {
            std::fs::hard_link(&first, name).unwrap();
        }
    }
    let client = Client::new(world.open());
    let dir = client.node("/d").unwrap();
    let begin = std::time::Instant::now();
    let names = in_batches(&client.union, dir.id, 1000, |_| {});
    assert_eq!(names.len(), N + 1);
    assert_eq!(names.iter().collect::<HashSet<_>>().len(), N + 1);
    assert!(client.node("/d/file050000").is_ok());
    assert!(client.node("/d/file100000").is_err());
    client.union.unlink(dir.id, b"file000077").unwrap();
    make_file(&client.union, dir.id, b"another");
    assert_eq!(client.union.names(dir.id).unwrap().len(), N + 1);
    assert!(begin.elapsed().as_secs() < 20, "{:?}", begin.elapsed());
}

#[test]
fn tiny_caches_change_nothing_but_speed() {
    check(
        "lower: /a/x=1 /a/s/t=1 /b/y=1 | lower: /a/z=2 /b/s/u=2 | upper: /c/w=0 | opts: fds=1 cache=1",
        "hold f /a/s/t; append /a/s/t 2; mv /a /aa; rm /b/y; append @f 3; cat /aa/s/t=123; create /b/s/v; mv /aa/s /b/ss; \
         append @f 4; rm /b/ss/t; append @f 5; cat @f=12345",
        "tree: /aa/x=1 /aa/z=2 /b/s/u=2 /b/s/v= /b/ss /c/w=0",
    );
}

#[test]
fn readdir_plus_gives_back_what_is_not_taken() {
    need_root!();
    let world = World::new("lower: /a=1 /b=1 /c=1 | upper: /d=0");
    let union = world.open();
    let mut taken = Vec::new();
    union
        .readdir_plus(NodeId::ROOT, Cookie(2), |_, entry| {
            if taken.len() == 2 {
                return Flow::Break(());
            }
            taken.extend(entry);
            Flow::Continue(())
        })
        .unwrap();
    assert_eq!(union.known_inodes(), 3);
    drop(taken);
    assert_eq!(union.known_inodes(), 1);
}
