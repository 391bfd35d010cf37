//! What is done before the power goes: changes of every kind, and the calls that make them durable.
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::Write;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::Path;

use plyfs_testkit::has_program;
use plyfs_tests::disk::Disk;

use super::history::{Content, DIRECTORY, Histories, Seen};
use crate::support::run;

/// Bytes that tell where they belong.
pub(super) fn filled(name: &str, version: u32, len: usize) -> Vec<u8> {
    let line = format!("{name} version {version}, line ");
    let mut out = Vec::with_capacity(len + 64);
    for i in 0.. {
        if out.len() >= len {
            break;
        }
        out.extend_from_slice(line.as_bytes());
        out.extend_from_slice(format!("{i}\n").as_bytes());
    }
    out.truncate(len);
    out
}

/// Files of a lower layer, with the bytes of each.
const LOWER: [(&str, usize); 14] = [
    ("conf", 3000),
    ("log", 40_000),
    ("mode", 50_000),
    ("part", 64_000),
    ("gone", 100),
    ("old/x", 5000),
    ("old/y", 10),
    ("moved", 20_000),
    ("tree/a", 9000),
    ("tree/b", 1),
    ("cut", 30_000),
    ("meta", 200_000),
    ("hard", 12_000),
    ("kept", 7000),
];

/// Fills the lower layer for one round.
pub(super) fn plant(lower: &Path, round: usize, histories: &mut Histories) {
    let dir = lower.join(format!("d{round}"));
    for (name, len) in LOWER {
        let path = dir.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let content = filled(name, 0, len);
        fs::write(&path, &content).unwrap();
        histories.begin(&format!("d{round}/{name}"), Some(content));
    }
    fs::hard_link(dir.join("hard"), dir.join("hard2")).unwrap();
    fs::set_permissions(dir.join("mode"), Permissions::from_mode(0o644)).unwrap();
    let begin = |h: &mut Histories, name: &str, content: Content| {
        h.begin(&format!("d{round}/{name}"), content);
    };
    begin(histories, "hard2", Some(filled("hard", 0, 12_000)));
    begin(histories, "mode#mode", Some(b"100644".to_vec()));
    for dir in ["", "old", "tree"] {
        begin(histories, dir, Some(DIRECTORY.to_vec()));
    }
}

/// What `path` is in the tree at `root`; a name with `#mode` is the mode of the file.
pub(super) fn look(root: &Path, path: &str) -> Content {
    let (path, mode) = path
        .strip_suffix("#mode")
        .map_or((path, false), |p| (p, true));
    let path = root.join(path);
    let found = match fs::symlink_metadata(&path) {
        Ok(found) => found,
        Err(e) if matches!(e.raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR)) => return None,
        Err(e) => panic!("{}: {e}", path.display()),
    };
    Some(if mode {
        format!("{:o}", found.mode()).into_bytes()
    } else if found.is_dir() {
        DIRECTORY.to_vec()
    } else if found.is_symlink() {
        let target = fs::read_link(&path).unwrap();
        target.into_os_string().into_encoded_bytes()
    } else {
        fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
    })
}

/// One round of work in a directory of its own.
pub(super) struct Round<'a> {
    pub(super) disk: &'a Disk,
    pub(super) histories: &'a mut Histories,
    pub(super) root: &'a Path,
    pub(super) round: usize,
    pub(super) index: bool,
    pub(super) redirect: bool,
}

impl Round<'_> {
    fn key(&self, name: &str) -> String {
        format!("d{}/{name}", self.round)
    }

    fn at(&self, name: &str) -> std::path::PathBuf {
        self.root.join(self.key(name))
    }

    fn next(&mut self, name: &str, content: Content) {
        self.histories.next(self.disk, &self.key(name), content);
    }

    fn written(&mut self, name: &str, content: Vec<u8>) {
        self.histories.write(self.disk, &self.key(name), content);
    }

    fn promise(&mut self, names: &[&str]) {
        for name in names {
            self.histories.promise(self.disk, &self.key(name));
        }
    }

    fn now(&self, name: &str) -> Vec<u8> {
        self.histories.now(&self.key(name)).unwrap()
    }

    fn open(&self, name: &str) -> File {
        let path = self.at(name);
        let file = OpenOptions::new().read(true).write(true).open(&path);
        file.unwrap_or_else(|e| panic!("{}: {e}", path.display()))
    }

    fn sync_dir(&self, name: &str) {
        File::open(self.at(name)).unwrap().sync_all().unwrap();
    }

    /// A new file; it is not durable yet.
    fn create(&mut self, name: &str, content: &[u8]) -> File {
        self.next(name, Some(Vec::new()));
        self.written(name, content.to_vec());
        let mut file = File::create(self.at(name)).unwrap();
        file.write_all(content).unwrap();
        file
    }

    fn rename(&mut self, from: &str, to: &str) {
        let content = self.now(from);
        self.next(to, Some(content));
        self.next(from, None);
        fs::rename(self.at(from), self.at(to)).unwrap();
    }

    pub(super) fn all(mut self) {
        self.new_files();
        self.replaced();
        self.appended();
        self.attributes();
        self.in_place();
        self.removed();
        self.moved();
        self.cut();
        self.linked();
        self.committed();
    }

    fn new_files(&mut self) {
        let content = filled("new", 1, 10_000);
        self.create("new", &content).sync_all().unwrap();
        // As on the file systems below: a new file's fsync makes its name durable too.
        self.promise(&["new"]);
        self.next("fresh", Some(DIRECTORY.to_vec()));
        fs::create_dir(self.at("fresh")).unwrap();
        let content = filled("a", 1, 100);
        self.create("fresh/a", &content).sync_data().unwrap();
        self.sync_dir("fresh");
        self.promise(&["fresh", "fresh/a"]);
        self.next("link", Some(b"some/where".to_vec()));
        std::os::unix::fs::symlink("some/where", self.at("link")).unwrap();
        self.sync_dir("");
        self.promise(&["link"]);
        // Nothing of this is promised.
        drop(self.create("careless", &filled("careless", 1, 30_000)));
    }

    /// How configurations are written.
    fn replaced(&mut self) {
        for version in 1..3 {
            let content = filled("conf", version, 2000 * version as usize);
            self.create("conf.tmp", &content).sync_all().unwrap();
            self.promise(&["conf.tmp"]);
            self.rename("conf.tmp", "conf");
            self.sync_dir("");
            self.promise(&["conf", "conf.tmp"]);
        }
    }

    fn appended(&mut self) {
        for version in 1..4 {
            let more = filled("log", version, 6000);
            let content = [self.now("log"), more.clone()].concat();
            self.written("log", content);
            let path = self.at("log");
            let mut file = OpenOptions::new().append(true).open(path).unwrap();
            file.write_all(&more).unwrap();
            if version < 3 {
                file.sync_data().unwrap();
                self.promise(&["log"]);
            }
        }
    }

    /// Attributes change, and the data has to stay what it was.
    fn attributes(&mut self) {
        self.next("mode#mode", Some(b"100600".to_vec()));
        fs::set_permissions(self.at("mode"), Permissions::from_mode(0o600)).unwrap();
        self.open("mode").sync_all().unwrap();
        self.promise(&["mode", "mode#mode"]);
        fs::set_permissions(self.at("kept"), Permissions::from_mode(0o700)).unwrap();
        fs::set_permissions(self.at("meta"), Permissions::from_mode(0o600)).unwrap();
        let mut content = self.now("meta");
        content[100_000..100_050].fill(b'M');
        self.written("meta", content);
        let file = self.open("meta");
        file.write_all_at(&[b'M'; 50], 100_000).unwrap();
        file.sync_all().unwrap();
        self.promise(&["meta"]);
    }

    fn in_place(&mut self) {
        for version in 1..3u8 {
            let mut content = self.now("part");
            let range = 10_000..40_000;
            content[range.clone()].fill(b'0' + version);
            let piece = content[range].to_vec();
            self.written("part", content);
            let file = self.open("part");
            file.write_all_at(&piece, 10_000).unwrap();
            if version == 1 {
                file.sync_data().unwrap();
                self.promise(&["part"]);
            }
        }
    }

    fn removed(&mut self) {
        self.next("gone", None);
        fs::remove_file(self.at("gone")).unwrap();
        self.sync_dir("");
        self.promise(&["gone"]);
        // A directory is deleted and made anew: what it had is not seen in the new one.
        for name in ["old/x", "old/y", "old"] {
            self.next(name, None);
        }
        fs::remove_dir_all(self.at("old")).unwrap();
        self.next("old", Some(DIRECTORY.to_vec()));
        fs::create_dir(self.at("old")).unwrap();
        for old in ["old/x", "old/y"] {
            let (old, new) = (self.key(old), self.key("old/new"));
            self.histories.pair(&old, &new, Seen::NotBoth);
        }
        let content = filled("old/new", 1, 5000);
        self.create("old/new", &content).sync_all().unwrap();
        self.sync_dir("old");
        self.sync_dir("");
        self.promise(&["old", "old/x", "old/y", "old/new"]);
    }

    fn moved(&mut self) {
        let pair = |s: &mut Self, a: &str, b: &str| {
            let (a, b) = (s.key(a), s.key(b));
            s.histories.pair(&a, &b, Seen::ExactlyOne);
        };
        pair(self, "moved", "moved2");
        self.rename("moved", "moved2");
        self.sync_dir("");
        self.promise(&["moved", "moved2"]);
        if !self.redirect {
            return;
        }
        for name in ["", "/a", "/b"] {
            let (from, to) = (format!("tree{name}"), format!("tree2{name}"));
            pair(self, &from, &to);
            let content = self.now(&from);
            self.next(&to, Some(content));
            self.next(&from, None);
        }
        fs::rename(self.at("tree"), self.at("tree2")).unwrap();
        self.sync_dir("");
        self.promise(&["tree", "tree/a", "tree/b", "tree2", "tree2/a", "tree2/b"]);
    }

    fn cut(&mut self) {
        let content = filled("cut", 1, 18_000);
        self.written("cut", Vec::new());
        self.written("cut", content.clone());
        let mut file = File::create(self.at("cut")).unwrap();
        file.write_all(&content).unwrap();
        file.sync_all().unwrap();
        self.promise(&["cut"]);
        self.written("cut", content[..5000].to_vec());
        file.set_len(5000).unwrap();
    }

    fn linked(&mut self) {
        let mut content = self.now("hard");
        content[..20].fill(b'H');
        if self.index {
            self.written("hard2", content.clone());
        }
        self.written("hard", content);
        let file = self.open("hard");
        file.write_all_at(&[b'H'; 20], 0).unwrap();
        file.sync_all().unwrap();
        self.promise(&["hard"]);
        if self.index {
            self.promise(&["hard2"]);
        }
        self.next("hard3", Some(self.now("hard")));
        fs::hard_link(self.at("hard"), self.at("hard3")).unwrap();
        self.sync_dir("");
        self.promise(&["hard3"]);
    }

    /// Transactions of a database; which are there is asked by [`commits`].
    fn committed(&mut self) {
        if !has_program("sqlite3") {
            return;
        }
        let dir = self.root.join(self.key(""));
        for version in 0..3 {
            let sql = match version {
                0 => "create table t(a integer)".to_owned(),
                _ => format!("insert into t values({version})"),
            };
            self.next("db#commits", Some(version.to_string().into_bytes()));
            run(&dir, "sqlite3", &["db", "pragma synchronous=extra", &sql]);
            self.promise(&["db#commits"]);
        }
    }
}

/// How many transactions a database has; the database must be whole.
pub(super) fn commits(root: &Path, path: &str) -> Content {
    let db = root.join(path);
    // An empty file is a database before its first transaction.
    if fs::metadata(&db).map_or(0, |m| m.len()) == 0 && !db.with_extension("journal").exists() {
        return None;
    }
    let (dir, name) = (db.parent().unwrap(), db.file_name().unwrap());
    let sql = "pragma integrity_check; select count(*) from sqlite_schema;";
    let said = run(dir, "sqlite3", &[name.to_str().unwrap(), sql]);
    match said.as_str() {
        "ok\n0\n" => None,
        "ok\n1\n" => {
            let count = run(
                dir,
                "sqlite3",
                &[name.to_str().unwrap(), "select count(*) from t"],
            );
            Some(count.trim().into())
        }
        _ => Some(said.into_bytes()),
    }
}
