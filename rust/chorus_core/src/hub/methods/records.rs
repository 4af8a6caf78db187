//! The methods of the DHT and of the audit log; what they write passes the sentinel first.

use std::{sync::Arc, time::Duration};

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use futures::future::{self, FutureExt};
use serde_json::{Map, Value, json};

use super::{Params, Parts, Work, heavy};
use crate::{
    Error,
    hub::backend::Answer,
    log::Query,
    sentinel::{Finding, Scanner},
};

/// Entries of the log in one answer; more are asked for with another call.
const MAX_LOG_ENTRIES: u64 = 1000;
/// How long providers are written or looked for.
const PROVIDER_TIMEOUT: Duration = Duration::from_secs(10);
/// The kind of value that is signed inside.
const RECORD: &str = "decision";
const SIGNATURE_BYTES: usize = 64;

pub(super) fn call(parts: &Arc<Parts>, method: &str, params: Params, payload: Bytes) -> Work {
    let parts = Arc::clone(parts);
    Ok(match method {
        "dht.put" => async move {
            let (kind, name) = (params.text("kind")?, params.text("name")?);
            let clean = Arc::clone(&parts);
            // A value is named by its hash, so a value with a secret in it cannot be mended here: its author must.
            let found = {
                let (payload, record) = (payload.clone(), kind == RECORD);
                heavy(payload.len(), move || Ok(secrets(&clean.scanner, record, &payload))).await?
            };
            if let Some(first) = found.first() {
                parts.findings.note("dht.put", &found);
                return Err(Error::Refused(format!("the value holds a secret (rule {}); redact it first", first.rule)));
            }
            let written = parts.dht.put(kind, name, &payload, params.optional_text("role")?).await?;
            Ok(Answer::head(json!({"key": written.key, "replicas": written.replicas})))
        }
        .boxed(),
        "dht.get" => async move {
            let from = params.peers("from")?;
            let value = parts.dht.get(params.text("kind")?, params.text("name")?, &from).await?;
            let head = json!({
                "author": value.author, "role": value.role, "created_at": value.created_at_ms, "version": value.version,
            });
            Ok(Answer { head, payload: value.bytes })
        }
        .boxed(),
        "dht.provide" => async move {
            parts.net.kad().provide(params.text("key")?.as_bytes(), PROVIDER_TIMEOUT).await?;
            Ok(Answer::default())
        }
        .boxed(),
        "dht.find" => async move {
            let found = parts.net.kad().find_providers(params.text("key")?.as_bytes(), PROVIDER_TIMEOUT).await?;
            let peers: Vec<_> = found.iter().map(ToString::to_string).collect();
            Ok(Answer::head(json!({"peers": peers})))
        }
        .boxed(),
        "log.append" => async move {
            let (clean, _) = parts.redact_json("log.append", payload, &[])?;
            let data: Value = serde_json::from_slice(&clean)
                .map_err(|error| Error::Invalid(format!("payload: not JSON: {error}")))?;
            let seq = parts.log.append(params.text("type")?, data, &parts.local).await?;
            Ok(Answer::head(json!({"seq": seq})))
        }
        .boxed(),
        "log.read" => async move {
            let query = Query {
                from: params.optional_number("from")?,
                count: params.number("count")?.min(MAX_LOG_ENTRIES),
                kind: params.optional_text("type")?.map(str::to_owned),
                newest_first: match params.optional_text("order")? {
                    None | Some("oldest") => false,
                    Some("newest") => true,
                    Some(_) => return Err(Error::Invalid("order: `oldest` or `newest`".into())),
                },
            };
            let page = parts.log.page(query).await?;
            let entries: Vec<_> = page.entries.into_iter().map(numbered).collect();
            let head = json!({"next": page.next, "length": page.length});
            Ok(Answer { head, payload: Value::Array(entries).to_string().into() })
        }
        .boxed(),
        "log.info" => {
            let info = serde_json::to_value(parts.log.info());
            future::ready(info.map(Answer::head).map_err(|error| Error::Internal(format!("log.info: {error}")))).boxed()
        }
        _ => return Err((params, payload)),
    })
}

/// An entry of the log with its number in it.
pub(super) fn numbered((number, mut entry): (u64, Map<String, Value>)) -> Value {
    entry.insert("seq".into(), number.into());
    Value::Object(entry)
}

/// What is secret in a value. A record is judged text by text, as its author redacted it, and but for its signature:
/// among many random characters some look like a token, and no author could redact those.
fn secrets(scanner: &Scanner, record: bool, value: &[u8]) -> Vec<Finding> {
    match serde_json::from_slice(value) {
        Ok(Value::Object(mut fields)) if record => {
            if fields.get("sig").and_then(Value::as_str).is_some_and(is_signature) {
                fields.remove("sig");
            }
            scanner.redact_json(&mut Value::Object(fields))
        }
        _ => scanner.scan(value),
    }
}

fn is_signature(text: &str) -> bool {
    STANDARD.decode(text).is_ok_and(|bytes| bytes.len() == SIGNATURE_BYTES)
}
