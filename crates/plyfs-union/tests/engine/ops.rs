//! The language of operations, one by one as a program would make them.
//!
//! ```text
//! mkdir P [MODE]   create P [MODE]   fifo P   sock P   chr P   sym TARGET P   ln OLD NEW
//! rm P   rmdir P   mv A B   mvn A B (NOREPLACE)   xchg A B
//! write P TEXT (O_CREAT|O_TRUNC)   put P OFFSET TEXT   append P TEXT   trunc P N
//! punch P OFFSET N   alloc P OFFSET N   copy FROM TO N   fsync P
//! chmod MODE P   chown U:G P   touch P SECONDS   setx P NAME VALUE   rmx P NAME
//! cat P=TEXT   ls P=A,B (or P= for nothing)   readlink P=TARGET   getx P NAME=VALUE
//! listx P=A,B   stat P [mode=… nlink=… size=… own=… blocks=… mtime=… rdev=…]
//! hold NAME P   drop NAME   ino NAME P   sameino NAME P   newino NAME P
//! chattr +FLAGS|-FLAGS P   lsattr P=FLAGS   (a, i, S)
//! as U:G   umask MODE   reopen (what is held goes)
//! ```
//!
//! A last word `!ERRNO` says how the operation must fail. `@NAME` is what `hold` kept.
use plyfs_sys::Errno;
use plyfs_sys::attr::SetTime;
use plyfs_sys::io::FileIoctl;
use plyfs_sys::make::Rename;
use plyfs_sys::stat::{Kind, Time};
use plyfs_sys::xattr::SetFlags;
use plyfs_union::{Attr, Caller, Make, SetAttr};

use crate::client::{Client, Res, errno};
use crate::text::content_of;
use crate::world::World;

/// Does all of `ops`, panicking where one goes otherwise than it says.
pub(crate) fn run(world: &World, client: &mut Client, ops: &str) {
    for op in ops
        .split([';', '\n'])
        .map(str::trim)
        .filter(|o| !o.is_empty())
    {
        step(world, client, op);
    }
}

fn step(world: &World, client: &mut Client, op: &str) {
    let mut words: Vec<&str> = op.split_whitespace().collect();
    let wanted = words.pop_if(|w| w.starts_with('!'));
    if words == ["reopen"] {
        client.held.clear();
        let fresh = world.open();
        assert_eq!(client.union.known_inodes(), 1, "before reopen");
        client.union = fresh;
        return;
    }
    let got = client.act(&words);
    match (wanted, got) {
        (None, Ok(())) => {}
        (None, Err(e)) => panic!("{op:?} failed: {e:?}"),
        (Some(wanted), Ok(())) => panic!("{op:?} did not fail; wanted {wanted}"),
        (Some(wanted), Err(e)) => assert_eq!(wanted, format!("!{e:?}"), "{op:?}"),
    }
}

fn octal(text: &str) -> u32 {
    u32::from_str_radix(text, 8).unwrap_or_else(|_| panic!("no mode: {text:?}"))
}

fn number<T: std::str::FromStr>(text: &str) -> T {
    text.parse()
        .unwrap_or_else(|_| panic!("no number: {text:?}"))
}

fn ids(text: &str) -> (Option<u32>, Option<u32>) {
    let (uid, gid) = text.split_once(':').unwrap_or((text, ""));
    (uid.parse().ok(), gid.parse().ok())
}

/// FS_*_FL of the letters of chattr.
pub(crate) fn flag_bits(letters: &str) -> u32 {
    let bit = |letter| match letter {
        'a' => 0x20,
        'i' => 0x10,
        'S' => 0x8,
        _ => panic!("no such flag: {letter}"),
    };
    letters.chars().map(bit).sum()
}

fn pair<'a>(word: &'a str, op: &str) -> (&'a str, &'a str) {
    word.split_once('=')
        .unwrap_or_else(|| panic!("{op} needs WHAT=VALUE: {word:?}"))
}

impl Client {
    /// Does one operation.
    pub(crate) fn act(&mut self, words: &[&str]) -> Res<()> {
        match *words {
            ["mkdir", p] => self.make(p, Make::Dir(0o755)),
            ["mkdir", p, mode] => self.make(p, Make::Dir(octal(mode))),
            ["create", p] => self.make_node(p, Kind::File, 0o644, (0, 0)),
            ["create", p, mode] => self.make_node(p, Kind::File, octal(mode), (0, 0)),
            ["fifo", p] => self.make_node(p, Kind::Fifo, 0o644, (0, 0)),
            ["sock", p] => self.make_node(p, Kind::Socket, 0o644, (0, 0)),
            ["chr", p] => self.make_node(p, Kind::Char, 0o644, (1, 3)),
            ["blk", p] => self.make_node(p, Kind::Block, 0o644, (7, 0)),
            ["whiteout", p] => self.make_node(p, Kind::Char, 0, (0, 0)),
            ["sym", target, p] => self.make(p, Make::Symlink(target.as_bytes())),
            ["ln", old, new] => self.link(old, new),
            ["rm", p] => {
                let (dir, name) = self.parent(p)?;
                self.union.unlink(dir.id, name).map_err(errno)
            }
            ["rmdir", p] => {
                let (dir, name) = self.parent(p)?;
                self.union.rmdir(dir.id, name).map_err(errno)
            }
            ["mv", a, b] => self.rename(a, b, Rename::empty()),
            ["mvn", a, b] => self.rename(a, b, Rename::NOREPLACE),
            ["mvw", a, b] => self.rename(a, b, Rename::WHITEOUT),
            ["xchg", a, b] => self.rename(a, b, Rename::EXCHANGE),
            _ => self.act_on_data(words),
        }
    }

    fn act_on_data(&mut self, words: &[&str]) -> Res<()> {
        match *words {
            ["write", p, text] => self.write(p, &content_of(text)),
            ["write", p] => self.write(p, b""),
            ["put", p, off, text] => self.put(p, number(off), &content_of(text)),
            ["append", p, text] => {
                let node = self.node(p)?;
                let size = self.union.getattr(node.id).map_err(errno)?.size;
                self.put(p, size, &content_of(text))
            }
            ["trunc", p, n] => self.set(
                p,
                &SetAttr {
                    size: Some(number(n)),
                    ..SetAttr::default()
                },
            ),
            ["alloc", p, off, n] => self.fallocate(p, 0, (number(off), number(n))),
            // FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE
            ["punch", p, off, n] => self.fallocate(p, 3, (number(off), number(n))),
            ["copy", from, to, n] => {
                let (from, to) = (self.node(from)?, self.node(to)?);
                let copied =
                    self.union
                        .copy_range(&self.caller, (from.id, 0), (to.id, 0), number(n));
                assert_eq!(copied.map_err(errno)?, number::<usize>(n));
                Ok(())
            }
            ["fsync", p] => self.union.fsync(self.node(p)?.id, false).map_err(errno),
            _ => self.act_on_attributes(words),
        }
    }

    fn act_on_attributes(&mut self, words: &[&str]) -> Res<()> {
        match *words {
            ["chmod", mode, p] => self.set(
                p,
                &SetAttr {
                    mode: Some(octal(mode)),
                    ..SetAttr::default()
                },
            ),
            ["chown", who, p] => {
                let (uid, gid) = ids(who);
                self.set(
                    p,
                    &SetAttr {
                        uid,
                        gid,
                        ..SetAttr::default()
                    },
                )
            }
            ["touch", p, seconds] => self.set(
                p,
                &SetAttr {
                    mtime: Some(SetTime::To(Time {
                        sec: number(seconds),
                        nsec: 0,
                    })),
                    ..SetAttr::default()
                },
            ),
            ["setx", p, name, value] => {
                let node = self.node(p)?;
                let (name, value) = (name.as_bytes(), value.as_bytes());
                let set =
                    self.union
                        .setxattr(&self.caller, node.id, name, value, SetFlags::empty());
                set.map_err(errno)
            }
            ["rmx", p, name] => {
                let node = self.node(p)?;
                self.union
                    .removexattr(&self.caller, node.id, name.as_bytes())
                    .map_err(errno)
            }
            ["chattr", change, p] => {
                let node = self.node(p)?;
                let now = self.flags(node.id)?;
                let bits = flag_bits(&change[1..]);
                let new = match &change[..1] {
                    "+" => now | bits,
                    _ => now & !bits,
                };
                let set = self
                    .union
                    .ioctl(node.id, FileIoctl::SetFlags, &new.to_ne_bytes());
                set.map(|_| ()).map_err(errno)
            }
            ["hold", name, p] => {
                let node = self.node(p)?;
                self.held.insert(name.to_owned(), node);
                Ok(())
            }
            ["drop", name] => {
                self.held
                    .remove(name)
                    .expect("nothing is held by that name");
                Ok(())
            }
            ["as", who] => {
                let (uid, gid) = ids(who);
                self.caller = Caller {
                    uid: uid.unwrap(),
                    gid: gid.unwrap(),
                    ..self.caller
                };
                Ok(())
            }
            ["umask", mask] => {
                self.caller.umask = octal(mask);
                Ok(())
            }
            _ => self.ask(words),
        }
    }

    fn flags(&self, node: plyfs_union::NodeId) -> Res<u32> {
        let got = self.union.ioctl(node, FileIoctl::GetFlags, &[]);
        let got = got.map_err(errno)?;
        Ok(u32::from_ne_bytes(got[..4].try_into().unwrap()))
    }

    fn ask(&mut self, words: &[&str]) -> Res<()> {
        match *words {
            ["cat", word] => {
                let (p, text) = pair(word, "cat");
                let got = self.read(p)?;
                assert_eq!(
                    got.escape_ascii().to_string(),
                    content_of(text).escape_ascii().to_string(),
                    "cat {p}"
                );
            }
            ["ls", word] => {
                let (p, list) = pair(word, "ls");
                let mut names = self.union.names(self.node(p)?.id).map_err(errno)?;
                names.sort();
                let names: Vec<_> = names.iter().map(|n| n.escape_ascii().to_string()).collect();
                assert_eq!(names.join(","), list, "ls {p}");
            }
            ["lsattr", word] => {
                let (p, list) = pair(word, "lsattr");
                let got = self.flags(self.node(p)?.id)? & flag_bits("aiS");
                assert_eq!(got, flag_bits(list), "lsattr {p}: {got:#x}");
            }
            ["readlink", word] => {
                let (p, target) = pair(word, "readlink");
                let got = self.union.readlink(self.node(p)?.id).map_err(errno)?;
                assert_eq!(got.escape_ascii().to_string(), target, "readlink {p}");
            }
            ["getx", p, word] => {
                let (name, value) = pair(word, "getx");
                let node = self.node(p)?;
                let got = self
                    .union
                    .getxattr(node.id, name.as_bytes())
                    .map_err(errno)?;
                assert_eq!(got.escape_ascii().to_string(), value, "getx {p} {name}");
            }
            ["listx", word] => {
                let (p, list) = pair(word, "listx");
                let got = self
                    .union
                    .listxattr(&self.caller, self.node(p)?.id)
                    .map_err(errno)?;
                let mut names: Vec<_> = got
                    .split(|b| *b == 0)
                    .filter(|n| !n.is_empty())
                    .map(|n| n.escape_ascii().to_string())
                    .collect();
                names.sort();
                assert_eq!(names.join(","), list, "listx {p}");
            }
            ["stat", p, ref rest @ ..] => {
                let attr = self.attr(p)?;
                for word in rest {
                    let (what, value) = pair(word, "stat");
                    assert_eq!(shown(&attr, what), value, "{what} of {p}");
                }
            }
            ["ino", name, p] => {
                let ino = self.attr(p)?.ino;
                self.inos.insert(name.to_owned(), ino);
            }
            ["sameino", name, p] => assert_eq!(self.attr(p)?.ino, self.inos[name], "st_ino of {p}"),
            ["newino", name, p] => assert_ne!(self.attr(p)?.ino, self.inos[name], "st_ino of {p}"),
            _ => panic!("no such operation: {words:?}"),
        }
        Ok(())
    }

    pub(crate) fn attr(&self, path: &str) -> Res<Attr> {
        let node = self.node(path)?;
        self.union.getattr(node.id).map_err(errno)
    }

    fn make(&mut self, path: &str, make: Make<'_>) -> Res<()> {
        let (dir, name) = self.parent(path)?;
        let entry = self.union.make(&self.caller, dir.id, name, make);
        drop(self.hold(entry.map_err(errno)?));
        Ok(())
    }

    fn make_node(&mut self, path: &str, kind: Kind, perm: u32, rdev: (u32, u32)) -> Res<()> {
        self.make(path, Make::Node(kind.mode_bits() | perm, rdev))
    }

    fn link(&self, old: &str, new: &str) -> Res<()> {
        let node = self.node(old)?;
        let (dir, name) = self.parent(new)?;
        let entry = self.union.link(node.id, dir.id, name).map_err(errno)?;
        drop(self.hold(entry));
        Ok(())
    }

    fn rename(&self, from: &str, to: &str, flags: Rename) -> Res<()> {
        let (dir, name) = self.parent(from)?;
        let (new_dir, new_name) = self.parent(to)?;
        let done = self.union.rename(dir.id, name, new_dir.id, new_name, flags);
        done.map_err(errno)
    }

    /// `open(O_CREAT|O_TRUNC)` as the mount without open sees it, then one write.
    fn write(&mut self, path: &str, data: &[u8]) -> Res<()> {
        match self.node(path) {
            Err(Errno::ENOENT) => self.make_node(path, Kind::File, 0o644, (0, 0))?,
            Err(e) => return Err(e),
            Ok(_) => self.set(
                path,
                &SetAttr {
                    size: Some(0),
                    ..SetAttr::default()
                },
            )?,
        }
        if data.is_empty() {
            return Ok(());
        }
        self.put(path, 0, data)
    }

    fn put(&self, path: &str, off: u64, data: &[u8]) -> Res<()> {
        let node = self.node(path)?;
        let wrote = self.union.write(&self.caller, node.id, off, data);
        assert_eq!(wrote.map_err(errno)?, data.len(), "a short write to {path}");
        Ok(())
    }

    pub(crate) fn read(&self, path: &str) -> Res<Vec<u8>> {
        let node = self.node(path)?;
        let size = self.union.getattr(node.id).map_err(errno)?.size;
        let mut buf = vec![0; usize::try_from(size).unwrap() + 1];
        let n = self.union.read(node.id, 0, &mut buf).map_err(errno)?;
        assert_eq!(n as u64, size, "{path} has not the size it says");
        buf.truncate(n);
        Ok(buf)
    }

    fn fallocate(&self, path: &str, mode: i32, range: (u64, u64)) -> Res<()> {
        let node = self.node(path)?;
        let done = self.union.fallocate(&self.caller, node.id, mode, range);
        done.map_err(errno)
    }

    fn set(&self, path: &str, set: &SetAttr) -> Res<()> {
        let node = self.node(path)?;
        let attr = self
            .union
            .setattr(&self.caller, node.id, set)
            .map_err(errno)?;
        if self.alone {
            let now = self.union.getattr(node.id).unwrap();
            assert_eq!(attr, now, "setattr answers other attributes");
        }
        Ok(())
    }
}

fn shown(attr: &Attr, what: &str) -> String {
    match what {
        "mode" => format!("{:o}", attr.mode & 0o7777),
        "nlink" => attr.nlink.to_string(),
        "size" => attr.size.to_string(),
        "blocks" => attr.blocks.to_string(),
        "own" => format!("{}:{}", attr.uid, attr.gid),
        "rdev" => format!("{}:{}", attr.rdev.0, attr.rdev.1),
        "mtime" => format!("{}.{:09}", attr.mtime.sec, attr.mtime.nsec),
        _ => panic!("stat does not show {what:?}"),
    }
}
