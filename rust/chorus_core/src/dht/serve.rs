//! The service `_dht`: what other agents ask of this agent's store. Everything they send is checked like any record.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use super::{
    facade::Inner,
    key::RecordKey,
    replicas::{FoundHead, GET, HeldHead, KeyHead, LACKS, LACKS_MAX, LacksHead, PUT, decode, encode},
    store::place,
};
use crate::{
    Error, Result,
    net::{IncomingRequest, Reply},
};

pub(super) fn serve(inner: &Arc<Inner>, request: IncomingRequest) {
    let IncomingRequest { peer, method, head, payload, mut reply, .. } = request;
    let Ok(permit) = inner.served.clone().try_acquire_owned() else {
        let _ = reply.send(Err(Error::Unavailable("too many requests for records are in work".into())));
        return;
    };
    let (inner, stop) = (Arc::downgrade(inner), inner.stop.clone());
    tokio::spawn(async move {
        let work = async {
            let inner = inner.upgrade().ok_or(Error::Closed)?;
            let answer = answer(&inner, &method, &head, payload).await;
            if matches!(answer, Err(Error::Invalid(_) | Error::Tampered(_))) {
                inner.replicas.blame(peer);
            }
            answer
        };
        let answer = tokio::select! {
            answer = work => answer,
            () = reply.closed() => return,
            () = stop.cancelled() => Err(Error::Closed),
        };
        let _ = reply.send(answer);
        drop(permit);
    });
}

async fn answer(inner: &Inner, method: &str, head: &[u8], payload: Bytes) -> Result<Reply> {
    match method {
        GET => {
            let key = known(head)?;
            let records = inner.store.get(key.to_string().as_bytes());
            let head = encode(&FoundHead { records: records.iter().map(Bytes::len).collect() })?;
            let payload = records.iter().fold(BytesMut::new(), |mut all, record| {
                all.extend_from_slice(record);
                all
            });
            Ok(Reply { head, payload: payload.freeze() })
        }
        PUT => {
            let key = known(head)?;
            inner.store.keep(key.to_string().as_bytes(), payload).await?;
            Ok(Reply::default())
        }
        LACKS => {
            let held = decode::<HeldHead>(head)?.records;
            if held.len() > LACKS_MAX {
                return Err(Error::TooLarge(format!(
                    "{} records; at most {LACKS_MAX} are compared at once",
                    held.len()
                )));
            }
            let places = held
                .into_iter()
                .map(|held| (place(held.key.as_bytes(), &held.author, held.role.as_deref()), held.version));
            let lacks = inner.store.lacks(&places.collect::<Vec<_>>())?;
            Ok(Reply { head: encode(&LacksHead { lacks })?, payload: Bytes::new() })
        }
        other => Err(Error::Invalid(format!("no method {:?}", other.chars().take(40).collect::<String>()))),
    }
}

fn known(head: &[u8]) -> Result<RecordKey> {
    RecordKey::parse(decode::<KeyHead>(head)?.key.as_bytes())
}
