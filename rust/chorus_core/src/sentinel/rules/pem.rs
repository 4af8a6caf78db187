//! Private keys between BEGIN and END lines (RFC 7468 and its relatives), also when line ends are written `\n` inside a
//! string, and also when the END line never comes.

use super::super::probe::Probe;

/// A 16,384 bit RSA key has 12.7 KiB; a key that goes on for longer is cut off here.
const MAX_BLOCK_BYTES: usize = 32 * 1024;

/// The label between `-----BEGIN ` and `-----`.
const MAX_LABEL_BYTES: usize = 64;

/// Lines of a key have 64 characters, of a header seldom more than this.
const MAX_LINE_BYTES: usize = 1024;

/// With less than this after the BEGIN line, nothing was given away.
const MIN_BODY_BYTES: usize = 16;

const BEGIN: &[u8] = b"-----BEGIN ";
const END: &[u8] = b"-----END ";
const DASHES: &[u8] = b"-----";
const KEY_LABELS: [&[u8]; 2] = [b"PRIVATE KEY", b"PRIVATE KEY BLOCK"];

/// What stands between two line ends of a block.
enum Line {
    /// Base64, a header or nothing: the block goes on.
    Body { base64: usize },
    /// The END line, so many bytes long.
    End(usize),
    /// Something else: the block ended before it.
    Foreign,
    /// Cut off; more text would tell.
    Open,
}

/// Asks whether a private key begins with the BEGIN line at `at`.
pub(in super::super) fn probe(text: &[u8], at: usize, complete: bool) -> Probe {
    let text_end = text.len().min(at + MAX_BLOCK_BYTES);
    let complete = complete || text_end < text.len() || text.len() - at == MAX_BLOCK_BYTES;
    let block = &text[at..text_end];
    let Some(mut place) = header(block) else {
        let could_be = block.len() < BEGIN.len() + MAX_LABEL_BYTES + DASHES.len() && is_open_header(block);
        return if could_be && !complete { Probe::Open(at) } else { Probe::No };
    };
    let mut body = 0;
    let mut last_body_end = place;
    loop {
        place += line_end(&block[place..]).unwrap_or(0);
        let rest = &block[place..];
        let (length, closed) = match next_line_end(rest) {
            Some(length) => (length, true),
            None => (rest.len(), false),
        };
        match classify(&rest[..length], closed, complete) {
            Line::End(length) => return found(at, place + length, body),
            Line::Open => return Probe::Open(at),
            Line::Body { base64 } => {
                body += base64;
                if base64 > 0 {
                    last_body_end = place + length;
                }
                place += length;
                if !closed {
                    return found(at, last_body_end, body);
                }
            }
            Line::Foreign => {
                // What follows the key on its last line, such as a closing quote, is not part of it.
                let base64 = leading_base64(&rest[..length]);
                if base64 >= MIN_BODY_BYTES {
                    last_body_end = place + base64;
                    body += base64;
                }
                return found(at, last_body_end, body);
            }
        }
    }
}

fn found(at: usize, length: usize, body: usize) -> Probe {
    if body < MIN_BODY_BYTES { Probe::No } else { Probe::Match(at..at + length, false) }
}

/// The length of the BEGIN line of a private key.
fn header(block: &[u8]) -> Option<usize> {
    let label = block.strip_prefix(BEGIN)?;
    let length = label.windows(DASHES.len()).take(MAX_LABEL_BYTES).position(|w| w == DASHES)?;
    is_key_label(&label[..length]).then_some(BEGIN.len() + length + DASHES.len())
}

fn is_key_label(label: &[u8]) -> bool {
    is_label(label) && KEY_LABELS.iter().any(|kind| label.ends_with(kind))
}

fn is_label(label: &[u8]) -> bool {
    label.iter().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || *b == b' ')
}

fn is_open_header(block: &[u8]) -> bool {
    let Some(label) = block.strip_prefix(BEGIN) else { return BEGIN.starts_with(block) };
    let dashes = label.iter().rev().take_while(|b| **b == b'-').count();
    let (label, dashes) = label.split_at(label.len() - dashes);
    // With dashes begun the label is whole, and not one of a key unless it says so.
    is_label(label) && (dashes.is_empty() || (dashes.len() < DASHES.len() && is_key_label(label)))
}

/// The line end at the beginning of `text`, real or written as an escape.
fn line_end(text: &[u8]) -> Option<usize> {
    match text {
        [b'\r', b'\n', ..] => Some(2),
        [b'\r' | b'\n', ..] => Some(1),
        [b'\\', b'r', b'\\', b'n', ..] => Some(4),
        [b'\\', b'n' | b'r', ..] => Some(2),
        _ => None,
    }
}

fn next_line_end(text: &[u8]) -> Option<usize> {
    (0..text.len()).find(|i| line_end(&text[*i..]).is_some())
}

fn classify(line: &[u8], closed: bool, complete: bool) -> Line {
    let decided = closed || complete;
    if line.len() > MAX_LINE_BYTES && !line.iter().all(|b| is_base64(*b)) {
        return Line::Foreign;
    }
    let indent = line.iter().take_while(|b| matches!(b, b' ' | b'\t' | b'>' | b'|')).count();
    let text = &line[indent..];
    if let Some(length) = end_line(text) {
        return Line::End(indent + length);
    }
    if text.first() == Some(&b'-') {
        let open = END.starts_with(text) || (text.starts_with(END) && text.len() < END.len() + MAX_LABEL_BYTES);
        return if open && !decided { Line::Open } else { Line::Foreign };
    }
    let trimmed = text.trim_ascii_end();
    let base64 = leading_base64(trimmed);
    let is_body = base64 == trimmed.len() || is_header_line(trimmed);
    // A single backslash may be the first half of a written line end.
    let may_end = !decided && (base64 + 1 == text.len() && text.last() == Some(&b'\\'));
    match (is_body || may_end, decided) {
        (true, true) => Line::Body { base64 },
        (true, false) => Line::Open,
        (false, false) if could_be_header(trimmed) => Line::Open,
        (false, _) => Line::Foreign,
    }
}

fn end_line(text: &[u8]) -> Option<usize> {
    let label = text.strip_prefix(END)?;
    let length = label.windows(DASHES.len()).take(MAX_LABEL_BYTES).position(|w| w == DASHES)?;
    is_label(&label[..length]).then_some(END.len() + length + DASHES.len())
}

/// `DEK-Info: AES-128-CBC,…`, `Version: …` and the like.
fn is_header_line(line: &[u8]) -> bool {
    let name = line.iter().take_while(|b| b.is_ascii_alphabetic() || **b == b'-').count();
    name > 0 && line[name..].starts_with(b": ")
}

fn could_be_header(line: &[u8]) -> bool {
    let name = line.iter().take_while(|b| b.is_ascii_alphabetic() || **b == b'-').count();
    name > 0 && (name == line.len() || line[name..] == *b":")
}

fn leading_base64(line: &[u8]) -> usize {
    line.iter().take_while(|b| is_base64(**b)).count()
}

fn is_base64(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'=')
}
