//! Private keys between BEGIN and END lines (RFC 7468 and its relatives): also when line ends are written `\n` inside a
//! string, when the lines are strings of a program, when all stands on one line, and when the END line never comes.
//!
//! No byte of a key's body can begin another key, so a text of many beginnings is looked at once.

use super::super::probe::{Probe, Work};

/// A 16,384 bit RSA key has 12.7 KiB; a key that goes on for longer is cut off here.
pub(in super::super) const MAX_BLOCK_BYTES: usize = 32 * 1024;

/// The label between `-----BEGIN ` and `-----`.
const MAX_LABEL_BYTES: usize = 64;

/// Headers such as `DEK-Info: …` are seldom longer than a line of text.
const MAX_HEADER_BYTES: usize = 256;

/// What may stand between two pieces of base64: a line end, indentation, the quotes and operators of a program.
const MAX_GLUE_BYTES: usize = 96;

/// With less than this after the BEGIN line, nothing was given away.
const MIN_BODY_BYTES: usize = 16;

/// Words of ordinary text are shorter; pieces of a key, but for the last, are not.
const MIN_PIECE_BYTES: usize = 16;

const BEGIN: &[u8] = b"-----BEGIN ";
const END: &[u8] = b"-----END ";
const DASHES: &[u8] = b"-----";
const KEY_LABELS: [&[u8]; 2] = [b"PRIVATE KEY", b"PRIVATE KEY BLOCK"];

/// What a part of the text is, or that more text would tell.
enum Part {
    Is(usize),
    Not,
    Open,
}

/// Asks whether a private key begins with the BEGIN line at `at`.
pub(in super::super) fn probe(text: &[u8], at: usize, complete: bool, work: &mut Work) -> Probe {
    let end = text.len().min(at + MAX_BLOCK_BYTES);
    let block = Block { bytes: &text[at..end], complete: complete || end - at == MAX_BLOCK_BYTES };
    let mut looked = 0;
    let probe = match block.boundary(0, BEGIN, true) {
        Part::Is(length) => block.body(length, at, &mut looked),
        Part::Not => Probe::No,
        Part::Open => Probe::Open(at),
    };
    work.add(looked + BEGIN.len() + MAX_LABEL_BYTES);
    probe
}

/// Whether a key that is not whole stays so when this comes after it: more of its body.
pub(in super::super) fn stays_open(before: Option<u8>, piece: &[u8]) -> bool {
    let mut last = before.unwrap_or(b'\n');
    piece.iter().all(|byte| {
        let goes_on = is_base64(*byte) || (*byte == b'\n' && is_base64(last));
        last = *byte;
        goes_on
    })
}

struct Block<'a> {
    bytes: &'a [u8],
    /// Whether nothing follows that could change an answer.
    complete: bool,
}

impl Block<'_> {
    /// The length of a BEGIN or END line.
    fn boundary(&self, place: usize, word: &[u8], of_key: bool) -> Part {
        let rest = &self.bytes[place..];
        let Some(after) = rest.strip_prefix(word) else {
            return if !self.complete && word.starts_with(rest) { Part::Open } else { Part::Not };
        };
        let length = after.iter().take(MAX_LABEL_BYTES).take_while(|b| is_label(**b)).count();
        let (label, dashes) = after.split_at(length);
        let is_key = !of_key || KEY_LABELS.iter().any(|kind| label.ends_with(kind));
        if dashes.starts_with(DASHES) && is_key {
            return Part::Is(word.len() + length + DASHES.len());
        }
        let undecided = dashes.is_empty() || (is_key && DASHES.starts_with(dashes));
        if undecided && !self.complete { Part::Open } else { Part::Not }
    }

    fn body(&self, begin: usize, at: usize, looked: &mut usize) -> Probe {
        let (mut place, mut body, mut last) = (begin, 0, begin);
        let mut first = true;
        loop {
            let (glue, breaks) = self.glue(place);
            place += glue;
            *looked = place;
            if place == self.bytes.len() {
                return if self.complete { found(at, last, body) } else { Probe::Open(at) };
            }
            match self.boundary(place, END, false) {
                Part::Is(length) => return found(at, place + length, body),
                Part::Open => return Probe::Open(at),
                Part::Not => {}
            }
            if glue == MAX_GLUE_BYTES {
                return found(at, last, body);
            }
            if breaks {
                match self.header(place) {
                    Part::Is(length) => {
                        place += length;
                        continue;
                    }
                    Part::Open => return Probe::Open(at),
                    Part::Not => {}
                }
            }
            let length = self.bytes[place..].iter().take_while(|b| is_base64(**b)).count();
            *looked = place + length;
            match self.piece(place, length, first || breaks) {
                Part::Is(length) => {
                    place += length;
                    body += length;
                    last = place;
                    first = false;
                }
                Part::Open => return Probe::Open(at),
                Part::Not => return found(at, last, body),
            }
        }
    }

    /// Whether so much base64 belongs to the key: it is long, or stands alone between two breaks.
    fn piece(&self, place: usize, length: usize, after_break: bool) -> Part {
        let end = place + length;
        if end == self.bytes.len() && !self.complete {
            return Part::Open;
        }
        if length == 0 || length >= MIN_PIECE_BYTES {
            return if length == 0 { Part::Not } else { Part::Is(length) };
        }
        let (glue, breaks) = self.glue(end);
        let next = end + glue;
        if next == self.bytes.len() {
            return if !self.complete {
                Part::Open
            } else if after_break {
                Part::Is(length)
            } else {
                Part::Not
            };
        }
        match self.boundary(next, END, false) {
            Part::Is(_) => Part::Is(length),
            Part::Open => Part::Open,
            Part::Not if after_break && breaks => Part::Is(length),
            Part::Not => Part::Not,
        }
    }

    /// What joins two pieces, and whether it ends a line or a string.
    fn glue(&self, place: usize) -> (usize, bool) {
        let rest = &self.bytes[place..];
        let (mut length, mut breaks) = (0, false);
        while length < MAX_GLUE_BYTES {
            let step = match &rest[length..] {
                [b'\\', b'n' | b'r', ..] => 2,
                [b'\\', b't', ..] => {
                    length += 2;
                    continue;
                }
                // The first half of a written line end, or a line's continuation.
                [b'\\' | b'\n' | b'\r' | b'"' | b'\'' | b'`', ..] => 1,
                [b' ' | b'\t' | b',' | b'|' | b'>' | b'(' | b')' | b'#' | b'*', ..] => {
                    length += 1;
                    continue;
                }
                _ => break,
            };
            breaks = true;
            length += step;
        }
        (length.min(MAX_GLUE_BYTES).min(rest.len()), breaks)
    }

    /// `DEK-Info: AES-128-CBC,…`, `Version: …` and the like, without the line's end.
    fn header(&self, place: usize) -> Part {
        let rest = &self.bytes[place..];
        let name = rest.iter().take(MAX_LABEL_BYTES).take_while(|b| b.is_ascii_alphabetic() || **b == b'-').count();
        if name == 0 || rest.starts_with(b"-") {
            return Part::Not;
        }
        match &rest[name..] {
            [b':', b' ', ..] => {}
            [] | [b':'] if !self.complete => return Part::Open,
            _ => return Part::Not,
        }
        let value = &rest[name..];
        let ends = |i: &usize| matches!(value[*i], b'\n' | b'\r' | b'\\' | b'"') || value[*i..].starts_with(DASHES);
        match (0..value.len().min(MAX_HEADER_BYTES)).find(ends) {
            Some(end) if value[end] != b'-' => Part::Is(name + end),
            None if value.len() < MAX_HEADER_BYTES && !self.complete => Part::Open,
            None if value.len() < MAX_HEADER_BYTES => Part::Is(name + value.len()),
            // Dashes within a header begin something else.
            _ => Part::Not,
        }
    }
}

fn found(at: usize, length: usize, body: usize) -> Probe {
    if body < MIN_BODY_BYTES { Probe::No } else { Probe::Match(at..at + length, None) }
}

fn is_label(byte: u8) -> bool {
    byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b' '
}

fn is_base64(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'=')
}
