//! Keys of cloud providers.

use super::{Behind, Form, Rule, is_mixed};
use crate::sentinel::{Action, Severity};

/// AWS access key ids: a four letter prefix naming the kind and 16 characters of base32 (IAM's "unique identifiers").
pub(super) const AWS_ACCESS_KEY: Rule = Rule {
    id: "aws-access-key",
    keywords: &["AKIA", "ASIA", "ABIA", "ACCA"],
    form: Form::Token {
        behind: Behind::Word,
        pattern: "((?:AKIA|ASIA|ABIA|ACCA)[A-Z2-7]{16})(?:[^A-Za-z0-9]|$)",
        alphabet: "A-Za-z0-9",
        max_bytes: 64,
    },
    severity: Severity::High,
    action: Action::Redact,
    entropy: Some(3.0),
    check: None,
    found: &[concat!("AK", "IAQYLPMN5HXJ7KD3RT"), concat!("aws_access_key_id=", "AS", "IAZ2XWV5T7QKEL4MNB")],
    ignored: &["AKIAAAAAAAAAAAAAAAAA", "AKIAQYLPMN5HXJ7KD3RTTOOLONG", "xAKIAQYLPMN5HXJ7KD3RT", "AKIA", "ASIAN food"],
};

/// AWS secret access keys: 40 characters of base64 without a mark of their own, told by the name they are given
/// (`aws_secret_access_key` in the AWS CLI's files, `SecretAccessKey` in STS answers).
pub(super) const AWS_SECRET_KEY: Rule = Rule {
    id: "aws-secret-key",
    keywords: &[
        "secret_access_key",
        "secretaccesskey",
        "aws_secret",
        "aws-secret",
        "awssecret",
        "secret_key",
        "secretkey",
    ],
    form: Form::Assigned {
        unless_after: "",
        lead: r#"(?i)(?:aws[_-]?secret|secret[_-]?(?:access[_-]?)?key)(?:[_-]?[a-z]{1,12}){0,3}\\?["']?[ \t]{0,4}(?::=|=>|=|:)[ \t]{0,4}\\?["'`]?"#,
        pattern: "([A-Za-z0-9/+]{40})(?:[^A-Za-z0-9/+=]|$)",
        alphabet: "A-Za-z0-9/+=",
        max_bytes: 64,
    },
    severity: Severity::Critical,
    action: Action::Redact,
    entropy: Some(3.8),
    check: Some(is_mixed),
    found: &[
        concat!("aws_secret_access_key = ", "q8Zt/3VbN1kLw0XyRe+5HsJ7uPdGm2CfTa9oQiUx"),
        concat!(r#""SecretAccessKey": ""#, r#"q8Zt/3VbN1kLw0XyRe+5HsJ7uPdGm2CfTa9oQiUx""#),
    ],
    ignored: &[
        "aws_secret_access_key = ${AWS_SECRET_ACCESS_KEY}",
        "secret_key = 0000000000000000000000000000000000000000",
        "secret_key: da39a3ee5e6b4b0d3255bfef95601890afd80709",
    ],
};

/// Google API keys: `AIza` and 35 characters of base64url (Google Cloud, "API keys").
pub(super) const GCP_API_KEY: Rule = Rule {
    id: "gcp-api-key",
    keywords: &["AIza"],
    form: Form::Token {
        behind: Behind::Word,
        pattern: "(AIza[A-Za-z0-9_-]{35})(?:[^A-Za-z0-9_-]|$)",
        alphabet: "A-Za-z0-9_-",
        max_bytes: 64,
    },
    severity: Severity::High,
    action: Action::Redact,
    entropy: Some(3.5),
    check: None,
    found: &[concat!("key=AI", "zaSyB4xN9vQ7LpR2wTzK8mHd3JfYc6Ua0EsGi&x=1")],
    ignored: &["AIzaSyXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXX", "AIzaShort"],
};
