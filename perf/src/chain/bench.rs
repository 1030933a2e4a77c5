//! What rows have in common: a fresh store, a broker on it, a window, and what is read back.

use std::path::{Path, PathBuf};

use anchorlog::wire::Encoding;
use anchorlog::wire::codes::{request, response};
use anchorlog_engine::io::sys::BlockDevice;
use hdrhistogram::Histogram;

use super::drive::{Drive, Left};
use super::producer::{Followed, Producing};
use crate::broker_rows::{self, OVERHEAD_BYTES, Subject};
use crate::clock;
use crate::engine_rows;
use crate::error::PerfError;
use crate::meter::{Meter, Window};
use crate::open_loop::Load;
use crate::payload::Payloads;
use crate::prepared::Manner;
use crate::remoting::Caller;
use crate::row::{ChainUse, RowResult, RowSpec};
use crate::sender::Sent;
use crate::served::{Counts, Order, Served};
use crate::topic::Topic;
use crate::verify::Verified;

/// How old a half message is when the broker looks whether its producer must be asked. It does that for every transaction, also for one
/// that is decided; at its default of six seconds that would come when a short row is over.
pub(super) const ASK_AFTER_MS: u64 = 250;

/// With what a row is measured.
pub(crate) struct Bench<'a> {
    /// The row.
    pub(crate) spec: &'a RowSpec,
    /// Where stores go.
    pub(crate) dir: &'a Path,
    /// What its messages are made of.
    pub(crate) seed: u64,
    /// How headers are written.
    pub(crate) encoding: Encoding,
}

/// What a row found, before it is one.
pub(super) struct Found {
    /// What was counted, and for how long.
    pub(super) window: Window,
    /// How long each took.
    pub(super) latencies: Histogram<u64>,
    /// The accounts.
    pub(super) verified: Verified,
    /// What else is to be said.
    pub(super) notes: Vec<String>,
    /// What else is known.
    pub(super) chain: ChainUse,
}

impl Bench<'_> {
    /// A broker on a fresh store, durable, and nothing else on its disk by now.
    pub(super) fn broker(&self) -> Result<OnStore<'_>, PerfError> {
        let store = self.dir.join("store");
        engine_rows::remove_store(&store)?;
        std::fs::create_dir_all(&store).map_err(|source| PerfError::Io {
            what: "making",
            path: store.clone(),
            source,
        })?;
        let order = Order::of(self.spec, &store, Some(self.spec.scale.broker_retain_bytes));
        let broker = Served::start(&Order { ask_after_ms: Some(ASK_AFTER_MS), ..order })?;
        engine_rows::wait_until_quiet(&store);
        Ok(OnStore { spec: self.spec, device: BlockDevice::below(&store), store, broker: Some(broker) })
    }

    /// The messages of a row.
    pub(super) fn payloads(&self) -> Payloads {
        Payloads::new(self.spec.size, self.seed)
    }

    /// Sends to a topic, all answered, by as many as the row says.
    pub(super) fn producing<'p>(&self, topic: &'p Topic, payloads: &'p Payloads) -> Result<Producing<'p>, PerfError> {
        Ok(Producing {
            topic,
            connections: self.spec.connections()?,
            manner: Manner::Plain,
            times: None,
            most: None,
            load: Load::Closed,
            encoding: self.encoding,
            payloads,
            followed: Followed::No,
        })
    }

    /// Runs a load for the length of the row; `look` is called when the window opens, and again when it closes.
    pub(super) fn watch<'m>(
        &self,
        meter: &'m Meter,
        drive: Drive<'m>,
        subject: Subject<'_>,
        mut look: impl FnMut() -> Result<(), PerfError>,
    ) -> Result<(Window, Left), PerfError> {
        std::thread::scope(|scope| {
            let handle = scope.spawn(move || {
                let left = drive.run(meter);
                meter.stop();
                left
            });
            clock::sleep(self.spec.scale.warm_up);
            let opened = look();
            let window = meter.watch(self.spec.seconds, subject.device, subject.broker);
            let closed = look();
            let left = engine_rows::join(handle)?;
            opened.and(closed).map(|()| (window, left))
        })
    }

    /// The row.
    pub(super) fn row(&self, name: &str, backend: String, durability: String, found: Found) -> RowResult {
        let Found { window, latencies, verified, notes, chain } = found;
        let Window { seconds, acks, series, device, cpu_s } = window;
        RowResult {
            spec: RowSpec { name: name.to_owned(), ..self.spec.clone() },
            backend,
            durability,
            seconds,
            acks,
            latencies,
            series,
            device,
            cpu_s,
            frame_bytes: self.spec.size as f64 + f64::from(OVERHEAD_BYTES),
            verified,
            notes,
            pair: None,
            chain: Some(chain),
        }
    }
}

/// A broker and its store, which goes when this does.
pub(super) struct OnStore<'a> {
    spec: &'a RowSpec,
    store: PathBuf,
    /// The disk below it.
    pub(super) device: Option<BlockDevice>,
    broker: Option<Served>,
}

impl OnStore<'_> {
    /// The broker.
    pub(super) fn served(&mut self) -> &mut Served {
        self.broker.as_mut().expect("only starting it anew takes it")
    }

    /// Where it is.
    pub(super) fn address(&self) -> &str {
        &self.broker.as_ref().expect("only starting it anew takes it").address
    }

    /// What its engine has counted.
    pub(super) fn counts(&mut self) -> Result<Counts, PerfError> {
        self.served().counts()
    }

    /// Its processor time and its disk's work are a row's.
    pub(super) fn pid(&self) -> u32 {
        self.broker.as_ref().expect("only starting it anew takes it").pid()
    }

    /// Kills it, or stops it, and starts one on the same store that recycles nothing.
    pub(super) fn again(&mut self, killed: bool) -> Result<(), PerfError> {
        if let Some(mut broker) = self.broker.take() {
            if killed { broker.kill()? } else { broker.stop()? }
        }
        self.broker = Some(Served::start(&Order::of(self.spec, &self.store, None))?);
        Ok(())
    }

    /// Kills it, and reads from the next one what the last one acknowledged.
    pub(super) fn read_back(
        &mut self,
        topic: &Topic,
        payloads: &Payloads,
        sent: &mut Sent,
    ) -> Result<Verified, PerfError> {
        self.again(true)?;
        broker_rows::read_back(&topic.moved_to(self.address()), payloads, sent)
    }

    /// Stops it and deletes its store.
    pub(super) fn finish(mut self) -> Result<(), PerfError> {
        if let Some(broker) = self.broker.take() {
            broker.stop()?;
        }
        Ok(())
    }
}

impl Drop for OnStore<'_> {
    fn drop(&mut self) {
        drop(self.broker.take());
        drop(engine_rows::remove_store(&self.store));
    }
}

/// Two looks at counters: what came between them.
pub(super) fn between(looks: &[Counts]) -> Counts {
    match looks {
        [before, after] => after.since(*before),
        _ => Counts::default(),
    }
}

/// What a group has committed of a topic, by queue.
pub(super) fn committed(topic: &Topic, group: &str) -> Result<Vec<Option<u64>>, PerfError> {
    let mut caller = Caller::connect(&topic.queues[0].broker)?;
    let of = |queue: u32| {
        let fields = [
            ("consumerGroup", group),
            ("topic", topic.name.as_str()),
            ("queueId", &queue.to_string()),
            ("setZeroIfNotFound", "false"),
        ];
        let answer = caller.call(request::QUERY_CONSUMER_OFFSET, &fields, b"")?;
        if answer.code == response::QUERY_NOT_FOUND {
            return Ok(None);
        }
        answer.ok("asking for a committed offset")?.number("offset").map(Some)
    };
    topic.queues.iter().map(|queue| queue.id).map(of).collect()
}

/// What was found wrong as it came is wrong with the row, too.
pub(super) fn with_faults(verified: Verified, live: Verified) -> Verified {
    Verified {
        lost: verified.lost + live.lost,
        duplicated: verified.duplicated + live.duplicated,
        out_of_order: verified.out_of_order + live.out_of_order,
        damaged: verified.damaged + live.damaged,
        unexpected: verified.unexpected + live.unexpected,
        ..verified
    }
}
