use nix::errno::Errno;

use super::{Layer, Model, Move, Op, Planted};

fn layer(things: &[(&str, Planted)]) -> Layer {
    let things: Vec<_> = things
        .iter()
        .map(|(path, thing)| ((*path).to_owned(), thing.clone()))
        .collect();
    Layer::new(&things)
}

fn file(text: &str) -> Planted {
    Planted::File(text.to_owned())
}

fn paths(model: &Model) -> String {
    model.tree().into_keys().collect::<Vec<_>>().join(" ")
}

const OPAQUE: Planted = Planted::Dir { opaque: true };

#[test]
fn layers_merge() {
    let layers = [
        layer(&[("/d/a", file("1"))]),
        layer(&[
            ("/d/b", file("2")),
            ("/w", Planted::Whiteout),
            ("/o", OPAQUE),
        ]),
        layer(&[("/d/a", file("3")), ("/w", file("3")), ("/o/x", file("3"))]),
    ];
    let model = Model::new(&layers, true, true);
    assert_eq!(paths(&model), "/d /d/a /d/b /o");
    assert_eq!(model.tree()["/d/a"].content, b"1");
    assert!(model.whiteouts().is_empty());
}

#[test]
fn a_whiteout_is_due_where_a_lower_shows_the_name() {
    let layers = [
        layer(&[("/d/u", file("0"))]),
        layer(&[("/d/a", file("1")), ("/d/b", file("1"))]),
    ];
    let mut model = Model::new(&layers, true, true);
    for op in [
        Op::Unlink("/d/a".into()),
        Op::Unlink("/d/u".into()),
        Op::Rename(Move::Plain, "/d".into(), "/e".into()),
        Op::Mkdir("/d".into()),
    ] {
        model.apply(&op).unwrap();
    }
    assert_eq!(paths(&model), "/d /e /e/b");
    let due: Vec<_> = model.whiteouts().into_iter().collect();
    assert_eq!(due, ["/e/a"]);
    model.apply(&Op::Rmdir("/d".into())).unwrap();
    assert!(model.whiteouts().contains("/d"));
}

#[test]
fn errors_are_those_of_programs() {
    let layers = [
        Layer::default(),
        layer(&[("/d/a", file("1")), ("/f", file("1"))]),
    ];
    let mut model = Model::new(&layers, true, false);
    for (op, errno) in [
        (Op::Mkdir("/d".into()), Errno::EEXIST),
        (Op::Unlink("/d".into()), Errno::EISDIR),
        (Op::Rmdir("/d".into()), Errno::ENOTEMPTY),
        (Op::Rmdir("/f".into()), Errno::ENOTDIR),
        (Op::Create("/f/x".into()), Errno::ENOTDIR),
        (Op::Create("/no/x".into()), Errno::ENOENT),
        (
            Op::Rename(Move::Plain, "/d".into(), "/e".into()),
            Errno::EXDEV,
        ),
        (
            Op::Rename(Move::Plain, "/f".into(), "/d".into()),
            Errno::EISDIR,
        ),
        (Op::Link("/d".into(), "/e".into()), Errno::EPERM),
    ] {
        assert_eq!(model.apply(&op), Err(errno), "{op}");
    }
    assert_eq!(paths(&model), "/d /d/a /f");
}

#[test]
fn what_is_held_outlives_its_name() {
    let mut model = Model::new(&[layer(&[("/f", file("1"))])], true, true);
    model.apply(&Op::Hold(0, "/f".into())).unwrap();
    model.apply(&Op::Unlink("/f".into())).unwrap();
    model.apply(&Op::Append("@0".into(), "2".into())).unwrap();
    assert_eq!(
        (&model.held()[&0].content[..], model.held()[&0].nlink),
        (&b"12"[..], 0)
    );
    assert!(model.is_moot(&Op::Drop(1)));
    assert!(model.is_moot(&Op::Create("@1/x".into())));
}

#[test]
fn a_rename_into_itself_is_none_of_our_business() {
    let layers = [layer(&[("/d/e/f", file("1"))])];
    let model = Model::new(&layers, true, true);
    for (from, to) in [("/d", "/d/e/x"), ("/d/e/f", "/d"), ("/d/e", "/d/e/x")] {
        assert!(
            model.is_moot(&Op::Rename(Move::Plain, from.into(), to.into())),
            "{from} {to}"
        );
    }
    assert!(!model.is_moot(&Op::Rename(Move::Plain, "/d/e".into(), "/e".into())));
}
