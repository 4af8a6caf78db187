//! The methods that look into bytes or close them: scan, redact, sign, seal, open.

use std::sync::Arc;

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use futures::future::{self, FutureExt};
use serde_json::json;

use super::{Params, Parts, Work, heavy};
use crate::{crypto, hub::backend::Answer};

pub(super) fn call(parts: &Arc<Parts>, method: &str, params: Params, payload: Bytes) -> Work {
    let parts = Arc::clone(parts);
    let size = payload.len();
    Ok(match method {
        "scan" => heavy(size, move || {
            let found = parts.scanner.scan(&payload);
            parts.findings.note("scan", &found);
            Ok(Answer::head(json!({"findings": found})))
        })
        .boxed(),
        "redact" => heavy(size, move || {
            let (clean, found) = parts.scanner.redact(&payload);
            parts.findings.note("redact", &found);
            Ok(Answer::payload(clean))
        })
        .boxed(),
        "redact_json" => {
            heavy(size, move || parts.redact_json("redact_json", payload, &[]).map(|(clean, _)| Answer::payload(clean)))
                .boxed()
        }
        "sign" => {
            let signed = parts.identity.sign(&payload).map(|signature| {
                let public = parts.identity.keypair().public().encode_protobuf();
                Answer::head(json!({"signature": STANDARD.encode(signature), "public_key": STANDARD.encode(public)}))
            });
            future::ready(signed).boxed()
        }
        "seal" => heavy(size, move || {
            crypto::seal(&parts.keys.current(), params.optional_text("role")?, &payload).map(Answer::payload)
        })
        .boxed(),
        "open" => heavy(size, move || crypto::open(&parts.keys.current(), &payload).map(Answer::payload)).boxed(),
        _ => return Err((params, payload)),
    })
}
