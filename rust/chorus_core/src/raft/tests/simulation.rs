//! Seeded schedules over whole meshes.

use std::time::Duration;

use rand::Rng;

use super::sim::{Sim, TIMEOUT_MS, Weather};
use crate::raft::machine::Machine;

const SECOND: Duration = Duration::from_secs(1);

/// A mesh of `count` voters.
fn mesh(seed: u64, count: usize) -> Sim {
    let mut sim = Sim::new(seed, count);
    sim.run_until(SECOND, "the founder leads", |sim| sim.leader().is_some());
    for node in 1..count {
        sim.run_until(10 * SECOND, "a member is admitted", |sim| {
            sim.add(node);
            sim.run(Duration::from_millis(20));
            sim.nodes[node].machine.is_some()
        });
        sim.run_until(10 * SECOND, "a member votes", |sim| {
            sim.vote(node, true);
            sim.run(Duration::from_millis(20));
            sim.nodes[node].machine.as_ref().is_some_and(Machine::is_voter)
        });
    }
    sim
}

fn calm(sim: &mut Sim) {
    sim.weather = Weather { delay_ms: 3, ..Weather::default() };
    sim.cut.clear();
}

/// Everything that can go wrong at once, then quiet: all must be there.
fn storm(seed: u64, count: usize, span: Duration) {
    let mut sim = mesh(seed, count);
    let end = sim.now + span;
    while sim.now < end {
        match sim.rng.random_range(0..100) {
            0..=2 => {
                let node = sim.rng.random_range(0..count);
                if sim.nodes[node].machine.is_some() {
                    let back = Duration::from_millis(sim.rng.random_range(1..1500));
                    sim.crash(node, back);
                }
            }
            3..=8 => {
                let node = sim.rng.random_range(0..count);
                let operations = sim.rng.random_range(0..12);
                sim.nodes[node].disk.set_fuse(operations);
            }
            9..=12 => {
                sim.weather = Weather {
                    loss: sim.rng.random_range(0.0..0.4),
                    twice: sim.rng.random_range(0.0..0.3),
                    delay_ms: sim.rng.random_range(0..60),
                };
            }
            13..=15 => {
                let lonely = sim.rng.random_range(0..count);
                sim.cut = (0..count).filter(|node| *node != lonely).map(|node| (lonely, node)).collect();
            }
            16..=20 => calm(&mut sim),
            21..=23 => {
                let (node, voter) = (sim.rng.random_range(0..count), sim.rng.random_bool(0.6));
                sim.vote(node, voter);
            }
            _ => {
                let node = sim.rng.random_range(0..count);
                sim.propose(node);
            }
        }
        let pause = Duration::from_millis(sim.rng.random_range(2..20));
        sim.run(pause);
    }
    calm(&mut sim);
    for node in 0..count {
        // A fuse that did not burn would still cut the power now.
        sim.nodes[node].disk.set_fuse(u64::MAX);
    }
    sim.run_until(60 * SECOND, "everybody agrees", |sim| {
        sim.run(Duration::from_millis(50));
        sim.is_settled()
    });
    assert!(!sim.acknowledged.is_empty(), "seed {seed}: nothing was ever committed");
    for (id, index) in &sim.acknowledged {
        for node in &sim.nodes {
            let store = &node.machine.as_ref().unwrap().store;
            let entries = store.read(*index, index + 1, u64::MAX).unwrap();
            assert!(String::from_utf8_lossy(&entries[0].data).contains(id.as_str()), "seed {seed}: {id} is lost");
        }
    }
}

#[test]
fn three_members_agree_through_any_storm() {
    for seed in seeds(0) {
        storm(seed, 3, 6 * SECOND);
    }
}

#[test]
fn five_members_agree_through_any_storm() {
    for seed in seeds(10_000) {
        storm(seed, 5, 6 * SECOND);
    }
}

/// How many schedules; set RAFT_SEEDS for a longer hunt.
fn seeds(base: u64) -> std::ops::Range<u64> {
    let count = std::env::var("RAFT_SEEDS").ok().and_then(|count| count.parse().ok()).unwrap_or(12);
    base..base + count
}

#[test]
fn a_lost_leader_is_replaced_within_a_second_of_its_last_word() {
    for seed in 0..20 {
        let mut sim = mesh(seed, 3);
        let leader = sim.leader().unwrap();
        let died = sim.now;
        sim.crash(leader, 100 * SECOND);
        sim.run_until(5 * SECOND, "another leads", |sim| sim.leader().is_some());
        let took = sim.now - died;
        assert!(took <= Duration::from_millis(TIMEOUT_MS) + SECOND, "seed {seed}: {took:?}");
    }
}

#[test]
fn a_leader_that_is_heard_is_not_disturbed_by_a_candidate() {
    let mut sim = mesh(1, 3);
    let leader = sim.leader().unwrap();
    let term = sim.nodes[leader].machine.as_ref().unwrap().node.raft.term;
    for _ in 0..20 {
        let other = (leader + 1) % 3;
        let (reply, _answer) = tokio::sync::oneshot::channel();
        let now = sim.clock();
        sim.nodes[other].machine.as_mut().unwrap().stand(reply, now);
        sim.run(Duration::from_millis(100));
    }
    assert_eq!(sim.leader(), Some(leader));
    assert_eq!(sim.nodes[leader].machine.as_ref().unwrap().node.raft.term, term);
}

#[test]
fn an_isolated_leader_steps_down_and_cannot_prove_that_it_leads() {
    let mut sim = mesh(2, 3);
    let leader = sim.leader().unwrap();
    sim.cut = (0..3).filter(|node| *node != leader).map(|node| (leader, node)).collect();
    let (reply, mut answer) = tokio::sync::oneshot::channel();
    sim.nodes[leader].machine.as_mut().unwrap().read_index(reply);
    sim.run_until(5 * SECOND, "it steps down", |sim| !sim.nodes[leader].machine.as_ref().unwrap().is_leader());
    assert!(answer.try_recv().unwrap().is_err());
    sim.run_until(5 * SECOND, "another leads", |sim| sim.leader().is_some_and(|other| other != leader));
}

#[test]
fn a_lagging_member_follows_a_leader_that_joined_meanwhile() {
    let mut sim = Sim::new(3, 4);
    sim.run_until(SECOND, "the founder leads", |sim| sim.leader().is_some());
    for node in 1..3 {
        admit(&mut sim, node);
    }
    // Node 2 sleeps while node 3 joins, gets a vote and comes to lead.
    sim.crash(2, 1000 * SECOND);
    admit(&mut sim, 3);
    let leader = sim.leader().unwrap();
    let (reply, _answer) = tokio::sync::oneshot::channel();
    let (now, peer) = (sim.clock(), sim.nodes[3].peer);
    sim.nodes[leader].machine.as_mut().unwrap().hand_over(peer, reply, now);
    sim.run_until(5 * SECOND, "node 3 leads", |sim| sim.leader() == Some(3));
    for node in [0, 1] {
        sim.cut.push((2, node));
    }
    sim.start(2);
    sim.run_until(5 * SECOND, "node 2 has caught up", |sim| {
        let applied = |node: usize| sim.nodes[node].machine.as_ref().unwrap().applied;
        applied(2) == applied(3)
    });
}

fn admit(sim: &mut Sim, node: usize) {
    sim.run_until(10 * SECOND, "a member votes", |sim| {
        if sim.nodes[node].machine.is_none() {
            sim.add(node);
        } else {
            sim.vote(node, true);
        }
        sim.run(Duration::from_millis(20));
        sim.nodes[node].machine.as_ref().is_some_and(Machine::is_voter)
    });
}
