//! What happens to the two.

use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::client::Told;
use crate::load::Load;
use crate::pair::{BACK, Pair};

/// Long enough for a leader to notice a slave that is silent.
const LONG: Duration = Duration::from_secs(4);

fn begin() -> (Pair, Load) {
    let pair = Pair::started();
    let load = Load::start(pair.leader());
    let begun = Instant::now();
    load.acknowledged_after(begun, BACK);
    std::thread::sleep(Duration::from_millis(500));
    (pair, load)
}

/// Nothing is acknowledged while it lasts, but what was on its way at its beginning.
fn nothing_is_acknowledged(load: &Load, lasting: Duration) {
    std::thread::sleep(Duration::from_millis(100));
    let since = Instant::now();
    std::thread::sleep(lasting);
    let told = load.told_since(since);
    assert!(!told.is_empty() && !told.contains(&Told::Code(0)), "acknowledged without the slave: {told:?}");
}

fn back(load: &Load, healed: Instant) {
    let took = load.acknowledged_after(healed, BACK);
    println!("back after {took:?}");
    std::thread::sleep(Duration::from_millis(500));
}

#[test]
fn a_slave_that_is_killed_takes_no_acknowledgement_with_it_and_comes_back() {
    let (mut pair, load) = begin();
    pair.kill(1);
    nothing_is_acknowledged(&load, LONG);
    let healed = Instant::now();
    pair.start(1);
    back(&load, healed);
    pair.judge(load, false);
}

#[test]
fn a_leader_that_is_killed_leads_again_with_everything_it_acknowledged() {
    let (mut pair, load) = begin();
    for _ in 0..3 {
        pair.kill(0);
        let healed = Instant::now();
        pair.start(0);
        back(&load, healed);
    }
    pair.judge(load, true);
}

#[test]
fn a_slave_that_stands_still_is_waited_for_no_longer_than_a_client_waits() {
    let (pair, load) = begin();
    pair.signal(1, Signal::SIGSTOP);
    nothing_is_acknowledged(&load, LONG);
    let healed = Instant::now();
    pair.signal(1, Signal::SIGCONT);
    back(&load, healed);
    pair.judge(load, false);
}

#[test]
fn a_wire_that_swallows_what_goes_to_the_slave_acknowledges_nothing() {
    let (pair, load) = begin();
    // The slave connects: what goes back is the leader's.
    pair.proxies[0].swallow(false, true);
    nothing_is_acknowledged(&load, LONG);
    let healed = Instant::now();
    pair.proxies[0].swallow(false, false);
    back(&load, healed);
    pair.judge(load, false);
}

#[test]
fn a_wire_that_swallows_what_the_slave_answers_acknowledges_nothing() {
    let (pair, load) = begin();
    pair.proxies[0].swallow(true, false);
    nothing_is_acknowledged(&load, LONG);
    let healed = Instant::now();
    pair.proxies[0].swallow(false, false);
    back(&load, healed);
    pair.judge(load, false);
}

#[test]
fn a_wire_that_swallows_everything_acknowledges_nothing() {
    let (pair, load) = begin();
    for proxy in &pair.proxies {
        proxy.swallow(true, true);
    }
    nothing_is_acknowledged(&load, 2 * LONG);
    let healed = Instant::now();
    for proxy in &pair.proxies {
        proxy.swallow(false, false);
    }
    back(&load, healed);
    pair.judge(load, false);
}

#[test]
fn a_wire_that_is_cut_at_any_byte_costs_no_message() {
    let (pair, load) = begin();
    for round in 0..60_u64 {
        pair.proxies[0].cut_after(round * round * 97 % 20_011);
        pair.proxies[0].cut();
        std::thread::sleep(Duration::from_millis(120));
    }
    let healed = Instant::now();
    pair.proxies[0].cut_after(u64::MAX);
    pair.proxies[0].cut();
    back(&load, healed);
    pair.judge(load, false);
}

#[test]
fn a_slave_that_was_wiped_begins_anew_and_counts_when_it_has_everything() {
    let (mut pair, load) = begin();
    pair.kill(1);
    std::fs::remove_dir_all(pair.store(1)).unwrap();
    nothing_is_acknowledged(&load, Duration::from_secs(3));
    let healed = Instant::now();
    pair.start(1);
    back(&load, healed);
    pair.judge(load, false);
}

#[test]
fn a_slave_whose_files_may_not_grow_takes_nothing_and_goes_on_when_they_may() {
    let (pair, load) = begin();
    // Less than a segment: what is written there next fails.
    pair.limit_files(1, "100000");
    let begun = Instant::now();
    while load.told_since(Instant::now() - Duration::from_millis(300)).contains(&Told::Code(0)) {
        assert!(begun.elapsed() < BACK, "the slave's disk has room for ever");
        std::thread::sleep(Duration::from_millis(50));
    }
    nothing_is_acknowledged(&load, LONG);
    let healed = Instant::now();
    pair.limit_files(1, "unlimited");
    back(&load, healed);
    pair.judge(load, false);
}

/// Turns bytes around in the oldest file of a store that nobody has open.
fn rot(store: &Path) {
    let names = std::fs::read_dir(store).unwrap().map(|entry| entry.unwrap().path());
    let oldest = names.filter(|path| path.extension().is_some_and(|end| end == "seg")).min().unwrap();
    let file = std::fs::OpenOptions::new().read(true).write(true).open(oldest).unwrap();
    let mut bytes = [0; 20_000];
    file.read_exact_at(&mut bytes, 30_000).unwrap();
    bytes.iter_mut().for_each(|byte| *byte = !*byte);
    file.write_all_at(&bytes, 30_000).unwrap();
    file.sync_all().unwrap();
    // With it, opening would not read so far back.
    let _none_yet = std::fs::remove_file(store.join("DERIVED")).is_err();
}

#[test]
fn a_store_that_rotted_while_it_was_closed_is_repaired_from_the_other_by_hand_and_by_itself() {
    let (mut pair, load) = begin();
    std::thread::sleep(Duration::from_secs(1));
    pair.kill(1);
    rot(&pair.store(1));
    let (code, said) = pair.log_tool(1, &["verify"]);
    assert_eq!(code, Some(1), "{said}");
    let leader = pair.replica(0);
    let (code, said) = pair.log_tool(1, &["repair", "--from", &leader]);
    assert!(code == Some(0) && said.contains("mended: ") && said.ends_with("whole\n"), "{code:?}: {said}");
    let healed = Instant::now();
    pair.start(1);
    back(&load, healed);
    for at in [1, 0] {
        pair.kill(at);
        rot(&pair.store(at));
        let healed = Instant::now();
        pair.start(at);
        back(&load, healed);
        assert!(pair.said(at).contains("is whole again"), "{}", pair.said(at));
    }
    pair.judge(load, true);
}
