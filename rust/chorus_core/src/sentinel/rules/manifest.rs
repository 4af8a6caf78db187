//! Secrets of Kubernetes as YAML: an object of `kind: Secret` holds its values under `data`, in base64, or under
//! `stringData`, as they are (Kubernetes docs, "Secrets"). The entries go as one, so that the rest stays YAML. `kubectl`
//! writes `data` before `kind`, people write it after.

use std::ops::Range;

use super::super::probe::{Probe, Work};

/// `data` and `kind` of one object are no further apart than this.
pub(in super::super) const REACH_BYTES: usize = 768;

/// Entries that go on for longer are cut off here; a Secret may have 1 MiB, which seldom anybody prints.
const MAX_ENTRIES_BYTES: usize = 32 * 1024;

/// Indentation before `data`, as far as it is looked at.
const MAX_INDENT_BYTES: usize = 64;

/// Shorter values give little away.
const MIN_VALUE_BYTES: usize = 10;

/// Asks about the `kind: Secret` or the `data:` at `at`.
pub(in super::super) fn probe(text: &[u8], at: usize, complete: bool, work: &mut Work) -> Probe {
    let Some(indent) = indent_before(text, at) else { return Probe::No };
    let probe = if text[at..].starts_with(b"data:") {
        data_first(text, at, indent, complete, work)
    } else {
        kind_first(text, at, indent, complete, work)
    };
    work.add(MAX_INDENT_BYTES);
    probe
}

/// The columns before `at` on its line, if there is nothing else; a list's dash counts.
fn indent_before(text: &[u8], at: usize) -> Option<usize> {
    let before = &text[at.saturating_sub(MAX_INDENT_BYTES)..at];
    let indent = before.iter().rev().take_while(|b| matches!(b, b' ' | b'\t' | b'-')).count();
    let at_line = before.len() == indent || matches!(before[before.len() - indent - 1], b'\n' | b'\r');
    at_line.then_some(indent)
}

fn kind_first(text: &[u8], at: usize, indent: usize, complete: bool, work: &mut Work) -> Probe {
    let end = text.len().min(at + REACH_BYTES);
    let mut lines = Lines { text, place: at, end };
    if !lines.next().is_some_and(|line| is_secret_kind(&text[line.range])) {
        return Probe::No;
    }
    for line in lines {
        work.add(line.range.len());
        let content = &text[line.range.clone()];
        if line.indent < indent || content.starts_with(b"---") || content.starts_with(b"kind:") {
            return Probe::No;
        }
        if line.indent == indent && (is_key(content, b"data") || is_key(content, b"stringData")) {
            let string = content.starts_with(b"s");
            return match entries(text, line.range.end, indent, string, complete, work) {
                Entries::None => Probe::No,
                Entries::Whole(range) => Probe::Match(range, None),
                Entries::Open(start) => Probe::Open(start),
            };
        }
    }
    Probe::No
}

fn data_first(text: &[u8], at: usize, indent: usize, complete: bool, work: &mut Work) -> Probe {
    let Some(line_end) = text[at..].iter().take(16).position(|b| *b == b'\n').map(|n| at + n) else { return Probe::No };
    if !is_key(&text[at..line_end], b"data") {
        return Probe::No;
    }
    let range = match entries(text, line_end, indent, false, complete, work) {
        Entries::None => return Probe::No,
        Entries::Open(start) => return Probe::Open(start),
        Entries::Whole(range) => range,
    };
    let end = text.len().min(range.end + REACH_BYTES);
    let mut lines = Lines { text, place: range.end, end };
    lines.next();
    for line in lines {
        work.add(line.range.len());
        let content = &text[line.range.clone()];
        // The last line may not be whole yet.
        let open = line.range.end == text.len() && !complete;
        if is_secret_kind(content) && line.indent == indent && !open {
            return Probe::Match(range, None);
        }
        if !open && (line.indent < indent || content.starts_with(b"---") || is_key(content, b"data")) {
            return Probe::No;
        }
    }
    let decided = complete || end == range.end + REACH_BYTES;
    if decided { Probe::No } else { Probe::Open(range.start) }
}

fn is_key(content: &[u8], key: &[u8]) -> bool {
    content.strip_prefix(key).and_then(|rest| rest.strip_prefix(b":")).is_some_and(|rest| rest.trim_ascii().is_empty())
}

fn is_secret_kind(content: &[u8]) -> bool {
    let Some(value) = content.strip_prefix(b"kind:") else { return false };
    let value = value.trim_ascii();
    let bare = value.strip_prefix(b"\"").or_else(|| value.strip_prefix(b"'")).unwrap_or(value);
    bare.get(..6).is_some_and(|word| word.eq_ignore_ascii_case(b"secret")) && bare.len() <= 7
}

enum Entries {
    None,
    Whole(Range<usize>),
    Open(usize),
}

/// The lines below a key that are indented further, all of them entries with values; `from` is the end of its line.
fn entries(text: &[u8], from: usize, indent: usize, string: bool, complete: bool, work: &mut Work) -> Entries {
    let limit = text.len().min(from + MAX_ENTRIES_BYTES);
    let is_cut = limit == from + MAX_ENTRIES_BYTES;
    let mut lines = Lines { text, place: from, end: limit };
    lines.next();
    let mut range: Option<Range<usize>> = None;
    let mut valued = false;
    for line in lines {
        work.add(line.range.len() + line.indent);
        let content = &text[line.range.clone()];
        let open = line.range.end == limit && !complete && !is_cut;
        if content.is_empty() {
            if open {
                break;
            }
            continue;
        }
        if line.indent <= indent {
            return whole(range, valued);
        }
        range.get_or_insert(line.range.start..line.range.start).end = line.range.end;
        if open {
            break;
        }
        match value(content, string) {
            Some(has) => valued |= has,
            None => return Entries::None,
        }
    }
    if complete || is_cut {
        return whole(range, valued);
    }
    range.map_or(Entries::None, |range| Entries::Open(range.start))
}

fn whole(range: Option<Range<usize>>, valued: bool) -> Entries {
    range.filter(|_| valued).map_or(Entries::None, Entries::Whole)
}

/// Whether a line of entries has a value worth hiding; None when it is no such line.
fn value(content: &[u8], string: bool) -> Option<bool> {
    if content.starts_with(b"#") || string {
        return Some(string && content.len() >= MIN_VALUE_BYTES);
    }
    let name = content.iter().take_while(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-')).count();
    let value = match &content[name..] {
        [b':', value @ ..] => value.trim_ascii(),
        // A line of a block.
        _ => content.trim_ascii(),
    };
    let bare: Vec<u8> = value.iter().copied().filter(|b| !matches!(b, b'"' | b'\'')).collect();
    if bare.is_empty() || matches!(bare.as_slice(), b"|" | b">" | b"|-" | b">-") {
        return Some(false);
    }
    let is_base64 = bare.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/' | b'='));
    is_base64.then_some(bare.len() >= MIN_VALUE_BYTES)
}

/// A line without its indentation and its end.
struct Line {
    indent: usize,
    range: Range<usize>,
}

/// The lines of `text` from `place` to `end`; the first begins wherever `place` is.
struct Lines<'a> {
    text: &'a [u8],
    place: usize,
    end: usize,
}

impl Iterator for Lines<'_> {
    type Item = Line;

    fn next(&mut self) -> Option<Line> {
        if self.place >= self.end {
            return None;
        }
        let rest = &self.text[self.place..self.end];
        let length = rest.iter().position(|b| *b == b'\n').unwrap_or(rest.len());
        let line = &rest[..length];
        let indent = line.iter().take_while(|b| matches!(b, b' ' | b'\t')).count();
        let content = line[indent..].strip_suffix(b"\r").unwrap_or(&line[indent..]).len();
        let start = self.place + indent;
        self.place += length + 1;
        Some(Line { indent, range: start..start + content })
    }
}
