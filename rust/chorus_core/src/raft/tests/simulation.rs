//! Seeded schedules over whole meshes.

use std::time::Duration;

use rand::Rng;

use super::sim::{Node, Sim, TIMEOUT_MS, Weather};
use crate::{
    Error,
    raft::{machine::Machine, planted::Bug},
};

const SECOND: Duration = Duration::from_secs(1);
/// Longer than any schedule.
const FOR_GOOD: Duration = Duration::from_secs(1_000_000);

/// A mesh of `count` voters.
fn mesh(seed: u64, count: usize) -> Sim {
    voters(Sim::new(seed, count))
}

/// All agents become voters.
fn voters(mut sim: Sim) -> Sim {
    let count = sim.nodes.len();
    sim.run_until(SECOND, "the founder leads", |sim| sim.leader().is_some());
    for node in 1..count {
        sim.run_until(10 * SECOND, "a member is admitted", |sim| {
            sim.add(node);
            sim.run(Duration::from_millis(20));
            sim.nodes[node].machine().is_some()
        });
        sim.run_until(10 * SECOND, "a member votes", |sim| {
            sim.vote(node, true);
            sim.run(Duration::from_millis(20));
            sim.nodes[node].machine().is_some_and(Machine::is_voter)
        });
    }
    sim
}

fn calm(sim: &mut Sim) {
    sim.weather = Weather { delay_ms: 3, ..Weather::default() };
    sim.cut.clear();
}

/// Everything that can go wrong at once, then quiet: all must be there.
fn storm(mut sim: Sim, count: usize, span: Duration) {
    let end = sim.now + span;
    while sim.now < end {
        let any = sim.rng.random_range(0..sim.nodes.len());
        let node = sim.wanted[sim.rng.random_range(0..sim.wanted.len())];
        match sim.rng.random_range(0..100) {
            0..=1 if sim.nodes[node].is_running() => {
                let back = Duration::from_millis(sim.rng.random_range(1..1500));
                sim.crash(node, back);
            }
            2..=5 => {
                let operations = sim.rng.random_range(0..12);
                sim.nodes[node].disk.set_fuse(operations);
            }
            6..=8 => {
                sim.weather = Weather {
                    loss: sim.rng.random_range(0.0..0.4),
                    twice: sim.rng.random_range(0.0..0.3),
                    delay_ms: sim.rng.random_range(0..60),
                };
            }
            9..=10 => {
                sim.cut = (0..sim.nodes.len()).filter(|other| *other != node).map(|other| (node, other)).collect()
            }
            11..=20 => calm(&mut sim),
            21..=22 => {
                let voter = sim.rng.random_bool(0.6);
                sim.vote(node, voter);
            }
            23..=24 => replace(&mut sim, count),
            25..=27 if !sim.nodes[any].is_running() => sim.start(any),
            28..=29 => come_back(&mut sim, any, count),
            30 => sim.hand_over(node),
            31..=55 => sim.tend(),
            56..=60 => sim.propose(any),
            _ => sim.propose(node),
        }
        let pause = Duration::from_millis(sim.rng.random_range(2..20));
        sim.run(pause);
    }
    quiet(&mut sim);
}

/// A wanted member is gone with its disk, and another takes its place; unless too few would be left to vote.
fn replace(sim: &mut Sim, count: usize) {
    let place = sim.rng.random_range(0..sim.wanted.len());
    let gone = sim.wanted[place];
    let listing = sim.listing().clone();
    let left = |(node, agent): (usize, &Node)| {
        let votes = listing.id_of(&agent.peer).is_some_and(|id| listing.voters.contains(&id));
        votes && node != gone && sim.wanted.contains(&node)
    };
    if sim.nodes.iter().enumerate().filter(|agent| left(*agent)).count() * 2 <= listing.voters.len() {
        return;
    }
    sim.crash(gone, FOR_GOOD);
    if sim.wanted.len() > count {
        sim.wanted.remove(place);
    } else {
        sim.wanted[place] = sim.new_node();
    }
}

/// An agent that was removed, and was told so by the others or by its own log, joins anew.
fn come_back(sim: &mut Sim, node: usize, count: usize) {
    if sim.was_removed(node) {
        sim.wipe(node);
        if sim.wanted.len() <= count {
            sim.wanted.push(node);
        }
    }
}

/// The storm is over, and whoever still has a disk comes back: the wanted agree, the others are removed.
fn quiet(sim: &mut Sim) {
    calm(sim);
    for node in 0..sim.nodes.len() {
        // A fuse that did not burn would still cut the power now.
        sim.nodes[node].disk.set_fuse(u64::MAX);
        if !sim.nodes[node].is_running() {
            sim.start(node);
        }
    }
    sim.run_until(120 * SECOND, "everybody agrees", |sim| {
        sim.tend();
        sim.run(Duration::from_millis(50));
        sim.is_settled()
    });
    let seed = sim.seed;
    for (id, index) in &sim.acknowledged {
        for node in &sim.wanted {
            let store = &sim.nodes[*node].machine().unwrap().store;
            let entries = store.read(*index, index + 1, u64::MAX).unwrap();
            assert!(String::from_utf8_lossy(&entries[0].data).contains(id.as_str()), "seed {seed}: {id} is lost");
        }
    }
    for node in 0..sim.nodes.len() {
        let leads = sim.nodes[node].machine().is_some_and(Machine::is_leader);
        assert!(sim.wanted.contains(&node) || !leads, "seed {seed}: node {node} was removed and leads");
        let told = sim.nodes[node].knows_of_its_removal();
        assert!(!told || sim.was_removed(node), "seed {seed}: node {node} believes that it was removed");
    }
    let before = sim.acknowledged.len();
    sim.run_until(10 * SECOND, "a proposal counts", |sim| {
        sim.propose(sim.wanted[0]);
        sim.run(Duration::from_millis(50));
        sim.acknowledged.len() > before
    });
}

#[test]
fn three_members_agree_through_any_storm() {
    for seed in seeds(0) {
        storm(mesh(seed, 3), 3, 6 * SECOND);
    }
}

#[test]
fn five_members_agree_through_any_storm() {
    for seed in seeds(10_000) {
        storm(mesh(seed, 5), 5, 6 * SECOND);
    }
}

/// Whether the simulation says so of a machine with a mistake in it, within a few schedules.
fn finds(bug: Bug, what: &str) -> bool {
    (20_000..20_012).any(|seed| {
        let run = || storm(voters(Sim::with_bug(seed, 3, Some(bug))), 3, 6 * SECOND);
        let failure = std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)).err();
        failure.and_then(|failure| failure.downcast::<String>().ok()).is_some_and(|said| said.contains(what))
    })
}

#[test]
fn a_removed_member_that_is_counted_as_a_voter_is_found() {
    assert!(finds(Bug::RemovedVotes, "counts other members than its log says"));
}

#[test]
fn two_changes_at_once_are_found() {
    assert!(finds(Bug::TwoChanges, "changes under way"));
}

#[test]
fn a_change_that_counts_before_it_is_committed_is_found() {
    assert!(finds(Bug::BeforeCommit, "counts other members than its log says"));
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
    let term = sim.nodes[leader].machine().unwrap().node.raft.term;
    for _ in 0..20 {
        let other = (leader + 1) % 3;
        let (reply, _answer) = tokio::sync::oneshot::channel();
        let now = sim.clock();
        sim.nodes[other].machine_mut().unwrap().stand(reply, now);
        sim.run(Duration::from_millis(100));
    }
    assert_eq!(sim.leader(), Some(leader));
    assert_eq!(sim.nodes[leader].machine().unwrap().node.raft.term, term);
}

#[test]
fn an_isolated_leader_steps_down_and_cannot_prove_that_it_leads() {
    let mut sim = mesh(2, 3);
    let leader = sim.leader().unwrap();
    sim.cut = (0..3).filter(|node| *node != leader).map(|node| (leader, node)).collect();
    let (reply, mut answer) = tokio::sync::oneshot::channel();
    sim.nodes[leader].machine_mut().unwrap().read_index(reply);
    sim.run_until(5 * SECOND, "it steps down", |sim| !sim.nodes[leader].machine().unwrap().is_leader());
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
    sim.nodes[leader].machine_mut().unwrap().hand_over(peer, reply, now);
    sim.run_until(5 * SECOND, "node 3 leads", |sim| sim.leader() == Some(3));
    for node in [0, 1] {
        sim.cut.push((2, node));
    }
    sim.start(2);
    sim.run_until(5 * SECOND, "node 2 has caught up", |sim| {
        let applied = |node: usize| sim.nodes[node].machine().unwrap().applied;
        applied(2) == applied(3)
    });
}

/// Whoever is cut off from all but `friend`.
fn only_hears(sim: &mut Sim, node: usize, friend: usize) {
    sim.cut = (0..sim.nodes.len()).filter(|other| ![node, friend].contains(other)).map(|other| (node, other)).collect();
}

fn lead(sim: &mut Sim, node: usize) {
    sim.run_until(10 * SECOND, "another leads", |sim| {
        sim.hand_over(node);
        sim.run(Duration::from_millis(50));
        sim.leader() == Some(node)
    });
}

/// Takes a member's vote and removes it.
fn dismiss(sim: &mut Sim, node: usize) {
    let peer = sim.nodes[node].peer;
    sim.run_until(10 * SECOND, "a member is removed", |sim| {
        let listing = sim.listing();
        match listing.id_of(&peer) {
            Some(id) if listing.voters.contains(&id) => sim.vote(node, false),
            Some(_) => sim.remove(node),
            None => return true,
        }
        sim.run(Duration::from_millis(20));
        false
    });
}

fn catches_up(sim: &mut Sim, node: usize, leader: usize) {
    sim.run_until(5 * SECOND, "it has caught up", |sim| {
        let applied = |node: usize| sim.nodes[node].machine().map(|machine| machine.applied);
        applied(node).is_some() && applied(node) == applied(leader)
    });
}

#[test]
fn a_lagging_member_follows_a_leader_whose_introducer_was_removed_before() {
    let mut sim = mesh(4, 3);
    lead(&mut sim, 1);
    dismiss(&mut sim, 0);
    catches_up(&mut sim, 2, 1);
    // Node 2 lists no founder any more, by whom node 1 was admitted, who admits node 3.
    sim.crash(2, FOR_GOOD);
    let newcomer = sim.new_node();
    sim.start(2);
    admit(&mut sim, newcomer);
    sim.crash(2, FOR_GOOD);
    let newest = sim.new_node();
    admit(&mut sim, newest);
    lead(&mut sim, newest);
    only_hears(&mut sim, 2, newest);
    sim.start(2);
    catches_up(&mut sim, 2, newest);
}

#[test]
fn a_lagging_member_follows_a_leader_whose_introducer_was_removed_since() {
    let mut sim = mesh(6, 3);
    sim.crash(2, FOR_GOOD);
    let introducer = sim.new_node();
    admit(&mut sim, introducer);
    lead(&mut sim, introducer);
    let leader = sim.new_node();
    admit(&mut sim, leader);
    lead(&mut sim, leader);
    dismiss(&mut sim, introducer);
    // It finds out anew who introduced it.
    sim.crash(leader, Duration::from_millis(20));
    sim.run(Duration::from_millis(40));
    sim.run_until(5 * SECOND, "somebody leads", |sim| sim.leader().is_some());
    if sim.leader() != Some(leader) {
        lead(&mut sim, leader);
    }
    only_hears(&mut sim, 2, leader);
    sim.start(2);
    catches_up(&mut sim, 2, leader);
}

#[test]
fn a_removed_member_that_was_cut_off_disturbs_nobody_and_joins_anew() {
    let mut sim = mesh(7, 4);
    lead(&mut sim, 0);
    sim.crash(3, FOR_GOOD);
    dismiss(&mut sim, 3);
    let term = sim.nodes[0].machine().unwrap().node.raft.term;
    sim.start(3);
    // It still believes that it votes: it stands, forwards proposals and acknowledges nothing that counts.
    assert!(sim.nodes[3].machine().unwrap().is_voter());
    for _ in 0..20 {
        let (reply, _answer) = tokio::sync::oneshot::channel();
        let now = sim.clock();
        sim.nodes[3].machine_mut().unwrap().stand(reply, now);
        sim.propose(3);
        sim.run(Duration::from_millis(100));
    }
    assert_eq!(sim.leader(), Some(0));
    assert_eq!(sim.nodes[0].machine().unwrap().node.raft.term, term);
    assert!(sim.acknowledged.is_empty());
    assert!(sim.was_removed(3) && !sim.nodes[3].knows_of_its_removal());
    let old = sim.nodes[3].machine().unwrap().identity.raft_id;
    sim.wipe(3);
    admit(&mut sim, 3);
    let new = sim.nodes[3].machine().unwrap().identity.raft_id;
    assert!(new > old, "{new} after {old}");
    sim.propose(3);
    sim.run_until(5 * SECOND, "its proposal counts", |sim| !sim.acknowledged.is_empty());
}

#[test]
fn a_power_cut_leaves_at_most_one_change_that_is_not_known_to_be_committed() {
    let mut sim = mesh(9, 4);
    lead(&mut sim, 0);
    let voters = |sim: &mut Sim, count: usize| {
        sim.run_until(10 * SECOND, "a vote is given or taken", |sim| {
            sim.vote(1, count == 4);
            sim.run(Duration::from_millis(10));
            sim.listing().voters.len() == count
        });
    };
    for operations in 0..60 {
        // Two changes come in one message, and the power fails after so many writes.
        sim.crash(3, FOR_GOOD);
        voters(&mut sim, 3);
        voters(&mut sim, 4);
        sim.nodes[3].disk.set_fuse(operations);
        sim.start(3);
        sim.run(Duration::from_millis(100));
        sim.nodes[3].disk.set_fuse(u64::MAX);
        sim.run_until(5 * SECOND, "it runs again", |sim| sim.nodes[3].is_running());
        catches_up(&mut sim, 3, 0);
    }
}

#[test]
fn a_leader_changes_no_member_before_it_has_committed_an_entry_of_its_own() {
    let mut sim = mesh(8, 3);
    let old = sim.leader().unwrap();
    sim.run(SECOND);
    sim.crash(old, FOR_GOOD);
    sim.run_until(5 * SECOND, "another leads", |sim| sim.leader().is_some());
    let new = sim.leader().unwrap();
    let (now, peer) = (sim.clock(), sim.nodes[old].peer);
    let machine = sim.nodes[new].machine_mut().unwrap();
    assert!(!machine.node.raft.has_pending_conf(), "its whole log is applied");
    let (reply, mut answer) = tokio::sync::oneshot::channel();
    machine.vote(peer, false, reply, now);
    assert!(matches!(answer.try_recv().unwrap(), Err(Error::Refused(why)) if why.contains("committed nothing")));
    sim.run_until(5 * SECOND, "the vote is taken", |sim| {
        sim.vote(old, false);
        sim.run(Duration::from_millis(20));
        sim.listing().voters.len() == 2
    });
}

fn admit(sim: &mut Sim, node: usize) {
    sim.run_until(10 * SECOND, "a member votes", |sim| {
        if sim.nodes[node].machine().is_none() {
            sim.add(node);
        } else {
            sim.vote(node, true);
        }
        sim.run(Duration::from_millis(20));
        sim.nodes[node].machine().is_some_and(Machine::is_voter)
    });
}
