//! The scanner: one pass of Aho–Corasick over the text for the rules' keywords, and a rule's pattern only where one of
//! its keywords is. Ordinary text pays for the one pass.

use std::{
    ops::Range,
    sync::{Arc, OnceLock},
};

use aho_corasick::{AhoCorasick, AhoCorasickKind, MatchKind};
use hkdf::Hkdf;
use sha2::Sha256;

use super::{
    Action, Finding, Severity, TASK_SECRET_RULE, marker,
    probe::{Probe, Prober},
    rules::{BUILT_IN, Form, begins_word},
};
use crate::{Error, Result};

/// So many bytes of the HMAC tell findings apart and are of no use for guessing.
const AUDIT_BYTES: usize = 8;

/// Finds secrets by rules. Cheap to clone; clones share the compiled rules.
#[derive(Clone)]
pub struct Scanner {
    pub(super) engine: Arc<Engine>,
    audit_key: Arc<[u8; 32]>,
}

/// The compiled rules and their keywords.
pub(super) struct Engine {
    pub(super) probers: Vec<Prober>,
    keywords: AhoCorasick,
    /// By keyword: which probers it concerns.
    owners: Vec<Vec<usize>>,
    /// Beginnings of secrets that a stream may have been cut in.
    pub(super) openings: Vec<&'static str>,
}

/// A secret's place before it is reported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Hit {
    pub(super) range: Range<usize>,
    pub(super) label: Label,
    /// The prober whose alphabet the secret may go on in beyond what was looked at.
    pub(super) goes_on: Option<usize>,
}

/// What names a hit; of overlapping ones the greatest wins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Label {
    pub(super) rule: &'static str,
    pub(super) severity: Severity,
    pub(super) action: Action,
    /// Place in the list of rules; smaller is more specific. Known secrets come first.
    rank: usize,
}

impl Label {
    pub(super) const TASK_SECRET: Self =
        Self { rule: TASK_SECRET_RULE, severity: Severity::Critical, action: Action::Redact, rank: 0 };

    fn outranks(&self, other: &Self) -> bool {
        (self.severity, std::cmp::Reverse(self.rank)) > (other.severity, std::cmp::Reverse(other.rank))
    }
}

impl Engine {
    fn build() -> Result<Self> {
        let fail = |e: &dyn std::fmt::Display| Error::Internal(format!("the sentinel's rules do not compile: {e}"));
        let probers =
            BUILT_IN.iter().map(|rule| Prober::new(rule)).collect::<Result<Vec<_>, _>>().map_err(|e| fail(&e))?;
        let mut keywords: Vec<&'static str> = Vec::new();
        let mut owners: Vec<Vec<usize>> = Vec::new();
        for (index, prober) in probers.iter().enumerate() {
            for keyword in prober.rule.keywords {
                match keywords.iter().position(|known| known.eq_ignore_ascii_case(keyword)) {
                    Some(known) => owners[known].push(index),
                    None => {
                        keywords.push(keyword);
                        owners.push(vec![index]);
                    }
                }
            }
        }
        let openings = probers
            .iter()
            .filter(|p| !matches!(p.rule.form, Form::Assigned { .. }))
            .flat_map(|p| p.rule.keywords.iter().copied())
            .collect();
        let keywords = AhoCorasick::builder()
            .ascii_case_insensitive(true)
            .match_kind(MatchKind::Standard)
            .kind(Some(AhoCorasickKind::DFA))
            .build(&keywords)
            .map_err(|e| fail(&e))?;
        Ok(Self { probers, keywords, owners, openings })
    }

    /// All hits in the text, unmerged, and where the first secret begins, or may just begin, that is not whole yet.
    pub(super) fn sweep(&self, text: &[u8], complete: bool) -> (Vec<Hit>, usize) {
        let (hits, open_from) = self.probe(text, complete);
        let beginning = if complete { text.len() } else { self.opening_at_end(text) };
        (hits, open_from.min(beginning))
    }

    /// The same, without tokens of which not even the keyword is whole.
    pub(super) fn probe(&self, text: &[u8], complete: bool) -> (Vec<Hit>, usize) {
        let mut hits = Vec::new();
        let mut open_from = text.len();
        let mut looked_to = vec![0; self.probers.len()];
        for keyword in self.keywords.find_overlapping_iter(text) {
            // No secret begins before its keyword, so nothing from here on can change what may go out now.
            if keyword.start() >= open_from {
                continue;
            }
            for index in &self.owners[keyword.pattern().as_usize()] {
                let prober = &self.probers[*index];
                if keyword.start() < looked_to[*index] {
                    continue;
                }
                match prober.probe(text, keyword.start(), complete) {
                    Probe::No => {}
                    Probe::Open(start) => open_from = open_from.min(start),
                    Probe::Match(range, goes_on) => {
                        looked_to[*index] = range.end;
                        let rule = prober.rule;
                        let label =
                            Label { rule: rule.id, severity: rule.severity, action: rule.action, rank: index + 1 };
                        hits.push(Hit { range, label, goes_on: goes_on.then_some(*index) });
                    }
                }
            }
        }
        (hits, open_from)
    }

    /// Where at the end of the text the first part of a token's beginning stands.
    fn opening_at_end(&self, text: &[u8]) -> usize {
        let longest = self.openings.iter().map(|o| o.len()).max().unwrap_or(1);
        let from = (text.len() + 1).saturating_sub(longest);
        (from..text.len())
            .find(|at| {
                let tail = &text[*at..];
                let opens = |o: &&str| o.len() > tail.len() && o.as_bytes().starts_with(tail);
                self.openings.iter().any(opens) && (begins_word(&text[..*at]) || !tail[0].is_ascii_alphanumeric())
            })
            .unwrap_or(text.len())
    }
}

impl Scanner {
    /// The scanner with the built-in rules, under an audit key of its own.
    ///
    /// # Errors
    /// `Internal` when a rule does not compile, which the tests rule out.
    pub fn builtin() -> Result<Self> {
        Self::with_audit_key(rand::random())
    }

    /// The scanner with the built-in rules, its findings' audit hashes under `key`.
    ///
    /// # Errors
    /// `Internal` when a rule does not compile, which the tests rule out.
    pub fn with_audit_key(key: [u8; 32]) -> Result<Self> {
        static ENGINE: OnceLock<Arc<Engine>> = OnceLock::new();
        let engine = match ENGINE.get() {
            Some(engine) => engine.clone(),
            None => {
                let built = Arc::new(Engine::build()?);
                ENGINE.get_or_init(|| built).clone()
            }
        };
        Ok(Self { engine, audit_key: Arc::new(key) })
    }

    /// The ids of all rules, with their severities and actions.
    pub fn rules(&self) -> impl Iterator<Item = (&'static str, Severity, Action)> + '_ {
        self.engine.probers.iter().map(|p| (p.rule.id, p.rule.severity, p.rule.action))
    }

    /// The secrets in a text, in order, none overlapping another.
    #[must_use]
    pub fn scan(&self, text: &[u8]) -> Vec<Finding> {
        let hits = merge(self.engine.sweep(text, true).0);
        hits.iter().map(|hit| self.finding(hit, 0, &text[hit.range.clone()])).collect()
    }

    /// The text with every secret replaced by `[REDACTED:<rule>]`, and what was found.
    #[must_use]
    pub fn redact(&self, text: &[u8]) -> (Vec<u8>, Vec<Finding>) {
        let findings = self.scan(text);
        if findings.is_empty() {
            return (text.to_vec(), findings);
        }
        let mut clean = Vec::with_capacity(text.len());
        let mut place = 0;
        for finding in &findings {
            #[allow(clippy::cast_possible_truncation)]
            let (start, end) = (finding.start as usize, finding.end as usize);
            clean.extend_from_slice(&text[place..start]);
            clean.extend_from_slice(marker(finding.rule).as_bytes());
            place = end;
        }
        clean.extend_from_slice(&text[place..]);
        (clean, findings)
    }

    pub(super) fn finding(&self, hit: &Hit, offset: u64, secret: &[u8]) -> Finding {
        Finding {
            rule: hit.label.rule,
            severity: hit.label.severity,
            action: hit.label.action,
            start: offset + hit.range.start as u64,
            end: offset + hit.range.end as u64,
            audit: self.audit(secret),
        }
    }

    /// HMAC-SHA256, which is what HKDF's first step is (RFC 5869, section 2.2), shortened.
    fn audit(&self, secret: &[u8]) -> String {
        let (mac, _) = Hkdf::<Sha256>::extract(Some(self.audit_key.as_slice()), secret);
        hex::encode(&mac[..AUDIT_BYTES])
    }
}

impl std::fmt::Debug for Scanner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Scanner").field("rules", &self.engine.probers.len()).finish_non_exhaustive()
    }
}

/// Joins hits that overlap into one, named after the most severe and then the most specific of them. The outcome does
/// not depend on the order in which they were found.
pub(super) fn merge(mut hits: Vec<Hit>) -> Vec<Hit> {
    hits.sort_by_key(|hit| (hit.range.start, std::cmp::Reverse(hit.range.end), hit.label.rank));
    let mut merged: Vec<Hit> = Vec::with_capacity(hits.len());
    for hit in hits {
        match merged.last_mut() {
            Some(last) if hit.range.start < last.range.end => {
                if hit.label.outranks(&last.label) {
                    last.label = hit.label;
                }
                if hit.range.end > last.range.end {
                    last.goes_on = hit.goes_on;
                    last.range.end = hit.range.end;
                } else if hit.range.end == last.range.end {
                    last.goes_on = last.goes_on.or(hit.goes_on);
                }
            }
            _ => merged.push(hit),
        }
    }
    merged
}
