//! Whom to dial and when: the operator's bootstrap addresses, known peers and peers found by mDNS, with backoff. Pure:
//! time comes in as an argument and what to dial goes out; names are resolved and dials made by the loop.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use libp2p::{Multiaddr, PeerId};

/// A reached bootstrap address is looked at again after this: the name may stand for more peers by then.
const AGAIN: Duration = Duration::from_secs(30);
/// A name that stands for nobody yet, or for this agent alone, is looked up again after this: agents that start together
/// have to find each other before each founds a mesh of its own. Nobody is dialled for it.
const NAME_AGAIN: Duration = Duration::from_secs(2);
/// Backoff of bootstrap addresses that fail, first and at most.
const BOOTSTRAP_BACKOFF: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(10));
/// Backoff of peers that were connected before.
const LOST_BACKOFF: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));
/// Backoff of other peers that fail; an agent of another cluster in the same network stays at the most.
const PEER_BACKOFF: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(300));
/// Each wait is so many times the one before: after an outage nobody waits for much longer than half of it.
const GROWTH: f64 = 1.5;
const GROWTHS_MAX: i32 = 32;
/// A bootstrap address that failed so often in a row is told of, once.
const FAILURES_UNTIL_NEWS: i32 = 6;
/// A lost peer is dialled again after this, so that its own attempt may come first.
const LOST: Duration = Duration::from_millis(500);
/// Peers to dial that are remembered; a new one takes the place of the least promising.
const TARGETS_MAX: usize = 1024;
/// A peer that was announced and never reached is forgotten when it was not announced again for so long, and one that
/// was connected before after the longer time. The operator's addresses stay.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(3600);
const LOST_FORGOTTEN_AFTER: Duration = Duration::from_secs(7 * 24 * 3600);
/// Addresses of one peer.
const ADDRESSES_MAX: usize = 16;

/// What is dialled.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Target {
    /// A bootstrap address as the operator wrote it.
    Bootstrap(String),
    /// A peer.
    Peer(PeerId),
}

#[derive(Debug)]
struct Entry {
    addresses: Vec<Multiaddr>,
    failures: i32,
    backoff: (Duration, Duration),
    next: Instant,
    /// When it was last announced or connected.
    heard: Instant,
    /// Whether a connection to it stood before.
    reached: bool,
}

impl Entry {
    fn new(backoff: (Duration, Duration), now: Instant) -> Self {
        Self { addresses: Vec::new(), failures: 0, backoff, next: now, heard: now, reached: false }
    }

    fn is_forgotten(&self, now: Instant) -> bool {
        let patience = if self.reached { LOST_FORGOTTEN_AFTER } else { FORGOTTEN_AFTER };
        now.saturating_duration_since(self.heard) >= patience
    }
}

/// The plan.
#[derive(Debug, Default)]
pub struct Dialer {
    targets: HashMap<Target, Entry>,
    /// Who was met behind bootstrap addresses without a peer id.
    met: HashMap<Multiaddr, PeerId>,
}

impl Dialer {
    /// Adds an operator's address, due at once.
    pub fn add_bootstrap(&mut self, address: &str, now: Instant) {
        self.targets.insert(Target::Bootstrap(address.to_owned()), Entry::new(BOOTSTRAP_BACKOFF, now));
    }

    /// Adds a peer's address; what is new is tried at once.
    pub fn add_peer(&mut self, peer: PeerId, address: &Multiaddr, now: Instant) {
        let key = Target::Peer(peer);
        if self.targets.len() >= TARGETS_MAX && !self.targets.contains_key(&key) && !self.make_room() {
            return;
        }
        let entry = self.targets.entry(key).or_insert_with(|| Entry::new(PEER_BACKOFF, now));
        entry.heard = now;
        if !entry.addresses.contains(address) {
            entry.addresses.insert(0, address.clone());
            entry.addresses.truncate(ADDRESSES_MAX);
            entry.failures = 0;
            entry.next = now;
        }
    }

    /// Forgets the peer that was never reached and was announced the longest ago; false when there is none.
    fn make_room(&mut self) -> bool {
        let unreached = |(target, entry): &(&Target, &Entry)| matches!(target, Target::Peer(_)) && !entry.reached;
        let oldest = self.targets.iter().filter(unreached).min_by_key(|(_, entry)| entry.heard);
        let oldest = oldest.map(|(target, _)| target.clone());
        oldest.is_some_and(|target| self.targets.remove(&target).is_some())
    }

    /// What is due, each with its addresses; it is not due again before it succeeded, failed or [`AGAIN`] passed.
    pub fn due(&mut self, now: Instant, connected: impl Fn(&PeerId) -> bool) -> Vec<(Target, Vec<Multiaddr>)> {
        self.targets.retain(|target, entry| match target {
            Target::Bootstrap(_) => true,
            Target::Peer(peer) if connected(peer) => {
                entry.heard = now;
                true
            }
            Target::Peer(_) => !entry.is_forgotten(now),
        });
        let mut due = Vec::new();
        for (target, entry) in self.targets.iter_mut().filter(|(_, entry)| entry.next <= now) {
            entry.next = now + AGAIN;
            if !matches!(target, Target::Peer(peer) if connected(peer)) {
                due.push((target.clone(), entry.addresses.clone()));
            }
        }
        due
    }

    /// A dial of this target failed; `spread` from 0 to 1 spreads the next attempts. True when an operator should hear
    /// of it: an address of theirs has failed for some seconds. Others that start at the same time are up by then.
    pub fn failed(&mut self, target: &Target, now: Instant, spread: f64) -> bool {
        let mut news = false;
        if let Some(entry) = self.targets.get_mut(target) {
            let (first, most) = entry.backoff;
            let wait = first.mul_f64(GROWTH.powi(entry.failures)).min(most);
            entry.failures = (entry.failures + 1).min(GROWTHS_MAX);
            entry.next = now + wait.mul_f64(0.75 + spread.clamp(0.0, 1.0) / 2.0);
            news = matches!(target, Target::Bootstrap(_)) && entry.failures == FAILURES_UNTIL_NEWS;
        }
        news
    }

    /// A dial of this target succeeded.
    pub fn succeeded(&mut self, target: &Target, now: Instant) {
        if let Some(entry) = self.targets.get_mut(target) {
            entry.failures = 0;
            entry.next = now + AGAIN;
            entry.heard = now;
            entry.reached = true;
        }
    }

    /// The last connection to a peer closed.
    pub fn lost(&mut self, peer: PeerId, addresses: &[Multiaddr], now: Instant, spread: f64) {
        addresses.iter().for_each(|address| self.add_peer(peer, address, now));
        if let Some(entry) = self.targets.get_mut(&Target::Peer(peer)) {
            entry.failures = 0;
            entry.heard = now;
            entry.reached = true;
            entry.backoff = LOST_BACKOFF;
            entry.next = now + LOST.mul_f64(0.5 + spread.clamp(0.0, 1.0));
        }
    }

    /// Forgets a peer, and where it was met.
    pub fn forget_peer(&mut self, peer: &PeerId) {
        self.targets.remove(&Target::Peer(*peer));
        self.met.retain(|_, met| met != peer);
    }

    /// Whoever is behind this address cannot be told yet: its name stands for nobody, or for this agent alone.
    pub fn nobody(&mut self, target: &Target, now: Instant, spread: f64) {
        if let Some(entry) = self.targets.get_mut(target) {
            entry.next = now + NAME_AGAIN.mul_f64(0.75 + spread.clamp(0.0, 1.0) / 2.0);
        }
    }

    /// Addresses that were announced for a peer.
    pub fn addresses(&self, peer: PeerId) -> Vec<Multiaddr> {
        self.targets.get(&Target::Peer(peer)).map(|entry| entry.addresses.clone()).unwrap_or_default()
    }

    /// Notes who answered at an address.
    pub fn meet(&mut self, address: Multiaddr, peer: PeerId) {
        if self.met.len() >= TARGETS_MAX && !self.met.contains_key(&address) {
            self.met.clear();
        }
        self.met.insert(address, peer);
    }

    /// Who answered at an address before.
    pub fn met(&self, address: &Multiaddr) -> Option<PeerId> {
        self.met.get(address).copied()
    }

    /// The address turned out to lead elsewhere now.
    pub fn forget(&mut self, address: &Multiaddr) {
        self.met.remove(address);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed test is a panic")]
mod tests {
    use super::*;

    #[test]
    fn failures_back_off_and_success_starts_over() {
        let (mut dialer, start, peer) = (Dialer::default(), Instant::now(), PeerId::random());
        dialer.add_peer(peer, &"/ip4/127.0.0.1/tcp/1".parse().unwrap(), start);
        let target = Target::Peer(peer);
        let mut now = start;
        let mut waits = Vec::new();
        for _ in 0..24 {
            assert_eq!(dialer.due(now, |_| false).len(), 1);
            dialer.failed(&target, now, 0.5);
            assert!(dialer.due(now, |_| false).is_empty());
            let next = dialer.targets[&target].next;
            waits.push(next - now);
            now = next;
        }
        assert!(waits.windows(2).all(|pair| pair[0] <= pair[1]));
        assert_eq!(*waits.last().unwrap(), PEER_BACKOFF.1);
        // Announced again at the same address: no spinning. At a new one: at once.
        dialer.add_peer(peer, &"/ip4/127.0.0.1/tcp/1".parse().unwrap(), now);
        dialer.failed(&target, now, 0.5);
        assert!(dialer.due(now, |_| false).is_empty());
        dialer.add_peer(peer, &"/ip4/127.0.0.1/tcp/2".parse().unwrap(), now);
        assert_eq!(dialer.due(now, |_| false).len(), 1);
        dialer.lost(peer, &[], now, 0.5);
        assert_eq!(dialer.due(now + LOST, |_| false).len(), 1);
        assert!(dialer.due(now + AGAIN + LOST, |_| true).is_empty());
    }

    #[test]
    fn who_was_lost_is_dialled_again_soon_after_an_outage() {
        let (mut dialer, start, peer) = (Dialer::default(), Instant::now(), PeerId::random());
        dialer.lost(peer, &["/ip4/127.0.0.1/tcp/1".parse().unwrap()], start, 0.5);
        let mut now = start + LOST;
        for _ in 0..100 {
            assert_eq!(dialer.due(now, |_| false).len(), 1);
            dialer.failed(&Target::Peer(peer), now, 1.0);
            let wait = dialer.targets[&Target::Peer(peer)].next - now;
            let away = now - start;
            assert!(wait <= away.mul_f64(0.7).max(LOST * 3), "{wait:?} after {away:?}");
            assert!(wait <= LOST_BACKOFF.1.mul_f64(1.25));
            now += wait;
        }
    }

    #[test]
    fn peers_that_stay_away_are_forgotten_and_the_operators_addresses_are_not() {
        let (mut dialer, start) = (Dialer::default(), Instant::now());
        let (announced, lost, here) = (PeerId::random(), PeerId::random(), PeerId::random());
        let address = "/ip4/127.0.0.1/tcp/1".parse().unwrap();
        dialer.add_bootstrap("/dns4/nowhere/tcp/9000", start);
        [announced, lost, here].iter().for_each(|peer| dialer.add_peer(*peer, &address, start));
        dialer.lost(lost, &[], start, 0.5);
        let mut left = |after: Duration| {
            dialer.due(start + after, |peer| *peer == here);
            [announced, lost, here].map(|peer| dialer.targets.contains_key(&Target::Peer(peer)))
        };
        assert_eq!(left(FORGOTTEN_AFTER - AGAIN), [true, true, true]);
        assert_eq!(left(FORGOTTEN_AFTER), [false, true, true]);
        assert_eq!(left(LOST_FORGOTTEN_AFTER), [false, false, true]);
        assert_eq!(dialer.targets.len(), 2);
    }

    #[test]
    fn a_flood_of_announcements_pushes_out_its_own_kind_only() {
        let (mut dialer, now, lost) = (Dialer::default(), Instant::now(), PeerId::random());
        let address = "/ip4/127.0.0.1/tcp/1".parse().unwrap();
        dialer.add_bootstrap("/dns4/nowhere/tcp/9000", now);
        dialer.lost(lost, std::slice::from_ref(&address), now, 0.5);
        (0..2 * TARGETS_MAX).for_each(|_| dialer.add_peer(PeerId::random(), &address, now));
        let newcomer = PeerId::random();
        dialer.add_peer(newcomer, &address, now + AGAIN);
        assert_eq!(dialer.targets.len(), TARGETS_MAX);
        for target in [Target::Peer(lost), Target::Peer(newcomer), Target::Bootstrap("/dns4/nowhere/tcp/9000".into())] {
            assert!(dialer.targets.contains_key(&target), "{target:?}");
        }
    }

    #[test]
    fn who_has_left_is_forgotten_with_where_it_was_met() {
        let (mut dialer, now) = (Dialer::default(), Instant::now());
        let (gone, stays) = (PeerId::random(), PeerId::random());
        for (peer, port) in [(gone, 1), (stays, 2)] {
            let address: Multiaddr = format!("/ip4/127.0.0.1/tcp/{port}").parse().unwrap();
            dialer.add_peer(peer, &address, now);
            dialer.meet(address, peer);
        }
        dialer.forget_peer(&gone);
        let due: Vec<Target> = dialer.due(now, |_| false).into_iter().map(|(target, _)| target).collect();
        assert_eq!((due, dialer.met.len()), (vec![Target::Peer(stays)], 1));
        assert!(dialer.addresses(gone).is_empty());
    }

    #[test]
    fn a_name_that_stands_for_nobody_is_looked_up_within_three_seconds() {
        let (mut dialer, now) = (Dialer::default(), Instant::now());
        dialer.add_bootstrap("/dns4/tasks.chorus/tcp/9000", now);
        let target = Target::Bootstrap("/dns4/tasks.chorus/tcp/9000".into());
        for spread in [0.0, 0.5, 1.0] {
            // However often nobody was found before.
            (0..50).for_each(|_| _ = dialer.failed(&target, now, spread));
            dialer.nobody(&target, now, spread);
            assert_eq!(dialer.due(now + Duration::from_millis(2750), |_| false).len(), 1);
        }
    }

    #[test]
    fn bootstrap_is_looked_at_again() {
        let (mut dialer, now) = (Dialer::default(), Instant::now());
        dialer.add_bootstrap("/dns4/tasks.chorus/tcp/9000", now);
        assert_eq!(dialer.due(now, |_| true).len(), 1);
        let target = Target::Bootstrap("/dns4/tasks.chorus/tcp/9000".into());
        dialer.succeeded(&target, now);
        assert!(dialer.due(now + AGAIN / 2, |_| true).is_empty());
        assert_eq!(dialer.due(now + AGAIN, |_| true).len(), 1);
    }

    #[test]
    fn a_bootstrap_address_that_keeps_failing_is_told_of_once() {
        let (mut dialer, now, peer) = (Dialer::default(), Instant::now(), PeerId::random());
        dialer.add_bootstrap("/dns4/nowhere/tcp/9000", now);
        dialer.add_peer(peer, &"/ip4/127.0.0.1/tcp/1".parse().unwrap(), now);
        let target = Target::Bootstrap("/dns4/nowhere/tcp/9000".into());
        let told = |dialer: &mut Dialer, target: &Target| (0..50).filter(|_| dialer.failed(target, now, 0.5)).count();
        assert_eq!(told(&mut dialer, &target), 1);
        assert_eq!(told(&mut dialer, &Target::Peer(peer)), 0);
        dialer.succeeded(&target, now);
        assert_eq!(told(&mut dialer, &target), 1);
    }
}
