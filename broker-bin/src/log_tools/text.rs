//! What the log tools say to people.

use std::io::{self, Write};
use std::path::Path;

use anchorlog_engine::audit::{Contents, CutReport, Damage, GiveUpReport, Item, MendReport, Survey};
use anchorlog_engine::commitlog::segment::file_name;

/// What a survey found wrong, and one line that sums it up.
pub(super) fn verdict(out: &mut dyn Write, store: &Path, survey: &Survey) -> io::Result<()> {
    for damage in &survey.damage {
        let goes_on = damage
            .resumes
            .map_or_else(|| "nothing whole follows".to_owned(), |lsn| format!("the log goes on at LSN {lsn}"));
        let (path, trouble) = (damage.path.display(), &damage.trouble);
        writeln!(
            out,
            "damaged: {path} at LSN {}: expected {}, found {}; {goes_on}",
            damage.lsn, trouble.expected, trouble.found
        )?;
    }
    for refused in &survey.refused {
        writeln!(out, "damaged: {refused}")?;
    }
    writeln!(
        out,
        "LSN {} to {}: {} frames, {} records, {} segments and {} prepared",
        survey.manifest.start,
        survey.contents.end,
        survey.contents.frames.values().sum::<u64>(),
        survey.contents.records.values().sum::<u64>(),
        survey.contents.segments.len(),
        survey.prepared_count,
    )?;
    if survey.torn_bytes > 0 {
        writeln!(out, "{} bytes of a torn tail behind the end: the next start cuts them", survey.torn_bytes)?;
    }
    if survey.is_moving {
        writeln!(out, "the log is being written: its end has moved meanwhile")?;
    }
    if survey.is_clean() {
        return writeln!(out, "whole");
    }
    writeln!(out, "{} damaged places.", survey.damage.len() + survey.refused.len())?;
    remedies(out, store, survey)
}

/// What may be done, and what it costs: the cheapest first.
fn remedies(out: &mut dyn Write, store: &Path, survey: &Survey) -> io::Result<()> {
    let repair = format!("    anchorlog log repair --store {}", store.display());
    // Of the log's own places the first one comes first; below its start any may.
    let first = survey.first_cut();
    let is_next = |damage: &&Damage| damage.is_survivor() || Some(damage.lsn) == first;
    let next: Vec<&Damage> = survey.damage.iter().filter(is_next).collect();
    for damage in next.iter().filter(|damage| damage.is_header()) {
        writeln!(out, "To write the header of {} anew, which loses nothing:", damage.path.display())?;
        writeln!(out, "{repair} --give-up {}", damage.lsn)?;
    }
    for damage in survey.damage.iter().filter(|damage| damage.is_stray()) {
        writeln!(out, "To put what is no part of this log out of its way:")?;
        writeln!(out, "    mv {0} {0}.aside", damage.path.display())?;
    }
    if survey.damage.iter().all(|damage| damage.is_header() || damage.is_stray()) {
        return Ok(());
    }
    writeln!(out, "To mend them from a copy of this log, which loses nothing:")?;
    writeln!(out, "{repair} --from-copy DIR")?;
    writeln!(out, "or from a running broker that replicates it:")?;
    writeln!(out, "{repair} --from HOST:PORT")?;
    for damage in next.iter().filter(|damage| damage.can_be_given_up() && !damage.is_header()) {
        let lsn = damage.lsn;
        match damage.resumes {
            Some(to) => writeln!(out, "To give up LSN {lsn} to {to} alone, and keep what follows:")?,
            None => writeln!(out, "To give up the messages that survive in {}:", damage.path.display())?,
        }
        writeln!(out, "{repair} --give-up {lsn}")?;
    }
    let cut = next.iter().find(|damage| !damage.is_survivor() && !damage.is_header());
    let Some(lsn) = cut.map(|damage| damage.lsn) else { return Ok(()) };
    if lsn >= survey.contents.end {
        writeln!(out, "To put that file aside, which is not in use:")?;
    } else {
        writeln!(out, "To give up everything from LSN {lsn} on:")?;
    }
    writeln!(out, "{repair} --cut-from {lsn}")
}

/// What a survey found at all.
pub(super) fn inspection(out: &mut dyn Write, survey: &Survey) -> io::Result<()> {
    let Survey { manifest, contents, .. } = survey;
    let Contents { frames, records, queues, segments, .. } = contents;
    writeln!(out, "store id       {:032x}", manifest.store_id)?;
    writeln!(out, "segment bytes  {}", manifest.geometry.segment_bytes)?;
    writeln!(out, "tail           {:?}", manifest.geometry.tail)?;
    writeln!(out, "log            LSN {} to {}", manifest.start, contents.end)?;
    writeln!(out, "marks          durable LSN {}, acked LSN {}", contents.durable_lsn, contents.acked_lsn)?;
    if let Some(checkpoint) = survey.checkpoint {
        writeln!(out, "checkpoint     to LSN {checkpoint}")?;
    }
    if let Some((first, last)) = contents.store_time_ms {
        writeln!(out, "store times    {first} to {last} ms since 1970")?;
    }
    for start in manifest.history.starts() {
        writeln!(out, "epoch          {} from LSN {}", start.epoch, start.first_lsn)?;
    }
    for (base, segment) in segments {
        writeln!(out, "segment        {} LSN {base} to {}: {} frames", file_name(*base), segment.end, segment.frames)?;
    }
    for (base, count) in &contents.survivors {
        writeln!(out, "survivors      {count} messages of the released segment at LSN {base}")?;
    }
    writeln!(out, "prepared       {} segments", survey.prepared_count)?;
    for (kind, count) in frames {
        writeln!(out, "frames         {count} {kind}")?;
    }
    for (kind, count) in records {
        writeln!(out, "records        {count} {kind}")?;
    }
    for ((name, incarnation), queue) in queues {
        let min = queue.min.unwrap_or(queue.next);
        let again = of_incarnation(*incarnation);
        let dropped = if queue.is_dropped { ", dropped" } else { "" };
        writeln!(
            out,
            "queue          {}{again}: offsets {min} to {}, {} messages, {} bytes{dropped}",
            name.escape_ascii(),
            queue.next,
            queue.messages,
            queue.bytes
        )?;
    }
    if !survey.is_clean() {
        writeln!(
            out,
            "damaged        {} places; `anchorlog log verify` names them",
            survey.damage.len() + survey.refused.len()
        )?;
    }
    if survey.is_moving {
        writeln!(out, "moving         the log is being written: its end has moved meanwhile")?;
    }
    Ok(())
}

/// Which of the queues of one name, where it is not the first.
fn of_incarnation(incarnation: u32) -> String {
    if incarnation == 0 { String::new() } else { format!(" (incarnation {incarnation})") }
}

/// One line of a dump.
pub(super) fn item(out: &mut dyn Write, item: &Item<'_>, payload_bytes: usize) -> io::Result<()> {
    match item {
        Item::Frame { header } => writeln!(
            out,
            "{} frame {}: {} bytes, {} records, epoch {}, {} ms, durable {}, acked {}, follows {:#010x}, is {:#010x}",
            header.lsn,
            header.kind.name(),
            header.frame_len,
            header.record_count,
            header.epoch,
            header.store_time_ms,
            header.durable_lsn,
            header.acked_lsn,
            header.prev_crc,
            header.header_crc,
        ),
        Item::Record { lsn, entry, record } => {
            let shown = super::shown(record.name, record.payload, payload_bytes);
            let more = if shown.len() < record.payload.len() { "…" } else { "" };
            let again = of_incarnation(record.incarnation);
            let target = record.target(*lsn).map_or_else(String::new, |target| format!(", target LSN {target}"));
            writeln!(
                out,
                "{lsn} record {}: {} bytes, name {}{again}, offset {}, tag {}{target}, {} bytes of attributes, {} of payload \"{}\"{more}",
                record.kind.name(),
                entry.len,
                record.name.escape_ascii(),
                entry.queue_offset,
                record.tag,
                record.attributes.len(),
                record.payload.len(),
                shown.escape_ascii(),
            )
        }
        Item::Broken { lsn, resumes, trouble } => {
            writeln!(out, "{lsn} broken to {resumes}: expected {}, found {}", trouble.expected, trouble.found)
        }
        _ => Ok(()),
    }
}

/// What a copy was good for.
pub(super) fn mended(out: &mut dyn Write, store: &Path, report: &MendReport) -> io::Result<()> {
    if report.manifest {
        writeln!(out, "mended: the manifest")?;
    }
    for mended in &report.mended {
        let path = mended.path.display();
        if mended.from == mended.to {
            write!(out, "mended: {path}, its header")?;
        } else {
            write!(out, "mended: {path}, LSN {} to {}", mended.from, mended.to)?;
        }
        match &mended.aside {
            Some(aside) => writeln!(out, "; what was there is now {}", aside.display())?,
            None => writeln!(out)?,
        }
    }
    for (lsn, why) in &report.refused {
        writeln!(out, "not mended: LSN {lsn}: {why}")?;
    }
    verdict(out, store, &report.after)
}

/// What [`anchorlog_engine::audit::give_up`] did.
pub(super) fn given_up(out: &mut dyn Write, report: &GiveUpReport) -> io::Result<()> {
    if report.from == report.to {
        writeln!(out, "mended: the header of the segment at LSN {}; nothing is lost", report.from)?;
    } else if report.survivors.is_empty() {
        writeln!(
            out,
            "given up: LSN {} to {}, with whatever it changed in the table; readers pass over it",
            report.from, report.to
        )?;
    } else {
        writeln!(out, "given up: what survived between LSN {} and {}", report.from, report.to)?;
    }
    for lsn in &report.survivors {
        writeln!(out, "lost: the message at LSN {lsn}")?;
    }
    for lost in &report.lost {
        writeln!(out, "lost: queue {}, offsets {} to {}", lost.queue.escape_ascii(), lost.from, lost.to)?;
    }
    for aside in &report.aside {
        writeln!(out, "kept: {}", aside.display())?;
    }
    Ok(())
}

/// What a cut gave up.
pub(super) fn cut(out: &mut dyn Write, report: &CutReport) -> io::Result<()> {
    writeln!(out, "cut: the log ends at LSN {} now; it went on to at least LSN {}", report.lsn, report.known_end)?;
    writeln!(
        out,
        "lost: {} whole frames with {} records, and all that was in damaged ones",
        report.frames, report.records
    )?;
    for lost in &report.lost {
        writeln!(out, "lost: queue {}, offsets {} to {}", lost.queue.escape_ascii(), lost.from, lost.to)?;
    }
    for aside in &report.aside {
        writeln!(out, "kept: {}", aside.display())?;
    }
    Ok(())
}
