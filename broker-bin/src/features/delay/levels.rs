//! Delay levels: the few delays that every client knows by number.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// The levels, from 1 on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DelayLevels(Vec<Duration>);

/// What no levels can be made of.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no delay; times such as 1s 5m 2h 1d are wanted, with blanks between them")]
pub struct BadLevels(String);

const SECOND: u64 = 1;
const MINUTE: u64 = 60 * SECOND;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;

impl Default for DelayLevels {
    /// The 18 that clients know.
    fn default() -> DelayLevels {
        let minutes = (1..=10).chain([20, 30]).map(|count| count * MINUTE);
        let seconds = [1, 5, 10, 30].into_iter().chain(minutes).chain([HOUR, 2 * HOUR]);
        DelayLevels(seconds.map(Duration::from_secs).collect())
    }
}

impl DelayLevels {
    /// A level's number and delay: those of the last one for numbers beyond it, nothing for 0.
    #[must_use]
    pub fn of(&self, level: i64) -> Option<(usize, Duration)> {
        let wanted = usize::try_from(level).ok().filter(|level| *level > 0)?;
        let level = wanted.min(self.0.len());
        self.0.get(level.checked_sub(1)?).map(|delay| (level, *delay))
    }
}

impl FromStr for DelayLevels {
    type Err = BadLevels;

    fn from_str(text: &str) -> Result<DelayLevels, BadLevels> {
        let delay = |word: &str| {
            let unit = match word.chars().last()? {
                's' => SECOND,
                'm' => MINUTE,
                'h' => HOUR,
                'd' => DAY,
                _ => return None,
            };
            let count: u64 = word[..word.len() - 1].parse().ok()?;
            count.checked_mul(unit).map(Duration::from_secs)
        };
        let levels = text.split_whitespace().map(|word| delay(word).ok_or_else(|| BadLevels(word.to_owned())));
        let levels: Vec<_> = levels.collect::<Result<_, _>>()?;
        if levels.is_empty() { Err(BadLevels(text.to_owned())) } else { Ok(DelayLevels(levels)) }
    }
}

impl fmt::Display for DelayLevels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, delay) in self.0.iter().enumerate() {
            let seconds = delay.as_secs();
            let units = [(DAY, 'd'), (HOUR, 'h'), (MINUTE, 'm')];
            let fits = units.into_iter().find(|(unit, _)| seconds >= *unit && seconds.is_multiple_of(*unit));
            let (unit, letter) = fits.unwrap_or((SECOND, 's'));
            write!(f, "{}{}{letter}", if index == 0 { "" } else { " " }, seconds / unit)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_levels_are_those_that_clients_know() {
        let levels = DelayLevels::default();
        let text = "1s 5s 10s 30s 1m 2m 3m 4m 5m 6m 7m 8m 9m 10m 20m 30m 1h 2h";
        assert_eq!(levels.to_string(), text);
        assert_eq!(text.parse(), Ok(levels.clone()));
        assert_eq!(levels.of(3), Some((3, Duration::from_secs(10))));
        assert_eq!(levels.of(99), Some((18, Duration::from_secs(7200))), "more than there are is the last one");
        assert_eq!((levels.of(0), levels.of(-1)), (None, None));
    }

    #[test]
    fn what_is_no_list_of_delays_is_refused() {
        for bad in ["", "1", "s", "1s 2x", "-1s", "99999999999999999999s", "1é"] {
            assert!(bad.parse::<DelayLevels>().is_err(), "{bad}");
        }
    }
}
