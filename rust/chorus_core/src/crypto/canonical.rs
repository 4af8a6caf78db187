//! Canonical JSON (RFC 8785), the only form in which JSON is hashed or signed.

use serde::{Serialize, Serializer, ser::SerializeMap};
use serde_json::{Map, Number, Value};

use crate::{Error, Result};

/// The RFC 8785 encoding of a value.
///
/// # Errors
/// `Invalid` for integers that a double cannot hold exactly: RFC 8785 writes numbers as doubles, so two different
/// values would have the same bytes and the same signature.
pub fn canonical_json(value: &Value) -> Result<Vec<u8>> {
    check_numbers(value)?;
    encode(value)
}

/// The RFC 8785 encoding of an object without one of its members.
pub(super) fn canonical_without(object: &Map<String, Value>, member: &str) -> Result<Vec<u8>> {
    for (_, value) in object.iter().filter(|(name, _)| *name != member) {
        check_numbers(value)?;
    }
    encode(&Without { object, member })
}

fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>> {
    serde_jcs::to_vec(value).map_err(|e| Error::Invalid(format!("JSON has no canonical form: {e}")))
}

struct Without<'a> {
    object: &'a Map<String, Value>,
    member: &'a str,
}

impl Serialize for Without<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for (name, value) in self.object.iter().filter(|(name, _)| *name != self.member) {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

fn check_numbers(value: &Value) -> Result<()> {
    match value {
        Value::Number(number) if !is_exact(number) => Err(Error::Invalid(format!(
            "the integer {number} is too large for JSON that is signed: send it as a string"
        ))),
        Value::Array(items) => items.iter().try_for_each(check_numbers),
        Value::Object(members) => members.values().try_for_each(check_numbers),
        _ => Ok(()),
    }
}

/// Doubles hold every integer up to this one (I-JSON, RFC 7493, section 2.2).
const MAX_EXACT_INTEGER: u64 = 1 << 53;

fn is_exact(number: &Number) -> bool {
    match (number.as_u64(), number.as_i64()) {
        (Some(n), _) => n <= MAX_EXACT_INTEGER,
        (None, Some(n)) => n.unsigned_abs() <= MAX_EXACT_INTEGER,
        (None, None) => true,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use serde_json::json;

    use super::*;

    fn text(value: &Value) -> String {
        String::from_utf8(canonical_json(value).unwrap()).unwrap()
    }

    /// RFC 8785, section 3.2.2 and 3.2.3: the sample object with its numbers, string and literals.
    #[test]
    fn agrees_with_the_rfcs_sample_object() {
        let input = r#"{
            "numbers": [333333333.33333329, 1E30, 4.50, 2e-3, 0.000000000000000000000000001],
            "string": "\u20ac$\u000F\u000aA'\u0042\u0022\u005c\\\"\/",
            "literals": [null, true, false]
        }"#;
        let value: Value = serde_json::from_str(input).unwrap();
        assert_eq!(
            text(&value),
            "{\"literals\":[null,true,false],\"numbers\":[333333333.3333333,1e+30,4.5,0.002,1e-27],\
             \"string\":\"€$\\u000f\\nA'B\\\"\\\\\\\\\\\"/\"}"
        );
    }

    /// RFC 8785, section 3.2.3: names are sorted by UTF-16 code units, not by code points.
    #[test]
    fn sorts_names_as_the_rfc_does() {
        let value = json!({
            "\u{20ac}": "Euro Sign", "\r": "Carriage Return", "\u{fb33}": "Hebrew Letter Dalet With Dagesh",
            "1": "One", "\u{1f600}": "Emoji: Grinning Face", "\u{80}": "Control", "\u{f6}": "Latin Small Letter O With Diaeresis"
        });
        let order: Vec<&str> = vec![
            "Carriage Return",
            "One",
            "Control",
            "Latin Small Letter O With Diaeresis",
            "Euro Sign",
            "Emoji: Grinning Face",
            "Hebrew Letter Dalet With Dagesh",
        ];
        let encoded = text(&value);
        let places: Vec<_> = order.iter().map(|name| encoded.find(name).unwrap()).collect();
        assert!(places.is_sorted(), "{encoded}");
    }

    /// RFC 8785, appendix B.
    #[test]
    fn writes_numbers_as_the_rfcs_table_does() {
        let table: &[(u64, &str)] = &[
            (0x0000_0000_0000_0000, "0"),
            (0x8000_0000_0000_0000, "0"),
            (0x0000_0000_0000_0001, "5e-324"),
            (0x8000_0000_0000_0001, "-5e-324"),
            (0x7fef_ffff_ffff_ffff, "1.7976931348623157e+308"),
            (0xffef_ffff_ffff_ffff, "-1.7976931348623157e+308"),
            (0x4340_0000_0000_0000, "9007199254740992"),
            (0xc340_0000_0000_0000, "-9007199254740992"),
            (0x4430_0000_0000_0000, "295147905179352830000"),
            (0x44b5_2d02_c7e1_4af5, "9.999999999999997e+22"),
            (0x44b5_2d02_c7e1_4af6, "1e+23"),
            (0x44b5_2d02_c7e1_4af7, "1.0000000000000001e+23"),
            (0x444b_1ae4_d6e2_ef4e, "999999999999999700000"),
            (0x444b_1ae4_d6e2_ef4f, "999999999999999900000"),
            (0x444b_1ae4_d6e2_ef50, "1e+21"),
            (0x3eb0_c6f7_a0b5_ed8c, "9.999999999999997e-7"),
            (0x3eb0_c6f7_a0b5_ed8d, "0.000001"),
            (0x41b3_de43_5555_5553, "333333333.3333332"),
            (0x41b3_de43_5555_5554, "333333333.33333325"),
            (0x41b3_de43_5555_5555, "333333333.3333333"),
            (0x41b3_de43_5555_5556, "333333333.3333334"),
            (0x41b3_de43_5555_5557, "333333333.33333343"),
            (0xbecb_f647_612f_3696, "-0.0000033333333333333333"),
            (0x4314_3ff3_c1cb_0959, "1424953923781206.2"),
        ];
        for (bits, expected) in table {
            assert_eq!(text(&json!(f64::from_bits(*bits))), *expected, "{bits:016x}");
        }
    }

    #[test]
    fn refuses_integers_that_a_double_cannot_hold() {
        assert_eq!(text(&json!(9_007_199_254_740_992_u64)), "9007199254740992");
        assert_eq!(text(&json!(-9_007_199_254_740_992_i64)), "-9007199254740992");
        for bad in [json!(9_007_199_254_740_993_u64), json!({"deep": [u64::MAX]}), json!(i64::MIN)] {
            assert_eq!(canonical_json(&bad).unwrap_err().code(), "invalid", "{bad}");
        }
    }

    #[test]
    fn leaves_one_member_out() {
        let value = json!({"b": {"sig": 1}, "sig": "x", "a": 2});
        let bytes = canonical_without(value.as_object().unwrap(), "sig").unwrap();
        assert_eq!(bytes, br#"{"a":2,"b":{"sig":1}}"#);
    }
}
