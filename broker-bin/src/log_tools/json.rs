//! What the log tools say to programs. Names are kept; new ones may come.

use anchorlog_engine::audit::{Item, Survey};
use anchorlog_engine::commitlog::segment::file_name;
use serde_json::{Value, json};

/// What a survey found wrong.
pub(super) fn verdict(survey: &Survey) -> Value {
    let damage = survey.damage.iter().map(|damage| {
        json!({
            "file": damage.path.display().to_string(),
            "lsn": damage.lsn.0,
            "resumes": damage.resumes.map(|lsn| lsn.0),
            "expected": damage.trouble.expected,
            "found": damage.trouble.found,
            "header": damage.is_header(),
            "survivor": damage.is_survivor(),
            "stray": damage.is_stray(),
            "can_be_given_up": damage.can_be_given_up(),
        })
    });
    json!({
        "clean": survey.is_clean(),
        "damage": damage.collect::<Vec<_>>(),
        "refused": survey.refused,
        "start": survey.manifest.start.0,
        "end": survey.contents.end.0,
        "frames": survey.contents.frames.values().sum::<u64>(),
        "records": survey.contents.records.values().sum::<u64>(),
        "torn_bytes": survey.torn_bytes,
        "moving": survey.is_moving,
    })
}

/// What a survey found at all.
pub(super) fn inspection(survey: &Survey) -> Value {
    let contents = &survey.contents;
    let epochs = survey.manifest.history.starts().iter();
    let epochs = epochs.map(|start| json!({ "epoch": start.epoch.to_string(), "first_lsn": start.first_lsn.0 }));
    let segments = contents.segments.iter().map(|(base, segment)| {
        json!({ "file": file_name(*base), "base": base.0, "end": segment.end.0, "frames": segment.frames })
    });
    let queues = contents.queues.iter().map(|((name, incarnation), queue)| {
        json!({
            "name": name.escape_ascii().to_string(),
            "incarnation": incarnation,
            "min": queue.min.unwrap_or(queue.next).0,
            "next": queue.next.0,
            "messages": queue.messages,
            "bytes": queue.bytes,
            "dropped": queue.is_dropped,
        })
    });
    json!({
        "store_id": format!("{:032x}", survey.manifest.store_id),
        "segment_bytes": survey.manifest.geometry.segment_bytes,
        "tail": format!("{:?}", survey.manifest.geometry.tail).to_lowercase(),
        "start": survey.manifest.start.0,
        "end": contents.end.0,
        "durable_lsn": contents.durable_lsn.0,
        "acked_lsn": contents.acked_lsn.0,
        "checkpoint_lsn": survey.checkpoint.map(|checkpoint| checkpoint.0),
        "first_store_time_ms": contents.store_time_ms.map(|(first, _)| first),
        "last_store_time_ms": contents.store_time_ms.map(|(_, last)| last),
        "epochs": epochs.collect::<Vec<_>>(),
        "segments": segments.collect::<Vec<_>>(),
        "prepared_segments": survey.prepared_count,
        "survivors": contents.survivors.iter().map(|(base, count)| json!({ "base": base.0, "messages": count })).collect::<Vec<_>>(),
        "frames": contents.frames,
        "records": contents.records,
        "queues": queues.collect::<Vec<_>>(),
        "damaged_places": survey.damage.len(),
        "moving": survey.is_moving,
    })
}

/// One line of a dump.
pub(super) fn item(item: &Item<'_>, payload_bytes: usize) -> Value {
    match item {
        Item::Frame { header } => json!({
            "lsn": header.lsn.0,
            "frame": header.kind.name(),
            "bytes": header.frame_len,
            "records": header.record_count,
            "epoch": header.epoch.to_string(),
            "store_time_ms": header.store_time_ms,
            "durable_lsn": header.durable_lsn.0,
            "acked_lsn": header.acked_lsn.0,
            "prev_crc": header.prev_crc,
            "header_crc": header.header_crc,
        }),
        Item::Record { lsn, entry, record } => json!({
            "lsn": lsn.0,
            "record": record.kind.name(),
            "bytes": entry.len,
            "name": record.name.escape_ascii().to_string(),
            "incarnation": record.incarnation,
            "target": record.target(*lsn).map(|target| target.0),
            "queue_offset": entry.queue_offset.0,
            "tag": record.tag,
            "attributes_bytes": record.attributes.len(),
            "payload_bytes": record.payload.len(),
            "payload": super::shown(record.name, record.payload, payload_bytes).escape_ascii().to_string(),
        }),
        Item::Broken { lsn, resumes, trouble } => json!({
            "lsn": lsn.0,
            "broken_to": resumes.0,
            "expected": trouble.expected,
            "found": trouble.found,
        }),
        _ => Value::Null,
    }
}
