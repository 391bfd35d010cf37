//! Medians and spreads of a few samples.
use serde::Serialize;

/// What a handful of samples says.
#[derive(Debug, Clone, Copy, Serialize, PartialEq)]
pub struct Summary {
    /// Number of samples.
    pub count: usize,
    /// The middle sample.
    pub median: f64,
    /// The fastest sample.
    pub min: f64,
    /// The distance between the quartiles as a fraction of the median.
    pub spread: f64,
}

impl Summary {
    /// Sums up `samples`; none without samples.
    #[must_use]
    pub fn of(samples: &[f64]) -> Option<Self> {
        let mut sorted = samples.to_vec();
        sorted.sort_by(f64::total_cmp);
        let min = *sorted.first()?;
        let median = quantile(&sorted, 0.5)?;
        let range = quantile(&sorted, 0.75)? - quantile(&sorted, 0.25)?;
        let spread = if median > 0.0 { range / median } else { 0.0 };
        Some(Self {
            count: sorted.len(),
            median,
            min,
            spread,
        })
    }
}

/// The quantile `q` of sorted samples, between two samples by linear interpolation.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss
)]
fn quantile(sorted: &[f64], q: f64) -> Option<f64> {
    let position = q * (sorted.len().checked_sub(1)?) as f64;
    let below = position.floor();
    let low = sorted.get(below as usize)?;
    let high = sorted.get(position.ceil() as usize)?;
    Some(low + (high - low) * (position - below))
}

#[cfg(test)]
mod tests {
    use super::Summary;

    #[test]
    fn nothing_has_no_summary() {
        assert_eq!(Summary::of(&[]), None);
    }

    #[test]
    fn one_sample_has_no_spread() {
        let summary = Summary::of(&[2.0]).unwrap();
        assert_eq!(
            (summary.median, summary.min, summary.spread),
            (2.0, 2.0, 0.0)
        );
    }

    #[test]
    fn quartiles_are_interpolated() {
        let summary = Summary::of(&[4.0, 1.0, 3.0, 2.0]).unwrap();
        assert_eq!((summary.count, summary.median, summary.min), (4, 2.5, 1.0));
        assert!((summary.spread - 1.5 / 2.5).abs() < 1e-9);
    }
}
