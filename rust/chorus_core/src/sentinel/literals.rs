//! Known secrets, looked for letter by letter and all at once: one pass of Aho-Corasick, whatever their number.
//!
//! A stream also needs to know how much of a secret has begun at the end of what is there; the automaton's state says
//! so, because each of its states stands for a beginning of a secret.

use std::ops::Range;

use aho_corasick::{
    Anchored, MatchKind,
    automaton::{Automaton, StateID},
    nfa::noncontiguous::{Builder, NFA},
};
use zeroize::Zeroizing;

use crate::{Error, Result};

/// The values that a stream is searched for.
#[derive(Default)]
pub(super) struct Literals {
    values: Vec<Zeroizing<Vec<u8>>>,
    search: Option<Search>,
}

struct Search {
    nfa: NFA,
    start: StateID,
    /// By state: the length of the longest beginning of a value, none of them whole, that the text ends with there.
    begun: Vec<usize>,
}

impl Literals {
    /// These values and others.
    pub(super) fn with(&self, more: &[&[u8]]) -> Result<Self> {
        let mut values = self.values.clone();
        values.extend(more.iter().map(|value| Zeroizing::new(value.to_vec())));
        // The shorter ones first: what is known about their states serves the longer ones.
        values.sort_by(|a, b| (a.len(), a.as_slice()).cmp(&(b.len(), b.as_slice())));
        values.dedup();
        let search = Some(Search::new(&values)?);
        Ok(Self { values, search })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.values.len()
    }

    /// Where the values stand in the text, those that overlap too, and how much of one has begun at its end.
    pub(super) fn look(&self, text: &[u8]) -> (Vec<Range<usize>>, usize) {
        let mut found = Vec::new();
        let Some(search) = &self.search else { return (found, 0) };
        let mut state = search.start;
        for (place, byte) in text.iter().enumerate() {
            state = search.nfa.next_state(Anchored::No, state, *byte);
            if !search.nfa.is_match(state) {
                continue;
            }
            // The longest is enough: the others end where it ends.
            let lengths = (0..search.nfa.match_len(state)).map(|n| self.length(search, state, n));
            if let Some(length) = lengths.max() {
                found.push(place + 1 - length..place + 1);
            }
        }
        (found, search.begun.get(state.as_usize()).copied().unwrap_or(0))
    }

    fn length(&self, search: &Search, state: StateID, number: usize) -> usize {
        self.values[search.nfa.match_pattern(state, number).as_usize()].len()
    }
}

impl Search {
    fn new(values: &[Zeroizing<Vec<u8>>]) -> Result<Self> {
        let broken = |e: &dyn std::fmt::Display| Error::Internal(format!("cannot look for the task's secrets: {e}"));
        let nfa = Builder::new()
            .match_kind(MatchKind::Standard)
            .build(values.iter().map(|value| value.as_slice()))
            .map_err(|e| broken(&e))?;
        let start = nfa.start_state(Anchored::No).map_err(|e| broken(&e))?;
        let mut search = Self { nfa, start, begun: Vec::new() };
        for value in values {
            let mut state = start;
            for (length, byte) in value.iter().enumerate() {
                search.note(state, length);
                state = search.nfa.next_state(Anchored::No, state, *byte);
            }
        }
        // At the end of a value that begins no other, the longest beginning is that of its rest.
        for value in values {
            let whole = search.walk(value);
            if search.known(whole).is_none() {
                let rest = search.known(search.walk(&value[1..])).unwrap_or(0);
                search.note(whole, rest);
            }
        }
        search.begun.iter_mut().for_each(|length| *length = length.saturating_sub(1));
        Ok(search)
    }

    fn walk(&self, text: &[u8]) -> StateID {
        text.iter().fold(self.start, |state, byte| self.nfa.next_state(Anchored::No, state, *byte))
    }

    /// While it is built, lengths are kept one too large: 0 says that nothing is known yet.
    fn note(&mut self, state: StateID, length: usize) {
        let index = state.as_usize();
        if self.begun.len() <= index {
            self.begun.resize(index + 1, 0);
        }
        self.begun[index] = length + 1;
    }

    fn known(&self, state: StateID) -> Option<usize> {
        self.begun.get(state.as_usize())?.checked_sub(1)
    }
}
