//! What the sentinel found on the ways out of this core: how often each rule, and of the latest where and with which
//! hash. Never the secret.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, PoisonError},
};

use serde::Serialize;

use crate::sentinel::Finding;

/// So many of the latest findings are kept for whoever writes them down; more at once are only counted.
const AUDIT_MAX: usize = 256;

/// Counts and the latest of secrets found.
#[derive(Debug, Default)]
pub struct Findings(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    counts: BTreeMap<Arc<str>, u64>,
    latest: VecDeque<Noted>,
    next: u64,
}

/// A finding and where it was on its way out.
#[derive(Debug, Clone, Serialize)]
pub struct Noted {
    /// Number of the finding since the start of this core.
    pub seq: u64,
    /// The topic, method or record.
    pub place: String,
    /// What was found.
    #[serde(flatten)]
    pub finding: Finding,
}

impl Findings {
    /// Adds what was found on the way to `place`.
    pub fn note(&self, place: &str, found: &[Finding]) {
        if found.is_empty() {
            return;
        }
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for finding in found {
            *kept.counts.entry(Arc::clone(&finding.rule)).or_default() += 1;
            let noted = Noted { seq: kept.next, place: place.to_owned(), finding: finding.clone() };
            kept.next += 1;
            if kept.latest.len() == AUDIT_MAX {
                kept.latest.pop_front();
            }
            kept.latest.push_back(noted);
        }
    }

    /// How many secrets were found, by rule.
    #[must_use]
    pub fn counts(&self) -> BTreeMap<Arc<str>, u64> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).counts.clone()
    }

    /// The latest findings, the oldest first.
    #[must_use]
    pub fn audit(&self) -> Vec<Noted> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).latest.iter().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sentinel::{Action, Severity, TASK_SECRET_RULE};

    #[test]
    fn all_are_counted_and_the_latest_kept() {
        let findings = Findings::default();
        let found = Finding {
            rule: TASK_SECRET_RULE.into(),
            severity: Severity::High,
            action: Action::Redact,
            start: 1,
            end: 9,
            audit: "00".into(),
        };
        for _ in 0..AUDIT_MAX + 10 {
            findings.note("chorus/tasks", std::slice::from_ref(&found));
        }
        let kept = findings.audit();
        assert_eq!((kept.len(), kept[0].seq), (AUDIT_MAX, 10));
        assert_eq!(findings.counts()[TASK_SECRET_RULE], (AUDIT_MAX + 10) as u64);
    }
}
