//! The thread of a node that follows: looks for whoever leads, and drives a link to it, again and again.

use std::sync::mpsc::RecvTimeoutError;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use anchorlog_engine::{Engine, Lsn, Watermark};

use super::leadership::Claim;
use super::limits;
use super::owner::Event;
use super::shared::{Command, Halt, Shared, leading_term, may_follow};
use crate::follower_link::{FollowerConfig, FollowerLink};
use crate::link::{End, Link};
use crate::member::Member;
use crate::message::Message;
use crate::seed_link::{Replaces, SeedConfig, SeedLink};
use crate::transport::channel::Channel;
use crate::transport::drive::{DriveError, drive};

/// What the directory is at.
pub(super) enum Errand {
    /// It has a log, which is open.
    Follow(Arc<Engine>),
    /// It has none, or one that is to be given up.
    Seed { replaces: Replaces },
}

/// Why the thread is through.
pub(super) enum Followed {
    /// The log must be closed and cut.
    Cut(Lsn),
    /// The log must be closed and given up.
    Bootstrap { why: String, keeps: bool },
    /// The directory may be opened.
    Seeded,
    /// The log is fenced: it must be opened again.
    Fenced,
    /// It was told to end.
    Halted,
}

/// The thread, from outside. It tells [`Command::Followed`] when it ends by itself.
pub(super) struct Following {
    halt: Arc<Halt>,
    thread: Option<JoinHandle<()>>,
}

impl Following {
    pub(super) fn start(shared: &Arc<Shared>, errand: Errand) -> std::io::Result<Following> {
        let halt = Arc::new(Halt::new()?);
        let thread = {
            let (shared, halt) = (Arc::clone(shared), Arc::clone(&halt));
            let run = move || {
                let followed = Run { shared: &shared, halt: &halt }.run(&errand);
                // What it holds of the log goes before it says that it is through.
                drop(errand);
                shared.tell(Command::Followed(followed));
            };
            std::thread::Builder::new().name("replica-follow".to_owned()).spawn(run)?
        };
        Ok(Following { halt, thread: Some(thread) })
    }

    /// Ends it, and waits.
    pub(super) fn stop(mut self, shared: &Shared) {
        self.halt.set();
        if let Some(upstream) = &shared.state().upstream {
            upstream.hang_up();
        }
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the following thread does not panic");
        }
    }
}

/// Why a leader is not followed, for people.
struct Words<'a>(&'a End);

impl std::fmt::Display for Words<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            End::Refused(refusal) => f.write_str(&refusal.text),
            End::Stale { term } => write!(f, "the leader's term {term} is too low"),
            other => write!(f, "{other:?}"),
        }
    }
}

struct Run<'a> {
    shared: &'a Shared,
    halt: &'a Halt,
}

impl Run<'_> {
    fn run(&self, errand: &Errand) -> Followed {
        let mut refused = None;
        while !self.halt.is_set() {
            let mut pause = limits::SEEK_PAUSE;
            if let Errand::Follow(engine) = errand
                && engine.fenced().is_some()
            {
                return Followed::Fenced;
            }
            let end = match self.find_leader() {
                None => None,
                Some((leader, claim)) => self.connect(&leader, &claim, errand),
            };
            match end {
                Some(Ok(End::Cut { at })) => return Followed::Cut(at),
                Some(Ok(End::Bootstrap { why, keeps })) => return Followed::Bootstrap { why, keeps },
                Some(Ok(End::Done)) => return Followed::Seeded,
                Some(Ok(end @ (End::Stale { .. } | End::Refused(_)))) => {
                    // It may be so for long: said once, and tried again without hurry.
                    pause = limits::RETRY_PAUSE;
                    if refused.as_ref() != Some(&end) {
                        self.shared.failed("following", &Words(&end));
                        refused = Some(end);
                    }
                }
                Some(Err(error)) => tracing::warn!(%error, "the connection to the leader ended"),
                None => {}
            }
            self.halt.wait(pause);
        }
        Followed::Halted
    }

    /// The first that says it leads, in a term that is not too low; what is claimed then is durable.
    fn find_leader(&self) -> Option<(Member, Claim)> {
        let heard = self.shared.ask(self.shared.peers(), &Message::AskState, limits::STATE_TIME_MAX);
        loop {
            let (peer, state) = match heard.recv_timeout(limits::LOOK_PAUSE) {
                Ok(heard) => match heard.state() {
                    Some(known) => known,
                    None => continue,
                },
                Err(RecvTimeoutError::Timeout) if !self.halt.is_set() => continue,
                Err(_) => return None,
            };
            let Some(term) = leading_term(&state) else { continue };
            let current = self.shared.leadership.current();
            if !may_follow(current.as_ref(), &peer.id, term) {
                tracing::warn!(leader = %peer.id, term, ?current, "this leader is not followed: more was promised");
                continue;
            }
            let claim = Claim { term, leader: Some(peer.id.clone()) };
            match self.shared.promise(&claim) {
                Ok(_) => return Some((peer, claim)),
                Err(error) => self.shared.failed("keeping whom to follow", &error),
            }
        }
    }

    /// Drives a link to `leader` until it is over. `None`: it never began.
    fn connect(&self, leader: &Member, claim: &Claim, errand: &Errand) -> Option<Result<End, DriveError>> {
        let Shared { config, clock, backend, .. } = self.shared;
        let channel = match Channel::connect(&leader.address, &config.security, &**clock) {
            Ok(channel) => channel,
            Err(error) => return Some(Err(error.into())),
        };
        let hangup = match channel.hangup() {
            Ok(hangup) => hangup,
            Err(error) => return Some(Err(error.into())),
        };
        {
            let mut state = self.shared.state();
            // Promised away since, or told to end: who did that found no connection to end.
            if self.halt.is_set() || self.shared.leadership.current().as_ref() != Some(claim) {
                return None;
            }
            state.upstream = Some(hangup);
        }
        self.shared.event(&Event::Follows { leader: leader.id.clone(), term: claim.term });
        let now = clock.monotonic();
        let end = match errand {
            Errand::Follow(engine) => {
                let link =
                    FollowerLink::new(Arc::clone(engine), FollowerConfig::new(config.id.clone(), claim.term), now);
                match engine.subscribe(Watermark::Durable) {
                    Ok(durable) => self.drive(channel, link, &[durable]),
                    Err(error) => {
                        self.shared.failed("watching the disk", &error);
                        Ok(End::Stale { term: claim.term })
                    }
                }
            }
            Errand::Seed { replaces } => {
                let seed = SeedConfig {
                    id: config.id.clone(),
                    promised_term: claim.term,
                    backend: Arc::clone(backend),
                    dir: config.dir.clone(),
                    options: config.engine.clone(),
                    replaces: *replaces,
                };
                self.drive(channel, SeedLink::new(seed, now), &[])
            }
        };
        self.shared.change(|state| state.upstream = None);
        self.shared.event(&Event::Lost { leader: leader.id.clone() });
        Some(end)
    }

    fn drive<L: Link>(
        &self,
        channel: Channel,
        link: L,
        subscriptions: &[anchorlog_engine::Subscription],
    ) -> Result<End, DriveError> {
        drive(channel, &Mutex::new(link), &[], subscriptions, &*self.shared.clock)
    }
}
