//! When to try again, and how long to wait before.
use std::hash::{BuildHasher, RandomState};
use std::time::{Duration, SystemTime};

use crate::error::{RegistryError, Result};

/// How often and how fast to repeat what failed for the moment.
#[derive(Debug, Clone, Copy)]
pub struct Retry {
    /// Failures in a row without progress, after which to give up.
    pub limit: u32,
    /// The pause after the first failure; doubles with each.
    pub first: Duration,
    /// No pause is longer, whatever the registry asks for.
    pub longest: Duration,
}

impl Default for Retry {
    fn default() -> Self {
        Self {
            limit: 6,
            first: Duration::from_millis(500),
            longest: Duration::from_mins(2),
        }
    }
}

impl Retry {
    /// The pause after the `failures`th failure in a row; an error when that was the last.
    ///
    /// The pause is jittered, so that many clients do not come back at one moment.
    pub(crate) fn pause(&self, failures: u32, error: RegistryError) -> Result<(Duration, String)> {
        if !error.is_transient() || failures >= self.limit {
            return Err(error);
        }
        let doubled = self.first * 2u32.saturating_pow(failures.saturating_sub(1));
        let spread = u32::try_from(RandomState::new().hash_one(failures) % 512).unwrap_or(0);
        let pause = doubled / 2 + doubled * spread / 1024;
        let asked = error.retry_after().unwrap_or_default();
        Ok((pause.max(asked).min(self.longest), error.to_string()))
    }

    /// Does `attempt` until it works, fails for good or has failed too often.
    pub(crate) fn repeat<T>(&self, mut attempt: impl FnMut() -> Result<T>) -> Result<T> {
        let mut failures = 0;
        loop {
            match attempt() {
                Ok(value) => return Ok(value),
                Err(e) => {
                    failures += 1;
                    let (pause, reason) = self.pause(failures, e)?;
                    tracing::debug!(?pause, reason, "trying again");
                    std::thread::sleep(pause);
                }
            }
        }
    }
}

/// What a `Retry-After` header says: seconds, or a date.
pub(crate) fn retry_after(value: &str) -> Option<Duration> {
    let value = value.trim();
    if let Ok(seconds) = value.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = httpdate::parse_http_date(value).ok()?;
    // A date that has passed means now.
    Some(date.duration_since(SystemTime::now()).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Object;

    fn status(status: u16, retry_after: Option<Duration>) -> RegistryError {
        RegistryError::Status {
            object: Object("x".to_owned()),
            host: "h".to_owned(),
            status,
            errors: Vec::new(),
            retry_after,
        }
    }

    #[test]
    fn pauses_double_up_to_a_limit() {
        let retry = Retry {
            limit: 40,
            ..Retry::default()
        };
        for failures in 1..40 {
            let (pause, _) = retry.pause(failures, status(503, None)).unwrap();
            let full = retry.first * 2u32.saturating_pow(failures - 1).min(1 << 20);
            assert!(
                pause <= full && pause <= retry.longest,
                "{failures}: {pause:?}"
            );
            assert!(
                pause >= (full / 2).min(retry.longest),
                "{failures}: {pause:?}"
            );
        }
        assert!(retry.pause(40, status(503, None)).is_err());
        assert!(retry.pause(1, status(404, None)).is_err());
        let asked = Some(Duration::from_secs(7));
        assert_eq!(retry.pause(1, status(429, asked)).unwrap().0.as_secs(), 7);
        let absurd = Some(Duration::from_secs(86_400));
        assert_eq!(
            retry.pause(1, status(429, absurd)).unwrap().0,
            retry.longest
        );
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        assert_eq!(retry_after(" 3 "), Some(Duration::from_secs(3)));
        assert_eq!(
            retry_after("Wed, 21 Oct 2015 07:28:00 GMT"),
            Some(Duration::ZERO)
        );
        let later = httpdate::fmt_http_date(SystemTime::now() + Duration::from_secs(100));
        let pause = retry_after(&later).unwrap();
        assert!(pause > Duration::from_secs(60), "{pause:?}");
        assert_eq!(retry_after("soon"), None);
    }
}
