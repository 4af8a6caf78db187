//! Delivery of committed entries: in index order, none missing, as fast as their reader takes them.
//! Signatures are checked here; what entries may say is not.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use bytes::Bytes;
use raft::eraftpb::{Entry, EntryType};
use tokio::sync::watch;

use super::{
    changes,
    entry::{self, FOUND, INVALID, LEADER, View},
    shared::{Shared, Verified},
    storage::{FOUNDING_INDEX, FOUNDING_TERM},
    types::Committed,
};
use crate::{Error, Result};

/// Entries read at once.
const PAGE_BYTES: u64 = 1024 * 1024;
/// Pause after a page that could not be read.
const PAUSE: Duration = Duration::from_secs(1);

/// A reader of committed entries. It blocks its thread while it reads from disk and checks signatures.
pub struct Follower {
    shared: Arc<Shared>,
    applied: watch::Receiver<u64>,
    mesh: String,
    /// What was read and not yet taken.
    page: VecDeque<Arc<Entry>>,
    next: u64,
}

impl Follower {
    pub(super) fn new(shared: Arc<Shared>, from: u64) -> Self {
        let applied = shared.applied.watch();
        Self { shared, applied, mesh: String::new(), page: VecDeque::new(), next: from.max(FOUNDING_INDEX) }
    }

    /// The next entry, once it is committed; `None` when the log is closed. Safe to drop before it is ready.
    pub async fn recv(&mut self) -> Option<Committed> {
        loop {
            if self.shared.is_closed() {
                return None;
            }
            if let Some(entry) = self.ready() {
                return Some(entry);
            }
            let applied = *self.applied.borrow_and_update();
            if applied < self.next {
                self.applied.changed().await.ok()?;
                continue;
            }
            match self.read(applied) {
                Ok(None) => {}
                Ok(founding) => return founding,
                Err(Error::Closed) if self.shared.is_closed() => return None,
                Err(error) => {
                    // Nothing is ever skipped: the same index is read again.
                    tracing::warn!(index = self.next, %error, "cannot read committed entries");
                    std::thread::sleep(PAUSE);
                }
            }
        }
    }

    /// The next entry, if it was read already.
    pub fn ready(&mut self) -> Option<Committed> {
        let entry = self.page.pop_front()?;
        self.next = entry.index + 1;
        Some(committed(&entry, &self.mesh, &self.shared.verified))
    }

    /// Reads a page of what is there, or answers the founding entry, which stands beside the log.
    fn read(&mut self, applied: u64) -> Result<Option<Committed>> {
        let identity = self.shared.store.identity().ok_or(Error::NoMesh)?;
        if self.next == FOUNDING_INDEX {
            self.next += 1;
            return Ok(Some(founding(&identity.founding)));
        }
        let entries = self.shared.store.read(self.next, applied + 1, PAGE_BYTES)?;
        if entries.first().is_none_or(|entry| entry.index != self.next) {
            return Err(Error::Internal(format!("entry {} is not in the log", self.next)));
        }
        self.page = entries.into();
        self.mesh = identity.mesh;
        Ok(None)
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
