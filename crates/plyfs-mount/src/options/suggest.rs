//! Which known word did somebody mean who typed an unknown one?

/// The word of `known` nearest to `typed`, if it is near enough to be meant: at most one edit in
/// three letters, and at least one allowed.
pub fn nearest<'a>(typed: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let limit = (typed.chars().count() / 3).max(1);
    known
        .into_iter()
        .map(|word| (distance(typed, word), word))
        .filter(|(d, _)| *d <= limit)
        .min_by_key(|(d, _)| *d)
        .map(|(_, word)| word)
}

/// Number of letters to insert, remove, replace or swap with their neighbour to make `b` out of
/// `a` (optimal string alignment).
#[must_use]
pub fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut row = Vec::with_capacity(b.len() + 1);
        row.push(i + 1);
        for (j, y) in b.iter().enumerate() {
            let mut best = (last[j] + usize::from(x != y))
                .min(last[j + 1] + 1)
                .min(row[j] + 1);
            let swapped = i > 0 && j > 0 && *x == b[j - 1] && a[i - 1] == *y;
            if swapped {
                best = best.min(before[j - 1] + 1);
            }
            row.push(best);
        }
        before = std::mem::replace(&mut last, row);
    }
    last.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances() {
        for (a, b, want) in [
            ("", "", 0),
            ("", "abc", 3),
            ("upperdir", "uperdir", 1),
            ("uppredir", "upperdir", 1),
            ("lowerdir", "lowerdirs", 1),
            ("metacopy", "redirect", 7),
        ] {
            assert_eq!(distance(a, b), want, "{a} {b}");
            assert_eq!(distance(b, a), want, "{b} {a}");
        }
    }

    #[test]
    fn far_words_are_not_suggested() {
        let known = ["upperdir", "lowerdir", "ro"];
        assert_eq!(nearest("uperdir", known), Some("upperdir"));
        assert_eq!(nearest("lower_dir", known), Some("lowerdir"));
        assert_eq!(nearest("banana", known), None);
        assert_eq!(nearest("r", known), Some("ro"));
        assert_eq!(nearest("", known), None);
    }
}
