//! What all network threads share.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use anchorlog_engine::Engine;

use crate::alarm::Alarm;
use crate::config::{BrokerArgs, ByteSize, Live, Period};
use crate::counters::Counters;
use crate::features::access::Access;
use crate::features::clients::Clients;
use crate::features::delay::{DelayLevels, DueIndex};
use crate::features::inspect::Rates;
use crate::features::neighbours::Neighbours;
use crate::features::repeats::Repeats;
use crate::features::reply::Requesters;
use crate::features::reset::Resets;
use crate::features::send::MadeKeys;
use crate::features::transactions::Halves;
use crate::metrics::Pulses;
use crate::net::{Bounds, Tls, Visitors};
use crate::standing::Standing;
use crate::state::State;

/// What an operator chose, as far as handlers care.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The address that clients are told to dial; stands in routes and in every message's store host.
    pub advertise: SocketAddr,
    /// The cluster's name.
    pub cluster: String,
    /// The broker's name.
    pub broker: String,
    /// Whether unknown topics are made on demand.
    pub auto_create_topics: bool,
    /// Queues of the template for such topics.
    pub template_queues: u32,
    /// Whether unknown groups are made on demand.
    pub auto_create_groups: bool,
    /// Largest body of a message or batch, in bytes.
    pub message_bytes_max: usize,
    /// How long a send waits for its ack before it is answered as unconfirmed. Below every client's own 3 s.
    pub ack_timeout: Duration,
    /// How long a send waits for space in the log buffer before it is refused.
    pub busy_timeout: Duration,
    /// What a level of delay means.
    pub delay_levels: DelayLevels,
    /// How old a half message is when its producer is first asked.
    pub transaction_timeout: Duration,
    /// Time from one question to the next.
    pub transaction_check_interval: Duration,
    /// Most questions to somebody who is there.
    pub transaction_check_max: u32,
    /// Whether messages that a group has not consumed outlive their file.
    pub keep_unconsumed: bool,
    /// How long a send is recognised that comes again; zero for never.
    pub repeat_window: Duration,
    /// Bytes of memory for that.
    pub repeat_memory: usize,
    /// Whether consumers may choose messages by their properties.
    pub property_filter: bool,
}

/// One broker: log, state, settings and counters.
pub struct Shared {
    /// The log.
    pub engine: Arc<Engine>,
    /// Topics, groups, offsets.
    pub state: State,
    /// What the operator chose.
    pub settings: Settings,
    /// What this broker is among its replicas.
    pub standing: Standing,
    /// What happened so far.
    pub counters: Arc<Counters>,
    /// Whom dead letters are told to.
    pub alarm: Alarm,
    /// Ids for messages that come without one.
    pub made_keys: MadeKeys,
    /// What is due soon.
    pub due: DueIndex,
    /// Half messages, and who decides.
    pub halves: Halves,
    /// What was sent lately, to recognise what comes again.
    pub repeats: Repeats,
    /// The options in force, as far as they can be changed while it runs.
    pub live: Live,
    /// Producers are shown no queues to write: as an operator of the name server wants it.
    pub writes_wiped: AtomicBool,
    /// Who is connected.
    pub clients: Clients,
    /// Consumers that were sent elsewhere.
    pub resets: Resets,
    /// How much comes and goes.
    pub rates: Rates,
    /// What the network threads have to do.
    pub pulses: Pulses,
    /// Other brokers that name servers know.
    pub neighbours: Neighbours,
    /// When this broker began to serve, in milliseconds since 1970.
    pub started_ms: u64,
    /// Who is where, for whoever answers a request of theirs.
    pub requesters: Requesters,
    /// Whether whoever asks must say who he is.
    pub access: Access,
    /// Who is connected, and what he may have at once.
    pub visitors: Visitors,
    /// What connections that begin with TLS are met with; without it they are closed.
    pub tls: Option<Arc<Tls>>,
    /// Set when everything is known that the log says: a leader learns it when its slaves have confirmed what they have.
    pub knows_all: AtomicBool,
    /// Set once, when the broker stops: what is not appended yet is refused.
    pub closing: AtomicBool,
    /// Spreads messages without a queue of their choice.
    next_queue: AtomicU32,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl Shared {
    /// Wires the parts of a broker without replicas.
    #[must_use]
    pub fn new(engine: impl Into<Arc<Engine>>, state: State, settings: Settings, made_keys: MadeKeys) -> Shared {
        let engine = engine.into();
        let due = DueIndex::new(engine.info().epoch);
        Shared {
            due,
            halves: Halves::default(),
            repeats: Repeats::new(settings.repeat_window, settings.repeat_memory),
            live: Live::new(args_of(&settings), engine.clock().wall_ms()),
            writes_wiped: AtomicBool::new(false),
            clients: Clients::default(),
            resets: Resets::default(),
            rates: Rates::default(),
            pulses: Pulses::default(),
            neighbours: Neighbours::default(),
            started_ms: engine.clock().wall_ms(),
            requesters: Requesters::default(),
            access: Access::default(),
            visitors: Visitors::default(),
            tls: None,
            engine,
            state,
            settings,
            standing: Standing::Alone,
            counters: Arc::default(),
            alarm: Alarm::default(),
            made_keys,
            knows_all: AtomicBool::new(true),
            closing: AtomicBool::new(false),
            next_queue: AtomicU32::new(0),
        }
    }

    /// Says what the broker is among its replicas.
    #[must_use]
    pub fn with_standing(self, standing: Standing) -> Shared {
        Shared { standing, ..self }
    }

    /// Says what an operator gave as options.
    #[must_use]
    pub fn with_args(self, args: BrokerArgs) -> Shared {
        let live = Live::new(args, self.engine.clock().wall_ms());
        Shared { live, ..self }
    }

    /// Says whether whoever asks must say who he is.
    #[must_use]
    pub fn with_access(self, access: Access) -> Shared {
        Shared { access, ..self }
    }

    /// Says what peers may have at once.
    #[must_use]
    pub fn with_bounds(self, bounds: Bounds) -> Shared {
        Shared { visitors: Visitors::new(bounds), ..self }
    }

    /// Says what connections that begin with TLS are met with.
    #[must_use]
    pub fn with_tls(self, tls: Option<Arc<Tls>>) -> Shared {
        Shared { tls, ..self }
    }

    /// Goes on with counters that exist.
    #[must_use]
    pub fn with_counters(self, counters: Arc<Counters>) -> Shared {
        Shared { counters, ..self }
    }

    /// Says whom dead letters are told to.
    #[must_use]
    pub fn with_alarm(self, alarm: Alarm) -> Shared {
        Shared { alarm, ..self }
    }

    /// Why nothing may be stored now, if nothing may.
    ///
    /// # Errors
    /// The reason, in words for whoever asked.
    pub fn admission(&self) -> Result<(), String> {
        self.standing.admission()?;
        if self.knows_all.load(Ordering::Acquire) {
            return Ok(());
        }
        Err("nothing was stored: this leader does not know yet all that was acknowledged before it".to_owned())
    }

    /// True once the broker stops.
    #[must_use]
    pub fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Relaxed)
    }

    /// Any of `count` queues, each as often as the others.
    #[must_use]
    pub fn any_queue(&self, count: u32) -> u32 {
        self.next_queue.fetch_add(1, Ordering::Relaxed) % count.max(1)
    }
}

/// The options that lead to these settings.
fn args_of(settings: &Settings) -> BrokerArgs {
    BrokerArgs {
        cluster_name: settings.cluster.clone(),
        broker_name: settings.broker.clone(),
        auto_create_topics: settings.auto_create_topics,
        auto_create_groups: settings.auto_create_groups,
        default_topic_queues: settings.template_queues,
        max_message_bytes: ByteSize(u64::try_from(settings.message_bytes_max).unwrap_or(u64::MAX)),
        ack_timeout: Period(settings.ack_timeout),
        message_delay_level: settings.delay_levels.clone(),
        transaction_timeout: Period(settings.transaction_timeout),
        transaction_check_interval: Period(settings.transaction_check_interval),
        transaction_check_max: settings.transaction_check_max,
        repeat_window: Period(settings.repeat_window),
        repeat_memory: ByteSize(u64::try_from(settings.repeat_memory).unwrap_or(u64::MAX)),
        ..BrokerArgs::defaults()
    }
}
