//! Whether the process works, and whether it would take a send now.

use std::time::Duration;

use crate::limits;
use crate::shared::Shared;
use crate::standing::Standing;

/// What is answered, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judgement {
    /// Whether it is so.
    pub holds: bool,
    /// In words: `ok` and what the broker is, or what is in the way.
    pub text: String,
}

impl Judgement {
    pub(super) fn holds(text: impl Into<String>) -> Judgement {
        Judgement { holds: true, text: format!("ok: {}", text.into()) }
    }

    pub(super) fn fails(text: impl Into<String>) -> Judgement {
        Judgement { holds: false, text: text.into() }
    }
}

/// Whether it works. `now`: by the network threads' clock.
pub(super) fn health(shared: &Shared, now: Duration) -> Judgement {
    if let Some(fenced) = shared.engine.fenced() {
        return Judgement::fails(fenced.to_string());
    }
    let silent = shared.pulses.silent(now);
    if silent > limits::STALLED {
        return Judgement::fails(format!("a network thread has not moved for {} s", silent.as_secs()));
    }
    Judgement::holds(shared.standing.to_string())
}

/// Whether a send would be taken now; of a slave, whether it would show what comes next.
pub(super) fn readiness(shared: &Shared, now: Duration) -> Judgement {
    if shared.is_closing() {
        return Judgement::fails("the broker is stopping");
    }
    let health = health(shared, now);
    if !health.holds {
        return health;
    }
    match &shared.standing {
        Standing::Slave { leader } => slave(shared, leader.is_connected()),
        _ => takes_sends(shared).map_or_else(Judgement::fails, |()| Judgement::holds(shared.standing.to_string())),
    }
}

fn slave(shared: &Shared, is_connected: bool) -> Judgement {
    if !is_connected {
        return Judgement::fails("this slave is not connected to a leader: what it shows grows old");
    }
    if !shared.engine.is_whole() {
        return Judgement::fails("this slave began anew, and has not come to where its leader's log ended then");
    }
    Judgement::holds("slave: it serves reads, and takes no sends")
}

/// Why a send would be refused now, if it would.
pub(super) fn takes_sends(shared: &Shared) -> Result<(), String> {
    shared.admission()?;
    let space = shared.engine.space();
    match space.full {
        Some(why) if space.refuses || space.ordinary_bytes < limits::READY_BYTES_MIN => {
            Err(format!("the log cannot grow, and {} bytes of it are left for sends: {why}", space.ordinary_bytes))
        }
        _ => Ok(()),
    }
}
