//! Hexadecimal as the kernel writes it in index names: lower case out, either case in.

/// Appends the lower-case hex form of `bytes`.
pub(crate) fn encode(bytes: &[u8]) -> Vec<u8> {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let nibble = |n: u8| DIGITS[usize::from(n & 0xf)];
    bytes
        .iter()
        .flat_map(|b| [nibble(b >> 4), nibble(*b)])
        .collect()
}

/// The bytes that `text` spells, or `None` if it has an odd length or a character that is no hex digit.
pub(crate) fn decode(text: &[u8]) -> Option<Vec<u8>> {
    let (pairs, rest) = text.as_chunks::<2>();
    if !rest.is_empty() {
        return None;
    }
    pairs
        .iter()
        .map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?))
        .collect()
}

fn digit(c: u8) -> Option<u8> {
    match c {
        b'0'..=b'9' => Some(c - b'0'),
        b'a'..=b'f' => Some(c - b'a' + 10),
        b'A'..=b'F' => Some(c - b'A' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trip_and_refusals() {
        assert_eq!(encode(&[0x00, 0xfb, 0x1d]), b"00fb1d");
        assert_eq!(decode(b"00FB1d"), Some(vec![0x00, 0xfb, 0x1d]));
        for bad in [&b"0"[..], b"0g", b"g0", b"+1", b" 1"] {
            assert_eq!(decode(bad), None, "{bad:?}");
        }
    }
}
