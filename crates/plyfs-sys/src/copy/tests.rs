use std::io::{Seek, SeekFrom, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;

use super::{copy_by_buffer, copy_data};
use crate::open::{Access, create_file, open_file};
use crate::scratch::{Scratch, as_name};

#[test]
fn data_arrives_whole_or_up_to_the_limit() {
    let scratch = Scratch::new("f src");
    let data: Vec<u8> = (0..100_000u32).map(|i| i as u8).collect();
    std::fs::write(scratch.path("src"), &data).unwrap();
    let src = open_file(scratch.at("src"), Access::READ).unwrap();
    for size in [0, 1, 4096, 99_999, 100_000] {
        let name = format!("dst{size}");
        let dst = create_file(scratch.fd(), as_name(&name), 0o600).unwrap();
        copy_data(src.as_fd(), dst.as_fd(), size as u64).unwrap();
        let got = std::fs::read(scratch.path(&name)).unwrap();
        // Where extents are shared the file comes whole; the caller cuts it.
        assert!(
            got.len() >= size && got[..size] == data[..size],
            "{size}: {}",
            got.len()
        );
    }
}

#[test]
fn holes_stay_holes() {
    let scratch = Scratch::new("f src");
    let mut file = std::fs::File::create(scratch.path("src")).unwrap();
    for at in [3 << 20, 9 << 20] {
        file.seek(SeekFrom::Start(at)).unwrap();
        file.write_all(b"island").unwrap();
    }
    file.set_len(20 << 20).unwrap();
    let src = open_file(scratch.at("src"), Access::READ).unwrap();
    let dst = create_file(scratch.fd(), as_name("dst"), 0o600).unwrap();
    copy_data(src.as_fd(), dst.as_fd(), 20 << 20).unwrap();
    let (a, b) = (scratch.path("src"), scratch.path("dst"));
    assert_eq!(std::fs::read(a).unwrap(), std::fs::read(&b).unwrap());
    assert!(b.metadata().unwrap().blocks() < 1000);
}

#[test]
fn a_hole_alone_is_copied_too() {
    let scratch = Scratch::new("f src");
    std::fs::File::options()
        .write(true)
        .open(scratch.path("src"))
        .unwrap()
        .set_len(1 << 40)
        .unwrap();
    let src = open_file(scratch.at("src"), Access::READ).unwrap();
    let dst = create_file(scratch.fd(), as_name("dst"), 0o600).unwrap();
    copy_data(src.as_fd(), dst.as_fd(), 1 << 40).unwrap();
    let meta = scratch.path("dst").metadata().unwrap();
    assert_eq!((meta.len(), meta.blocks()), (1 << 40, 0));
}

#[test]
fn the_kernel_is_not_needed_to_copy() {
    let scratch = Scratch::new("f src");
    let data = vec![7; (2 << 20) + 5];
    std::fs::write(scratch.path("src"), &data).unwrap();
    let src = open_file(scratch.at("src"), Access::READ).unwrap();
    let dst = create_file(scratch.fd(), as_name("dst"), 0o600).unwrap();
    copy_by_buffer(src.as_fd(), dst.as_fd(), 3, data.len() as u64, &mut |_| {}).unwrap();
    let got = std::fs::read(scratch.path("dst")).unwrap();
    assert_eq!(
        (got.len(), &got[..3], &got[3..]),
        (data.len(), &[0; 3][..], &data[3..])
    );
}

#[test]
fn a_source_that_ends_early_is_an_error() {
    let scratch = Scratch::new("f src = short");
    let src = open_file(scratch.at("src"), Access::READ).unwrap();
    let dst = create_file(scratch.fd(), as_name("dst"), 0o600).unwrap();
    assert!(copy_by_buffer(src.as_fd(), dst.as_fd(), 0, 100, &mut |_| {}).is_err());
}
