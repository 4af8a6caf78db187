//! What patterns cannot say: whether a value looks random, made up, or like the name of something.

use base64::{Engine, engine::general_purpose::STANDARD_NO_PAD};

use super::super::probe::{Secret, entropy_bits};

/// The least entropy of what is given to a secret's name, in bits for each byte.
const RANDOM_MIN_BITS: f64 = 2.8;

/// A password that stands in quotes has this many characters.
const PASSWORD_MIN_BYTES: usize = 8;

/// An id that is a number has this many digits.
const ID_MIN_DIGITS: usize = 15;

/// Random tokens of any length worth the name hold a digit; words put together with dashes do not.
pub(super) fn has_digit(secret: &Secret<'_>) -> bool {
    secret.bytes.iter().any(u8::is_ascii_digit)
}

/// Letters of both cases and digits.
pub(super) fn is_mixed(secret: &Secret<'_>) -> bool {
    has_digit(secret)
        && secret.bytes.iter().any(u8::is_ascii_lowercase)
        && secret.bytes.iter().any(u8::is_ascii_uppercase)
}

/// Not one of a documentation's examples, nor an alphabet.
pub(super) fn is_no_example(secret: &Secret<'_>) -> bool {
    let steps = secret.bytes.windows(2).filter(|w| w[1] == w[0].wrapping_add(1)).count();
    !secret.bytes.ends_with(b"EXAMPLE") && steps * 2 < secret.bytes.len()
}

/// Words with dashes have the form of Slack's tokens too.
pub(super) fn is_slack(secret: &Secret<'_>) -> bool {
    let digits = secret.bytes.iter().filter(|b| b.is_ascii_digit()).count();
    let is_file = [b".jpg".as_slice(), b".png"].iter().any(|end| secret.bytes.ends_with(end));
    digits >= 1 && !is_file && secret.next != Some(b'.') && secret.next != Some(b'_')
}

/// Exactly as long as a token is.
pub(super) fn is_telegram(secret: &Secret<'_>) -> bool {
    has_digit(secret) && !secret.next.is_some_and(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
}

/// The two letters that all of them end in.
pub(super) fn is_anthropic(secret: &Secret<'_>) -> bool {
    has_digit(secret) && secret.bytes.ends_with(b"AA")
}

/// A key of OpenAI's form that is not another provider's.
pub(super) fn is_openai(secret: &Secret<'_>) -> bool {
    let other = secret.bytes.starts_with(b"sk-ant-");
    let key = secret.bytes.strip_prefix(b"sk-or-v1-").unwrap_or(&secret.bytes[3.min(secret.bytes.len())..]);
    let hexadecimal = key.len() >= 32 && key.iter().all(|b| b.is_ascii_hexdigit());
    !other && has_digit(secret) && (hexadecimal || is_mixed(secret) || switches(key) >= 6)
}

/// Exactly as long as a client secret is.
pub(super) fn is_client_secret(secret: &Secret<'_>) -> bool {
    has_digit(secret)
        && !secret.next.is_some_and(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'~' | b'.'))
}

/// Base64 of `user:password`.
pub(super) fn is_basic(secret: &Secret<'_>) -> bool {
    let bare = secret.bytes.iter().rposition(|b| *b != b'=').map_or(0, |last| last + 1);
    STANDARD_NO_PAD.decode(&secret.bytes[..bare]).is_ok_and(|plain| plain.contains(&b':'))
}

/// Words that stand where a secret would.
const STAND_INS: [&[u8]; 11] = [
    b"pass",
    b"password",
    b"passwd",
    b"pwd",
    b"token",
    b"test",
    b"secret",
    b"yyy",
    b"changeme",
    b"api_token",
    b"passwort",
];

fn is_stand_in(bytes: &[u8]) -> bool {
    STAND_INS.iter().any(|word| bytes.eq_ignore_ascii_case(word))
}

/// Something that was put in, not a mark or a word for it.
pub(super) fn is_no_placeholder(secret: &Secret<'_>) -> bool {
    let first = secret.bytes.first().copied().unwrap_or_default();
    let varied = secret.bytes.iter().any(|b| *b != first);
    let is_mark = matches!(first, b'$' | b'{' | b'<' | b'%' | b'[')
        && !(first == b'%' && secret.bytes.get(1).is_some_and(u8::is_ascii_hexdigit));
    varied && !is_mark && !is_stand_in(secret.bytes)
}

/// What a header carries: a digit, or the two cases of base64.
pub(super) fn is_credential(secret: &Secret<'_>) -> bool {
    let upper = secret.bytes.iter().skip(1).any(u8::is_ascii_uppercase);
    let lower = secret.bytes.iter().any(u8::is_ascii_lowercase);
    let is_code = secret.next == Some(b'(') || secret.bytes.contains(&b'.') && switches(secret.bytes) < 4;
    (has_digit(secret) || (upper && lower && secret.bytes.len() >= 16)) && !is_code
}

/// A password on a command line: not a number such as a group's, not a word that stands for one.
pub(super) fn is_password(secret: &Secret<'_>) -> bool {
    let is_number = secret.bytes.iter().all(|b| b.is_ascii_digit() || *b == b':');
    let is_braced = secret.bytes.len() > 8 && secret.bytes.starts_with(b"{") && !secret.bytes.starts_with(b"{{");
    !is_number && (is_no_placeholder(secret) || is_braced)
}

/// Something random in the name of a secret.
pub(super) fn is_random(secret: &Secret<'_>) -> bool {
    // Names that hold such a word and are no secret: what is public, what a key is for, what is said about it.
    const PLAIN: [&[u8]; 26] = [
        b"public",
        b"pubkey",
        b"primary",
        b"foreign",
        b"issuer",
        b"csrf",
        b"cache",
        b"sort",
        b"partition",
        b"bucket",
        b"schema",
        b"sequence",
        b"name",
        b"file",
        b"path",
        b"url",
        b"uri",
        b"length",
        b"size",
        b"type",
        b"version",
        b"hash",
        b"accessor",
        b"accessib",
        b"event",
        b"count",
    ];
    // First, because it is cheap and most that is given to such names has none.
    if !has_digit(secret) {
        return false;
    }
    let name = secret.name.to_ascii_lowercase();
    let is_plain = PLAIN.iter().any(|word| name.windows(word.len()).any(|part| part == *word));
    let is_id = name.ends_with(b"id") || name.ends_with(b"ids");
    if is_plain || is_id || !stands_alone(secret) || is_made_up(secret.bytes) {
        return false;
    }
    let is_password =
        [b"passw".as_slice(), b"pwd", b"passphrase"].iter().any(|word| name.windows(word.len()).any(|w| w == *word));
    if is_password && secret.quote.is_some() && secret.quote == secret.next {
        let letters = secret.bytes.iter().any(u8::is_ascii_alphabetic);
        return letters && secret.bytes.len() >= PASSWORD_MIN_BYTES;
    }
    let digits = secret.bytes.iter().filter(|b| b.is_ascii_digit()).count();
    let letters = secret.bytes.iter().filter(|b| b.is_ascii_alphabetic()).count();
    digits >= 2
        && letters >= 2
        && switches(secret.bytes) >= (secret.bytes.len() / 8).max(3)
        && entropy_bits(secret.bytes) >= RANDOM_MIN_BITS
        && !is_expression(secret)
}

/// Something random, or a long number, in the name of a service.
pub(super) fn is_service_secret(secret: &Secret<'_>) -> bool {
    const PLAIN: [&[u8]; 9] = [b"url", b"uri", b"host", b"domain", b"site", b"version", b"file", b"path", b"checksum"];
    let name = secret.name.to_ascii_lowercase();
    let is_plain = PLAIN.iter().any(|word| name.windows(word.len()).any(|part| part == *word));
    if is_plain || !stands_alone(secret) || is_made_up(secret.bytes) || is_expression(secret) {
        return false;
    }
    let digits = secret.bytes.iter().filter(|b| b.is_ascii_digit()).count();
    let is_number = digits == secret.bytes.len() && digits >= ID_MIN_DIGITS;
    is_number || is_uuid(secret.bytes) || switches(secret.bytes) >= if digits >= 1 { 2 } else { 4 }
}

/// Whether the value ends where it should: with its quote, or at the end of a word.
fn stands_alone(secret: &Secret<'_>) -> bool {
    match (secret.quote, secret.next) {
        (_, None | Some(b'\\')) => true,
        (Some(quote), Some(next)) => next == quote || matches!(next, b',' | b';' | b'"' | b'\''),
        (None, Some(next)) => {
            next.is_ascii_whitespace() || matches!(next, b',' | b';' | b'"' | b'\'' | b'`' | b')' | b']' | b'}' | b'<')
        }
    }
}

/// Marks, examples, addresses and paths.
fn is_made_up(bytes: &[u8]) -> bool {
    const WORDS: [&[u8]; 9] =
        [b"example", b"changeme", b"placeholder", b"redacted", b"xxxx", b"your_", b"your-", b"00000000", b"_here"];
    let lower = bytes.to_ascii_lowercase();
    let steps = bytes.windows(2).filter(|w| w[1] == w[0].wrapping_add(1)).count();
    let is_path = bytes.starts_with(b"/") && switches(bytes) * 6 < bytes.len();
    is_path
        || steps * 100 > bytes.len() * 82
        || matches!(bytes.first(), Some(b'$' | b'.' | b'%' | b'&' | b'*' | b'~' | b'#' | b'@' | b'|'))
        || lower.windows(3).any(|w| w == b"://" || w == b"***")
        || WORDS.iter().any(|word| lower.windows(word.len()).any(|w| w == *word))
}

/// Hexadecimal digits in groups of 8, 4, 4, 4 and 12.
fn is_uuid(bytes: &[u8]) -> bool {
    const DASHES: [usize; 4] = [8, 13, 18, 23];
    bytes.len() == 36
        && (0..36).all(|i| if DASHES.contains(&i) { bytes[i] == b'-' } else { bytes[i].is_ascii_hexdigit() })
}

/// Names with dots, as programs have them, unless they stand in quotes.
fn is_expression(secret: &Secret<'_>) -> bool {
    if secret.quote.is_some() || !secret.bytes.contains(&b'.') {
        return false;
    }
    let digits = secret.bytes.iter().filter(|b| b.is_ascii_digit()).count();
    let is_name = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b':');
    let length = secret.bytes.len();
    secret.bytes.iter().all(is_name) && digits * 6 < length && switches(secret.bytes) * 4 < length
}

/// How often letters and digits, and small and capital letters, take turns: often in what is random, seldom in words.
fn switches(bytes: &[u8]) -> usize {
    bytes
        .windows(2)
        .filter(|w| {
            let both = w[0].is_ascii_alphanumeric() && w[1].is_ascii_alphanumeric();
            let digit = w[0].is_ascii_digit() != w[1].is_ascii_digit();
            both && (digit || (w[0].is_ascii_lowercase() && w[1].is_ascii_uppercase()))
        })
        .count()
}
