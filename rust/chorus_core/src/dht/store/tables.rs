//! The tables of the store, what a commit does to them, and who may have how much of it. Knows no threads.

use std::sync::PoisonError;

use bytes::Bytes;
use redb::{
    Database, ReadTransaction, ReadableDatabase, ReadableTable, ReadableTableMetadata, Table, TableDefinition,
    WriteTransaction,
};

use super::{
    Limits, Members,
    disk::{Disk, disk},
};
use crate::{
    Error, Result,
    dht::record::{self, Checked},
};

/// Until when (milliseconds since the epoch), version and bytes of each record, by place: `key | 0 | author`, and `0 | role` after it where a role is given and
/// nothing replaces it: a piece of two values may be sealed for two roles.
const INDEX: TableDefinition<'_, &[u8], (u64, u64, u32)> = TableDefinition::new("index");
/// The records themselves, by place.
const DATA: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("data");
/// Bytes of each author's records.
const AUTHORS: TableDefinition<'_, &str, u64> = TableDefinition::new("authors");
/// Places of own records that too few others hold as far as is known.
const PENDING: TableDefinition<'_, &[u8], ()> = TableDefinition::new("pending");
/// The one table of stores before authors were told apart: `stored_at_ms:u64be | record` by key.
const FORMER: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("records");

/// Records of one name, by author and role, that are held beside each other.
pub(in crate::dht) const COPIES_PER_NAME: usize = 8;
/// Those of one author, each for another role: else one author could occupy a name.
const ROLES_PER_AUTHOR: usize = 3;
/// Begins the keys of what its author replaces.
const REPLACED: &[u8] = b"/chorus/agent/";
/// Ends key and author in a place; neither holds it.
const SEPARATOR: u8 = 0;

/// What became of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stored {
    /// It is on disk now.
    New,
    /// The same or an equally good record was there already.
    Kept,
}

/// How much is stored.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Records.
    pub records: u64,
    /// Bytes of this agent's own.
    pub own_bytes: u64,
    /// Own records that too few others hold as far as is known.
    pub pending: u64,
}

/// A record as the index knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Where it lies.
    pub place: Vec<u8>,
    /// When its time is over.
    pub until: u64,
    /// Its version.
    pub version: u64,
}

impl Entry {
    /// The record's key.
    #[must_use]
    pub fn key(&self) -> Option<&str> {
        std::str::from_utf8(split(&self.place).0).ok()
    }

    /// The record's key, author and role.
    #[must_use]
    pub fn names(&self) -> Option<(&str, &str, Option<&str>)> {
        let (key, rest) = split(&self.place);
        let at = rest.iter().position(|byte| *byte == SEPARATOR);
        let (author, role) = at.map_or((rest, None), |at| (&rest[..at], Some(&rest[at + 1..])));
        let role = role.map(std::str::from_utf8).transpose().ok()?;
        Some((std::str::from_utf8(key).ok()?, std::str::from_utf8(author).ok()?, role))
    }
}

/// What is to be done to the tables.
pub(super) enum Write {
    Put { checked: Box<Checked>, record: Bytes, pending: bool },
    Forget { place: Vec<u8> },
    Settle { place: Vec<u8> },
}

/// Where an author's record of a key lies.
pub(in crate::dht) fn place(key: &[u8], author: &str, role: Option<&str>) -> Vec<u8> {
    let mut place = [key, &[SEPARATOR], author.as_bytes()].concat();
    if let Some(role) = role.filter(|_| !key.starts_with(REPLACED)) {
        place.push(SEPARATOR);
        place.extend_from_slice(role.as_bytes());
    }
    place
}

/// Where a checked record lies.
fn place_of(checked: &Checked) -> Vec<u8> {
    let header = &checked.header;
    place(checked.key.to_string().as_bytes(), &header.author, header.role.as_deref())
}

/// Key and the rest of a place.
fn split(place: &[u8]) -> (&[u8], &[u8]) {
    let at = place.iter().position(|byte| *byte == SEPARATOR).unwrap_or(place.len());
    (&place[..at], place.get(at + 1..).unwrap_or_default())
}

fn author_of(place: &[u8]) -> &[u8] {
    split(split(place).1).0
}

/// The span of places of one key.
fn span(key: &[u8]) -> (Vec<u8>, Vec<u8>) {
    ([key, &[SEPARATOR]].concat(), [key, &[SEPARATOR + 1]].concat())
}

/// Who has how much of the store.
pub(super) struct Ledger {
    local: String,
    limits: Limits,
    members: Members,
    /// Bytes of everybody but this agent.
    foreign: u64,
}

impl Ledger {
    /// Makes the tables that are missing and counts.
    pub fn new(disk: &Disk, local: String, limits: Limits, members: Members) -> Result<Self> {
        let mut ledger = Self { local, limits, members, foreign: 0 };
        ledger.recount(disk)?;
        Ok(ledger)
    }

    /// Counts what is there.
    pub fn recount(&mut self, from: &Disk) -> Result<()> {
        self.foreign = from.read(|database| {
            let write = database.begin_write().map_err(disk)?;
            let mut foreign = 0;
            {
                let mut tables = Tables::open(&write)?;
                if let Ok(former) = write.open_table(FORMER) {
                    for row in former.iter().map_err(disk)? {
                        let (key, value) = row.map_err(disk)?;
                        tables.adopt(key.value(), value.value())?;
                    }
                }
                for row in tables.authors.iter().map_err(disk)? {
                    let (author, bytes) = row.map_err(disk)?;
                    foreign += if author.value() == self.local { 0 } else { bytes.value() };
                }
            }
            write.delete_table(FORMER).map_err(disk)?;
            write.commit().map_err(disk)?;
            Ok(foreign)
        })?;
        Ok(())
    }

    /// Whether an author may have `bytes` more.
    fn room(&self, tables: &Tables<'_>, author: &str, bytes: u64) -> Result<Result<()>> {
        if author == self.local {
            return Ok(Ok(()));
        }
        let members = self.members.read().unwrap_or_else(PoisonError::into_inner);
        let (has, who) = if members.contains(author) {
            (tables.bytes_of(author)?, author)
        } else {
            let mut strangers = self.foreign;
            for member in members.iter().filter(|member| **member != self.local) {
                strangers = strangers.saturating_sub(tables.bytes_of(member)?);
            }
            (strangers, "authors who are no members of the mesh")
        };
        Ok(if has + bytes > self.limits.author_bytes {
            Err(Error::Refused(format!("quota: {who} may have {} bytes in this store", self.limits.author_bytes)))
        } else if self.foreign + bytes > self.limits.foreign_bytes {
            Err(Error::Refused(format!("quota: this store takes {} bytes of others", self.limits.foreign_bytes)))
        } else {
            Ok(())
        })
    }

    fn is_member(&self, author: &[u8]) -> bool {
        let members = self.members.read().unwrap_or_else(PoisonError::into_inner);
        std::str::from_utf8(author).is_ok_and(|author| author == self.local || members.contains(author))
    }
}

/// The tables within a write.
struct Tables<'t> {
    index: Table<'t, &'static [u8], (u64, u64, u32)>,
    data: Table<'t, &'static [u8], &'static [u8]>,
    authors: Table<'t, &'static str, u64>,
    pending: Table<'t, &'static [u8], ()>,
}

impl<'t> Tables<'t> {
    fn open(write: &'t WriteTransaction) -> Result<Self> {
        Ok(Self {
            index: write.open_table(INDEX).map_err(disk)?,
            data: write.open_table(DATA).map_err(disk)?,
            authors: write.open_table(AUTHORS).map_err(disk)?,
            pending: write.open_table(PENDING).map_err(disk)?,
        })
    }

    fn bytes_of(&self, author: &str) -> Result<u64> {
        Ok(self.authors.get(author).map_err(disk)?.map_or(0, |bytes| bytes.value()))
    }

    /// Lays a record down, in place of an earlier one; returns by how much its author has more and less.
    fn insert(&mut self, place: &[u8], row: (u64, u64, u32), record: &[u8]) -> Result<(u64, u64)> {
        let before = self.index.insert(place, row).map_err(disk)?.map_or(0, |row| u64::from(row.value().2));
        self.data.insert(place, record).map_err(disk)?;
        self.account(place, u64::from(row.2), before)
    }

    fn remove(&mut self, place: &[u8]) -> Result<(u64, u64)> {
        let before = self.index.remove(place).map_err(disk)?.map_or(0, |row| u64::from(row.value().2));
        self.data.remove(place).map_err(disk)?;
        self.pending.remove(place).map_err(disk)?;
        self.account(place, 0, before)
    }

    fn account(&mut self, place: &[u8], more: u64, less: u64) -> Result<(u64, u64)> {
        let author = String::from_utf8_lossy(author_of(place)).into_owned();
        let has = (self.bytes_of(&author)? + more).saturating_sub(less);
        if has == 0 {
            self.authors.remove(author.as_str()).map_err(disk)?;
        } else {
            self.authors.insert(author.as_str(), has).map_err(disk)?;
        }
        Ok((more, less))
    }

    /// Takes over a record of the former table.
    fn adopt(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        let Some((stored_at, record)) = value.split_first_chunk::<8>() else { return Ok(()) };
        let stored_at = u64::from_be_bytes(*stored_at);
        let Ok(checked) = record::check(key, record, stored_at) else { return Ok(()) };
        let place = place_of(&checked);
        self.insert(&place, (checked.until(stored_at), checked.header.version, size(record)), record)?;
        Ok(())
    }
}

/// Carries out a batch in one transaction.
pub(super) fn commit(
    database: &Database,
    ledger: &mut Ledger,
    writes: &[&Write],
    now_ms: u64,
) -> Result<Vec<Result<Stored>>> {
    let write = database.begin_write().map_err(disk)?;
    let before = ledger.foreign;
    let outcomes = {
        let mut tables = Tables::open(&write)?;
        writes.iter().map(|write| apply(&mut tables, ledger, write, now_ms)).collect::<Result<Vec<_>>>()
    };
    let committed = outcomes.and_then(|outcomes| {
        write.commit().map_err(disk)?;
        Ok(outcomes)
    });
    if committed.is_err() {
        ledger.foreign = before;
    }
    committed
}

fn apply(tables: &mut Tables<'_>, ledger: &mut Ledger, write: &Write, now_ms: u64) -> Result<Result<Stored>> {
    match write {
        Write::Put { checked, record, pending } => put(tables, ledger, checked, record, *pending, now_ms),
        Write::Forget { place } => {
            let over = tables.index.get(place.as_slice()).map_err(disk)?.is_some_and(|row| row.value().0 <= now_ms);
            if over {
                take(tables, ledger, place)?;
            }
            Ok(Ok(Stored::Kept))
        }
        Write::Settle { place } => {
            tables.pending.remove(place.as_slice()).map_err(disk)?;
            Ok(Ok(Stored::Kept))
        }
    }
}

fn put(
    tables: &mut Tables<'_>,
    ledger: &mut Ledger,
    checked: &Checked,
    record: &[u8],
    pending: bool,
    now_ms: u64,
) -> Result<Result<Stored>> {
    let key = checked.key.to_string().into_bytes();
    let author = &checked.header.author;
    let place = place_of(checked);
    let row = (checked.until(now_ms), checked.header.version, size(record));
    let present = tables.index.get(place.as_slice()).map_err(disk)?.map(|row| row.value());
    let better = match present.filter(|(until, ..)| *until > now_ms) {
        None => Ok(Stored::New),
        Some(present) => {
            let sound = |data: &[u8]| record::check(&key, data, now_ms).is_ok();
            let sound = tables.data.get(place.as_slice()).map_err(disk)?.is_some_and(|data| sound(data.value()));
            if sound { supersedes(checked, row, present) } else { Ok(Stored::New) }
        }
    };
    if !matches!(better, Ok(Stored::New)) {
        return Ok(better);
    }
    let grows = u64::from(row.2).saturating_sub(present.map_or(0, |(.., bytes)| u64::from(bytes)));
    if let Err(refused) = ledger.room(tables, author, grows)? {
        return Ok(Err(refused));
    }
    if present.is_none()
        && let Err(refused) = make_way(tables, ledger, &key, author.as_bytes())?
    {
        return Ok(Err(refused));
    }
    let (more, less) = tables.insert(&place, row, record)?;
    if *author != ledger.local {
        ledger.foreign = (ledger.foreign + more).saturating_sub(less);
    }
    if pending {
        tables.pending.insert(place.as_slice(), ()).map_err(disk)?;
    }
    Ok(Ok(Stored::New))
}

/// Whether a record takes the place of its author's present one.
fn supersedes(new: &Checked, row: (u64, u64, u32), present: (u64, u64, u32)) -> Result<Stored> {
    let ((until, version, _), (present_until, present_version, _)) = (row, present);
    if new.key.kind.immutable() {
        // A block that was to pass with an agent's record may turn out to be a piece of something lasting.
        return Ok(if until > present_until { Stored::New } else { Stored::Kept });
    }
    match version.cmp(&present_version) {
        std::cmp::Ordering::Greater => Ok(Stored::New),
        std::cmp::Ordering::Equal => Ok(Stored::Kept),
        std::cmp::Ordering::Less => {
            Err(Error::Refused(format!("version {version} is older than {present_version}, which is stored")))
        }
    }
}

/// Finds room for one more author under a name: members go before others, and this agent before all.
fn make_way(tables: &mut Tables<'_>, ledger: &mut Ledger, key: &[u8], author: &[u8]) -> Result<Result<()>> {
    let (from, to) = span(key);
    let mut places = Vec::new();
    for row in tables.index.range(from.as_slice()..to.as_slice()).map_err(disk)? {
        places.push(row.map_err(disk)?.0.value().to_vec());
    }
    if author == ledger.local.as_bytes() {
        return Ok(Ok(()));
    }
    if places.iter().filter(|place| author_of(place) == author).count() >= ROLES_PER_AUTHOR {
        return Ok(Err(Error::Refused(format!("{ROLES_PER_AUTHOR} records of this name and author are held already"))));
    }
    if places.len() < COPIES_PER_NAME {
        return Ok(Ok(()));
    }
    let stranger = places.iter().find(|place| !ledger.is_member(author_of(place)));
    match stranger.filter(|_| ledger.is_member(author)) {
        Some(place) => {
            take(tables, ledger, place)?;
            Ok(Ok(()))
        }
        None => Ok(Err(Error::Refused(format!("{COPIES_PER_NAME} records of this name are held already")))),
    }
}

fn take(tables: &mut Tables<'_>, ledger: &mut Ledger, place: &[u8]) -> Result<()> {
    let (_, less) = tables.remove(place)?;
    if author_of(place) != ledger.local.as_bytes() {
        ledger.foreign = ledger.foreign.saturating_sub(less);
    }
    Ok(())
}

fn size(record: &[u8]) -> u32 {
    u32::try_from(record.len()).unwrap_or(u32::MAX)
}

fn begin(database: &Database) -> Result<ReadTransaction> {
    database.begin_read().map_err(disk)
}

/// Live records under a key, those of `first` before others.
pub(super) fn get(database: &Database, key: &[u8], first: &str, now_ms: u64) -> Result<Vec<Bytes>> {
    let read = begin(database)?;
    let index = read.open_table(INDEX).map_err(disk)?;
    let data = read.open_table(DATA).map_err(disk)?;
    let (from, to) = span(key);
    let mut found = Vec::new();
    for row in index.range(from.as_slice()..to.as_slice()).map_err(disk)? {
        let (place, row) = row.map_err(disk)?;
        if row.value().0 <= now_ms {
            continue;
        }
        if let Some(record) = data.get(place.value()).map_err(disk)? {
            let own = author_of(place.value()) == first.as_bytes();
            found.insert(if own { 0 } else { found.len() }, Bytes::copy_from_slice(record.value()));
        }
    }
    Ok(found)
}

pub(super) fn at(database: &Database, place: &[u8]) -> Result<Option<Bytes>> {
    let data = begin(database)?.open_table(DATA).map_err(disk)?;
    Ok(data.get(place).map_err(disk)?.map(|record| Bytes::copy_from_slice(record.value())))
}

pub(super) fn len(database: &Database) -> Result<u64> {
    begin(database)?.open_table(INDEX).map_err(disk)?.len().map_err(disk)
}

pub(super) fn usage(database: &Database, local: &str) -> Result<Usage> {
    let read = begin(database)?;
    Ok(Usage {
        records: read.open_table(INDEX).map_err(disk)?.len().map_err(disk)?,
        own_bytes: read.open_table(AUTHORS).map_err(disk)?.get(local).map_err(disk)?.map_or(0, |bytes| bytes.value()),
        pending: read.open_table(PENDING).map_err(disk)?.len().map_err(disk)?,
    })
}

pub(super) fn walk(database: &Database, after: Option<&[u8]>, count: usize) -> Result<Vec<Entry>> {
    let index = begin(database)?.open_table(INDEX).map_err(disk)?;
    let mut entries = Vec::new();
    for row in index.range::<&[u8]>(following(after)).map_err(disk)?.take(count) {
        let (place, row) = row.map_err(disk)?;
        entries.push(Entry { place: place.value().to_vec(), until: row.value().0, version: row.value().1 });
    }
    Ok(entries)
}

pub(super) fn pending(database: &Database, after: Option<&[u8]>, count: usize) -> Result<Vec<Entry>> {
    let read = begin(database)?;
    let index = read.open_table(INDEX).map_err(disk)?;
    let mut entries = Vec::new();
    for row in read.open_table(PENDING).map_err(disk)?.range::<&[u8]>(following(after)).map_err(disk)?.take(count) {
        let place = row.map_err(disk)?.0.value().to_vec();
        if let Some(row) = index.get(place.as_slice()).map_err(disk)? {
            let (until, version, _) = row.value();
            entries.push(Entry { place, until, version });
        }
    }
    Ok(entries)
}

fn following(after: Option<&[u8]>) -> (std::ops::Bound<&[u8]>, std::ops::Bound<&[u8]>) {
    (after.map_or(std::ops::Bound::Unbounded, std::ops::Bound::Excluded), std::ops::Bound::Unbounded)
}

/// Which of the places lack a record of that version. What cannot be superseded has no older version.
pub(super) fn lacks(database: &Database, held: &[(Vec<u8>, u64)], now_ms: u64) -> Result<Vec<usize>> {
    let index = begin(database)?.open_table(INDEX).map_err(disk)?;
    let mut lacking = Vec::new();
    for (at, (place, version)) in held.iter().enumerate() {
        let present = index.get(place.as_slice()).map_err(disk)?.map(|row| row.value());
        let fixed = !place.starts_with(REPLACED);
        let has = present.is_some_and(|(until, has, _)| until > now_ms && (fixed || has >= *version));
        if !has {
            lacking.push(at);
        }
    }
    Ok(lacking)
}

#[cfg(test)]
pub(super) fn plant(database: &Database, place: &[u8], record: &[u8], until: u64) -> Result<()> {
    let write = database.begin_write().map_err(disk)?;
    {
        let mut tables = Tables::open(&write)?;
        tables.insert(place, (until, 1, size(record)), record)?;
    }
    write.commit().map_err(disk)
}
