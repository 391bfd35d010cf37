//! Checksums of tar headers: a mutation that breaks one would teach a fuzzer nothing else.

const BLOCK: usize = 512;
const SIZE: std::ops::Range<usize> = 124..136;
const CHECKSUM: std::ops::Range<usize> = 148..156;
const TYPE: usize = 156;

/// Gives every header of an archive the checksum it should have.
pub fn repair(archive: &mut [u8]) {
    let mut at = 0;
    while let Some(block) = archive.get_mut(at..at + BLOCK) {
        at += BLOCK;
        if block.iter().all(|b| *b == 0) {
            continue;
        }
        block[CHECKSUM].fill(b' ');
        let sum: u32 = block.iter().map(|b| u32::from(*b)).sum();
        block[CHECKSUM].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        let has_data = matches!(
            block[TYPE],
            0 | b'0' | b'7' | b'x' | b'X' | b'g' | b'L' | b'K' | b'S'
        );
        if has_data {
            at = at.saturating_add(size(&block[SIZE]).next_multiple_of(BLOCK));
        }
    }
}

/// A size in octal digits; what is none is taken for nothing.
fn size(field: &[u8]) -> usize {
    let digits = field
        .iter()
        .skip_while(|b| **b == b' ')
        .take_while(|b| b.is_ascii_digit());
    digits.fold(0, |n: usize, b| {
        n.saturating_mul(8).saturating_add(usize::from(b - b'0'))
    }) % (1 << 30)
}
