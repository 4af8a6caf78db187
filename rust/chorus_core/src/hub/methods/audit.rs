//! Feeds of the audit log: its entries as they come, and a verification with its progress.

use std::collections::VecDeque;

use bytes::Bytes;
use futures::future::{BoxFuture, FutureExt};
use serde_json::{Map, Value, json};
use tokio::{sync::watch, task::JoinHandle};

use super::records::numbered;
use crate::{
    Error, Result,
    hub::backend::{Feed, FeedItem, Source},
    log::{LogHandle, LogInfo, Query, Verified, Verifier},
};

/// Entries fetched at once while a reader is behind.
const PAGE_ENTRIES: u64 = 256;
/// Entries between two reports of a verification; about a tenth of a second.
const STEP_ENTRIES: u64 = 20_000;

pub(super) fn open(log: &LogHandle, method: &str, head: &Map<String, Value>) -> Result<Source> {
    if method == "log.verify" {
        return Ok(Box::new(Check { log: log.clone(), at: At::Start }));
    }
    let from = head.get("from").and_then(Value::as_u64);
    let from = from.ok_or_else(|| Error::Invalid("from: a whole number is needed".into()))?;
    let kind = match head.get("type") {
        None | Some(Value::Null) => None,
        Some(Value::String(kind)) => Some(kind.clone()),
        Some(_) => return Err(Error::Invalid("type: a string is needed".into())),
    };
    Ok(Box::new(Follow { log: log.clone(), info: log.watch(), from, kind, fetched: VecDeque::new(), failed: false }))
}

fn item(mut head: Value, payload: Bytes) -> FeedItem {
    FeedItem { gap: 0, head: head.as_object_mut().map(std::mem::take).unwrap_or_default(), payload }
}

/// The last item of a feed that cannot go on.
fn failure(error: &Error) -> FeedItem {
    item(json!({"error": {"code": error.code(), "message": error.to_string()}}), Bytes::new())
}

/// Entries from a number on, for as long as somebody reads. A reader that is slow is waited for.
struct Follow {
    log: LogHandle,
    info: watch::Receiver<LogInfo>,
    from: u64,
    kind: Option<String>,
    fetched: VecDeque<(u64, Map<String, Value>)>,
    failed: bool,
}

impl Feed for Follow {
    fn next(&mut self) -> BoxFuture<'_, Option<FeedItem>> {
        async {
            loop {
                if let Some(item) = self.ready() {
                    return Some(item);
                }
                if self.failed {
                    return None;
                }
                // Seen before the read, so that what comes after it wakes us.
                let length = self.info.borrow_and_update().length;
                if self.from >= length {
                    self.info.changed().await.ok()?;
                    continue;
                }
                let kind = self.kind.clone();
                match self
                    .log
                    .page(Query { from: Some(self.from), count: PAGE_ENTRIES, kind, newest_first: false })
                    .await
                {
                    Ok(page) => {
                        self.from = page.next;
                        self.fetched.extend(page.entries);
                    }
                    Err(Error::Closed) => return None,
                    Err(error) => {
                        self.failed = true;
                        return Some(failure(&error));
                    }
                }
            }
        }
        .boxed()
    }

    fn ready(&mut self) -> Option<FeedItem> {
        let (number, entry) = self.fetched.pop_front()?;
        Some(item(json!({"seq": number}), numbered((number, entry)).to_string().into()))
    }
}

/// A verification in steps, each asked for by the reader; what it lets go of is not gone on with.
struct Check {
    log: LogHandle,
    at: At,
}

enum At {
    Start,
    Between(Box<Verifier>),
    // Kept here and not in the future that waits for it: that one may be dropped.
    Working(JoinHandle<(Box<Verifier>, Result<bool>)>),
    End,
}

impl Feed for Check {
    fn next(&mut self) -> BoxFuture<'_, Option<FeedItem>> {
        async {
            loop {
                match &mut self.at {
                    At::Start => match self.log.verifier().await {
                        Ok(verifier) => self.at = At::Between(Box::new(verifier)),
                        Err(error) => return Some(self.end(None, Some(&error))),
                    },
                    At::Between(_) => {
                        let At::Between(mut verifier) = std::mem::replace(&mut self.at, At::End) else { return None };
                        self.at = At::Working(tokio::task::spawn_blocking(move || {
                            let step = verifier.step(STEP_ENTRIES);
                            (verifier, step)
                        }));
                    }
                    At::Working(work) => {
                        let outcome = work.await;
                        let Ok((verifier, step)) = outcome else {
                            return Some(self.end(None, Some(&Error::Internal("the verification broke off".into()))));
                        };
                        let so_far = verifier.so_far();
                        return Some(match step {
                            Ok(false) => {
                                self.at = At::Between(verifier);
                                item(
                                    json!({"kind": "progress", "checked": so_far.checked, "length": so_far.length}),
                                    Bytes::new(),
                                )
                            }
                            Ok(true) => self.end(Some(so_far), None),
                            Err(error) => self.end(Some(so_far), Some(&error)),
                        });
                    }
                    At::End => return None,
                }
            }
        }
        .boxed()
    }

    fn ready(&mut self) -> Option<FeedItem> {
        None
    }
}

impl Check {
    fn end(&mut self, so_far: Option<Verified>, error: Option<&Error>) -> FeedItem {
        self.at = At::End;
        let mut head = serde_json::to_value(so_far).ok().filter(Value::is_object).unwrap_or_else(|| json!({}));
        head["kind"] = "end".into();
        head["genuine"] = error.is_none().into();
        if let Some(error) = error {
            head["error"] = json!({"code": error.code(), "message": error.to_string()});
        }
        item(head, Bytes::new())
    }
}
