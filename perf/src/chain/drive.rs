//! Producers and consumers of a row, driven by one thread.

use std::time::Duration;

use hdrhistogram::Histogram;

use super::consumer::{Consumer, Consuming};
use super::producer::{Producer, Producing};
use crate::clock;
use crate::error::PerfError;
use crate::meter::Meter;
use crate::remoting::ANSWER_TIMEOUT;
use crate::sender::Sent;
use crate::verify::{Verified, Verifier};
use crate::wires::Wires;

/// Longest sleep: someone may say stop.
const NAP_MS: u8 = 50;
/// How long a consumer may take for what was sent before it.
const PATIENCE: Duration = Duration::from_secs(5);

/// What a row leaves behind.
pub(crate) struct Left {
    /// What was sent, and how long each send took.
    pub(crate) sent: Sent,
    /// What consumers found as it came.
    pub(crate) found: Option<Verifier>,
    /// How long the messages took, or the pulls and commits where nobody knows when they were sent.
    pub(crate) processed: Option<Histogram<u64>>,
}

impl Left {
    /// What consumers found, held against what was sent.
    pub(crate) fn verified(&mut self) -> Option<Verified> {
        Some(self.found.take()?.finish(&self.sent.ledgers))
    }
}

/// The load of a row.
pub(crate) struct Drive<'a> {
    wires: Wires,
    /// Who sends, if anybody does.
    pub(crate) producer: Option<Producer<'a>>,
    /// Who takes, if anybody does.
    pub(crate) consumer: Option<Consumer<'a>>,
    ready: Vec<usize>,
    heard_ns: u64,
}

impl<'a> Drive<'a> {
    /// Connects all of them; consumers first.
    ///
    /// # Errors
    /// When the broker is not there.
    pub(crate) fn connect(
        producing: Option<&Producing<'a>>,
        consuming: Option<&Consuming<'a>>,
        meter: &'a Meter,
    ) -> Result<Drive<'a>, PerfError> {
        let mut wires = Wires::new()?;
        let consumer = consuming.map(|wish| Consumer::connect(&mut wires, wish, meter)).transpose()?;
        let producer = producing.map(|wish| Producer::connect(&mut wires, wish, meter)).transpose()?;
        let mut drive = Drive { wires, producer, consumer, ready: Vec::new(), heard_ns: clock::now_ns() };
        if let Some(consumer) = &mut drive.consumer {
            consumer.begin(drive.wires.outs(), clock::now_ns());
        }
        drive.wires.flush()?;
        Ok(drive)
    }

    /// Waits for answers, and deals with them; sends what may be sent, if it may.
    ///
    /// # Errors
    /// When the broker goes away.
    pub(crate) fn turn(&mut self, sends: bool) -> Result<(), PerfError> {
        self.send(sends)?;
        let mut ready = std::mem::take(&mut self.ready);
        self.wires.wait(NAP_MS, &mut ready)?;
        for connection in &ready {
            let Drive { wires, producer, consumer, heard_ns, .. } = self;
            wires.receive(*connection, |outs, frame, now| {
                *heard_ns = now;
                match (&mut *producer, &mut *consumer) {
                    (Some(producer), _) if producer.has(*connection) => producer.answer(outs, *connection, frame, now),
                    (Some(producer), Some(consumer)) => {
                        consumer.answer(outs, frame, now, |stream, sequence| producer.processed(stream, sequence))
                    }
                    (None, Some(consumer)) => consumer.answer(outs, frame, now, |_, _| None),
                    (_, None) => Ok(()),
                }
            })?;
            self.send(sends)?;
        }
        self.ready = ready;
        Ok(())
    }

    fn send(&mut self, sends: bool) -> Result<(), PerfError> {
        let now = clock::now_ns();
        if let Some(producer) = self.producer.as_mut().filter(|_| sends) {
            producer.dispatch(self.wires.outs(), now);
            if let Some(wait) = producer.due_in(now) {
                self.wires.wake_in(wait)?;
            }
        }
        self.wires.flush()?;
        if let Some(producer) = &mut self.producer {
            producer.flushed(clock::now_ns());
        }
        Ok(())
    }

    /// How long nothing was heard.
    fn silent(&self) -> Duration {
        Duration::from_nanos(clock::now_ns().saturating_sub(self.heard_ns))
    }

    /// Turns until `done`.
    ///
    /// # Errors
    /// When the broker falls silent before that.
    pub(crate) fn until(&mut self, sends: bool, mut done: impl FnMut(&Drive<'a>) -> bool) -> Result<(), PerfError> {
        self.heard_ns = clock::now_ns();
        while !done(self) {
            self.turn(sends)?;
            if self.silent() > ANSWER_TIMEOUT {
                return Err(PerfError::Broker(format!("no answer for {} s", self.silent().as_secs())));
            }
        }
        Ok(())
    }

    /// Sends until the meter says stop; then waits for what is on its way, as long as somebody tells of it.
    ///
    /// # Errors
    /// When the broker goes away or falls silent.
    pub(crate) fn run(mut self, meter: &Meter) -> Result<Left, PerfError> {
        self.until(true, |_| meter.stopped())?;
        let begun = clock::now_ns();
        let late = move || u128::from(clock::now_ns() - begun) > PATIENCE.as_nanos();
        let follows = self.consumer.is_some();
        self.until(false, |drive| {
            let Some(producer) = &drive.producer else { return true };
            if follows { producer.unprocessed() == 0 && producer.is_idle() || late() } else { producer.is_idle() }
        })?;
        self.finish()
    }

    /// Hangs up.
    ///
    /// # Errors
    /// When there is no producer to tell of.
    pub(crate) fn finish(self) -> Result<Left, PerfError> {
        let producer = self.producer.ok_or_else(|| PerfError::Report("nothing was sent".to_owned()))?;
        let (found, processed) = match self.consumer {
            Some(consumer) => {
                let (verifier, recorder) = consumer.into_parts();
                (Some(verifier), Some(recorder.into_latencies()))
            }
            None => (None, None),
        };
        Ok(Left { sent: producer.into_sent(), found, processed })
    }
}
