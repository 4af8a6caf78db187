//! The scanner: one pass of Aho–Corasick over the text for the rules' keywords, and a rule's pattern only where one of
//! its keywords is. Ordinary text pays for the one pass.

use std::{
    ops::Range,
    sync::{Arc, OnceLock},
};

use aho_corasick::{
    Anchored, MatchKind,
    automaton::Automaton,
    dfa::{Builder, DFA},
};
use hkdf::Hkdf;
use sha2::Sha256;

use super::{
    Action, Finding, Severity, TASK_SECRET_RULE,
    allow::Allow,
    custom::RuleFile,
    in_marker,
    literals::Literals,
    marker,
    probe::{Probe, Prober, Work},
    rules::{self, begins_word},
    wide::{self, Wide},
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

/// A rule and the text it is looked for at.
pub(super) struct Keyworded {
    pub(super) prober: Prober,
    pub(super) keywords: Vec<String>,
}

/// The compiled rules and their keywords.
pub(super) struct Engine {
    pub(super) probers: Vec<Prober>,
    keywords: DFA,
    /// By keyword: its length, and which probers it concerns.
    owners: Vec<(usize, Vec<Owner>)>,
    openings: Openings,
    allows: Vec<Allow>,
}

/// A rule that a keyword belongs to.
struct Owner {
    prober: usize,
    /// The keyword letter by letter, for rules that mind.
    exactly: Option<Box<[u8]>>,
}

/// Beginnings of secrets that a stream may have been cut in, by their first byte.
struct Openings {
    by_first: Vec<Vec<Opening>>,
    longest: usize,
}

struct Opening {
    keyword: Box<[u8]>,
    minds_case: bool,
    begins_word: bool,
}

impl Opening {
    fn is_begun_by(&self, tail: &[u8]) -> bool {
        self.keyword.len() > tail.len()
            && (self.keyword.starts_with(tail)
                || (!self.minds_case && self.keyword[..tail.len()].eq_ignore_ascii_case(tail)))
    }
}

/// A secret's place before it is reported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Hit {
    pub(super) range: Range<usize>,
    pub(super) label: Label,
    /// The probers whose alphabets the secret may go on in beyond what was looked at.
    pub(super) goes_on: Vec<usize>,
    /// Where that ends which its hash is made of: in pieces, the rest may never be there at once.
    pub(super) audited: usize,
    /// How it is written, if not in plain bytes.
    pub(super) wide: Option<Wide>,
}

impl Hit {
    /// What stands in its place in `text`, in its encoding.
    pub(super) fn marker(&self, rule: &str, text: &[u8]) -> Vec<u8> {
        let marker = marker(rule);
        match self.wide {
            Some(wide) => wide.encode(&marker, &text[self.range.clone()], !self.goes_on.is_empty()),
            None => marker.into_bytes(),
        }
    }
}

/// What names a hit; of overlapping ones the greatest wins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Label {
    /// The prober; None for a task's own secrets.
    prober: Option<usize>,
    severity: Severity,
    /// Place in the list of rules; smaller is more specific. Known secrets come first.
    rank: usize,
}

impl Label {
    pub(super) const TASK_SECRET: Self = Self { prober: None, severity: Severity::Critical, rank: 0 };

    fn outranks(&self, other: &Self) -> bool {
        (self.severity, std::cmp::Reverse(self.rank)) > (other.severity, std::cmp::Reverse(other.rank))
    }
}

/// What one pass over a text gives.
pub(super) struct Sweep {
    /// All hits, unmerged.
    pub(super) hits: Vec<Hit>,
    /// Where the first secret begins, or may just begin, that is not whole yet.
    pub(super) open_from: usize,
    /// The rule of that secret; None when only a keyword has begun.
    pub(super) open: Option<usize>,
    /// What only continues a secret that was cut off at its greatest length: keywords in it are not asked about, as in
    /// pieces they would not be seen either.
    pub(super) deaf: Range<usize>,
    #[cfg_attr(not(test), allow(dead_code))]
    pub(super) work: Work,
}

impl Engine {
    pub(super) fn build(rules: Vec<Keyworded>, allows: Vec<Allow>) -> Result<Self> {
        let mut keywords: Vec<String> = Vec::new();
        let mut owners: Vec<(usize, Vec<Owner>)> = Vec::new();
        let mut openings = Openings { by_first: (0..256).map(|_| Vec::new()).collect(), longest: 1 };
        let mut probers = Vec::new();
        for rule in rules {
            let minds_case = rule.prober.minds_case();
            for keyword in rule.keywords {
                let bytes: Box<[u8]> = keyword.as_bytes().into();
                let owner = Owner { prober: probers.len(), exactly: minds_case.then(|| bytes.clone()) };
                if rule.prober.begins_at_keyword() {
                    openings.add(bytes, minds_case, rule.prober.begins_word());
                }
                match keywords.iter().position(|known| known.eq_ignore_ascii_case(&keyword)) {
                    Some(known) => owners[known].1.push(owner),
                    None => {
                        owners.push((keyword.len(), vec![owner]));
                        keywords.push(keyword);
                    }
                }
            }
            probers.push(rule.prober);
        }
        let keywords = Builder::new()
            .ascii_case_insensitive(true)
            .match_kind(MatchKind::Standard)
            .start_kind(aho_corasick::StartKind::Unanchored)
            .build(&keywords)
            .map_err(|e| Error::Internal(format!("the sentinel's keywords do not compile: {e}")))?;
        Ok(Self { probers, keywords, owners, openings, allows })
    }

    fn built_in(file: RuleFile) -> Result<Self> {
        let owned = |rule: &rules::Rule| Keyworded {
            prober: Prober::new(rule),
            keywords: rule.keywords.iter().map(|keyword| (*keyword).to_owned()).collect(),
        };
        // An operator's rules know best what their secrets are called.
        let rules = file.rules.into_iter().chain(rules::built_in().map(owned)).collect();
        Self::build(rules, file.allows)
    }

    /// All hits in the text, and where the first secret begins, or may just begin, that is not whole yet.
    pub(super) fn sweep(&self, text: &[u8], complete: bool) -> Sweep {
        self.sweep_at(text, complete, None, 0..0)
    }

    pub(super) fn sweep_at(&self, text: &[u8], complete: bool, path: Option<&str>, deaf: Range<usize>) -> Sweep {
        let mut sweep = self.probe(text, complete, path, deaf);
        if !complete {
            let beginning = self.openings.at_end(text);
            if beginning < sweep.open_from {
                (sweep.open_from, sweep.open) = (beginning, None);
            }
        }
        sweep
    }

    /// The same, without tokens of which not even the keyword is whole.
    pub(super) fn probe(&self, text: &[u8], complete: bool, path: Option<&str>, deaf: Range<usize>) -> Sweep {
        let mut sweep = Sweep { hits: Vec::new(), open_from: text.len(), open: None, deaf, work: Work::default() };
        let mut looked_to = vec![0; self.probers.len()];
        let Ok(mut state) = self.keywords.start_state(Anchored::No) else { return sweep };
        for (place, byte) in text.iter().enumerate() {
            state = self.keywords.next_state(Anchored::No, state, *byte);
            if !self.keywords.is_special(state) || !self.keywords.is_match(state) {
                continue;
            }
            for number in 0..self.keywords.match_len(state) {
                let (length, owners) = &self.owners[self.keywords.match_pattern(state, number).as_usize()];
                let keyword = place + 1 - length..place + 1;
                self.ask(text, keyword, owners, complete, path, &mut sweep, &mut looked_to);
            }
        }
        sweep
    }

    #[allow(clippy::too_many_arguments)]
    fn ask(
        &self,
        text: &[u8],
        keyword: Range<usize>,
        owners: &[Owner],
        complete: bool,
        path: Option<&str>,
        sweep: &mut Sweep,
        looked_to: &mut [usize],
    ) {
        // No secret begins before its keyword, so nothing from here on can change what may go out now.
        if keyword.start >= sweep.open_from || sweep.deaf.contains(&keyword.start) {
            return;
        }
        for owner in owners {
            let index = owner.prober;
            if keyword.start < looked_to[index]
                || owner.exactly.as_ref().is_some_and(|exact| **exact != text[keyword.clone()])
            {
                continue;
            }
            let prober = &self.probers[index];
            match prober.probe(text, keyword.clone(), complete, &mut sweep.work) {
                Probe::No => {}
                Probe::Open(_) | Probe::Match(..) if in_marker(&text[..keyword.start]) => {}
                Probe::Open(start) => {
                    if start < sweep.open_from {
                        (sweep.open_from, sweep.open) = (start, Some(index));
                    }
                }
                Probe::Match(range, cut) => {
                    looked_to[index] = range.end;
                    let secret = &text[range.clone()];
                    if let Some(limit) = cut {
                        let joined = limit <= sweep.deaf.end;
                        let from = if joined { sweep.deaf.start.min(limit) } else { limit };
                        sweep.deaf = from..range.end.max(if joined { sweep.deaf.end } else { 0 });
                    } else if self.allows.iter().any(|allow| allow.holds(&prober.id, secret, path)) {
                        continue;
                    }
                    // What begins in the rest of a longer secret does not name it: in pieces the lead to it would not be
                    // seen whole before that one is let go.
                    let label = if sweep.deaf.contains(&range.start) {
                        Label { prober: Some(index), severity: Severity::Low, rank: usize::MAX }
                    } else {
                        Label { prober: Some(index), severity: prober.severity, rank: index + 1 }
                    };
                    let audited = cut.unwrap_or(range.end);
                    sweep.hits.push(Hit {
                        range,
                        label,
                        goes_on: cut.map(|_| index).into_iter().collect(),
                        audited,
                        wide: None,
                    });
                }
            }
        }
    }

    /// Whether these bytes alone are the first part of a token's beginning.
    pub(super) fn is_opening(&self, held: &[u8]) -> bool {
        held.first().is_none_or(|first| {
            self.openings.by_first[usize::from(*first)].iter().any(|opening| opening.is_begun_by(held))
        })
    }
}

impl Openings {
    fn add(&mut self, keyword: Box<[u8]>, minds_case: bool, begins_word: bool) {
        self.longest = self.longest.max(keyword.len());
        let Some(first) = keyword.first().copied() else { return };
        let mut firsts = vec![first];
        if !minds_case && first.is_ascii_alphabetic() {
            firsts.push(first ^ 0x20);
        }
        for first in firsts {
            self.by_first[usize::from(first)].push(Opening { keyword: keyword.clone(), minds_case, begins_word });
        }
    }

    /// Where at the end of the text the first part of a token's beginning stands.
    fn at_end(&self, text: &[u8]) -> usize {
        let from = (text.len() + 1).saturating_sub(self.longest);
        (from..text.len())
            .find(|at| {
                let tail = &text[*at..];
                self.by_first[usize::from(tail[0])].iter().any(|opening| {
                    opening.is_begun_by(tail)
                        && (!opening.begins_word || begins_word(&text[..*at]) || !tail[0].is_ascii_alphanumeric())
                })
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
                let built = Arc::new(Engine::built_in(RuleFile::default())?);
                ENGINE.get_or_init(|| built).clone()
            }
        };
        Ok(Self { engine, audit_key: Arc::new(key) })
    }

    /// The scanner with the built-in rules and those of a file, but for its exceptions.
    ///
    /// # Errors
    /// `Internal` when the keywords are too many for one search.
    pub fn with_rules(file: RuleFile, key: [u8; 32]) -> Result<Self> {
        Ok(Self { engine: Arc::new(Engine::built_in(file)?), audit_key: Arc::new(key) })
    }

    /// The ids of all rules, with their severities and actions.
    pub fn rules(&self) -> impl Iterator<Item = (&str, Severity, Action)> + '_ {
        self.engine.probers.iter().map(|p| (&*p.id, p.severity, p.action))
    }

    /// The secrets in a text, in order, none overlapping another.
    #[must_use]
    pub fn scan(&self, text: &[u8]) -> Vec<Finding> {
        self.scan_file(text, None)
    }

    /// The secrets in a file's text; its path counts for exceptions.
    #[must_use]
    pub fn scan_file(&self, text: &[u8], path: Option<&str>) -> Vec<Finding> {
        self.hits(text, path).iter().map(|hit| self.finding(hit, 0, text)).collect()
    }

    fn hits(&self, text: &[u8], path: Option<&str>) -> Vec<Hit> {
        let mut found = self.engine.sweep_at(text, true, path, 0..0);
        wide::sweep(&self.engine, &Literals::default(), text, 0, true, path, &mut found);
        merge(found.hits)
    }

    /// The text with every secret replaced by `[REDACTED:<rule>]`, and what was found.
    #[must_use]
    pub fn redact(&self, text: &[u8]) -> (Vec<u8>, Vec<Finding>) {
        let hits = self.hits(text, None);
        let mut findings = Vec::with_capacity(hits.len());
        let mut clean = Vec::with_capacity(text.len());
        let mut place = 0;
        for hit in &hits {
            let finding = self.finding(hit, 0, text);
            clean.extend_from_slice(&text[place..hit.range.start]);
            clean.extend(hit.marker(&finding.rule, text));
            place = hit.range.end;
            findings.push(finding);
        }
        clean.extend_from_slice(&text[place..]);
        (clean, findings)
    }

    /// What is said of a hit in `text`, which begins at `offset`.
    pub(super) fn finding(&self, hit: &Hit, offset: u64, text: &[u8]) -> Finding {
        let prober = hit.label.prober.map(|index| &self.engine.probers[index]);
        let secret = &text[hit.range.clone()];
        let range = offset + hit.range.start as u64..offset + hit.range.end as u64;
        let range = hit.wide.map_or(range.clone(), |wide| wide.place(&range, secret));
        Finding {
            rule: prober.map_or_else(|| TASK_SECRET_RULE.into(), |prober| Arc::clone(&prober.id)),
            severity: hit.label.severity,
            action: prober.map_or(Action::Redact, |prober| prober.action),
            start: range.start,
            end: range.end,
            audit: match hit.wide {
                // One secret has one hash, however it is written.
                Some(_) => self.audit(&wide::narrow(&text[hit.range.start..hit.audited])),
                None => self.audit(&text[hit.range.start..hit.audited]),
            },
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
                last.wide = last.wide.or(hit.wide);
                if last.goes_on.is_empty() {
                    last.audited = last.audited.max(hit.audited);
                }
                if hit.range.end > last.range.end {
                    last.goes_on = hit.goes_on;
                    last.range.end = hit.range.end;
                } else if hit.range.end == last.range.end {
                    last.goes_on.extend(hit.goes_on);
                }
            }
            _ => merged.push(hit),
        }
    }
    merged
}
