//! Times as operators write them.

use std::fmt;
use std::str::FromStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anchorlog_engine::{Clock, SystemClock};

use crate::config::Period;

/// A time: `2026-11-21T10:00:00Z` (the `Z` may be missing, it is UTC all the same), `now`, `now-2h`, `now+10m`, or milliseconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct When {
    /// In milliseconds since 1970.
    pub ms: u64,
}

impl When {
    fn read(text: &str, now_ms: u64) -> Option<When> {
        let text = text.trim();
        if let Ok(ms) = text.parse() {
            return Some(When { ms });
        }
        if let Some(rest) = text.strip_prefix("now") {
            let span = |text: &str| {
                let period: Period = text.parse().ok()?;
                u64::try_from(period.0.as_millis()).ok()
            };
            return match rest.split_at_checked(1) {
                None => Some(When { ms: now_ms }),
                Some(("-", back)) => Some(When { ms: now_ms.saturating_sub(span(back)?) }),
                Some(("+", ahead)) => Some(When { ms: now_ms.saturating_add(span(ahead)?) }),
                Some(_) => None,
            };
        }
        let time = humantime::parse_rfc3339_weak(text).ok()?;
        u64::try_from(time.duration_since(UNIX_EPOCH).ok()?.as_millis()).ok().map(|ms| When { ms })
    }
}

/// Text that is no time.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no time; write 2026-11-21T10:00:00Z, now, now-2h, now+10m, or milliseconds since 1970")]
pub struct NotATime(String);

impl FromStr for When {
    type Err = NotATime;

    fn from_str(text: &str) -> Result<When, NotATime> {
        When::read(text, SystemClock::new().wall_ms()).ok_or_else(|| NotATime(text.to_owned()))
    }
}

/// As it is read; beyond the year 9999 in milliseconds.
impl fmt::Display for When {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const YEAR_10_000_MS: u64 = 253_402_300_800_000;
        match UNIX_EPOCH.checked_add(Duration::from_millis(self.ms)).filter(|_| self.ms < YEAR_10_000_MS) {
            Some(time) => write!(f, "{}", humantime::format_rfc3339_millis(SystemTime::max(time, UNIX_EPOCH))),
            None => write!(f, "{}", self.ms),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_in_every_form_and_written_in_one() {
        let read = |text: &str| When::read(text, 1_700_000_000_000).map(|when| when.ms);
        assert_eq!(read("1700000000123"), Some(1_700_000_000_123));
        assert_eq!(read("now"), Some(1_700_000_000_000));
        assert_eq!((read("now-2h"), read("now+10m")), (Some(1_699_992_800_000), Some(1_700_000_600_000)));
        assert_eq!(read("2023-11-14T22:13:20Z"), Some(1_700_000_000_000));
        assert_eq!(read("2023-11-14 22:13:20"), Some(1_700_000_000_000));
        for bad in ["", "soon", "now*2h", "nowadays", "now-", "2023-11-14", "-5", "2h"] {
            assert_eq!(read(bad), None, "{bad}");
        }
        assert_eq!(When { ms: 1_700_000_000_123 }.to_string(), "2023-11-14T22:13:20.123Z");
        assert_eq!(When { ms: u64::MAX }.to_string(), u64::MAX.to_string());
    }
}
