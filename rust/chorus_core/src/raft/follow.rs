//! Delivery of committed entries, each follower on a thread of its own: in index order, none
//! missing, as fast as its reader takes them. Signatures are checked here; what entries may say is not.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use raft::eraftpb::{Entry, EntryType};
use tokio::sync::mpsc;

use super::{
    changes,
    entry::{self, FOUND, INVALID, LEADER, View},
    shared::{Shared, Verified},
    storage::{FOUNDING_INDEX, FOUNDING_TERM},
    types::Committed,
};
use crate::{Error, Result};

/// Entries that wait for a slow reader.
const QUEUE: usize = 256;
/// Entries read from disk at once.
const PAGE_BYTES: u64 = 1024 * 1024;
/// How long a follower waits before it looks whether its reader is still there.
const PATIENCE: Duration = Duration::from_secs(1);

pub(super) fn start(shared: Arc<Shared>, from: u64) -> mpsc::Receiver<Committed> {
    let (sender, receiver) = mpsc::channel(QUEUE);
    let follower = Follower { shared, sender, next: from.max(FOUNDING_INDEX) };
    let started = std::thread::Builder::new().name("raft-follow".into()).spawn(move || follower.run());
    if let Err(error) = started {
        // The reader sees the end of its queue and asks anew.
        tracing::error!(%error, "cannot start a thread that delivers committed entries");
    }
    receiver
}

struct Follower {
    shared: Arc<Shared>,
    sender: mpsc::Sender<Committed>,
    next: u64,
}

impl Follower {
    fn run(mut self) {
        while !self.sender.is_closed() && !self.shared.is_closed() {
            if self.shared.applied.wait_past(self.next - 1, PATIENCE) < self.next {
                continue;
            }
            match self.page() {
                Ok(true) => {}
                Ok(false) => return,
                Err(Error::Closed) if self.shared.is_closed() => return,
                Err(error) => {
                    // Nothing is ever skipped: the same index is read again.
                    tracing::warn!(index = self.next, %error, "cannot read committed entries");
                    std::thread::sleep(PATIENCE);
                }
            }
        }
    }

    /// Delivers what is there; says whether the reader still is.
    fn page(&mut self) -> Result<bool> {
        let applied = self.shared.applied.get();
        let Some(identity) = self.shared.store.identity() else {
            return Err(Error::NoMesh);
        };
        if self.next == FOUNDING_INDEX && !self.deliver(founding(&identity.founding)) {
            return Ok(false);
        }
        if self.next > applied {
            return Ok(true);
        }
        let entries = self.shared.store.read(self.next, applied + 1, PAGE_BYTES)?;
        if entries.first().is_none_or(|entry| entry.index != self.next) {
            return Err(Error::Internal(format!("entry {} is not in the log", self.next)));
        }
        for entry in entries {
            if !self.deliver(committed(&entry, &identity.mesh, &self.shared.verified)) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn deliver(&mut self, committed: Committed) -> bool {
        self.next = committed.index + 1;
        self.sender.blocking_send(committed).is_ok()
    }
}

pub(super) fn founding(stamped: &[u8]) -> Committed {
    let (stamp, bytes) = entry::unstamp(stamped).unwrap_or_default();
    let read = entry::parse(bytes).and_then(|view| view.verify().map(|_| view));
    deliverable(FOUNDING_INDEX, FOUNDING_TERM, stamp, read)
}

/// What a log entry says, after every check that needs no table.
pub(super) fn committed(entry: &Entry, mesh: &str, verified: &Verified) -> Committed {
    if entry.entry_type == EntryType::EntryNormal as i32 {
        if entry.data.is_empty() {
            return blank(entry.index, entry.term, 0, "", None);
        }
        let Some((stamp, bytes)) = entry::unstamp(&entry.data) else {
            return blank(entry.index, entry.term, 0, INVALID, Some("no stamp".into()));
        };
        let read = entry::parse(bytes).and_then(|view| {
            check_proposal(&view, mesh, entry.term)?;
            if !verified.contains(bytes) {
                view.verify()?;
                verified.insert(bytes);
            }
            Ok(view)
        });
        return deliverable(entry.index, entry.term, stamp, read);
    }
    match changes::context(entry) {
        Ok(context) => {
            let read = changes::read(entry, &context, mesh).map(|change| change.view);
            let stamp = entry::unstamp(&context).map_or(0, |(stamp, _)| stamp);
            deliverable(entry.index, entry.term, stamp, read)
        }
        Err(error) => blank(entry.index, entry.term, 0, INVALID, Some(error.to_string())),
    }
}

fn check_proposal(view: &View<'_>, mesh: &str, term: u64) -> Result<()> {
    if view.mesh != mesh {
        return Err(Error::Refused(format!("of mesh {}", view.mesh)));
    }
    if view.kind == LEADER {
        if view.body_json().get("term").and_then(serde_json::Value::as_u64) != Some(term) {
            return Err(Error::Refused("names another term than its own".into()));
        }
    } else if entry::is_reserved(view.kind) {
        return Err(Error::NotPermitted(format!("{:?} entries are not proposed", view.kind)));
    }
    Ok(())
}

fn deliverable(index: u64, term: u64, stamp: u64, read: Result<View<'_>>) -> Committed {
    match read {
        Ok(view) => Committed {
            index,
            term,
            stamp,
            kind: view.kind.to_owned(),
            id: view.id.to_owned(),
            author: view.author.to_owned(),
            seen: view.seen,
            body: Bytes::copy_from_slice(view.body.as_bytes()),
            reason: None,
        },
        Err(error) => blank(index, term, stamp, INVALID, Some(error.to_string())),
    }
}

fn blank(index: u64, term: u64, stamp: u64, kind: &str, reason: Option<String>) -> Committed {
    Committed {
        index,
        term,
        stamp,
        kind: kind.to_owned(),
        id: String::new(),
        author: String::new(),
        seen: 0,
        body: Bytes::new(),
        reason,
    }
}

/// The founding entry's body, for status and settings.
pub(super) fn founding_body(stamped: &[u8]) -> Result<serde_json::Value> {
    let (_, bytes) = entry::unstamp(stamped).ok_or_else(|| Error::Invalid("founding: no stamp".into()))?;
    let view = entry::parse(bytes)?;
    if view.kind != FOUND {
        return Err(Error::Invalid("founding: not a founding entry".into()));
    }
    Ok(view.body_json())
}
