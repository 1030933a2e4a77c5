//! The output room: standard output, the progress line, and the files that a run leaves behind.

use std::fmt::Arguments;
use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Writes a line to standard output. A reader that went away is not our business.
pub(crate) fn line(text: Arguments<'_>) {
    let mut out = io::stdout().lock();
    drop(writeln!(out, "{text}"));
    drop(out.flush());
}

/// Writes a line to standard error.
pub(crate) fn complain(text: Arguments<'_>) {
    drop(writeln!(io::stderr().lock(), "{text}"));
}

/// Writes a file that is a result, not data: nothing depends on its durability.
///
/// # Errors
/// The kernel's.
#[expect(clippy::disallowed_methods, reason = "a report is not a durable file")]
pub(crate) fn save(path: &Path, text: &str) -> io::Result<()> {
    std::fs::write(path, text)
}

/// What is being done now, on a terminal; nothing at all elsewhere.
pub(crate) struct Progress {
    bar: ProgressBar,
}

impl Progress {
    /// A bar of `steps` steps.
    pub(crate) fn new(steps: u64) -> Progress {
        let target =
            if io::stderr().is_terminal() { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(Some(steps), target);
        let style = ProgressStyle::with_template("{elapsed:>4} [{bar:30}] {pos}/{len} {wide_msg}");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("=> "));
        bar.enable_steady_tick(Duration::from_millis(250));
        Progress { bar }
    }

    /// Says what is being done.
    pub(crate) fn say(&self, text: String) {
        self.bar.set_message(text);
    }

    /// One step further.
    pub(crate) fn step(&self) {
        self.bar.inc(1);
    }

    /// Writes a line above the bar.
    pub(crate) fn line(&self, text: &str) {
        self.bar.suspend(|| line(format_args!("{text}")));
    }

    /// Takes the bar away.
    pub(crate) fn finish(&self) {
        self.bar.finish_and_clear();
    }
}
