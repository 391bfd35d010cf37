//! What the merged view shows of layers that nobody changed: the merge rule, in every case.
use crate::check::check;
use plyfs_testkit::need_root;

/// Layers, and the tree they show; nothing is done.
fn shows(layers: &str, tree: &str) {
    check(layers, "", &format!("tree: {tree}"));
}

#[test]
fn directories_merge_and_upper_names_win() {
    shows(
        "lower: /d/a=1 /d/b=1 | lower: /d/b=2 /d/c=2 /only=2 | upper: /d/c=3",
        "/d/a=1 /d/b=1 /d/c=3 /only=2",
    );
}

#[test]
fn a_merged_directory_has_the_attributes_of_its_topmost_part() {
    shows(
        "lower: /d/a=1 /d mode=700 own=1:2 | lower: /d/b=2 /d mode=777 | upper:",
        "/d/a=1 /d/b=2 /d mode=700 own=1:2",
    );
    shows(
        "lower: /d/a=1 /d mode=700 | upper: /d mode=751 t=77",
        "/d mode=751 t=77 /d/a=1",
    );
}

#[test]
fn whiteouts_hide_names_of_deeper_layers_only() {
    shows(
        "lower: wh /d/a, wh /f | lower: /d/a=2 /d/b=2 /f=2 | upper:",
        "/d/b=2",
    );
    shows(
        "lower: /d/a=1 /f=1 | lower: /x=2 | upper: wh /d wh /x",
        "/f=1",
    );
    // What stands above a whiteout is not hidden by it.
    shows("lower: /f=1 | lower: wh /f | lower: /f=3", "/f=1");
}

#[test]
fn a_directory_above_a_whiteout_does_not_merge_through_it() {
    shows("lower: /d/a=1 | lower: wh /d | lower: /d/b=3", "/d/a=1");
    shows(
        "lower: /x | lower: wh /d | lower: /d/b=3 | upper: /d/a=0",
        "/d/a=0 /x",
    );
}

#[test]
fn opaque_directories_hide_all_that_is_deeper() {
    shows("lower: /d/a=1 | upper: /d/b=0 /d opaque", "/d/b=0");
    shows(
        "lower: /d/a=1 | lower: /d/b=2 /d opaque | lower: /d/c=3 | upper:",
        "/d/a=1 /d/b=2",
    );
    shows("lower: /d/e/a=1 | upper: /d opaque", "/d");
}

#[test]
fn files_and_directories_hide_each_other() {
    shows("lower: /x=file | lower: /x/in/dir=2 | upper:", "/x=file");
    shows("lower: /x/in=1 | lower: /x=file | upper:", "/x/in=1");
    shows("lower: /x/in=1 | upper: /x->target", "/x->target");
    // A file between two directories ends the merge.
    shows(
        "lower: /x/a=1 | lower: /x=file | lower: /x/c=3 | upper:",
        "/x/a=1",
    );
}

#[test]
fn every_kind_of_object_shows_as_what_it_is() {
    shows(
        "lower: fifo /p, sock /s, chr /c own=3:4, blk /b, /l->nowhere own=5:6, /f= mode=4711 | upper:",
        "fifo /p, sock /s, chr /c own=3:4, blk /b, /l->nowhere own=5:6, /f= mode=4711",
    );
}

#[test]
fn xattr_whiteouts_count_where_the_layer_announces_them() {
    shows(
        "lower: / opaque=x /d opaque=x xwh /d/a xwh /f | lower: /d/a=2 /d/b=2 /f=2 | upper:",
        "/d/b=2",
    );
    // Without the announcement it is an empty file.
    shows(
        "lower: xwh /f | lower: /f=2 | upper: | opts: own-format",
        "/f=",
    );
}

#[test]
fn aufs_whiteouts_hide_and_do_not_show() {
    shows(
        "lower: /.wh.f= /d/.wh.a= | lower: /f=2 /d/a=2 /d/b=2 | upper: | opts: own-format",
        "/d/b=2",
    );
    shows(
        "lower: /d/.wh..wh..opq= /d/a=1 | lower: /d/b=2 | upper: | opts: own-format",
        "/d/a=1",
    );
    // The name itself in the same layer is not hidden: only deeper layers are.
    shows(
        "lower: /.wh.f= /f=1 | lower: /f=2 | upper: | opts: own-format",
        "/f=1",
    );
    // AUFS's own metadata hides nothing and does not show.
    shows(
        "lower: /.wh..wh.plnk= /.wh..wh.orph/x= /a=1 | upper: | opts: own-format",
        "/a=1",
    );
}

#[test]
fn an_aufs_opaque_marker_hides_deeper_layers_in_lookups_too() {
    check(
        "lower: /d/.wh..wh..opq= /d/a=1 | lower: /d/b=2 /d/s/x=2 | upper: | opts: own-format",
        "stat /d/b !ENOENT; stat /d/s/x !ENOENT; cat /d/a=1; create /d/b; cat /d/b=",
        "tree: /d/a=1 /d/b= | upper: /d/b=",
    );
}

#[test]
fn opaque_marks_of_fuse_overlayfs_count() {
    shows(
        "lower: /d/a=1 /d x:user.fuseoverlayfs.opaque=y | lower: /d/b=2 | upper: | opts: own-format",
        "/d/a=1",
    );
}

#[test]
fn marks_are_hidden_from_users() {
    check(
        "lower: /d/a=1 /d x:user.mine=1 x:trusted.overlay.overlay.opaque=y | upper: /d opaque impure",
        "listx /d=",
        "",
    );
    check(
        "lower: /f=1 x:user.mine=1 x:trusted.overlay.overlay.opaque=y x:trusted.overlay.nlink=U+1 | upper:",
        "listx /f=trusted.overlay.opaque,user.mine; getx /f trusted.overlay.opaque=y",
        "",
    );
}

#[test]
fn relative_redirects_lead_to_another_name_beside() {
    shows(
        "lower: /old/a=1 /new/b=1 | upper: wh /old, /new redirect=old /new/c=0",
        "/new/a=1 /new/c=0",
    );
    shows(
        "lower: wh /d, /e redirect=d /e/x=1 | lower: /d/a=2 | upper:",
        "/e/x=1 /e/a=2",
    );
}

#[test]
fn absolute_redirects_lead_anywhere() {
    shows(
        "lower: /p/old/a=1 | upper: /p wh /p/old, /q impure /q/new redirect=/p/old",
        "/p /q/new/a=1",
    );
    // The parent has no lower at all, the path decides alone.
    shows(
        "lower: /p/old/a=1 /p/z=1 | upper: wh /p/old /q/r impure /q/r/s redirect=/p/old",
        "/p/z=1 /q/r/s/a=1",
    );
}

#[test]
fn redirects_form_chains_over_layers() {
    shows(
        "lower: wh /b, /c redirect=b /c/1=1 | lower: wh /a, /b redirect=a /b/2=2 | lower: /a/3=3 \
         | upper: wh /c, /d redirect=c",
        "/d/1=1 /d/2=2 /d/3=3",
    );
    shows(
        "lower: wh /x/b, /c redirect=/x/b /c/1=1 /x | lower: wh /a, /x/b redirect=/a /x/b/2=2 \
         | lower: /a/3=3 | upper: wh /c, /d redirect=/c",
        "/d/1=1 /d/2=2 /d/3=3 /x",
    );
}

#[test]
fn a_redirect_skips_layers_that_lack_the_path() {
    shows(
        "lower: /other=1 | lower: /p/old/a=2 | upper: /p wh /p/old, /new redirect=/p/old",
        "/p /other=1 /new/a=2",
    );
}

#[test]
fn an_opaque_directory_on_the_way_of_a_redirect_ends_it() {
    shows(
        "lower: /old/a=1 /old opaque | lower: /old/b=2 | upper: wh /old /new redirect=old",
        "/new/a=1",
    );
}

#[test]
fn a_redirect_to_itself_is_the_name_itself() {
    shows("lower: /d/a=1 | upper: /d redirect=d", "/d/a=1");
    shows("lower: /d/a=1 | upper: /d redirect=/d", "/d/a=1");
}

#[test]
fn two_directories_that_redirect_to_each_other_swap_what_is_below() {
    shows(
        "lower: /a/1=1 /b/2=1 | upper: /a redirect=b /b redirect=a",
        "/a/2=1 /b/1=1",
    );
}

#[test]
fn redirects_are_refused_where_the_option_says_so() {
    need_root!();
    let world = crate::world::World::new(
        "lower: /old/a=1 | upper: wh /old, /new redirect=old /new/b=0 /ok=1 | opts: redirect=nofollow",
    );
    let union = world.open();
    let found = union.lookup(plyfs_union::NodeId::ROOT, b"new");
    assert_eq!(found.unwrap_err().errno(), plyfs_sys::Errno::EPERM);
    assert!(
        union
            .lookup(plyfs_union::NodeId::ROOT, b"ok")
            .unwrap()
            .is_some()
    );
}

#[test]
fn redirects_that_climb_out_are_malformed() {
    need_root!();
    for value in ["..", "../x", "/a/../../x", "a/b", "/", "."] {
        let layers = format!("lower: /d/a=1 | upper: /d redirect={value} /ok=0 | opts: own-format");
        let world = crate::world::World::new(&layers);
        let union = world.open();
        let found = union.lookup(plyfs_union::NodeId::ROOT, b"d");
        // The kernel refuses some forms and resolves the others inside the layer; never outside.
        if let Ok(Some(entry)) = found {
            let names = union.names(entry.node.id).unwrap();
            assert!(names.is_empty(), "redirect {value:?} shows {names:?}");
        }
        assert!(
            union
                .lookup(plyfs_union::NodeId::ROOT, b"ok")
                .unwrap()
                .is_some()
        );
    }
}

#[test]
fn metacopies_show_their_attributes_and_the_data_of_deeper_layers() {
    shows(
        "lower: /f=data mode=600 t=5 | upper: /f= metacopy size=4 mode=640 t=7 own=1:2 | opts: metacopy",
        "/f=data mode=640 t=7 own=1:2",
    );
    shows(
        "lower: /f= metacopy size=4 mode=640 | lower: /f=data mode=600 | upper: | opts: metacopy",
        "/f=data mode=640",
    );
    // A chain of them.
    shows(
        "lower: /f= metacopy size=4 mode=641 | lower: /f= metacopy size=4 mode=642 | lower: /f=data \
         | upper: / impure /f= metacopy size=4 mode=640 | opts: metacopy",
        "/f=data mode=640",
    );
}

#[test]
fn metacopies_follow_redirects_to_their_data() {
    shows(
        "lower: /old=data | upper: / impure wh /old /new= metacopy size=4 redirect=old | opts: metacopy",
        "/new=data",
    );
    shows(
        "lower: /p/old=data | upper: wh /p/old, /q impure /q/new= metacopy size=4 redirect=/p/old | opts: metacopy",
        "/p /q/new=data",
    );
    shows(
        "lower: wh /f, /g= metacopy size=4 redirect=f | lower: /f=data \
         | upper: / impure wh /g, /h= metacopy size=4 redirect=g | opts: metacopy",
        "/h=data",
    );
}

#[test]
fn a_metacopy_without_data_is_an_error_and_nothing_else_suffers() {
    need_root!();
    let world = crate::world::World::new(
        "lower: /d/a=1 | upper: /f= metacopy size=4 /g=0 | opts: metacopy own-format",
    );
    let union = world.open();
    let found = union.lookup(plyfs_union::NodeId::ROOT, b"f");
    assert_eq!(found.unwrap_err().errno(), plyfs_sys::Errno::EIO);
    assert!(
        union
            .lookup(plyfs_union::NodeId::ROOT, b"g")
            .unwrap()
            .is_some()
    );
}

#[test]
fn read_only_views_work_and_refuse_changes() {
    check(
        "lower: /d/a=1 /f=1 | lower: /d/b=2",
        "mkdir /x !EROFS; create /x !EROFS; rm /f !EROFS; rmdir /d !EROFS; mv /f /g !EROFS; \
         ln /f /g !EROFS; put /f 0 x !EROFS; chmod 600 /f !EROFS; trunc /f 0 !EROFS; \
         setx /f user.a b !EROFS; rmx /f user.a !EROFS; touch /f 1 !EROFS",
        "tree: /d/a=1 /d/b=2 /f=1",
    );
}

#[test]
fn an_upper_without_lowers_is_a_plain_tree() {
    check(
        "upper: /d/a=1",
        "mv /d /e; rm /e/a; rmdir /e; mkdir /d; create /d/f",
        "tree: /d/f= | upper: /d/f=",
    );
}

#[test]
fn names_that_are_no_names_are_refused() {
    need_root!();
    let world = crate::world::World::new("lower: /f=1 | upper:");
    let union = world.open();
    let root = plyfs_union::NodeId::ROOT;
    let long = vec![b'n'; 256];
    assert_eq!(
        union.lookup(root, &long).unwrap_err().errno(),
        plyfs_sys::Errno::ENAMETOOLONG
    );
    for name in [&b""[..], b"a/b", b".", b"..", b"nul\0"] {
        assert!(!matches!(union.lookup(root, name), Ok(Some(_))), "{name:?}");
        assert!(union.unlink(root, name).is_err(), "{name:?}");
    }
    assert!(union.lookup(root, &long[..255]).unwrap().is_none());
}

#[test]
fn names_are_bytes() {
    need_root!();
    use std::os::unix::ffi::OsStrExt as _;
    let world = crate::world::World::new("lower: /f=1 | upper:");
    let name = b"\xff\xfe \n\\";
    let path = world.upper().join(std::ffi::OsStr::from_bytes(name));
    std::fs::write(path, "x").unwrap();
    let union = world.open();
    let root = plyfs_union::NodeId::ROOT;
    assert!(union.lookup(root, name).unwrap().is_some());
    assert!(union.names(root).unwrap().iter().any(|n| n == name));
    union.unlink(root, name).unwrap();
    assert!(union.lookup(root, name).unwrap().is_none());
    world.verify(&union);
}
