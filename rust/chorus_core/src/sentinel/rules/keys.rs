//! Keys and signed tokens that belong to no one service.

use super::{Behind, Form, Rule};
use crate::sentinel::{Action, Severity};

/// PEM and OpenSSH private keys, and PGP's (RFC 7468, openssh-key-v1, RFC 9580 section 6.2).
pub(super) const PRIVATE_KEY: Rule = Rule {
    id: "private-key",
    keywords: &["-----BEGIN "],
    form: Form::Pem,
    severity: Severity::Critical,
    action: Action::Deny,
    entropy: None,
    check: None,
    found: &[
        concat!(
            "-----BEGIN PRIV",
            "ATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIHQ2oZ8fVYw3k1Q7n0m9Zl5x\n-----END PRIV",
            "ATE KEY-----\n"
        ),
        concat!(
            "-----BEGIN RSA PRIV",
            "ATE KEY-----\r\nProc-Type: 4,ENCRYPTED\r\nDEK-Info: AES-128-CBC,0011\r\n\r\nMIIEowIBAAKCAQEA7bq0\r\n-----END RSA PRIV",
            "ATE KEY-----"
        ),
        concat!(
            r#"{"key": "-----BEGIN EC PRIV"#,
            r#"ATE KEY-----\nMHcCAQEEIIrVbYb5kq0a1x\nAoGBAN\n-----END EC PRIV"#,
            r#"ATE KEY-----\n"}"#
        ),
        concat!(
            "-----BEGIN PGP PRIV",
            "ATE KEY BLOCK-----\nVersion: GnuPG v2\n\nlQOYBF2xkZ8BCADQ\n=aB3d\n-----END PGP PRIV",
            "ATE KEY BLOCK-----"
        ),
        concat!("-----BEGIN OPENSSH PRIV", "ATE KEY-----\nb3BlbnNzaC1rZXktdjEAAAAABG5vbmUAAAAEbm9uZQ\n$ "),
    ],
    ignored: &[
        "-----BEGIN CERTIFICATE-----\nMIIBszCCAVmgAwIBAgIUQ2oZ8fVYw3k1Q7n0m9\n-----END CERTIFICATE-----",
        "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=\n-----END PUBLIC KEY-----",
        concat!("look for `-----BEGIN PRIV", "ATE KEY-----` in your files"),
    ],
};

/// age X25519 identities: Bech32 with the part `AGE-SECRET-KEY-`, 58 characters after the separator (age-encryption.org/v1).
pub(super) const AGE_SECRET_KEY: Rule = Rule {
    id: "age-secret-key",
    keywords: &["AGE-SECRET-KEY-1"],
    form: Form::Token {
        behind: Behind::Word,
        pattern: "AGE-SECRET-KEY-1[QPZRY9X8GF2TVDW0S3JN54KHCE6MUA7L]{58}",
        alphabet: "A-Z0-9-",
        max_bytes: 128,
    },
    severity: Severity::Critical,
    action: Action::Deny,
    entropy: None,
    check: None,
    found: &[concat!("AGE-SECRET-", "KEY-1QQPSYN6WDEZ0QUUH5TJ8CLVUGAYNSFE3KPM4XR27DLQ92HWS0TCQZLD89U")],
    ignored: &["AGE-SECRET-KEY-1...", "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p"],
};

/// JSON Web Tokens: base64url of `{"` is `eyJ`, so header and payload begin with it (RFC 7519, RFC 7515 section 7.1).
pub(super) const JWT: Rule = Rule {
    id: "jwt",
    keywords: &["eyJ"],
    form: Form::Token {
        behind: Behind::Word,
        pattern: r"eyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{16,}",
        alphabet: "A-Za-z0-9_.-",
        max_bytes: 8192,
    },
    severity: Severity::High,
    action: Action::Redact,
    entropy: None,
    check: None,
    found: &[concat!(
        "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9",
        ".eyJzdWIiOiIxMjM0NTY3ODkwIiwibmFtZSI6IkpvaG4ifQ",
        ".dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"
    )],
    ignored: &["eyJhbGciOiJIUzI1NiJ9", "eyJhbGciOiJub25lIn0.eyJzdWIiOiIxMjM0NTYifQ.", "eyJ.eyJ.sig"],
};
