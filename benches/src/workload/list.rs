//! The table of workloads.
use super::{Done, Start, Workload, git, meta, read, remove, write};
use crate::fixture::{Fixture, Kind};
use crate::site::Touch;

/// Every workload; those that depend on the depth of the stack once for each of `depths`.
#[must_use]
pub fn all(depths: &[usize]) -> Vec<Workload> {
    let mut all = Vec::new();
    for &layers in depths {
        all.extend(names(layers));
    }
    all.extend(reading());
    all.extend(writing());
    if git::is_here() {
        all.extend(versions());
    }
    all.extend(changing_lower());
    all
}

fn base(name: &str, about: &'static str, kind: Kind, start: Start) -> Workload {
    Workload {
        name: name.to_owned(),
        about,
        fixture: Fixture { kind, layers: 1 },
        start,
        touch: Touch::Reads,
        about_copy_up: false,
        passes: 1,
        prepare: |_| Ok(()),
        run: |_| Ok(Done::units(0)),
        expect: |_| Done::units(0),
        check: |_| Ok(()),
    }
}

/// A workload at every start; the warm one is short and gets several passes.
fn starts(of: &Workload, layers: usize, starts: &[Start]) -> Vec<Workload> {
    let one = |&start: &Start| {
        let suffix = match start {
            Start::Cold => "cold",
            Start::Fresh => "fresh",
            Start::Warm => "warm",
        };
        let depth = if layers == 1 {
            String::new()
        } else {
            format!("@{layers}")
        };
        Workload {
            name: format!("{}-{suffix}{depth}", of.name),
            fixture: Fixture {
                layers,
                ..of.fixture
            },
            start,
            passes: if start == Start::Warm { 5 } else { 1 },
            ..of.clone()
        }
    };
    starts.iter().map(one).collect()
}

fn versions() -> Vec<Workload> {
    let work = |name, about, start| Workload {
        touch: Touch::Adds,
        prepare: git::prepare,
        expect: git::one,
        ..base(name, about, Kind::Empty, start)
    };
    vec![
        Workload {
            run: git::status,
            ..work(
                "git-status",
                "git status of a source tree that was just committed",
                Start::Warm,
            )
        },
        Workload {
            run: git::checkout,
            check: git::checkout_check,
            ..work(
                "git-checkout",
                "git checks out a source tree once more",
                Start::Fresh,
            )
        },
    ]
}

fn names(layers: usize) -> Vec<Workload> {
    use Start::{Cold, Fresh, Warm};
    let find = Workload {
        run: meta::find,
        expect: meta::find_expect,
        ..base("find", "find -ls over the tree", Kind::Tree, Warm)
    };
    let read = Workload {
        run: read::small,
        expect: read::small_expect,
        ..base(
            "read-small",
            "open, read and close every small file",
            Kind::Small,
            Warm,
        )
    };
    let stat = Workload {
        run: meta::stat,
        expect: meta::each_file,
        ..base("stat", "lstat of every small file", Kind::Small, Warm)
    };
    let shared = Workload {
        run: meta::stat_shared,
        expect: meta::each_file,
        ..base(
            "stat-16",
            "lstat of every small file, 16 clients at a time",
            Kind::Small,
            Warm,
        )
    };
    let read_shared = Workload {
        run: read::small_shared,
        expect: read::small_expect,
        ..base(
            "read-small-16",
            "open, read and close every small file, 16 clients at a time",
            Kind::Small,
            Warm,
        )
    };
    let missing = Workload {
        run: meta::missing,
        expect: meta::each_file,
        ..base(
            "open-missing",
            "open of as many names that do not exist",
            Kind::Small,
            Warm,
        )
    };
    let list = Workload {
        run: meta::readdir,
        expect: meta::readdir_expect,
        ..base(
            "readdir",
            "list every directory of the tree, names only",
            Kind::Tree,
            Warm,
        )
    };
    let mut all = starts(&find, layers, &[Cold, Fresh, Warm]);
    all.extend(starts(&read, layers, &[Cold, Fresh, Warm]));
    all.extend(starts(&stat, layers, &[Fresh, Warm]));
    all.extend(starts(&shared, layers, &[Fresh]));
    all.extend(starts(&read_shared, layers, &[Warm]));
    all.extend(starts(&missing, layers, &[Cold, Fresh, Warm]));
    all.extend(starts(&list, layers, &[Fresh, Warm]));
    all
}

fn reading() -> Vec<Workload> {
    let crowd = Workload {
        run: meta::crowd,
        expect: meta::crowd_expect,
        ..base(
            "readdir-crowd",
            "list one directory of very many names",
            Kind::Crowd,
            Start::Warm,
        )
    };
    let first = Workload {
        run: read::big,
        expect: read::big_expect,
        ..base(
            "read-big-first",
            "read a large file, its layer cached",
            Kind::Big,
            Start::Fresh,
        )
    };
    let second = Workload {
        name: "read-big-second".to_owned(),
        about: "read the same large file again in the same mount",
        start: Start::Warm,
        ..first.clone()
    };
    let mut all = starts(&crowd, 1, &[Start::Fresh, Start::Warm]);
    let mapped = Workload {
        name: "mmap-big-first".to_owned(),
        about: "read a large file through a mapping, its layer cached",
        run: read::big_mapped,
        ..first.clone()
    };
    let mapped_again = Workload {
        name: "mmap-big-second".to_owned(),
        about: "read it through a mapping again in the same mount",
        run: read::big_mapped,
        ..second.clone()
    };
    let direct = Workload {
        name: "direct-big".to_owned(),
        about: "read a large file past the page cache",
        run: read::big_direct,
        ..first.clone()
    };
    let random = Workload {
        name: "random-4k".to_owned(),
        about: "read one block in 16 of a large file, in no order",
        run: read::big_random,
        expect: read::big_random_expect,
        ..first.clone()
    };
    all.extend([first, second, mapped, mapped_again, direct, random]);
    all
}

fn writing() -> Vec<Workload> {
    let adds = |name, about| Workload {
        touch: Touch::Adds,
        ..base(name, about, Kind::Empty, Start::Fresh)
    };
    vec![
        Workload {
            run: write::big,
            expect: write::big_expect,
            check: write::big_check,
            ..adds(
                "write-big",
                "write a new large file, 1 MiB at a time, and close it",
            )
        },
        Workload {
            prepare: write::rewrite_prepare,
            run: write::rewrite,
            expect: write::rewrite_expect,
            check: write::rewrite_check,
            ..adds(
                "rewrite-4k",
                "8 times over a file of the upper, 4 KiB at a time, then close",
            )
        },
        Workload {
            run: write::create,
            expect: write::create_expect,
            check: write::create_check,
            ..adds("create-small", "create, write and close small files")
        },
        Workload {
            run: write::create_shared,
            expect: write::create_expect,
            check: write::create_check,
            ..adds(
                "create-small-16",
                "create, write and close small files, 16 clients at a time",
            )
        },
        Workload {
            run: write::untar,
            expect: write::untar_expect,
            check: write::untar_check,
            ..adds("untar", "tar -x of a source tree")
        },
        Workload {
            prepare: |site| write::create(site).map(drop),
            run: remove::created,
            expect: remove::created_expect,
            check: remove::created_check,
            ..adds("rm-created", "rm -rf of small files that were just created")
        },
    ]
}

fn changing_lower() -> Vec<Workload> {
    let changes = |name, about, kind| Workload {
        touch: Touch::ChangesLower,
        ..base(name, about, kind, Start::Fresh)
    };
    vec![
        Workload {
            run: remove::lower,
            expect: remove::lower_expect,
            check: remove::lower_check,
            ..changes(
                "rm-lower",
                "rm -rf of every small file of the lower layer",
                Kind::Small,
            )
        },
        Workload {
            run: meta::chown,
            expect: meta::all_entries,
            check: meta::chown_check,
            ..changes(
                "chown-lower",
                "chown -R of small files of the lower layer",
                Kind::Small,
            )
        },
        Workload {
            about_copy_up: true,
            run: write::first,
            expect: write::first_expect,
            check: write::first_check,
            ..changes(
                "first-write-big",
                "4 KiB into a large file of the lower layer",
                Kind::Big,
            )
        },
    ]
}

#[cfg(test)]
mod tests {
    use super::all;

    #[test]
    fn names_are_unique() {
        let mut names: Vec<_> = all(&[1, 20]).into_iter().map(|w| w.name).collect();
        let count = names.len();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), count);
    }

    /// The README explains every workload.
    #[test]
    fn the_readme_knows_all() {
        let readme = include_str!("../../README.md");
        for workload in all(&[1]) {
            let name = &workload.name;
            let base = ["-cold", "-fresh", "-warm"]
                .iter()
                .find_map(|end| name.strip_suffix(end));
            let row = format!("| `{}` |", base.unwrap_or(name));
            assert!(readme.contains(&row), "benches/README.md has no row {row}");
        }
    }
}
