//! What must be read of every message, what may be, and what must not.

use std::collections::BTreeMap;

use crate::features::transactions::Verdict;
use crate::scene::Read;

/// Whether something happened, as far as its answer tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sure {
    /// It did not.
    No,
    /// It was asked for, and no answer came.
    Maybe,
    /// It did.
    Yes,
}

/// What may have become of a transaction: any of these that is true.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Decided {
    undecided: bool,
    committed: bool,
    rolled_back: bool,
}

impl Decided {
    const OPEN: Decided = Decided { undecided: true, committed: false, rolled_back: false };

    fn exactly(verdict: Verdict) -> Decided {
        let committed = verdict == Verdict::Commit;
        Decided { undecided: false, committed, rolled_back: !committed }
    }

    fn may_be(&self, verdict: Verdict) -> bool {
        if verdict == Verdict::Commit { self.committed } else { self.rolled_back }
    }

    /// Whether it can be open still.
    pub(super) fn may_be_open(&self) -> bool {
        self.undecided
    }

    /// Whether sending it again is the same send still: half of a transaction that was rolled back is a new one.
    pub(super) fn may_be_repeated(&self) -> bool {
        self.undecided && !self.rolled_back
    }

    fn is_committed(&self) -> bool {
        self.committed && !self.undecided && !self.rolled_back
    }
}

/// What the model knows of one message.
#[derive(Clone, Debug)]
pub(super) struct Message {
    /// Where it is meant to be read.
    pub(super) topic: &'static str,
    /// One of these: where it is sent again its producer may choose another one.
    queues: Vec<u32>,
    is_resent: bool,
    pub(super) stored: Sure,
    /// Nobody sees it before, in milliseconds since 1970.
    pub(super) due_ms: Option<u64>,
    /// By then it falls due, whichever of its sends was the first to be stored.
    over_ms: Option<u64>,
    /// It was taken back, and that was answered.
    is_recalled: bool,
    /// Times that it was to be taken back, and no answer came.
    recalls_unknown: u32,
    /// For a half message.
    pub(super) decided: Option<Decided>,
    /// A pass of time has ended behind its time.
    pub(super) is_over: bool,
    /// A consumer has read it.
    seen: bool,
    /// Its offset in the queue, as it was answered.
    place: Option<u64>,
}

impl Message {
    fn must_show(&self) -> bool {
        let kept = self.stored == Sure::Yes && !self.is_recalled && self.recalls_unknown == 0;
        let decided = self.decided.is_none_or(|decided| decided.is_committed());
        self.seen || kept && decided && (self.due_ms.is_none() || self.is_over)
    }

    fn may_show(&self) -> bool {
        let kept = self.stored != Sure::No && !self.is_recalled;
        kept && self.decided.is_none_or(|decided| decided.committed)
    }
}

/// One send-back.
#[derive(Clone, Copy, Debug)]
struct Back {
    /// How many there were with it.
    count: usize,
    /// Of which copy, by its place in the log.
    of: u64,
    /// By which connection.
    link: u64,
    /// It may be the same as one before, whose answer was lost: then it makes no copy of its own.
    may_repeat: bool,
    stored: Sure,
    due_ms: u64,
    /// When the copy is there that it made, or that it repeats.
    over_ms: u64,
    is_over: bool,
}

/// A message's copies in a group's retry or dead-letter topic, by the attempts that they say.
type CopyKey = (usize, i32, bool);

/// All messages.
#[derive(Debug, Default)]
pub(super) struct Messages {
    all: Vec<Message>,
    backs: BTreeMap<CopyKey, Vec<Back>>,
    back_count: usize,
    /// Copies that a consumer has read: there are never fewer.
    seen_backs: BTreeMap<CopyKey, usize>,
}

/// The message that a body names.
pub(super) fn number_of(body: &[u8]) -> Option<usize> {
    std::str::from_utf8(body).ok()?.strip_prefix('m')?.parse().ok()
}

impl Messages {
    /// A message is being sent; its number.
    pub(super) fn sent(&mut self, topic: &'static str, queue: u32, due_ms: Option<u64>, half: bool) -> usize {
        self.all.push(Message {
            topic,
            queues: vec![queue],
            is_resent: false,
            stored: Sure::Maybe,
            due_ms,
            over_ms: due_ms,
            is_recalled: false,
            recalls_unknown: 0,
            decided: half.then_some(Decided::OPEN),
            is_over: false,
            seen: false,
            place: None,
        });
        self.all.len() - 1
    }

    pub(super) fn get(&self, number: usize) -> &Message {
        &self.all[number]
    }

    pub(super) fn count(&self) -> usize {
        self.all.len()
    }

    /// It is being sent again, because nobody knows what became of the first time.
    pub(super) fn sent_again(&mut self, number: usize, queue: u32, due_ms: Option<u64>) {
        let message = &mut self.all[number];
        message.is_resent = true;
        message.over_ms = message.over_ms.max(due_ms);
        // A clock that was set back meanwhile: the later send may be due before.
        message.due_ms = message.due_ms.zip(due_ms).map(|(first, again)| first.min(again));
        // Where it was seen it is.
        if !message.seen && !message.queues.contains(&queue) {
            message.queues.push(queue);
        }
    }

    /// A send was answered 0; `queue` and `place`: what it told.
    pub(super) fn stored(&mut self, number: usize, queue: u32, place: u64) -> Result<(), String> {
        let message = &mut self.all[number];
        if !message.queues.contains(&queue) {
            return Err(format!("m{number} was answered to be in queue {queue}: {message:?}"));
        }
        message.queues = vec![queue];
        message.stored = Sure::Yes;
        message.place = (message.due_ms.is_none() && message.decided.is_none()).then_some(place);
        Ok(())
    }

    /// A verdict is being said.
    pub(super) fn says(&mut self, number: usize, verdict: Verdict) {
        if let Some(decided) = &mut self.all[number].decided
            && decided.undecided
        {
            decided.committed |= verdict == Verdict::Commit;
            decided.rolled_back |= verdict == Verdict::Rollback;
        }
    }

    /// A verdict was answered.
    pub(super) fn said(&mut self, number: usize, verdict: Verdict, is_done: bool) -> Result<(), String> {
        let counts = match (verdict, is_done) {
            (verdict, true) => verdict,
            (Verdict::Commit, false) => Verdict::Rollback,
            (Verdict::Rollback, false) => Verdict::Commit,
        };
        let decided = self.all[number].decided.as_mut().ok_or("a verdict on what is no half message")?;
        if !decided.may_be(counts) {
            return Err(format!("m{number}: {verdict:?} was answered with done: {is_done}, and it was {decided:?}"));
        }
        *decided = Decided::exactly(counts);
        Ok(())
    }

    /// Its producer was asked.
    pub(super) fn asked(&mut self, number: usize) -> Result<(), String> {
        let message = self.all.get_mut(number).ok_or_else(|| format!("m{number} was asked about and never sent"))?;
        match &message.decided {
            Some(decided) if decided.undecided => {
                message.stored = Sure::Yes;
                Ok(())
            }
            other => Err(format!("m{number} was asked about, which is {other:?}")),
        }
    }

    /// It is being taken back.
    pub(super) fn recalls(&mut self, number: usize) {
        self.all[number].recalls_unknown += 1;
    }

    /// It was taken back, or that was refused because it does not wait; `waits`: its time has not come.
    pub(super) fn recalled(&mut self, number: usize, is_done: bool, waits: bool) -> Result<(), String> {
        let message = &mut self.all[number];
        message.recalls_unknown -= 1;
        if is_done && (message.seen || message.is_recalled) {
            return Err(format!("m{number} was taken back, after it was read or taken back: {message:?}"));
        }
        let must_wait = message.stored == Sure::Yes && waits && !message.seen && !message.is_over;
        if !is_done && must_wait && !message.is_recalled && message.recalls_unknown == 0 {
            return Err(format!("m{number} waits, and cannot be taken back: {message:?}"));
        }
        message.is_recalled |= is_done;
        Ok(())
    }

    /// A copy of it, which stands at `of`, is being sent back by a connection.
    pub(super) fn sends_back(&mut self, copy: CopyKey, of: u64, link: u64, due_ms: u64) -> usize {
        let mut last: Option<(usize, Back)> = None;
        let mut over_ms = due_ms;
        for before in self.backs.values().flatten().filter(|back| back.of == of) {
            over_ms = over_ms.max(before.over_ms);
            if last.is_none_or(|(count, _)| count < before.count) {
                last = Some((before.count, *before));
            }
        }
        // Whoever has its answer, and is there still, means it.
        let may_repeat = last.is_some_and(|(_, last)| last.stored != Sure::Yes || last.link != link);
        let is_over = copy.2 && !may_repeat;
        self.back_count += 1;
        let count = self.back_count;
        let backs = self.backs.entry(copy).or_default();
        backs.push(Back { count, of, link, may_repeat, stored: Sure::Maybe, due_ms, over_ms, is_over });
        backs.len() - 1
    }

    /// That was answered 0.
    pub(super) fn sent_back(&mut self, copy: CopyKey, index: usize) {
        self.backs.get_mut(&copy).expect("it was sent back")[index].stored = Sure::Yes;
    }

    /// Everything that was due at this time is done.
    pub(super) fn passed(&mut self, now_ms: u64) {
        for message in &mut self.all {
            message.is_over |= message.stored == Sure::Yes && message.over_ms.is_some_and(|over_ms| over_ms <= now_ms);
        }
        for back in self.backs.values_mut().flatten() {
            back.is_over |= back.stored == Sure::Yes && back.over_ms <= now_ms;
        }
    }

    /// A topic's queue as it is read from its beginning.
    pub(super) fn shown(&mut self, topic: &str, queue: u32, reads: &[Read]) -> Result<(), String> {
        let mut places = BTreeMap::new();
        let mut last_plain = None;
        for (place, read) in (0u64..).zip(reads) {
            let number = self.known(read)?;
            let message = &mut self.all[number];
            let at = format!("m{number} in {topic}:{queue} at {place}");
            if let Some(before) = places.insert(number, place) {
                return Err(format!("{at} stands there twice, at {before} before"));
            }
            if message.topic != topic || !message.queues.contains(&queue) {
                return Err(format!("{at} belongs into {}:{:?}", message.topic, message.queues));
            }
            if !message.may_show() {
                return Err(format!("{at} must not be there: {message:?}"));
            }
            if message.due_ms.is_some_and(|due_ms| read.store_timestamp < due_ms.cast_signed()) {
                return Err(format!("{at} came at {}, before its time: {message:?}", read.store_timestamp));
            }
            if message.place.is_some_and(|answered| answered != place) {
                return Err(format!("{at} was answered to be at {:?}", message.place));
            }
            if message.due_ms.is_none() && message.decided.is_none() && !message.is_resent {
                if last_plain.is_some_and(|last| last > number) {
                    return Err(format!("{at} stands behind m{}, which was sent later", last_plain.unwrap_or(0)));
                }
                last_plain = Some(number);
            }
            message.seen = true;
            message.queues = vec![queue];
            message.stored = Sure::Yes;
            message.recalls_unknown = 0;
            if let Some(decided) = &mut message.decided {
                *decided = Decided::exactly(Verdict::Commit);
            }
        }
        for (number, message) in self.all.iter().enumerate() {
            let here = message.topic == topic && message.queues == [queue];
            if here && message.must_show() && !places.contains_key(&number) {
                return Err(format!("m{number} is lost from {topic}:{queue}: {message:?}"));
            }
        }
        Ok(())
    }

    /// All queues were read: whatever must be somewhere was seen.
    pub(super) fn all_shown(&self) -> Result<(), String> {
        match self.all.iter().position(|message| message.must_show() && !message.seen) {
            Some(number) => Err(format!("m{number} is nowhere: {:?}", self.all[number])),
            None => Ok(()),
        }
    }

    fn known(&self, read: &Read) -> Result<usize, String> {
        let number = number_of(&read.body).filter(|number| *number < self.all.len());
        let number = number.ok_or_else(|| format!("{read:?} was never sent"))?;
        if read.property("UNIQ_KEY") != Some(&format!("m{number}")) {
            return Err(format!("m{number} changed its properties: {:?}", read.properties));
        }
        Ok(number)
    }

    /// A group's retry topic, or its dead-letter topic.
    pub(super) fn shown_again(&mut self, dead: bool, reads: &[Read]) -> Result<(), String> {
        let mut found: BTreeMap<CopyKey, Vec<i64>> = BTreeMap::new();
        for read in reads {
            let number = self.known(read)?;
            if read.property("RETRY_TOPIC") != Some(self.all[number].topic) {
                return Err(format!("m{number} came again from elsewhere: {:?}", read.properties));
            }
            found.entry((number, read.reconsume_times, dead)).or_default().push(read.store_timestamp);
        }
        for (copy, times) in &mut found {
            times.sort_unstable();
            let backs = self.backs.get(copy).map_or(&[][..], Vec::as_slice);
            let mut dues: Vec<u64> =
                backs.iter().filter(|back| back.stored != Sure::No).map(|back| back.due_ms).collect();
            dues.sort_unstable();
            if times.len() > dues.len() {
                return Err(format!("{copy:?}: {} copies of {} send-backs", times.len(), dues.len()));
            }
            // The n-th copy comes no earlier than the n-th that was due.
            if !dead && times.iter().zip(&dues).any(|(time, due_ms)| *time < due_ms.cast_signed()) {
                return Err(format!("{copy:?} came before its time: {times:?}, due {dues:?}"));
            }
        }
        for (copy, backs) in self.backs.iter().filter(|((.., of_dead), _)| *of_dead == dead) {
            let must = self.copies_at_least(*copy, backs);
            let must = must.max(self.seen_backs.get(copy).copied().unwrap_or(0));
            let is = found.get(copy).map_or(0, Vec::len);
            if is < must {
                return Err(format!("{copy:?}: {is} copies, and there must be {must}"));
            }
        }
        self.seen_backs.extend(found.into_iter().map(|(copy, times)| (copy, times.len())));
        Ok(())
    }

    /// How many copies there are, whatever was repeated.
    fn copies_at_least(&self, copy: CopyKey, backs: &[Back]) -> usize {
        let elsewhere = self.backs.get(&(copy.0, copy.1, !copy.2)).map_or(&[][..], Vec::as_slice);
        let mut by_place = BTreeMap::<u64, usize>::new();
        for back in backs.iter().filter(|back| back.stored == Sure::Yes && back.is_over) {
            let count = by_place.entry(back.of).or_default();
            if !back.may_repeat {
                *count += 1;
            } else if *count == 0 && elsewhere.iter().all(|other| other.of != back.of) {
                // Either it made a copy, or one before it did.
                *count = 1;
            }
        }
        by_place.values().sum()
    }

    /// Half messages that nobody decided, as they are shown to whoever looks for them.
    pub(super) fn shown_parked(&self, reads: &[Read], is_end: bool) -> Result<usize, String> {
        let mut found = std::collections::BTreeSet::new();
        for read in reads {
            let number = self.known(read)?;
            if self.all[number].decided.is_none() || !found.insert(number) {
                return Err(format!("m{number} was parked twice, or is no half message"));
            }
        }
        for (number, message) in self.all.iter().enumerate() {
            let open = message.decided == Some(Decided::OPEN) && message.stored == Sure::Yes;
            if is_end && open && !found.contains(&number) {
                return Err(format!("m{number} was never decided, and is not shown: {message:?}"));
            }
        }
        Ok(found.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scene::peer;

    fn read(number: usize, store_timestamp: i64, reconsume_times: i32) -> Read {
        Read {
            topic: "T1".to_owned(),
            body: format!("m{number}").into_bytes(),
            properties: format!("UNIQ_KEY\u{1}m{number}\u{2}RETRY_TOPIC\u{1}T1\u{2}"),
            physical_offset: 0,
            born_timestamp: 0,
            born_host: peer(),
            store_timestamp,
            sys_flag: 0,
            flag: 0,
            reconsume_times,
            prepared_offset: 0,
        }
    }

    /// Two plain messages, a delayed one and a committed half, all answered, and what a consumer reads of them.
    fn answered() -> (Messages, Vec<Read>) {
        let mut messages = Messages::default();
        for (due_ms, half) in [(None, false), (None, false), (Some(50), false), (None, true)] {
            let number = messages.sent("T1", 0, due_ms, half);
            messages.stored(number, 0, number as u64).expect("its queue");
        }
        messages.says(3, Verdict::Commit);
        messages.said(3, Verdict::Commit, true).expect("it was open");
        messages.passed(50);
        (messages, (0..4).map(|number| read(number, 60, 0)).collect())
    }

    #[track_caller]
    fn is_wrong(messages: &mut Messages, reads: &[Read], why: &str) {
        let found = messages.shown("T1", 0, reads).expect_err(why);
        assert!(found.contains(why), "{found}");
    }

    #[test]
    fn all_right_is_right() {
        let (mut messages, reads) = answered();
        assert_eq!(messages.shown("T1", 0, &reads), Ok(()));
    }

    #[test]
    fn what_is_lost_doubled_displaced_early_or_unknown_is_seen() {
        let (mut messages, reads) = answered();
        for lost in 0..4 {
            let mut reads = reads.clone();
            reads.remove(lost);
            if lost > 1 {
                is_wrong(&mut messages, &reads, "is lost");
            } else {
                assert!(messages.shown("T1", 0, &reads).is_err());
            }
        }
        is_wrong(&mut messages, &[&reads[..], &[read(3, 60, 0)]].concat(), "twice");
        is_wrong(&mut messages, &[&reads[..], &[read(4, 60, 0)]].concat(), "never sent");
        is_wrong(&mut messages, &[read(1, 60, 0)], "answered to be at");
        let mut early = reads.clone();
        early[2].store_timestamp = 49;
        is_wrong(&mut messages, &early, "before its time");
        let mut messages = Messages::default();
        for _ in 0..2 {
            messages.sent("T1", 0, None, false);
        }
        is_wrong(&mut messages, &[read(1, 0, 0), read(0, 0, 0)], "sent later");
        assert!(messages.shown("T1", 1, &[read(0, 0, 0)]).is_err(), "it belongs elsewhere");
    }

    #[test]
    fn what_must_not_show_is_seen() {
        let mut messages = Messages::default();
        let half = messages.sent("T1", 0, None, true);
        messages.stored(half, 0, 0).expect("its queue");
        is_wrong(&mut messages, &[read(half, 0, 0)], "must not be there");
        messages.says(half, Verdict::Rollback);
        messages.says(half, Verdict::Commit);
        messages.said(half, Verdict::Rollback, true).expect("either may count");
        is_wrong(&mut messages, &[read(half, 0, 0)], "must not be there");
        assert!(messages.said(half, Verdict::Commit, true).is_err(), "both cannot count");
        assert!(messages.asked(half).is_err(), "it is decided");
        let timed = messages.sent("T1", 0, Some(9), false);
        messages.stored(timed, 0, 0).expect("its queue");
        messages.recalls(timed);
        messages.recalled(timed, true, true).expect("nobody has read it");
        is_wrong(&mut messages, &[read(timed, 9, 0)], "must not be there");
    }

    #[test]
    fn what_was_sent_twice_is_there_once_in_either_queue() {
        let resent = || {
            let mut messages = Messages::default();
            messages.sent("T1", 0, None, false);
            messages.sent_again(0, 1, None);
            messages
        };
        for queue in 0..2 {
            let mut messages = resent();
            assert_eq!(messages.shown("T1", queue, &[read(0, 0, 0)]), Ok(()));
            assert_eq!(messages.shown("T1", 1 - queue, &[]), Ok(()));
            let found = messages.shown("T1", 1 - queue, &[read(0, 0, 0)]).expect_err("it is in the other one");
            assert!(found.contains("belongs into"), "{found}");
            let mut messages = resent();
            messages.stored(0, queue, 7).expect("one of the two");
            assert!(messages.shown("T1", queue, &[]).is_err(), "lost");
            assert!(messages.all_shown().is_err(), "lost");
            assert!(messages.stored(0, 1 - queue, 7).is_err(), "answered in two ways");
            assert!(messages.shown("T1", 1 - queue, &[read(0, 0, 0)]).is_err(), "elsewhere than was answered");
        }
        let mut messages = resent();
        assert_eq!(messages.all_shown(), Ok(()), "nobody knows");
        is_wrong(&mut messages, &[read(0, 0, 0), read(0, 0, 0)], "twice");
        // A message that was delayed twice comes by the later of the two times.
        let mut messages = Messages::default();
        messages.sent("T1", 0, Some(50), false);
        messages.sent_again(0, 0, Some(90));
        messages.stored(0, 0, 0).expect("its queue");
        messages.passed(60);
        assert_eq!(messages.shown("T1", 0, &[]), Ok(()), "it may be the second");
        is_wrong(&mut messages, &[read(0, 49, 0)], "before its time");
        messages.passed(90);
        is_wrong(&mut messages, &[], "is lost");
    }

    #[test]
    fn what_was_read_once_stays() {
        let mut messages = Messages::default();
        let sent = messages.sent("T1", 0, None, false);
        assert_eq!(messages.shown("T1", 0, &[]), Ok(()), "it was not answered");
        assert_eq!(messages.shown("T1", 0, &[read(sent, 0, 0)]), Ok(()));
        is_wrong(&mut messages, &[], "is lost");
    }

    #[test]
    fn copies_are_as_many_as_send_backs_and_none_is_early() {
        let (mut messages, _) = answered();
        let copy = (0, 1, false);
        let index = messages.sends_back(copy, 8, 1, 100);
        assert_eq!(messages.shown_again(false, &[]), Ok(()));
        messages.sent_back(copy, index);
        messages.passed(99);
        assert_eq!(messages.shown_again(false, &[]), Ok(()), "it is not due");
        assert!(messages.shown_again(false, &[read(0, 99, 1)]).is_err(), "early");
        messages.passed(100);
        assert!(messages.shown_again(false, &[]).is_err(), "lost");
        assert!(messages.shown_again(false, &[read(0, 100, 1), read(0, 100, 1)]).is_err(), "doubled");
        assert!(messages.shown_again(false, &[read(0, 100, 1), read(0, 100, 2)]).is_err(), "nobody sent that back");
        assert_eq!(messages.shown_again(false, &[read(0, 100, 1)]), Ok(()));
    }

    #[test]
    fn a_send_back_that_may_repeat_another_may_make_no_copy() {
        let (mut messages, _) = answered();
        let copy = (0, 1, false);
        let one = [read(0, 100, 1)];
        messages.sends_back(copy, 8, 1, 100);
        // The first was not answered: one of the two has made a copy.
        let second = messages.sends_back(copy, 8, 2, 90);
        messages.sent_back(copy, second);
        messages.passed(99);
        assert_eq!(messages.shown_again(false, &[]), Ok(()), "it may be the first, which is not due");
        messages.passed(100);
        assert!(messages.shown_again(false, &[]).is_err(), "lost");
        assert_eq!(messages.shown_again(false, &one), Ok(()));
        // Whoever has its answer means the next.
        let third = messages.sends_back(copy, 8, 2, 100);
        messages.sent_back(copy, third);
        messages.passed(100);
        assert!(messages.shown_again(false, &one).is_err(), "lost");
        assert_eq!(messages.shown_again(false, &[read(0, 100, 1), read(0, 100, 1)]), Ok(()));
    }

    #[test]
    fn a_half_that_nobody_decided_is_shown_once() {
        let mut messages = Messages::default();
        let half = messages.sent("T1", 0, None, true);
        messages.asked(half).expect("it is open");
        assert!(messages.shown_parked(&[], true).is_err());
        assert_eq!(messages.shown_parked(&[read(half, 0, 0)], true), Ok(1));
        assert!(messages.shown_parked(&[read(half, 0, 0), read(half, 0, 0)], true).is_err());
    }
}
