//! Points against peers that misbehave; they fade. Pure: time is an argument, what follows is the service's.

use std::collections::HashMap;

use libp2p::PeerId;

/// So many points end a stranger's connections: a hundred rejected messages, or a thousand of its own that its rate or
/// clock forbids.
pub const LIMIT_POINTS: f64 = 1000.0;
/// Points forgotten per second: a stranger whose clock is wrong and that speaks twice a second is left alone.
const FADING_PER_SECOND: f64 = 10.0;
/// Peers that are remembered; beyond it those with the fewest points go.
const PEERS_MAX: usize = 4096;

/// What is held against whom.
#[derive(Debug, Default)]
pub struct Misbehaviour {
    peers: HashMap<PeerId, Points>,
}

#[derive(Debug, Clone, Copy)]
struct Points {
    points: f64,
    at_ms: u64,
}

impl Points {
    fn now(self, now_ms: u64) -> f64 {
        #[allow(clippy::cast_precision_loss, reason = "a difference of times is small")]
        let faded = now_ms.saturating_sub(self.at_ms) as f64 / 1000.0 * FADING_PER_SECOND;
        (self.points - faded).max(0.0)
    }
}

impl Misbehaviour {
    /// Adds points and answers what they are now; `now_ms` is milliseconds since the epoch.
    pub fn add(&mut self, now_ms: u64, peer: PeerId, points: u32) -> f64 {
        if self.peers.len() >= PEERS_MAX && !self.peers.contains_key(&peer) {
            let least = self.peers.iter().min_by(|a, b| a.1.now(now_ms).total_cmp(&b.1.now(now_ms)));
            if let Some(least) = least.map(|(peer, _)| *peer) {
                self.peers.remove(&least);
            }
        }
        let entry = self.peers.entry(peer).or_insert(Points { points: 0.0, at_ms: now_ms });
        // No further than twice the limit: what ends a connection is forgotten within minutes.
        *entry = Points { points: (entry.now(now_ms) + f64::from(points)).min(2.0 * LIMIT_POINTS), at_ms: now_ms };
        entry.points
    }

    /// Forgets those whose points have faded, and answers everybody else's.
    pub fn fade(&mut self, now_ms: u64) -> Vec<(PeerId, f64)> {
        self.peers.retain(|_, points| points.now(now_ms) > 0.0);
        self.peers.iter().map(|(peer, points)| (*peer, points.now(now_ms))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_add_up_fade_and_are_bounded() {
        let (mut book, peer) = (Misbehaviour::default(), PeerId::random());
        assert!(book.add(0, peer, 400) < LIMIT_POINTS);
        assert!(book.add(1_000, peer, 700) >= LIMIT_POINTS);
        assert_eq!(book.add(1_000, peer, 1_000_000), 2.0 * LIMIT_POINTS);
        assert_eq!(book.fade(101_000), vec![(peer, LIMIT_POINTS)]);
        assert!(book.fade(202_000).is_empty());
        for _ in 0..2 * PEERS_MAX {
            book.add(300_000, PeerId::random(), 1);
        }
        book.add(300_000, peer, 50);
        book.add(300_000, PeerId::random(), 1);
        assert_eq!(book.peers.len(), PEERS_MAX);
        assert!(book.peers.contains_key(&peer));
    }
}
