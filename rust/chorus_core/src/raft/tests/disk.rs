//! A disk in memory that forgets any part of what was not synced when its power is cut.

use std::{
    io,
    sync::{Arc, Mutex},
};

use rand::{Rng, rngs::StdRng};
use redb::{Database, StorageBackend};

use crate::{Error, Result, raft::storage::Store};

#[derive(Debug)]
enum Change {
    Write { offset: usize, before: Vec<u8>, after: Vec<u8> },
    Length { before: usize, cut: Vec<u8>, after: usize },
}

#[derive(Debug, Default)]
struct State {
    data: Vec<u8>,
    unsynced: Vec<Change>,
    /// Handles of an earlier power-on reach nothing any more.
    epoch: u64,
    /// Writes and syncs left until the power fails.
    fuse: Option<u64>,
    /// The power failed, and was not cut since.
    failed: bool,
}

#[derive(Debug, Clone, Default)]
pub(super) struct Disk(Arc<Mutex<State>>);

#[derive(Debug)]
struct Plug {
    disk: Disk,
    epoch: u64,
}

impl Disk {
    pub(super) fn open(&self) -> Result<Store> {
        let disk = self.clone();
        Store::with_opener(Box::new(move || {
            let epoch = disk.0.lock().unwrap().epoch;
            Database::builder()
                .set_cache_size(1024 * 1024)
                .create_with_backend(Plug { disk: disk.clone(), epoch })
                .map_err(|error| Error::Internal(error.to_string()))
        }))
    }

    /// Lets the power fail after so many more writes and syncs.
    pub(super) fn set_fuse(&self, operations: u64) {
        self.0.lock().unwrap().fuse = Some(operations);
    }

    /// Whether the fuse burnt.
    pub(super) fn has_failed(&self) -> bool {
        self.0.lock().unwrap().failed
    }

    /// Cuts the power: each unsynced change is kept or lost by chance.
    pub(super) fn cut(&self, rng: &mut StdRng) {
        let state = &mut *self.0.lock().unwrap();
        state.epoch += 1;
        state.fuse = None;
        state.failed = false;
        let changes = std::mem::take(&mut state.unsynced);
        for change in changes.iter().rev() {
            match change {
                Change::Write { offset, before, .. } => {
                    state.data[*offset..offset + before.len()].copy_from_slice(before);
                }
                Change::Length { before, cut, .. } => {
                    state.data.resize(*before, 0);
                    let start = before - cut.len();
                    state.data[start..].copy_from_slice(cut);
                }
            }
        }
        for change in &changes {
            if rng.random_bool(0.5) {
                continue;
            }
            match change {
                Change::Write { offset, after, .. } => {
                    let end = offset + after.len();
                    if state.data.len() < end {
                        state.data.resize(end, 0);
                    }
                    state.data[*offset..end].copy_from_slice(after);
                }
                Change::Length { after, .. } => state.data.resize(*after, 0),
            }
        }
    }
}

impl Plug {
    fn with<T>(&self, burns: bool, work: impl FnOnce(&mut State) -> io::Result<T>) -> io::Result<T> {
        let state = &mut *self.disk.0.lock().unwrap();
        if state.epoch != self.epoch {
            return Err(io::Error::other("no power"));
        }
        if state.failed || (burns && state.fuse == Some(0)) {
            state.failed = true;
            return Err(io::Error::other("no power"));
        }
        if burns && let Some(fuse) = &mut state.fuse {
            *fuse -= 1;
        }
        work(state)
    }
}

impl StorageBackend for Plug {
    fn len(&self) -> io::Result<u64> {
        self.with(false, |state| Ok(state.data.len() as u64))
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.with(false, |state| {
            let offset = offset as usize;
            let bytes = state.data.get(offset..offset + out.len());
            out.copy_from_slice(bytes.ok_or_else(|| io::Error::other("past the end"))?);
            Ok(())
        })
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.with(true, |state| {
            let (before, after) = (state.data.len(), len as usize);
            let cut = state.data.get(after..).unwrap_or_default().to_vec();
            state.data.resize(after, 0);
            state.unsynced.push(Change::Length { before, cut, after });
            Ok(())
        })
    }

    fn sync_data(&self) -> io::Result<()> {
        self.with(true, |state| {
            state.unsynced.clear();
            Ok(())
        })
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.with(true, |state| {
            let offset = offset as usize;
            let place = state.data.get_mut(offset..offset + data.len());
            let place = place.ok_or_else(|| io::Error::other("past the end"))?;
            let before = place.to_vec();
            place.copy_from_slice(data);
            state.unsynced.push(Change::Write { offset, before, after: data.to_vec() });
            Ok(())
        })
    }
}
