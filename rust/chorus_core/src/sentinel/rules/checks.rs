//! What patterns cannot say: whether a value looks random, made up, or like the name of something.

use base64::{Engine, engine::general_purpose::STANDARD_NO_PAD};

use super::{
    super::{
        assignment::Bond,
        probe::{Secret, entropy_bits},
    },
    names,
};

/// The least entropy of what is given to a secret's name, in bits for each byte.
const RANDOM_MIN_BITS: f64 = 2.8;

/// So many turns of small and capital letters tell randomness where there are no digits.
const MIXED_MIN_TURNS: usize = 4;

/// What tells by itself that it is random is at least so long and has so many bits for each byte.
const STRONG_MIN_BYTES: usize = 20;
const STRONG_MIN_BITS: f64 = 3.2;

/// Base64 of a BEGIN line with the longest of labels.
const PEM_HEAD_BYTES: usize = 64;

/// A password that stands in quotes has this many characters.
const PASSWORD_MIN_BYTES: usize = 8;

/// An alphabet is written out for so many steps; digits, even hexadecimal ones, are fewer.
const ALPHABET_MIN_STEPS: usize = 16;

/// Constants of programs have no more hexadecimal digits; keys do.
const CONSTANT_MAX_DIGITS: usize = 16;

/// An id that is a number has this many digits.
const ID_MIN_DIGITS: usize = 15;

/// What is given to a password's name without quotes has this many letters; with so many runs of digits among them it
/// is no name, whatever it is made of.
const BARE_MIN_LETTERS: usize = 6;
const BARE_SURE_GROUPS: usize = 4;
/// Small letters alone are no word when there are so many.
const BARE_SURE_LETTERS: usize = 24;

/// A shortened hash has this many digits, and what stands beside a hash in a label (`x64`, `v2`) no more bytes.
const HASH_MIN_DIGITS: usize = 7;
const LABEL_PART_BYTES: usize = 5;

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
    let steps = secret.bytes.windows(2).filter(|pair| is_step(pair)).count();
    !secret.bytes.ends_with(b"EXAMPLE") && steps * 2 < secret.bytes.len()
}

/// Words with dashes have the form of Slack's tokens too.
pub(super) fn is_slack(secret: &Secret<'_>) -> bool {
    let is_file = [b".jpg".as_slice(), b".png"].iter().any(|end| secret.bytes.ends_with(end));
    let kind = secret.bytes.iter().position(|b| *b == b'-').unwrap_or(0);
    let is_word = !has_digit(secret) && names::wordy(&secret.bytes[kind..]) > 0;
    !is_word && !is_file && secret.next != Some(b'.') && secret.next != Some(b'_')
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
    (has_digit(secret) || (upper && lower && secret.bytes.len() >= 16))
        && !is_code
        && secret.bond != Bond::Loose
        && !is_identifier(secret)
}

/// A password on a command line: not a number such as a group's, not a word that stands for one.
pub(super) fn is_password(secret: &Secret<'_>) -> bool {
    let is_number = secret.bytes.iter().all(|b| b.is_ascii_digit() || *b == b':');
    let is_braced = secret.bytes.len() > 8 && secret.bytes.starts_with(b"{") && !secret.bytes.starts_with(b"{{");
    !is_number && (is_no_placeholder(secret) || is_braced)
}

/// Something random in the name of a secret.
pub(super) fn is_random(secret: &Secret<'_>) -> bool {
    if is_bare_password(secret) {
        return !names::is_plain(secret.name) && stands_alone(secret) && !is_made_up(secret.bytes);
    }
    // First, because it is cheap and most that is given to such names is words.
    let digits = count(secret.bytes, u8::is_ascii_digit);
    let letters = count(secret.bytes, u8::is_ascii_alphabetic);
    let turns = switches(secret.bytes);
    if digits == 0 && turns < MIXED_MIN_TURNS.max(secret.bytes.len() / 5) {
        return false;
    }
    if names::is_plain(secret.name) || !stands_alone(secret) || is_made_up(secret.bytes) {
        return false;
    }
    if is_identifier(secret) {
        return false;
    }
    if is_quoted_password(secret) {
        return letters > 0 && secret.bytes.len() >= PASSWORD_MIN_BYTES;
    }
    // The names that say least, and sentences, must be given most.
    let is_key = secret.name.eq_ignore_ascii_case(b"key") || secret.name.eq_ignore_ascii_case(b"keys");
    if secret.bond == Bond::Loose || is_key {
        return is_strong(secret.bytes) && !(is_key && is_lookup_key(secret));
    }
    let is_long = secret.bytes.len() >= STRONG_MIN_BYTES;
    let is_varied = if is_long { turns >= 1 } else { turns >= (secret.bytes.len() / 8).max(3) };
    letters >= 2
        && (digits >= 2 || digits == 0 || is_long && turns >= MIXED_MIN_TURNS)
        && is_varied
        && entropy_bits(secret.bytes) >= RANDOM_MIN_BITS
        && !is_expression(secret)
}

/// So random that hardly anything needs be said about it.
fn is_strong(bytes: &[u8]) -> bool {
    let digits = count(bytes, u8::is_ascii_digit);
    let letters = count(bytes, u8::is_ascii_alphabetic);
    bytes.len() >= STRONG_MIN_BYTES
        && digits >= 3
        && letters >= 3
        && switches(bytes) >= 3
        && entropy_bits(bytes) >= STRONG_MIN_BITS
}

fn is_hexadecimal(bytes: &[u8]) -> bool {
    bytes.iter().all(u8::is_ascii_hexdigit)
}

/// Whether it is given to a password's name and stands in quotes as one: what is written so needs not be random.
fn is_quoted_password(secret: &Secret<'_>) -> bool {
    is_quoted(secret) && names::holds(secret.name, &["passw", "pwd", "passphrase"])
}

/// Whether it is given to a password's name without quotes, as configuration and command lines have it, and could be
/// said: syllables, or words, with digits among them. Programs give names in this place; those are made of other words.
fn is_bare_password(secret: &Secret<'_>) -> bool {
    let bytes = secret.bytes;
    if secret.quote.is_some() || secret.bond != Bond::Given || !names::is_password(secret.name) {
        return false;
    }
    let letters = count(bytes, u8::is_ascii_alphabetic);
    let groups = digit_groups(bytes);
    // A quote ends the text that all of it stands in.
    let ends_with_line =
        secret.next.is_none_or(|b| b.is_ascii_whitespace() || matches!(b, b'\\' | b'"' | b'\'' | b'`'));
    let is_joined = bytes.iter().any(|b| matches!(b, b'_' | b'.' | b'/' | b':'));
    let is_plain = bytes.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'));
    if !is_plain || letters < BARE_MIN_LETTERS || is_expression(secret) {
        return false;
    }
    if groups == 0 {
        // No word is so long.
        return bytes.len() >= BARE_SURE_LETTERS && bytes.iter().all(u8::is_ascii_lowercase) && ends_with_line;
    }
    let least = match (ends_with_line, is_joined) {
        (true, false) => 1,
        (true, true) => 2,
        (false, _) => 3,
    };
    groups >= BARE_SURE_GROUPS || groups >= least && !names::is_of_programs(bytes)
}

/// How many runs of digits there are.
fn digit_groups(bytes: &[u8]) -> usize {
    bytes.chunk_by(|a, b| a.is_ascii_digit() == b.is_ascii_digit()).filter(|run| run[0].is_ascii_digit()).count()
}

/// What caches, requests and files are found by: a hash, an id that ends its line, words with a hash.
fn is_lookup_key(secret: &Secret<'_>) -> bool {
    let ends = secret.quote.is_none() && secret.next.is_none_or(|b| b.is_ascii_whitespace());
    let is_named = secret.bond == Bond::Loose || secret.quote.is_none();
    match is_uuid(secret.bytes) {
        true => ends,
        false => is_hexadecimal(secret.bytes) || is_named && is_label(secret.bytes),
    }
}

/// Whether it is put together from words, numbers and at least one hash, as caches, files and releases are called.
fn is_label(bytes: &[u8]) -> bool {
    let parts = || bytes.split(|b| matches!(b, b'-' | b'.' | b'/' | b'|' | b'+' | b'@' | b'=' | b'!' | b'#'));
    let is_hash =
        |part: &[u8]| part.len() >= HASH_MIN_DIGITS && is_hexadecimal(part) && part.iter().any(u8::is_ascii_digit);
    let is_word = |part: &[u8]| {
        part.len() <= LABEL_PART_BYTES
            || part.iter().all(u8::is_ascii_digit)
            || names::wordy(part) * 4 >= part.len() * 3
    };
    parts().any(is_hash)
        && parts().any(|part| part.iter().any(u8::is_ascii_alphabetic) && !is_hash(part))
        && parts().all(|part| is_hash(part) || is_word(part))
}

/// Something random, or a long number, in the name of a service.
pub(super) fn is_service_secret(secret: &Secret<'_>) -> bool {
    // Few things are called like a service.
    const PLAIN: &[&str] = &["url", "uri", "host", "domain", "site", "version", "file", "path", "checksum"];
    if names::holds(secret.name, PLAIN) || !stands_alone(secret) || is_made_up(secret.bytes) {
        return false;
    }
    if is_expression(secret) || is_identifier(secret) {
        return false;
    }
    if secret.bond == Bond::Loose {
        // Many things are called by a hash, also where they have a service's name.
        return is_strong(secret.bytes) && !is_hexadecimal(secret.bytes);
    }
    let digits = count(secret.bytes, u8::is_ascii_digit);
    let is_number = digits == secret.bytes.len() && digits >= ID_MIN_DIGITS;
    let is_no_word = secret.bytes.len() >= ID_MIN_DIGITS && names::wordy(secret.bytes) == 0;
    let least = match digits {
        0 => 4,
        _ if is_no_word => 1,
        _ => 2,
    };
    is_number || is_uuid(secret.bytes) || switches(secret.bytes) >= least
}

/// What stands in quotes: a password, where its name ends in that word, or something strong with signs in it.
pub(super) fn is_written_password(secret: &Secret<'_>) -> bool {
    // What is said about passwords in the same place: kinds, rules for a form, labels, which begin with a capital.
    const SAID: &[&str] = &[
        "require",
        "optional",
        "invalid",
        "incorrect",
        "confirm",
        "nullable",
        "undefined",
        "string",
        "default",
        "field",
        "prompt",
        "notapassword",
        "fake",
    ];
    let bytes = secret.bytes;
    if !is_quoted(secret)
        || secret.bond != Bond::Given
        || is_made_up(bytes)
        || is_stand_in(bytes)
        || names::is_plain(secret.name)
    {
        return false;
    }
    let is_template = bytes.windows(2).any(|w| matches!(w, b"${" | b"{{" | b"%(" | b"#{" | b"<%"));
    let is_braced = matches!(bytes, [b'<' | b'{' | b'[' | b'(' | b'%' | b'$' | b'/' | b'.' | b',' | b')', ..]);
    if is_template || is_braced || names::holds(bytes, SAID) {
        return false;
    }
    let letters = count(bytes, u8::is_ascii_alphabetic);
    let signs = bytes.iter().filter(|b| b.is_ascii_punctuation() && !matches!(b, b'_' | b'-' | b'.')).count();
    let is_word = signs == 0 && !has_digit(secret);
    // Names are given to names: `remotePwd = "remotePwd"`, `PASSWORD = "user_field"`, routes and policies to routes.
    let is_joined = bytes.iter().any(|b| matches!(b, b'_' | b'.'));
    let is_label = is_word
        && (is_joined
            || bytes[0].is_ascii_uppercase()
            || secret.name.eq_ignore_ascii_case(bytes)
            || bytes.ends_with(b"assword"))
        || names::holds(bytes, &["password"]) && bytes.iter().any(|b| matches!(b, b'/' | b':'));
    if names::is_password(secret.name) {
        return letters >= 3 && signs * 2 < bytes.len() && !is_label;
    }
    signs >= 1 && signs * 3 < bytes.len() && is_strong(bytes)
}

/// A token before a colon with nothing after it.
pub(super) fn is_user_token(secret: &Secret<'_>) -> bool {
    let Some(token) = secret.bytes.strip_suffix(b":") else { return false };
    has_digit(secret) && !token.contains(&b':') && switches(token) >= MIXED_MIN_TURNS
}

/// Between braces: what Jenkins wrote there, not a template's variable.
pub(super) fn is_braced_secret(secret: &Secret<'_>) -> bool {
    secret.next == Some(b'}') && has_digit(secret) && secret.bytes.len() >= STRONG_MIN_BYTES
}

/// The base64 of a BEGIN line of a private key.
pub(super) fn is_private_pem(secret: &Secret<'_>) -> bool {
    let head = &secret.bytes[..secret.bytes.len().min(PEM_HEAD_BYTES)];
    STANDARD_NO_PAD.decode(&head[..head.len() / 4 * 4]).is_ok_and(|line| line.windows(11).any(|w| w == b"PRIVATE KEY"))
}

/// Whether it is the whole of what stands in quotes, also where these are escaped.
fn is_quoted(secret: &Secret<'_>) -> bool {
    secret.quote.is_some() && (secret.next == secret.quote || secret.next == Some(b'\\'))
}

/// Whether the value ends where it should: with its quote, or at the end of a word.
fn stands_alone(secret: &Secret<'_>) -> bool {
    match (secret.quote, secret.next) {
        (_, None | Some(b'\\')) => true,
        (Some(quote), Some(next)) => next == quote || matches!(next, b',' | b';' | b'"' | b'\''),
        (None, Some(next)) => {
            next.is_ascii_whitespace()
                || matches!(next, b',' | b';' | b'"' | b'\'' | b'`' | b')' | b']' | b'}' | b'<' | b'&')
        }
    }
}

/// Whether one byte counts on to the next.
fn is_step(pair: &[u8]) -> bool {
    pair[1] == pair[0].wrapping_add(1)
}

/// Whether most of it counts on from one byte to the next, or an alphabet is in it.
fn is_sequence(bytes: &[u8]) -> bool {
    let (mut steps, mut run, mut longest) = (0, 0, 0);
    for pair in bytes.windows(2) {
        run = if is_step(pair) { run + 1 } else { 0 };
        steps += usize::from(run > 0);
        longest = longest.max(run);
    }
    longest >= ALPHABET_MIN_STEPS || steps * 100 > bytes.len() * 90
}

/// Public keys: of elliptic curves, RSA and Ed25519 (RFC 5280, SubjectPublicKeyInfo in base64), of SSH and age.
const PUBLIC_FORMS: [&[u8]; 5] =
    [b"MFkwEwYHKoZIzj0", b"MIIBIjANBgkqhkiG9w0BAQEFAAOC", b"MCowBQYDK2Vw", b"AAAAB3NzaC1", b"age1"];

/// Marks, examples, addresses and paths.
fn is_made_up(bytes: &[u8]) -> bool {
    const PARTS: &[&str] = &[
        "example",
        "changeme",
        "placeholder",
        "redacted",
        "xxxx",
        "your_",
        "your-",
        "00000000",
        "_here",
        "://",
        "***",
        "...",
    ];
    let is_path = bytes.starts_with(b"/") && switches(bytes) * 6 < bytes.len();
    is_path
        || PUBLIC_FORMS.iter().any(|form| bytes.starts_with(form))
        || is_sequence(bytes)
        || matches!(bytes.first(), Some(b'$' | b'.' | b'%' | b'&' | b'*' | b'~' | b'#' | b'@' | b'|'))
        || names::holds(bytes, PARTS)
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
    let digits = count(secret.bytes, u8::is_ascii_digit);
    let is_name = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b':');
    let length = secret.bytes.len();
    secret.bytes.iter().all(is_name) && digits * 6 < length && switches(secret.bytes) * 4 < length
}

/// What programs call things, rather than what is random: made of words for the most part, in quotes a little more so;
/// or a number in hexadecimal.
fn is_identifier(secret: &Secret<'_>) -> bool {
    let bytes = secret.bytes;
    if let [b'0', b'x' | b'X', digits @ ..] | [b'-', b'0', b'x' | b'X', digits @ ..] = bytes {
        let hexadecimal = digits.iter().take_while(|b| b.is_ascii_hexdigit()).count();
        return hexadecimal <= CONSTANT_MAX_DIGITS;
    }
    let letters = count(bytes, u8::is_ascii_alphabetic);
    // A number, and perhaps the letter of its type.
    if letters <= 1 && bytes.len() < ID_MIN_DIGITS {
        return true;
    }
    let is_name =
        bytes.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b':' | b'-' | b'/' | b',' | b'|'));
    let is_joined = bytes.iter().any(|b| matches!(b, b'_' | b'.' | b'-' | b'/'))
        || bytes.iter().any(u8::is_ascii_lowercase) && bytes.iter().any(u8::is_ascii_uppercase);
    let alphanumeric = count(bytes, u8::is_ascii_alphanumeric);
    let digits = count(bytes, u8::is_ascii_digit);
    let is_constant = bytes.contains(&b'_') && !bytes.iter().any(u8::is_ascii_lowercase);
    let share = match (secret.quote, is_constant) {
        (Some(_), _) => 65,
        (None, true) => 40,
        (None, false) => 60,
    };
    is_name && is_joined && digits * 5 < alphanumeric * 2 && names::wordy(bytes) * 100 >= alphanumeric * share
}

fn count(bytes: &[u8], is: fn(&u8) -> bool) -> usize {
    bytes.iter().filter(|b| is(b)).count()
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
