//! What misbehaviour costs: points for each peer that fade with time. Who reaches the limit is disconnected and kept out
//! for a while, each time for twice as long. Pure: time comes in as an argument; the loop closes the connections.
//!
//! Only what no honest agent sends costs much. To be slow, to restart, or to ask for something as a member that was
//! removed meanwhile costs little or nothing.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use libp2p::PeerId;

/// Points at which a peer is disconnected.
const POINTS_MAX: f64 = 100.0;
/// Points that are forgiven in a second.
const FORGIVEN_PER_S: f64 = 2.0;
/// How long a peer is kept out the first time, and at most.
const BAN_FIRST: Duration = Duration::from_secs(10);
const BAN_MAX: Duration = Duration::from_secs(3600);
/// A peer that behaved so long after it was kept out begins anew.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(6 * 3600);
/// Peers that are remembered; the least guilty are forgotten first.
const PEERS_MAX: usize = 4096;

/// What a peer did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Offence {
    /// Bytes that no agent would send: a frame that cannot be read, or beyond every limit.
    Malformed,
    /// A gossip message that fails the gate, passed on by this peer.
    Rejected,
    /// A gossip message of its own that its clock or its rate forbids.
    Ignored,
    /// Control messages of gossip beyond its rate.
    Chatty,
    /// So many gossip messages that failed that gossipsub does not listen to it any more.
    Graylisted,
    /// It said that it would join and brought no proof.
    Unproven,
    /// It asked for what is not its to ask, or sent a frame of consensus that is refused.
    Refused,
}

impl Offence {
    fn points(self) -> f64 {
        match self {
            Self::Malformed => 25.0,
            Self::Unproven => 10.0,
            Self::Rejected => 5.0,
            // A leader whose mesh this agent has left sends some frames a second until it hears of that.
            Self::Refused => 0.25,
            // A stranger whose clock is wrong and that speaks ten times a second is left alone.
            Self::Ignored => 0.2,
            // Who refuses each large message by name, 60 a second, is left alone.
            Self::Chatty => 0.05,
            Self::Graylisted => POINTS_MAX,
        }
    }
}

#[derive(Debug)]
struct Record {
    points: f64,
    at: Instant,
    bans: u32,
    until: Option<Instant>,
}

impl Record {
    fn new(now: Instant) -> Self {
        Self { points: 0.0, at: now, bans: 0, until: None }
    }

    fn fade(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        self.points = (self.points - passed * FORGIVEN_PER_S).max(0.0);
        self.at = self.at.max(now);
    }

    fn banned(&self, now: Instant) -> bool {
        self.until.is_some_and(|until| until > now)
    }

    /// Whether nothing of it needs to be remembered.
    fn is_clean(&self, now: Instant) -> bool {
        self.points <= 0.0 && self.until.is_none_or(|until| until + FORGOTTEN_AFTER <= now)
    }
}

/// The offences of all peers.
#[derive(Debug, Default)]
pub struct PenaltyBox {
    records: HashMap<PeerId, Record>,
}

impl PenaltyBox {
    /// Notes an offence; true when the peer is to be disconnected now.
    pub fn note(&mut self, peer: PeerId, offence: Offence, now: Instant) -> bool {
        if self.records.len() >= PEERS_MAX && !self.records.contains_key(&peer) {
            self.make_room(now);
        }
        let record = self.records.entry(peer).or_insert_with(|| Record::new(now));
        record.fade(now);
        if record.banned(now) {
            // Said before its connections were closed.
            return false;
        }
        if record.is_clean(now) {
            record.bans = 0;
        }
        record.points += offence.points();
        if record.points < POINTS_MAX {
            return false;
        }
        let wait = BAN_FIRST.saturating_mul(2u32.saturating_pow(record.bans)).min(BAN_MAX);
        record.bans = record.bans.saturating_add(1);
        record.points = 0.0;
        record.until = Some(now + wait);
        true
    }

    /// Whether a peer is kept out now.
    pub fn is_banned(&self, peer: &PeerId, now: Instant) -> bool {
        self.records.get(peer).is_some_and(|record| record.banned(now))
    }

    fn make_room(&mut self, now: Instant) {
        self.records.values_mut().for_each(|record| record.fade(now));
        self.records.retain(|_, record| !record.is_clean(now));
        if self.records.len() >= PEERS_MAX {
            let guilt = |record: &Record| (record.banned(now), record.until, record.points);
            let least = self
                .records
                .iter()
                .min_by(|(_, a), (_, b)| guilt(a).partial_cmp(&guilt(b)).unwrap_or(std::cmp::Ordering::Equal));
            if let Some(peer) = least.map(|(peer, _)| *peer) {
                self.records.remove(&peer);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offences_until_ban(offences: &mut PenaltyBox, peer: PeerId, offence: Offence, now: Instant) -> usize {
        (1..10_000).find(|_| offences.note(peer, offence, now)).unwrap_or(usize::MAX)
    }

    #[test]
    fn each_ban_lasts_twice_as_long_and_time_forgives() {
        let (mut all, peer, start) = (PenaltyBox::default(), PeerId::random(), Instant::now());
        let mut now = start;
        for wait in [10, 20, 40, 80].map(Duration::from_secs) {
            assert_eq!(offences_until_ban(&mut all, peer, Offence::Malformed, now), 4);
            assert!(all.is_banned(&peer, now + wait - Duration::from_millis(1)));
            now += wait;
            assert!(!all.is_banned(&peer, now));
        }
        for _ in 0..20 {
            offences_until_ban(&mut all, peer, Offence::Malformed, now);
            assert!(all.is_banned(&peer, now) && !all.is_banned(&peer, now + BAN_MAX));
            now += BAN_MAX;
        }
        now += FORGOTTEN_AFTER;
        offences_until_ban(&mut all, peer, Offence::Malformed, now);
        assert!(!all.is_banned(&peer, now + BAN_FIRST));
    }

    #[test]
    fn small_offences_now_and_then_are_forgiven() {
        let (mut all, peer, start) = (PenaltyBox::default(), PeerId::random(), Instant::now());
        for second in 0..10_000 {
            let now = start + Duration::from_secs(second);
            assert!(!all.note(peer, Offence::Refused, now));
        }
        assert_eq!(offences_until_ban(&mut all, peer, Offence::Refused, start + Duration::from_secs(20_000)), 400);
    }

    #[test]
    fn the_box_is_bounded_and_keeps_the_guiltiest() {
        let (mut all, banned, now) = (PenaltyBox::default(), PeerId::random(), Instant::now());
        offences_until_ban(&mut all, banned, Offence::Malformed, now);
        for _ in 0..2 * PEERS_MAX {
            all.note(PeerId::random(), Offence::Refused, now);
        }
        assert_eq!(all.records.len(), PEERS_MAX);
        assert!(all.is_banned(&banned, now));
    }
}
