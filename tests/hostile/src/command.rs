//! What the tests have an identity do, and what comes of it.

use std::time::{Duration, Instant};

use base64::{Engine, engine::general_purpose::STANDARD};
use futures::{AsyncReadExt, AsyncWriteExt};
use libp2p::StreamProtocol;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::identity::Identity;

/// How long an answer to a request, or the end of a stream, is waited for.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);
/// Frames of the agents' request protocol: a request, and what is read back of its answer.
const REQUEST: u8 = 1;
const ANSWER_MAX_BYTES: usize = 1024 * 1024;

/// One line of standard input. `as` is the number of the identity that acts; the first is 0.
#[derive(Deserialize)]
#[serde(tag = "do", rename_all = "snake_case", deny_unknown_fields)]
pub enum Command {
    /// Publishes bytes, so many times, as fast as they are taken; for at most `seconds` when that is given.
    Publish {
        #[serde(default)]
        r#as: usize,
        topic: String,
        data: String,
        #[serde(default = "one")]
        count: u64,
        seconds: Option<f64>,
    },
    /// Sends one request and answers with what came back.
    Request {
        #[serde(default)]
        r#as: usize,
        #[serde(default = "request_protocol")]
        protocol: String,
        service: String,
        method: String,
        head: String,
        #[serde(default)]
        payload: String,
    },
    /// Signs bytes with the identity's own key.
    Sign {
        #[serde(default)]
        r#as: usize,
        data: String,
    },
    /// Opens a stream of any protocol and writes bytes, so many times; `closed` says whether the agent ended it.
    Write {
        #[serde(default)]
        r#as: usize,
        protocol: String,
        data: String,
        #[serde(default = "one")]
        count: u64,
    },
    /// Which identities are still connected.
    Connected {},
}

fn one() -> u64 {
    1
}

fn request_protocol() -> String {
    "/chorus/request/1.0.0".into()
}

impl Command {
    /// Does it; the answer has `error` when it could not be done.
    pub async fn carry_out(self, identities: &mut [Identity]) -> Value {
        let outcome = match self {
            Self::Publish { r#as, topic, data, count, seconds } => {
                match (identities.get(r#as), STANDARD.decode(data)) {
                    (Some(identity), Ok(data)) => Ok(publish(identity, &topic, &data, count, seconds).await),
                    _ => Err("no such identity, or data is not base64".into()),
                }
            }
            Self::Request { r#as, protocol, service, method, head, payload } => {
                match (identities.get_mut(r#as), STANDARD.decode(head), STANDARD.decode(payload)) {
                    (Some(identity), Ok(head), Ok(payload)) => {
                        request(identity, protocol, &service, &method, [&head, &payload]).await
                    }
                    _ => Err("no such identity, or head or payload is not base64".into()),
                }
            }
            Self::Sign { r#as, data } => match (identities.get(r#as), STANDARD.decode(data)) {
                (Some(identity), Ok(data)) => match identity.keypair.sign(&data) {
                    Ok(signature) => Ok(json!({"signature": STANDARD.encode(signature)})),
                    Err(error) => Err(error.to_string()),
                },
                _ => Err("no such identity, or data is not base64".into()),
            },
            Self::Write { r#as, protocol, data, count } => match (identities.get_mut(r#as), STANDARD.decode(data)) {
                (Some(identity), Ok(data)) => write(identity, protocol, &data, count).await,
                _ => Err("no such identity, or data is not base64".into()),
            },
            Self::Connected {} => {
                Ok(json!({"connected": identities.iter().map(Identity::is_connected).collect::<Vec<_>>()}))
            }
        };
        outcome.unwrap_or_else(|error| json!({ "error": error }))
    }
}

async fn publish(identity: &Identity, topic: &str, data: &[u8], count: u64, seconds: Option<f64>) -> Value {
    let until = seconds.map(|seconds| Instant::now() + Duration::from_secs_f64(seconds));
    let (mut sent, mut refused, mut last) = (0u64, 0u64, None);
    while sent < count && until.is_none_or(|until| Instant::now() < until) {
        match identity.publish(topic, data.to_vec()).await {
            Ok(()) => sent += 1,
            Err(error) => {
                refused += 1;
                last = Some(error);
                if !identity.is_connected() || (until.is_none() && refused > 1000) {
                    break;
                }
                // Its own queue to the agent is full: let it drain.
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        }
    }
    json!({"sent": sent, "refused": refused, "last_error": last, "connected": identity.is_connected()})
}

async fn open(identity: &mut Identity, protocol: String) -> Result<libp2p::Stream, String> {
    let protocol = StreamProtocol::try_from_owned(protocol).map_err(|error| error.to_string())?;
    let opening = identity.streams.open_stream(identity.target, protocol);
    timeout(ANSWER_TIMEOUT, opening)
        .await
        .map_err(|_| "the stream was not opened in time")?
        .map_err(|error| format!("the stream was not opened: {error}"))
}

async fn request(
    identity: &mut Identity,
    protocol: String,
    service: &str,
    method: &str,
    [head, payload]: [&[u8]; 2],
) -> Result<Value, String> {
    let mut stream = open(identity, protocol).await?;
    let mut body = vec![REQUEST];
    body.extend_from_slice(&0u32.to_be_bytes());
    body.extend_from_slice(&10_000u32.to_be_bytes());
    for name in [service, method] {
        body.push(u8::try_from(name.len()).map_err(|_| "a name of more than 255 bytes")?);
        body.extend_from_slice(name.as_bytes());
    }
    body.extend_from_slice(&u32::try_from(head.len()).map_err(|_| "a head of more than 4 GiB")?.to_be_bytes());
    body.extend_from_slice(head);
    body.extend_from_slice(payload);
    let length = u32::try_from(body.len()).map_err(|_| "a frame of more than 4 GiB")?;
    let frame = [length.to_be_bytes().as_slice(), &body].concat();
    let exchange = async {
        stream.write_all(&frame).await?;
        stream.flush().await?;
        let mut length = [0u8; 4];
        stream.read_exact(&mut length).await?;
        let mut answer = vec![0u8; (u32::from_be_bytes(length) as usize).min(ANSWER_MAX_BYTES)];
        stream.read_exact(&mut answer).await?;
        Ok::<_, std::io::Error>(answer)
    };
    match timeout(ANSWER_TIMEOUT, exchange).await {
        Ok(Ok(answer)) => {
            let (kind, text) = (answer.first().copied().unwrap_or(0), answer.get(5..).unwrap_or_default());
            let text = if kind == 2 { text.get(4..).unwrap_or_default() } else { text };
            Ok(json!({"kind": kind, "text": String::from_utf8_lossy(text)}))
        }
        Ok(Err(error)) => Ok(json!({"closed": error.to_string()})),
        Err(_) => Err("no answer".into()),
    }
}

async fn write(identity: &mut Identity, protocol: String, data: &[u8], count: u64) -> Result<Value, String> {
    let mut stream = open(identity, protocol).await?;
    let mut written = 0u64;
    while written < count {
        match timeout(ANSWER_TIMEOUT, stream.write_all(data)).await {
            Ok(Ok(())) => written += 1,
            Ok(Err(error)) => return Ok(json!({"written": written, "closed": error.to_string()})),
            // The agent reads no more: what it holds of this peer is bounded.
            Err(_) => return Ok(json!({"written": written, "stalled": true})),
        }
    }
    if let Err(error) = stream.flush().await {
        return Ok(json!({"written": written, "closed": error.to_string()}));
    }
    Ok(json!({"written": written, "connected": identity.is_connected()}))
}
