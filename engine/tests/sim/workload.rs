//! What happens: one function for each kind of action, and how often it comes.

use std::time::Duration;

use anchorlog_engine::io::sim::{Survival, Times};
use anchorlog_engine::{
    AppendError, AppendOutcome, Fetch, FetchStatus, KeyOrder, KeyQuery, Lsn, QueueOffset, ReadError, Ticket,
    WriteBatch, limits,
};

use super::batches::{self, Unbuilt};
use super::checkers;
use super::damage;
use super::model::{Msg, Op, Outcome, Spec, Verdict, demand};
use super::plan::pick;
use super::world::{CLASSES, EIO, End, HeldSnapshot, World};

type Action = fn(&mut World) -> Outcome;

/// Every action with its weight. What a run's troubles exclude does nothing.
const ACTIONS: [(usize, Action); 37] = [
    (400, append_one),
    (60, append_several),
    (25, append_together),
    (300, run_machines),
    (60, pass_time),
    (15, stay_idle),
    (10, jump_clock),
    (60, fetch),
    (30, fetch_by_tag),
    (40, read_one),
    (10, read_nothing),
    (20, watch),
    (20, find),
    (40, consume),
    (20, search_by_time),
    (30, get),
    (15, hold_snapshot),
    (15, compare_snapshot),
    (20, flush),
    (20, release),
    (10, set_pin),
    (8, lift_pin),
    (10, append_refused),
    (60, send_again),
    (5, compare_everything),
    (6, close),
    (6, kill),
    (6, crash),
    (10, crash_soon),
    (10, fail_soon),
    (8, heal),
    (8, take_room),
    (8, make_room),
    (10, stall),
    (6, damage::flip_while_running),
    (5, damage::flip_while_closed),
    (5, damage::spoil_the_store),
];

/// Does one action of the run.
pub(crate) fn act(world: &mut World) -> Outcome {
    let total = ACTIONS.iter().map(|(weight, _)| weight).sum();
    let mut at = world.draws.actions.below(total);
    for (weight, action) in ACTIONS {
        if at < weight {
            action(world)?;
            break;
        }
        at -= weight;
    }
    world.look()?;
    // What is broken for good is looked at for a while, and then started again.
    if !world.is_well() && world.draws.ends.chance(2) {
        let end = if world.disk.is_dead() { End::Crash(Survival::Seeded) } else { any_end(world) };
        world.restart(end)?;
    }
    Ok(())
}

fn any_end(world: &mut World) -> End {
    pick(&mut world.draws.ends, &[End::Kill, End::Kill, End::Close, End::Crash(Survival::Seeded)])
}

// ---- appending

fn append_one(world: &mut World) -> Outcome {
    let spec = batches::random(world);
    send(world, spec).map(drop)
}

fn append_several(world: &mut World) -> Outcome {
    for _ in 0..2 + world.draws.batches.below(6) {
        let spec = batches::random(world);
        if !send(world, spec)? {
            break;
        }
    }
    Ok(())
}

/// A producer that got no answer sends the same again: the oldest of what was lost, in its old order.
fn send_again(world: &mut World) -> Outcome {
    for _ in 0..world.lost.len().min(1 + world.draws.batches.below(3)) {
        let spec = world.lost.remove(0);
        // What it refers to may be gone as well.
        let known = |lsn: &Lsn| world.model.visible.by_lsn.contains_key(lsn);
        let refers = spec.ops.iter().all(|op| match op {
            Op::Link { target: super::model::Aim::Stored(lsn), .. } => known(lsn),
            Op::Put { target: Some(super::model::Aim::Stored(lsn)), .. } => known(lsn),
            _ => true,
        });
        if refers && !send(world, spec)? {
            break;
        }
    }
    Ok(())
}

/// Several batches under one lock: those up to the first that is refused are taken.
fn append_together(world: &mut World) -> Outcome {
    let (mut specs, mut built) = (Vec::new(), Vec::new());
    for _ in 0..2 + world.draws.batches.below(4) {
        let spec = batches::random(world);
        let Some(batch) = build(world, &spec)? else { break };
        // The handles behind a drop would be of the incarnation before it.
        let drops = spec.ops.iter().any(|op| matches!(op, Op::Drop { .. }));
        specs.push(spec);
        built.push(batch);
        if drops {
            break;
        }
    }
    if built.is_empty() {
        return Ok(());
    }
    let sizes: Vec<u64> = built.iter().map(WriteBatch::frame_bytes).collect();
    let mut situation = Situation::of(world, 0);
    let mut outcomes = Vec::new();
    let answer = world.engine().append_all(&mut built, &mut outcomes);
    let count = outcomes.len();
    for ((spec, len), outcome) in specs.drain(..count).zip(&sizes).zip(&outcomes) {
        situation.len = *len;
        taken(world, &situation, spec, outcome)?;
        situation.assigned = outcome.end_lsn;
    }
    let end = world.engine().watermarks().assigned;
    demand!(end == situation.assigned, "the log ends at {end}, its last batch at {}", situation.assigned);
    match (answer, specs.first()) {
        (Ok(told), None) => demand!(told == count, "{count} batches were taken, told were {told}"),
        (Ok(told), Some(spec)) => {
            demand!(told == count, "{count} batches were taken, told were {told}");
            situation.len = sizes[count];
            let next_segment = count > 0 && situation.ends_what_is_ready(world, spec);
            let is_put_off = next_segment || !situation.fits(world) || situation.is_long(world, spec);
            demand!(is_put_off, "{} of {} batches taken, and there is room", count, sizes.len());
        }
        (Err(error), Some(spec)) => {
            situation.len = sizes[count];
            refused(world, &situation, spec, &error)?;
        }
        (Err(error), None) => return Err(format!("all were taken, and yet: {error}")),
    }
    Ok(())
}

/// Sends a batch; true when it was taken. The answer is the one that the model gives.
pub(crate) fn send(world: &mut World, spec: Spec) -> Outcome<bool> {
    let Some(mut batch) = build(world, &spec)? else { return Ok(false) };
    let situation = Situation::of(world, batch.frame_bytes());
    let answer = world.engine().try_append(&mut batch);
    let end = world.engine().watermarks().assigned;
    match answer {
        Ok(ticket) => {
            let outcome = ticket.outcome().clone();
            demand!(outcome.end_lsn == end, "{outcome:?} ends elsewhere than the log: {end}");
            taken(world, &situation, spec, &outcome)?;
            if world.tickets.len() < 16 {
                world.tickets.push(ticket);
            }
            Ok(true)
        }
        Err(error) => {
            demand!(end == situation.assigned, "a refused batch moved the log's end: {error}");
            refused(world, &situation, &spec, &error)?;
            Ok(false)
        }
    }
}

/// What decides whether a batch is taken, beside its preconditions.
struct Situation {
    fenced: bool,
    assigned: Lsn,
    written: Lsn,
    len: u64,
}

impl Situation {
    fn of(world: &World, len: u64) -> Situation {
        let marks = world.engine().watermarks();
        let fenced = world.engine().fenced().is_some();
        Situation { fenced, assigned: marks.assigned, written: marks.written, len }
    }

    fn fits(&self, world: &World) -> bool {
        let waiting = self.assigned.since(self.written);
        waiting == 0 || waiting + self.len <= world.plan.buffer_bytes
    }

    /// What it may take in the log: with what comes before a frame in a new segment, and behind it in a block.
    fn most(&self) -> u64 {
        2 * self.len + limits::EPOCH_FRAME_BYTES_MAX + 2 * limits::SEGMENT_HEADER_BYTES
    }

    /// Whether a segment may have to be made for it.
    fn ends_what_is_ready(&self, world: &World, spec: &Spec) -> bool {
        room_for(world, spec) < self.most()
    }

    /// Whether it may have to wait for a release.
    fn is_long(&self, world: &World, spec: &Spec) -> bool {
        let end = self.assigned.plus(self.most());
        let max = checkers::length_max(world).map(|most| world.start.plus(most));
        !batches::is_essential(spec) && max.is_some_and(|max| end > max)
    }
}

/// What stands ready for a batch of this kind.
fn room_for(world: &World, spec: &Spec) -> u64 {
    let space = world.engine().space();
    if batches::is_essential(spec) { space.essential_bytes } else { space.ordinary_bytes }
}

/// Builds a batch, unless what it refers to may be gone.
fn build(world: &mut World, spec: &Spec) -> Outcome<Option<WriteBatch>> {
    match batches::build(world, spec) {
        Ok(batch) => Ok(Some(batch)),
        Err(Unbuilt::Target(error)) => {
            let allowed = batches::may_be_gone(world, spec, &error)?;
            demand!(allowed, "a message in sight cannot be referred to: {error}");
            Ok(None)
        }
        Err(Unbuilt::Wrong(what)) => Err(what),
    }
}

fn taken(world: &mut World, situation: &Situation, spec: Spec, outcome: &AppendOutcome) -> Outcome {
    demand!(!situation.fenced, "a fenced log takes a batch");
    demand!(situation.fits(world), "{} bytes are taken and there is no room", situation.len);
    let start = world.engine().watermarks().start;
    if let Some(most) =
        checkers::length_max(world).filter(|_| checkers::is_bounded(world) && !batches::is_essential(&spec))
    {
        let length = outcome.end_lsn.since(start);
        demand!(length <= most, "the log is {length} bytes long, and {most} are to be the most");
    }
    let verdict = world.model.judge(&spec);
    demand!(verdict == Verdict::Taken, "taken, and should be {verdict:?}");
    demand!(outcome.store_time_ms <= world.wall_max, "store time {} lies ahead", outcome.store_time_ms);
    let drops: Vec<usize> =
        spec.ops.iter().filter_map(|op| if let Op::Drop { queue } = op { Some(*queue) } else { None }).collect();
    world.model.accept(spec, outcome)?;
    for queue in drops {
        world.pin_for_consumer(queue)?;
    }
    world.tally.batches += 1;
    world.history.note(format!("taken: {} to {}", outcome.lsn, outcome.end_lsn));
    Ok(())
}

fn refused(world: &mut World, situation: &Situation, spec: &Spec, error: &AppendError) -> Outcome {
    match error {
        // The segment that the batch needed may have been what failed.
        AppendError::Fenced(_) => {
            let fenced = situation.fenced || world.engine().fenced().is_some();
            demand!(fenced, "refused as fenced, and it is not");
        }
        AppendError::Full { .. } => {
            demand!(!situation.fits(world), "{} bytes are refused and there is room", situation.len);
            world.tally.refused_full += 1;
        }
        AppendError::Unreleased { assigned, bound } => {
            demand!(!batches::is_essential(spec), "an essential batch waits for a release: {error}");
            let told = *assigned == situation.assigned && situation.is_long(world, spec);
            demand!(told && *bound < assigned.plus(situation.most()), "{error}; it begins at {}", world.start);
            world.tally.refused_long += 1;
        }
        AppendError::OutOfSpace { needed, left, .. } => {
            demand!(world.had_no_room, "there never was too little room: {error}");
            demand!(world.engine().space().full.is_some(), "nothing stands in the way any more: {error}");
            let told = *needed >= situation.len && needed > left && *left == room_for(world, spec);
            demand!(told, "{} bytes, {} are ready, and yet: {error}", situation.len, room_for(world, spec));
            world.tally.refused_space += 1;
        }
        AppendError::Rejected(rejection) => {
            let verdict = world.model.judge(spec);
            demand!(verdict == Verdict::Rejected(rejection.index), "{rejection}, and should be {verdict:?}");
            demand!(rejection.rests_on <= situation.assigned, "{rejection}: there is no such LSN yet");
            world.tally.rejected += 1;
        }
        AppendError::TargetGone(lsn) => {
            let origin = world.model.head.by_lsn.get(lsn).map_or(*lsn, |message| message.origin);
            let asked = world.released.max(checkers::asked_by_rules(world, situation.assigned)).max(world.leaving);
            demand!(origin.min(*lsn) < asked, "nobody asked for what is at {lsn} or where it leads to go");
        }
        AppendError::Unjudged(why) => demand!(checkers::is_planned(world, why), "refused: {error}"),
        error => return Err(format!("refused: {error}")),
    }
    Ok(())
}

/// Whether a batch has to wait for room before it is looked at further.
fn is_put_off(world: &World, answer: &Result<Ticket, AppendError>) -> bool {
    match answer {
        Err(AppendError::Full { .. } | AppendError::Unreleased { .. }) => true,
        Err(AppendError::OutOfSpace { .. }) => world.had_no_room,
        _ => false,
    }
}

/// What can never be taken is refused, and says why.
fn append_refused(world: &mut World) -> Outcome {
    if !world.is_well() {
        return Ok(());
    }
    let end = world.engine().watermarks().assigned;
    match world.draws.batches.below(4) {
        0 => {
            let handle = world.handle(0)?;
            let mut batch = WriteBatch::new();
            let content = batches::content(world, 10);
            batch.drop_queue(&handle).map_err(|error| error.to_string())?;
            batches::push_append(&mut batch, &handle, content).map_err(|error| error.to_string())?;
            let answer = world.engine().try_append(&mut batch);
            let refused = matches!(answer, Err(AppendError::Dropped)) || is_put_off(world, &answer);
            demand!(refused, "a queue takes a message behind its drop: {answer:?}");
        }
        1 => {
            let answer = world.engine().try_append(&mut WriteBatch::new());
            demand!(matches!(answer, Err(AppendError::Empty)), "an empty batch: {answer:?}");
        }
        2 => {
            let handle = world.handle(0)?;
            let mut batch = WriteBatch::new();
            let len = usize::try_from(world.plan.segment_bytes).map_err(|error| error.to_string())?;
            let content = batches::content(world, len);
            batches::push_append(&mut batch, &handle, content).map_err(|error| error.to_string())?;
            let answer = world.engine().try_append(&mut batch);
            demand!(matches!(answer, Err(AppendError::TooLarge(_))), "a batch of a segment's size: {answer:?}");
        }
        _ => {
            let current = |queue: usize| world.model.head.queues[queue].incarnation;
            let stale = world.handles.iter().find(|((queue, incarnation), _)| *incarnation < current(*queue));
            let Some(stale) = stale.map(|(_, handle)| handle.clone()) else { return Ok(()) };
            let mut batch = WriteBatch::new();
            let content = batches::content(world, 10);
            batches::push_append(&mut batch, &stale, content).map_err(|error| error.to_string())?;
            let answer = world.engine().try_append(&mut batch);
            let refused = matches!(answer, Err(AppendError::Dropped)) || is_put_off(world, &answer);
            demand!(refused, "a dropped queue takes a message: {answer:?}");
        }
    }
    demand!(world.engine().watermarks().assigned == end, "a refused batch moved the log's end");
    Ok(())
}

// ---- machines and time

fn run_machines(world: &mut World) -> Outcome {
    for _ in 0..=world.draws.actions.below(6) {
        world.step()?;
    }
    Ok(())
}

fn pass_time(world: &mut World) -> Outcome {
    let by = Duration::from_micros(world.draws.time.below(15_000) as u64);
    world.advance(by);
    Ok(())
}

fn stay_idle(world: &mut World) -> Outcome {
    let pause = pick(&mut world.draws.time, &[1, 5, 60]);
    for _ in 0..20 {
        world.advance(Duration::from_millis(pause));
        world.step()?;
    }
    Ok(())
}

/// A day forward or back: nothing is released for it, and store time does not follow it back (K-24).
fn jump_clock(world: &mut World) -> Outcome {
    if world.plan.troubles.clock_jumps {
        let days = pick(&mut world.draws.time, &[-1, 1]);
        world.clock.jump(days * 86_400_000);
        world.history.note(format!("the clock is set by {days} days"));
    }
    Ok(())
}

// ---- reading

/// A queue whose visible incarnation there is a handle of.
fn readable_queue(world: &mut World) -> Outcome<Option<(usize, anchorlog_engine::Queue)>> {
    let queue = world.draws.reads.below(world.plan.queue_count);
    world.handle(queue)?;
    let incarnation = world.model.visible.queues[queue].incarnation;
    Ok(world.handles.get(&(queue, incarnation)).map(|handle| (queue, handle.clone())))
}

fn fetch(world: &mut World) -> Outcome {
    let Some((queue, handle)) = readable_queue(world)? else { return Ok(()) };
    let (min, max) = checkers::same_range(world, queue, &handle)?;
    let from = min + world.draws.reads.draw() % (max - min + 1);
    if world.draws.reads.chance(4) {
        return checkers::queue_from(world, queue, &handle, from);
    }
    let outside = [(max + 1, FetchStatus::BeyondMax), (max, FetchStatus::AtEnd)];
    let below = (min > 0).then(|| (min - 1, FetchStatus::BelowMin));
    for (from, status) in outside.into_iter().chain(below) {
        let from = QueueOffset(from);
        let fetch = Fetch {
            queue: &handle,
            from,
            messages_max: 1,
            bytes_max: 1,
            scan_max: 1,
            from_disk: true,
            matches: &|_| true,
        };
        let found = world.engine().fetch(&fetch).map_err(|error| format!("fetching outside a queue: {error}"))?;
        let right = found.status == status && found.messages.is_empty();
        demand!(right, "fetching {from} of {min} to {max}: {:?}, should be {status:?}", found.status);
    }
    Ok(())
}

/// A fetch with small limits returns the next messages that match, none left out and none twice.
fn fetch_by_tag(world: &mut World) -> Outcome {
    let Some((queue, handle)) = readable_queue(world)? else { return Ok(()) };
    let (min, max) = checkers::same_range(world, queue, &handle)?;
    if min == max {
        return Ok(());
    }
    let draws = &mut world.draws.reads;
    let wanted = u32::try_from(draws.below(5)).map_err(|error| error.to_string())?;
    let from = min + draws.draw() % (max - min);
    let (messages_max, bytes_max, scan_max) = (1 + draws.below(4), 1 + draws.below(20_000), 1 + draws.below(12));
    let from_disk = draws.chance(6);
    let matches = |tag: u32| tag == wanted;
    let fetch = Fetch {
        queue: &handle,
        from: QueueOffset(from),
        messages_max,
        bytes_max,
        scan_max,
        from_disk,
        matches: &matches,
    };
    let found = match world.engine().fetch(&fetch) {
        Ok(found) => found,
        Err(error) => {
            demand!(checkers::is_planned(world, &error), "fetching {from} by tag: {error}");
            return Ok(());
        }
    };
    if found.status == FetchStatus::NeedsDisk {
        demand!(
            !from_disk && found.messages.is_empty() && found.next.0 == from,
            "{:?} of {fetch_from}",
            found.status,
            fetch_from = from
        );
        return Ok(());
    }
    let range = usize::try_from(from).map_err(|error| error.to_string())?
        ..usize::try_from(found.next.0).map_err(|error| error.to_string())?;
    demand!(range.end > range.start, "a fetch from {from} makes no progress: {:?}", found.status);
    let expected: Vec<_> = world.model.visible.queues[queue].messages[range]
        .iter()
        .filter(|message| matches(message.content.tag()))
        .collect();
    demand!(
        found.messages.len() == expected.len(),
        "{} messages match, {} were found",
        expected.len(),
        found.messages.len()
    );
    demand!(found.messages.len() <= messages_max, "more messages than asked for");
    for (message, expected) in found.messages.iter().zip(expected) {
        checkers::same_message(message, expected)?;
    }
    let status = if found.messages.is_empty() { FetchStatus::NoMatch } else { FetchStatus::Found };
    demand!(found.status == status, "{:?}, should be {status:?}", found.status);
    Ok(())
}

fn read_one(world: &mut World) -> Outcome {
    let start = world.engine().watermarks().start;
    let mut visible: Vec<Lsn> = world.model.visible.by_lsn.range(start..).map(|(lsn, _)| *lsn).collect();
    visible.extend(world.model.visible.referred(start));
    if visible.is_empty() {
        return Ok(());
    }
    let lsn = pick(&mut world.draws.reads, &visible);
    match world.engine().read(lsn) {
        Ok(message) => checkers::same_message(&message, &world.model.visible.by_lsn[&lsn]),
        Err(error) => {
            demand!(checkers::is_planned(world, &error), "reading {lsn}: {error}");
            Ok(())
        }
    }
}

/// Where no message begins that is in sight, none is found; what was released may be found yet.
fn read_nothing(world: &mut World) -> Outcome {
    let marks = world.engine().watermarks();
    let lsn = Lsn(world.draws.reads.draw() % (marks.assigned.0 + 10_000));
    let lsn = if world.draws.reads.chance(4) { Lsn(lsn.0 / 8 * 8) } else { lsn };
    let message = world.model.visible.by_lsn.get(&lsn);
    let must_be = message.is_some() && (lsn >= marks.start || world.model.visible.referred(marks.start).contains(&lsn));
    match world.engine().read(lsn) {
        Ok(found) => {
            let message = message.ok_or_else(|| format!("{found:?} was made up"))?;
            checkers::same_message(&found, message)?;
        }
        Err(ReadError::NotFound(_)) => demand!(!must_be, "{lsn} is in sight and not found"),
        Err(error) => demand!(checkers::is_planned(world, &error), "reading {lsn}: {error}"),
    }
    Ok(())
}

/// Messages by their keys: those of the dense log that have it, in order, within the time, as many as asked for.
fn find(world: &mut World) -> Outcome {
    let start = world.engine().watermarks().start;
    let draws = &mut world.draws.reads;
    let number = 1 + draws.draw() % (world.content_next + 1);
    let key = if draws.chance(5) { format!("group-{}", number % 8) } else { format!("message-{number}") };
    let order = pick(draws, &[KeyOrder::NewestFirst, KeyOrder::OldestFirst]);
    let count = 1 + draws.below(12);
    let all: Vec<_> = world.model.visible.by_lsn.range(start..).map(|(_, message)| message).collect();
    let (mut from_ms, mut to_ms) = (0, u64::MAX);
    if !all.is_empty() && draws.chance(3) {
        from_ms = all[draws.below(all.len())].store_time_ms;
        to_ms = from_ms + draws.draw() % 200;
    }
    let in_time = |message: &&std::rc::Rc<Msg>| (from_ms..=to_ms).contains(&message.store_time_ms);
    let has_key = |message: &&std::rc::Rc<Msg>| message.content.keys().iter().any(|own| own == key.as_bytes());
    // Those of dropped queues are not looked for.
    let queues = &world.model.visible.queues;
    let is_live = |message: &&std::rc::Rc<Msg>| queues[message.queue].incarnation == message.incarnation;
    let mut expected: Vec<_> = all.into_iter().filter(in_time).filter(has_key).filter(is_live).cloned().collect();
    if order == KeyOrder::NewestFirst {
        expected.reverse();
    }
    let beyond = expected.get(draws.below(expected.len().max(1) * 3)).map(|message| message.lsn);
    if let Some(at) = beyond.and_then(|lsn| expected.iter().position(|message| message.lsn == lsn)) {
        expected.drain(..=at);
    }
    expected.truncate(count);
    let query = KeyQuery { from_ms, to_ms, order, beyond, count, bytes_max: 1 << 30, ..KeyQuery::new(key.as_bytes()) };
    let Some(found) = checkers::found(world, world.engine().find(&query))? else { return Ok(()) };
    let told: Vec<Lsn> = found.iter().map(|message| message.lsn).collect();
    let due: Vec<Lsn> = expected.iter().map(|message| message.lsn).collect();
    // What cannot be read is left out.
    demand!(told == due || world.is_troubled(), "{key} {order:?}: found {told:?}, should be {due:?}");
    for message in &found {
        let expected =
            world.model.visible.by_lsn.get(&message.lsn).ok_or_else(|| format!("{message:?} was made up"))?;
        checkers::same_message(message, expected)?;
    }
    world.tally.found += found.len() as u64;
    Ok(())
}

/// A watch fires when its queue has a message for it, at once or later; see [`checkers::watches`].
fn watch(world: &mut World) -> Outcome {
    let Some((queue, handle)) = readable_queue(world)? else { return Ok(()) };
    let (min, max) = checkers::same_range(world, queue, &handle)?;
    let from = (max + world.draws.reads.below(3) as u64).saturating_sub(1).max(min);
    world.look()?;
    if world.watches.len() < 8 {
        let token = world.next_token();
        let watcher = std::sync::Arc::clone(&world.watcher);
        world.engine().watch(&handle, QueueOffset(from), &watcher, token);
        world.watches.insert(token, (queue, handle, from));
    } else if let Some((token, (_, handle, _))) = world.watches.pop_first() {
        world.engine().unwatch(&handle, &world.watcher, token);
    }
    world.look()
}

fn search_by_time(world: &mut World) -> Outcome {
    let Some((queue, handle)) = readable_queue(world)? else { return Ok(()) };
    let (min, max) = checkers::same_range(world, queue, &handle)?;
    let messages = &world.model.visible.queues[queue].messages;
    let range = usize::try_from(min).map_err(|error| error.to_string())?..messages.len();
    let draws = &mut world.draws.reads;
    let time = match messages[range.clone()].len() {
        0 => world.wall_max,
        count => messages[range.start + draws.below(count)].store_time_ms + draws.below(3) as u64 - 1,
    };
    let later = messages[range].partition_point(|message| message.store_time_ms < time);
    let expected = (min + later as u64).min(max);
    let answer = world.engine().offset_by_time(&handle, time);
    let Some(found) = checkers::found(world, answer)? else { return Ok(()) };
    demand!(found.0 == expected, "offset {found} at time {time}, should be {expected}");
    Ok(())
}

fn get(world: &mut World) -> Outcome {
    let key = format!("entry/{:03}", world.draws.reads.below(world.plan.key_count + 1)).into_bytes();
    let Some(found) = checkers::found(world, world.engine().get(&key))? else { return Ok(()) };
    world.look()?;
    checkers::same_entry(&key, found.as_ref(), world.model.visible.table.get(&key))
}

fn hold_snapshot(world: &mut World) -> Outcome {
    let snapshot = world.engine().snapshot();
    world.look()?;
    let marks = world.engine().watermarks();
    demand!(snapshot.lsn() <= marks.dispatched, "a snapshot at {} of {marks:?}", snapshot.lsn());
    let table = world.model.visible.table.clone();
    if world.snapshots.len() == 4 {
        world.snapshots.remove(0);
    }
    world.snapshots.push(HeldSnapshot { snapshot, table });
    Ok(())
}

/// A snapshot shows what it did when it was taken.
fn compare_snapshot(world: &mut World) -> Outcome {
    for held in &world.snapshots {
        let key = |number| format!("entry/{number:03}").into_bytes();
        let (from, to) = (key(world.draws.reads.below(8)), key(world.draws.reads.below(14)));
        let count = 1 + world.draws.reads.below(6);
        let answer = held.snapshot.range(&from, Some(&to), count);
        let Some(found) = checkers::found(world, answer)? else { continue };
        let expected: Vec<_> = held.table.iter().filter(|(key, _)| **key >= from && **key < to).take(count).collect();
        demand!(
            found.len() == expected.len(),
            "a snapshot shows {} entries, should be {}",
            found.len(),
            expected.len()
        );
        for ((found_key, entry), (key, expected)) in found.iter().zip(expected) {
            demand!(found_key == key, "a snapshot shows another key");
            checkers::same_entry(key, Some(entry), Some(expected))?;
            let Some(got) = checkers::found(world, held.snapshot.get(key))? else { continue };
            checkers::same_entry(key, got.as_ref(), Some(expected))?;
        }
    }
    Ok(())
}

fn compare_everything(world: &mut World) -> Outcome {
    checkers::everything(world)
}

// ---- durability and retention

fn flush(world: &mut World) -> Outcome {
    let assigned = world.engine().watermarks().assigned;
    match world.engine().flush() {
        Ok(durable) => demand!(durable >= assigned, "flushed to {durable} of {assigned}"),
        Err(error) => demand!(world.is_troubled(), "flushing fails for no reason: {error}"),
    }
    world.history.note(format!("flushed to {}", world.engine().watermarks().durable));
    Ok(())
}

fn release(world: &mut World) -> Outcome {
    let marks = world.engine().watermarks();
    let draws = &mut world.draws.retention;
    let lsn = Lsn(marks.start.0 + draws.draw() % (marks.acked.since(marks.start) + 1));
    let beyond = world.engine().release(Lsn(marks.acked.0 + 1));
    demand!(beyond.is_err(), "what is not acknowledged was released");
    match world.engine().release(lsn) {
        Ok(outcome) => {
            world.released = world.released.max(lsn);
            let asked = world.released.max(marks.start).max(checkers::asked_by_rules(world, marks.assigned));
            demand!(outcome.start <= asked, "{outcome:?}, asked was {lsn}");
            world.history.note(format!("release to {lsn}: {outcome:?}"));
        }
        Err(error) => demand!(world.engine().fenced().is_some(), "releasing {lsn}: {error}"),
    }
    Ok(())
}

const PINS: [&str; 2] = ["reader", "replica"];

fn set_pin(world: &mut World) -> Outcome {
    let marks = world.engine().watermarks();
    let name = pick(&mut world.draws.retention, &PINS);
    let lsn = Lsn(marks.start.0 + world.draws.retention.draw() % (marks.acked.since(marks.start) + 1));
    // What was on its way out already goes; it was not promised.
    let holds = world.engine().pin(name, Some(lsn));
    demand!(holds >= lsn && holds <= lsn.max(world.asked), "the pin at {lsn} holds from {holds} on");
    world.pins.insert(name, holds);
    Ok(())
}

fn lift_pin(world: &mut World) -> Outcome {
    let name = pick(&mut world.draws.retention, &PINS);
    world.engine().pin(name, None);
    world.is_unpinned |= world.pins.remove(name).is_some();
    Ok(())
}

/// A consumer goes on, up to somewhere in what it sees.
fn consume(world: &mut World) -> Outcome {
    if !world.plan.consumes {
        return Ok(());
    }
    let Some((queue, handle)) = readable_queue(world)? else { return Ok(()) };
    let place = (queue, handle.incarnation());
    let max = world.model.visible.queues[queue].messages.len() as u64;
    let at = world.consumed.get(&place).copied().unwrap_or(0);
    let to = at + world.draws.retention.draw() % (max.saturating_sub(at) + 1);
    world.consumed.insert(place, to);
    world.engine().pin_queue("consumer", &handle, Some(QueueOffset(to)));
    Ok(())
}

// ---- ends

fn close(world: &mut World) -> Outcome {
    world.restart(End::Close)
}

fn kill(world: &mut World) -> Outcome {
    if world.plan.troubles.crashes { world.restart(End::Kill) } else { Ok(()) }
}

fn crash(world: &mut World) -> Outcome {
    if !world.plan.troubles.crashes {
        return Ok(());
    }
    let survival =
        pick(&mut world.draws.ends, &[Survival::Seeded, Survival::Seeded, Survival::Nothing, Survival::Everything]);
    world.restart(End::Crash(survival))
}

/// The power fails at one of the next I/Os, whatever that is.
fn crash_soon(world: &mut World) -> Outcome {
    if world.plan.troubles.crashes {
        let after = world.draws.ends.below(25);
        world.disk.stop_after(world.disk.io_count() + after as u64);
        world.history.note(format!("the power fails after {after} more I/Os"));
    }
    Ok(())
}

// ---- the disk's troubles

fn fail_soon(world: &mut World) -> Outcome {
    if world.plan.troubles.io_errors {
        let draws = &mut world.draws.faults;
        let class = pick(draws, &CLASSES);
        let nth = world.disk.count(class) + 1 + draws.below(8) as u64;
        let times = if draws.chance(6) { Times::Once } else { Times::Forever };
        world.disk.fail(class, nth, EIO, times);
        world.history.note(format!("{class:?} {nth} fails {times:?}"));
    }
    Ok(())
}

fn heal(world: &mut World) -> Outcome {
    world.disk.heal();
    Ok(())
}

fn take_room(world: &mut World) -> Outcome {
    if !world.plan.troubles.no_room {
        return Ok(());
    }
    let draws = &mut world.draws.faults;
    let segment = world.plan.segment_bytes;
    let room = draws.draw() % (3 * segment);
    match draws.below(4) {
        0..2 => world.disk.set_capacity(Some(world.disk.used_bytes() + room)),
        2 => world.disk.set_quota(Some(room)),
        _ => world.disk.set_file_bytes_max(Some(segment / 2)),
    }
    world.no_room = true;
    world.had_no_room = true;
    world.history.note(format!("room is left for {room} bytes"));
    Ok(())
}

/// There is room again: a log that was not fenced goes on by itself.
fn make_room(world: &mut World) -> Outcome {
    if !world.no_room {
        return Ok(());
    }
    world.lift_limits();
    world.history.note("there is room again".into());
    // What was in flight may fail yet.
    for _ in 0..20 {
        world.step()?;
    }
    let untouched =
        world.is_well() && !world.disk.is_held() && !world.plan.troubles.io_errors && !world.plan.troubles.crashes;
    if !untouched {
        return Ok(());
    }
    checkers::liveness(world)?;
    checkers::takes_again(world)
}

/// One write stalls, or everything does: nothing is acknowledged that was not before, and then it goes on.
fn stall(world: &mut World) -> Outcome {
    if !world.plan.troubles.stalls {
        return Ok(());
    }
    let class = pick(&mut world.draws.faults, &CLASSES[..2]);
    let reaps = 1 + world.draws.faults.below(40) as u64;
    if world.draws.faults.chance(5) {
        world.disk.stall(class, world.disk.count(class) + 1, reaps, Times::Once);
        world.history.note(format!("the next {class:?} stalls for {reaps}"));
        return Ok(());
    }
    world.disk.hold(true);
    world.history.note("the disk stalls".into());
    let acked = world.engine().watermarks().acked;
    for _ in 0..reaps {
        let spec = batches::random(world);
        send(world, spec)?;
        world.step()?;
        let marks = world.engine().watermarks();
        let silent = !world.plan.is_sync() || world.plan.runs_inline || marks.acked == acked;
        demand!(silent || !world.disk.is_held(), "acknowledged from {acked} to {} by a stalled disk", marks.acked);
    }
    world.disk.hold(false);
    Ok(())
}
