//! Removing names, and the whiteouts that are left and not left.
use crate::check::check;

#[test]
fn a_whiteout_is_left_exactly_where_a_lower_has_the_name() {
    check(
        "lower: /l=1 /both=1 | upper: /both=2 /u=2",
        "rm /l; rm /both; rm /u",
        "tree: | upper: wh /l wh /both",
    );
    check(
        "lower: wh /gone /gone2=1 | lower: /gone=1 wh /gone2 | upper: /gone=2",
        "rm /gone; rm /gone2",
        "tree: | upper: wh /gone2",
    );
    check(
        "lower: /d/a=1 | upper: /d opaque /d/a=2",
        "rm /d/a",
        "tree: /d | upper: /d opaque",
    );
}

#[test]
fn every_kind_can_be_removed() {
    check(
        "lower: fifo /p, sock /s, chr /c, blk /b, /l->x, /d | upper: fifo /p2, /l2->x, /d2",
        "rm /p; rm /s; rm /c; rm /b; rm /l; rmdir /d; rm /p2; rm /l2; rmdir /d2",
        "tree: | upper: wh /p wh /s wh /c wh /b wh /l wh /d",
    );
}

#[test]
fn kinds_are_checked() {
    check(
        "lower: /d/x=1 /f=1 /l->d | upper: /e /g=1",
        "rm /d !EISDIR; rm /e !EISDIR; rmdir /f !ENOTDIR; rmdir /g !ENOTDIR; rmdir /l !ENOTDIR; \
         rm /no !ENOENT; rmdir /no !ENOENT; rmdir /d !ENOTEMPTY",
        "tree: /d/x=1 /f=1 /l->d /e /g=1",
    );
}

#[test]
fn removing_from_a_lower_directory_copies_up_the_directory_alone() {
    check(
        "lower: /d/a=1 /d/b=@100000 /d/s/x=1 | upper:",
        "rm /d/a",
        "tree: /d/b=@100000 /d/s/x=1 | upper: /d origin, wh /d/a",
    );
}

#[test]
fn a_directory_with_nothing_but_whiteouts_is_empty() {
    check(
        "lower: /d/a=1 /d/b=1 | upper:",
        "rm /d/a; rmdir /d !ENOTEMPTY; rm /d/b; ls /d=; rmdir /d",
        "tree: | upper: wh /d",
    );
    // An upper one that hides nothing leaves no whiteout.
    check(
        "lower: /x=1 | upper: /d opaque wh /d/a wh /d/b",
        "rmdir /d",
        "tree: /x=1 | upper:",
    );
    check(
        "lower: /d/a=1 | upper: /d opaque wh /d/a",
        "rmdir /d",
        "tree: | upper: wh /d",
    );
    // Lower whiteouts do not count as entries either.
    check(
        "lower: wh /d/a | lower: /d/a=1 | upper:",
        "ls /d=; rmdir /d",
        "tree: | upper: wh /d",
    );
    check(
        "lower: / opaque=x /d opaque=x xwh /d/a | lower: /d/a=1 | upper:",
        "ls /d=; rmdir /d",
        "tree: | upper: wh /d",
    );
}

#[test]
fn a_removed_name_can_be_made_and_removed_again_and_again() {
    check(
        "lower: /f=1 /d/x=1 | upper:",
        "rm /f; create /f; rm /f; mkdir /f; rmdir /f; sym a /f; rm /f; write /f 2; \
         rm /d/x; rmdir /d; create /d; rm /d; mkdir /d; rmdir /d; mkdir /d; create /d/y",
        "tree: /f=2 /d/y= | upper: /f=2 /d opaque /d/y=",
    );
}

#[test]
fn a_whole_tree_goes_bottom_up() {
    check(
        "lower: /t/a/b/c=1 /t/a/d=1 | lower: /t/a/b/e=2 /t/z=2 | upper: /t/u=0",
        "rm /t/a/b/c; rm /t/a/b/e; rmdir /t/a/b; rm /t/a/d; rmdir /t/a; rm /t/z; rm /t/u; rmdir /t",
        "tree: | upper: wh /t",
    );
}

#[test]
fn one_name_of_a_lower_hard_link_goes_alone() {
    check(
        "lower: /a=1 /b==/a | upper:",
        "hold b /b; rm /a; stat /b nlink=2; cat /b=1; cat @b=1",
        "tree: /b=1 | upper: wh /a",
    );
}

#[test]
fn a_file_that_lost_its_name_can_still_be_used() {
    // Upper file.
    check(
        "lower: /x=1 | upper: /f=abc",
        "hold f /f; ino f @f; rm /f; cat @f=abc; stat @f nlink=0 size=3; put @f 3 d; cat @f=abcd; chmod 600 @f; \
         stat @f mode=600; trunc @f 1; cat @f=a; sameino f @f; setx @f user.k v; getx @f user.k=v; touch @f 9; \
         stat @f mtime=9.000000000; fsync @f; chown 3:4 @f; stat @f own=3:4",
        "tree: /x=1 | upper:",
    );
    // Lower file: what is written to it goes to a nameless copy.
    check(
        "lower: /f=abc mode=640 x:user.k=v | upper:",
        "hold f /f; ino f @f; rm /f; cat @f=abc; stat @f nlink=0 size=3 mode=640; put @f 3 d; cat @f=abcd; \
         stat @f nlink=0 mode=640; getx @f user.k=v; trunc @f 2; cat @f=ab; sameino f @f; chmod 600 @f; fsync @f",
        "tree: | upper: wh /f",
    );
    // Lower file whose first change is one of attributes, or a truncation.
    check(
        "lower: /f=abc /g=abc | upper: | opts: metacopy",
        "hold f /f; hold g /g; rm /f; rm /g; chmod 600 @f; cat @f=abc; stat @f mode=600; trunc @g 0; cat @g=",
        "tree: | upper: wh /f wh /g",
    );
}

#[test]
fn a_copied_up_file_that_lost_its_name_keeps_its_number() {
    check(
        "lower: /f=abc | upper:",
        "hold f /f; ino f @f; append /f d; rm /f; sameino f @f; cat @f=abcd; create /f; newino f /f; cat @f=abcd; \
         put @f 0 X; cat @f=Xbcd; cat /f=",
        "tree: /f= | upper: /f=",
    );
}

#[test]
fn a_name_made_anew_is_another_file() {
    check(
        "lower: /f=old | upper: /g=old",
        "hold f /f; hold g /g; rm /f; rm /g; write /f new; write /g new; cat @f=old; cat @g=old; \
         put @f 0 X; put @g 0 X; cat @f=Xld; cat @g=Xld; cat /f=new; cat /g=new",
        "tree: /f=new /g=new | upper: /f=new /g=new",
    );
}

#[test]
fn a_file_keeps_living_by_its_other_name() {
    check(
        "lower: /x=1 | upper: /f=abc /g==/f",
        "hold f /f; rm /f; stat @f nlink=1; put @f 3 d; cat /g=abcd; chmod 600 @f; stat /g mode=600; rm /g; \
         stat @f nlink=0; cat @f=abcd; put @f 4 e; cat @f=abcde",
        "tree: /x=1",
    );
    // The other name was never looked up before the first went.
    check(
        "lower: /x=1 | upper: /d/f=abc /e/g==/d/f",
        "hold f /d/f; rm /d/f; cat @f=abc; rm /e/g; cat @f=abc; append @f d; cat @f=abcd",
        "tree: /x=1 /d /e",
    );
}

#[test]
fn a_removed_directory_still_has_attributes() {
    check(
        "lower: /d/a=1 /l mode=711 | upper: /u mode=700",
        "hold d /d; hold u /u; hold l /l; rm /d/a; rmdir /d; rmdir /u; rmdir /l; \
         stat @u nlink=0 mode=700; stat @d; stat @l mode=711",
        "tree: | upper: wh /d wh /l",
    );
}

// The VFS asks nothing of a dead directory, so no program sees this through a mount.
#[test]
fn a_removed_directory_finds_and_lists_nothing() {
    check(
        "lower: /d/a=1 /l | upper: /d/b=2 /u",
        "hold d /d; hold u /u; hold l /l; rm /d/a; rm /d/b; rmdir /d; rmdir /l; rmdir /u; \
         stat @d/a !ENOENT; stat @d/b !ENOENT; ls @d= !ENOENT; ls @l= !ENOENT; ls @u= !ENOENT",
        "tree: | upper: wh /d wh /l",
    );
}

#[test]
fn special_files_that_lost_their_names_keep_their_attributes() {
    check(
        "lower: fifo /p mode=640, /s->t | upper: chr /c, fifo /q",
        "hold p /p; hold s /s; hold c /c; hold q /q; rm /p; rm /s; rm /c; rm /q; stat @p mode=640; readlink @s=t; \
         stat @c nlink=0; chmod 600 @q; stat @q mode=600",
        "tree: | upper: wh /p wh /s",
    );
}
