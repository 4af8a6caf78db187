//! Proposals on their way: who waits for which index, and which (author, id) already has one, so that
//! a repeat is answered instead of appended again.

use std::collections::{BTreeMap, HashMap, VecDeque};

use super::{entry::Key, handle::Reply};
use crate::{Error, Result};

/// Callers that may wait at once.
const MAX_WAITING: usize = 16_384;
/// Newest entries whose repeats are recognised; the table refuses older repeats itself.
const MAX_KEYS: usize = 16_384;

#[derive(Default)]
pub(super) struct Proposals {
    waiting: BTreeMap<u64, (u64, Vec<Reply<u64>>)>,
    count: usize,
    keys: HashMap<Key, (u64, u64)>,
    order: VecDeque<Key>,
}

impl Proposals {
    pub(super) fn is_full(&self) -> bool {
        self.count >= MAX_WAITING
    }

    /// Where an entry of this key stands in the log, as (index, term).
    pub(super) fn find(&self, key: &Key) -> Option<(u64, u64)> {
        self.keys.get(key).copied()
    }

    pub(super) fn remember(&mut self, key: Key, index: u64, term: u64) {
        if self.keys.insert(key, (index, term)).is_none() {
            self.order.push_back(key);
            if self.order.len() > MAX_KEYS
                && let Some(oldest) = self.order.pop_front()
            {
                self.keys.remove(&oldest);
            }
        }
    }

    pub(super) fn wait(&mut self, index: u64, term: u64, reply: Reply<u64>) {
        self.count += 1;
        self.waiting.entry(index).or_insert_with(|| (term, Vec::new())).1.push(reply);
    }

    /// Something was committed at `index`: is it what was proposed there?
    pub(super) fn committed(&mut self, index: u64, term: u64) {
        if let Some((proposed, replies)) = self.waiting.remove(&index) {
            self.count -= replies.len();
            for reply in replies {
                let _ = reply.send(if proposed == term { Ok(index) } else { Err(Error::NotLeader) });
            }
        }
    }

    /// Leadership is lost, outcomes are unknown: callers try again with whoever leads next.
    pub(super) fn give_up(&mut self) {
        self.count = 0;
        for (_, replies) in std::mem::take(&mut self.waiting).into_values() {
            for reply in replies {
                let _ = reply.send(Err(Error::NotLeader));
            }
        }
    }
}

/// Callers of `read_index` that share rounds.
#[derive(Default)]
pub(super) struct Reads {
    pub waiting: Vec<Reply<u64>>,
    rounds: VecDeque<(u64, Vec<Reply<u64>>)>,
    number: u64,
}

impl Reads {
    /// Begins a round for all that wait; answers its context.
    pub(super) fn begin(&mut self) -> Vec<u8> {
        self.number += 1;
        self.rounds.push_back((self.number, std::mem::take(&mut self.waiting)));
        self.number.to_be_bytes().to_vec()
    }

    pub(super) fn in_flight(&self) -> bool {
        !self.rounds.is_empty()
    }

    /// A majority answered the round of this context.
    pub(super) fn finish(&mut self, context: &[u8], index: u64) {
        let Ok(number) = context.try_into().map(u64::from_be_bytes) else {
            return;
        };
        while self.rounds.front().is_some_and(|(round, _)| *round <= number) {
            for reply in self.rounds.pop_front().into_iter().flat_map(|(_, replies)| replies) {
                let _ = reply.send(Ok(index));
            }
        }
    }

    pub(super) fn give_up(&mut self) {
        let rounds = std::mem::take(&mut self.rounds).into_iter().flat_map(|(_, replies)| replies);
        for reply in rounds.chain(std::mem::take(&mut self.waiting)) {
            let _ = reply.send(Err(Error::NotLeader));
        }
    }
}

/// Answers a caller that may be gone.
pub(super) fn answer<T>(reply: Reply<T>, result: Result<T>) {
    let _ = reply.send(result);
}
