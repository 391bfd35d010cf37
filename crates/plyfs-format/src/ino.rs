//! Inode numbers of the union: one number space over several filesystems, in the kernel's xino layout.

/// How a number of the union is put together: the filesystem in the highest bits, below it one bit that marks numbers
/// of our own, below that the real number.
///
/// With 0 bits all layers share one filesystem and numbers pass unchanged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Xino {
    bits: u8,
}

/// A stack has 500 layers at most, which takes 10 bits; more than this would leave too few for real numbers.
const MAX_BITS: u8 = 32;

impl Xino {
    /// The layout with `bits` bits above the real number; `None` for 1 (no room for a filesystem) and above 32.
    pub const fn new(bits: u8) -> Option<Self> {
        match bits {
            0 | 2..=MAX_BITS => Some(Self { bits }),
            _ => None,
        }
    }

    /// The layout for `filesystems` filesystems, numbered from 0, with as few bits as do
    /// (`ovl_get_layers()`). One filesystem needs none; what goes beyond 32 bits is refused by [`Xino::encode`].
    pub const fn for_filesystems(filesystems: u32) -> Self {
        match filesystems.saturating_sub(1).checked_ilog2() {
            None => Self { bits: 0 },
            Some(log) if log + 2 <= MAX_BITS as u32 => Self {
                bits: log as u8 + 2,
            },
            Some(_) => Self { bits: MAX_BITS },
        }
    }

    /// How many bits are above the real number.
    pub const fn bits(self) -> u8 {
        self.bits
    }

    /// The union's number for object `ino` of filesystem `fsid`. `None` if the real number or the filesystem does not
    /// fit; the caller then takes one from [`Xino::own`].
    pub const fn encode(self, fsid: u32, ino: u64) -> Option<u64> {
        if self.bits == 0 {
            return if fsid == 0 { Some(ino) } else { None };
        }
        let shift = 64 - self.bits as u32;
        if ino >> shift != 0 || fsid as u64 >> (self.bits - 1) != 0 {
            return None;
        }
        Some((fsid as u64) << (shift + 1) | ino)
    }

    /// The `seq`-th number of our own: never one that [`Xino::encode`] gives. `None` if there are no more, which is at
    /// once with 0 bits.
    pub const fn own(self, seq: u64) -> Option<u64> {
        if self.bits == 0 || seq >> (64 - self.bits as u32) != 0 {
            return None;
        }
        Some(1 << (64 - self.bits as u32) | seq)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_needed() {
        for (filesystems, bits) in [
            (0, 0),
            (1, 0),
            (2, 2),
            (3, 3),
            (4, 3),
            (5, 4),
            (9, 5),
            (500, 10),
            (u32::MAX, 32),
        ] {
            assert_eq!(
                Xino::for_filesystems(filesystems).bits(),
                bits,
                "{filesystems}"
            );
        }
        assert_eq!(Xino::new(1), None);
        assert_eq!(Xino::new(33), None);
    }

    #[test]
    fn numbers() {
        let (none, two) = (Xino::default(), Xino::for_filesystems(2));
        for (xino, fsid, ino, number) in [
            (none, 0, u64::MAX, Some(u64::MAX)),
            (none, 1, 5, None),
            (two, 0, 5, Some(5)),
            (two, 1, 5, Some(1 << 63 | 5)),
            (two, 2, 5, None),
            (two, 1, (1 << 62) - 1, Some(1 << 63 | ((1 << 62) - 1))),
            (two, 0, 1 << 62, None),
        ] {
            assert_eq!(xino.encode(fsid, ino), number, "{xino:?} {fsid} {ino:#x}");
        }
    }

    #[test]
    fn every_filesystem_of_the_layout_fits() {
        for filesystems in 2..600 {
            let xino = Xino::for_filesystems(filesystems);
            assert!(xino.encode(filesystems - 1, 1).is_some(), "{filesystems}");
        }
    }

    #[test]
    fn own_numbers_are_apart() {
        let xino = Xino::for_filesystems(4);
        assert_eq!(xino.own(7), Some(1 << 61 | 7));
        assert_eq!(xino.own(1 << 61), None);
        assert_eq!(Xino::default().own(0), None);
    }
}
