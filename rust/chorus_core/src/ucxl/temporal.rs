//! Which of the versions at a place an address means. Versions are numbered from 1 without gaps.

use std::fmt;

use super::error::{Fault, Field};

const FORMS: &str = "must be `*^`, `*~`, `*~N`, `~~N` or `^^N` with N from 0 to 4294967295, without leading zeros";

/// A point in the history of a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Temporal {
    /// `*^`: the latest version.
    Latest,
    /// `*~`: every version; only for patterns.
    Any,
    /// `*~N`: version N.
    Version(u32),
    /// `~~N`: N versions before the latest.
    Back(u32),
    /// `^^N`: N versions after the first.
    Forward(u32),
}

impl Temporal {
    pub(super) fn parse(text: &str) -> Result<Self, Fault> {
        let of = |make: fn(u32) -> Self, digits: &str| number(digits).map(make);
        let known = match text.as_bytes() {
            b"*^" => Some(Self::Latest),
            b"*~" => Some(Self::Any),
            [b'*', b'~', ..] => of(Self::Version, &text[2..]),
            [b'~', b'~', ..] => of(Self::Back, &text[2..]),
            [b'^', b'^', ..] => of(Self::Forward, &text[2..]),
            _ => None,
        };
        known.ok_or_else(|| Fault::new(Field::Temporal, FORMS))
    }

    pub(super) fn resolve(self, latest: u32) -> Result<u32, Fault> {
        let version = match self {
            Self::Any => return Err(Fault::new(Field::Temporal, "`*~` means every version; name one")),
            Self::Latest => Some(latest),
            Self::Version(n) => Some(n),
            Self::Back(n) => latest.checked_sub(n),
            Self::Forward(n) => n.checked_add(1),
        };
        version.filter(|version| (1..=latest).contains(version)).ok_or_else(|| {
            let there = match latest {
                0 => "there is no version yet".to_owned(),
                1 => "there is only version 1".to_owned(),
                _ => format!("there are versions 1 to {latest}"),
            };
            Fault::new(Field::Temporal, format!("`{self}` is past the ends: {there}"))
        })
    }
}

impl fmt::Display for Temporal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Latest => f.write_str("*^"),
            Self::Any => f.write_str("*~"),
            Self::Version(n) => write!(f, "*~{n}"),
            Self::Back(n) => write!(f, "~~{n}"),
            Self::Forward(n) => write!(f, "^^{n}"),
        }
    }
}

/// A number as it is written in one way only: no sign, no leading zeros.
fn number(digits: &str) -> Option<u32> {
    let one_way = digits == "0" || digits.as_bytes().first().is_some_and(|first| matches!(first, b'1'..=b'9'));
    if one_way { digits.parse().ok() } else { None }
}
