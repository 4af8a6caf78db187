//! Keys and signed tokens that belong to no one service.

use super::{
    Behind, Form, RULE, Rule,
    checks::{is_mixed, is_private_pem},
    token, token_of,
};
use crate::sentinel::{Action, Severity};

pub(super) const RULES: &[Rule] = &[
    // PEM, PKCS #8 plain and encrypted, OpenSSH and PGP private keys (RFC 7468, RFC 5958, openssh-key-v1, RFC 9580
    // section 6.2).
    Rule {
        id: "private-key",
        keywords: &["-----BEGIN "],
        form: Form::Pem,
        severity: Severity::Critical,
        action: Action::Deny,
        entropy: None,
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
                "-----BEGIN ENCRYPTED PRIV",
                "ATE KEY-----\nMIIFHDBOBgkqhkiG9w0BBQ0wQTApBgkqhkiG9w0BBQwwHAQI\nAbC=\n-----END ENCRYPTED PRIV",
                "ATE KEY-----"
            ),
            concat!(
                r#"{"key": "-----BEGIN EC PRIV"#,
                r"ATE KEY-----\nMHcCAQEEIIrVbYb5kq0a1x\nAoGBAN\n-----END EC PRIV",
                r#"ATE KEY-----\n"}"#
            ),
            concat!(
                "-----BEGIN DSA PRIV",
                "ATE KEY----- MIIBuwIBAAKBgQDaxM8Fx8qf3g1R4H7Q AbCd+/12 -----END DSA PRIV",
                "ATE KEY-----"
            ),
            concat!(
                "'-----BEGIN RSA PRIV",
                "ATE KEY-----\\n' +\n  'MIIEowIBAAKCAQEA7bq0\\n' +\n  'AoGBAN\\n' +\n  '-----END RSA PRIV",
                "ATE KEY-----'"
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
            concat!("-----BEGIN PRIV", "ATE KEY-----\nanything\n-----END PRIV", "ATE KEY-----"),
        ],
        ..RULE
    },
    // The same once more in base64, as Kubernetes and variables of build services keep it.
    Rule {
        id: "private-key-in-base64",
        keywords: &["LS0tLS1CRUdJTi"],
        form: Form::Token {
            behind: Behind::Anything,
            pattern: "LS0tLS1CRUdJTi[A-Za-z0-9+/=_-]{64,}",
            whole: true,
            max_bytes: 256,
        },
        severity: Severity::Critical,
        action: Action::Deny,
        check: Some(is_private_pem),
        found: &[concat!(
            "LS0tLS1CRU",
            "dJTiBSU0EgUFJJVkFURSBLRVktLS0tLQpNSUlFb3dJQkFBS0NBUUVBWEtvM1FvT1dubTRUT0J2a1Z6RXhybWgyNGZXbFk5ZzRzQkF5QVU0N3Y3dWdUUnNmQ2doenZpdmkxZWVrUUNRNQo"
        )],
        ignored: &[
            "LS0tLS1CRUdJTi",
            "LS0tLS1CRUdJTiBDRVJUSUZJQ0FURS0tLS0tCk1JSUJzekNDQVZtZ0F3SUJBZ0lVUTJvWjhmVll3M2sxUTduMG05NTFDd0NRVnRmUjlHOXp0N3VJMlloZ0U1VTJUazhSQTdTTXFocG55Vwo",
        ],
        ..RULE
    },
    // PuTTY keys: base64 between `Private-Lines:` and `Private-MAC:` (PuTTY manual, appendix "PPK file format").
    Rule {
        id: "putty-private-key",
        keywords: &["Private-Lines: "],
        form: Form::Assigned {
            unless_after: "",
            lead: r"Private-Lines: [0-9]{1,4}(?:\r?\n|\\{1,3}n)",
            pattern: r"((?:[A-Za-z0-9+/=]{64}(?:\r?\n|\\{1,3}n)){0,63}[A-Za-z0-9+/=]{1,64})(?:\r|\n|\\)",
            max_bytes: 4096,
        },
        severity: Severity::Critical,
        action: Action::Deny,
        found: &[concat!(
            "PuTTY-User-Key-File-3: ssh-ed25519\nPrivate",
            "-Lines: 1\nAAAAIHQ2oZ8fVYw3k1Q7n0m9Zl5xKq8LmV2nRt4WzY7bCd1F\nPrivate-MAC: 00"
        )],
        ignored: &["Private-Lines: 1\nPrivate-MAC", "Private-Lines: none"],
        ..RULE
    },
    // age X25519 identities: Bech32 with the part `AGE-SECRET-KEY-`, 58 characters after the separator (age-
    // encryption.org/v1).
    Rule {
        id: "age-secret-key",
        keywords: &["AGE-SECRET-KEY-1"],
        form: token("AGE-SECRET-KEY-1[QPZRY9X8GF2TVDW0S3JN54KHCE6MUA7L]{58}"),
        severity: Severity::Critical,
        action: Action::Deny,
        entropy: None,
        found: &[concat!("AGE-SECRET-", "KEY-1QQPSYN6WDEZ0QUUH5TJ8CLVUGAYNSFE3KPM4XR27DLQ92HWS0TCQZLD89U")],
        ignored: &["AGE-SECRET-KEY-1...", "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p"],
        ..RULE
    },
    // JSON Web Tokens, signed (RFC 7519, RFC 7515 section 7.1).
    Rule {
        id: "jwt",
        keywords: &["eyJ"],
        form: Form::Jwt,
        entropy: None,
        found: &[concat!(
            "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9",
            ".eyJzdWIiOiIxMjM0NTY3ODkwIiwibmFtZSI6IkpvaG4ifQ",
            ".dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"
        )],
        ignored: &["eyJhbGciOiJIUzI1NiJ9", "eyJhbGciOiJub25lIn0.eyJzdWIiOiIxMjM0NTYifQ.", "eyJ.eyJ.sig"],
        ..RULE
    },
    // The same once more in base64, which makes `ZXlK` of `eyJ`.
    Rule {
        id: "jwt-in-base64",
        keywords: &["ZXlK"],
        form: token_of("ZXlK[A-Za-z0-9+/=_-]{64,}", 96),
        check: Some(is_mixed),
        found: &[concat!(
            "ZXlKaGJHY2lPaU",
            "d5BlJdqUEWacVm3NiIw1LrMqPt0JqAJodkBPlHgkQBEiWOtltbmhhFPAc1ezizerLIw7ILj2PNulBsNNZFjKglqcaN7oO5QT"
        )],
        ignored: &["ZXlKaGJHY2lPaU", "ZXlKaGJHY2lPaU.short"],
        ..RULE
    },
    // The values of a Kubernetes Secret in YAML.
    Rule {
        id: "kubernetes-secret",
        keywords: &["data:", "kind: secret", "kind: 'secret", r#"kind: "secret"#],
        form: Form::Manifest,
        entropy: None,
        found: &[
            concat!(
                "apiVersion: v1\nkind: Sec",
                "ret\nmetadata:\n  name: x\ndata:\n  password: MWYyZDFlMmU2N2Rm\n  user: YWRtaW4=\n"
            ),
            concat!("apiVersion: v1\ndata:\n  password: MWYyZDFlMmU2N2Rm\nkind: Sec", "ret\n"),
        ],
        ignored: &[
            "kind: ConfigMap\ndata:\n  password: MWYyZDFlMmU2N2Rm\n",
            "kind: SecretStore\ndata:\n  password: MWYyZDFlMmU2N2Rm\n",
            "kind: Secret\nmetadata:\n  name: x\n",
            "data:\n  a: plain text\nkind: Secret\n",
        ],
        ..RULE
    },
];
