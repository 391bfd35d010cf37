//! Reading and writing data.
use crate::check::check;
use crate::client::Client;
use crate::world::World;
use plyfs_testkit::need_root;

#[test]
fn data_comes_from_where_it_is() {
    check(
        "lower: /a=@70000 | lower: /b=2 | upper: /c=0",
        "cat /a=@70000; cat /b=2; cat /c=0; put /b 5 x; put /c 0 1; append /a z; stat /a size=70001",
        "tree: /a=@70000 size=70001, /b= size=6 /c=1",
    );
}

#[test]
fn a_reader_sees_a_later_write_of_another() {
    check(
        "lower: /f=old | upper:",
        "hold r /f; cat @r=old; write /f new; cat @r=new; put @r 0 N; cat /f=New",
        "tree: /f=New",
    );
}

#[test]
fn reading_stops_at_the_end() {
    need_root!();
    let world = World::new("lower: /f=data /d/x=1 /l->f | upper:");
    let client = Client::new(world.open());
    let f = client.node("/f").unwrap();
    let mut buf = [0; 10];
    assert_eq!(client.union.read(f.id, 0, &mut buf).unwrap(), 4);
    assert_eq!(client.union.read(f.id, 3, &mut buf).unwrap(), 1);
    assert_eq!(client.union.read(f.id, 4, &mut buf).unwrap(), 0);
    assert_eq!(client.union.read(f.id, 1 << 40, &mut buf).unwrap(), 0);
    for path in ["/d", "/l"] {
        let node = client.node(path).unwrap();
        assert!(client.union.read(node.id, 0, &mut buf).is_err());
    }
}

#[test]
fn space_is_made_and_given_back() {
    need_root!();
    check(
        "lower: /f=data /g=@8192 | upper:",
        "alloc /f 0 10000; stat /f size=10000; alloc /g 8192 1; stat /g size=8193; punch /g 0 4096; stat /g size=8193",
        "",
    );
    let world = World::new("lower: /g=@12288 | upper:");
    let mut client = Client::new(world.open());
    crate::ops::run(&world, &mut client, "punch /g 4096 4096");
    let data = client.read("/g").unwrap();
    assert!(data[4096..8192].iter().all(|b| *b == 0) && data[4095] != 0 && data[8192] != 0);
}

#[test]
fn holes_are_found() {
    need_root!();
    let world = World::new("lower: /f=@4096 size=40960 | upper:");
    let mut client = Client::new(world.open());
    for copied_up in [false, true] {
        if copied_up {
            crate::ops::run(&world, &mut client, "touch /f 5");
        }
        let node = client.node("/f").unwrap();
        let seek = |off, whence| {
            client
                .union
                .seek(node.id, off, whence)
                .map_err(|e| e.errno())
        };
        // SEEK_DATA is 3, SEEK_HOLE is 4.
        assert_eq!(seek(0, 3), Ok(0));
        assert_eq!(seek(0, 4), Ok(4096), "copied up: {copied_up}");
        assert_eq!(seek(5000, 3), Err(plyfs_sys::Errno::ENXIO));
        assert_eq!(seek(5000, 4), Ok(5000));
        assert_eq!(seek(40960, 4), Err(plyfs_sys::Errno::ENXIO));
    }
}

#[test]
fn ranges_are_copied_between_layers() {
    check(
        "lower: /a=abcdef /b=1234567 | upper: /c=xyz",
        "copy /a /b 3; cat /b=abc4567; copy /c /a 3; cat /a=xyzdef; copy /b /c 7; cat /c=abc4567",
        "tree: /a=xyzdef /b=abc4567 /c=abc4567",
    );
}

#[test]
fn a_range_copied_within_a_lower_file_reads_the_copy() {
    need_root!();
    let world = World::new("lower: /f=abcdef | upper:");
    let client = Client::new(world.open());
    let f = client.node("/f").unwrap();
    let n = client
        .union
        .copy_range(&client.caller, (f.id, 0), (f.id, 3), 3);
    assert_eq!(n.unwrap(), 3);
    assert_eq!(client.read("/f").unwrap(), b"abcabc");
}

#[test]
fn data_is_only_in_regular_files() {
    check(
        "lower: /d/x=1, fifo /p, /l->x | upper:",
        "put /p 0 x !EINVAL; trunc /d 0 !EISDIR; trunc /p 0 !EINVAL; alloc /p 0 1 !EINVAL",
        "tree: /d/x=1, fifo /p, /l->x",
    );
}

#[test]
fn big_writes_and_reads_are_whole() {
    need_root!();
    let world = World::new("lower: /f=@3000000 | upper:");
    let client = Client::new(world.open());
    let f = client.node("/f").unwrap();
    let data = vec![7; 5 << 20];
    assert_eq!(
        client
            .union
            .write(&client.caller, f.id, 1 << 20, &data)
            .unwrap(),
        data.len()
    );
    let got = client.read("/f").unwrap();
    assert_eq!(got.len(), 6 << 20);
    assert_eq!(
        got[..1 << 20],
        crate::text::content_of("@3000000")[..1 << 20]
    );
    assert_eq!(got[1 << 20..], data);
}

#[test]
fn statfs_answers_for_the_upper() {
    need_root!();
    let world = World::new("lower: /f=1 | upper:");
    let fs = world.open().statfs().unwrap();
    assert!(fs.blocks > 0 && fs.namelen == 255, "{fs:?}");
}
