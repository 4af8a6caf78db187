//! Text in UTF-16 and UTF-32. What is looked for is ASCII, of which each character is a byte among zeros there: runs of
//! such bytes are scanned as the text they are, and what is found is put back into their encoding.
//!
//! No mark of an encoding is needed, and one part of a text may be in it and another not.

use std::ops::Range;

use super::{
    literals::Literals,
    scan::{Engine, Hit, Label, Sweep},
};

/// Shorter runs hold no secret together with what tells it; data is full of them.
const MIN_CHARS: usize = 8;

/// Bytes of the widest character.
pub(super) const MAX_WIDTH: usize = 4;

/// How a text's characters are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Wide {
    /// Bytes of a character: 2 or 4.
    width: usize,
    big_endian: bool,
}

impl Wide {
    /// ASCII text in place of `piece`, which begins with a character and ends behind the zeros that follow its last one.
    /// So the two orders of bytes do not differ, but for zeros that nothing follows.
    pub(super) fn encode(self, text: &str, piece: &[u8], goes_on: bool) -> Vec<u8> {
        let mut out = vec![0; text.len() * self.width];
        text.bytes().enumerate().for_each(|(index, byte)| out[index * self.width] = byte);
        // More of a secret that goes on is dropped, with the zeros that its last character lacks here.
        out.truncate(out.len() - if goes_on { 0 } else { self.lacks(piece) });
        out
    }

    /// How many zeros the last character lacks that would stand behind it with the low byte first.
    fn lacks(self, piece: &[u8]) -> usize {
        let zeros = piece.iter().rev().take(self.width - 1).take_while(|b| **b == 0).count();
        self.width - 1 - zeros
    }

    /// Where a secret stands in its text that lies at `range`.
    pub(super) fn place(self, range: &Range<u64>, piece: &[u8]) -> Range<u64> {
        if !self.big_endian {
            return range.clone();
        }
        let zeros = self.width as u64 - 1;
        range.start.saturating_sub(zeros)..range.end - (zeros - self.lacks(piece) as u64)
    }
}

/// The text of a piece in whatever encoding.
pub(super) fn narrow(piece: &[u8]) -> Vec<u8> {
    piece.iter().copied().filter(|b| *b != 0).collect()
}

/// Characters at equal distances with nothing but zeros between them.
#[derive(Debug, PartialEq, Eq)]
struct Run {
    first: usize,
    width: usize,
    chars: usize,
    /// Nothing follows that would say that it is over.
    at_end: bool,
}

impl Run {
    fn place(&self, index: usize) -> usize {
        self.first + index * self.width
    }

    fn last(&self) -> usize {
        self.place(self.chars - 1)
    }

    fn text(&self, text: &[u8]) -> Vec<u8> {
        (0..self.chars).map(|index| text[self.place(index)]).collect()
    }

    /// Characters lie aligned in most texts, which tells the order of their bytes.
    fn encoding(&self, offset: u64) -> Wide {
        let width = self.width as u64;
        Wide { width: self.width, big_endian: (offset + self.first as u64) % width == width - 1 }
    }

    /// Where the characters from one to before another lie in the text, with the zeros that follow them.
    fn range(&self, chars: Range<usize>, text: &[u8]) -> Range<usize> {
        let start = self.place(chars.start);
        if chars.end < self.chars || chars.is_empty() {
            return start.min(text.len())..self.place(chars.end).min(text.len());
        }
        let after = self.last() + 1;
        start..after + text[after..].iter().take(self.width - 1).take_while(|b| **b == 0).count()
    }

    /// The characters that lie in a range of the text.
    fn chars_in(&self, range: &Range<usize>) -> Range<usize> {
        let index = |place: usize| place.saturating_sub(self.first).div_ceil(self.width).min(self.chars);
        index(range.start)..index(range.end)
    }
}

/// All runs in the text that are worth a look.
fn runs(text: &[u8]) -> Vec<Run> {
    let mut found: Vec<Run> = Vec::new();
    let mut run: Option<Run> = None;
    let mut keep = |run: Option<Run>| found.extend(run.filter(|run| run.at_end || run.chars >= MIN_CHARS));
    let mut at = 0;
    while let Some(zero) = memchr::memchr(0, &text[at..]).map(|place| at + place) {
        let zeros = text[zero..].iter().take_while(|b| **b == 0).count();
        let end = zero + zeros;
        let at_end = end == text.len();
        let width = zeros + 1;
        let before = zero.checked_sub(1).filter(|_| width == 2 || width == MAX_WIDTH || at_end && width < MAX_WIDTH);
        match (before, &mut run) {
            (None, _) => keep(run.take()),
            (Some(char), Some(known))
                if known.last() == char && (known.width == width || at_end && width < known.width) => {}
            (Some(first), _) => {
                keep(run.take());
                // Of the last one it is not known yet how many zeros will come.
                run = Some(Run { first, width: if width == 3 { MAX_WIDTH } else { width }, chars: 1, at_end: false });
            }
        }
        if let Some(run) = &mut run {
            run.chars += usize::from(!at_end);
            run.at_end = at_end || end + 1 == text.len();
        }
        at = end;
    }
    keep(run);
    found
}

/// What stands in wide characters in the text, which begins at `offset`, added to what was found in plain ones. Gives
/// whether the first secret that is not whole is one of these.
pub(super) fn sweep(
    engine: &Engine,
    literals: &Literals,
    text: &[u8],
    offset: u64,
    complete: bool,
    path: Option<&str>,
    found: &mut Sweep,
) -> bool {
    let mut is_open = false;
    for run in runs(text) {
        let ends = complete || !run.at_end;
        if ends && run.chars < MIN_CHARS {
            continue;
        }
        let wide = run.encoding(offset);
        let narrow = run.text(text);
        let mut inner = engine.sweep_at(&narrow, ends, path, run.chars_in(&found.deaf));
        let (known, begun) = literals.look(&narrow);
        inner.hits.extend(known.into_iter().map(Hit::known));
        if !ends && narrow.len() - begun < inner.open_from {
            (inner.open_from, inner.open) = (narrow.len() - begun, None);
        }
        if inner.open_from < narrow.len() {
            let from = run.range(inner.open_from..narrow.len(), text).start;
            if from < found.open_from {
                (found.open_from, found.open, is_open) = (from, inner.open, true);
            }
        }
        for hit in inner.hits {
            let range = run.range(hit.range.clone(), text);
            // Zeros of its last character may still come.
            if !ends && hit.range.end == run.chars && hit.goes_on.is_empty() && range.start < found.open_from {
                (found.open_from, found.open, is_open) = (range.start, None, true);
            }
            let audited = run.range(hit.range.start..hit.audited, text).end;
            found.hits.push(Hit { range, audited, wide: Some(wide), ..hit });
        }
    }
    is_open
}

impl Hit {
    /// One of a task's own secrets.
    pub(super) fn known(range: Range<usize>) -> Self {
        Self { audited: range.end, range, label: Label::TASK_SECRET, goes_on: Vec::new(), wide: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_characters_at_equal_distances() {
        let found = |text: &[u8]| -> Vec<(usize, usize, usize)> {
            runs(text).into_iter().map(|run| (run.first, run.width, run.chars)).collect()
        };
        assert_eq!(found(b"plain text"), []);
        assert_eq!(found(b"a\0b\0c\0d\0e\0f\0g\0h\0"), [(0, 2, 8)]);
        assert_eq!(found(b"\0a\0b\0c\0d\0e\0f\0g\0h"), [(1, 2, 8)]);
        assert_eq!(found(b"a\0\0\0b\0\0\0c\0\0\0d\0"), [(0, 4, 4)]);
        assert_eq!(found(b"plain a\0b\0c\0d\0e\0f\0g\0h\0plain"), [(6, 2, 9)]);
        assert_eq!(found(b"a\0b\0c\0 plain"), []);
        assert_eq!(found(b"a\0b\0c\0\0\0\0\0\0"), []);
        assert_eq!(found(b"text\0"), [(3, 2, 1)]);
        assert_eq!(found(b"text\0\0"), [(3, 4, 1)]);
    }
}
