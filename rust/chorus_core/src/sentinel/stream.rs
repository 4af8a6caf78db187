//! Redaction of a stream in whatever pieces it comes. Bytes are held back only from the place where a secret may have
//! begun that is not whole yet; everything before it goes out at once.
//!
//! The delay is bounded: by the longest secret of a rule (32 KiB for a private key, far less for most), or a task's own
//! longest. The time is too: a secret that grows in small pieces is not looked at from its beginning for each of them.

use std::{ops::Range, sync::Arc};

use super::{
    Finding, Scanner,
    literals::Literals,
    probe::{LEAD_MAX_BYTES, LOOK_BEHIND_BYTES},
    rules::manifest,
    scan::{Hit, merge},
    wide,
};
use crate::{Error, Result};

/// Shorter values cannot be told from ordinary text and are not looked for.
const MIN_LITERAL_BYTES: usize = 4;

/// Longest value of a task secret that is looked for; the whole of it may be held back.
const MAX_LITERAL_BYTES: usize = 64 * 1024;

/// What was already let out is remembered this far back, for rules that look at what stands before a secret.
const MEMORY_BYTES: usize = manifest::REACH_BYTES + LEAD_MAX_BYTES + LOOK_BEHIND_BYTES;

/// Takes secrets out of a stream of bytes.
pub struct Redactor {
    scanner: Scanner,
    literals: Arc<Literals>,
    /// What was let out last, and behind it what is held back.
    window: Vec<u8>,
    /// So much of the window was let out.
    released: usize,
    /// Where in the stream the window begins.
    offset: u64,
    /// A secret was cut off at its greatest length; the alphabets of the rules that found it are dropped until all end.
    swallowing: Vec<usize>,
    /// What of the window was only more of such a secret.
    deaf: Range<usize>,
    /// Whether that secret is in wide characters.
    swallows_wide: bool,
    /// The rule whose secret is held back and not whole, and whether that is in wide characters; nothing else is.
    waiting: Option<(usize, bool)>,
    findings: Vec<Finding>,
}

impl Redactor {
    /// A redactor at the beginning of a stream.
    #[must_use]
    pub fn new(scanner: Scanner) -> Self {
        Self {
            scanner,
            literals: Arc::default(),
            window: Vec::new(),
            released: 0,
            offset: 0,
            swallowing: Vec::new(),
            deaf: 0..0,
            swallows_wide: false,
            waiting: None,
            findings: Vec::new(),
        }
    }

    /// A redactor at the beginning of another stream, with the same rules and known secrets.
    #[must_use]
    pub fn again(&self) -> Self {
        Self { literals: Arc::clone(&self.literals), ..Self::new(self.scanner.clone()) }
    }

    /// Also takes out these very values, as `[REDACTED:task-secret]`. Values of less than 4 bytes are not looked for.
    /// Gives how many are. Secrets that are given at once cost one search; each call builds it anew.
    ///
    /// # Errors
    /// `TooLarge` for values above 64 KiB.
    pub fn add_secrets<'a>(&mut self, values: impl IntoIterator<Item = &'a [u8]>) -> Result<usize> {
        let mut known = Vec::new();
        for value in values {
            if value.len() > MAX_LITERAL_BYTES {
                return Err(Error::TooLarge(format!(
                    "a secret has {} bytes; at most {MAX_LITERAL_BYTES} can be looked for",
                    value.len()
                )));
            }
            if value.len() >= MIN_LITERAL_BYTES {
                known.push(value);
            }
        }
        if !known.is_empty() {
            self.literals = Arc::new(self.literals.with(&known)?);
        }
        Ok(known.len())
    }

    /// Takes the next piece and gives what can go out now.
    pub fn push(&mut self, piece: &[u8]) -> Vec<u8> {
        let piece = self.swallow(piece);
        let waits = self.waits_with(piece);
        self.window.extend_from_slice(piece);
        if waits { Vec::new() } else { self.release(false) }
    }

    /// Whether all there is to say after this piece is that more must come: it is more of the secret held back.
    pub(super) fn waits_with(&self, piece: &[u8]) -> bool {
        let held = &self.window[self.released..];
        match self.waiting {
            None => false,
            Some((index, false)) => {
                self.scanner.engine.probers[index].stays_open(held.len(), held.last().copied(), piece)
            }
            Some((index, true)) => {
                let last = held.iter().rfind(|b| **b != 0).copied();
                self.scanner.engine.probers[index].stays_open(held.len() / 2, last, &wide::narrow(piece))
            }
        }
    }

    /// Says that nothing more comes, and gives the rest.
    pub fn finish(&mut self) -> Vec<u8> {
        self.swallowing.clear();
        self.release(true)
    }

    /// Says that the stream rests for now, and gives what is held back only because a token might just have begun (a
    /// letter typed at a terminal), never any of a token's own bytes.
    pub fn settle(&mut self) -> Vec<u8> {
        let end = self.window.len();
        let held = &self.window[self.released..];
        let begun = self.scanner.engine.probe(&self.window, false, None, self.deaf.clone());
        let mut begun = begun;
        wide::sweep(&self.scanner.engine, &self.literals, &self.window, self.offset, false, None, &mut begun);
        let is_beginning = self.scanner.engine.is_opening(held);
        let has_begun = begun.open_from < end || begun.hits.iter().any(|hit| hit.range.end > self.released);
        let is_known = self.literals.look(&self.window).1 > 0;
        if !is_beginning || has_begun || is_known {
            return Vec::new();
        }
        let out = held.to_vec();
        self.released = end;
        out
    }

    /// How many bytes are held back.
    #[must_use]
    pub fn held(&self) -> usize {
        self.window.len() - self.released
    }

    /// What was found so far; places count from the beginning of the stream.
    #[must_use]
    pub fn findings(&self) -> &[Finding] {
        &self.findings
    }

    /// Gives what was found since the last call and forgets it, so that a long stream needs no more memory.
    pub fn take_findings(&mut self) -> Vec<Finding> {
        std::mem::take(&mut self.findings)
    }

    fn swallow<'a>(&mut self, piece: &'a [u8]) -> &'a [u8] {
        if self.swallowing.is_empty() {
            return piece;
        }
        let mut length = 0;
        let wide = self.swallows_wide;
        self.swallowing.retain(|index| {
            let prober = &self.scanner.engine.probers[*index];
            let more = piece.iter().take_while(|b| prober.continues(**b) || wide && **b == 0).count();
            length = length.max(more);
            more == piece.len()
        });
        // It counts as let out: what follows may want to know what stood before it.
        self.window.extend_from_slice(&piece[..length]);
        self.released = self.window.len();
        self.deaf.end = self.released;
        if let Some(last) = self.findings.last_mut() {
            last.end += length as u64;
        }
        self.forget();
        &piece[length..]
    }

    /// All hits in the window, where the first secret begins that is not whole, and its rule if that is all there is to
    /// wait for.
    fn sweep(&self, complete: bool) -> (Vec<Hit>, usize, Option<(usize, bool)>) {
        let engine = &self.scanner.engine;
        let mut found = engine.sweep_at(&self.window, complete, None, self.deaf.clone());
        let is_wide = wide::sweep(engine, &self.literals, &self.window, self.offset, complete, None, &mut found);
        let (mut hits, mut open_from) = (found.hits, found.open_from);
        if !self.literals.is_empty() {
            let (known, begun) = self.literals.look(&self.window);
            hits.extend(known.into_iter().map(Hit::known));
            if !complete {
                open_from = open_from.min(self.window.len() - begun);
            }
        }
        let open = found.open.filter(|_| open_from == found.open_from && self.literals.is_empty());
        (hits, open_from, open.map(|index| (index, is_wide)))
    }

    fn release(&mut self, complete: bool) -> Vec<u8> {
        let (hits, open_from, open) = self.sweep(complete);
        let hits: Vec<Hit> = merge(hits).into_iter().filter(|hit| hit.range.end > self.released).collect();
        // A secret that is whole waits with one that is not if they overlap: they may become one.
        let limit = hits.iter().find(|hit| hit.range.contains(&open_from)).map_or(open_from, |hit| hit.range.start);
        let limit = limit.max(self.released);
        let mut out = Vec::with_capacity(limit - self.released);
        for hit in hits.iter().take_while(|hit| hit.range.end <= limit) {
            let start = hit.range.start.max(self.released);
            out.extend_from_slice(&self.window[self.released..start]);
            let finding = self.scanner.finding(hit, self.offset, &self.window);
            out.extend(hit.marker(&finding.rule, &self.window));
            self.released = hit.range.end;
            self.findings.push(finding);
            if hit.range.end == self.window.len() && !complete {
                self.swallowing.clone_from(&hit.goes_on);
                self.swallows_wide = hit.wide.is_some();
            }
            if !hit.goes_on.is_empty() {
                self.deaf = hit.audited..hit.range.end;
            }
        }
        out.extend_from_slice(&self.window[self.released..limit]);
        self.released = limit;
        self.waiting = open.filter(|_| limit == open_from);
        self.forget();
        out
    }

    /// Drops what was let out too long ago to matter, once it is worth the copying.
    fn forget(&mut self) {
        let is_wide = memchr::memchr(0, &self.window[..self.released]).is_some();
        let kept = if is_wide { MEMORY_BYTES * wide::MAX_WIDTH } else { MEMORY_BYTES };
        let surplus = self.released.saturating_sub(kept);
        if surplus > 0 {
            self.window.drain(..surplus);
            self.released -= surplus;
            self.deaf = self.deaf.start.saturating_sub(surplus)..self.deaf.end.saturating_sub(surplus);
            self.offset += surplus as u64;
        }
    }
}

impl std::fmt::Debug for Redactor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Redactor")
            .field("held", &self.held())
            .field("secrets", &self.literals.len())
            .finish_non_exhaustive()
    }
}
