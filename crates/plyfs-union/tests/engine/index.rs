//! `index=on`: the names of a lower hard link stay one file; and data-only layers.
use crate::check::check;
use crate::client::Client;
use crate::ops;
use crate::world::World;
use plyfs_testkit::need_root;

const LINKS: &str = "lower: /a=1 /d/b==/a /e/c==/a | upper: | opts: index";

#[test]
fn all_names_of_a_lower_file_are_one_file() {
    check(
        LINKS,
        "ino a /a; stat /a nlink=3; sameino a /d/b; append /a 2; cat /d/b=12; cat /e/c=12; sameino a /a; sameino a /d/b; \
         stat /d/b nlink=3; append /e/c 3; cat /a=123; chmod 600 /d/b; stat /a mode=600",
        "tree: /a=123 mode=600 nlink=3, /d/b==/a /e/c==/a",
    );
}

#[test]
fn they_stay_one_file_after_reopening() {
    check(
        LINKS,
        "ino a /a; append /a 2; reopen; cat /d/b=12; sameino a /d/b; append /d/b 3; cat /a=123; stat /e/c nlink=3; \
         rm /a; reopen; stat /d/b nlink=2; cat /e/c=123; sameino a /e/c",
        "tree: /d/b=123 nlink=2, /e/c==/d/b",
    );
}

#[test]
fn names_come_and_go_and_are_counted() {
    check(
        LINKS,
        "append /a 2; rm /d/b; stat /a nlink=2; ln /e/c /f; stat /a nlink=3; stat /f nlink=3; mv /a /d/a; stat /f nlink=3; \
         rm /e/c; stat /f nlink=2; cat /d/a=12; rm /f; stat /d/a nlink=1; reopen; stat /d/a nlink=1; cat /d/a=12",
        "tree: /d/a=12 nlink=1, /e",
    );
    check(
        LINKS,
        "rm /a; stat /d/b nlink=2; cat /d/b=1; append /e/c 2; cat /d/b=12; mv /d/b /e/c; stat /e/c nlink=2",
        "",
    );
}

#[test]
fn a_name_that_was_held_before_sees_the_copy() {
    check(
        LINKS,
        "hold b /d/b; hold c /e/c; append /a 2; cat @b=12; append @c 3; cat @b=123; rm /d/b; cat @b=123; rm /a; rm /e/c; \
         cat @c=123; stat @c nlink=0; append @b 4; cat @c=1234",
        "tree: /d /e",
    );
}

#[test]
fn the_last_name_takes_the_copy_out_of_the_index() {
    need_root!();
    let world = World::new(LINKS);
    let mut client = Client::new(world.open());
    let entries = || world.path("work/index").read_dir().unwrap().count();
    ops::run(&world, &mut client, "append /a 2");
    assert_eq!(entries(), 1);
    ops::run(&world, &mut client, "rm /a; rm /d/b");
    assert_eq!(entries(), 1);
    ops::run(&world, &mut client, "rm /e/c; ls /d=; ls /e=");
    assert_eq!(entries(), 0);
    world.verify(&client.union);
}

#[test]
fn a_file_with_one_name_does_not_enter_the_index() {
    need_root!();
    let world = World::new("lower: /f=1 | upper: | opts: index");
    let mut client = Client::new(world.open());
    ops::run(
        &world,
        &mut client,
        "append /f 2; ln /f /g; rm /f; append /g 3; cat /g=123",
    );
    assert_eq!(world.path("work/index").read_dir().unwrap().count(), 0);
    world.verify(&client.union);
}

#[test]
fn renaming_one_name_over_another_of_the_same_file_does_nothing() {
    check(
        LINKS,
        "append /a 2; mv /a /d/b; stat /a nlink=3; stat /d/b nlink=3",
        "tree: /a=12 nlink=3, /d/b==/a /e/c==/a",
    );
}

#[test]
fn other_kinds_have_hard_links_too() {
    check(
        "lower: /l->t /d/m==/l, fifo /p /d/q==/p | upper: | opts: index",
        "chown 1:2 /l; stat /d/m own=1:2 nlink=2; chmod 600 /d/q; stat /p mode=600 nlink=2; rm /l; readlink /d/m=t; stat /d/m nlink=1",
        "",
    );
}

#[test]
fn with_metacopy_the_names_share_the_data_too() {
    check(
        "lower: /a=data /d/b==/a | upper: | opts: index metacopy",
        "chmod 600 /a; cat /d/b=data; stat /d/b mode=600 nlink=2; append /d/b +; cat /a=data+; reopen; cat /a=data+",
        "tree: /a=data+ mode=600 nlink=2, /d/b==/a",
    );
    check(
        "lower: /a=data /d/b==/a | upper: | opts: index metacopy",
        "chmod 600 /a; rm /a; cat /d/b=data; reopen; cat /d/b=data; mv /d/b /c; reopen; cat /c=data",
        "tree: /c=data mode=600 nlink=1, /d",
    );
}

#[test]
fn a_redirected_directory_finds_the_copies_of_its_files() {
    check(
        "lower: /d/a=1 /d/b==/d/a /e/x=1 | upper: | opts: index",
        "append /d/a 2; mv /d /e/f; cat /e/f/b=12; append /e/f/b 3; reopen; cat /e/f/a=123; stat /e/f/a nlink=2",
        "tree: /e/f/a=123 /e/f/b==/e/f/a /e/x=1",
    );
}

#[test]
fn data_only_layers_give_data_and_no_names() {
    check(
        "lower: /f= metacopy redirect=/x/y size=4 mode=640 /g=1 | data: /x/y=data /z=hidden | upper: | opts: metacopy",
        "cat /f=data; stat /z !ENOENT; stat /x !ENOENT; ls /=f,g; reopen; append /f +; cat /f=data+; mkdir /x; ls /x=",
        "tree: /f=data+ mode=640 /g=1 /x | upper: /f=data+ !metacopy, /x",
    );
    // The first data layer that has the path.
    check(
        "lower: /f= metacopy redirect=/y size=1 | data: /other=0 | data: /y=1 | data: /y=2 | upper: | opts: metacopy",
        "cat /f=1; chmod 600 /f; cat /f=1; reopen; cat /f=1; mv /f /g; reopen; cat /g=1",
        "tree: /g=1 mode=600",
    );
}
