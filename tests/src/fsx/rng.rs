//! The random source of a run: small and the same on every machine.

/// SplitMix64.
#[derive(Debug, Clone)]
pub(crate) struct Rng(u64);

impl Rng {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ 0x1F83_D9AB_FB41_BD6B)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number in `0..n`; 0 when `n` is 0.
    pub(crate) fn below(&mut self, n: u64) -> u64 {
        if n == 0 { 0 } else { self.next() % n }
    }

    /// True in `percent` of 100 calls.
    pub(crate) fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

/// Bytes that tell which step wrote them, and where.
pub(crate) fn pattern(mark: u64, off: u64, len: usize) -> Vec<u8> {
    let mut rng = Rng::new(mark);
    let salt = rng.next().to_le_bytes();
    (off..off + len as u64)
        .map(|at| {
            let word = (at >> 3).wrapping_mul(0x2545_F491_4F6C_DD1D);
            (word >> 32) as u8 ^ salt[(at & 7) as usize] | 1
        })
        .collect()
}
