//! The table of workloads.
use super::{Done, Start, Workload, git, install, meta, programs, read, remove, write};
use crate::fixture::{Fixture, Kind};
use crate::site::Touch;

/// Every workload; those that depend on the depth of the stack once for each of `depths`.
#[must_use]
pub fn all(depths: &[usize]) -> Vec<Workload> {
    let mut all = Vec::new();
    for &layers in depths {
        all.extend(names(layers));
        all.extend(containers(layers));
    }
    all.extend(mounts());
    all.extend(reading());
    all.extend(writing());
    if git::is_here() {
        all.extend(versions());
    }
    all.extend(running());
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
        options: &[],
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
            Start::Mounting => "mount",
        };
        let one = Workload {
            name: format!("{}-{suffix}", of.name),
            start,
            passes: if start == Start::Warm { 5 } else { 1 },
            ..of.clone()
        };
        over(layers, one)
    };
    starts.iter().map(one).collect()
}

/// The same workload over so many layers, and the name that says so.
fn over(layers: usize, of: Workload) -> Workload {
    if layers == 1 {
        return of;
    }
    Workload {
        name: format!("{}@{layers}", of.name),
        fixture: Fixture {
            layers,
            ..of.fixture
        },
        ..of
    }
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
    if layers > 1 {
        // What depth costs is in a fresh mount, the disk below and the kernel's caches the same.
        let mut all = starts(&find, layers, &[Fresh]);
        all.extend(starts(&read, layers, &[Fresh]));
        all.extend(starts(&stat, layers, &[Fresh]));
        all.extend(starts(&missing, layers, &[Fresh]));
        all.extend(starts(&list, layers, &[Fresh, Warm]));
        return all;
    }
    let mut all = starts(&find, layers, &[Cold, Fresh, Warm]);
    all.extend(starts(&read, layers, &[Cold, Fresh, Warm]));
    all.extend(starts(&stat, layers, &[Fresh, Warm]));
    all.extend(shared());
    all.extend(starts(&missing, layers, &[Cold, Fresh, Warm]));
    all.extend(starts(&list, layers, &[Fresh, Warm]));
    all
}

/// Reading names and small files by several clients at a time.
fn shared() -> Vec<Workload> {
    let stat = |name, run| Workload {
        run,
        expect: meta::each_file,
        ..base(
            name,
            "lstat of every small file, so many clients at a time",
            Kind::Small,
            Start::Fresh,
        )
    };
    let read = |name, run| Workload {
        run,
        expect: read::small_expect,
        passes: 5,
        ..base(
            name,
            "open, read and close every small file, so many clients at a time",
            Kind::Small,
            Start::Warm,
        )
    };
    vec![
        stat("stat-4-fresh", meta::stat_shared::<4>),
        stat("stat-16-fresh", meta::stat_shared::<16>),
        read("read-small-4-warm", read::small_shared::<4>),
        read("read-small-16-warm", read::small_shared::<16>),
    ]
}

/// What a container does first.
fn containers(layers: usize) -> Vec<Workload> {
    let chroot = Workload {
        run: programs::chroot_true,
        expect: programs::once,
        ..base(
            "chroot",
            "chroot into the merged view and run /bin/true",
            Kind::Root,
            Start::Warm,
        )
    };
    starts(&chroot, layers, &[Start::Fresh, Start::Warm])
}

/// Making mounts; a plain directory is none.
fn mounts() -> Vec<Workload> {
    let mount = Workload {
        about_copy_up: true,
        run: programs::nothing,
        expect: programs::once,
        ..base(
            "mount",
            "mount that many layers",
            Kind::Root,
            Start::Mounting,
        )
    };
    let first = Workload {
        name: "mount-first".to_owned(),
        about: "mount that many layers, chroot and run /bin/true",
        run: programs::chroot_true,
        ..mount.clone()
    };
    vec![over(500, mount), over(120, first)]
}

/// Programs as people run them, each where there is one.
fn running() -> Vec<Workload> {
    let adds = |name, about| Workload {
        touch: Touch::Adds,
        expect: programs::once,
        ..base(name, about, Kind::Empty, Start::Fresh)
    };
    let mut all = Vec::new();
    if programs::is_here("cc") && programs::is_here("make") {
        all.push(Workload {
            prepare: programs::build_prepare,
            run: programs::build,
            check: programs::build_check,
            ..adds("c-build", "make -j2 of a small project in C")
        });
    }
    if programs::is_here("dpkg") && programs::is_here("dpkg-deb") {
        all.push(Workload {
            prepare: install::prepare,
            run: install::install,
            check: install::check,
            ..adds("dpkg-install", "dpkg -i of a package of the source tree")
        });
    }
    if programs::has_python() {
        let python = Workload {
            run: programs::python,
            expect: programs::once,
            ..base(
                "python",
                "start Python and import modules, its library in a layer",
                Kind::Python,
                Start::Warm,
            )
        };
        all.extend(starts(&python, 1, &[Start::Fresh, Start::Warm]));
    }
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
    let find_crowd = Workload {
        run: meta::find,
        expect: meta::find_expect,
        ..base(
            "find-crowd",
            "find -ls over one directory of very many names",
            Kind::Crowd,
            Start::Fresh,
        )
    };
    let mut all = starts(&crowd, 1, &[Start::Fresh, Start::Warm]);
    all.extend(starts(&find_crowd, 1, &[Start::Fresh]));
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
            run: write::create_shared::<4>,
            expect: write::create_expect,
            check: write::create_check,
            ..adds(
                "create-small-4",
                "create, write and close small files, 4 clients at a time",
            )
        },
        Workload {
            run: write::create_shared::<16>,
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
    let first = |name, about, run, check| Workload {
        about_copy_up: true,
        run,
        expect: write::first_expect,
        check,
        ..changes(name, about, Kind::Big)
    };
    let chown = Workload {
        run: meta::chown,
        expect: meta::all_entries,
        check: meta::chown_check,
        ..changes(
            "chown-lower",
            "chown -R of small files of the lower layer",
            Kind::Small,
        )
    };
    let chown_attributes = Workload {
        name: "chown-lower-metacopy".to_owned(),
        about: "the same in a mount with metacopy=on",
        about_copy_up: true,
        options: &[("metacopy", "on")],
        ..chown.clone()
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
        chown,
        chown_attributes,
        first(
            "first-write-little",
            "4 KiB into a file of 1 MiB of the lower layer",
            write::first_little,
            write::first_little_check,
        ),
        first(
            "first-write-medium",
            "4 KiB into a file of a tenth of the large one",
            write::first_medium,
            write::first_medium_check,
        ),
        first(
            "first-write-big",
            "4 KiB into a large file of the lower layer",
            write::first,
            write::first_check,
        ),
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
            let name = workload.name.split('@').next().unwrap_or_default();
            let base = ["-cold", "-fresh", "-warm"]
                .iter()
                .find_map(|end| name.strip_suffix(end));
            let row = format!("| `{}` |", base.unwrap_or(name));
            assert!(readme.contains(&row), "benches/README.md has no row {row}");
        }
    }
}
