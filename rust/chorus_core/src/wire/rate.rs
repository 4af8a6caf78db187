//! How much each signer may say: token buckets of members, of each stranger, and of all strangers together. And how often
//! each peer may send what carries no message.

use std::collections::HashMap;

use libp2p::PeerId;

/// Messages per second over time, and at once.
#[derive(Debug, Clone, Copy)]
struct Allowance {
    per_second: f64,
    burst: f64,
}

/// Generous: an honest burst of a member must never be cut, a flood must.
const MEMBER: Allowance = Allowance { per_second: 40_000.0, burst: 80_000.0 };
/// A stranger announces tasks and watches; five seconds' worth may come at once.
const STRANGER: Allowance = Allowance { per_second: 200.0, burst: 1_000.0 };
/// Identities cost nothing, so strangers have a limit together. gossipsub and its scores hold some 600 bytes of a message
/// that passed for up to two minutes: 70 MB at this rate.
const STRANGERS: Allowance = Allowance { per_second: 1_000.0, burst: 5_000.0 };
/// Control messages without a message that passed a signature check: offers, requests and refusals by id, and changes of
/// the mesh. gossipsub takes 16 KiB of them at once and keeps refused ids for 3 s: up to 60 MB of a member, which may
/// refuse each large message by name, 3 MB of a stranger and 80 MB of all strangers.
const MEMBER_CONTROL: Allowance = Allowance { per_second: 512.0, burst: 2_048.0 };
const STRANGER_CONTROL: Allowance = Allowance { per_second: 20.0, burst: 100.0 };
const STRANGERS_CONTROL: Allowance = Allowance { per_second: 1_000.0, burst: 2_000.0 };
/// Every so many bytes a message counts as one more.
const BYTES_PER_TOKEN: f64 = 4096.0;
/// Signers of a class whose rate is counted one by one; the rest share one bucket.
const SIGNERS_MAX: usize = 4096;
/// How often full buckets are looked for when there is no room for another: looking takes time.
const SWEEP_EVERY_MS: u64 = 1000;

/// What a peer is to this agent's mesh.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It has joined, or this agent is in no mesh.
    Member,
    /// It holds the network key and no more.
    Stranger,
}

/// The buckets of all signers; bounded.
#[derive(Debug)]
pub struct Rates {
    members: Class,
    strangers: Class,
    strangers_together: Bucket,
}

impl Default for Rates {
    fn default() -> Self {
        Self { members: Class::new(MEMBER), strangers: Class::new(STRANGER), strangers_together: Bucket::default() }
    }
}

impl Rates {
    /// Whether the signer may say a message of so many bytes now; `now_ms` is milliseconds since the epoch.
    pub fn take(&mut self, now_ms: u64, signer: &PeerId, standing: Standing, bytes: usize) -> bool {
        match standing {
            Standing::Member => self.members.take(now_ms, signer, cost(bytes)),
            Standing::Stranger => self.strangers.take(now_ms, signer, cost(bytes)),
        }
    }

    /// Whether all strangers together may say one more.
    pub fn take_together(&mut self, now_ms: u64, standing: Standing, bytes: usize) -> bool {
        standing == Standing::Member || self.strangers_together.take(now_ms, STRANGERS, cost(bytes))
    }
}

/// How often each peer may send control messages alone; bounded.
#[derive(Debug)]
pub struct ControlRates {
    members: Class,
    strangers: Class,
    strangers_together: Bucket,
}

impl Default for ControlRates {
    fn default() -> Self {
        Self {
            members: Class::new(MEMBER_CONTROL),
            strangers: Class::new(STRANGER_CONTROL),
            strangers_together: Bucket::default(),
        }
    }
}

impl ControlRates {
    /// Notes that the peer sent control messages alone; `now_ms` is milliseconds since the epoch.
    pub fn note(&mut self, now_ms: u64, peer: &PeerId, standing: Standing) {
        match standing {
            Standing::Member => self.members.take(now_ms, peer, 1.0),
            Standing::Stranger => {
                self.strangers_together.take(now_ms, STRANGERS_CONTROL, 1.0);
                self.strangers.take(now_ms, peer, 1.0)
            }
        };
    }

    /// Whether the peer may send such a thing now.
    pub fn has_room(&mut self, now_ms: u64, peer: &PeerId, standing: Standing) -> bool {
        match standing {
            Standing::Member => self.members.has_room(now_ms, peer, 1.0),
            Standing::Stranger => {
                self.strangers.has_room(now_ms, peer, 1.0)
                    && self.strangers_together.has_room(now_ms, STRANGERS_CONTROL, 1.0)
            }
        }
    }
}

#[allow(clippy::cast_precision_loss, reason = "envelopes are far smaller than 2^52 bytes")]
fn cost(bytes: usize) -> f64 {
    1.0 + bytes as f64 / BYTES_PER_TOKEN
}

/// Signers of one standing.
#[derive(Debug)]
struct Class {
    allowance: Allowance,
    buckets: HashMap<PeerId, Bucket>,
    overflow: Bucket,
    swept_ms: u64,
}

impl Class {
    fn new(allowance: Allowance) -> Self {
        Self { allowance, buckets: HashMap::new(), overflow: Bucket::default(), swept_ms: 0 }
    }

    fn has_room(&mut self, now_ms: u64, signer: &PeerId, cost: f64) -> bool {
        let full = self.buckets.len() >= SIGNERS_MAX;
        let bucket = match self.buckets.get_mut(signer) {
            Some(bucket) => bucket,
            None if full => &mut self.overflow,
            None => return true,
        };
        bucket.has_room(now_ms, self.allowance, cost)
    }

    fn take(&mut self, now_ms: u64, signer: &PeerId, cost: f64) -> bool {
        if let Some(bucket) = self.buckets.get_mut(signer) {
            return bucket.take(now_ms, self.allowance, cost);
        }
        if self.buckets.len() >= SIGNERS_MAX && now_ms.abs_diff(self.swept_ms) >= SWEEP_EVERY_MS {
            self.swept_ms = now_ms;
            self.buckets.retain(|_, bucket| !bucket.full(now_ms, self.allowance));
        }
        if self.buckets.len() >= SIGNERS_MAX {
            return self.overflow.take(now_ms, self.allowance, cost);
        }
        self.buckets.entry(*signer).or_default().take(now_ms, self.allowance, cost)
    }
}

/// A token bucket; full at first.
#[derive(Debug, Default)]
struct Bucket {
    spent: f64,
    at_ms: u64,
}

impl Bucket {
    fn refill(&mut self, now_ms: u64, allowance: Allowance) {
        #[allow(clippy::cast_precision_loss, reason = "a difference of times is small")]
        let gained = now_ms.saturating_sub(self.at_ms) as f64 / 1000.0 * allowance.per_second;
        self.spent = (self.spent - gained).max(0.0);
        self.at_ms = now_ms;
    }

    fn has_room(&mut self, now_ms: u64, allowance: Allowance, cost: f64) -> bool {
        self.refill(now_ms, allowance);
        self.spent + cost <= allowance.burst
    }

    fn take(&mut self, now_ms: u64, allowance: Allowance, cost: f64) -> bool {
        if !self.has_room(now_ms, allowance, cost) {
            return false;
        }
        self.spent += cost;
        true
    }

    fn full(&mut self, now_ms: u64, allowance: Allowance) -> bool {
        self.refill(now_ms, allowance);
        self.spent <= 0.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_795_436_546_001;

    fn passed(rates: &mut Rates, now_ms: u64, signer: &PeerId, standing: Standing, tries: usize) -> usize {
        (0..tries).filter(|_| rates.take(now_ms, signer, standing, 0)).count()
    }

    #[test]
    fn a_stranger_has_two_hundred_a_second_and_a_member_plenty() {
        let (mut rates, stranger, member) = (Rates::default(), PeerId::random(), PeerId::random());
        assert_eq!(passed(&mut rates, NOW, &stranger, Standing::Stranger, 50_000), 1_000);
        assert_eq!(passed(&mut rates, NOW + 1_000, &stranger, Standing::Stranger, 50_000), 200);
        assert_eq!(passed(&mut rates, NOW, &member, Standing::Member, 50_000), 50_000);
        assert_eq!(passed(&mut rates, NOW, &PeerId::random(), Standing::Stranger, 10), 10);
    }

    #[test]
    fn large_messages_count_as_many() {
        let (mut rates, stranger) = (Rates::default(), PeerId::random());
        let large = (0..100).filter(|_| rates.take(NOW, &stranger, Standing::Stranger, 256 * 1024)).count();
        assert_eq!(large, 15);
    }

    #[test]
    fn control_messages_have_room_again_with_time() {
        fn sent(rates: &mut ControlRates, now_ms: u64, peer: &PeerId, standing: Standing) -> usize {
            let mut count = 0;
            while rates.has_room(now_ms, peer, standing) {
                rates.note(now_ms, peer, standing);
                count += 1;
            }
            count
        }
        let mut rates = ControlRates::default();
        for (standing, burst, in_a_second) in [(Standing::Stranger, 100, 20), (Standing::Member, 2_048, 512)] {
            let peer = PeerId::random();
            for (now_ms, expected) in [(NOW, burst), (NOW, 0), (NOW + 1_000, in_a_second)] {
                assert_eq!(sent(&mut rates, now_ms, &peer, standing), expected);
            }
        }
        let mut rates = ControlRates::default();
        let strangers = (0..100).map(|_| sent(&mut rates, NOW, &PeerId::random(), Standing::Stranger)).sum::<usize>();
        assert_eq!(strangers, 2_000);
        assert_eq!(sent(&mut rates, NOW, &PeerId::random(), Standing::Member), 2_048);
    }

    #[test]
    fn any_number_of_identities_shares_a_bound_in_rate_and_memory() {
        let mut rates = Rates::default();
        let passed = (0..3 * SIGNERS_MAX)
            .filter(|_| {
                rates.take(NOW, &PeerId::random(), Standing::Stranger, 0)
                    && rates.take_together(NOW, Standing::Stranger, 0)
            })
            .count();
        assert_eq!(passed, 5_000);
        assert_eq!(rates.strangers.buckets.len(), SIGNERS_MAX);
        assert!(
            rates.take(NOW, &PeerId::random(), Standing::Member, 0) && rates.take_together(NOW, Standing::Member, 0)
        );
        // Later there is room again.
        rates.take(NOW + 60_000, &PeerId::random(), Standing::Stranger, 0);
        assert_eq!(rates.strangers.buckets.len(), 1);
    }
}
