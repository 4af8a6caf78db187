//! The built-in rules. Each is a small unit with its own evidence: what it rests on, and samples that must and must not
//! be found. Samples are put together from pieces so that scanners of this repository stay quiet.

mod chat;
mod cloud;
mod code;
mod generic;
mod keys;
mod models;
pub(super) mod pem;
mod services;

use super::{Action, Severity};

/// All built-in rules. Where findings of equal severity overlap, the one further up gives its name.
pub(super) const BUILT_IN: &[&Rule] = &[
    &keys::PRIVATE_KEY,
    &keys::AGE_SECRET_KEY,
    &keys::JWT,
    &cloud::AWS_ACCESS_KEY,
    &cloud::AWS_SECRET_KEY,
    &cloud::GCP_API_KEY,
    &code::GITHUB_TOKEN,
    &code::GITHUB_FINE_GRAINED,
    &code::GITLAB_TOKEN,
    &code::NPM_TOKEN,
    &code::PYPI_TOKEN,
    &chat::SLACK_TOKEN,
    &chat::SLACK_APP_TOKEN,
    &chat::SLACK_WEBHOOK,
    &chat::DISCORD_BOT_TOKEN,
    &chat::TELEGRAM_BOT_TOKEN,
    &services::STRIPE_KEY,
    &services::SENDGRID_KEY,
    &services::TWILIO_KEY,
    &models::ANTHROPIC_KEY,
    &models::OPENAI_KEY,
    &models::HUGGING_FACE_TOKEN,
    &generic::URL_PASSWORD,
    &generic::AUTHORIZATION_HEADER,
    &generic::ASSIGNED_SECRET,
];

/// One kind of secret.
pub(super) struct Rule {
    /// The name in findings and in the text that replaces a secret.
    pub id: &'static str,
    /// Text that every such secret has at or before its beginning, found before any pattern is tried.
    pub keywords: &'static [&'static str],
    /// How a secret of this kind looks.
    pub form: Form,
    pub severity: Severity,
    pub action: Action,
    /// The least Shannon entropy of the secret, in bits for each byte.
    pub entropy: Option<f64>,
    /// What a pattern cannot say.
    pub check: Option<fn(&[u8]) -> bool>,
    /// Texts in which the rule must find exactly one secret.
    #[cfg_attr(not(test), allow(dead_code))]
    pub found: &'static [&'static str],
    /// Texts in which it must find none.
    #[cfg_attr(not(test), allow(dead_code))]
    pub ignored: &'static [&'static str],
}

/// How a rule's secrets look. A `pattern` must be made of the bytes of its `alphabet`, and of at most one byte more
/// that ends it; then a stream can tell from the next foreign byte that a secret is whole. If a pattern has a group,
/// that is the secret.
pub(super) enum Form {
    /// The secret begins at the keyword and tells its kind by itself.
    Token { behind: Behind, pattern: &'static str, alphabet: &'static str, max_bytes: usize },
    /// The keyword and what is around it (the `lead`) say that the value after it is secret.
    /// Right after `unless_after` (when not empty) it is something else.
    Assigned {
        unless_after: &'static str,
        lead: &'static str,
        pattern: &'static str,
        alphabet: &'static str,
        max_bytes: usize,
    },
    /// A private key between BEGIN and END lines.
    Pem,
}

/// What must stand before a token.
pub(super) enum Behind {
    /// No letter or digit: the keyword begins a word.
    Word,
    /// The number of a bot; the keyword's first byte is the colon after it.
    BotNumber,
}

/// A bot's number has so many digits.
const BOT_NUMBER_DIGITS: std::ops::RangeInclusive<usize> = 8..=10;

impl Behind {
    /// Where the secret begins when the keyword is at `at`, if what stands before it fits.
    pub fn start(&self, text: &[u8], at: usize) -> Option<usize> {
        match self {
            Self::Word => begins_word(&text[..at]).then_some(at),
            Self::BotNumber => {
                let digits = text[..at].iter().rev().take(11).take_while(|b| b.is_ascii_digit()).count();
                BOT_NUMBER_DIGITS.contains(&digits).then_some(at + 1)
            }
        }
    }
}

/// Whether a word can begin after `before`. The end of an escape (`\n` in a string, `%20` in a URL, a terminal's
/// colour) is a letter or digit that belongs to no word.
pub(super) fn begins_word(before: &[u8]) -> bool {
    match before {
        [] => true,
        [.., last] if !last.is_ascii_alphanumeric() => true,
        [.., b'\\', b'n' | b'r' | b't'] => true,
        [.., b'%', a, b] if a.is_ascii_hexdigit() && b.is_ascii_hexdigit() => true,
        [rest @ .., last] if last.is_ascii_alphabetic() => {
            let parameters = rest.iter().rev().take(16).take_while(|b| b.is_ascii_digit() || **b == b';').count();
            rest[..rest.len() - parameters].ends_with(b"\x1b[")
        }
        _ => false,
    }
}

/// Random tokens of any length worth the name hold a digit; words put together with dashes do not.
pub(super) fn has_digit(secret: &[u8]) -> bool {
    secret.iter().any(u8::is_ascii_digit)
}

/// Letters of both cases and digits.
pub(super) fn is_mixed(secret: &[u8]) -> bool {
    has_digit(secret) && secret.iter().any(u8::is_ascii_lowercase) && secret.iter().any(u8::is_ascii_uppercase)
}
