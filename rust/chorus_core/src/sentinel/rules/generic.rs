//! Secrets without a mark of their own, told by what stands before them.

use super::{Form, Rule, has_digit};
use crate::sentinel::{Action, Severity};

/// A password in a URL: `scheme://user:password@host` (RFC 3986, section 3.2.1, which deprecates it for this reason).
pub(super) const URL_PASSWORD: Rule = Rule {
    id: "url-password",
    keywords: &["://"],
    form: Form::Assigned {
        // A UCXL address, `ucxl://agent:role@project:task`, has the form and no password.
        unless_after: "ucxl",
        lead: r#"://[^\s/?#:@"'<>`\[\]]{0,64}:"#,
        pattern: r#"([^\s/?#@"'<>`]{3,})@"#,
        alphabet: "^/?#@\"'<>`",
        max_bytes: 128,
    },
    severity: Severity::High,
    action: Action::Redact,
    entropy: None,
    check: Some(is_no_placeholder),
    found: &["postgres://app:s3cr3t-pw@db:5432/x", "curl https://me:p%40ss@example.org/", "redis://:hunter22@cache"],
    ignored: &[
        "http://localhost:8080/a@b",
        "ucxl://agent-1:developer@chorus:01M84AFG91PKPGRF72X67GDWMC/*^/1/decision.json",
        "https://user@example.org",
        "postgres://app:${DB_PASSWORD}@db",
        "postgres://app:<password>@db",
        "git@github.com:o/r.git",
        "postgres://app:***@db",
    ],
};

fn is_no_placeholder(secret: &[u8]) -> bool {
    let first = secret.first().copied().unwrap_or_default();
    let varied = secret.iter().any(|b| *b != first);
    varied
        && !matches!(first, b'$' | b'{' | b'<' | b'%' if !secret.get(1).is_some_and(u8::is_ascii_hexdigit))
        && !secret.starts_with(b"[REDACTED")
}

/// Credentials in a header: `Authorization: Bearer …`, `Basic …` and the like (RFC 9110 section 11.6.2, RFC 6750, RFC 7617).
pub(super) const AUTHORIZATION_HEADER: Rule = Rule {
    id: "authorization-header",
    keywords: &["authorization"],
    form: Form::Assigned {
        unless_after: "",
        lead: r#"(?i)authorization\\?["']?[ \t]{0,4}[:=,][ \t]{0,4}\\?["'`]?(?:bearer|basic|token|bot|apikey)[ \t]{1,4}"#,
        pattern: "[A-Za-z0-9._~+/=-]{12,}",
        alphabet: "A-Za-z0-9._~+/=-",
        max_bytes: 4096,
    },
    severity: Severity::High,
    action: Action::Redact,
    entropy: Some(3.0),
    check: None,
    found: &[
        "Authorization: Bearer x7Kq2LmV9nRt4WzY8bCd",
        r#"-H "authorization: Basic dXNlcjpwYXNzd29yZDEyMw==""#,
        r#"{"Authorization": "Token x7Kq2LmV9nRt4WzY8bCd"}"#,
    ],
    ignored: &[
        "Authorization: Bearer $TOKEN",
        "Authorization: Bearer <token>",
        "the Authorization: Bearer header",
        "Authorization: Basic xxxxxxxxxxxxxxxx",
    ],
};

/// Something random given to a name that says it is secret.
pub(super) const ASSIGNED_SECRET: Rule = Rule {
    id: "assigned-secret",
    keywords: &[
        "api_key",
        "apikey",
        "api-key",
        "secret",
        "token",
        "passw",
        "credential",
        "private_key",
        "access_key",
        "auth_key",
    ],
    form: Form::Assigned {
        unless_after: "",
        lead: r#"(?i)(?:api[_-]?key|secret|token|passw(?:or)?d|credentials?|private_key|access_key|auth_key)(?:[_.-][a-z0-9]{1,16}){0,2}\\?["'\]]{0,2}[ \t]{0,4}(?::=|=>|=|:)[ \t]{0,4}\\?["'`]?"#,
        pattern: "[A-Za-z0-9+/=_.!$%&*^~-]{12,}",
        alphabet: "A-Za-z0-9+/=_.!$%&*^~-",
        max_bytes: 512,
    },
    severity: Severity::Medium,
    action: Action::Redact,
    entropy: Some(3.5),
    check: Some(is_random),
    found: &[
        "API_KEY=x7Kq2LmV9nRt4WzY8bCd",
        r#"client_secret: "x7Kq2LmV-nRt4WzY8bCd""#,
        r#"{\"password\":\"x7Kq2LmV9nRt4Wz!\"}"#,
        "os.environ['AUTH_TOKEN'] = 'x7Kq2LmV9nRt4WzY8bCd'",
    ],
    ignored: &[
        "token = tokenizer.encode(text)",
        "password: str = Field(min_length=8)",
        "secret = os.environ.get(name)",
        "api_key=YOUR_API_KEY_GOES_HERE",
        "token: 12345678901234567890",
        "tokenizer: Qwen2.5-72B-Instruct",
        "secret_file: /run/secrets/chorus_license_id_2",
        "password=$DB_PASSWORD_2_FROM_ENV",
        "token_count=1234567890123, done",
    ],
};

/// Digits in several places among letters, as in random text; not a number, a path, a version or a variable.
fn is_random(secret: &[u8]) -> bool {
    let digits = secret.iter().filter(|b| b.is_ascii_digit()).count();
    let letters = secret.iter().filter(|b| b.is_ascii_alphabetic()).count();
    let runs = secret.windows(2).filter(|w| w[0].is_ascii_digit() != w[1].is_ascii_digit()).count();
    let starts_plainly = !matches!(secret.first(), Some(b'/' | b'$' | b'.' | b'%' | b'&' | b'*'));
    has_digit(secret) && digits >= 2 && letters >= 4 && runs >= 3 && starts_plainly
}
