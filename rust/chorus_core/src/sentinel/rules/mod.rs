//! The built-in rules, by topic. Each is a small unit with its own evidence: what it rests on, and samples that must and
//! must not be found. Samples are put together from pieces so that scanners of this repository stay quiet.

mod apps;
mod chat;
mod checks;
mod cloud;
mod code;
mod generic;
pub(super) mod jwt;
mod keys;
pub(super) mod manifest;
mod models;
mod names;
mod payments;
pub(super) mod pem;
mod services;

use super::{Action, Severity, assignment::Name, probe::Check};

/// The topics. Where findings of equal severity overlap, the rule further up gives its name.
const TOPICS: [&[Rule]; 9] = [
    keys::RULES,
    cloud::RULES,
    code::RULES,
    chat::RULES,
    models::RULES,
    payments::RULES,
    services::RULES,
    apps::RULES,
    generic::RULES,
];

/// All built-in rules.
pub(super) fn built_in() -> impl Iterator<Item = &'static Rule> {
    TOPICS.into_iter().flatten()
}

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
    pub check: Option<Check>,
    /// Texts in which the rule must find exactly one secret.
    #[cfg_attr(not(test), allow(dead_code))]
    pub found: &'static [&'static str],
    /// Texts in which it must find none.
    #[cfg_attr(not(test), allow(dead_code))]
    pub ignored: &'static [&'static str],
}

/// What most rules have in common.
const RULE: Rule = Rule {
    id: "",
    keywords: &[],
    form: Form::Pem,
    severity: Severity::High,
    action: Action::Redact,
    entropy: Some(3.0),
    check: None,
    found: &[],
    ignored: &[],
};

/// How a rule's secrets look. The bytes that a `pattern` can take are its alphabet: a stream tells from the next foreign
/// byte that a secret is whole. If a pattern has a group, that is the secret. Of more than `max_bytes` of the alphabet
/// only so many decide, and what follows goes with them.
pub(super) enum Form {
    /// The secret begins at the keyword and tells its kind by itself; if `whole`, no letter or digit follows it.
    Token { behind: Behind, pattern: &'static str, whole: bool, max_bytes: usize },
    /// The keyword and what is around it (the `lead`) say that the value after it is secret.
    /// With `unless_after` a word stands right before the keyword, and another one than this.
    Assigned { unless_after: &'static str, lead: &'static str, pattern: &'static str, max_bytes: usize },
    /// The keyword is in a name, and the value is what the name is given.
    Named { name: Name, pattern: &'static str, max_bytes: usize },
    /// A private key between BEGIN and END lines.
    Pem,
    /// A signed token of three parts.
    Jwt,
    /// The values of a Kubernetes Secret.
    Manifest,
}

/// A secret of the common kind.
const fn token(pattern: &'static str) -> Form {
    token_of(pattern, TOKEN_MAX_BYTES)
}

/// A secret of the common kind about which so many bytes decide.
const fn token_of(pattern: &'static str, max_bytes: usize) -> Form {
    Form::Token { behind: Behind::Word, pattern, whole: true, max_bytes }
}

/// So much decides about a token; most have far less.
const TOKEN_MAX_BYTES: usize = 256;

/// What must stand before a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Behind {
    /// Nothing: the pattern says all.
    Anything,
    /// No letter or digit: the keyword begins a word.
    Word,
    /// The number of a bot; the keyword's first byte is the colon after it.
    BotNumber,
    /// The number of an application; the keyword is the bar after it.
    AppNumber,
    /// Three characters and a digit.
    Entra,
    /// Fourteen letters and digits, and a dot.
    Fourteen,
}

/// A bot's number has so many digits.
const BOT_NUMBER_DIGITS: std::ops::RangeInclusive<usize> = 5..=16;
/// An application's number has so many.
const APP_NUMBER_DIGITS: std::ops::RangeInclusive<usize> = 15..=17;

impl Behind {
    /// Where the secret begins when the keyword is at `at`, if what stands before it fits.
    pub fn start(self, text: &[u8], at: usize) -> Option<usize> {
        let before = &text[..at];
        match self {
            Self::Anything => Some(at),
            Self::Word => begins_word(before).then_some(at),
            Self::BotNumber => BOT_NUMBER_DIGITS.contains(&count(before, 17, |b| b.is_ascii_digit())).then_some(at + 1),
            Self::AppNumber => APP_NUMBER_DIGITS.contains(&count(before, 18, |b| b.is_ascii_digit())).then_some(at),
            Self::Entra => {
                let length = count(before, 5, |b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'~' | b'.' | b'-'));
                (length == 4 && before.last().is_some_and(u8::is_ascii_digit)).then_some(at)
            }
            Self::Fourteen => {
                let before = before.strip_suffix(b".")?;
                let id = count(before, 14, |b| b.is_ascii_alphanumeric());
                (id == 14 && begins_word(&before[..before.len() - id])).then_some(at)
            }
        }
    }
}

/// How many bytes at the end of `before` are of a kind, as far as `most`.
fn count(before: &[u8], most: usize, is: fn(u8) -> bool) -> usize {
    before.iter().rev().take(most).take_while(|b| is(**b)).count()
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
            let parameters = count(rest, 16, |b| b.is_ascii_digit() || b == b';');
            let lead = &rest[..rest.len() - parameters];
            [b"\x1b[".as_slice(), br"\u001b[", br"\x1b[", br"\e[", br"\033["]
                .iter()
                .any(|escape| lead.ends_with(escape))
        }
        _ => false,
    }
}
