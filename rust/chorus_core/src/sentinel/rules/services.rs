//! Keys of payment and messaging services.

use super::{Behind, Form, Rule};
use crate::sentinel::{Action, Severity};

/// Stripe's secret and restricted live keys (Stripe docs, "API keys").
pub(super) const STRIPE_KEY: Rule = Rule {
    id: "stripe-key",
    keywords: &["sk_live_", "rk_live_", "whsec_"],
    form: Form::Token {
        behind: Behind::Word,
        pattern: "(?:[sr]k_live_|whsec_)[A-Za-z0-9+/=]{20,}",
        alphabet: "A-Za-z0-9_+/=",
        max_bytes: 512,
    },
    severity: Severity::Critical,
    action: Action::Redact,
    entropy: Some(3.5),
    check: None,
    found: &[
        concat!("sk", "_live_51Qx7KLmV9nRt4WzY8bCd1FgH6jPs3TuE5aQw"),
        concat!("rk", "_live_51Qx7KLmV9nRt4WzY8bCd1FgH"),
        concat!("wh", "sec_x7Kq2LmV9nRt4WzY8bCd1FgH6jPs3TuE"),
    ],
    ignored: &[
        "sk_test_51Qx7KLmV9nRt4WzY8bCd1FgH",
        "sk_live_xxxxxxxxxxxxxxxxxxxxxxxx",
        "task_live_51Qx7KLmV9nRt4WzY8bCd1FgH",
    ],
};

/// SendGrid keys: `SG.`, 22 characters, a dot, 43 characters of base64url (SendGrid docs, "API keys").
pub(super) const SENDGRID_KEY: Rule = Rule {
    id: "sendgrid-key",
    keywords: &["SG."],
    form: Form::Token {
        behind: Behind::Word,
        pattern: r"SG\.[A-Za-z0-9_-]{16,32}\.[A-Za-z0-9_-]{32,64}",
        alphabet: "A-Za-z0-9_.-",
        max_bytes: 128,
    },
    severity: Severity::Critical,
    action: Action::Redact,
    entropy: Some(3.5),
    check: None,
    found: &[concat!("S", "G.x7Kq2LmV9nRt4WzY8bCd1F.gH6jPs3TuE5aQwX2cV7nM9kL0pJ4hG8fD6sA3qW1eR5")],
    ignored: &["SG.com", "SG.short.part"],
};

/// Twilio API keys: `SK` and 32 hexadecimal digits (Twilio docs, "API keys": SID format).
pub(super) const TWILIO_KEY: Rule = Rule {
    id: "twilio-key",
    keywords: &[
        "SK0", "SK1", "SK2", "SK3", "SK4", "SK5", "SK6", "SK7", "SK8", "SK9", "SKa", "SKb", "SKc", "SKd", "SKe", "SKf",
    ],
    form: Form::Token {
        behind: Behind::Word,
        pattern: "(SK[0-9a-f]{32})(?:[^A-Za-z0-9_]|$)",
        alphabet: "A-Za-z0-9_",
        max_bytes: 64,
    },
    severity: Severity::High,
    action: Action::Redact,
    entropy: Some(3.0),
    check: None,
    found: &[concat!("S", "K9f8e7d6c5b4a39281706f5e4d3c2b1a0")],
    ignored: &[
        "SK00000000000000000000000000000000",
        "SK9f8e7d",
        "SKIP9f8e7d6c5b4a39281706f5e4d3c2b1a0",
        "DISK9f8e7d6c5b4a39281706f5e4d3c2b1a0",
    ],
};
