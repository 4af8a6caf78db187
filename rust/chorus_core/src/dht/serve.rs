//! The service `_dht`: what other agents ask of this agent's store. Everything they send is checked like any record.

use bytes::{Bytes, BytesMut};
use libp2p::PeerId;

use super::{
    facade::Inner,
    key::RecordKey,
    replicas::{FoundHead, GET, HeldHead, KeyHead, LACKS, LACKS_MAX, LacksHead, PUT, decode, encode},
    store::place,
};
use crate::{
    Error, Result,
    net::{Ask, Reply},
};

pub(super) async fn serve(inner: &Inner, from: PeerId, ask: Ask) -> Result<Reply> {
    let Ok(_permit) = inner.served.try_acquire() else {
        return Err(Error::Unavailable("too many requests for records are in work".into()));
    };
    let answer = tokio::select! {
        answer = answer(inner, &ask.method, &ask.head, ask.payload) => answer,
        () = inner.stop.cancelled() => Err(Error::Closed),
    };
    if matches!(answer, Err(Error::Invalid(_) | Error::Tampered(_))) {
        inner.replicas.blame(from);
    }
    answer
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
