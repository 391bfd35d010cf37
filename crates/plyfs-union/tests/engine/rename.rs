//! Renaming: every flag, every kind, every combination of upper and lower.
use crate::check::check;

#[test]
fn an_upper_name_just_moves() {
    check(
        "lower: /x=1 | upper: /f=1 /d/e=2",
        "mv /f /g; mv /d /h; mv /h/e /h/i",
        "tree: /x=1 /g=1 /h/i=2 | upper: /g=1 /h opaque /h/i=2",
    );
}

#[test]
fn a_lower_file_is_copied_up_and_leaves_a_whiteout() {
    check(
        "lower: /f=data mode=604 t=9 x:user.k=v own=1:2 | upper:",
        "ino f /f; mv /f /g; sameino f /g; reopen; sameino f /g",
        "tree: /g=data mode=604 t=9 x:user.k=v own=1:2 | upper: / impure, wh /f, /g=data origin",
    );
    check(
        "lower: /d/f=1 /e/x=1 | upper:",
        "mv /d/f /e/f",
        "tree: /d /e/f=1 /e/x=1 | upper: /d origin, wh /d/f, /e origin impure /e/f=1 origin",
    );
    check(
        "lower: /f=1 | upper: /d",
        "ino f /f; mv /f /d/f; sameino f /d/f; reopen; sameino f /d/f",
        "tree: /d/f=1 | upper: wh /f, /d impure, /d/f=1 origin",
    );
}

#[test]
fn a_file_replaces_whatever_file_is_there() {
    for (layers, upper) in [
        ("lower: /x=1 | upper: /a=A /b=B", "/b=A"),
        ("lower: /b=B | upper: /a=A", "/b=A"),
        ("lower: /a=A | upper: /b=B", "wh /a /b=A"),
        ("lower: /a=A /b=B | upper:", "wh /a /b=A"),
        ("lower: /a=1 /b=1 | upper: /a=A /b=B", "wh /a /b=A"),
        ("lower: /a=A | lower: /b=B | upper:", "wh /a /b=A"),
        ("lower: /a=A /b->x | upper:", "wh /a /b=A"),
    ] {
        let rest = if layers.contains("/x=1") { " /x=1" } else { "" };
        check(
            layers,
            "hold b /b; mv /a /b; stat /a !ENOENT; stat @b nlink=0; cat /b=A",
            &format!("tree: /b=A{rest} | upper: {upper}"),
        );
    }
}

#[test]
fn what_was_replaced_lives_on_for_those_who_hold_it() {
    check(
        "lower: /b=lower | upper: /a=A /c=C /d=D",
        "hold b /b; hold d /d; mv /a /b; cat @b=lower; put @b 0 X; cat @b=Xower; mv /c /d; cat @d=D; append @d +; cat @d=D+; cat /d=C",
        "tree: /b=A /d=C | upper: /b=A /d=C",
    );
}

#[test]
fn a_name_with_a_whiteout_is_free() {
    check(
        "lower: /a=1 /b=1 | upper: wh /b",
        "mv /a /b; stat /a !ENOENT",
        "tree: /b=1 | upper: wh /a /b=1",
    );
    check(
        "lower: /b=1 | upper: /a=0 wh /b",
        "mv /a /b",
        "tree: /b=0 | upper: /b=0",
    );
    // Back and forth.
    check(
        "lower: /a=1 | upper:",
        "mv /a /b; mv /b /a; mv /a /c; mv /c /a",
        "tree: /a=1 | upper: /a=1 origin",
    );
    check(
        "lower: /a=1 /b=2 | upper:",
        "mv /a /t; mv /b /a; mv /t /b",
        "tree: /a=2 /b=1 | upper: /a=2 /b=1",
    );
}

#[test]
fn kinds_are_checked() {
    check(
        "lower: /f=1 /d /full/x=1 | upper: /g=1 /e",
        "mv /f /d !EISDIR; mv /g /e !EISDIR; mv /d /f !ENOTDIR; mv /e /g !ENOTDIR; mv /e /full !ENOTEMPTY; \
         mv /no /x !ENOENT; mvn /f /g !EEXIST; mvn /g /f !EEXIST; mvn /e /d !EEXIST; xchg /f /no !ENOENT; xchg /no /f !ENOENT; \
         mvw /f /h !EINVAL",
        "tree: /f=1 /d /full/x=1 /g=1 /e",
    );
}

#[test]
fn noreplace_moves_to_free_names_and_names_with_whiteouts() {
    check(
        "lower: /f=1 /g=1 /h=1 | upper: wh /g",
        "mvn /f /new; mvn /h /g",
        "tree: /new=1 /g=1 | upper: wh /f wh /h /new=1 /g=1",
    );
}

#[test]
fn names_of_one_file_are_not_renamed_over_each_other() {
    check(
        "lower: /x=1 | upper: /a=1 /b==/a",
        "mv /a /b; stat /a nlink=2; stat /b nlink=2",
        "tree: /a=1 /b==/a /x=1",
    );
}

#[test]
fn an_upper_directory_moved_to_where_lowers_may_have_names_becomes_opaque() {
    check(
        "lower: /m/x/old=1 /m/y=1 | upper: /d/new=0 /p/q",
        "rm /m/x/old; rmdir /m/x; mv /d /m/x; mv /p/q /m/z",
        "tree: /m/x/new=0 /m/y=1 /m/z /p | upper: /m /m/x opaque /m/x/new=0 /m/z opaque /p",
    );
    // A directory without lower part hides nothing, so nothing is to be marked.
    check(
        "lower: /x=1 | upper: /p/d/new=0 /q",
        "mv /p/d /q/d",
        "tree: /x=1 /p /q/d/new=0 | upper: /p /q/d/new=0",
    );
}

#[test]
fn an_empty_directory_is_replaced_whatever_it_is_made_of() {
    // Upper only.
    check(
        "lower: /x=1 | upper: /a/f=1 /b",
        "hold b /b; mv /a /b; stat @b; create @b/x !ENOENT",
        "tree: /x=1 /b/f=1 | upper: /b opaque /b/f=1",
    );
    // Lower only.
    check(
        "lower: /b | upper: /a/f=1",
        "hold b /b; mv /a /b; create @b/x !ENOENT",
        "tree: /b/f=1 | upper: /b opaque /b/f=1",
    );
    // Merged, emptied by whiteouts.
    check(
        "lower: /b/x=1 /b/y=1 | upper: /a/f=1 /b/z=1",
        "hold b /b; rm /b/x; rm /b/y; rm /b/z; mv /a /b; stat @b; ls /b=f",
        "tree: /b/f=1 | upper: /b opaque /b/f=1",
    );
    // Upper, with whiteouts that hide nothing.
    check(
        "lower: /x=1 | upper: /a/f=1 /b opaque wh /b/x wh /b/y",
        "mv /a /b",
        "tree: /x=1 /b/f=1",
    );
    // In place of a whiteout.
    check(
        "lower: /b/x=1 | upper: /a/f=1 wh /b",
        "mv /a /b; ls /b=f",
        "tree: /b/f=1 | upper: /b opaque /b/f=1",
    );
}

#[test]
fn a_merged_directory_needs_redirects_to_move() {
    for opt in ["redirect=follow", "redirect=nofollow"] {
        check(
            &format!("lower: /d/a=1 /m/b=1 | upper: /m/c=0 /e | opts: {opt}"),
            "mv /d /x !EXDEV; mv /m /x !EXDEV; mv /d /e !EXDEV; xchg /d /e !EXDEV; xchg /e /m !EXDEV; mv /e /f",
            "tree: /d/a=1 /m/b=1 /m/c=0 /f",
        );
    }
}

#[test]
fn a_merged_directory_moves_by_redirect() {
    check(
        "lower: /d/a=1 /d/s/b=1 /d mode=711 t=9 | upper:",
        "ino d /d; ino a /d/a; mv /d /e; sameino d /e; sameino a /e/a; rm /e/a; write /e/s/b 2; reopen; sameino d /e",
        "tree: /e mode=711 /e/s/b=2 | upper: wh /d, /e redirect=d origin mode=711, wh /e/a /e/s origin /e/s/b=2 origin",
    );
}

#[test]
fn the_redirect_is_relative_within_a_directory_and_absolute_elsewhere() {
    check(
        "lower: /p/d/a=1 /q/x=1 | upper:",
        "mv /p/d /p/e; mv /p/e /p/f",
        "tree: /p/f/a=1 /q/x=1 | upper: /p, wh /p/d, /p/f redirect=d",
    );
    check(
        "lower: /p/d/a=1 /q/x=1 | upper:",
        "mv /p/d /q/d",
        "tree: /p /q/d/a=1 /q/x=1 | upper: /p, wh /p/d, /q /q/d redirect=/p/d",
    );
    check(
        "lower: /p/d/a=1 /q/x=1 | upper:",
        "mv /p/d /p/e; mv /p/e /q/f; mv /q/f /q/g; mv /q/g /p/h",
        "tree: /p/h/a=1 /q/x=1 | upper: /p, wh /p/d, /p/h redirect=/p/d, /q",
    );
    // The path in the lowers counts, not the one in the view.
    check(
        "lower: /p/d/a=1 /q/x=1 | upper:",
        "mv /p /r; mv /r/d /q/d; mv /q/d /d",
        "tree: /r /d/a=1 /q/x=1 | upper: wh /p, /r redirect=p wh /r/d, /d redirect=/p/d, /q",
    );
    check(
        "lower: /p/s/d/a=1 /q/x=1 | upper:",
        "mv /p/s /q/s; mv /q/s/d /q/s/e; mv /q/s/e /top",
        "tree: /p /q/s /q/x=1 /top/a=1 | upper: /p, wh /p/s, /q/s redirect=/p/s, wh /q/s/d, /top redirect=/p/s/d",
    );
}

#[test]
fn a_directory_moved_back_is_what_it_was() {
    check(
        "lower: /d/a=1 /e/b=1 | upper:",
        "ino d /d; mv /d /x; mv /x /d; sameino d /d; mv /d /e/d; mv /e/d /d; reopen; sameino d /d",
        "tree: /d/a=1 /e/b=1 | upper: /d redirect=/d, /e",
    );
}

#[test]
fn a_merged_directory_replaces_an_empty_one() {
    check(
        "lower: /d/a=1 /e/x=1 | upper:",
        "rm /e/x; mv /d /e",
        "tree: /e/a=1 | upper: wh /d, /e redirect=d",
    );
    check(
        "lower: /d/a=1 /e | upper:",
        "mv /d /e",
        "tree: /e/a=1 | upper: wh /d, /e redirect=d",
    );
    check(
        "lower: /d/a=1 | upper: /e",
        "mv /d /e; rm /e/a; rmdir /e; mkdir /d; ls /d=",
        "tree: /d | upper: /d opaque",
    );
}

#[test]
fn what_moved_away_can_be_made_anew() {
    check(
        "lower: /d/a=1 | upper:",
        "mv /d /e; mkdir /d; create /d/b; mv /d /e2; mv /e /d; mv /e2 /e",
        "tree: /d/a=1 /e/b= | upper: /d redirect=d, /e opaque /e/b=",
    );
}

#[test]
fn exchange_swaps_any_two_kinds() {
    check(
        "lower: /f=F /l->x | upper: /g=G /d/e=1",
        "ino f /f; ino g /g; xchg /f /g; sameino f /g; sameino g /f; xchg /d /l; xchg /d /f",
        "tree: /g=F /f->x /d=G /l/e=1",
    );
    check(
        "lower: /a/1=1 /b/2=2 | upper:",
        "ino a /a; xchg /a /b; sameino a /b; create /a/3; reopen; sameino a /b",
        "tree: /a/2=2 /a/3= /b/1=1 | upper: /a redirect=b /a/3=, /b redirect=a",
    );
    check(
        "lower: /m/a/1=1 /n/x=1 | upper: /n/b/2=2",
        "xchg /m/a /n/b",
        "tree: /m/a/2=2 /n/b/1=1 /n/x=1 | upper: /m/a opaque /m/a/2=2, /n/b redirect=/m/a",
    );
}

#[test]
fn whiteouts_stay_with_the_directory_they_are_in() {
    check(
        "lower: /d/a=1 /d/b=1 | upper:",
        "rm /d/a; mv /d /e; ls /e=b; mkdir /d; mv /e /d/e; ls /d/e=b; create /d/e/a",
        "tree: /d/e/a= /d/e/b=1 | upper: /d opaque, /d/e redirect=/d, /d/e/a=",
    );
}

#[test]
fn open_things_follow_their_directory() {
    check(
        "lower: /d/s/f=1 | upper:",
        "hold f /d/s/f; hold s /d/s; mv /d /e; cat @f=1; append @f 2; cat /e/s/f=12; create @s/g; ls /e/s=f,g; \
         mv /e/s /s; append @f 3; cat /s/f=123; mv /s/f /f; append @f 4; cat /f=1234; cat @f=1234",
        "tree: /e /f=1234 /s/g= | upper: wh /d, /e redirect=d wh /e/s, /s redirect=/d/s, wh /s/f, /s/g= /f=1234",
    );
}

#[test]
fn a_held_file_follows_directories_that_are_forgotten_meanwhile() {
    check(
        "lower: /x=1 | upper: /b/a/f=x /c | opts: fds=1 cache=1",
        "hold f /b/a/f; mv /b /c; cat @f=x; mv /c/a /a; cat @f=x; mv /a/f /f; cat @f=x",
        "tree: /a /c /f=x /x=1",
    );
    // By a hard link, as a kernel can bring it about: it keeps the directories of names it knows.
    check(
        "lower: /x=1 | upper: /a/f=x /b/g==/a/f | opts: fds=1 cache=1",
        "stat /a/f; hold g /b/g; mv /a /c; cat @g=x; mkdir /a; write /a/f other; cat @g=x; rm /b/g; cat @g=x; append @g y; cat /c/f=xy",
        "tree: /a/f=other /b /c/f=xy /x=1",
    );
}

#[test]
fn a_directory_renamed_after_its_children_were_copied_up() {
    check(
        "lower: /d/s/t/f=1 | upper:",
        "hold f /d/s/t/f; append /d/s/t/f 2; mv /d/s /d/z; mv /d /y; append @f 3; cat /y/z/t/f=123; rm /y/z/t/f; cat @f=123; append @f 4; cat @f=1234",
        "tree: /y/z/t",
    );
}

#[test]
fn metacopies_take_their_data_along() {
    check(
        "lower: /d/f=data /g=data | upper: | opts: metacopy",
        "chmod 600 /d/f; mv /d/f /d/h; mv /d/h /i; cat /i=data; chmod 601 /g; mv /g /d/g; mv /d/g /d/k; reopen; cat /i=data; cat /d/k=data; append /d/k +",
        "tree: /d/k=data+ mode=601 /i=data mode=600 \
         | upper: /d, wh /d/f, wh /g, /i= size=4 metacopy redirect=/d/f, /d/k=data+ redirect=/g",
    );
}

#[test]
fn a_hard_link_of_a_metacopy_has_its_data() {
    check(
        "lower: /f=data | upper: | opts: metacopy",
        "chmod 600 /f; ln /f /g; rm /f; cat /g=data",
        "tree: /g=data mode=600",
    );
}

#[test]
fn too_long_a_redirect_is_told_apart() {
    let deep: String = (0..3).map(|i| format!("/{}{i}", "n".repeat(100))).collect();
    check(
        &format!("lower: {deep}/d/a=1 | upper:"),
        &format!("mv {deep}/d /d !EXDEV; mv {deep}/d {deep}/e"),
        &format!("tree: {deep}/e/a=1"),
    );
}
