//! The envelope that every gossip message has: read strictly but for unknown fields (kept and ignored), written one way.

use std::borrow::Cow;

use serde::{Deserialize, Serialize, de::IgnoredAny};

use super::{format_timestamp, json, parse_timestamp};
use crate::{Error, Result};

/// Largest envelope, in bytes of JSON.
pub const ENVELOPE_MAX_BYTES: usize = 256 * 1024;
/// Longest message type.
const KIND_MAX_BYTES: usize = 64;
/// Longest `from`: a peer id in any of its written forms.
const FROM_MAX_BYTES: usize = 128;
/// Longest `timestamp`: RFC 3339 with more digits than any clock has.
const TIMESTAMP_MAX_BYTES: usize = 64;
/// Longest `from_role`, `priority` and `thread_id`, which are names.
const WORD_MAX_BYTES: usize = 256;

/// What the core reads of an envelope; the whole of it goes on as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope {
    /// The message's `type`.
    pub kind: String,
    /// The peer id in `from`.
    pub from: String,
    /// `timestamp`, milliseconds since the epoch.
    pub timestamp_ms: u64,
    /// `hop_count`, 0 when absent.
    pub hop_count: u64,
}

#[derive(Deserialize)]
struct Fields<'a> {
    #[serde(rename = "type", borrow)]
    kind: Cow<'a, str>,
    #[serde(borrow)]
    from: Cow<'a, str>,
    #[serde(borrow)]
    timestamp: Cow<'a, str>,
    #[allow(dead_code, reason = "it has to be there, whatever it is")]
    data: IgnoredAny,
    hop_count: Option<u64>,
    #[serde(borrow, default)]
    from_role: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    priority: Option<Priority<'a>>,
    #[serde(borrow, default)]
    thread_id: Option<Cow<'a, str>>,
}

/// A word in the agents' messages; programs also write a task's number.
#[derive(Deserialize)]
#[serde(untagged)]
enum Priority<'a> {
    #[serde(borrow)]
    Word(Cow<'a, str>),
    Number(#[allow(dead_code, reason = "only its kind matters")] f64),
}

impl Envelope {
    /// Reads an envelope of anybody.
    ///
    /// # Errors
    /// `invalid`, saying what is beyond the bounds of JSON on the wire, or does not fit the schema.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        json::check(bytes)?;
        Self::read(bytes)
    }

    /// Reads an envelope that was checked before.
    ///
    /// # Errors
    /// `invalid`, saying what does not fit the schema.
    pub fn read(bytes: &[u8]) -> Result<Self> {
        let fields: Fields<'_> = serde_json::from_slice(bytes).map_err(|e| Error::Invalid(format!("envelope: {e}")))?;
        let word = |name, text: Option<&Cow<'_, str>>| bounded(name, text.map_or("", |text| text), WORD_MAX_BYTES);
        if fields.kind.is_empty() {
            return Err(Error::Invalid("envelope: `type` is empty".into()));
        }
        bounded("type", &fields.kind, KIND_MAX_BYTES)?;
        bounded("from", &fields.from, FROM_MAX_BYTES)?;
        bounded("timestamp", &fields.timestamp, TIMESTAMP_MAX_BYTES)?;
        word("from_role", fields.from_role.as_ref())?;
        word("thread_id", fields.thread_id.as_ref())?;
        if let Some(Priority::Word(priority)) = &fields.priority {
            word("priority", Some(priority))?;
        }
        let timestamp_ms = parse_timestamp(&fields.timestamp)
            .ok_or_else(|| Error::Invalid("envelope: `timestamp` is not RFC 3339".into()))?;
        Ok(Self {
            kind: fields.kind.into_owned(),
            from: fields.from.into_owned(),
            timestamp_ms,
            hop_count: fields.hop_count.unwrap_or(0),
        })
    }
}

fn bounded(name: &str, text: &str, max: usize) -> Result<()> {
    if text.len() > max {
        return Err(Error::Invalid(format!("envelope: `{name}` has {} bytes; the limit is {max}", text.len())));
    }
    Ok(())
}

/// What goes into a new envelope.
#[derive(Debug, Clone, Copy)]
pub struct Draft<'a> {
    /// `type`.
    pub kind: &'a str,
    /// The signer's peer id.
    pub from: &'a str,
    /// Milliseconds since the epoch.
    pub timestamp_ms: u64,
    /// JSON of `data`.
    pub data: &'a [u8],
    /// `hop_count`.
    pub hop_count: Option<u32>,
    /// `from_role`.
    pub from_role: Option<&'a str>,
    /// `priority`.
    pub priority: Option<&'a str>,
    /// `thread_id`.
    pub thread_id: Option<&'a str>,
}

impl Draft<'_> {
    /// The envelope as it goes on the wire, after the same check that its receivers make.
    ///
    /// # Errors
    /// `too_large` beyond the largest envelope; `invalid`, saying what its receivers would refuse.
    pub fn write(&self) -> Result<Vec<u8>> {
        serde_json::from_slice::<IgnoredAny>(self.data)
            .map_err(|e| Error::Invalid(format!("data is not JSON: {e}")))?;
        let mut out = Vec::with_capacity(self.data.len() + 256);
        out.extend_from_slice(b"{\"type\":");
        text(&mut out, self.kind)?;
        out.extend_from_slice(b",\"from\":");
        text(&mut out, self.from)?;
        out.extend_from_slice(b",\"timestamp\":");
        text(&mut out, &format_timestamp(self.timestamp_ms))?;
        out.extend_from_slice(b",\"data\":");
        out.extend_from_slice(self.data);
        if let Some(hops) = self.hop_count {
            out.extend_from_slice(format!(",\"hop_count\":{hops}").as_bytes());
        }
        for (name, value) in [("from_role", self.from_role), ("priority", self.priority), ("thread_id", self.thread_id)]
        {
            if let Some(value) = value {
                out.extend_from_slice(format!(",\"{name}\":").as_bytes());
                text(&mut out, value)?;
            }
        }
        out.push(b'}');
        if out.len() > ENVELOPE_MAX_BYTES {
            return Err(Error::TooLarge(format!(
                "a message of {} bytes; the limit is {ENVELOPE_MAX_BYTES}",
                out.len()
            )));
        }
        Envelope::parse(&out)?;
        Ok(out)
    }
}

fn text<T: Serialize + ?Sized>(out: &mut Vec<u8>, value: &T) -> Result<()> {
    serde_json::to_writer(out, value).map_err(|e| Error::Internal(e.to_string()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed test is a panic")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn draft(data: &[u8]) -> Draft<'_> {
        Draft {
            kind: "task_progress",
            from: "12D3KooW",
            timestamp_ms: 1_795_436_546_001,
            data,
            hop_count: Some(2),
            from_role: Some("a \"role\""),
            priority: None,
            thread_id: None,
        }
    }

    #[test]
    fn written_is_read_back() {
        let bytes = draft(br#"{"a":[1,2]}"#).write().unwrap();
        let envelope = Envelope::parse(&bytes).unwrap();
        assert_eq!(
            (envelope.kind.as_str(), envelope.hop_count, envelope.timestamp_ms),
            ("task_progress", 2, 1_795_436_546_001)
        );
        let value: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
        assert_eq!(value["from_role"], "a \"role\"");
        assert_eq!(value["timestamp"], "2026-11-23T12:22:26.001Z");
    }

    #[test]
    fn data_must_be_json_and_small_enough() {
        assert!(matches!(draft(b"{").write(), Err(Error::Invalid(_))));
        assert!(matches!(draft(b"1} ,{").write(), Err(Error::Invalid(_))));
        let large = format!("\"{}\"", "x".repeat(ENVELOPE_MAX_BYTES));
        assert!(matches!(draft(large.as_bytes()).write(), Err(Error::TooLarge(_))));
    }

    #[test]
    fn what_receivers_would_refuse_is_not_written() {
        for (data, why) in [
            (r#"{"at":{"n":9007199254740993}}"#, "data.at.n: a number beyond 2^53"),
            (r#"["\ud800"]"#, "data[0]: "),
            (r#"{"a":1,"a":2}"#, "data: `a` stands twice"),
            ("1e999", "number out of range"),
        ] {
            let error = draft(data.as_bytes()).write().unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        }
        let long = "x".repeat(WORD_MAX_BYTES + 1);
        let named: [fn(&mut Draft<'static>, &'static str); 3] = [
            |draft, text| draft.from_role = Some(text),
            |draft, text| draft.priority = Some(text),
            |draft, text| draft.thread_id = Some(text),
        ];
        for set in named {
            let mut draft = draft(b"{}");
            set(&mut draft, Box::leak(long.clone().into_boxed_str()));
            assert!(draft.write().unwrap_err().to_string().contains("the limit is 256"));
        }
    }

    #[test]
    fn unknown_fields_are_ignored_and_missing_ones_refused() {
        let good =
            r#"{"type":"x","from":"p","timestamp":"2026-11-23T12:22:26Z","data":null,"more":{"a":1},"hop_count":null}"#;
        assert!(Envelope::parse(good.as_bytes()).is_ok());
        for bad in [
            r#"{"type":"x","from":"p","timestamp":"2026-11-23T12:22:26Z"}"#,
            r#"{"type":"","from":"p","timestamp":"2026-11-23T12:22:26Z","data":1}"#,
            r#"{"type":"x","from":"p","timestamp":"yesterday","data":1}"#,
            r#"{"type":"x","from":"p","timestamp":"2026-11-23T12:22:26Z","data":1,"hop_count":-1}"#,
            r#"{"type":1,"from":"p","timestamp":"2026-11-23T12:22:26Z","data":1}"#,
            r#"{"type":"x","from":"p","timestamp":"2026-11-23T12:22:26Z","data":1,"hop_count":1e999}"#,
            r#"{"type":"x","from":"p","timestamp":"2026-11-23T12:22:26Z","data":1,"priority":[1]}"#,
            r#"{"type":"x","from":"p","timestamp":"2026-11-23T12:22:26Z","data":1,"data":1}"#,
            r#"{"type":"x","from":"p","timestamp":"2026-11-23T12:22:26Z","data":{"s":"\ud800"}}"#,
            r#"{"type":"x","from":"p","timestamp":"2026-11-23T12:22:26Z","data":1,"more":123456789012345678901}"#,
            r#"["type"]"#,
        ] {
            assert!(Envelope::parse(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_safe(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = Envelope::parse(&bytes);
        }

        #[test]
        fn any_text_data_survives(text in "\\PC{0,60}", role in "\\PC{0,20}") {
            let data = serde_json::to_vec(&text).unwrap();
            let mut draft = draft(&data);
            draft.from_role = Some(&role);
            let value: serde_json::Value = serde_json::from_slice(&draft.write().unwrap()).unwrap();
            prop_assert_eq!(value["data"].as_str().unwrap(), text);
            prop_assert_eq!(value["from_role"].as_str().unwrap(), role);
        }
    }
}
