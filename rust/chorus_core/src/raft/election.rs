//! When this agent stands for election: a table of what it sees and how long it waits then. Pure:
//! time and chance are passed in. Who wins is Raft's business.

use std::time::Duration;

use rand::{Rng, SeedableRng, rngs::StdRng};

/// The best stands at once, the worst after this share of the election timeout.
const SCORE_SHARE: f64 = 0.05;
/// A little chance between members of the same score, as a share of the election timeout.
const JITTER_SHARE: f64 = 0.01;
/// After a start there may be a leader that was not heard yet; pre-vote protects it anyway.
const START_SHARE: f64 = 0.25;
/// Shortest and longest first pause after an attempt that made no leader.
const RETRY_MIN: Duration = Duration::from_millis(10);
const RETRY_MAX: Duration = Duration::from_millis(150);
/// Attempts that fail push the next one further out, up to this share of the timeout.
const RETRY_SHARE_MAX: f64 = 0.5;

/// What is seen of leadership now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sight {
    /// A leader is heard, or this agent leads, or has no vote.
    Settled,
    /// No other member votes.
    SoleVoter,
    /// The leader was silent for the election timeout.
    Silent,
    /// No leader is known in this term.
    Leaderless,
}

pub(super) struct Election {
    timeout: Duration,
    score: f64,
    stand_at: Option<Duration>,
    attempts: u32,
    started: bool,
    rng: StdRng,
}

impl Election {
    pub(super) fn new(timeout: Duration, score: f64, seed: u64) -> Self {
        let rng = StdRng::seed_from_u64(seed);
        Self { timeout, score: score.clamp(0.0, 1.0), stand_at: None, attempts: 0, started: false, rng }
    }

    pub(super) fn set_score(&mut self, score: f64) {
        if score.is_finite() {
            self.score = score.clamp(0.0, 1.0);
        }
    }

    /// When [`observe`](Self::observe) wants to be asked again.
    pub(super) fn next(&self) -> Option<Duration> {
        self.stand_at
    }

    /// Whether to stand now.
    pub(super) fn observe(&mut self, now: Duration, sight: Sight) -> bool {
        match sight {
            Sight::Settled => {
                self.stand_at = None;
                self.attempts = 0;
                self.started = true;
                return false;
            }
            Sight::SoleVoter => return true,
            Sight::Silent | Sight::Leaderless => {}
        }
        let stand_at = match self.stand_at {
            Some(stand_at) => stand_at,
            None => {
                let wait = match sight {
                    _ if !self.started => self.timeout.mul_f64(START_SHARE) + self.by_score(),
                    Sight::Silent => self.by_score(),
                    _ => self.retry(),
                };
                self.started = true;
                *self.stand_at.insert(now + wait)
            }
        };
        if now < stand_at {
            return false;
        }
        self.attempts += 1;
        self.stand_at = Some(now + self.retry());
        true
    }

    /// Another was given this agent's vote: it gets the time to win.
    pub(super) fn voted(&mut self, now: Duration) {
        self.stand_at = Some(now + self.retry());
    }

    fn by_score(&mut self) -> Duration {
        let jitter = self.rng.random_range(0.0..JITTER_SHARE);
        self.timeout.mul_f64((1.0 - self.score) * (SCORE_SHARE - JITTER_SHARE) + jitter)
    }

    fn retry(&mut self) -> Duration {
        let base = (self.timeout / 20).clamp(RETRY_MIN, RETRY_MAX);
        let longest = self.timeout.mul_f64(RETRY_SHARE_MAX).max(base * 2);
        let span = (base * 4 * 2_u32.saturating_pow(self.attempts.min(6) / 2)).clamp(base * 2, longest);
        base + (span - base).mul_f64(self.rng.random_range(0.0..1.0))
    }
}

#[cfg(test)]
#[allow(clippy::expect_used)]
mod tests {
    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(15);

    fn first_stand(election: &mut Election, sight: Sight) -> Duration {
        let mut now = Duration::ZERO;
        while !election.observe(now, sight) {
            now += Duration::from_millis(1);
        }
        now
    }

    #[test]
    fn a_high_score_stands_before_a_low_one_and_both_within_five_percent() {
        for seed in 0..50 {
            let mut best = Election::new(TIMEOUT, 1.0, seed);
            let mut worst = Election::new(TIMEOUT, 0.0, seed + 100);
            best.observe(Duration::ZERO, Sight::Settled);
            worst.observe(Duration::ZERO, Sight::Settled);
            let (best, worst) = (first_stand(&mut best, Sight::Silent), first_stand(&mut worst, Sight::Silent));
            assert!(best < worst);
            assert!(worst <= TIMEOUT.mul_f64(0.051));
        }
    }

    #[test]
    fn a_sole_voter_stands_at_once_and_a_settled_member_never() {
        let mut election = Election::new(TIMEOUT, 0.5, 1);
        assert!(!election.observe(TIMEOUT, Sight::Settled));
        assert_eq!(election.next(), None);
        assert!(election.observe(TIMEOUT, Sight::SoleVoter));
    }

    #[test]
    fn attempts_go_on_at_growing_bounded_pauses() {
        let mut election = Election::new(TIMEOUT, 0.5, 7);
        let mut now = first_stand(&mut election, Sight::Leaderless);
        for _ in 0..30 {
            let next = election.next().expect("goes on");
            assert!(next > now && next - now <= TIMEOUT.mul_f64(RETRY_SHARE_MAX));
            now = next;
            assert!(election.observe(now, Sight::Leaderless));
        }
    }

    #[test]
    fn a_vote_given_away_postpones_the_own_candidacy() {
        let mut election = Election::new(TIMEOUT, 1.0, 3);
        election.observe(Duration::ZERO, Sight::Settled);
        election.observe(Duration::from_secs(1), Sight::Silent);
        election.voted(Duration::from_secs(2));
        assert!(!election.observe(Duration::from_secs(2), Sight::Leaderless));
    }
}
