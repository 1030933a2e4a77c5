//! The end of a run: the troubles are over, and everything is looked at.

use std::sync::Arc;
use std::time::Duration;

use anchorlog_engine::io::sim::Survival;
use anchorlog_engine::{Clock, Engine, Fetch, Lsn};

use crate::model::{Outcome, demand};
use crate::network::NODES;
use crate::world::{KEPT_NAMES, QUEUE, World};

/// A replica that was just seeded knows what survives once it has looked at that, which it does after it shows what is acknowledged.
const SURVIVORS_KNOWN_WITHIN: Duration = Duration::from_millis(500);

/// What a name keeps: which message, and where it is.
type Kept = Option<(Vec<u8>, Option<Lsn>)>;

impl World {
    /// The troubles are over: everybody follows one leader, appends are acknowledged, and all logs are the same; then the power fails
    /// everywhere, as strictly as it can, and what was promised is there.
    pub(crate) fn settle(&mut self) -> Outcome {
        self.note("the troubles are over".to_owned());
        self.heal();
        self.is_over = true;
        for connection in &mut self.connections {
            connection.to_follower.hasten();
            connection.to_leader.hasten();
        }
        if self.plan.changes_members {
            // Whoever leads from now on does it with all of them.
            self.has_all = true;
            for node in 0..NODES {
                if self.nodes[node].leader().is_some() {
                    self.kill(node);
                }
            }
        }
        self.agree("at the end")?;
        self.same_bytes()?;
        for node in 0..NODES {
            self.tally.crashes += 1;
            self.lose_power(node, Survival::Nothing);
        }
        self.agree("after a power failure of all")?;
        self.same_bytes()?;
        self.readers()?;
        let settled = self.now() + SURVIVORS_KNOWN_WITHIN;
        while self.now() < settled {
            self.step()?;
        }
        self.kept()
    }

    pub(crate) fn heal(&mut self) {
        self.blocks.clear();
        for node in &mut self.nodes {
            node.paused = Duration::ZERO;
            node.disk.heal();
            node.disk.set_capacity(None);
        }
    }

    /// Runs until one leader has everybody in sync and acknowledges.
    fn agree(&mut self, when: &str) -> Outcome {
        for step in 0..8000_usize {
            self.step()?;
            let leads = (0..NODES)
                .filter(|node| self.nodes[*node].leader().is_some_and(|leader| leader.superseded().is_none()));
            let leads: Vec<usize> = leads.collect();
            if leads.len() != 1 && step % 400 == 399 {
                let candidate = self.draws.ends.below(NODES);
                // Somebody insists, where what is missing does not come back.
                let insists = (self.plan.may_be_alone() || !self.plan.is_sync()) && step > 2000;
                if !insists && self.may_lead_again(candidate) && self.nodes[candidate].leader().is_none() {
                    self.kill(candidate);
                    self.lead_again(candidate)?;
                } else {
                    self.promote(candidate, insists)?;
                }
            }
            if let [leader] = leads[..]
                && step % 400 == 399
            {
                self.complete_members(leader)?;
            }
            if step % 50 == 0 {
                for node in &leads {
                    self.append(*node, 100)?;
                }
            }
            let [leader] = leads[..] else { continue };
            let status = self.nodes[leader].leader().map(|leader| leader.status(self.clock.monotonic()));
            let all_in_sync = status.is_some_and(|status| status.peers.iter().all(|peer| peer.in_sync));
            let ends: Vec<Option<Lsn>> =
                self.nodes.iter().map(|node| node.engine().map(|engine| engine.watermarks().acked)).collect();
            let end = self.nodes[leader].engine().map(|engine| engine.watermarks().assigned);
            let epoch = self.nodes[leader].leader().map(|leader| leader.epoch());
            let mine = self.model.open.iter().any(|placed| Some(placed.epoch) == epoch);
            if all_in_sync && step > 100 && !mine && ends.iter().all(|acked| *acked == end) {
                return Ok(());
            }
        }
        let lives: Vec<String> = self
            .nodes
            .iter()
            .map(|node| {
                let marks = node.engine().map(|engine| (engine.watermarks(), engine.fenced().is_some()));
                let status = node.leader().map(|leader| leader.status(self.clock.monotonic()));
                format!("{marks:?} {status:?}")
            })
            .collect();
        Err(format!("{when} they do not come together: {}", lives.join("\n")))
    }

    fn same_bytes(&mut self) -> Outcome {
        let starts = self.nodes.iter().filter_map(|node| node.engine()).map(|engine| engine.watermarks().start);
        let start = starts.max().unwrap_or_default();
        let logs: Vec<Vec<u8>> = self.nodes.iter().map(|node| bytes_from(node.engine(), start)).collect();
        for node in 1..NODES {
            let differs = logs[0].iter().zip(&logs[node]).position(|(one, other)| one != other);
            demand!(differs.is_none(), "the logs of nodes 0 and {node} differ at {differs:?} behind {start}");
            demand!(logs[0].len() == logs[node].len(), "{} and {} bytes of log", logs[0].len(), logs[node].len());
        }
        Ok(())
    }

    /// Every node's queue holds what was promised and not released, in the log's order, once.
    fn readers(&mut self) -> Outcome {
        let starts = self.nodes.iter().filter_map(|node| node.engine()).map(|engine| engine.watermarks().start);
        self.model.released(starts.max().unwrap_or_default());
        let expected: Vec<u64> = self.model.promised.values().map(|placed| placed.number).collect();
        let first = self.model.promised.keys().next().copied().unwrap_or(Lsn::MAX);
        for (node, state) in self.nodes.iter().enumerate() {
            let engine = state.engine().ok_or("a node is down")?;
            let queue = engine.queue(QUEUE).map_err(|error| error.to_string())?;
            let (mut found, mut next) = (Vec::new(), engine.range(&queue).min);
            loop {
                let fetch = Fetch { messages_max: 500, ..Fetch::new(&queue, next) };
                let outcome = engine.fetch(&fetch).map_err(|error| error.to_string())?;
                if outcome.messages.is_empty() {
                    break;
                }
                let text = |payload: &[u8]| {
                    String::from_utf8_lossy(payload).split(' ').next().and_then(|word| word.parse().ok())
                };
                found.extend(
                    outcome
                        .messages
                        .iter()
                        .filter_map(|message| text(message.payload()).map(|number: u64| (message.lsn, number))),
                );
                next = outcome.next;
            }
            let ordered = found.windows(2).all(|pair| pair[0].0 < pair[1].0);
            demand!(ordered, "node {node} shows messages in another order than the log's");
            found.retain(|(lsn, _)| *lsn >= first);
            let shown: Vec<u64> = found.iter().map(|(_, number)| *number).collect();
            demand!(shown == expected, "node {node} shows {} messages, promised are {}", shown.len(), expected.len());
        }
        Ok(())
    }

    /// What is kept by a name is the same on every node, and can be read there, also where the log does not go back so far any more.
    fn kept(&mut self) -> Outcome {
        let mut first: Option<Vec<Kept>> = None;
        for (node, state) in self.nodes.iter().enumerate() {
            let engine = state.engine().ok_or("a node is down")?;
            self.tally.survivors += engine.seed().map_err(|error| error.to_string())?.sparse.len() as u64;
            let mut found = Vec::new();
            for name in 0..KEPT_NAMES {
                let key = [b"keep/".as_slice(), &[b'a' + u8::try_from(name).unwrap()]].concat();
                let entry = engine.get(&key).map_err(|error| error.to_string())?;
                let entry = entry.map(|entry| (entry.value.to_vec(), entry.target));
                if let Some((number, Some(target))) = &entry {
                    let message =
                        engine.read(*target).map_err(|error| format!("node {node} keeps {target}: {error}"))?;
                    let is_it = message.payload().starts_with(&[number, b" ".as_slice()].concat());
                    demand!(is_it, "node {node} keeps another message at {target}");
                }
                found.push(entry);
            }
            let first = first.get_or_insert_with(|| found.clone());
            demand!(*first == found, "node {node} keeps {found:?}, node 0 {first:?}");
        }
        Ok(())
    }
}

fn bytes_from(engine: Option<&Arc<Engine>>, from: Lsn) -> Vec<u8> {
    let mut out = Vec::new();
    let Some(engine) = engine else { return out };
    while let Ok(pieces) = engine.log_bytes(from.plus(out.len() as u64), 1 << 20) {
        if pieces.is_empty() {
            break;
        }
        pieces.iter().for_each(|piece| out.extend_from_slice(piece.as_ref()));
    }
    out
}
