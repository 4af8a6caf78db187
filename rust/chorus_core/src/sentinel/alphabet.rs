//! The bytes that a pattern's matches are made of. A stream tells by the first byte outside that a secret is whole.

use regex_syntax::{
    ParserBuilder,
    hir::{Class, Hir, HirKind},
};

/// A set of bytes.
pub(super) struct Alphabet([bool; 256]);

impl Alphabet {
    pub(super) fn has(&self, byte: u8) -> bool {
        self.0[usize::from(byte)]
    }
}

/// All bytes that the pattern can take.
pub(super) fn alphabet_of(pattern: &str) -> Result<Alphabet, String> {
    let hir = ParserBuilder::new().unicode(false).utf8(false).build().parse(pattern).map_err(|e| e.to_string())?;
    let mut set = [false; 256];
    collect(&hir, &mut set);
    Ok(Alphabet(set))
}

// A pattern's depth is bounded by the parser's own nest limit.
fn collect(hir: &Hir, set: &mut [bool; 256]) {
    match hir.kind() {
        HirKind::Empty | HirKind::Look(_) => {}
        HirKind::Literal(literal) => literal.0.iter().for_each(|byte| set[usize::from(*byte)] = true),
        HirKind::Class(Class::Bytes(class)) => {
            for range in class.ranges() {
                set[usize::from(range.start())..=usize::from(range.end())].fill(true);
            }
        }
        // Only patterns that switch Unicode on have these; any byte may be part of a character.
        HirKind::Class(Class::Unicode(_)) => set.fill(true),
        HirKind::Repetition(repetition) => collect(&repetition.sub, set),
        HirKind::Capture(capture) => collect(&capture.sub, set),
        HirKind::Concat(parts) | HirKind::Alternation(parts) => parts.iter().for_each(|part| collect(part, set)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn members(pattern: &str) -> Vec<u8> {
        let alphabet = alphabet_of(pattern).ok();
        (0..=255).filter(|b| alphabet.as_ref().is_some_and(|a| a.has(*b))).collect()
    }

    #[test]
    fn an_alphabet_is_what_a_pattern_can_take() {
        assert_eq!(members(r"(?:ab|[x-z]{2,}\.)+\b"), b".abxyz");
        assert_eq!(members("(?i)k(?:$|9)"), b"9Kk");
        assert_eq!(members(".").len(), 255);
        assert!(alphabet_of("(").is_err());
    }
}
