//! Tells somebody of dead letters: by a command, or by a request to a URL, as the operator said.
//!
//! 1. Nobody waits for it. Letters are handed over in a queue of `limits::ALARM_QUEUE_MAX`; what does not fit is counted and said. Its line
//!    in the log and its place in the dead-letter topic are there all the same.
//! 2. One call is made at a time, for up to `limits::ALARM_LETTERS_MAX` letters that wait, and ended after `limits::ALARM_TIMEOUT`.
//! 3. A call that fails is counted and said, and not made again.
//!
//! A command runs in a shell of its own with one line of JSON for each letter on its standard input, and their number in
//! `ANCHORLOG_DEAD_LETTERS`. A URL gets the same as a POST of `{"deadLetters":[…]}`.

use std::fmt;
use std::io::{ErrorKind, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::str::FromStr;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, TrySendError, channel, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use anchorlog_engine::Clock;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use serde::Serialize;

use crate::counters::Counters;
use crate::limits;

/// How long letters are waited for before it is looked whether to end.
const WAIT_INTERVAL: Duration = Duration::from_millis(200);
/// How often a command is asked whether it has ended.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

/// Who is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Whom {
    /// A command, for `sh -c`.
    Command(String),
    /// A URL.
    Url(String),
}

/// Text that is neither.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NotWhom(String);

impl FromStr for Whom {
    type Err = NotWhom;

    fn from_str(text: &str) -> Result<Whom, NotWhom> {
        let text = text.trim();
        if text.is_empty() {
            return Err(NotWhom("a command, or a URL with http:// or https://, is wanted".to_owned()));
        }
        if !text.starts_with("http://") && !text.starts_with("https://") {
            return Ok(Whom::Command(text.to_owned()));
        }
        match text.parse::<ureq::http::Uri>() {
            Ok(url) if url.host().is_some() => Ok(Whom::Url(text.to_owned())),
            Ok(_) => Err(NotWhom(format!("{text} names no host"))),
            Err(error) => Err(NotWhom(format!("{text} is no URL: {error}"))),
        }
    }
}

impl fmt::Display for Whom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Whom::Command(text) | Whom::Url(text) => f.write_str(text),
        }
    }
}

/// A dead letter, as it is told.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Told {
    /// The group that gave it up.
    pub group: String,
    /// Where it lies.
    pub topic: String,
    /// Where it came from.
    pub origin_topic: String,
    /// Its producer's id.
    pub unique_key: String,
    /// Its id by its place.
    pub id: String,
    /// Deliveries that failed.
    pub attempts: i32,
    /// The broker.
    pub broker: String,
    /// When it was given up, in milliseconds since 1970.
    pub at_ms: u64,
}

/// Where letters are handed in. Without an operator's word it does nothing.
#[derive(Clone, Debug, Default)]
pub struct Alarm(Option<SyncSender<Told>>);

impl Alarm {
    /// Hands one in; `told` is only made where somebody wants it.
    pub fn ring(&self, counters: &Counters, told: impl FnOnce() -> Told) {
        let Some(sender) = &self.0 else { return };
        match sender.try_send(told()) {
            Ok(()) => {}
            Err(TrySendError::Full(told)) => {
                counters.alarms_failed.add(1);
                tracing::error!(
                    group = told.group,
                    id = told.id,
                    "too many dead letters wait to be told; this one is not"
                );
            }
            // The broker stops.
            Err(TrySendError::Disconnected(_)) => {}
        }
    }
}

/// The thread that tells. Dropping it ends it, with what it is doing.
#[derive(Debug)]
pub struct Teller {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Teller {
    /// Ends it. What waits is not told any more. Every [`Alarm`] goes on to do nothing.
    ///
    /// # Errors
    /// When it ended in a panic.
    pub fn stop(mut self) -> std::thread::Result<()> {
        self.end()
    }

    fn end(&mut self) -> std::thread::Result<()> {
        drop(self.stop.take());
        self.thread.take().map_or(Ok(()), JoinHandle::join)
    }
}

impl Drop for Teller {
    fn drop(&mut self) {
        if self.end().is_err() {
            tracing::error!("the thread that tells of dead letters ended in a panic");
        }
    }
}

/// Starts the thread.
///
/// # Errors
/// When it cannot be started.
pub fn start(whom: Whom, clock: Arc<dyn Clock>, counters: Arc<Counters>) -> std::io::Result<(Alarm, Teller)> {
    let (sender, letters) = sync_channel(limits::ALARM_QUEUE_MAX);
    let (stop, stopped) = channel::<()>();
    let body = move || {
        let calls = Calls { whom, clock, stopped };
        while let Some(some) = calls.next(&letters) {
            match calls.call(&some) {
                Ok(()) => counters.alarms_made.add(1),
                Err(CallError::Stopped) => return,
                Err(error) => {
                    counters.alarms_failed.add(some.len() as u64);
                    tracing::error!(%error, letters = some.len(), whom = %calls.whom, "nobody was told of dead letters");
                }
            }
        }
    };
    let thread = std::thread::Builder::new().name("alarm".to_owned()).spawn(body)?;
    Ok((Alarm(Some(sender)), Teller { stop: Some(stop), thread: Some(thread) }))
}

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
enum CallError {
    #[error("{0}")]
    Io(#[from] std::io::Error),
    #[error("{0}")]
    Http(#[from] ureq::Error),
    #[error("the command ended with {0}")]
    Status(std::process::ExitStatus),
    #[error("not done within {} s; it was ended", limits::ALARM_TIMEOUT.as_secs())]
    TimedOut,
    #[error("the broker stops")]
    Stopped,
}

struct Calls {
    whom: Whom,
    clock: Arc<dyn Clock>,
    /// Nothing is ever sent by it: the other end is dropped.
    stopped: Receiver<()>,
}

impl Calls {
    /// Waits for letters and takes those that wait; `None` when it is to end.
    fn next(&self, letters: &Receiver<Told>) -> Option<Vec<Told>> {
        loop {
            match letters.recv_timeout(WAIT_INTERVAL) {
                Ok(first) => {
                    let others = letters.try_iter().take(limits::ALARM_LETTERS_MAX - 1);
                    return Some(std::iter::once(first).chain(others).collect());
                }
                Err(RecvTimeoutError::Timeout) if !self.is_stopped() => {}
                Err(_) => return None,
            }
        }
    }

    fn is_stopped(&self) -> bool {
        self.stopped.try_recv() == Err(std::sync::mpsc::TryRecvError::Disconnected)
    }

    fn call(&self, letters: &[Told]) -> Result<(), CallError> {
        match &self.whom {
            Whom::Command(command) => self.run(command, letters),
            Whom::Url(url) => {
                let body = serde_json::json!({ "deadLetters": letters }).to_string();
                let agent = ureq::Agent::config_builder().timeout_global(Some(limits::ALARM_URL_TIMEOUT)).build();
                let agent: ureq::Agent = agent.into();
                agent
                    .post(url)
                    .header("content-type", "application/json")
                    .send(&body)
                    .map(drop)
                    .map_err(CallError::Http)
            }
        }
    }

    fn run(&self, command: &str, letters: &[Told]) -> Result<(), CallError> {
        let mut child = Command::new("sh")
            .args(["-c", command])
            .env("ANCHORLOG_DEAD_LETTERS", letters.len().to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // What it starts is ended with it.
            .process_group(0)
            .spawn()?;
        let outcome = self.see_through(&mut child, letters);
        if outcome.is_err() {
            end(&mut child);
        }
        outcome
    }

    fn see_through(&self, child: &mut Child, letters: &[Told]) -> Result<(), CallError> {
        if let Some(mut input) = child.stdin.take() {
            // A pipe takes so much whether it is read or not; see `limits::ALARM_LETTERS_MAX`.
            let mut lines = Vec::new();
            for letter in letters {
                serde_json::to_writer(&mut lines, letter).map_err(std::io::Error::from)?;
                lines.push(b'\n');
            }
            match input.write_all(&lines) {
                // Whoever does not read need not.
                Err(error) if error.kind() != ErrorKind::BrokenPipe => return Err(error.into()),
                _ => {}
            }
        }
        let deadline = self.clock.monotonic() + limits::ALARM_TIMEOUT;
        loop {
            match child.try_wait()? {
                Some(status) if status.success() => return Ok(()),
                Some(status) => return Err(CallError::Status(status)),
                None if self.clock.monotonic() >= deadline => return Err(CallError::TimedOut),
                None => {}
            }
            if self.stopped.recv_timeout(LOOK_INTERVAL) == Err(RecvTimeoutError::Disconnected) {
                return Err(CallError::Stopped);
            }
        }
    }
}

/// Ends a command and what it started.
fn end(child: &mut Child) {
    let group = i32::try_from(child.id()).map(Pid::from_raw);
    // It may have ended by itself meanwhile.
    let _ended = group.map(|group| killpg(group, Signal::SIGKILL));
    let _status = child.wait();
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Read};
    use std::net::TcpListener;

    use anchorlog_engine::SystemClock;

    use super::*;

    fn letter(id: &str) -> Told {
        Told { group: "g".to_owned(), id: id.to_owned(), ..Told::default() }
    }

    fn begin(whom: &str) -> (Alarm, Teller, Arc<Counters>) {
        let counters = Arc::<Counters>::default();
        let whom = whom.parse().expect("somebody");
        let (alarm, teller) = start(whom, Arc::new(SystemClock::new()), counters.clone()).expect("a thread");
        (alarm, teller, counters)
    }

    /// Waits until so many calls were made or failed.
    fn wait(counters: &Counters, count: u64) {
        let (_never, patience) = channel::<()>();
        for _ in 0..1000 {
            if counters.alarms_made.get() + counters.alarms_failed.get() >= count {
                return;
            }
            assert!(patience.recv_timeout(Duration::from_millis(10)).is_err());
        }
        panic!("{} made, {} failed", counters.alarms_made.get(), counters.alarms_failed.get());
    }

    #[test]
    fn a_command_gets_letters_as_lines_and_one_that_does_not_read_is_no_worse() {
        let place = tempfile::tempdir().expect("a directory");
        let file = place.path().join("letters");
        let (alarm, teller, counters) = begin(&format!("cat >> {}", file.display()));
        alarm.ring(&counters, || letter("a"));
        wait(&counters, 1);
        alarm.ring(&counters, || letter("b\n"));
        wait(&counters, 2);
        let text = std::fs::read_to_string(&file).expect("written");
        let ids: Vec<_> =
            text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).expect("JSON")).collect();
        assert_eq!((ids.len(), &ids[0]["id"], &ids[1]["id"]), (2, &"a".into(), &"b\n".into()));
        drop(teller);
        let (alarm, _teller, counters) = begin("test $ANCHORLOG_DEAD_LETTERS = 1");
        alarm.ring(&counters, || letter("a"));
        wait(&counters, 1);
        assert_eq!((counters.alarms_made.get(), counters.alarms_failed.get()), (1, 0));
    }

    #[test]
    fn a_command_that_fails_is_counted_and_the_next_letter_is_told_all_the_same() {
        let (alarm, _teller, counters) = begin("exit 3");
        for count in 1..=2 {
            alarm.ring(&counters, || letter("a"));
            wait(&counters, count);
        }
        assert_eq!((counters.alarms_made.get(), counters.alarms_failed.get()), (0, 2));
    }

    #[test]
    fn a_command_that_does_not_end_holds_up_neither_letters_nor_the_end() {
        let (alarm, teller, counters) = begin("sleep 1000 & sleep 1000");
        for _ in 0..limits::ALARM_QUEUE_MAX + limits::ALARM_LETTERS_MAX + 7 {
            alarm.ring(&counters, || letter("a"));
        }
        assert!(counters.alarms_failed.get() >= 7, "what does not fit is counted");
        let clock = SystemClock::new();
        teller.stop().expect("no panic");
        assert!(clock.monotonic() < Duration::from_secs(5));
        alarm.ring(&counters, || letter("a"));
    }

    #[test]
    fn a_url_gets_letters_as_one_request() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let (alarm, _teller, counters) = begin(&format!("http://{}/hook", listener.local_addr().expect("an address")));
        for (status, count) in [("200 OK", 1), ("500 Internal Server Error", 2)] {
            alarm.ring(&counters, || letter("a"));
            let (stream, _) = listener.accept().expect("a request");
            let mut input = BufReader::new(stream);
            let mut length = 0;
            let mut head = String::new();
            while !head.ends_with("\r\n\r\n") {
                assert!(input.read_line(&mut head).expect("text") > 0);
                let last = head.lines().last().unwrap_or_default().to_ascii_lowercase();
                length = last.strip_prefix("content-length: ").map_or(length, |text| text.parse().expect("a number"));
            }
            let mut body = vec![0; length];
            input.read_exact(&mut body).expect("a body");
            assert!(head.starts_with("POST /hook HTTP/1.1\r\n"), "{head}");
            let told: serde_json::Value = serde_json::from_slice(&body).expect("JSON");
            assert_eq!(told["deadLetters"][0]["id"], "a");
            let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
            input.get_mut().write_all(answer.as_bytes()).expect("it reads");
            wait(&counters, count);
        }
        assert_eq!((counters.alarms_made.get(), counters.alarms_failed.get()), (1, 1));
    }

    #[test]
    fn what_begins_like_a_url_must_be_one() {
        assert_eq!("mail -s x a@b".parse(), Ok(Whom::Command("mail -s x a@b".to_owned())));
        assert_eq!("https://h/x".parse(), Ok(Whom::Url("https://h/x".to_owned())));
        for bad in ["", " ", "http://", "https:// x"] {
            assert!(bad.parse::<Whom>().is_err(), "{bad}");
        }
    }
}
