//! The clock room: nanoseconds since the program started, and the only place that sleeps.

use std::sync::LazyLock;
use std::time::Duration;

use anchorlog_engine::{Clock, SystemClock};

static CLOCK: LazyLock<SystemClock> = LazyLock::new(SystemClock::new);

/// One second.
pub(crate) const SECOND_NS: u64 = 1_000_000_000;

/// Nanoseconds since the first call; never decreases.
pub(crate) fn now_ns() -> u64 {
    u64::try_from(CLOCK.monotonic().as_nanos()).unwrap_or(u64::MAX)
}

/// Milliseconds since 1970-01-01 UTC.
pub(crate) fn wall_ms() -> u64 {
    CLOCK.wall_ms()
}

/// Sleeps.
#[expect(clippy::disallowed_methods, reason = "a load generator's drivers wait for the time, not for a condition")]
pub(crate) fn sleep(time: Duration) {
    std::thread::sleep(time);
}

/// Sleeps until `due_ns`, as far as the kernel's timer is exact (about 50 µs late).
pub(crate) fn sleep_until(due_ns: u64) {
    let now = now_ns();
    if due_ns > now {
        sleep(Duration::from_nanos(due_ns - now));
    }
}

/// A wall-clock time as `2026-01-31 12:34:56 UTC`.
pub(crate) fn utc(wall_ms: u64) -> String {
    let seconds = wall_ms / 1000;
    let (days, of_day) = (seconds / 86_400, seconds % 86_400);
    // Days since 1970 to a date: years of 365.2425 days that begin in March, so that the leap day is the last.
    let shifted = days + 719_468;
    let era = shifted / 146_097;
    let day_of_era = shifted % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02} UTC")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_read_off_the_wall_clock() {
        assert_eq!(utc(0), "1970-01-01 00:00:00 UTC");
        assert_eq!(utc(951_782_399_000), "2000-02-28 23:59:59 UTC");
        assert_eq!(utc(951_782_400_000), "2000-02-29 00:00:00 UTC");
        assert_eq!(utc(1_700_000_000_000), "2023-11-14 22:13:20 UTC");
    }
}
