//! The methods of the replicated log.

use std::{sync::Arc, time::Duration};

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use futures::future::{self, FutureExt};
use serde_json::{Value, json};

use super::{Params, Parts, Work, params::peer};
use crate::{Error, Result, hub::backend::Answer};

/// How long a proposal may take when its caller does not say.
const PROPOSE_TIMEOUT: Duration = Duration::from_secs(15);

pub(super) fn call(parts: &Arc<Parts>, method: &str, mut params: Params, payload: Bytes) -> Work {
    let raft = parts.raft.clone();
    let nothing = |done: Result<()>| done.map(|()| Answer::default());
    Ok(match method {
        "raft.propose" => async move {
            let timeout = params.optional_number("timeout_ms")?.map_or(PROPOSE_TIMEOUT, Duration::from_millis);
            let id = params.optional_text("id")?.map(str::to_owned);
            let proposed = raft.propose(params.text("type")?, id, &payload, timeout).await?;
            Ok(Answer::head(json!({"index": proposed.index, "id": proposed.id})))
        }
        .boxed(),
        "raft.status" => {
            let status = serde_json::to_value(raft.status());
            future::ready(status.map(Answer::head).map_err(|error| Error::Internal(format!("raft.status: {error}"))))
                .boxed()
        }
        "raft.found" => async move {
            let (settings, agent) = (params.take("settings"), params.take("agent"));
            let recovers = mesh_ids(&params.take("recovers"))?;
            Ok(Answer::head(json!({"mesh": raft.found(settings, agent, recovers).await?})))
        }
        .boxed(),
        "raft.adopt" => async move {
            let founding = STANDARD
                .decode(params.text("founding")?)
                .map_err(|error| Error::Invalid(format!("founding: not base64: {error}")))?;
            let members = members(&params.take("members"))?;
            let done = raft.adopt(params.text("mesh")?, params.number("raft_id")?, founding.into(), members).await;
            nothing(done)
        }
        .boxed(),
        "raft.add" => async move {
            let body = params.take("body");
            let added = raft.add(params.peer("peer")?, body).await?;
            let founding = STANDARD.encode(&added.founding);
            Ok(Answer::head(json!({"raft_id": added.raft_id, "index": added.index, "founding": founding})))
        }
        .boxed(),
        "raft.promote" => async move { nothing(raft.promote(params.peer("peer")?).await) }.boxed(),
        "raft.demote" => async move { nothing(raft.demote(params.peer("peer")?).await) }.boxed(),
        "raft.remove" => async move {
            let reason = params.text("reason")?.to_owned();
            Ok(Answer::head(json!({"index": raft.remove(params.peer("peer")?, reason).await?})))
        }
        .boxed(),
        "raft.transfer" => async move { nothing(raft.transfer(params.peer("to")?).await) }.boxed(),
        "raft.campaign" => async move { nothing(raft.campaign().await) }.boxed(),
        "raft.read_index" => async move { Ok(Answer::head(json!({"index": raft.read_index().await?}))) }.boxed(),
        "raft.score" => {
            let score = params.0.get("score").and_then(Value::as_f64).filter(|score| (0.0..=1.0).contains(score));
            let done = score.map(|score| raft.set_score(score));
            future::ready(nothing(done.ok_or_else(|| Error::Invalid("score: a number from 0 to 1 is needed".into()))))
                .boxed()
        }
        _ => return Err((params, payload)),
    })
}

fn mesh_ids(list: &Value) -> Result<Vec<String>> {
    let wrong = || Error::Invalid("recovers: a list of mesh ids is needed".into());
    match list {
        Value::Null => Ok(Vec::new()),
        Value::Array(list) => list.iter().map(|id| id.as_str().map(str::to_owned).ok_or_else(wrong)).collect(),
        _ => Err(wrong()),
    }
}

fn members(list: &Value) -> Result<Vec<(u64, libp2p::PeerId)>> {
    let wrong = || Error::Invalid("members: a list of {raft_id, peer} is needed".into());
    match list {
        Value::Null => Ok(Vec::new()),
        Value::Array(list) => list
            .iter()
            .map(|member| {
                let raft_id = member["raft_id"].as_u64().ok_or_else(wrong)?;
                Ok((raft_id, peer(member["peer"].as_str().ok_or_else(wrong)?)?))
            })
            .collect(),
        _ => Err(wrong()),
    }
}
