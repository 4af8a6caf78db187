//! Whether a secret begins at a keyword: a rule's form, compiled when it is first asked, and the three answers it can
//! give on a stream.
//!
//! Every answer is given after looking at a bounded number of bytes, so that text made of nothing but beginnings of
//! secrets takes time in proportion to its length.

use std::{
    ops::Range,
    sync::{Arc, OnceLock},
};

use regex::bytes::{Regex, RegexBuilder};

use super::{
    Action, Severity,
    alphabet::{Alphabet, alphabet_of},
    assignment::{self, Bond, Given},
    marker_end,
    rules::{Behind, Form, Rule, jwt, manifest, pem},
};

/// How far before a keyword a rule may look (digits of a bot id, an escape sequence, the marker of a redaction).
pub(super) const LOOK_BEHIND_BYTES: usize = 96;

/// How far after its keyword a rule's lead may reach.
pub(super) const LEAD_MAX_BYTES: usize = 160;

/// A compiled lead or pattern may take this much memory; the built-in ones take a few KiB.
pub(super) const REGEX_SIZE_LIMIT_BYTES: usize = 2 << 20;

/// The longest word that is taken for one right behind a secret; longer runs of letters are part of something else.
const WORD_MAX_BYTES: usize = 16;

/// Words up to this length are in every few megabytes of base64 by chance.
const CHANCE_KEYWORD_BYTES: usize = 4;

/// So many bytes before a word tell whether it stands in base64: of 64 random characters 32 change 20 times between
/// small letters, capitals, digits and signs, and 13 are of each case.
const BASE64_TAIL_BYTES: usize = 32;
const BASE64_MIN_TURNS: usize = 13;
const BASE64_MIN_OF_KIND: usize = 5;

/// What a rule says about the text at a keyword.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Probe {
    /// No secret begins here, whatever follows.
    No,
    /// A secret: its range, and, if it goes on as long as its alphabet does, where what was looked at ends.
    Match(Range<usize>, Option<usize>),
    /// More text must come before this can be told; the secret would begin at this place.
    Open(usize),
}

/// What a value may be, as a rule's check sees it.
pub(super) struct Secret<'a> {
    /// Its bytes.
    pub bytes: &'a [u8],
    /// The byte after it, when there is one.
    pub next: Option<u8>,
    /// The quote it stands in, where a name gives it and there is one.
    pub quote: Option<u8>,
    /// The name that it is given to.
    pub name: &'a [u8],
    /// How closely it belongs to the name.
    pub bond: Bond,
}

/// A rule's conditions beyond its pattern.
pub(super) type Check = fn(&Secret<'_>) -> bool;

/// A rule ready to be asked.
pub(super) struct Prober {
    pub(super) id: Arc<str>,
    pub(super) severity: Severity,
    pub(super) action: Action,
    entropy: Option<f64>,
    check: Option<Check>,
    form: ProberForm,
}

enum ProberForm {
    Token { behind: Behind, whole: bool, max_bytes: usize, pattern: Pattern },
    Assigned { unless_after: &'static str, lead: Lead, max_bytes: usize, pattern: Pattern },
    Pem,
    Jwt,
    Manifest,
}

/// What leads from a keyword to the value.
enum Lead {
    /// A pattern at the keyword.
    Pattern(&'static str, OnceLock<Option<Regex>>),
    /// The keyword is, or is part of, a name that something is given to.
    Name(assignment::Name),
}

/// A pattern and the bytes its matches are made of, compiled when first needed: most rules never are.
struct Pattern {
    source: String,
    compiled: OnceLock<Option<(Regex, Alphabet)>>,
}

impl Pattern {
    fn new(source: &str) -> Self {
        Self { source: source.to_owned(), compiled: OnceLock::new() }
    }

    fn get(&self) -> Option<&(Regex, Alphabet)> {
        self.compiled.get_or_init(|| Some((compile(&self.source).ok()?, alphabet_of(&self.source).ok()?))).as_ref()
    }
}

impl Prober {
    pub(super) fn new(rule: &Rule) -> Self {
        let form = match &rule.form {
            Form::Token { behind, pattern, whole, max_bytes } => ProberForm::Token {
                behind: *behind,
                whole: *whole,
                max_bytes: *max_bytes,
                pattern: Pattern::new(pattern),
            },
            Form::Assigned { unless_after, lead, pattern, max_bytes } => ProberForm::Assigned {
                unless_after,
                lead: Lead::Pattern(lead, OnceLock::new()),
                max_bytes: *max_bytes,
                pattern: Pattern::new(pattern),
            },
            Form::Named { name, pattern, max_bytes } => ProberForm::Assigned {
                unless_after: "",
                lead: Lead::Name(*name),
                max_bytes: *max_bytes,
                pattern: Pattern::new(pattern),
            },
            Form::Pem => ProberForm::Pem,
            Form::Jwt => ProberForm::Jwt,
            Form::Manifest => ProberForm::Manifest,
        };
        Self {
            id: rule.id.into(),
            severity: rule.severity,
            action: rule.action,
            entropy: rule.entropy,
            check: rule.check,
            form,
        }
    }

    /// A rule from a file: its pattern begins at a keyword, wherever that stands.
    pub(super) fn custom(
        id: Arc<str>,
        severity: Severity,
        action: Action,
        entropy: Option<f64>,
        pattern: &str,
        max_bytes: usize,
    ) -> Self {
        let pattern = Pattern::new(pattern);
        let form = ProberForm::Token { behind: Behind::Anything, whole: false, max_bytes, pattern };
        Self { id, severity, action, entropy, check: None, form }
    }

    /// Whether everything of this rule compiles.
    #[cfg(test)]
    pub(super) fn compiles(&self) -> bool {
        match &self.form {
            ProberForm::Token { pattern, .. } => pattern.get().is_some(),
            ProberForm::Assigned { pattern, lead, .. } => {
                pattern.get().is_some()
                    && match lead {
                        Lead::Pattern(source, _) => compile(source).is_ok(),
                        Lead::Name(_) => true,
                    }
            }
            ProberForm::Pem | ProberForm::Jwt | ProberForm::Manifest => true,
        }
    }

    /// Whether its secrets begin at its keywords: a stream must not let go of half a keyword then.
    pub(super) fn begins_at_keyword(&self) -> bool {
        !matches!(self.form, ProberForm::Assigned { .. } | ProberForm::Manifest)
    }

    /// Whether the keyword must stand there letter by letter. What a name is called is not a matter of case.
    pub(super) fn minds_case(&self) -> bool {
        matches!(self.form, ProberForm::Pem | ProberForm::Jwt)
            || matches!(self.form, ProberForm::Token { behind, .. } if behind != Behind::Anything)
    }

    /// Whether its keywords begin a word.
    pub(super) fn begins_word(&self) -> bool {
        matches!(self.form, ProberForm::Token { behind: Behind::Word, .. } | ProberForm::Pem | ProberForm::Jwt)
    }

    /// Whether the byte can be part of this rule's secrets.
    pub(super) fn continues(&self, byte: u8) -> bool {
        match &self.form {
            ProberForm::Token { pattern, .. } | ProberForm::Assigned { pattern, .. } => {
                pattern.get().is_some_and(|(_, alphabet)| alphabet.has(byte))
            }
            ProberForm::Jwt => jwt::continues(byte),
            ProberForm::Pem | ProberForm::Manifest => false,
        }
    }

    /// Whether a secret of which so much is there, up to this last byte, stays undecided when `piece` follows.
    pub(super) fn stays_open(&self, held: usize, last: Option<u8>, piece: &[u8]) -> bool {
        let length = held + piece.len();
        match &self.form {
            ProberForm::Pem => length < pem::MAX_BLOCK_BYTES && pem::stays_open(last, piece),
            ProberForm::Token { max_bytes, .. } | ProberForm::Assigned { max_bytes, .. } => {
                length < *max_bytes && piece.iter().all(|b| self.continues(*b))
            }
            ProberForm::Jwt => length < jwt::MAX_TOKEN_BYTES && piece.iter().all(|b| *b != b'.' && jwt::continues(*b)),
            ProberForm::Manifest => false,
        }
    }

    /// Asks the rule about the keyword at `keyword`. `complete` says that nothing follows `text`. `work` grows by the
    /// bytes that were looked at.
    pub(super) fn probe(&self, text: &[u8], keyword: Range<usize>, complete: bool, work: &mut Work) -> Probe {
        let at = keyword.start;
        match &self.form {
            ProberForm::Pem => pem::probe(text, at, complete, work),
            ProberForm::Jwt => jwt::probe(text, at, complete, work),
            ProberForm::Manifest => manifest::probe(text, at, complete, work),
            ProberForm::Token { behind, whole, max_bytes, pattern } => {
                let Some(start) = behind.start(text, at) else { return Probe::No };
                if *behind == Behind::Word && keyword.len() <= CHANCE_KEYWORD_BYTES && in_base64(&text[..at]) {
                    return Probe::No;
                }
                self.value(text, start, pattern, *max_bytes, *whole, &Given::to_nobody(start), complete, work)
            }
            ProberForm::Assigned { unless_after, lead, max_bytes, pattern } => {
                let before = &text[..at];
                if !unless_after.is_empty()
                    && (before.ends_with(unless_after.as_bytes())
                        || !before.last().is_some_and(u8::is_ascii_alphanumeric))
                {
                    return Probe::No;
                }
                let reach = text.len().min(at + LEAD_MAX_BYTES);
                let given = match lead {
                    Lead::Name(name) => match assignment::value(&text[..reach], keyword, *name, work) {
                        Some(given) => given,
                        None => return Probe::No,
                    },
                    Lead::Pattern(source, compiled) => {
                        work.add(reach - at);
                        let lead = compiled.get_or_init(|| compile(source).ok());
                        match lead.as_ref().and_then(|lead| lead.find(&text[at..reach])) {
                            Some(found) => Given::to_nobody(at + found.end()),
                            None => return Probe::No,
                        }
                    }
                };
                let found = self.value(text, given.start, pattern, *max_bytes, true, &given, complete, work);
                match &found {
                    Probe::Match(range, cut) if !is_text(&text[at..cut.unwrap_or(range.end)]) => Probe::No,
                    _ => found,
                }
            }
        }
    }

    #[allow(clippy::too_many_arguments)]
    fn value(
        &self,
        text: &[u8],
        start: usize,
        pattern: &Pattern,
        max: usize,
        whole: bool,
        given: &Given,
        complete: bool,
        work: &mut Work,
    ) -> Probe {
        let Some((pattern, alphabet)) = pattern.get() else { return Probe::No };
        let limit = start + max;
        let run = text[start..].iter().take(max).take_while(|b| alphabet.has(**b)).count();
        work.add(run);
        let run_end = start + run;
        if run_end == text.len() && run < max && !complete {
            return if run == 0 { Probe::No } else { Probe::Open(start) };
        }
        // One byte more than the run, so that a pattern can ask what ends it.
        let window = &text[start..text.len().min(limit).min(run_end + 1)];
        let Some(found) = pattern.captures(window) else { return Probe::No };
        let Some(secret) = found.get(1).or_else(|| found.get(0)) else { return Probe::No };
        let (from, mut to) = (start + secret.start(), start + secret.end());
        let goes_on = run == max && to == limit;
        let next = if goes_on { None } else { text.get(to).copied() };
        // Before anything is read on for: text that fails must not be read to its end for each of its beginnings.
        let bytes = &text[from..to];
        if bytes.is_empty() {
            return Probe::No;
        }
        let is_part = whole && bytes.last().is_some_and(u8::is_ascii_alphanumeric);
        let mut with_word = to;
        if is_part && next.is_some_and(|b| b.is_ascii_alphanumeric()) {
            with_word = match word_end(text, to, complete) {
                Word::No => return Probe::No,
                Word::Open => return Probe::Open(start),
                Word::End(end) => end,
            };
            work.add(with_word - to);
            // Letters like the secret's own can as well be more of something longer, unless it mixes all kinds.
            let has = |kind: fn(&u8) -> bool| bytes.iter().any(kind);
            let is_mixed = has(u8::is_ascii_lowercase) && has(u8::is_ascii_uppercase) && has(u8::is_ascii_digit);
            if !is_mixed && text[to..with_word].iter().all(|b| alphabet.has(*b)) {
                return Probe::No;
            }
        }
        let secret = Secret { bytes, next, quote: given.quote, name: &text[given.name.clone()], bond: given.bond };
        if !self.holds(&secret) {
            return Probe::No;
        }
        if goes_on {
            to += text[to..].iter().take_while(|b| alphabet.has(**b)).count();
            work.add(to - limit);
        }
        Probe::Match(from..to.max(with_word), goes_on.then_some(limit))
    }

    fn holds(&self, secret: &Secret<'_>) -> bool {
        marker_end(secret.bytes) != Some(secret.bytes.len())
            && self.check.is_none_or(|check| check(secret))
            && self.entropy.is_none_or(|floor| entropy_bits(secret.bytes) >= floor)
    }
}

/// What one pass over a text has cost and learnt. The bytes that were looked at beyond the pass itself bound the time
/// that hostile text can take.
#[derive(Debug, Default)]
pub(super) struct Work {
    bytes: u64,
    /// The last runs of one kind of bytes that were measured, so that none is measured for each of its parts.
    runs: [Range<usize>; 3],
    oldest: usize,
}

impl Work {
    pub(super) fn add(&mut self, bytes: usize) {
        self.bytes += bytes as u64;
    }

    #[cfg(test)]
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Where the run of bytes that `is` takes ends, from `from` on. Always asked with the same `is`.
    pub(super) fn run(&mut self, text: &[u8], from: usize, is: fn(u8) -> bool) -> usize {
        if let Some(known) = self.runs.iter().find(|known| known.contains(&from)) {
            return known.end;
        }
        let length = text[from..].iter().take_while(|b| is(**b)).count();
        self.add(length);
        self.runs[self.oldest] = from..from + length;
        self.oldest = (self.oldest + 1) % self.runs.len();
        from + length
    }
}

/// What may follow a secret whose length is known without anything between them.
enum Word {
    /// What follows is no word, so this is something longer than the secret.
    No,
    /// More text must come before this can be told.
    Open,
    /// A word, which ends here.
    End(usize),
}

/// Whether a word of ordinary language stands at `from`: letters alone, in small letters, in capitals, or capitalised.
fn word_end(text: &[u8], from: usize, complete: bool) -> Word {
    let rest = &text[from..text.len().min(from + WORD_MAX_BYTES + 1)];
    let length = rest.iter().take_while(|b| b.is_ascii_alphanumeric()).count();
    let word = &rest[..length];
    let tail = word.get(1..).unwrap_or_default();
    let is_word = tail.iter().all(u8::is_ascii_lowercase) && word.iter().all(u8::is_ascii_alphabetic)
        || word.iter().all(u8::is_ascii_uppercase);
    if length > WORD_MAX_BYTES || !is_word {
        return Word::No;
    }
    if from + length == text.len() && !complete {
        return Word::Open;
    }
    Word::End(from + length)
}

/// Whether bytes are of a text, where names and their values are: archives and pictures hold any pair of short words
/// by chance. The end of a character may be cut off.
fn is_text(bytes: &[u8]) -> bool {
    let is_control = |b: &u8| matches!(b, 0..=8 | 11..=12 | 14..=26 | 28..=31 | 127);
    let is_utf8 = || std::str::from_utf8(bytes).map_or_else(|e| e.error_len().is_none(), |_| true);
    !bytes.iter().any(is_control) && is_utf8()
}

/// Whether a text goes on in base64, of either alphabet, after `before`: in what is random every short word turns up.
fn in_base64(before: &[u8]) -> bool {
    let tail = &before[before.len().saturating_sub(BASE64_TAIL_BYTES)..];
    let is_base64 = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/' | b'-' | b'_');
    let kind = |b: u8| (b.is_ascii_digit(), b.is_ascii_uppercase(), b.is_ascii_lowercase());
    let turns = tail.windows(2).filter(|pair| kind(pair[0]) != kind(pair[1])).count();
    let has = |is: fn(&u8) -> bool| tail.iter().filter(|b| is(b)).count() >= BASE64_MIN_OF_KIND;
    tail.len() == BASE64_TAIL_BYTES
        && turns >= BASE64_MIN_TURNS
        && tail.iter().all(is_base64)
        && has(u8::is_ascii_uppercase)
        && has(u8::is_ascii_lowercase)
}

pub(super) fn compile(pattern: &str) -> Result<Regex, regex::Error> {
    RegexBuilder::new(&format!(r"\A(?:{pattern})")).unicode(false).size_limit(REGEX_SIZE_LIMIT_BYTES).build()
}

/// Shannon entropy of the bytes, in bits for each.
pub(super) fn entropy_bits(bytes: &[u8]) -> f64 {
    let mut counts = [0u32; 256];
    for byte in bytes {
        counts[usize::from(*byte)] += 1;
    }
    #[allow(clippy::cast_precision_loss)]
    let total = bytes.len() as f64;
    counts.iter().filter(|n| **n > 0).map(|n| f64::from(*n) / total).map(|p| -p * p.log2()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entropy_counts_bits() {
        assert!(entropy_bits(b"aaaaaaaa") < 0.01);
        assert!((entropy_bits(b"abcdabcd") - 2.0).abs() < 1e-9);
        assert!((entropy_bits(&(0..=255).collect::<Vec<u8>>()) - 8.0).abs() < 1e-9);
    }
}
