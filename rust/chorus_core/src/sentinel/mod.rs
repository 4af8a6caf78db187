//! SHHH, the sentinel: finds secrets in bytes on their way out or to disk and puts `[REDACTED:<rule>]` in their place.
//!
//! It decides what a secret is and where; what is done about a finding (counting, refusing, auditing) is the caller's.

mod json;
mod probe;
mod rules;
mod scan;
mod stream;

#[cfg(test)]
mod tests;

use serde::Serialize;

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
    pub rule: &'static str,
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

fn marker(rule: &str) -> String {
    format!("[REDACTED:{rule}]")
}
