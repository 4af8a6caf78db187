//! JSON Web Tokens (RFC 7519): three pieces of base64url with dots between, the first two beginning with `eyJ`, which is
//! base64 of `{"`. A piece that many beginnings share is looked at once.

use super::{
    super::probe::{Probe, Work},
    begins_word,
};

/// A longer token is cut off here, and what follows it is dropped while it looks the same.
pub(in super::super) const MAX_TOKEN_BYTES: usize = 16 * 1024;

/// `{"alg":""}` and `{"sub":""}` have 14 characters in base64.
const MIN_PIECE_BYTES: usize = 13;
/// Half a SHA-256 of signature.
const MIN_SIGNATURE_BYTES: usize = 16;

const BEGIN: &[u8] = b"eyJ";

/// Asks whether a token begins at `at`.
pub(in super::super) fn probe(text: &[u8], at: usize, complete: bool, work: &mut Work) -> Probe {
    if !begins_word(&text[..at]) {
        return Probe::No;
    }
    let end = text.len().min(at + MAX_TOKEN_BYTES);
    let is_cut = end - at == MAX_TOKEN_BYTES;
    let undecided = || if complete || is_cut { Probe::No } else { Probe::Open(at) };
    let header = work.run(text, at, is_base64url).min(end);
    if header == end {
        return undecided();
    }
    if text[header] != b'.' || header - at < MIN_PIECE_BYTES {
        return Probe::No;
    }
    let payload = header + 1;
    if !text[payload..end].starts_with(BEGIN) {
        return if BEGIN.starts_with(&text[payload..end]) { undecided() } else { Probe::No };
    }
    let payload_end = work.run(text, payload, is_base64url).min(end);
    if payload_end == end {
        // A payload that long is one, whatever comes after it.
        return if is_cut { Probe::Match(at..run_on(text, end), Some(end)) } else { undecided() };
    }
    if text[payload_end] != b'.' || payload_end - payload < MIN_PIECE_BYTES {
        return Probe::No;
    }
    let signature_end = work.run(text, payload_end + 1, is_base64url).min(end);
    if signature_end == end && !complete && !is_cut {
        return Probe::Open(at);
    }
    if signature_end - payload_end - 1 < MIN_SIGNATURE_BYTES && !(is_cut && signature_end == end) {
        return Probe::No;
    }
    if is_cut && signature_end == end {
        return Probe::Match(at..run_on(text, end), Some(end));
    }
    Probe::Match(at..signature_end, None)
}

/// Whether the byte can be part of a token.
pub(in super::super) fn continues(byte: u8) -> bool {
    is_base64url(byte) || byte == b'.'
}

fn run_on(text: &[u8], from: usize) -> usize {
    from + text[from..].iter().take_while(|b| continues(**b)).count()
}

fn is_base64url(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_')
}
