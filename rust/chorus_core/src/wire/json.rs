//! What JSON of a peer may be before anybody reads it: UTF-8, finite numbers within 2^53, bounded depth, counts and
//! lengths, and no name twice in an object, so that every reader sees the same values. Builds nothing but the names of
//! the objects that are open.

use std::{borrow::Cow, collections::HashSet, fmt};

use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

use crate::{Error, Result};

/// Arrays and objects inside each other. Readers recurse; the messages of the protocol need no more than 6.
pub const DEPTH_MAX: usize = 32;
/// Members of one object, and elements of one array: as many as a task may have inline files.
pub const COUNT_MAX: usize = 4096;
/// Values in all. A reader in Python takes some hundred bytes for each.
pub const VALUES_MAX: usize = 16_384;
/// Longest name of an object's member, in bytes: as long as a path may be.
pub const NAME_MAX_BYTES: usize = 1024;
/// Longest text, in bytes: twice the longest of the protocol, a task's description.
pub const TEXT_MAX_BYTES: usize = 128 * 1024;
/// Largest magnitude of a number: up to here every reader sees the same integer.
const NUMBER_MAX: u64 = 1 << 53;
/// Characters of each name in an error's path.
const PATH_NAME_CHARS: usize = 40;

/// Whether the bytes are one JSON value within the bounds.
///
/// # Errors
/// `invalid`, saying where in the value (`data.start_by[3]`) and what is wrong.
pub fn check(bytes: &[u8]) -> Result<()> {
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let mut walk = Walk::default();
    Value(&mut walk).deserialize(&mut reader).and_then(|()| reader.end()).map_err(|error| walk.explain(&error))
}

/// Where the walk is.
#[derive(Default)]
struct Walk {
    depth: usize,
    values: usize,
    /// The steps that lead to a fault, innermost first.
    path: Vec<Step>,
}

enum Step {
    Name(String),
    Element(usize),
}

impl Walk {
    fn value<E: de::Error>(&mut self) -> std::result::Result<(), E> {
        self.values += 1;
        if self.values > VALUES_MAX {
            return Err(E::custom(format_args!("more than {VALUES_MAX} values in all")));
        }
        Ok(())
    }

    fn enter<E: de::Error>(&mut self) -> std::result::Result<(), E> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(E::custom(format_args!("nested deeper than {DEPTH_MAX} levels")));
        }
        Ok(())
    }

    fn explain(&self, error: &serde_json::Error) -> Error {
        let mut path = String::new();
        for step in self.path.iter().rev() {
            match step {
                Step::Name(name) if path.is_empty() => path.push_str(name),
                Step::Name(name) => path.extend([".", name]),
                Step::Element(index) => path.push_str(&format!("[{index}]")),
            }
        }
        Error::Invalid(if path.is_empty() { error.to_string() } else { format!("{path}: {error}") })
    }
}

fn number<E: de::Error>(magnitude: u64) -> std::result::Result<(), E> {
    if magnitude > NUMBER_MAX { Err(E::custom("a number beyond 2^53; send it as text")) } else { Ok(()) }
}

fn text<E: de::Error>(text: &str) -> std::result::Result<(), E> {
    if text.len() > TEXT_MAX_BYTES {
        return Err(E::custom(format_args!("a text of {} bytes; the limit is {TEXT_MAX_BYTES}", text.len())));
    }
    Ok(())
}

/// Any value; only checked.
struct Value<'a>(&'a mut Walk);

impl<'de> DeserializeSeed<'de> for Value<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> std::result::Result<(), D::Error> {
        self.0.value()?;
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Value<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E: de::Error>(self) -> std::result::Result<(), E> {
        Ok(())
    }

    fn visit_bool<E: de::Error>(self, _: bool) -> std::result::Result<(), E> {
        Ok(())
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> std::result::Result<(), E> {
        number(value)
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> std::result::Result<(), E> {
        number(value.unsigned_abs())
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> std::result::Result<(), E> {
        // 2^53 has an exact f64; not a number compares as false.
        #[allow(clippy::cast_precision_loss, reason = "a power of two")]
        let within = value.abs() <= NUMBER_MAX as f64;
        number(if within { 0 } else { u64::MAX })
    }

    fn visit_str<E: de::Error>(self, value: &str) -> std::result::Result<(), E> {
        text(value)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> std::result::Result<(), A::Error> {
        let walk = self.0;
        walk.enter()?;
        let mut count = 0;
        loop {
            match seq.next_element_seed(Value(walk)) {
                Ok(Some(())) => count += 1,
                Ok(None) => break,
                Err(error) => {
                    walk.path.push(Step::Element(count));
                    return Err(error);
                }
            }
            if count > COUNT_MAX {
                return Err(de::Error::custom(format_args!("an array of more than {COUNT_MAX} elements")));
            }
        }
        walk.depth -= 1;
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<(), A::Error> {
        let walk = self.0;
        walk.enter()?;
        let mut names = HashSet::new();
        while let Some(name) = map.next_key_seed(Name)? {
            if let Err(error) = map.next_value_seed(Value(walk)) {
                walk.path.push(Step::Name(shown(&name)));
                return Err(error);
            }
            if names.len() >= COUNT_MAX {
                return Err(de::Error::custom(format_args!("an object of more than {COUNT_MAX} members")));
            }
            if names.contains(&name) {
                return Err(de::Error::custom(format_args!("`{}` stands twice in one object", shown(&name))));
            }
            names.insert(name);
        }
        walk.depth -= 1;
        Ok(())
    }
}

/// A name as an error shows it: short, on one line.
fn shown(name: &str) -> String {
    name.chars().take(PATH_NAME_CHARS).flat_map(char::escape_debug).collect()
}

/// The name of an object's member.
struct Name;

impl<'de> DeserializeSeed<'de> for Name {
    type Value = Cow<'de, str>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> std::result::Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for Name {
    type Value = Cow<'de, str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_borrowed_str<E: de::Error>(self, name: &'de str) -> std::result::Result<Self::Value, E> {
        short(name).map(Cow::Borrowed)
    }

    fn visit_str<E: de::Error>(self, name: &str) -> std::result::Result<Self::Value, E> {
        short(name).map(|name| Cow::Owned(name.to_owned()))
    }
}

fn short<E: de::Error>(name: &str) -> std::result::Result<&str, E> {
    if name.len() > NAME_MAX_BYTES {
        return Err(E::custom(format_args!("a name of {} bytes; the limit is {NAME_MAX_BYTES}", name.len())));
    }
    Ok(name)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed test is a panic")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn nested(levels: usize) -> String {
        format!("{}{}", "[".repeat(levels), "]".repeat(levels))
    }

    #[test]
    fn what_readers_would_differ_on_or_fail_at_is_refused() {
        let cases: Vec<(String, &str)> = vec![
            (r#"{"a":[0,{"b":9007199254740993}]}"#.into(), "a[1].b: a number beyond 2^53"),
            ("-9007199254740993".into(), "beyond 2^53"),
            ("18446744073709551616".into(), "beyond 2^53"),
            ("1e999".into(), "number out of range"),
            ("-1e999".into(), "number out of range"),
            ("1e300".into(), "beyond 2^53"),
            ("1".repeat(400), "number out of range"),
            ("NaN".into(), "expected"),
            ("Infinity".into(), "expected"),
            (r#"{"s":"\ud800"}"#.into(), "s: unexpected end of hex escape"),
            (r#""\udc00\ud800""#.into(), "lone"),
            (r#"{"\ud800":1}"#.into(), "hex escape"),
            (nested(DEPTH_MAX + 1), "nested deeper"),
            ("[".repeat(100_000), "nested deeper"),
            (r#"{"a":"#.repeat(2000), "nested deeper"),
            (r#"{"a":1,"b":2,"a":1}"#.into(), "`a` stands twice"),
            (r#"{"a":1,"\u0061":1}"#.into(), "`a` stands twice"),
            (format!("[{}0]", "0,".repeat(COUNT_MAX)), "more than 4096 elements"),
            (format!("{{{}}}", (0..=COUNT_MAX).map(|n| format!("\"{n}\":0")).collect::<Vec<_>>().join(",")), "members"),
            (format!("[{}[]]", format!("[{}0],", "0,".repeat(4000)).repeat(5)), "values in all"),
            (format!("{{\"{}\":0}}", "k".repeat(NAME_MAX_BYTES + 1)), "a name of 1025 bytes"),
            (format!("\"{}\"", "s".repeat(TEXT_MAX_BYTES + 1)), "a text of"),
            ("{} {}".into(), "trailing"),
            ("".into(), "EOF"),
        ];
        for (bad, why) in cases {
            let error = check(bad.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(why), "{error}: {}", &bad[..bad.len().min(60)]);
        }
        for bytes in
            [&b"\"\xff\""[..], b"\"\xc3\"", b"\"\xed\xa0\x80\"", b"{\"\xff\":1}", b"\xef\xbb\xbf1", b"\xff\xfe1\0"]
        {
            assert!(check(bytes).is_err(), "{bytes:?}");
        }
    }

    #[test]
    fn what_is_within_the_bounds_passes() {
        for good in [
            nested(DEPTH_MAX),
            r#"{"a":{"a":[1,-2.5,null,true,"\ud83d\ude00\u0000"]},"b":9007199254740992,"c":-9007199254740992}"#.into(),
            "-0.0".into(),
            "1e-400".into(),
            format!("[{}0]", "0,".repeat(COUNT_MAX - 1)),
            format!("\"{}\"", "s".repeat(TEXT_MAX_BYTES)),
        ] {
            assert!(check(good.as_bytes()).is_ok(), "{:?}", check(good.as_bytes()));
        }
    }

    /// Any JSON value, as text; numbers and escapes of every sort among them.
    fn any_json() -> impl Strategy<Value = String> {
        let leaf = prop_oneof![
            Just("null".to_owned()),
            any::<f64>().prop_map(|n| format!("{n:e}")),
            any::<i64>().prop_map(|n| n.to_string()),
            "-?[1-9][0-9]{0,40}(\\.[0-9]{1,30})?([eE][+-]?[0-9]{1,4})?",
            any::<u16>().prop_map(|n| format!("\"\\u{n:04x}\"")),
            any::<String>().prop_map(|s| serde_json::to_string(&s).unwrap_or_default()),
        ];
        leaf.prop_recursive(40, 120, 4, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(|all| format!("[{}]", all.join(","))),
                proptest::collection::vec(("[a-c]{1,2}", inner), 0..4).prop_map(|all| {
                    let members: Vec<String> = all.iter().map(|(name, value)| format!("\"{name}\":{value}")).collect();
                    format!("{{{}}}", members.join(","))
                }),
            ]
        })
    }

    fn tame(value: &serde_json::Value, depth: usize) -> bool {
        let within = |n: &serde_json::Number| n.as_f64().is_some_and(|n| n.abs() <= 9_007_199_254_740_992.0);
        match value {
            serde_json::Value::Number(n) => within(n),
            serde_json::Value::Array(all) => depth < DEPTH_MAX && all.iter().all(|value| tame(value, depth + 1)),
            serde_json::Value::Object(all) => depth < DEPTH_MAX && all.values().all(|value| tame(value, depth + 1)),
            _ => true,
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_safe(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            if check(&bytes).is_ok() {
                let value: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
                prop_assert!(tame(&value, 0));
            }
        }

        #[test]
        fn any_json_is_judged_by_its_values(json in any_json()) {
            if check(json.as_bytes()).is_ok() {
                let value: serde_json::Value = serde_json::from_str(&json).unwrap();
                prop_assert!(tame(&value, 0));
            }
        }
    }
}
