//! The command line every mount program has: `[-f] [-d] -o OPTIONS [SOURCE] MOUNTPOINT`.
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use crate::options::{Mode, OptionError, Parsed, parse};
use crate::spec::{Invoker, MountSpec};

/// The name under which container tools look for a mount program.
pub const RIVAL_NAME: &str = "fuse-overlayfs";

/// How the program was called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CalledAs {
    /// By its own name.
    Plyfs,
    /// As `fuse-overlayfs`.
    FuseOverlayfs,
    /// As a helper of mount(8): `mount.plyfs`, `mount.fuse.plyfs`.
    MountHelper,
}

impl CalledAs {
    /// From the first word of the command line.
    #[must_use]
    pub fn from_program(program: &OsStr) -> Self {
        match Path::new(program).file_name().map(OsStr::as_bytes) {
            Some(name) if name == RIVAL_NAME.as_bytes() => Self::FuseOverlayfs,
            Some(name) if name.starts_with(b"mount.") => Self::MountHelper,
            _ => Self::Plyfs,
        }
    }

    /// `x` of the type `fuse.x` that the mount gets.
    #[must_use]
    pub fn subtype(self) -> &'static str {
        match self {
            Self::FuseOverlayfs => RIVAL_NAME,
            Self::Plyfs | Self::MountHelper => "plyfs",
        }
    }
}

/// What the command line asks for.
#[derive(Debug)]
pub enum Request {
    /// Print how to use the program.
    Help,
    /// Print the version.
    Version,
    /// Mount.
    Mount(Box<MountRequest>),
}

/// A mount in the grammar of mount programs.
#[derive(Debug)]
pub struct MountRequest {
    /// What to mount.
    pub spec: MountSpec,
    /// Stay in the foreground.
    pub foreground: bool,
    /// Log everything to stderr.
    pub debug: bool,
    /// One line for each word that was ignored.
    pub warnings: Vec<String>,
}

/// Why the command line means nothing.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum CompatError {
    /// An option of `-o` is wrong.
    #[error(transparent)]
    Option(#[from] OptionError),
    /// `-o` at the end.
    #[error("-o needs options after it")]
    NothingAfterO,
    /// No directory to mount on.
    #[error(
        "no mountpoint given; usage: plyfs -o lowerdir=A[:B...][,upperdir=U,workdir=W] MOUNTPOINT"
    )]
    NoMountpoint,
    /// More than SOURCE and MOUNTPOINT.
    #[error("more words than SOURCE and MOUNTPOINT: {0:?} is one too many")]
    TooManyWords(OsString),
}

/// Words of the command line, before they mean anything.
#[derive(Default)]
struct Words {
    options: Parsed,
    positional: Vec<OsString>,
    foreground: bool,
    debug: bool,
    single_thread: bool,
    action: Option<Request>,
}

/// Reads the words after the program's name.
///
/// # Errors
/// See [`CompatError`]; unknown options are warnings.
pub fn read(
    args: impl IntoIterator<Item = OsString>,
    called: CalledAs,
    who: Invoker,
) -> Result<Request, CompatError> {
    let mut words = Words::default();
    let mut args = args.into_iter();
    while let Some(arg) = args.next() {
        match arg.as_bytes() {
            b"--" => {
                words.positional.extend(args.by_ref());
            }
            b"-o" => {
                let options = args.next().ok_or(CompatError::NothingAfterO)?;
                parse(options.as_bytes(), Mode::Compat, &mut words.options)?;
            }
            b"--help" => words.action = Some(Request::Help),
            b"--version" => words.action = words.action.or(Some(Request::Version)),
            b"--debug" => words.debug = true,
            [b'-', b'-', ..] => words.ignore(&arg),
            [b'-', b'o', options @ ..] => parse(options, Mode::Compat, &mut words.options)?,
            // mount(8) names the type and the mount namespace; both are settled already.
            b"-t" | b"-N" => drop(args.next()),
            [b'-', letters @ ..] if !letters.is_empty() => words.letters(letters, called),
            _ => words.positional.push(arg),
        }
    }
    match words.action.take() {
        Some(action) => Ok(action),
        None => words
            .into_mount(called, who)
            .map(|m| Request::Mount(Box::new(m))),
    }
}

impl Words {
    fn ignore(&mut self, word: &OsStr) {
        self.options
            .warnings
            .push(format!("ignored: unknown argument {word:?}"));
    }

    fn letters(&mut self, letters: &[u8], called: CalledAs) {
        for letter in letters {
            match letter {
                b'f' if called != CalledAs::MountHelper => self.foreground = true,
                b'd' => self.debug = true,
                b'h' => self.action = Some(Request::Help),
                b'V' => self.action = self.action.take().or(Some(Request::Version)),
                b's' if called != CalledAs::MountHelper => self.single_thread = true,
                // mount(8): sloppy, fake is handled by mount itself, no mtab, verbose.
                b's' | b'f' | b'n' | b'v' if called == CalledAs::MountHelper => {}
                other => {
                    let word = OsString::from_vec(vec![b'-', *other]);
                    self.ignore(&word);
                }
            }
        }
    }

    fn into_mount(mut self, called: CalledAs, who: Invoker) -> Result<MountRequest, CompatError> {
        if self.positional.len() > 2 {
            return Err(CompatError::TooManyWords(self.positional.swap_remove(2)));
        }
        let mountpoint = self.positional.pop().ok_or(CompatError::NoMountpoint)?;
        let mut spec = MountSpec::new(PathBuf::from(mountpoint), called.subtype(), who);
        if let Some(source) = self
            .positional
            .pop()
            .filter(|_| called != CalledAs::FuseOverlayfs)
        {
            spec.settings.source = source;
        }
        if self.single_thread {
            spec.session.threads = 1;
        }
        spec.apply(&self.options.given)?;
        Ok(MountRequest {
            spec,
            foreground: self.foreground || self.debug,
            debug: self.debug,
            warnings: self.options.warnings,
        })
    }
}

#[cfg(test)]
mod tests {
    use plyfs_sys::mount::MountFlags;

    use super::*;

    fn mount(args: &[&str], called: CalledAs) -> Result<MountRequest, CompatError> {
        match read(args.iter().map(OsString::from), called, Invoker::Root)? {
            Request::Mount(m) => Ok(*m),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn every_order_of_words_works() {
        for args in [
            &["-o", "lowerdir=/a:/b", "/m"][..],
            &["-olowerdir=/a:/b", "/m"],
            &["overlay", "/m", "-o", "lowerdir=/a:/b", "-o", "dev,suid"],
            &["-o", "lowerdir=/a", "-o", "lowerdir+=/b", "--", "/m"],
            &[
                "overlay",
                "/m",
                "-sfnv",
                "-o",
                "lowerdir=/a:/b",
                "-t",
                "fuse.plyfs",
                "-N",
                "1",
            ],
        ] {
            let m = mount(args, CalledAs::MountHelper).unwrap();
            assert_eq!(
                m.spec.lowers,
                [PathBuf::from("/a"), "/b".into()],
                "{args:?}"
            );
            assert_eq!(m.spec.mountpoint, Path::new("/m"), "{args:?}");
            assert!(!m.foreground && m.warnings.is_empty(), "{args:?}");
        }
    }

    #[test]
    fn letters_and_long_words() {
        let m = mount(
            &["-fs", "-o", "lowerdir=/a", "-x", "--frob", "/m"],
            CalledAs::Plyfs,
        )
        .unwrap();
        assert!(m.foreground && !m.debug);
        assert_eq!(m.spec.session.threads, 1);
        assert_eq!(m.warnings.len(), 2);
        let m = mount(&["--debug", "-o", "lowerdir=/a", "/m"], CalledAs::Plyfs).unwrap();
        assert!(m.foreground && m.debug);
        let ask =
            |word: &str| read([OsString::from(word)], CalledAs::Plyfs, Invoker::Root).unwrap();
        assert!(matches!(ask("-h"), Request::Help) && matches!(ask("--help"), Request::Help));
        assert!(
            matches!(ask("-V"), Request::Version) && matches!(ask("--version"), Request::Version)
        );
    }

    #[test]
    fn name_and_source_decide_what_the_mount_is_called() {
        let args = &["src", "/m", "-o", "lowerdir=/a"][..];
        let m = mount(args, CalledAs::FuseOverlayfs).unwrap();
        assert_eq!(
            (
                m.spec.settings.subtype.as_str(),
                &*m.spec.settings.source.to_string_lossy()
            ),
            ("fuse-overlayfs", "fuse-overlayfs")
        );
        let m = mount(args, CalledAs::Plyfs).unwrap();
        assert_eq!(m.spec.settings.subtype, "plyfs");
        assert_eq!(m.spec.settings.source, "src");
        assert_eq!(m.spec.settings.flags, MountFlags::NOATIME);
    }

    #[test]
    fn allow_root_never_lets_everybody_in() {
        let args = ["-o", "lowerdir=/a,allow_root", "/m"].map(OsString::from);
        let Request::Mount(m) = read(args, CalledAs::Plyfs, Invoker::User).unwrap() else {
            panic!()
        };
        assert!(!m.spec.settings.allow_other);
        assert_eq!(m.warnings.len(), 1);
    }

    #[test]
    fn what_is_missing_is_said() {
        for (args, want) in [
            (&["-o"][..], CompatError::NothingAfterO),
            (&["-o", "lowerdir=/a"], CompatError::NoMountpoint),
            (&["a", "b", "c"], CompatError::TooManyWords("c".into())),
        ] {
            assert_eq!(mount(args, CalledAs::Plyfs).unwrap_err(), want);
        }
    }

    #[test]
    fn program_names() {
        for (name, want) in [
            ("/usr/bin/fuse-overlayfs", CalledAs::FuseOverlayfs),
            ("plyfs", CalledAs::Plyfs),
            ("/sbin/mount.fuse.plyfs", CalledAs::MountHelper),
            ("mount.plyfs", CalledAs::MountHelper),
            ("", CalledAs::Plyfs),
        ] {
            assert_eq!(CalledAs::from_program(OsStr::new(name)), want, "{name}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_words_make_it_panic(
            words in proptest::collection::vec("(-o|-[a-zA-Z]{0,3}|--[a-z]{0,4}|[a-z=,:\\\\\"]{0,12})", 0..6),
        ) {
            for called in [CalledAs::Plyfs, CalledAs::FuseOverlayfs, CalledAs::MountHelper] {
                for who in [Invoker::Root, Invoker::User] {
                    drop(read(words.iter().map(OsString::from), called, who));
                }
            }
        }
    }
}
