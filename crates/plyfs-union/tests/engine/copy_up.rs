//! What rises to the upper, when, and with what.
use crate::check::check;
use crate::client::Client;
use crate::world::World;
use plyfs_testkit::need_root;

#[test]
fn the_first_write_copies_everything_up() {
    check(
        "lower: /d/f=data mode=604 own=3:4 t=9 x:user.k=v x:trusted.t=w, /d t=5 own=1:2 mode=701 | upper:",
        "put /d/f 4 +",
        "tree: /d t=5 /d/f=data+ mode=604 own=3:4 x:user.k=v x:trusted.t=w \
         | upper: / impure, /d t=5 own=1:2 mode=701 origin impure, \
           /d/f=data+ mode=604 own=3:4 x:user.k=v x:trusted.t=w origin",
    );
}

#[test]
fn reading_copies_nothing_up() {
    check(
        "lower: /d/f=data /d/l->x | upper:",
        "cat /d/f=data; readlink /d/l=x; ls /d=f,l; stat /d/f; listx /d/f=; fsync /d/f; fsync /d; put /d/f 0 x; cat /d/f=xata",
        "tree: /d/f=xata /d/l->x | upper: /d/f=xata",
    );
    check(
        "lower: /d/f=data | upper:",
        "cat /d/f=data; fsync /d/f; fsync /d; rmx /d/f user.no !ENODATA; chmod 600 /no !ENOENT",
        "tree: /d/f=data | upper:",
    );
}

#[test]
fn times_survive_to_the_nanosecond() {
    check(
        "lower: /d/f=data /d/l->x, fifo /d/p, /d | upper:",
        "stat /d/f mtime=1500000000.123456789; chmod 600 /d/f; stat /d/f mtime=1500000000.123456789; \
         chown 1:1 /d/l; stat /d/l mtime=1500000000.123456789; chmod 600 /d/p; stat /d/p mtime=1500000000.123456789; \
         stat /d mtime=1500000000.123456789; chmod 700 /d; stat /d mtime=1500000000.123456789",
        "tree: /d t=1500000000 mode=700 /d/f=data, /d/l->x, fifo /d/p",
    );
}

#[test]
fn copy_up_does_not_touch_the_times_of_the_parent() {
    check(
        "lower: /a/b/f=1 | upper: /a t=77",
        "append /a/b/f 2; stat /a mtime=77.000000001; stat /a/b mtime=1500000000.123456789",
        "tree: /a/b/f=12",
    );
}

#[test]
fn every_kind_rises() {
    check(
        "lower: fifo /p mode=600, sock /s mode=601, chr /c mode=602, blk /b mode=603, /l->t own=9:9, /d mode=1777 | upper:",
        "chown 1:2 /p; chown 1:2 /s; chown 1:2 /c; chown 1:2 /b; chown 1:2 /l; chown 1:2 /d",
        "tree: fifo /p own=1:2 mode=600, sock /s own=1:2 mode=601, chr /c own=1:2 mode=602, blk /b own=1:2 mode=603, /l->t own=1:2, /d own=1:2 mode=1777 \
         | upper: fifo /p origin, sock /s, chr /c, blk /b, /l->t, /d origin mode=1777",
    );
}

#[test]
fn suid_sgid_and_sticky_survive() {
    check(
        "lower: /a= mode=6755 own=5:6, /b=1 mode=2711 own=5:6 | upper:",
        "touch /a 5; setx /b user.k v",
        "tree: /a= mode=6755 own=5:6, /b=1 mode=2711 own=5:6",
    );
}

#[test]
fn acls_and_capabilities_survive() {
    need_root!();
    let world = World::new("lower: /f=1 /d/x=1 | upper:");
    let acl = {
        // u::rw- u:7:rwx g::r-- m::rwx o::---
        let mut acl = vec![2, 0, 0, 0];
        for (tag, perm, id) in [
            (1u16, 6u16, u32::MAX),
            (2, 7, 7),
            (4, 4, u32::MAX),
            (0x10, 7, u32::MAX),
            (0x20, 0, u32::MAX),
        ] {
            acl.extend(tag.to_le_bytes());
            acl.extend(perm.to_le_bytes());
            acl.extend(id.to_le_bytes());
        }
        acl
    };
    // cap_net_raw=ep, revision 2.
    let caps = [
        1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    ];
    let (f, d) = (world.lower(0).join("f"), world.lower(0).join("d"));
    xattr::set(&f, "security.capability", &caps).unwrap();
    xattr::set(&f, "system.posix_acl_access", &acl).unwrap();
    xattr::set(&d, "system.posix_acl_access", &acl).unwrap();
    xattr::set(&d, "system.posix_acl_default", &acl).unwrap();
    let world = world.resealed();
    let mut client = Client::new(world.open());
    crate::ops::run(&world, &mut client, "touch /f 5; touch /d 5");
    let upper = crate::view::of_dir(&world.upper());
    assert_eq!(upper["/f"].xattrs["security.capability"], caps);
    assert_eq!(upper["/f"].xattrs["system.posix_acl_access"], acl);
    assert_eq!(upper["/d"].xattrs["system.posix_acl_access"], acl);
    assert_eq!(upper["/d"].xattrs["system.posix_acl_default"], acl);
    assert_eq!((upper["/f"].mode, upper["/d"].mode), (0o670, 0o670));
    // A change of data takes the capabilities away, as everywhere.
    crate::ops::run(
        &world,
        &mut client,
        "put /f 0 2; getx /f security.capability= !ENODATA",
    );
    world.verify(&client.union);
}

#[test]
fn users_xattrs_that_look_like_marks_rise_escaped() {
    check(
        "lower: /f=1 x:trusted.overlay.overlay.opaque=y x:trusted.overlay.overlay.overlay.redirect=z x:trusted.overlay.nlink=U+1 | upper:",
        "chmod 600 /f; getx /f trusted.overlay.opaque=y; getx /f trusted.overlay.overlay.redirect=z",
        "tree: /f=1 | upper: /f=1 x:trusted.overlay.overlay.opaque=y x:trusted.overlay.overlay.overlay.redirect=z !x:trusted.overlay.nlink",
    );
}

#[test]
fn marks_of_lower_directories_do_not_rise() {
    check(
        "lower: /d/a=1 /d opaque impure | lower: /d/b=2 | upper:",
        "create /d/c",
        "tree: /d/a=1 /d/c= | upper: /d origin !impure /d/c=",
    );
    check(
        "lower: wh /d, /e redirect=d | lower: /d/b=2 | upper:",
        "create /e/c",
        "tree: /e/b=2 /e/c= | upper: /e /e/c=",
    );
}

#[test]
fn truncation_copies_no_more_than_stays() {
    need_root!();
    for (size, left) in [(0, ""), (2, "da"), (4, "data"), (6, "data\\x00\\x00")] {
        check(
            "lower: /f=data mode=640 x:user.k=v | upper:",
            &format!("trunc /f {size}; stat /f size={size} mode=640; getx /f user.k=v"),
            "",
        );
        let world = World::new("lower: /f=data | upper:");
        let mut client = Client::new(world.open());
        crate::ops::run(&world, &mut client, &format!("trunc /f {size}"));
        assert_eq!(client.read("/f").unwrap().escape_ascii().to_string(), left);
    }
}

#[test]
fn truncating_a_giant_is_quick_and_takes_no_space() {
    need_root!();
    let world = World::new("lower: /f= | upper:");
    let file = std::fs::OpenOptions::new()
        .write(true)
        .open(world.lower(0).join("f"));
    file.unwrap().set_len(1 << 40).unwrap();
    let mut client = Client::new(world.open());
    let begin = std::time::Instant::now();
    crate::ops::run(
        &world,
        &mut client,
        "trunc /f 100; stat /f size=100; cat /no= !ENOENT",
    );
    assert!(begin.elapsed().as_secs() < 5);
}

#[test]
fn holes_stay_holes() {
    need_root!();
    use std::io::{Seek, SeekFrom, Write};
    let world = World::new("lower: /f= size=10485760 | upper:");
    let path = world.lower(0).join("f");
    let mut file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
    file.seek(SeekFrom::Start(5 << 20)).unwrap();
    file.write_all(b"island").unwrap();
    drop(file);
    let world = world.resealed();
    let mut client = Client::new(world.open());
    crate::ops::run(&world, &mut client, "put /f 0 x; stat /f size=10485760");
    let node = client.node("/f").unwrap();
    let blocks = client.union.getattr(node.id).unwrap().blocks;
    assert!(blocks < 1000, "{blocks} blocks are allocated");
    let mut buf = [0; 6];
    client.union.read(node.id, 5 << 20, &mut buf).unwrap();
    assert_eq!(&buf, b"island");
}

#[test]
fn a_lower_hard_link_breaks_as_in_the_kernel() {
    check(
        "lower: /a=1 /b==/a /c==/a | upper:",
        "ino b /b; ino c /c; append /a 2; cat /b=1; cat /a=12; stat /a nlink=1; stat /b nlink=3; sameino b /b; sameino c /c; newino b /a; \
         append /b 3; cat /c=1; cat /a=12",
        "tree: /a=12 /b=13 /c=1 | upper: /a=12 !origin /b=13 !origin",
    );
}

#[test]
fn numbers_stay_across_copy_up_and_reopening() {
    check(
        "lower: /d/f=1 /d/l->x, fifo /d/p | lower: /d/g=2 /only/f=2 | upper: /u=0",
        "ino d /d; ino f /d/f; ino l /d/l; ino p /d/p; ino g /d/g; ino o /only/f; ino u /u; \
         append /d/f 1; chown 1:1 /d/l; chmod 600 /d/p; append /d/g 1; mv /only/f /d/o; append /u 1; \
         sameino d /d; sameino f /d/f; sameino l /d/l; sameino p /d/p; sameino g /d/g; sameino o /d/o; sameino u /u; \
         reopen; sameino d /d; sameino f /d/f; sameino l /d/l; sameino p /d/p; sameino g /d/g; sameino o /d/o; sameino u /u",
        "",
    );
}

#[test]
fn with_metacopy_attributes_rise_alone() {
    check(
        "lower: /f=@100000 mode=644 | upper: | opts: metacopy",
        "ino f /f; chmod 600 /f; sameino f /f; stat /f size=100000 mode=600; touch /f 9",
        "tree: /f=@100000 mode=600 t=9 | upper: /f= size=100000 metacopy origin mode=600 t=9",
    );
    check(
        "lower: /f=@100000 | upper: | opts: metacopy",
        "chmod 600 /f; touch /f 9; put /f 0 x; stat /f size=100000; reopen; stat /f size=100000",
        "",
    );
    check(
        "lower: /f=data | upper: | opts: metacopy",
        "chmod 600 /f; touch /f 9; append /f +",
        "tree: /f=data+ mode=600 | upper: /f=data+ mode=600 !metacopy origin",
    );
    check(
        "lower: /f=data | upper: | opts: metacopy",
        "chmod 600 /f; trunc /f 2",
        "tree: /f=da mode=600 | upper: /f=da mode=600 !metacopy",
    );
    check(
        "lower: /f=data | upper: | opts: metacopy",
        "chmod 600 /f; hold f /f; rm /f; cat @f=data; append @f +; cat @f=data+",
        "tree: | upper: wh /f",
    );
    // An empty file has nothing to leave behind.
    check(
        "lower: /f= | upper: | opts: metacopy",
        "chmod 600 /f",
        "tree: /f= mode=600 | upper: /f= !metacopy",
    );
}

#[test]
fn a_write_to_a_lower_metacopy_takes_the_data_from_below_it() {
    check(
        "lower: /f= metacopy size=4 mode=640 | lower: /f=data mode=600 | upper: | opts: metacopy",
        "append /f +",
        "tree: /f=data+ mode=640 | upper: /f=data+ mode=640 !metacopy",
    );
    check(
        "lower: /f= metacopy size=4 mode=640 | lower: /f=data mode=600 | upper: | opts: metacopy",
        "chmod 604 /f; reopen; cat /f=data; append /f +",
        "tree: /f=data+ mode=604 | upper: /f=data+",
    );
}

#[test]
fn a_copy_up_below_an_opaque_or_redirected_parent_goes_to_the_right_place() {
    check(
        "lower: /d/s/f=1 | lower: /d/s/g=2 | upper:",
        "mv /d /e; append /e/s/f 1; append /e/s/g 2",
        "tree: /e/s/f=11 /e/s/g=22 | upper: wh /d, /e redirect=d /e/s/f=11 /e/s/g=22",
    );
}

#[test]
fn suid_goes_with_a_write_by_others() {
    check(
        "lower: /a=1 mode=6755, /b=1 mode=6755, /c=1 mode=2644, /d=1 mode=6755 | upper:",
        "as 1000:1000; put /a 0 2; stat /a mode=755; trunc /b 0; stat /b mode=755; put /c 0 2; stat /c mode=644; \
         as 0:0; put /d 0 2; stat /d mode=6755",
        "",
    );
}

#[test]
fn volatile_views_work_the_same() {
    check(
        "lower: /f=1 /d/x=1 | upper: | opts: volatile",
        "append /f 2; fsync /f; fsync /d; mv /d /e; rm /e/x",
        "tree: /f=12 /e",
    );
}
