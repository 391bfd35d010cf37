//! Random stacks: layers whose names collide, with everything a layer can hold.

use super::case::{Case, Entry, Kind};
use super::rng::Rng;
use super::text::{Bytes, Mode};

/// Names that are mostly directories, and names that are mostly not: layers merge often but not always.
const DIR_NAMES: &[&[u8]] = &[b"d0", b"d1", b"d2", b"sub"];
const FILE_NAMES: &[&[u8]] = &[b"f0", b"f1", b"f2", b"f3", b"x"];
const ODD_NAMES: &[&[u8]] = &[
    b"\xff\xfe",
    b"sp ace",
    b"new\nline",
    b"co:lon",
    b"com,ma",
    b"back\\slash",
    b".hid",
    b"%41",
];

/// A name for a new file; now and then one that parsers trip over.
pub(crate) fn name(rng: &mut Rng, dir: bool) -> Vec<u8> {
    let odd = rng.chance(6);
    if odd && rng.chance(20) {
        return vec![b'L'; 255];
    }
    let usual = if dir != rng.chance(8) {
        DIR_NAMES
    } else {
        FILE_NAMES
    };
    let from = if odd { ODD_NAMES } else { usual };
    rng.pick(from).to_vec()
}

/// Permission bits; mostly ordinary.
pub(crate) fn mode(rng: &mut Rng, dir: bool) -> Mode {
    let usual: &[u32] = if dir {
        &[0o755, 0o755, 0o777, 0o700]
    } else {
        &[0o644, 0o755, 0o600, 0o666]
    };
    let odd: &[u32] = &[
        0, 0o400, 0o222, 0o111, 0o1777, 0o2775, 0o4755, 0o6711, 0o2640, 0o7777, 0o555,
    ];
    let from = if rng.chance(25) { odd } else { usual };
    Mode(*rng.pick(from))
}

/// Times that formats get wrong: before 1970, after 2038, after 2106, with nanoseconds.
pub(crate) fn time(rng: &mut Rng) -> (i64, u32) {
    const TIMES: &[(i64, u32)] = &[
        (1_000_000_000, 0),
        (1_234_567_890, 123_456_789),
        (0, 0),
        (0, 1),
        (-1, 999_999_999),
        (-1_000_000_000, 5),
        (2_147_483_648, 7),
        (4_294_967_301, 999_999_999),
        (1_500_000_000, 500_000_000),
    ];
    *rng.pick(TIMES)
}

/// uid or gid of one of the people the steps know.
pub(crate) fn owner(rng: &mut Rng) -> u32 {
    *rng.pick(&[0, 0, 1000, 1000, 1001])
}

/// File contents as (size, pieces); the rest is holes.
fn contents(rng: &mut Rng) -> (u64, Vec<(u64, u64, u32)>) {
    let size = match rng.below(10) {
        0 | 1 => 0,
        2..=5 => rng.range(1, 300),
        6 | 7 => rng.range(4000, 20_000),
        _ => rng.range(60_000, 200_000),
    };
    let seed = rng.below(1000) as u32;
    if size < 60_000 || rng.chance(30) {
        return (
            size,
            if size > 0 {
                vec![(0, size, seed)]
            } else {
                Vec::new()
            },
        );
    }
    let mut pieces = Vec::new();
    for at in 0..rng.range(0, 3) {
        let offset = rng.below(size / 4096) * 4096;
        pieces.push((
            offset,
            rng.range(1, 4096).min(size - offset),
            seed + at as u32,
        ));
    }
    (size, pieces)
}

/// An ACL value: owner, one named user or group, mask and others.
pub(crate) fn acl(rng: &mut Rng) -> Bytes {
    let bits = |rng: &mut Rng| *rng.pick(&[0u16, 4, 5, 6, 7, 7]);
    let mut value = 2u32.to_le_bytes().to_vec();
    let mut entry = |tag: u16, perm: u16, id: u32| {
        value.extend(tag.to_le_bytes());
        value.extend(perm.to_le_bytes());
        value.extend(id.to_le_bytes());
    };
    let none = u32::MAX;
    entry(0x01, bits(rng), none);
    let minimal = rng.chance(15);
    let named = rng.below(3);
    if !minimal && named != 1 {
        entry(0x02, bits(rng), 1000);
    }
    entry(0x04, bits(rng), none);
    if !minimal && named != 0 {
        entry(0x08, bits(rng), 1001);
    }
    if !minimal {
        entry(0x10, bits(rng), none);
    }
    entry(0x20, bits(rng), none);
    Bytes(value)
}

/// A value for `security.capability`: version 2, cap_net_raw.
pub(crate) fn capability() -> Bytes {
    let mut value = 0x0200_0001u32.to_le_bytes().to_vec();
    value.extend((1u32 << 13).to_le_bytes());
    value.extend([0; 12]);
    Bytes(value)
}

/// An attribute that this kind of file can have.
pub(crate) fn xattr(rng: &mut Rng, kind: char) -> (Bytes, Bytes) {
    let text = |rng: &mut Rng| match rng.below(6) {
        0 => Bytes::default(),
        1 => Bytes(vec![b'v'; 200]),
        n => Bytes(format!("value{n}").into_bytes()),
    };
    let any = |rng: &mut Rng| {
        let name = *rng.pick(&["trusted.t", "security.s", "trusted.long-name"]);
        (Bytes::from(name), text(rng))
    };
    match (kind, rng.below(10)) {
        ('f' | 'd', 0..=3) => {
            let name = *rng.pick(&["user.a", "user.b", "user.mime.type"]);
            (Bytes::from(name), text(rng))
        }
        ('f' | 'd', 4 | 5) => (Bytes::from("system.posix_acl_access"), acl(rng)),
        ('d', 6 | 7) => (Bytes::from("system.posix_acl_default"), acl(rng)),
        ('f', 6 | 7) => (Bytes::from("security.capability"), capability()),
        _ => any(rng),
    }
}

/// Fills one layer.
struct LayerMaker<'a> {
    rng: &'a mut Rng,
    entries: Vec<Entry>,
    /// Whether something lies below, so that whiteouts and opaque marks mean something.
    covers: bool,
    /// Whether this is no upper: in one, an xattr makes no whiteout.
    lower: bool,
}

impl LayerMaker<'_> {
    fn fill(&mut self, dir: &Bytes, depth: u32) {
        let count = if depth == 0 {
            self.rng.range(2, 7)
        } else {
            self.rng.range(0, 5)
        };
        for _ in 0..count {
            let wants_dir = depth < 3 && self.rng.chance(40);
            let path = dir.join(&name(self.rng, wants_dir));
            if self.entries.iter().any(|entry| entry.path == path) {
                continue;
            }
            let kind = if wants_dir {
                Kind::Dir
            } else {
                self.leaf(&path)
            };
            let is_dir = kind == Kind::Dir;
            let entry = self.dressed(path.clone(), kind);
            self.entries.push(entry);
            if is_dir {
                self.fill(&path, depth + 1);
            }
        }
    }

    /// A directory whose listing takes more than one call, with names that other layers have too.
    fn crowd(&mut self) {
        let dir = Bytes::from("crowd");
        self.entries.push(Entry::plain(dir.clone(), Kind::Dir));
        for number in 0..self.rng.range(30, 120) {
            let kind = match self.rng.below(10) {
                0 | 1 => continue,
                2 if self.covers => Kind::Whiteout,
                3 => Kind::Dir,
                _ => Kind::File {
                    size: 0,
                    data: Vec::new(),
                },
            };
            let name = format!("entry-with-a-name-of-some-length-{number}");
            self.entries
                .push(Entry::plain(dir.join(name.as_bytes()), kind));
        }
    }

    fn leaf(&mut self, path: &Bytes) -> Kind {
        let earlier: Vec<_> = self
            .entries
            .iter()
            .filter(|entry| matches!(entry.kind, Kind::File { .. } | Kind::Symlink { .. }))
            .map(|entry| entry.path.clone())
            .collect();
        match self.rng.below(100) {
            0..=2 if self.covers && self.lower => Kind::Xwhiteout,
            0..=11 if self.covers => Kind::Whiteout,
            12..=21 if !earlier.is_empty() => Kind::Link {
                to: self.rng.pick(&earlier).clone(),
            },
            22..=31 => Kind::Symlink {
                target: self.target(path),
            },
            32..=34 => Kind::Fifo,
            35 | 36 => Kind::Socket,
            37 | 38 => Kind::Char {
                major: 1,
                minor: *self.rng.pick(&[3, 5]),
            },
            39 => Kind::Block {
                major: 200,
                minor: 7,
            },
            _ => {
                let (size, data) = contents(self.rng);
                Kind::File { size, data }
            }
        }
    }

    /// A target beside the link, below it, itself or nowhere; never above the mount.
    fn target(&mut self, path: &Bytes) -> Bytes {
        symlink_target(self.rng, path.last_name())
    }

    fn dressed(&mut self, path: Bytes, kind: Kind) -> Entry {
        let mut entry = Entry::plain(path, kind);
        let letter = match entry.kind {
            Kind::Dir => 'd',
            Kind::File { .. } => 'f',
            Kind::Link { .. } | Kind::Whiteout => return entry,
            Kind::Xwhiteout => {
                let name = Bytes::from("trusted.overlay.whiteout");
                entry.xattrs.push((name, Bytes::default()));
                return entry;
            }
            Kind::Symlink { .. } => 'l',
            _ => 'o',
        };
        entry.mode = mode(self.rng, letter == 'd');
        entry.uid = owner(self.rng);
        entry.gid = owner(self.rng);
        entry.mtime = time(self.rng);
        for _ in 0..self
            .rng
            .below(3)
            .saturating_sub(u64::from(self.rng.chance(50)))
        {
            let (name, value) = xattr(self.rng, letter);
            if entry.xattrs.iter().all(|(other, _)| *other != name) {
                entry.xattrs.push((name, value));
            }
        }
        if letter == 'd' && self.covers && self.rng.chance(12) {
            entry
                .xattrs
                .push((Bytes::from("trusted.overlay.opaque"), Bytes::from("y")));
        }
        entry
    }
}

/// The target of a new symlink called `own`.
pub(crate) fn symlink_target(rng: &mut Rng, own: &[u8]) -> Bytes {
    match rng.below(10) {
        0 => Bytes::from(own),
        1 => Bytes::from("/judge/nowhere"),
        2 => Bytes::from("."),
        3 => Bytes(vec![b't'; 300]),
        4 | 5 => Bytes::from(name(rng, true).as_slice()).join(&name(rng, false)),
        6 => Bytes::from(name(rng, true).as_slice()),
        _ => Bytes::from(name(rng, false).as_slice()),
    }
}

/// A stack of 2 to 4 lowers and sometimes a used upper.
pub(crate) fn stack(rng: &mut Rng) -> Case {
    let count = rng.range(2, 4) as usize;
    let mut case = Case {
        umask: *rng.pick(&[0o022, 0o022, 0, 0o077, 0o027]),
        ..Case::default()
    };
    for index in 0..count {
        case.layers.push(layer(rng, index + 1 < count, true));
    }
    case.split = rng.chance(12);
    if rng.chance(20) {
        case.upper = layer(rng, true, false);
    }
    drop_bare_whiteouts(&mut case);
    case.layers.iter_mut().for_each(mark_xwhiteouts);
    case
}

/// Marks the directories that hold whiteouts of the xattr form; where a directory is opaque there
/// are none.
fn mark_xwhiteouts(layer: &mut Vec<Entry>) {
    let opaque: Vec<Bytes> = layer
        .iter()
        .filter(|entry| is_opaque(entry))
        .map(|entry| entry.path.clone())
        .collect();
    layer.retain(|entry| entry.kind != Kind::Xwhiteout || !opaque.contains(&entry.path.parent()));
    let parents: Vec<Bytes> = layer
        .iter()
        .filter(|entry| entry.kind == Kind::Xwhiteout)
        .map(|entry| entry.path.parent())
        .collect();
    let mark = (Bytes::from("trusted.overlay.opaque"), Bytes::from("x"));
    if parents.contains(&Bytes::default()) {
        layer.insert(0, Entry::plain(Bytes::default(), Kind::Dir));
    }
    for entry in layer
        .iter_mut()
        .filter(|entry| parents.contains(&entry.path))
    {
        entry.xattrs.push(mark.clone());
    }
}

fn is_opaque(entry: &Entry) -> bool {
    let mark = (Bytes::from("trusted.overlay.opaque"), Bytes::from("y"));
    entry.xattrs.contains(&mark)
}

/// Makes metacopies of some lower files, and puts their data into a layer for data alone.
pub(crate) fn with_data_only(rng: &mut Rng, case: &mut Case) {
    let dir = Bytes::from("store");
    let mut data = vec![Entry::plain(dir.clone(), Kind::Dir)];
    for entry in case.layers.iter_mut().flatten() {
        let Kind::File { size, data: pieces } = &mut entry.kind else {
            continue;
        };
        if *size == 0 || !rng.chance(60) {
            continue;
        }
        let path = dir.join(format!("{}", data.len()).as_bytes());
        let kind = Kind::File {
            size: *size,
            data: std::mem::take(pieces),
        };
        let redirect = Bytes([b"/", path.0.as_slice()].concat());
        data.push(Entry::plain(path, kind));
        let mark = |name: &str| Bytes::from(format!("trusted.overlay.{name}").as_str());
        entry.xattrs.push((mark("metacopy"), Bytes::default()));
        entry.xattrs.push((mark("redirect"), redirect));
    }
    case.data = data;
}

/// Gives the marks of a stack the names that `userxattr` reads.
pub(crate) fn with_user_marks(case: &mut Case) {
    for entry in case.layers.iter_mut().flatten().chain(&mut case.upper) {
        for (name, _) in &mut entry.xattrs {
            if let Some(rest) = name.0.strip_prefix(b"trusted.overlay.") {
                *name = Bytes([b"user.overlay.", rest].concat());
            }
        }
    }
}

/// Removes whiteouts from directories that merge with nothing below: no union writes them there,
/// and the kernel lists them and refuses rmdir because of them.
fn drop_bare_whiteouts(case: &mut Case) {
    let mut stack: Vec<Vec<Entry>> = vec![std::mem::take(&mut case.upper)];
    stack.append(&mut case.layers);
    for at in 0..stack.len() {
        let (above, below) = stack.split_at_mut(at + 1);
        let layer = &mut above[at];
        let bare: Vec<Bytes> = layer
            .iter()
            .filter(|entry| matches!(entry.kind, Kind::Whiteout | Kind::Xwhiteout))
            .filter(|entry| !merges(layer, below, &entry.path.parent()))
            .map(|entry| entry.path.clone())
            .collect();
        layer.retain(|entry| !bare.contains(&entry.path));
    }
    case.upper = stack.remove(0);
    case.layers = stack;
}

/// Whether the directory `dir` of `layer` has a directory to merge with below.
fn merges(layer: &[Entry], below: &[Vec<Entry>], dir: &Bytes) -> bool {
    if dir.0.is_empty() {
        return !below.is_empty();
    }
    let line: Vec<Bytes> = std::iter::successors(Some(dir.clone()), |path| Some(path.parent()))
        .take_while(|path| !path.0.is_empty())
        .collect();
    let on_line = |layer: &[Entry], test: &dyn Fn(&Entry) -> bool| {
        layer
            .iter()
            .any(|entry| line.contains(&entry.path) && test(entry))
    };
    let mut above = layer;
    for lower in below {
        if on_line(above, &is_opaque) || on_line(lower, &|entry| entry.kind != Kind::Dir) {
            return false;
        }
        if lower.iter().any(|entry| entry.path == *dir) {
            return true;
        }
        above = lower;
    }
    false
}

fn layer(rng: &mut Rng, covers: bool, lower: bool) -> Vec<Entry> {
    let mut maker = LayerMaker {
        rng,
        entries: Vec::new(),
        covers,
        lower,
    };
    maker.fill(&Bytes::default(), 0);
    if maker.rng.chance(12) {
        maker.crowd();
    }
    maker.entries
}
