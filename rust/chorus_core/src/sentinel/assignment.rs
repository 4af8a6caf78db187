//! From a name to the value it is given, in the forms that configuration and programs have: `NAME=v`, `name: "v"`,
//! `"name": "v"`, `name := v`, `name => v`, `set("NAME", "v")`, `<name>v</name>`, `--name v`, `let name: str = "v"`,
//! and, loosely, in sentences: `the name is v`.
//! Written by hand because it is asked at every `token` and `key` of a text.

use std::ops::Range;

use super::probe::Work;

/// A name may go on after its keyword for so many bytes.
const NAME_REST_BYTES: usize = 40;

/// Blanks around an operator.
const BLANKS_MAX: usize = 24;

/// Backslashes before a quote in a string of a string of a string.
const ESCAPES_MAX: usize = 7;

/// A declared type between a name and its value.
const TYPE_BYTES: usize = 24;

/// What the keyword is to the name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Name {
    /// A word of it, such as `token` in `API_TOKEN`: not the beginning of another word, `tokenizer`.
    Word,
    /// A word of it that also begins one: the name of a service.
    Service,
    /// Any part of it.
    Part,
}

/// Where a value begins, the quote it stands in, and where its name is.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Given {
    pub(super) start: usize,
    pub(super) quote: Option<u8>,
    pub(super) name: Range<usize>,
    pub(super) bond: Bond,
}

/// How closely a value belongs to its name: the less, the more it must tell by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Bond {
    /// An operator gives it.
    Given,
    /// It is an argument of what is called so, or of a call whose first argument is the name.
    Argument,
    /// It only follows.
    Loose,
}

impl Given {
    /// A value without a name.
    pub(super) fn to_nobody(start: usize) -> Self {
        Self { start, quote: None, name: 0..0, bond: Bond::Given }
    }
}

/// The value given to the name that `keyword` is in; None when nothing is given to it within `text`.
pub(super) fn value(text: &[u8], keyword: Range<usize>, name: Name, work: &mut Work) -> Option<Given> {
    let mut reader = Reader { text, place: keyword.end };
    let given = reader.read(&keyword, name);
    work.add(reader.place - keyword.start);
    given
}

struct Reader<'a> {
    text: &'a [u8],
    place: usize,
}

impl Reader<'_> {
    fn read(&mut self, keyword: &Range<usize>, name: Name) -> Option<Given> {
        if name != Name::Part && !self.word_ends(keyword) || name == Name::Service && !self.word_begins(keyword) {
            return None;
        }
        let before = &self.text[keyword.start.saturating_sub(NAME_REST_BYTES)..keyword.start];
        let begin = keyword.start
            - before.iter().rev().take_while(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-')).count();
        // `Module::Name` is the name of a thing, not of a value.
        if self.text[..begin].ends_with(b"::") {
            return None;
        }
        self.skip(NAME_REST_BYTES, |b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'));
        let name_end = self.place;
        let around = self.text[..begin].last().copied().filter(is_quote);
        let closed = self.close();
        let blanks = self.blanks();
        let mut bond = if self.peek() == Some(b'(') { Bond::Argument } else { Bond::Given };
        if self.peek() == Some(b',') {
            // What comes next in a list is seldom given to what was before; the second argument of a call is.
            if !closed || !self.quoted_argument() {
                return None;
            }
            bond = if is_first_of_call(&self.text[..begin]) { Bond::Argument } else { Bond::Loose };
        } else if !self.operator(closed) {
            let follows = blanks > 0 && !closed;
            if follows && !self.text[begin..].starts_with(b"--") {
                bond = Bond::Loose;
                self.verb();
            } else if !follows && !self.value_line() {
                return None;
            }
        }
        // `"password:"` is a text that ends there.
        let ends = |b: &u8| b.is_ascii_whitespace() || matches!(b, b',' | b')' | b']' | b'}' | b';');
        if around.is_some() && !closed && self.peek() == around && self.rest().get(1).is_none_or(ends) {
            return None;
        }
        let (start, quote) = self.open();
        Some(Given { start, quote, name: begin..name_end, bond })
    }

    fn peek(&self) -> Option<u8> {
        self.text.get(self.place).copied()
    }

    fn rest(&self) -> &[u8] {
        &self.text[self.place..]
    }

    fn skip(&mut self, most: usize, fits: impl Fn(u8) -> bool) -> usize {
        let length = self.rest().iter().take(most).take_while(|b| fits(**b)).count();
        self.place += length;
        length
    }

    /// Past the quotes and brackets that a name ends with.
    fn close(&mut self) -> bool {
        let begin = self.place;
        for _ in 0..4 {
            let escapes = self.escapes();
            match self.rest().get(escapes) {
                Some(b'"' | b'\'' | b'`') => self.place += escapes + 1,
                Some(b']' | b')') if escapes == 0 => self.place += 1,
                _ => break,
            }
        }
        self.place > begin
    }

    fn blanks(&mut self) -> usize {
        self.skip(BLANKS_MAX, |b| matches!(b, b' ' | b'\t'))
    }

    fn take(&mut self, what: &[u8]) -> bool {
        let found = self.rest().starts_with(what);
        if found {
            self.place += what.len();
        }
        found
    }

    /// Whether the keyword's word ends with it: `tokens`, `tokenValue`, `token_2`, but not `tokenizer` or `TOKENIZER`.
    fn word_ends(&self, keyword: &Range<usize>) -> bool {
        let last = self.text[keyword.end - 1];
        let [first, second] = [self.peek(), self.text.get(self.place + 1).copied()];
        match first {
            Some(b's' | b'S') if !second.is_some_and(|b| b.is_ascii_alphabetic()) => true,
            Some(b) if b.is_ascii_lowercase() => !last.is_ascii_alphabetic(),
            Some(b) if b.is_ascii_uppercase() => !last.is_ascii_uppercase(),
            _ => true,
        }
    }

    /// Whether a word begins with the keyword: `my_okta`, `myOkta`, but not `rookta`.
    fn word_begins(&self, keyword: &Range<usize>) -> bool {
        match self.text[..keyword.start].last() {
            Some(b) if b.is_ascii_alphabetic() => {
                b.is_ascii_lowercase() && self.text[keyword.start].is_ascii_uppercase()
            }
            _ => true,
        }
    }

    /// The sign by which a value is given.
    fn operator(&mut self, closed: bool) -> bool {
        const SIGNS: [&[u8]; 9] = [b"?=", b".=", b"+=", b"||=", b"??=", b"||", b"|", b"->", b"=>"];
        if SIGNS.iter().any(|sign| self.take(sign)) {
            return true;
        }
        match self.peek() {
            Some(b'=') => self.skip(3, |b| matches!(b, b'=' | b'>' | b'~')) > 0,
            Some(b':') => {
                self.skip(3, |b| b == b':');
                if !self.take(b"=") {
                    self.declared_type();
                }
                true
            }
            Some(b'>') => self.skip(1, |_| true) > 0,
            Some(b'-') => matches!(self.rest(), [_, b' ', b'"' | b'\'' | b'`', ..]) && self.take(b"-"),
            Some(b'(') if !closed => {
                let quoted = self.rest().get(1).is_some_and(is_quote);
                quoted && self.skip(1, |_| true) > 0
            }
            Some(b) if b.is_ascii_alphabetic() && !closed => self.declared_type(),
            _ => false,
        }
    }

    /// The comma before an argument that is a string.
    fn quoted_argument(&mut self) -> bool {
        let blanks = self.rest()[1..].iter().take(BLANKS_MAX).take_while(|b| b.is_ascii_whitespace()).count();
        let quoted = self.rest().get(1 + blanks).is_some_and(|b| matches!(b, b'"' | b'\'' | b'`' | b'\\'));
        self.place += 1;
        quoted
    }

    /// What a sentence has between a name and its value.
    fn verb(&mut self) {
        if self.take(b"is ") || self.take(b"was ") {
            self.skip(1, |b| b == b':');
        }
    }

    /// A type and the `=` after it, if that is what follows.
    fn declared_type(&mut self) -> bool {
        let begin = self.place;
        self.blanks();
        // Letters alone: nothing that could itself be a secret.
        let length =
            self.skip(TYPE_BYTES, |b| b.is_ascii_alphabetic() || matches!(b, b'<' | b'>' | b'[' | b']' | b'&'));
        self.blanks();
        if length > 0 && self.take(b"=") && self.peek() != Some(b'=') {
            return true;
        }
        self.place = begin;
        false
    }

    /// `name: X_TOKEN` and on the next line `value: …`, as lists of variables have it.
    fn value_line(&mut self) -> bool {
        if !self.line_end() {
            return false;
        }
        self.blanks();
        self.skip(1, |b| b == b'"');
        if !self.take(b"value") {
            return false;
        }
        self.skip(1, |b| b == b'"');
        self.blanks();
        self.take(b":") || self.take(b"=")
    }

    /// The end of a line, as it is or as strings write it.
    fn line_end(&mut self) -> bool {
        let escapes = self.escapes();
        if escapes == 0 {
            return self.take(b"\r\n") || self.take(b"\n");
        }
        let is_end = matches!(self.rest().get(escapes), Some(b'n' | b'r'));
        if is_end {
            self.place += escapes + 1;
            let more = self.escapes();
            if more > 0 && self.rest().get(more) == Some(&b'n') {
                self.place += more + 1;
            }
        }
        is_end
    }

    fn escapes(&self) -> usize {
        self.rest().iter().take(ESCAPES_MAX).take_while(|b| **b == b'\\').count()
    }

    /// Goes to the first byte of the value: past blanks, a line end where one may stand, quotes and brackets.
    fn open(&mut self) -> (usize, Option<u8>) {
        self.blanks();
        if matches!(self.peek(), Some(b'|' | b'>')) {
            self.skip(1, |_| true);
            self.skip(1, |b| matches!(b, b'-' | b'+'));
        }
        if self.line_end() {
            self.blanks();
        }
        let mut quote = None;
        for _ in 0..4 {
            match (self.peek(), self.rest().get(1)) {
                (Some(sign @ (b'"' | b'\'' | b'`')), _) => {
                    quote = Some(sign);
                    self.place += 1;
                }
                (Some(b'\\'), _) if matches!(self.rest().get(self.escapes()), Some(b'"' | b'\'')) => {
                    self.place += self.escapes();
                }
                (Some(b'[' | b'(' | b'{'), Some(b'"' | b'\'' | b'\\')) => self.place += 1,
                (Some(b'b' | b'r' | b'f' | b'u' | b'@' | b'L'), Some(b'"' | b'\'')) => self.place += 1,
                _ => break,
            }
        }
        if self.rest().get(..7).is_some_and(|word| word.eq_ignore_ascii_case(b"bearer ")) {
            self.place += 7;
        }
        (self.place, quote)
    }
}

fn is_quote(byte: &u8) -> bool {
    matches!(byte, b'"' | b'\'' | b'`')
}

/// Whether what begins after `before` is the first argument of a call.
fn is_first_of_call(before: &[u8]) -> bool {
    let quotes = before.iter().rev().take(2).take_while(|b| matches!(b, b'"' | b'\'' | b'`' | b'\\')).count();
    before[..before.len() - quotes].ends_with(b"(")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn given(text: &str) -> Option<(&str, Option<u8>)> {
        let begin = text.to_ascii_lowercase().find("token")?;
        let given = value(text.as_bytes(), begin..begin + 5, Name::Word, &mut Work::default())?;
        assert!(given.bond != Bond::Loose, "{text:?}");
        Some((&text[given.start..], given.quote))
    }

    #[test]
    fn a_sentence_gives_loosely() {
        for text in ["the token is v", "token v", "its token was v", "[\"token\", \"v"] {
            let begin = text.find("token").unwrap();
            let given = value(text.as_bytes(), begin..begin + 5, Name::Word, &mut Work::default()).unwrap();
            assert_eq!(given.bond, Bond::Loose, "{text:?}");
            assert_eq!(&text[given.start..], "v", "{text:?}");
        }
    }

    #[test]
    fn values_are_found_in_many_forms() {
        for text in [
            "TOKEN=v",
            "token: v",
            "API_TOKEN_2 = v",
            "tokens:\tv",
            "$token .= v",
            "token => v",
            "TOKEN ?= v",
            "token ::= v",
            "token :::= v",
            "token: str = v",
            "token string = v",
            "--token v",
            "<token>\n  v",
            "| token | v",
            "token: |\n  v",
            "- name: TOKEN\n  value: v",
            "os.environ[TOKEN] = v",
            "token: Bearer v",
        ] {
            assert_eq!(given(text), Some(("v", None)), "{text:?}");
        }
        for text in [
            "token='v",
            "\"token\": 'v",
            "set('TOKEN', 'v",
            "token = b'v",
            "x.setToken('v",
            "token = ['v",
            "token - 'v",
        ] {
            assert_eq!(given(text), Some(("v", Some(b'\''))), "{text:?}");
        }
        for text in
            [r#"{\"token\":\"v"#, r#"{\\\"token\\\": \\\"v"#, r#"token:\n  \"v"#, r#"- name: TOKEN\r\n  value: \"v"#]
        {
            assert_eq!(given(text), Some(("v", Some(b'"'))), "{text:?}");
        }
    }

    #[test]
    fn other_words_and_other_sentences_give_nothing() {
        for text in ["tokenizer = v", "TOKENIZER=v", "token", "token()", "token; v", "'token', v", "'token:', v"] {
            assert_eq!(given(text), None, "{text:?}");
        }
    }
}
