//! Figures of a mount as text for people and for Prometheus.
pub(crate) mod prometheus;
pub(crate) mod text;

/// A number of bytes with a unit of 1024.
pub(crate) fn bytes(n: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if n < 1024 {
        return format!("{n} B");
    }
    let mut value = n as f64 / 1024.0;
    let mut unit = 0;
    while value >= 1023.95 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// Seconds in the largest two units that fit.
pub(crate) fn duration(seconds: f64) -> String {
    let s = seconds as u64;
    match s {
        0..60 => format!("{s}s"),
        60..3600 => format!("{}m{:02}s", s / 60, s % 60),
        3600..86400 => format!("{}h{:02}m", s / 3600, s % 3600 / 60),
        _ => format!("{}d{:02}h", s / 86400, s % 86400 / 3600),
    }
}

/// Nanoseconds in the unit that gives up to four digits.
pub(crate) fn nanos(n: u64) -> String {
    match n {
        0..10_000 => format!("{n} ns"),
        10_000..10_000_000 => format!("{} us", n / 1000),
        10_000_000..10_000_000_000 => format!("{} ms", n / 1_000_000),
        _ => format!("{} s", n / 1_000_000_000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_fit_the_number() {
        for (n, want) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1_048_576, "1.0 MiB"),
        ] {
            assert_eq!(bytes(n), want);
        }
        assert_eq!(bytes(1024 * 1024 - 1), "1.0 MiB");
        assert_eq!(bytes(u64::MAX), "16.0 EiB");
        for (s, want) in [
            (0.4, "0s"),
            (61.0, "1m01s"),
            (7260.0, "2h01m"),
            (90000.0, "1d01h"),
        ] {
            assert_eq!(duration(s), want);
        }
        for (n, want) in [(512, "512 ns"), (65_536, "65 us"), (1 << 30, "1073 ms")] {
            assert_eq!(nanos(n), want);
        }
    }
}
