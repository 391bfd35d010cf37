//! Whom objects belong to: id maps, squashing, and owner and mode kept in marks.
use crate::check::check;

#[test]
fn ids_are_mapped_on_the_way_up_and_on_the_way_down() {
    check(
        "lower: /a=1 own=0:0 /b=1 own=1:5 /c=1 own=70:70 /d own=5:5 | upper: \
         | opts: uids=:0:1000:1:1:100000:50:60:7:1 gids=0:2000:60",
        "stat /a own=1000:2000; stat /b own=100000:2005; stat /c own=65534:65534; \
         chown 7:2001 /a; stat /a own=7:2001; chown 9:2000 /a !EOVERFLOW; chown 1000:1 /a !EOVERFLOW; \
         chmod 600 /c; \
         as 100004:2010; create /d/n; mkdir /d/m; sym t /d/s; stat /d/n own=100004:2010; \
         as 3:2000; create /d/x; stat /d/x own=65534:2000; as 1000:2000; write /d/r x",
        "tree: /a=1 own=7:2001 /b=1 own=100000:2005 /c=1 own=65534:65534 /d/n= own=100004:2010 /d/m own=100004:2010 \
         /d/s->t own=100004:2010 /d/r=x own=1000:2000 /d/x= own=65534:2000 \
         | upper: /a=1 own=60:1 /c=1 own=70:70 /d own=5:5 /d/n= own=5:10 /d/m own=5:10 /d/s->t own=5:10 /d/r=x own=0:0 /d/x= own=65534:0",
    );
}

#[test]
fn mapped_ids_are_stored_over_whiteouts_and_in_setgid_directories_too() {
    check(
        "lower: /d/f=1 /d mode=2777 own=1:3 | upper: | opts: uids=0:1000:10 gids=0:2000:10",
        "as 1004:2005; rm /d/f; create /d/f; mkdir /d/e; stat /d/f own=1004:2003; stat /d/e own=1004:2003 mode=2755",
        "tree: /d mode=2777 own=1001:2003 /d/f= own=1004:2003 /d/e mode=2755 | upper: /d own=1:3 /d/f= own=4:3 /d/e own=4:3",
    );
}

#[test]
fn ids_in_access_control_lists_are_mapped() {
    use crate::client::Client;
    use crate::world::World;
    use plyfs_format::acl::{ACCESS_XATTR, Acl, Entry, Tag};
    plyfs_testkit::need_root!();
    let world = World::new("lower: /f=1 | upper: | opts: uids=0:1000:10 gids=0:2000:10");
    let client = Client::new(world.open());
    let f = client.node("/f").unwrap();
    let list = |user, group| {
        let entry = |tag, perm| Entry { tag, perm };
        let entries = vec![
            entry(Tag::UserObj, 6),
            entry(Tag::User(user), 4),
            entry(Tag::GroupObj, 4),
            entry(Tag::Group(group), 2),
            entry(Tag::Mask, 6),
            entry(Tag::Other, 0),
        ];
        Acl::new(entries).unwrap().encode()
    };
    let name = ACCESS_XATTR.as_bytes();
    let set = |value: &[u8]| {
        let flags = plyfs_sys::xattr::SetFlags::empty();
        let done = client
            .union
            .setxattr(&client.caller, f.id, name, value, flags);
        done.map_err(|e| e.errno())
    };
    set(&list(1003, 2004)).unwrap();
    assert_eq!(client.union.getxattr(f.id, name).unwrap(), list(1003, 2004));
    let on_disk = xattr::get(world.upper().join("f"), ACCESS_XATTR).unwrap();
    assert_eq!(on_disk.unwrap(), list(3, 4));
    assert_eq!(set(&list(3, 2004)), Err(plyfs_sys::Errno::EINVAL));
}

#[test]
fn squashed_ids_show_as_one_and_are_stored_as_they_are() {
    check(
        "lower: /a=1 own=3:4 /b=1 | upper: | opts: squash=0:9",
        "stat /a own=0:9; chown 0:9 /a; stat /a own=0:9; chown 5:6 /b; stat /b own=0:9; as 7:8; create /n",
        "tree: /a=1 own=0:9 /b=1 own=0:9 /n= own=0:9 | upper: /a=1 own=3:4 /b=1 own=5:6 /n= own=7:8",
    );
}

#[test]
fn owner_and_mode_are_kept_in_marks_that_containers_storage_reads() {
    let ops = "write /f x; chmod 4755 /f; chown 5:6 /f; stat /f own=5:6 mode=755; chmod 2711 /f; \
         as 7:8; umask 27; mkdir /d; create /d/n 666; chr /d/c; fifo /d/p; sock /d/s; sym t /d/l; blk /d/b; \
         as 0:0; umask 0; chown 9:9 /d/c; chmod 600 /d/c; chmod 640 /low; rm /low2; write /low2 y; rm /d/b; \
         stat /d/c rdev=1:3 own=9:9";
    let tree = "tree: /f=x own=5:6 mode=2711 /d own=7:8 mode=750 /d/n= own=7:8 mode=640 chr /d/c own=9:9 mode=600 \
         fifo /d/p own=7:8 sock /d/s own=7:8 /d/l->t /low=1 own=1:2 mode=640 /low2=y own=0:0";
    for (marks, name) in [
        ("marks=1", "security.fuseoverlayfs.override_stat"),
        ("marks=2", "user.containers.override_stat"),
    ] {
        check(
            &format!("lower: /low=1 own=1:2 mode=604 /low2=1 | upper: | opts: {marks}"),
            ops,
            &format!(
                "{tree} | upper: / x:{name}=0:0:0755:dir /f=x own=0:0 mode=711 x:{name}=5:6:2711:file \
                 /d own=0:0 mode=750 x:{name}=7:8:0750:dir /d/n= mode=640 x:{name}=7:8:0640:file \
                 /d/c= x:{name}=9:9:0600:char-1-3 /d/p= x:{name}=7:8:0640:pipe /d/s= x:{name}=7:8:0640:socket \
                 /d/l->t /low=1 own=0:0 mode=640 x:{name}=1:2:0640:file /low2=y x:{name}=0:0:0644:file"
            ),
        );
    }
}

#[test]
fn layers_that_announce_marks_are_read_by_them() {
    for name in [
        "security.fuseoverlayfs.override_stat",
        "user.containers.override_stat",
        "user.fuseoverlayfs.override_stat",
    ] {
        check(
            &format!(
                "lower: / x:{name}=0:0:0555:dir /f=1 mode=700 x:{name}=5:6:4755:file /dev= mode=700 x:{name}=0:6:0660:block-7-0 \
                 /d mode=700 x:{name}=1:1:0711 /d/g=1 own=3:4 | lower: /h=1 x:{name}=9:9:0600 /f=2 /d/i=1 | upper: | opts: own-format"
            ),
            "stat /f own=5:6 mode=4755; listx /f=; write /d/i 2; mv /dev /dev2; chmod 600 /f",
            "tree: / mode=755 /f=1 own=5:6 mode=600 blk /dev2 own=0:6 mode=660 /d mode=711 own=1:1 /d/g=1 own=3:4 \
             /d/i=2 /h=1 own=0:0 mode=644",
        );
    }
}

#[test]
fn an_upper_that_announces_marks_goes_on_with_them() {
    let name = "user.containers.override_stat";
    check(
        &format!(
            "lower: /l=1 own=1:1 | upper: / x:{name}=0:0:0555:dir /f=1 x:{name}=5:6:0640:file | opts: own-format"
        ),
        "stat /f own=5:6; chmod 600 /l; chown 7 /f",
        &format!(
            "tree: /l=1 own=1:1 mode=600 /f=1 own=7:6 mode=640 | upper: /l=1 own=0:0 x:{name}=1:1:0600:file /f=1 own=0:0 x:{name}=7:6:0640:file"
        ),
    );
}

#[test]
fn security_attributes_stand_apart_from_those_of_the_backing_file() {
    let (mark, apart) = (
        "user.containers.override_stat",
        "user.containers.override_security.test",
    );
    check(
        &format!("lower: / x:{mark}=0:0:0755 /l=1 x:{apart}=low | upper: | opts: marks=2"),
        &format!(
            "getx /l security.test=low; listx /l=security.test; chmod 600 /l; getx /l security.test=low; \
             create /f; setx /f security.test v; getx /f security.test=v; setx /f {mark} v !EPERM; setx /f {apart} v !EPERM; \
             create /g; setx /g security.test v; rmx /g security.test; rmx /g security.test !ENODATA; \
             setx /g security.capability cap; put /g 0 x; getx /g security.capability=x !ENODATA"
        ),
        &format!(
            "tree: /l=1 x:security.test=low /f= x:security.test=v /g=x !x:security.test | upper: /l=1 x:{apart}=low !x:security.test /f= x:{apart}=v /g=x !x:{apart}"
        ),
    );
}

#[test]
fn a_malformed_mark_grants_nothing_and_hides_no_other_name() {
    use crate::client::Client;
    use crate::world::World;
    plyfs_testkit::need_root!();
    let mark = "user.containers.override_stat";
    let world = World::new(&format!(
        "lower: / x:{mark}=0:0:0755 /f=1 x:{mark}=bad /g=1 | upper:"
    ));
    let mut client = Client::new(world.open());
    let ops = "stat /f !EIO; cat /g=1; ls /=f,g; rm /f !EIO; mv /g /h; ls /=f,h";
    crate::ops::run(&world, &mut client, ops);
    let mut listed = Vec::new();
    let done = client.union.readdir_plus(
        plyfs_union::NodeId::ROOT,
        plyfs_union::Cookie(2),
        |entry, found| {
            listed.push((
                String::from_utf8_lossy(entry.name).into_owned(),
                found.is_some(),
            ));
            plyfs_union::Flow::Continue(())
        },
    );
    done.unwrap();
    listed.sort();
    assert_eq!(listed, [("f".to_owned(), false), ("h".to_owned(), true)]);
}

#[test]
fn what_is_switched_off_is_not_there() {
    check(
        "lower: /f=1 x:user.k=v /d/e | upper: | opts: noxattrs static_nlink",
        "getx /f user.k=v !ENOSYS; listx /f= !ENOSYS; setx /f user.k w !ENOSYS; rmx /f user.k !ENOSYS; chmod 600 /f; \
         mkdir /n; mkdir /n/m; stat /n nlink=1; stat /d nlink=1; stat /f nlink=1",
        "upper: /f=1 mode=600 x:user.k=v /n/m",
    );
    check(
        "lower: /f=1 x:user.k=v | upper: | opts: noacl",
        "getx /f system.posix_acl_access= !EOPNOTSUPP; setx /f system.posix_acl_access v !EOPNOTSUPP; \
         rmx /f system.posix_acl_access !EOPNOTSUPP; getx /f user.k=v; setx /f user.k w; listx /f=user.k",
        "tree: /f=1 x:user.k=w",
    );
}
