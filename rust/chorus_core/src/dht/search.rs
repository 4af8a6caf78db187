//! One search for a record: what holders gave is judged here, and remembered for the answer and for repairs. No I/O but
//! opening.

use std::collections::HashSet;

use bytes::Bytes;
use libp2p::PeerId;
use sha2::{Digest, Sha256};

use super::{
    Sealer,
    key::{RecordKey, content_hash},
    record::{self, Checked, Header},
};
use crate::{Error, Result};

/// A record that was found good.
#[derive(Debug, Clone)]
pub(super) struct Found {
    /// Its header.
    pub header: Header,
    /// The record itself, for replicas that lack it.
    pub record: Bytes,
    /// What was sealed: the value, or its manifest.
    pub plain: Bytes,
}

/// What a search has learnt so far.
#[derive(Debug, Default)]
pub(super) struct Search {
    /// Records that were looked at and turned out wrong or shut.
    seen: HashSet<[u8; 32]>,
    /// Who lacks the record, or has a wrong or older one.
    pub wanting: Vec<PeerId>,
    /// Records that were refused.
    pub refused: u64,
    tampered: Option<Error>,
    shut: Option<Error>,
    late: Option<Error>,
}

impl Search {
    /// Takes the first sound record of a holder whose content can be opened and is what its name says.
    pub fn first(&mut self, key: &RecordKey, records: Vec<Bytes>, sealer: &dyn Sealer, now_ms: u64) -> Option<Found> {
        for record in records {
            let Some(checked) = self.check(key, &record, now_ms) else { continue };
            match open(key, &checked, &record, sealer) {
                Ok(plain) => return Some(Found { header: checked.header, record, plain }),
                Err(error) => self.reject(&record, error),
            }
        }
        None
    }

    /// A record that is what it says of itself, not looked at before.
    pub fn check(&mut self, key: &RecordKey, record: &Bytes, now_ms: u64) -> Option<Checked> {
        if self.seen.contains(&digest(record)) {
            return None;
        }
        match record::check(key.to_string().as_bytes(), record, now_ms) {
            Ok(checked) => Some(checked),
            // Its time is over: as good as not there.
            Err(Error::Refused(_)) => None,
            Err(error) => {
                self.reject(record, error);
                None
            }
        }
    }

    /// Never takes this record again, and says why in the end.
    pub fn reject(&mut self, record: &Bytes, error: Error) {
        self.seen.insert(digest(record));
        match error {
            Error::NotPermitted(_) => self.shut = Some(error),
            Error::Timeout(_) => self.late = Some(error),
            error => {
                self.refused += 1;
                self.tampered = Some(error);
            }
        }
    }

    /// A holder did not answer.
    pub fn unanswered(&mut self, error: Error) {
        match error {
            // It answered with something that cannot be.
            Error::Tampered(_) | Error::Invalid(_) | Error::TooLarge(_) => {
                self.refused += 1;
                self.tampered = Some(Error::Tampered(error.to_string()));
            }
            Error::Timeout(_) => self.late = Some(error),
            _ => {}
        }
    }

    /// What to say when nothing good was found.
    pub fn failure(&mut self, key: &RecordKey) -> Error {
        let shut = self.shut.take();
        let late = self.late.take();
        match self.tampered.take() {
            _ if shut.is_some() => shut,
            Some(Error::Tampered(why)) => Some(Error::Tampered(format!("every replica of {key} was refused: {why}"))),
            Some(other) => Some(Error::Tampered(format!("every replica of {key} was refused: {other}"))),
            None => late.map(|late| Error::Timeout(format!("{key} was not found in time: {late}"))),
        }
        .unwrap_or_else(|| Error::NotFound(key.to_string()))
    }
}

/// Opens a checked record. A value in one record must be what its author signed; a manifest is judged by its blocks.
pub(super) fn open(key: &RecordKey, checked: &Checked, record: &[u8], sealer: &dyn Sealer) -> Result<Bytes> {
    let plain = sealer.open(checked.sealed(record)).map_err(|error| match error {
        Error::NotPermitted(why) => {
            let role = checked.header.role.as_deref().unwrap_or("every member");
            Error::NotPermitted(format!("{key} is sealed for {role}: {why}"))
        }
        other => other,
    })?;
    if checked.header.blocks.is_none() && content_hash(&plain) != checked.header.hash {
        return Err(Error::Tampered(format!("the content of {key} is not what its author signed")));
    }
    Ok(plain.into())
}

fn digest(record: &[u8]) -> [u8; 32] {
    Sha256::digest(record).into()
}
