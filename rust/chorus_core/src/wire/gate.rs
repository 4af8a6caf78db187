//! The verdict on a gossip message before it is passed on: accept, ignore (nobody blamed) or reject (the forwarder is).

use std::collections::{HashMap, HashSet};

use libp2p::PeerId;

use super::{ENVELOPE_MAX_BYTES, Envelope, Topic};

/// How far a message's timestamp may be off, either way.
const CLOCK_TOLERANCE_MS: u64 = 5 * 60 * 1000;
/// Re-publications that a message may have behind it.
const HOPS_MAX: u64 = 3;
/// Messages of one signer per second over time, and at once. Generous: an honest burst must never be cut, a flood must.
const RATE_PER_SECOND: f64 = 40_000.0;
const BURST: f64 = 80_000.0;
/// Every so many bytes a message counts as one more.
const BYTES_PER_TOKEN: f64 = 4096.0;
/// Signers whose rate is counted one by one; the rest share one bucket.
const SIGNERS_MAX: usize = 4096;
/// Half of how long a message is remembered (gossipsub's own cache holds 11 minutes), and how many at most.
const SEEN_HALF_MS: u64 = 330_000;
const SEEN_HALF_MAX: usize = 500_000;
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
    /// The signer's number of it.
    pub sequence: u64,
    /// The envelope.
    pub data: &'a [u8],
}

/// Judges messages; holds what it needs to remember, all of it bounded.
#[derive(Debug, Default)]
pub struct Gate {
    buckets: HashMap<PeerId, Bucket>,
    overflow: Bucket,
    recent: HashSet<(u64, u64)>,
    older: HashSet<(u64, u64)>,
    turned_ms: u64,
    clocks: HashMap<PeerId, Clock>,
    hasher: std::hash::RandomState,
}

#[derive(Debug, Clone, Copy)]
struct Clock {
    off: bool,
    heard_ms: u64,
}

impl Gate {
    /// The verdict on one message, `now_ms` being milliseconds since the epoch.
    pub fn judge(&mut self, now_ms: u64, arrival: Arrival<'_>) -> Verdict {
        if arrival.data.len() > ENVELOPE_MAX_BYTES {
            return Verdict::Reject(Reason::TooLarge);
        }
        if !self.take_token(now_ms, arrival.signer, arrival.data.len()) {
            return Verdict::Ignore(Reason::Rate);
        }
        let (Some(topic), Ok(envelope)) = (arrival.topic, Envelope::parse(arrival.data)) else {
            return Verdict::Reject(Reason::Schema);
        };
        if envelope.from.parse::<PeerId>().ok().as_ref() != Some(arrival.signer) {
            return Verdict::Reject(Reason::Forged);
        }
        let off = now_ms.abs_diff(envelope.timestamp_ms) > CLOCK_TOLERANCE_MS;
        self.heard(now_ms, arrival.signer, off);
        if off {
            return Verdict::Ignore(Reason::Clock);
        }
        if envelope.hop_count > HOPS_MAX {
            return Verdict::Ignore(Reason::Hops);
        }
        if !topic.knows(&envelope.kind) {
            return Verdict::Ignore(Reason::UnknownType);
        }
        if !self.first_time(now_ms, arrival.signer, arrival.sequence) {
            return Verdict::Ignore(Reason::Repeat);
        }
        Verdict::Accept(envelope)
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
        if self.clocks.len() >= SIGNERS_MAX && !self.clocks.contains_key(signer) {
            self.clocks.retain(|_, clock| now_ms.abs_diff(clock.heard_ms) <= CLOCK_MEMORY_MS);
            if self.clocks.len() >= SIGNERS_MAX {
                return;
            }
        }
        self.clocks.insert(*signer, Clock { off, heard_ms: now_ms });
    }

    fn take_token(&mut self, now_ms: u64, signer: &PeerId, bytes: usize) -> bool {
        // Lossless: envelopes are far smaller than 2^52 bytes.
        #[allow(clippy::cast_precision_loss, reason = "sizes are small")]
        let cost = 1.0 + bytes as f64 / BYTES_PER_TOKEN;
        if let Some(bucket) = self.buckets.get_mut(signer) {
            return bucket.take(now_ms, cost);
        }
        if self.buckets.len() >= SIGNERS_MAX {
            self.buckets.retain(|_, bucket| !bucket.full(now_ms));
        }
        if self.buckets.len() >= SIGNERS_MAX {
            return self.overflow.take(now_ms, cost);
        }
        self.buckets.entry(*signer).or_default().take(now_ms, cost)
    }

    fn first_time(&mut self, now_ms: u64, signer: &PeerId, sequence: u64) -> bool {
        use std::hash::BuildHasher;
        if now_ms.abs_diff(self.turned_ms) > SEEN_HALF_MS || self.recent.len() >= SEEN_HALF_MAX {
            self.older = std::mem::take(&mut self.recent);
            self.turned_ms = now_ms;
        }
        let key = (self.hasher.hash_one(signer), sequence);
        !self.older.contains(&key) && self.recent.insert(key)
    }
}

/// A token bucket; full at first.
#[derive(Debug, Default)]
struct Bucket {
    spent: f64,
    at_ms: u64,
}

impl Bucket {
    fn refill(&mut self, now_ms: u64) {
        #[allow(clippy::cast_precision_loss, reason = "a difference of times is small")]
        let gained = now_ms.saturating_sub(self.at_ms) as f64 / 1000.0 * RATE_PER_SECOND;
        self.spent = (self.spent - gained).max(0.0);
        self.at_ms = now_ms;
    }

    fn take(&mut self, now_ms: u64, cost: f64) -> bool {
        self.refill(now_ms);
        if self.spent + cost > BURST {
            return false;
        }
        self.spent += cost;
        true
    }

    fn full(&mut self, now_ms: u64) -> bool {
        self.refill(now_ms);
        self.spent <= 0.0
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
        gate.judge(NOW, Arrival { topic: Some(&Topic::Tasks), signer, sequence, data })
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
        let arrival = Arrival { topic: Some(&Topic::Tasks), signer: &flooder, sequence: 1 << 40, data: &data };
        assert!(matches!(gate.judge(later, arrival), Verdict::Accept(_)));
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
            let verdict = gate.judge(now, Arrival { topic: Some(&Topic::Health), signer: &signer, sequence, data: &data });
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
