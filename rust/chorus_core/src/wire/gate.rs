//! The verdict on a gossip message before it is passed on: accept, ignore (nobody blamed) or reject (the forwarder is).

use std::collections::{HashMap, HashSet};

use libp2p::PeerId;

use super::{
    ENVELOPE_MAX_BYTES, Envelope, Topic,
    rate::{Rates, Standing},
};

/// How far a message's timestamp may be off, either way.
const CLOCK_TOLERANCE_MS: u64 = 5 * 60 * 1000;
/// Re-publications that a message may have behind it.
const HOPS_MAX: u64 = 3;
/// Half of how long a message is remembered, so that what is forgotten is too old to pass again; and how many at most:
/// a half with so many takes 10 MB.
const SEEN_HALF_MS: u64 = 330_000;
const SEEN_HALF_MAX: usize = 900_000;
/// Signers whose clock is remembered.
const CLOCKS_MAX: usize = 4096;
/// How long a signer's clock counts after it was last heard.
const CLOCK_MEMORY_MS: u64 = 10 * 60 * 1000;

/// Why a message did not pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(usize)]
pub enum Reason {
    /// Larger than an envelope may be (reject).
    TooLarge,
    /// Not the schema, or a topic that is none (reject).
    Schema,
    /// `from` is not the signer (reject).
    Forged,
    /// Timestamp off by more than five minutes (ignore).
    Clock,
    /// Too many hops (ignore).
    Hops,
    /// A type that the topic does not know (ignore).
    UnknownType,
    /// Seen before (ignore).
    Repeat,
    /// Its signer sends too much (ignore).
    Rate,
}

impl Reason {
    /// How many reasons there are.
    pub const COUNT: usize = 8;
    /// All of them, in order.
    pub const ALL: [Self; Self::COUNT] = [
        Self::TooLarge,
        Self::Schema,
        Self::Forged,
        Self::Clock,
        Self::Hops,
        Self::UnknownType,
        Self::Repeat,
        Self::Rate,
    ];

    /// Its name in metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::TooLarge => "too_large",
            Self::Schema => "schema",
            Self::Forged => "forged",
            Self::Clock => "clock",
            Self::Hops => "hops",
            Self::UnknownType => "unknown_type",
            Self::Repeat => "repeat",
            Self::Rate => "rate",
        }
    }
}

/// What becomes of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Passed on and delivered.
    Accept(Envelope),
    /// Not passed on, nobody blamed.
    Ignore(Reason),
    /// Not passed on, counts against its forwarder.
    Reject(Reason),
}

/// A message as gossipsub gives it, its signature checked.
#[derive(Debug, Clone, Copy)]
pub struct Arrival<'a> {
    /// Its topic, when that is one of ours.
    pub topic: Option<&'a Topic>,
    /// Who signed it.
    pub signer: &'a PeerId,
    /// Who passed it on to us.
    pub forwarder: &'a PeerId,
    /// What the signer is to our mesh.
    pub standing: Standing,
    /// The signer's number of it.
    pub sequence: u64,
    /// The envelope.
    pub data: &'a [u8],
}

/// Judges messages; holds what it needs to remember, all of it bounded.
#[derive(Debug, Default)]
pub struct Gate {
    rates: Rates,
    seen: Seen,
    clocks: HashMap<PeerId, Clock>,
}

#[derive(Debug, Clone, Copy)]
struct Clock {
    off: bool,
    heard_ms: u64,
}

impl Gate {
    /// The verdict on one message, `now_ms` being milliseconds since the epoch. Costs memory only when it accepts.
    pub fn judge(&mut self, now_ms: u64, arrival: Arrival<'_>) -> Verdict {
        if arrival.data.len() > ENVELOPE_MAX_BYTES {
            return Verdict::Reject(Reason::TooLarge);
        }
        let key = self.seen.key(arrival.signer, arrival.sequence);
        if self.seen.contains(key) {
            return Verdict::Ignore(Reason::Repeat);
        }
        // What comes from its signer is charged before it is read; what others pass on, only when it is good: nobody can
        // use up a signer's rate with old messages of his.
        let direct = arrival.signer == arrival.forwarder;
        if direct && !self.take(now_ms, arrival) {
            return Verdict::Ignore(Reason::Rate);
        }
        let (Some(topic), Ok(envelope)) = (arrival.topic, Envelope::parse(arrival.data)) else {
            return Verdict::Reject(Reason::Schema);
        };
        if envelope.from.parse::<PeerId>().ok().as_ref() != Some(arrival.signer) {
            return Verdict::Reject(Reason::Forged);
        }
        let off = now_ms.abs_diff(envelope.timestamp_ms) > CLOCK_TOLERANCE_MS;
        // An old message that somebody kept says nothing of its signer's clock, and strangers do not judge ours.
        if arrival.standing == Standing::Member && (direct || !off) {
            self.heard(now_ms, arrival.signer, off);
        }
        if off {
            return Verdict::Ignore(Reason::Clock);
        }
        if envelope.hop_count > HOPS_MAX {
            return Verdict::Ignore(Reason::Hops);
        }
        if !topic.knows(&envelope.kind) {
            return Verdict::Ignore(Reason::UnknownType);
        }
        if !direct && !self.take(now_ms, arrival) {
            return Verdict::Ignore(Reason::Rate);
        }
        if !self.rates.take_together(now_ms, arrival.standing, arrival.data.len()) {
            return Verdict::Ignore(Reason::Rate);
        }
        self.seen.insert(now_ms, key);
        Verdict::Accept(envelope)
    }

    fn take(&mut self, now_ms: u64, arrival: Arrival<'_>) -> bool {
        self.rates.take(now_ms, arrival.signer, arrival.standing, arrival.data.len())
    }

    /// Whether more than half of the signers heard lately disagree with our clock.
    #[must_use]
    pub fn clock_skew(&self, now_ms: u64) -> bool {
        let lately = self.clocks.values().filter(|clock| now_ms.abs_diff(clock.heard_ms) <= CLOCK_MEMORY_MS);
        let (mut all, mut off) = (0, 0);
        for clock in lately {
            all += 1;
            off += usize::from(clock.off);
        }
        off * 2 > all
    }

    fn heard(&mut self, now_ms: u64, signer: &PeerId, off: bool) {
        if self.clocks.len() >= CLOCKS_MAX && !self.clocks.contains_key(signer) {
            self.clocks.retain(|_, clock| now_ms.abs_diff(clock.heard_ms) <= CLOCK_MEMORY_MS);
            if self.clocks.len() >= CLOCKS_MAX {
                return;
            }
        }
        self.clocks.insert(*signer, Clock { off, heard_ms: now_ms });
    }
}

/// Messages that were accepted, by a hash of signer and sequence number, in two halves of which the older goes.
#[derive(Debug, Default)]
struct Seen {
    recent: HashSet<u64>,
    older: HashSet<u64>,
    turned_ms: u64,
    hasher: std::hash::RandomState,
}

impl Seen {
    fn key(&self, signer: &PeerId, sequence: u64) -> u64 {
        use std::hash::BuildHasher;
        self.hasher.hash_one((signer, sequence))
    }

    fn contains(&self, key: u64) -> bool {
        self.recent.contains(&key) || self.older.contains(&key)
    }

    fn insert(&mut self, now_ms: u64, key: u64) {
        if now_ms.abs_diff(self.turned_ms) > SEEN_HALF_MS || self.recent.len() >= SEEN_HALF_MAX {
            self.older = std::mem::take(&mut self.recent);
            self.turned_ms = now_ms;
        }
        self.recent.insert(key);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed test is a panic")]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wire::{Draft, format_timestamp};

    const NOW: u64 = 1_795_436_546_001;

    fn peer() -> PeerId {
        libp2p::identity::Keypair::generate_ed25519().public().to_peer_id()
    }

    fn message(from: &PeerId, kind: &str, at: u64, hops: Option<u32>) -> Vec<u8> {
        let from = from.to_string();
        Draft {
            kind,
            from: &from,
            timestamp_ms: at,
            data: b"{}",
            hop_count: hops,
            from_role: None,
            priority: None,
            thread_id: None,
        }
        .write()
        .unwrap()
    }

    fn judge(gate: &mut Gate, signer: &PeerId, sequence: u64, data: &[u8]) -> Verdict {
        gate.judge(NOW, arrival(signer, sequence, data))
    }

    /// A member's own message.
    fn arrival<'a>(signer: &'a PeerId, sequence: u64, data: &'a [u8]) -> Arrival<'a> {
        let standing = Standing::Member;
        Arrival { topic: Some(&Topic::Tasks), signer, forwarder: signer, standing, sequence, data }
    }

    #[test]
    fn every_reason_is_given_for_its_fault() {
        let (mut gate, us) = (Gate::default(), peer());
        let kind = "task_cancel";
        let good = message(&us, kind, NOW, Some(3));
        assert!(matches!(judge(&mut gate, &us, 1, &good), Verdict::Accept(_)));
        let cases: Vec<(Vec<u8>, u64, Verdict)> = vec![
            (vec![b' '; ENVELOPE_MAX_BYTES + 1], 2, Verdict::Reject(Reason::TooLarge)),
            (b"{}".to_vec(), 3, Verdict::Reject(Reason::Schema)),
            (message(&peer(), kind, NOW, None), 4, Verdict::Reject(Reason::Forged)),
            (message(&us, kind, NOW - CLOCK_TOLERANCE_MS - 1, None), 5, Verdict::Ignore(Reason::Clock)),
            (message(&us, kind, NOW + CLOCK_TOLERANCE_MS + 1, None), 6, Verdict::Ignore(Reason::Clock)),
            (message(&us, kind, NOW, Some(4)), 7, Verdict::Ignore(Reason::Hops)),
            (message(&us, "vote", NOW, None), 8, Verdict::Ignore(Reason::UnknownType)),
            (good, 1, Verdict::Ignore(Reason::Repeat)),
        ];
        for (data, sequence, verdict) in cases {
            assert_eq!(judge(&mut gate, &us, sequence, &data), verdict);
        }
        assert_eq!(Reason::ALL.map(|reason| reason as usize), [0, 1, 2, 3, 4, 5, 6, 7]);
    }

    #[test]
    fn a_flood_is_cut_and_others_are_not() {
        let (mut gate, flooder, other) = (Gate::default(), peer(), peer());
        let data = message(&flooder, "task_cancel", NOW, None);
        let cut =
            (0..100_000).filter(|n| judge(&mut gate, &flooder, *n, &data) == Verdict::Ignore(Reason::Rate)).count();
        assert!(cut > 10_000);
        assert!(matches!(judge(&mut gate, &other, 1, &message(&other, "task_cancel", NOW, None)), Verdict::Accept(_)));
        let later = NOW + 1000;
        let data = message(&flooder, "task_cancel", later, None);
        assert!(matches!(gate.judge(later, arrival(&flooder, 1 << 40, &data)), Verdict::Accept(_)));
    }

    #[test]
    fn a_stranger_that_floods_is_cut_early_and_is_remembered_for_nothing() {
        let (mut gate, us) = (Gate::default(), peer());
        let stale = message(&us, "task_cancel", NOW - 3_600_000, None);
        let mut counts = HashMap::new();
        for n in 0..10_000 {
            let verdict = gate.judge(NOW, Arrival { standing: Standing::Stranger, ..arrival(&us, n, &stale) });
            let Verdict::Ignore(reason) = verdict else { panic!("{verdict:?}") };
            *counts.entry(reason).or_insert(0) += 1;
        }
        // A message of this size counts as a little more than one.
        assert!((900..=1_000).contains(&counts[&Reason::Clock]), "{counts:?}");
        assert_eq!(counts[&Reason::Clock] + counts[&Reason::Rate], 10_000);
        assert!(gate.seen.recent.is_empty() && gate.clocks.is_empty() && !gate.clock_skew(NOW));
    }

    #[test]
    fn old_messages_of_somebody_cost_him_nothing() {
        let (mut gate, him, hostile) = (Gate::default(), peer(), peer());
        let (stale, good) =
            (message(&him, "task_cancel", NOW - 3_600_000, None), message(&him, "task_cancel", NOW, None));
        for n in 0..10_000 {
            let replayed = Arrival { standing: Standing::Stranger, forwarder: &hostile, ..arrival(&him, n, &stale) };
            assert_eq!(gate.judge(NOW, replayed), Verdict::Ignore(Reason::Clock));
        }
        let own = |n| Arrival { standing: Standing::Stranger, ..arrival(&him, n, &good) };
        assert!(matches!(gate.judge(NOW, own(1 << 40)), Verdict::Accept(_)));
        for _ in 0..10_000 {
            let repeated = Arrival { forwarder: &hostile, ..own(1 << 40) };
            assert_eq!(gate.judge(NOW, repeated), Verdict::Ignore(Reason::Repeat));
        }
        assert!(matches!(gate.judge(NOW, own(1 << 41)), Verdict::Accept(_)));
    }

    #[test]
    fn a_message_that_was_refused_for_its_rate_may_come_again() {
        let (mut gate, us) = (Gate::default(), peer());
        let good = message(&us, "task_cancel", NOW, None);
        let as_stranger = |n| Arrival { standing: Standing::Stranger, ..arrival(&us, n, &good) };
        let refused = (0..2_000).find(|n| gate.judge(NOW, as_stranger(*n)) == Verdict::Ignore(Reason::Rate)).unwrap();
        assert!(matches!(gate.judge(NOW + 10_000, as_stranger(refused)), Verdict::Accept(_)));
    }

    #[test]
    fn most_clocks_against_ours_is_skew() {
        let mut gate = Gate::default();
        let peers = [peer(), peer(), peer()];
        for (n, peer) in peers.iter().enumerate() {
            let at = if n == 0 { NOW } else { NOW + 3_600_000 };
            judge(&mut gate, peer, 1, &message(peer, "task_cancel", at, None));
        }
        assert!(gate.clock_skew(NOW));
        judge(&mut gate, &peers[1], 2, &message(&peers[1], "task_cancel", NOW, None));
        assert!(!gate.clock_skew(NOW));
    }

    proptest! {
        #[test]
        fn any_bytes_get_a_verdict(data in proptest::collection::vec(any::<u8>(), 0..400), now in any::<u64>(), sequence in any::<u64>()) {
            let signer = PeerId::from_bytes(&[0, 1, 0]).unwrap_or_else(|_| peer());
            let mut gate = Gate::default();
            let verdict = gate.judge(now, Arrival { topic: Some(&Topic::Health), ..arrival(&signer, sequence, &data) });
            prop_assert!(!matches!(verdict, Verdict::Accept(_)));
        }

        #[test]
        fn mutated_messages_never_panic(cut in 0usize..200, with in any::<u8>()) {
            let us = peer();
            let mut data = message(&us, "task_cancel", NOW, None);
            let at = cut % data.len();
            data[at] = with;
            let _ = judge(&mut Gate::default(), &us, 1, &data);
            let _ = format_timestamp(u64::from(with));
        }
    }
}
