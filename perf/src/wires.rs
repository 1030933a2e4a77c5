//! All connections of a load, and the one thread that waits for them: epoll, bytes in, frames out of them, bytes out.
//!
//! What one wake-up made sendable goes out in one write per connection.

use std::io::{ErrorKind, Write};
use std::net::TcpStream;

use anchorlog::wire::codes::response;
use anchorlog::wire::header::Head;
use anchorlog::wire::{Encoding, FrameRef};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};
use nix::sys::time::{TimeSpec, TimeValLike};
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};

use crate::clock;
use crate::error::PerfError;
use crate::remoting::{ANSWER_TIMEOUT, Inbox, connect, encode, failed, skim_answer};

/// What epoll says when the timer is due.
const TIMER: u64 = u64::MAX;
/// Connections looked at after one wake-up.
const EVENTS: usize = 128;
/// Longest sleep while one answer is waited for.
const NAP_MS: u8 = 100;

/// Bytes that wait to be written to one connection.
struct Out {
    bytes: Vec<u8>,
    at: usize,
    is_touched: bool,
    waits_to_write: bool,
}

/// What is to be sent, by connection.
pub(crate) struct Outs {
    outs: Vec<Out>,
    touched: Vec<usize>,
}

impl Outs {
    /// Where the requests of a connection are put; [`Wires::flush`] sends them.
    pub(crate) fn of(&mut self, connection: usize) -> &mut Vec<u8> {
        let out = &mut self.outs[connection];
        if !out.is_touched {
            out.is_touched = true;
            self.touched.push(connection);
        }
        &mut out.bytes
    }
}

struct End {
    peer: String,
    stream: TcpStream,
    inbox: Inbox,
}

/// The connections.
pub(crate) struct Wires {
    epoll: Epoll,
    timer: TimerFd,
    ends: Vec<End>,
    outs: Outs,
}

impl Wires {
    /// None yet.
    ///
    /// # Errors
    /// The kernel's.
    pub(crate) fn new() -> Result<Wires, PerfError> {
        let os = |error: nix::Error| PerfError::Broker(format!("setting up the client: {error}"));
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).map_err(os)?;
        let timer =
            TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC).map_err(os)?;
        epoll.add(&timer, EpollEvent::new(EpollFlags::EPOLLIN, TIMER)).map_err(os)?;
        Ok(Wires { epoll, timer, ends: Vec::new(), outs: Outs { outs: Vec::new(), touched: Vec::new() } })
    }

    /// One more connection; its number, which counts from zero.
    ///
    /// # Errors
    /// When the peer is not there.
    pub(crate) fn connect(&mut self, peer: &str) -> Result<usize, PerfError> {
        let stream = connect(peer)?;
        stream.set_nonblocking(true).map_err(failed(peer, "switching waiting off"))?;
        let at = self.ends.len();
        self.epoll
            .add(&stream, EpollEvent::new(EpollFlags::EPOLLIN, at as u64))
            .map_err(|error| PerfError::Broker(format!("setting up the client: {error}")))?;
        self.ends.push(End { peer: peer.to_owned(), stream, inbox: Inbox::new() });
        let bytes = Vec::with_capacity(1 << 16);
        self.outs.outs.push(Out { bytes, at: 0, is_touched: false, waits_to_write: false });
        Ok(at)
    }

    /// What is to be sent.
    pub(crate) fn outs(&mut self) -> &mut Outs {
        &mut self.outs
    }

    /// Sleeps until something arrives, the timer is due, or so many milliseconds are over; says on which connections something is.
    ///
    /// # Errors
    /// The kernel's, and when a connection breaks.
    pub(crate) fn wait(&mut self, most_ms: u8, ready: &mut Vec<usize>) -> Result<(), PerfError> {
        ready.clear();
        let mut events = [EpollEvent::empty(); EVENTS];
        let count = match self.epoll.wait(&mut events, most_ms) {
            Ok(count) => count,
            Err(nix::Error::EINTR) => 0,
            Err(error) => return Err(PerfError::Broker(format!("waiting for answers: {error}"))),
        };
        for event in &events[..count] {
            if event.data() == TIMER {
                // Reading it makes it unreadable; that it had already been read is no error.
                self.timer
                    .wait()
                    .or_else(|error| if error == nix::Error::EAGAIN { Ok(()) } else { Err(error) })
                    .map_err(timer_failed)?;
                continue;
            }
            let at = usize::try_from(event.data()).expect("it is the number of a connection");
            if event.events().contains(EpollFlags::EPOLLOUT) {
                self.write(at)?;
            }
            if event.events().intersects(EpollFlags::EPOLLIN | EpollFlags::EPOLLHUP | EpollFlags::EPOLLERR) {
                ready.push(at);
            }
        }
        Ok(())
    }

    /// Gives every frame that has arrived on a connection to `take`, with the time at which it was taken.
    ///
    /// # Errors
    /// When the connection broke, or what `take` says.
    pub(crate) fn receive(
        &mut self,
        connection: usize,
        mut take: impl FnMut(&mut Outs, &FrameRef<'_>, u64) -> Result<(), PerfError>,
    ) -> Result<(), PerfError> {
        let (End { peer, stream, inbox }, outs) = (&mut self.ends[connection], &mut self.outs);
        loop {
            let more = inbox.fill(stream).map_err(failed(peer, "receiving"))?;
            let now = clock::now_ns();
            inbox.frames(|frame| take(outs, frame, now))?;
            if !more {
                return Ok(());
            }
        }
    }

    /// Writes what it can of all that is to be sent; the rest when a connection takes it.
    ///
    /// # Errors
    /// When a connection broke.
    pub(crate) fn flush(&mut self) -> Result<(), PerfError> {
        while let Some(connection) = self.outs.touched.pop() {
            self.outs.outs[connection].is_touched = false;
            self.write(connection)?;
        }
        Ok(())
    }

    /// Asks, and waits for the answer; says what came with it. For what is not measured: answers to other requests get lost meanwhile.
    ///
    /// # Errors
    /// When the broker refuses, or says nothing.
    pub(crate) fn call(&mut self, connection: usize, code: i32, body: &[u8]) -> Result<Vec<u8>, PerfError> {
        const OPAQUE: i32 = 1;
        let frame = encode(Head::request(Encoding::Json, code, OPAQUE), &[], body)?;
        self.outs.of(connection).extend_from_slice(&frame);
        self.flush()?;
        let (begun, mut ready, mut answer) = (clock::now_ns(), Vec::new(), None);
        while answer.is_none() {
            self.wait(NAP_MS, &mut ready)?;
            for connection in &ready {
                self.receive(*connection, |_, frame, _| {
                    if let Some((code, OPAQUE)) = skim_answer(frame)? {
                        answer = Some((code, frame.body.to_vec()));
                    }
                    Ok(())
                })?;
            }
            if u128::from(clock::now_ns() - begun) > ANSWER_TIMEOUT.as_nanos() {
                return Err(PerfError::Broker(format!("request {code} is not answered")));
            }
        }
        match answer {
            Some((response::SUCCESS, body)) => Ok(body),
            answer => {
                let with = answer.map_or(0, |(code, _)| code);
                Err(PerfError::Broker(format!("request {code} was answered with code {with}")))
            }
        }
    }

    /// Ends the next [`Wires::wait`] at this time, in nanoseconds from now.
    ///
    /// # Errors
    /// The kernel's.
    pub(crate) fn wake_in(&self, wait_ns: u64) -> Result<(), PerfError> {
        let wait = i64::try_from(wait_ns).unwrap_or(i64::MAX);
        let expiration = Expiration::OneShot(TimeSpec::nanoseconds(wait.max(1)));
        self.timer.set(expiration, TimerSetTimeFlags::empty()).map_err(timer_failed)
    }

    fn write(&mut self, connection: usize) -> Result<(), PerfError> {
        let (End { peer, stream, .. }, out) = (&mut self.ends[connection], &mut self.outs.outs[connection]);
        while out.at < out.bytes.len() {
            match stream.write(&out.bytes[out.at..]) {
                Ok(written) => out.at += written,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(failed(peer, "sending")(error)),
            }
        }
        let waits = out.at < out.bytes.len();
        if !waits {
            out.bytes.clear();
            out.at = 0;
        }
        if waits != out.waits_to_write {
            out.waits_to_write = waits;
            let flags = if waits { EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT } else { EpollFlags::EPOLLIN };
            self.epoll
                .modify(stream, &mut EpollEvent::new(flags, connection as u64))
                .map_err(|error| PerfError::Broker(format!("watching a connection: {error}")))?;
        }
        Ok(())
    }
}

fn timer_failed(error: nix::Error) -> PerfError {
    PerfError::Broker(format!("the client's timer: {error}"))
}
