//! `anchorlog dlq`: dead letters.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use serde_json::json;

use super::output::{self, maybe, maybe_time, time};
use super::{Answer, CommandError, DONE, PartArgs, REFUSED, Remote, TargetArgs, When, gather};
use crate::wire::codes::private;
use crate::wire::operate::{
    self, DeadLetter, DeadLetterGroup, DeadLetterGroups, DeadLetters, ListDeadLetterGroups, ListDeadLetters,
    ReplayDeadLetter, ReplayedTo,
};

/// Replays that are asked for at once: their batches share a flush.
const REPLAYS_AT_ONCE: usize = 64;

/// Arguments of `anchorlog dlq`.
#[derive(Args, Clone, Debug)]
pub struct DlqArgs {
    /// What to do
    #[command(subcommand)]
    verb: Verb,

    #[command(flatten)]
    target: TargetArgs,
}

#[derive(Clone, Debug, Subcommand)]
enum Verb {
    /// Shows which groups have dead letters, or those of one group, the oldest first
    List {
        /// The consumer group
        group: Option<String>,
        #[command(flatten)]
        which: WhichArgs,
        /// Only those that were not returned
        #[arg(long)]
        waiting: bool,
        #[command(flatten)]
        part: PartArgs,
    },
    /// Shows one dead letter, with its properties and body
    Show {
        /// The consumer group
        group: String,
        /// Its id: its producer's, or that of its place
        id: String,
    },
    /// Returns dead letters to the topic that they came from: every group that subscribes it gets them
    Replay {
        /// The consumer group
        group: String,
        /// Which ones, by their ids
        ids: Vec<String>,
        #[command(flatten)]
        which: WhichArgs,
        /// All that were not returned before
        #[arg(long)]
        all: bool,
        /// To this group alone, by its retry topic
        #[arg(long, conflicts_with = "to_topic")]
        to_group: bool,
        /// To this topic, whatever they came from
        #[arg(long, value_name = "TOPIC")]
        to_topic: Option<String>,
        /// Also those that were returned before
        #[arg(long)]
        force: bool,
    },
    /// Writes dead letters to a new file, each as one line of JSON
    Export {
        /// The consumer group
        group: String,
        /// The file; - for standard output
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
        #[command(flatten)]
        which: WhichArgs,
        /// Only those that were not returned
        #[arg(long)]
        waiting: bool,
    },
}

/// Which dead letters are meant.
#[derive(Args, Clone, Debug)]
struct WhichArgs {
    /// Only with this key
    #[arg(long)]
    key: Option<String>,

    /// That came at this time or later: 2026-11-21T10:00:00Z, now-2h, or milliseconds since 1970
    #[arg(long, value_name = "TIME")]
    from: Option<When>,

    /// That came before this time
    #[arg(long, value_name = "TIME")]
    to: Option<When>,
}

impl WhichArgs {
    fn is_any(&self) -> bool {
        self.key.is_none() && self.from.is_none() && self.to.is_none()
    }

    fn ask(&self, group: &str, waiting: bool) -> ListDeadLetters {
        ListDeadLetters {
            group: group.to_owned(),
            key: self.key.clone(),
            from_ms: self.from.map(|from| from.ms),
            to_ms: self.to.map(|to| to.ms),
            waiting,
            ..ListDeadLetters::default()
        }
    }
}

pub(super) fn run(args: &DlqArgs, out: &mut dyn Write) -> Result<u8, CommandError> {
    let mut remote = args.target.connect()?;
    let as_json = args.target.json;
    match &args.verb {
        Verb::List { group: None, which, waiting, part } => {
            if !which.is_any() || *waiting {
                return Err(CommandError::Usage("name the group whose dead letters are meant".to_owned()));
            }
            list_groups(&mut remote, part, as_json, out)
        }
        Verb::List { group: Some(group), which, waiting, part } => {
            list(&mut remote, &which.ask(group, *waiting), part, as_json, out)
        }
        Verb::Show { group, id } => show(&mut remote, group, id, as_json, out),
        Verb::Replay { group, ids, which, all, to_group, to_topic, force } => {
            if ids.is_empty() && which.is_any() && !all {
                let what = "say which dead letters are meant: ids, --key, --from and --to, or --all";
                return Err(CommandError::Usage(what.to_owned()));
            }
            if !ids.is_empty() && (!which.is_any() || *all) {
                return Err(CommandError::Usage("either ids are named, or what is meant is described".to_owned()));
            }
            let replay = ReplayDeadLetter {
                group: group.clone(),
                lsn: 0,
                to_group: *to_group,
                to_topic: to_topic.clone(),
                force: *force,
            };
            let mut replays = Replays { remote, replay, as_json, out, returned: 0, refused: 0 };
            replays.run(ids, &which.ask(group, !force))
        }
        Verb::Export { group, out: file, which, waiting } => {
            let ask = ListDeadLetters { whole: true, ..which.ask(group, *waiting) };
            if file.as_os_str() == "-" {
                return export(&mut remote, ask, out).map(|_| DONE);
            }
            let count = export_to(&mut remote, ask, file)?;
            if as_json {
                output::json(out, &json!({ "letters": count, "file": file }))?;
            } else {
                writeln!(out, "{count} dead letters are in {}", file.display())?;
            }
            Ok(DONE)
        }
    }
}

fn list_groups(remote: &mut Remote, part: &PartArgs, as_json: bool, out: &mut dyn Write) -> Result<u8, CommandError> {
    let (groups, next) = gather(part, |after, limit| {
        let ask = ListDeadLetterGroups { after, limit: Some(limit) };
        let told: DeadLetterGroups = remote.ask_json(private::DEAD_LETTER_GROUPS, &ask)?;
        Ok((told.groups, told.next))
    })?;
    if as_json {
        output::json(out, &DeadLetterGroups { groups, next })?;
        return Ok(DONE);
    }
    let row = |group: &DeadLetterGroup| {
        let (letters, replayed) = (group.letters.to_string(), group.replayed.to_string());
        [group.group.clone(), letters, replayed, maybe_time(group.oldest_ms), maybe_time(group.newest_ms)]
    };
    let names = ["group", "letters", "returned", "oldest", "newest"];
    output::table(out, names, groups.iter().map(row), "no group has dead letters")?;
    output::more(out, next.as_ref())?;
    Ok(DONE)
}

fn list(
    remote: &mut Remote,
    ask: &ListDeadLetters,
    part: &PartArgs,
    as_json: bool,
    out: &mut dyn Write,
) -> Result<u8, CommandError> {
    let (letters, next) = gather(part, |after, limit| {
        let ask = ListDeadLetters { after, limit: Some(limit), ..ask.clone() };
        let told: DeadLetters = remote.ask_json(private::DEAD_LETTER_LIST, &ask)?;
        Ok((told.letters, told.next))
    })?;
    if as_json {
        output::json(out, &DeadLetters { letters, next, ..DeadLetters::default() })?;
        return Ok(DONE);
    }
    let names = ["id", "message", "came", "from topic", "keys", "attempts", "bytes", "returned"];
    output::table(out, names, letters.iter().map(row), "no dead letter is such a one")?;
    output::more(out, next.as_ref())?;
    Ok(DONE)
}

fn row(letter: &DeadLetter) -> [String; 8] {
    let message = &letter.message;
    if let Some(fault) = &letter.fault {
        let place = format!("{} queue {} offset {}", message.topic, message.queue, message.queue_offset);
        return [
            place,
            fault.clone(),
            String::new(),
            String::new(),
            String::new(),
            String::new(),
            String::new(),
            String::new(),
        ];
    }
    [
        message.id.clone(),
        maybe(message.unique_key.as_ref()),
        time(message.stored_ms),
        maybe(letter.origin_topic.as_ref()),
        message.keys.join(" "),
        message.attempts.to_string(),
        message.body_bytes.to_string(),
        letter.replayed.as_ref().map(|replayed| replayed.topic.clone()).unwrap_or_default(),
    ]
}

fn by_id(remote: &mut Remote, group: &str, id: &str, whole: bool) -> Result<Vec<DeadLetter>, CommandError> {
    let ask = ListDeadLetters { group: group.to_owned(), id: Some(id.to_owned()), whole, ..ListDeadLetters::default() };
    let part = PartArgs { limit: usize::MAX, after: None };
    let (letters, _) = gather(&part, |after, _| {
        let ask = ListDeadLetters { after, ..ask.clone() };
        let told: DeadLetters = remote.ask_json(private::DEAD_LETTER_LIST, &ask)?;
        Ok((told.letters, told.next))
    })?;
    Ok(letters)
}

fn show(remote: &mut Remote, group: &str, id: &str, as_json: bool, out: &mut dyn Write) -> Result<u8, CommandError> {
    let letters = by_id(remote, group, id, true)?;
    if letters.is_empty() {
        return Err(CommandError::Missing(format!("group {group} has no dead letter {id}")));
    }
    for letter in &letters {
        if as_json {
            output::json(out, letter)?;
            continue;
        }
        let replayed = letter.replayed.as_ref();
        let replayed = replayed.map(|it| format!("{} to {}, {} times in all", time(it.at_ms), it.topic, it.times));
        output::facts(
            out,
            [("from topic", maybe(letter.origin_topic.as_ref())), ("returned", replayed.unwrap_or_default())],
        )?;
        output::message(out, &letter.message)?;
    }
    Ok(DONE)
}

/// Letters on their way back.
struct Replays<'a> {
    remote: Remote,
    replay: ReplayDeadLetter,
    as_json: bool,
    out: &'a mut dyn Write,
    returned: u64,
    refused: u64,
}

impl Replays<'_> {
    fn run(&mut self, ids: &[String], ask: &ListDeadLetters) -> Result<u8, CommandError> {
        for id in ids {
            let letters = by_id(&mut self.remote, &self.replay.group, id, false)?;
            if letters.is_empty() {
                self.say_refused(id, None, &format!("group {} has no dead letter {id}", self.replay.group))?;
            }
            self.send_back(&letters)?;
        }
        if ids.is_empty() {
            self.described(ask)?;
        }
        if !self.as_json {
            writeln!(self.out, "{} dead letters are returned, {} are not", self.returned, self.refused)?;
        }
        Ok(if self.refused > 0 || self.returned == 0 { REFUSED } else { DONE })
    }

    fn described(&mut self, ask: &ListDeadLetters) -> Result<(), CommandError> {
        let mut ask = ask.clone();
        loop {
            let told: DeadLetters = self.remote.ask_json(private::DEAD_LETTER_LIST, &ask)?;
            // What is given up anew meanwhile, perhaps because it was returned, is not meant: that might never end.
            ask.to_ms = Some(ask.to_ms.unwrap_or(u64::MAX).min(told.now_ms.saturating_add(1)));
            self.send_back(&told.letters)?;
            match told.next {
                Some(next) => ask.after = Some(next),
                None => return Ok(()),
            }
        }
    }

    fn send_back(&mut self, letters: &[DeadLetter]) -> Result<(), CommandError> {
        for some in letters.chunks(REPLAYS_AT_ONCE) {
            let (good, bad): (Vec<_>, Vec<_>) = some.iter().partition(|letter| letter.fault.is_none());
            for letter in bad {
                self.refuse(letter, letter.fault.as_deref().unwrap_or_default())?;
            }
            let asks: Vec<_> =
                good.iter().map(|letter| ReplayDeadLetter { lsn: letter.message.lsn, ..self.replay.clone() }).collect();
            let answers = self.remote.ask_all_json(private::DEAD_LETTER_REPLAY, &asks)?;
            for (letter, answer) in good.into_iter().zip(answers) {
                self.say(letter, answer)?;
            }
        }
        Ok(())
    }

    fn say(&mut self, letter: &DeadLetter, answer: Answer) -> Result<(), CommandError> {
        let answer = match answer.done() {
            Ok(answer) => answer,
            Err(error) => return self.refuse(letter, &error.to_string()),
        };
        self.returned += 1;
        let to: ReplayedTo = operate::read(&answer.body).unwrap_or_default();
        let (id, message) = (&letter.message.id, &letter.message.unique_key);
        if self.as_json {
            output::json(self.out, &json!({ "id": id, "message": message, "topic": to.topic, "queue": to.queue }))?;
        } else {
            writeln!(self.out, "{id} is in {} queue {} again", to.topic, to.queue)?;
        }
        Ok(())
    }

    fn refuse(&mut self, letter: &DeadLetter, why: &str) -> Result<(), CommandError> {
        let id = if letter.message.id.is_empty() {
            format!("{}.{}", letter.message.queue, letter.message.queue_offset)
        } else {
            letter.message.id.clone()
        };
        self.say_refused(&id, letter.message.unique_key.as_deref(), why)
    }

    fn say_refused(&mut self, id: &str, message: Option<&str>, why: &str) -> Result<(), CommandError> {
        self.refused += 1;
        if self.as_json {
            output::json(self.out, &json!({ "id": id, "message": message, "refused": why }))?;
        } else {
            writeln!(self.out, "{id} is not returned: {why}")?;
        }
        Ok(())
    }
}

/// Writes letters as lines; says how many.
fn export(remote: &mut Remote, ask: ListDeadLetters, out: &mut dyn Write) -> Result<u64, CommandError> {
    let (mut ask, mut count) = (ask, 0);
    loop {
        let told: DeadLetters = remote.ask_json(private::DEAD_LETTER_LIST, &ask)?;
        for letter in &told.letters {
            output::json(out, letter)?;
            count += 1;
        }
        match told.next {
            Some(next) => ask.after = Some(next),
            None => return Ok(count),
        }
    }
}

/// The same into a file that was not there, which is on the disk when this returns.
fn export_to(remote: &mut Remote, ask: ListDeadLetters, path: &Path) -> Result<u64, CommandError> {
    let named = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
    let mut file = BufWriter::new(File::create_new(path).map_err(named)?);
    let count = export(remote, ask, &mut file)?;
    let file = file.into_inner().map_err(|error| named(error.into_error()))?;
    file.sync_all().map_err(named)?;
    Ok(count)
}
