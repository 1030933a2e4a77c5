//! What happens to the cluster: one function for each kind of action, and how often it comes.

use std::time::Duration;

use anchorlog_engine::io::sim::Survival;

use crate::model::Outcome;
use crate::network::{Harm, NODES};
use crate::world::World;

type Action = fn(&mut World) -> Outcome;

/// With its weight, and whether it may take something away from a disk, or the lead from a node.
const ACTIONS: [(usize, bool, Action); 21] = [
    (600, false, append),
    (150, false, append_several),
    (5, true, kill),
    (5, true, lose_power),
    (1, true, lose_power_everywhere),
    (3, true, lose_disk),
    (6, false, block_one_way),
    (3, false, isolate),
    (20, false, heal_network),
    (5, false, pause),
    (10, true, promote),
    (12, false, damage_bytes),
    (8, false, break_connection),
    (5, false, stall_disk),
    (4, false, fill_disk),
    (20, false, heal_disks),
    (8, false, release),
    (20, false, keep),
    (4, true, promote_unsafely),
    (5, true, change_members),
    (5, false, abandon_connection),
];

pub(crate) fn act(world: &mut World) -> Outcome {
    let total = ACTIONS.iter().map(|(weight, _, _)| weight).sum();
    let mut at = world.draws.actions.below(total);
    for (weight, takes, action) in ACTIONS {
        if at < weight {
            return if takes && world.bereft.is_some() { Ok(()) } else { action(world) };
        }
        at -= weight;
    }
    Ok(())
}

fn any_node(world: &mut World) -> usize {
    world.draws.actions.below(NODES)
}

fn append(world: &mut World) -> Outcome {
    let len = 8 + world.draws.actions.below(400);
    for node in 0..NODES {
        world.append(node, len)?;
    }
    Ok(())
}

fn append_several(world: &mut World) -> Outcome {
    for _ in 0..1 + world.draws.actions.below(8) {
        let (node, len) = (any_node(world), 8 + world.draws.actions.below(5000));
        world.append(node, len)?;
    }
    Ok(())
}

fn down_for(world: &mut World, node: usize) {
    let pause = [5, 50, 500, 3000][world.draws.actions.below(4)];
    world.nodes[node].paused = world.now() + Duration::from_millis(pause);
}

fn kill(world: &mut World) -> Outcome {
    let node = any_node(world);
    if world.nodes[node].engine().is_some() {
        world.tally.kills += 1;
        world.note(format!("node {node} is killed"));
        world.kill(node);
        down_for(world, node);
    }
    Ok(())
}

fn survival(world: &mut World) -> Survival {
    [Survival::Seeded, Survival::Seeded, Survival::Nothing, Survival::Everything][world.draws.actions.below(4)]
}

fn lose_power(world: &mut World) -> Outcome {
    let (node, survival) = (any_node(world), survival(world));
    if world.nodes[node].engine().is_some() {
        world.tally.crashes += 1;
        world.note(format!("node {node} loses power: {survival:?}"));
        world.lose_power(node, survival);
        down_for(world, node);
    }
    Ok(())
}

fn lose_power_everywhere(world: &mut World) -> Outcome {
    world.tally.all_crashes += 1;
    world.note("all lose power".to_owned());
    for node in 0..NODES {
        let survival = survival(world);
        if world.nodes[node].engine().is_some() {
            world.lose_power(node, survival);
            down_for(world, node);
        }
    }
    Ok(())
}

fn lose_disk(world: &mut World) -> Outcome {
    let node = any_node(world);
    world.lose_disk(node)
}

fn block_one_way(world: &mut World) -> Outcome {
    let from = any_node(world);
    let to = (from + 1 + world.draws.actions.below(NODES - 1)) % NODES;
    world.tally.partitions += 1;
    world.note(format!("nothing gets from {from} to {to}"));
    world.blocks.set(from, to, true);
    Ok(())
}

fn isolate(world: &mut World) -> Outcome {
    let node = any_node(world);
    world.tally.partitions += 1;
    world.note(format!("node {node} is alone"));
    for other in (0..NODES).filter(|other| *other != node) {
        world.blocks.set(node, other, true);
        world.blocks.set(other, node, true);
    }
    Ok(())
}

fn heal_network(world: &mut World) -> Outcome {
    world.blocks.clear();
    Ok(())
}

fn pause(world: &mut World) -> Outcome {
    let node = any_node(world);
    world.tally.pauses += 1;
    world.note(format!("node {node} stands still"));
    down_for(world, node);
    Ok(())
}

fn promote(world: &mut World) -> Outcome {
    let node = any_node(world);
    world.promote(node, false)
}

/// Somebody says that what a leader acknowledged alone may be lost.
fn promote_unsafely(world: &mut World) -> Outcome {
    let node = any_node(world);
    if world.plan.may_be_alone() { world.promote(node, true) } else { Ok(()) }
}

fn change_members(world: &mut World) -> Outcome {
    world.change_members()
}

/// A follower has forgotten its connection and opens another one; what it said on the first arrives all the same, some of it later.
fn abandon_connection(world: &mut World) -> Outcome {
    let count = world.connections.len();
    if count > 0 {
        let at = world.draws.actions.below(count);
        world.tally.abandoned += u64::from(world.connections[at].at_follower.take().is_some());
    }
    Ok(())
}

fn damage_bytes(world: &mut World) -> Outcome {
    let count = world.connections.len();
    if count > 0 {
        let at = world.draws.actions.below(count);
        let connection = &mut world.connections[at];
        let lane = if world.draws.actions.chance(4) { &mut connection.to_follower } else { &mut connection.to_leader };
        let harm = [Harm::Bit, Harm::Burst, Harm::Gap, Harm::Twice][world.draws.actions.below(4)];
        lane.spoil(harm);
    }
    Ok(())
}

/// A connection breaks; what was on the way is lost from somewhere on, inside a frame or between two.
fn break_connection(world: &mut World) -> Outcome {
    let count = world.connections.len();
    if count > 0 {
        let at = world.draws.actions.below(count);
        let draws = &mut world.draws.actions;
        world.connections[at].to_follower.tear(draws);
        world.connections[at].to_leader.tear(draws);
    }
    Ok(())
}

fn stall_disk(world: &mut World) -> Outcome {
    let node = any_node(world);
    world.tally.stalls += 1;
    world.note(format!("the disk of node {node} stalls"));
    world.nodes[node].disk.hold(true);
    Ok(())
}

fn fill_disk(world: &mut World) -> Outcome {
    let (node, room) = (any_node(world), world.draws.actions.below(200 << 10));
    let disk = &world.nodes[node].disk;
    disk.set_capacity(Some(disk.used_bytes() + room as u64));
    world.tally.full += 1;
    world.note(format!("{room} bytes are free on the disk of node {node}"));
    Ok(())
}

fn heal_disks(world: &mut World) -> Outcome {
    for node in &world.nodes {
        node.disk.hold(false);
        node.disk.set_capacity(None);
    }
    Ok(())
}

fn keep(world: &mut World) -> Outcome {
    for node in 0..NODES {
        world.keep(node)?;
    }
    Ok(())
}

fn release(world: &mut World) -> Outcome {
    let (node, eighths) = (any_node(world), world.draws.actions.below(9) as u64);
    world.release(node, eighths);
    Ok(())
}
