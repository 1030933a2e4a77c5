//! Whether a request is let in.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::account::Account;
use super::needs::{Act, Needs, Thing, needs};
use super::signature::{ACCESS_KEY, SIGNATURE};
use crate::features::{Reply, Request, code};
use crate::lock::lock;
use crate::shared::Shared;
use crate::wire::codes::request as ask;

/// Most characters of a stranger's words that are shown.
const SHOWN_CHARS: usize = 64;

/// Access control, and what it has to complain of.
#[derive(Debug, Default)]
pub struct Access {
    on: AtomicBool,
    complaints: Mutex<Complaints>,
}

#[derive(Debug, Default)]
struct Complaints {
    last: Option<Duration>,
    suppressed: u64,
}

impl Access {
    /// Switched on or off.
    #[must_use]
    pub fn new(on: bool) -> Access {
        Access { on: AtomicBool::new(on), ..Access::default() }
    }

    /// Whether requests are judged at all.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.on.load(Ordering::Relaxed)
    }

    /// Switches it on or off, from the next request on.
    pub fn switch(&self, on: bool) {
        self.on.store(on, Ordering::Relaxed);
    }

    /// Says what was denied, at most once a second: nobody must be able to fill a disk with our log.
    fn complain(&self, now: Duration, request: &Request<'_>, denial: &Denial) {
        let mut complaints = lock(&self.complaints);
        if complaints.last.is_some_and(|last| now < last + Duration::from_secs(1)) {
            complaints.suppressed += 1;
            return;
        }
        let suppressed = std::mem::take(&mut complaints.suppressed);
        complaints.last = Some(now);
        tracing::warn!(
            peer = %request.peer, account = denial.account, code = request.header.code, rule = denial.rule, suppressed,
            "denied a request: {}", denial.what
        );
    }
}

/// Why a request is not let in.
#[derive(Debug)]
struct Denial {
    /// Whom it names, shortened.
    account: String,
    /// The rule.
    rule: String,
    /// What may not be done, in words.
    what: String,
    /// What only the log says.
    is_stranger: bool,
}

impl fmt::Display for Denial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_stranger {
            // Whether the name or the signature is wrong is nobody's business but the operator's.
            return write!(
                f,
                "denied by rule {}: the request is not signed by an account that is known here",
                self.rule
            );
        }
        write!(f, "denied by rule {} of account {}: {}", self.rule, self.account, self.what)
    }
}

/// What whoever asked may do.
#[derive(Clone, Debug, Default)]
pub struct Pass {
    /// The rules that hold; without any, everything is allowed.
    account: Option<(Box<str>, Arc<Account>)>,
}

impl Pass {
    /// Whether messages of a topic may be shown to whoever asked. Those of none, like half messages, are for admins.
    ///
    /// # Errors
    /// The answer, when they may not.
    pub fn may_read(&self, shared: &Shared, topic: Option<&str>) -> Result<(), Reply> {
        let Some((name, account)) = &self.account else { return Ok(()) };
        let judged = match topic {
            Some(topic) => account.may(Act::Subscribe, &Thing::Topic(topic)),
            None if account.admin => Ok(()),
            None => Err("admin=false".to_owned()),
        };
        judged.map_err(|rule| {
            shared.counters.requests_denied.add(1);
            let what = format!("it may not consume {}", topic.map_or("what is in no topic", |topic| topic));
            let denial = Denial { account: shown(name), rule, what, is_stranger: false };
            Reply::failure(code::NO_PERMISSION, denial.to_string())
        })
    }
}

/// Lets a request in, with what whoever asked may do, or says no.
///
/// # Errors
/// The answer, when it is denied.
pub fn judge(shared: &Shared, request: &Request<'_>) -> Result<Pass, Reply> {
    if !shared.access.is_on() {
        return Ok(Pass::default());
    }
    admit(shared, request).map_err(|denial| {
        shared.counters.requests_denied.add(1);
        shared.access.complain(shared.engine.clock().monotonic(), request, &denial);
        let reply = Reply::failure(code::NO_PERMISSION, denial.to_string());
        match request.header.code {
            ask::SEND_MESSAGE | ask::SEND_MESSAGE_V2 | ask::SEND_BATCH_MESSAGE => {
                shared.counters.sends_refused.add(1);
                // Clients of some families read these two on failures also.
                reply.with("MSG_REGION", "DefaultRegion").with("TRACE_ON", true)
            }
            _ => reply,
        }
    })
}

fn shown(text: &str) -> String {
    text.chars().take(SHOWN_CHARS).map(|c| if c.is_control() { '?' } else { c }).collect()
}

fn admit(shared: &Shared, request: &Request<'_>) -> Result<Pass, Denial> {
    let accounts = &shared.state.accounts;
    if accounts.trust(request.peer.ip()) {
        return Ok(Pass::default());
    }
    let name = request.field(ACCESS_KEY).unwrap_or_default();
    let stranger = |rule: &str, what: &str| Denial {
        account: shown(name),
        rule: rule.to_owned(),
        what: what.to_owned(),
        is_stranger: true,
    };
    if name.is_empty() {
        return Err(stranger("AccessKey", "it names no account"));
    }
    let account = accounts.get(name).ok_or_else(|| stranger("Signature", "there is no such account"))?;
    if account.is_trusted_at(request.peer.ip()) {
        return Ok(Pass::default());
    }
    let signature = request.field(SIGNATURE).unwrap_or_default();
    if !account.secret.signs(request.header.fields().collect::<Vec<_>>().into_iter(), request.body, signature) {
        return Err(stranger("Signature", "the signature is not that of the account's secret key"));
    }
    let denied = |rule: String, what: String| Denial { account: shown(name), rule, what, is_stranger: false };
    match needs(request, &shared.settings.cluster) {
        Needs::Account => {}
        Needs::Admin if account.admin => return Ok(Pass::default()),
        Needs::Admin => {
            let what = format!("request code {} is for admins", request.header.code);
            return Err(denied("admin=false".to_owned(), what));
        }
        Needs::All(needs) => {
            for need in &needs {
                account.may(need.act, &need.thing()).map_err(|rule| {
                    let (kind, name) = match need.thing() {
                        Thing::Topic(name) => ("topic", name),
                        Thing::Group(name) => ("group", name),
                    };
                    let act = match need.act {
                        Act::Publish => "send to",
                        Act::Subscribe => "consume",
                        Act::Either => "use",
                    };
                    denied(rule, format!("it may not {act} {kind} {}", shown(name)))
                })?;
            }
        }
    }
    Ok(Pass { account: Some((name.into(), account)) })
}
