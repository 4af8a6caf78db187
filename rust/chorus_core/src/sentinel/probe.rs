//! Whether a secret begins at a keyword: a rule's form, compiled, and the three answers it can give on a stream.

use std::ops::Range;

use regex::bytes::{Regex, RegexBuilder};

use super::rules::{Form, Rule, pem};

/// How far before a keyword a rule may look (digits of a bot id, an escape sequence).
pub(super) const LOOK_BEHIND_BYTES: usize = 32;

/// How far after its keyword a rule's lead may reach.
pub(super) const LEAD_MAX_BYTES: usize = 160;

/// A compiled lead or pattern may take this much memory; the built-in ones take a few KiB.
const REGEX_SIZE_LIMIT_BYTES: usize = 2 << 20;

/// What a rule says about the text at a keyword.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Probe {
    /// No secret begins here, whatever follows.
    No,
    /// A secret: its range, and whether it goes on as long as its alphabet does.
    Match(Range<usize>, bool),
    /// More text must come before this can be told; the secret would begin at this place.
    Open(usize),
}

/// A rule ready to be asked.
pub(super) struct Prober {
    pub(super) rule: &'static Rule,
    lead: Option<Regex>,
    pattern: Option<Regex>,
    alphabet: [bool; 256],
}

impl Prober {
    pub(super) fn new(rule: &'static Rule) -> Result<Self, regex::Error> {
        let (lead, pattern, alphabet) = match &rule.form {
            Form::Token { pattern, alphabet, .. } => (None, Some(compile(pattern)?), *alphabet),
            Form::Assigned { lead, pattern, alphabet, .. } => {
                (Some(compile(lead)?), Some(compile(pattern)?), *alphabet)
            }
            Form::Pem => (None, None, ""),
        };
        Ok(Self { rule, lead, pattern, alphabet: byte_class(alphabet) })
    }

    /// Whether the byte can be part of this rule's secrets.
    pub(super) fn continues(&self, byte: u8) -> bool {
        self.alphabet[usize::from(byte)]
    }

    /// Asks the rule about the keyword at `at`. `complete` says that nothing follows `text`.
    pub(super) fn probe(&self, text: &[u8], at: usize, complete: bool) -> Probe {
        let (start, max) = match &self.rule.form {
            Form::Pem => return pem::probe(text, at, complete),
            Form::Token { behind, max_bytes, .. } => {
                let Some(start) = behind.start(text, at) else { return Probe::No };
                (start, *max_bytes)
            }
            Form::Assigned { max_bytes, unless_after, .. } => {
                if !unless_after.is_empty() && text[..at].ends_with(unless_after.as_bytes()) {
                    return Probe::No;
                }
                let reach = text.len().min(at + LEAD_MAX_BYTES);
                let Some(lead) = self.lead.as_ref().and_then(|lead| lead.find(&text[at..reach])) else {
                    return Probe::No;
                };
                (at + lead.end(), *max_bytes)
            }
        };
        let limit = start + max;
        let run = text[start..].iter().take(max).take_while(|b| self.continues(**b)).count();
        let run_end = start + run;
        if run_end == text.len() && run < max && !complete {
            return if run == 0 { Probe::No } else { Probe::Open(start) };
        }
        // One byte more than the run, so that a pattern can ask what ends it.
        let window = &text[start..text.len().min(limit).min(run_end + 1)];
        let Some(found) = self.pattern.as_ref().and_then(|p| p.captures(window)) else { return Probe::No };
        let Some(secret) = found.get(1).or_else(|| found.get(0)) else { return Probe::No };
        if secret.is_empty() || !self.holds(secret.as_bytes()) {
            return Probe::No;
        }
        let (from, mut to) = (start + secret.start(), start + secret.end());
        let goes_on = run == max && to == limit;
        if goes_on {
            to += text[to..].iter().take_while(|b| self.continues(**b)).count();
        }
        Probe::Match(from..to, goes_on)
    }

    fn holds(&self, secret: &[u8]) -> bool {
        self.rule.entropy.is_none_or(|floor| entropy_bits(secret) >= floor)
            && self.rule.check.is_none_or(|check| check(secret))
    }
}

fn compile(pattern: &str) -> Result<Regex, regex::Error> {
    RegexBuilder::new(&format!(r"\A(?:{pattern})")).unicode(false).size_limit(REGEX_SIZE_LIMIT_BYTES).build()
}

/// The bytes of a class like `A-Za-z0-9_-`; `^` in front means all others but line ends and spaces.
fn byte_class(class: &str) -> [bool; 256] {
    let mut set = [false; 256];
    let (negated, bytes) = match class.as_bytes() {
        [b'^', rest @ ..] => (true, rest),
        rest => (false, rest),
    };
    let mut i = 0;
    while i < bytes.len() {
        let last = if i + 2 < bytes.len() && bytes[i + 1] == b'-' { bytes[i + 2] } else { bytes[i] };
        for byte in bytes[i]..=last {
            set[usize::from(byte)] = true;
        }
        i += if last == bytes[i] { 1 } else { 3 };
    }
    if negated {
        for (byte, member) in set.iter_mut().enumerate() {
            *member = !*member && !(byte as u8).is_ascii_whitespace();
        }
    }
    set
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
    fn classes_are_sets_of_bytes() {
        let set = byte_class("a-cX_-");
        let members: Vec<u8> = (0..=255).filter(|b| set[usize::from(*b)]).collect();
        assert_eq!(members, b"-X_abc");
        let others = byte_class("^@:");
        assert!(others[usize::from(b'x')] && others[0xff] && others[0]);
        assert!(!others[usize::from(b'@')] && !others[usize::from(b'\n')] && !others[usize::from(b' ')]);
    }

    #[test]
    fn entropy_counts_bits() {
        assert!(entropy_bits(b"aaaaaaaa") < 0.01);
        assert!((entropy_bits(b"abcdabcd") - 2.0).abs() < 1e-9);
        assert!((entropy_bits(&(0..=255).collect::<Vec<u8>>()) - 8.0).abs() < 1e-9);
    }
}
