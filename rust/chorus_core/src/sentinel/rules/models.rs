//! Keys of model providers.

use super::{Behind, Form, Rule, has_digit, is_mixed};
use crate::sentinel::{Action, Severity};

/// Anthropic keys: `sk-ant-`, a kind such as `api03-` or `admin01-`, and base64url (Anthropic docs, "Getting started").
pub(super) const ANTHROPIC_KEY: Rule = Rule {
    id: "anthropic-key",
    keywords: &["sk-ant-"],
    form: Form::Token {
        behind: Behind::Word,
        pattern: "sk-ant-[A-Za-z0-9_-]{24,}",
        alphabet: "A-Za-z0-9_-",
        max_bytes: 512,
    },
    severity: Severity::Critical,
    action: Action::Redact,
    entropy: Some(3.5),
    check: Some(has_digit),
    found: &[concat!("sk-", "ant-api03-x7Kq2LmV9nRt4WzY8bCd1FgH6jPs3TuE5aQwX2cV7nM9kL0pJ4hG8fD6sA3qW1eR5tY-gAA")],
    ignored: &["sk-ant-api03-xxxxxxxxxxxxxxxxxxxxxxxxxxxx", "sk-ant-"],
};

/// OpenAI keys: `sk-`, later `sk-proj-`, `sk-svcacct-`, `sk-admin-`, and base64url (OpenAI platform docs, "API keys").
/// Other providers with compatible interfaces hand out `sk-` keys too.
pub(super) const OPENAI_KEY: Rule = Rule {
    id: "openai-key",
    keywords: &["sk-"],
    form: Form::Token {
        behind: Behind::Word,
        pattern: "sk-(?:proj-|svcacct-|admin-|or-v1-)?[A-Za-z0-9_-]{20,}",
        alphabet: "A-Za-z0-9_-",
        max_bytes: 512,
    },
    severity: Severity::Critical,
    action: Action::Redact,
    entropy: Some(3.5),
    check: Some(is_openai),
    found: &[
        concat!("sk-", "x7Kq2LmV9nRt4WzY8bCdT3BlbkFJ1FgH6jPs3TuE5aQwX2cV"),
        concat!("sk-", "proj-x7Kq2LmV9nRt4WzY8bCd1FgH6jPs3TuE5aQwX2cV7nM9kL0pJ4hG8fD6sA3qW1eR5tY"),
    ],
    ignored: &[
        "task-x7Kq2LmV9nRt4WzY8bCd1FgH6jPs3TuE",
        "sk-learn-contrib-is-a-long-name-of-a-package",
        "sk-xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
        "risk-2024-Assessment-of-the-Whole-Project",
    ],
};

fn is_openai(secret: &[u8]) -> bool {
    let other = secret.starts_with(b"sk-ant-");
    let hexadecimal = secret.starts_with(b"sk-or-v1-");
    !other && (is_mixed(secret) || (hexadecimal && has_digit(secret)))
}

/// Hugging Face user tokens: `hf_` and 34 letters and digits (Hugging Face docs, "User access tokens").
pub(super) const HUGGING_FACE_TOKEN: Rule = Rule {
    id: "hugging-face-token",
    keywords: &["hf_", "api_org_"],
    form: Form::Token {
        behind: Behind::Word,
        pattern: "(?:hf|api_org)_[A-Za-z0-9]{34,}",
        alphabet: "A-Za-z0-9_",
        max_bytes: 256,
    },
    severity: Severity::Critical,
    action: Action::Redact,
    entropy: Some(3.5),
    check: None,
    found: &[concat!("h", "f_KxTqLmVwnRtJWzYpbCdRFgHGjPsUTuEAaQ")],
    ignored: &["hf_hub_download", "hf_xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx", "hf_transfer"],
};
