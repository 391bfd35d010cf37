//! Making files, directories, nodes, symbolic links and hard links.
use crate::check::check;
use plyfs_testkit::need_root;

#[test]
fn everything_can_be_made() {
    check(
        "lower: /l=1 | upper:",
        "mkdir /d 750; create /f 640; fifo /p; sock /s; chr /c; blk /b; sym to/where /sl; mkdir /d/e; write /d/e/f x",
        "tree: /l=1 /d mode=750 /f= mode=640, fifo /p, sock /s, chr /c, blk /b, /sl->to/where, /d/e/f=x \
         | upper: /d mode=750 !origin /f= mode=640 !origin, fifo /p, sock /s, chr /c, blk /b, /sl->to/where, /d/e/f=x",
    );
}

#[test]
fn a_name_that_exists_anywhere_is_taken() {
    check(
        "lower: /lf=1 /ld/x=1 | upper: /uf=1 /ud",
        "create /lf !EEXIST; mkdir /lf !EEXIST; mkdir /ld !EEXIST; create /uf !EEXIST; mkdir /ud !EEXIST; \
         sym t /ld !EEXIST; fifo /lf !EEXIST; ln /uf /lf !EEXIST; ln /lf /ud !EEXIST; create /ld/x !EEXIST",
        "tree: /lf=1 /ld/x=1 /uf=1 /ud",
    );
}

#[test]
fn users_cannot_make_whiteouts() {
    check(
        "lower: /f=1 | upper:",
        "whiteout /f !EPERM; whiteout /g !EPERM",
        "tree: /f=1 | upper:",
    );
}

#[test]
fn making_below_a_lower_directory_copies_it_up_with_all_parents() {
    check(
        "lower: /a/b/c/f=1 /a mode=711 own=1:2 t=5, /a/b mode=1777 t=6, /a/b/c mode=700 t=7 x:user.k=v | upper:",
        "create /a/b/c/new",
        "tree: /a mode=711 own=1:2 t=5, /a/b mode=1777 t=6, /a/b/c mode=700 x:user.k=v, /a/b/c/f=1 /a/b/c/new= \
         | upper: / impure /a mode=711 own=1:2 t=5 origin impure, /a/b mode=1777 t=6 origin impure, \
           /a/b/c mode=700 origin !impure x:user.k=v, /a/b/c/new=",
    );
}

#[test]
fn a_directory_made_over_a_whiteout_is_opaque() {
    check(
        "lower: /d/a=1 | upper:",
        "rm /d/a; rmdir /d; mkdir /d 701; ls /d=; create /d/b",
        "tree: /d/b= /d mode=701 | upper: /d opaque mode=701 /d/b=",
    );
    check(
        "lower: /d/a=1 | upper: wh /d",
        "mkdir /d; stat /d/a !ENOENT",
        "tree: /d | upper: /d opaque",
    );
}

#[test]
fn other_things_made_over_a_whiteout_just_replace_it() {
    check(
        "lower: /f=1 /g=1 /h=1 /i=1 /j=1 /d/x=1 | upper: wh /f wh /g wh /h wh /i wh /j",
        "create /f 604; sym t /g; fifo /h; chr /i; mkdir /j; rm /d/x; ln /f /d/x",
        "tree: /f= mode=604 nlink=2 /g->t, fifo /h, chr /i, /j, /d/x==/f \
         | upper: /f= /g->t, fifo /h, chr /i, /j opaque, /d/x==/f",
    );
}

#[test]
fn a_whiteout_that_hides_nothing_does_not_stand_in_the_way() {
    check(
        "lower: /x=1 | upper: /d opaque, wh /d/a wh /d/b wh /d/c wh /top",
        "create /d/a; mkdir /d/b; ln /x /d/c; mkdir /top; create /top/f",
        "tree: /x=1 /d/a= /d/b /d/c==/x /top/f=",
    );
}

#[test]
fn owner_and_umask_are_those_of_the_caller() {
    check(
        "lower: /d mode=777 | upper:",
        "as 1000:2000; umask 027; create /d/f 666; mkdir /d/e 777; sym t /d/s; fifo /d/p; as 0:0; umask 0; create /d/g 666",
        "tree: /d/f= mode=640 own=1000:2000, /d/e mode=750 own=1000:2000, /d/s->t own=1000:2000, \
         fifo /d/p mode=640 own=1000:2000, /d/g= mode=666 own=0:0",
    );
}

/// The same object made in place and staged over a whiteout must be the same in all attributes.
fn same_in_place_and_staged(dir: &str, setup: &str, make: &str) {
    let world = crate::world::World::new(&format!("lower: /d/staged=1 {dir} | upper:"));
    let mut client = crate::client::Client::new(world.open());
    crate::ops::run(&world, &mut client, &format!("rm /d/staged; {setup}"));
    for name in ["inplace", "staged"] {
        crate::ops::run(
            &world,
            &mut client,
            &make.replace('%', &format!("/d/{name}")),
        );
    }
    client.held.clear();
    let view = world.verify(&client.union);
    let (mut a, mut b) = (view["/d/inplace"].clone(), view["/d/staged"].clone());
    for seen in [&mut a, &mut b] {
        seen.ino = 0;
        seen.mtime = (0, 0);
    }
    assert_eq!(a, b, "in place and staged: {dir:?} {setup:?} {make:?}");
}

#[test]
fn what_is_staged_gets_what_it_would_have_had_in_place() {
    need_root!();
    let dirs = [
        "/d mode=755",
        "/d mode=777",
        "/d mode=2777 own=5:6",
        "/d mode=2755 own=5:1000",
    ];
    let makes = [
        "create % 666",
        "create % 4755",
        "mkdir % 777",
        "mkdir % 1777",
        "sym t %",
        "fifo %",
        "chr %",
    ];
    for dir in dirs {
        for who in [
            "as 0:0",
            "as 1000:1000",
            "as 1000:1000; umask 077",
            "umask 022",
        ] {
            for make in makes {
                same_in_place_and_staged(dir, who, make);
            }
        }
    }
}

/// A default ACL as `setfacl -d -m` would write it: u::rwx u:7:rwx g::r-x g:8:-w- m::rwx o::r--
fn default_acl() -> Vec<u8> {
    let mut acl = vec![2, 0, 0, 0];
    let none = u32::MAX;
    for (tag, perm, id) in [
        (0x01u16, 7u16, none),
        (0x02, 7, 7),
        (0x04, 5, none),
        (0x08, 2, 8),
        (0x10, 7, none),
        (0x20, 4, none),
    ] {
        acl.extend(tag.to_le_bytes());
        acl.extend(perm.to_le_bytes());
        acl.extend(id.to_le_bytes());
    }
    acl
}

#[test]
fn default_acls_are_inherited_in_place_and_staged_alike() {
    need_root!();
    for who in ["as 0:0", "as 1000:1000; umask 077"] {
        for (make, dir) in [
            ("create % 666", false),
            ("create % 600", false),
            ("create % 4711", false),
            ("mkdir % 777", true),
            ("mkdir % 700", true),
            ("fifo %", false),
            ("sym t %", false),
        ] {
            let world = crate::world::World::new("lower: /d/staged=1 /d mode=777 | upper:");
            let lower = world.lower(0).join("d");
            // Planted before the view is opened, as part of the layer.
            xattr::set(&lower, "system.posix_acl_default", &default_acl()).unwrap();
            let world = world.resealed();
            let mut client = crate::client::Client::new(world.open());
            crate::ops::run(&world, &mut client, &format!("rm /d/staged; {who}"));
            for name in ["inplace", "staged"] {
                crate::ops::run(
                    &world,
                    &mut client,
                    &make.replace('%', &format!("/d/{name}")),
                );
            }
            let view = world.verify(&client.union);
            let (a, b) = (&view["/d/inplace"], &view["/d/staged"]);
            assert_eq!((a.mode, &a.xattrs), (b.mode, &b.xattrs), "{who:?} {make:?}");
            let inherits = a.xattrs.contains_key("system.posix_acl_access");
            assert_eq!(inherits, !make.starts_with("sym"), "{who:?} {make:?}");
            assert_eq!(
                a.xattrs.contains_key("system.posix_acl_default"),
                dir,
                "{make:?}"
            );
            assert!(view["/d"].xattrs.contains_key("system.posix_acl_default"));
        }
    }
}

#[test]
fn nothing_can_be_made_in_a_removed_directory() {
    check(
        "lower: /d/a=1 /l/x=1 | upper: /u",
        "hold d /d; hold u /u; hold l /l; rm /d/a; rmdir /d; rmdir /u; rm /l/x; rmdir /l; \
         create @d/f !ENOENT; mkdir @u/e !ENOENT; sym t @l/s !ENOENT; write /f 1; ln /f @d/f !ENOENT; \
         mv /f @u/f !ENOENT",
        "tree: /f=1",
    );
}

#[test]
fn hard_links_are_one_file() {
    check(
        "lower: /d/x=1 | upper: /f=1",
        "ln /f /d/g; put /d/g 1 2; stat /f nlink=2; stat /d/g nlink=2; ino f /f; sameino f /d/g; \
         rm /f; cat /d/g=12; stat /d/g nlink=1; sameino f /d/g",
        "tree: /d/x=1 /d/g=12 | upper: /d/g=12",
    );
}

#[test]
fn linking_a_lower_file_copies_it_up_first() {
    check(
        "lower: /a/f=data mode=604 t=9 | lower: /b/x=1 | upper:",
        "ino f /a/f; ln /a/f /b/g; stat /a/f nlink=2; sameino f /a/f; sameino f /b/g; append /b/g +",
        "tree: /a/f=data+ mode=604 nlink=2, /b/g==/a/f /b/x=1 | upper: /a/f=data+ origin, /b/g==/a/f, /b impure, /a impure",
    );
}

#[test]
fn directories_cannot_be_linked() {
    check(
        "lower: /d/x=1 | upper: /e",
        "ln /d /f !EPERM; ln /e /f !EPERM",
        "tree: /d/x=1 /e",
    );
}

#[test]
fn lost_files_cannot_be_linked() {
    check(
        "lower: /f=1 | upper: /u=1",
        "hold f /f; hold u /u; rm /f; rm /u; ln @f /g !ENOENT; ln @u /g !ENOENT; put @f 0 2; ln @f /g !ENOENT",
        "tree: | upper: wh /f",
    );
}

#[test]
fn a_symbolic_link_can_have_hard_links() {
    check(
        "lower: /s->t | upper:",
        "ln /s /s2; readlink /s2=t; rm /s; readlink /s2=t",
        "tree: /s2->t nlink=1",
    );
}

#[test]
fn a_missing_parent_is_said_so() {
    check(
        "lower: /f=1 | upper:",
        "create /no/f !ENOENT; create /f/x !ENOTDIR; mkdir /f/x/y !ENOTDIR; rm /no !ENOENT; rm /f/x !ENOTDIR",
        "tree: /f=1 | upper:",
    );
}

#[test]
fn users_marks_are_escaped_and_come_back() {
    check(
        "lower: /f=1 | upper:",
        "setx /f trusted.overlay.opaque y; setx /f trusted.overlay.redirect /x; getx /f trusted.overlay.opaque=y; \
         listx /f=trusted.overlay.opaque,trusted.overlay.redirect; rmx /f trusted.overlay.redirect; \
         getx /f trusted.overlay.redirect=x !ENODATA",
        "tree: /f=1 | upper: /f=1 x:trusted.overlay.overlay.opaque=y",
    );
}
