//! What the doctor says, to people and to scripts.

use std::io::{self, Write};
use std::path::Path;

use anchorlog_engine::io::probe::Sustained;
use serde_json::{Value, json};

use super::findings::{Facts, Finding, Grade, verdict};

pub(super) fn text(out: &mut dyn Write, store: &Path, facts: &Facts, findings: &[Finding]) -> io::Result<()> {
    writeln!(out, "{}: backend {}, {}", store.display(), facts.backend, facts.reason)?;
    for finding in findings {
        let mark = match finding.grade {
            Grade::Good => "ok",
            Grade::Look => "LOOK",
            Grade::Unfit => "UNFIT",
        };
        writeln!(out, "{mark:<6}{:<16}{}", finding.what, finding.says)?;
    }
    writeln!(out, "{}", verdict(facts, findings))
}

pub(super) fn json(out: &mut dyn Write, store: &Path, facts: &Facts, findings: &[Finding]) -> io::Result<()> {
    let told = json!({
        "store": store.display().to_string(),
        "fit": findings.iter().all(|finding| finding.grade != Grade::Unfit),
        "verdict": verdict(facts, findings),
        "findings": findings,
        "kernel": facts.kernel,
        "backend": facts.backend,
        "filesystem": facts.filesystem,
        "ioUring": facts.ring.is_ok(),
        "directIo": facts.direct_io,
        "freeBytes": facts.free_bytes,
        "neededBytes": facts.needed_bytes,
        "memlockBytes": facts.memlock,
        "writeCache": facts.disk.as_ref().map(|disk| &disk.write_cache),
        "fua": facts.disk.as_ref().and_then(|disk| disk.fua),
        "durableWrites": [sizes(&facts.small), sizes(&facts.large)],
    });
    writeln!(out, "{told}")
}

fn sizes(one: &Sustained) -> Value {
    json!({
        "bytes": one.bytes, "count": one.count, "perSecond": one.per_s,
        "p50Us": one.p50_us, "p99Us": one.p99_us, "maxUs": one.max_us,
    })
}
