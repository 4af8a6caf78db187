//! SHHH, the sentinel: finds secrets in bytes on their way out or to disk and puts `[REDACTED:<rule>]` in their place.
//!
//! It decides what a secret is and where; what is done about a finding (counting, refusing, auditing) is the caller's.

mod allow;
mod alphabet;
mod assignment;
mod custom;
mod json;
mod literals;
mod probe;
mod rules;
mod scan;
mod stream;
mod wide;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use serde::Serialize;

pub use custom::RuleFile;
pub use scan::Scanner;
pub use stream::Redactor;

/// The rule named in place of a task's own secrets, whose values are known literally.
pub const TASK_SECRET_RULE: &str = "task-secret";

/// How bad it is when a secret of this kind gets out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// A nuisance.
    Low,
    /// Opens something small, or is likely but not surely a secret.
    Medium,
    /// Opens an account or a service.
    High,
    /// Opens much, or cannot be revoked.
    Critical,
}

impl Severity {
    /// All of them, the least first.
    pub const ALL: [Self; 4] = [Self::Low, Self::Medium, Self::High, Self::Critical];

    /// Its name as it is written in findings and metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
            Self::Critical => "critical",
        }
    }
}

/// What a rule asks of whoever was about to let the text go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// The text may go once it is redacted.
    Redact,
    /// The text should not go at all; where it must, it is redacted too.
    Deny,
}

impl Action {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Redact, Self::Deny];

    /// Its name as it is written in findings.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Redact => "redact",
            Self::Deny => "deny",
        }
    }
}

/// A secret that was found: which rule, where, and a keyed hash by which two findings of one secret can be told to be
/// the same. Never the secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The rule's id.
    pub rule: Arc<str>,
    /// The rule's severity.
    pub severity: Severity,
    /// The rule's action.
    pub action: Action,
    /// First byte of the secret in the text (in a stream: since its beginning; in JSON: in its string).
    pub start: u64,
    /// First byte after it.
    pub end: u64,
    /// Hex of the first 8 bytes of HMAC-SHA256 under the scanner's audit key.
    pub audit: String,
}

/// Whether some finding's rule says that the text should not go at all.
#[must_use]
pub fn denied(findings: &[Finding]) -> bool {
    findings.iter().any(|f| f.action == Action::Deny)
}

const MARKER_BEGIN: &[u8] = b"[REDACTED:";

/// Ids of rules are no longer than this.
const RULE_ID_MAX_BYTES: usize = 64;

fn marker(rule: &str) -> String {
    format!("[REDACTED:{rule}]")
}

/// Where the marker that the text begins with ends.
fn marker_end(text: &[u8]) -> Option<usize> {
    let rule = text.strip_prefix(MARKER_BEGIN)?;
    let length = rule.iter().take(RULE_ID_MAX_BYTES).take_while(|b| is_rule_id(**b)).count();
    (rule.get(length) == Some(&b']')).then_some(MARKER_BEGIN.len() + length + 1)
}

/// Whether a marker goes on at the end of the text: what stands there is the name of a rule.
fn in_marker(text: &[u8]) -> bool {
    let name = text.iter().rev().take(RULE_ID_MAX_BYTES).take_while(|b| is_rule_id(**b)).count();
    text[..text.len() - name].ends_with(MARKER_BEGIN)
}

fn is_rule_id(byte: u8) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-'
}
