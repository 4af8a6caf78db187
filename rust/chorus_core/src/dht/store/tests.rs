//! The store by itself: what it takes, and a disk that fails.

use std::{
    fs::{File, OpenOptions},
    os::unix::fs::FileExt,
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
};

use libp2p::identity::Keypair;
use redb::{Builder, ReadableDatabase, StorageBackend};

use super::*;
use crate::dht::{key::content_hash, record::Header};

/// A file on a disk that is full from time to time.
#[derive(Debug)]
struct Filling {
    file: File,
    full: Arc<AtomicBool>,
}

impl Filling {
    fn room(&self) -> std::io::Result<()> {
        if self.full.load(Ordering::Relaxed) { Err(std::io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }
}

impl StorageBackend for Filling {
    fn len(&self) -> std::io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> std::io::Result<()> {
        self.file.read_exact_at(out, offset)
    }

    fn set_len(&self, len: u64) -> std::io::Result<()> {
        self.room()?;
        self.file.set_len(len)
    }

    fn sync_data(&self) -> std::io::Result<()> {
        self.room()?;
        self.file.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> std::io::Result<()> {
        self.room()?;
        self.file.write_all_at(data, offset)
    }
}

fn record(author: &Keypair, text: &str) -> (Vec<u8>, Bytes) {
    let name = content_hash(text.as_bytes());
    let header = Header {
        author: author.public().to_peer_id().to_string(),
        blocks: None,
        created_at: 1,
        hash: name.clone(),
        kind: "content".into(),
        name: name.clone(),
        of: None,
        role: None,
        v: 1,
        version: 1,
    };
    let record = record::write(author, &header, text.as_bytes()).unwrap();
    (format!("/chorus/content/{name}").into_bytes(), record.into())
}

async fn open(path: &Path, local: &Keypair) -> Store {
    let local = local.public().to_peer_id().to_string();
    Store::open(path, local, Limits::default(), Arc::default()).await.unwrap()
}

#[tokio::test]
async fn a_full_disk_is_said_and_survived() {
    let folder = tempfile::tempdir().unwrap();
    let (path, full) = (folder.path().join("dht.redb"), Arc::new(AtomicBool::new(false)));
    let author = Keypair::generate_ed25519();
    let (opened, filling) = (path.clone(), full.clone());
    let opener = move || {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&opened)?;
        // As redb holds its own files: who opens it next waits until this store has let go of it.
        file.lock()?;
        let backend = Filling { file, full: filling.clone() };
        Builder::new().create_with_backend(backend).map_err(disk::disk)
    };
    let local = author.public().to_peer_id().to_string();
    let store = Store::over(opener, local, Limits::default(), Arc::default()).await.unwrap();
    let mut written = Vec::new();
    for n in 0..10 {
        let (key, record) = record(&author, &format!("before {n}"));
        store.put(&key, record.clone()).await.unwrap();
        written.push((key, record));
    }
    full.store(true, Ordering::Relaxed);
    for n in 0..3 {
        let (key, record) = record(&author, &format!("while {n}"));
        match store.put(&key, record).await {
            Err(Error::Internal(why)) => assert!(why.contains("DHT store"), "{why}"),
            outcome => unreachable!("{outcome:?}"),
        }
    }
    full.store(false, Ordering::Relaxed);
    let (key, late) = record(&author, "after");
    store.put(&key, late.clone()).await.unwrap();
    written.push((key, late));
    for (key, record) in &written {
        assert_eq!(store.get(key), std::slice::from_ref(record));
    }
    assert_eq!(store.len().unwrap(), 11);
    store.flush().await;
    drop(store);
    // An ordinary store reads it as well.
    let again = open(&path, &author).await;
    for (key, record) in &written {
        assert_eq!(again.get(key), std::slice::from_ref(record));
    }
}

#[tokio::test]
async fn records_of_the_former_table_are_taken_over() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("dht.redb");
    let (own, other) = (Keypair::generate_ed25519(), Keypair::generate_ed25519());
    let former = [record(&own, "own"), record(&other, "other's")];
    {
        let database = redb::Database::create(&path).unwrap();
        let write = database.begin_write().unwrap();
        {
            let table = redb::TableDefinition::<&[u8], &[u8]>::new("records");
            let mut table = write.open_table(table).unwrap();
            for (key, record) in &former {
                let value = [&now_ms().to_be_bytes()[..], record].concat();
                table.insert(key.as_slice(), value.as_slice()).unwrap();
            }
        }
        write.commit().unwrap();
    }
    let store = open(&path, &own).await;
    for (key, record) in &former {
        assert_eq!(store.get(key), std::slice::from_ref(record));
    }
    assert_eq!(store.usage().unwrap(), Usage { records: 2, own_bytes: former[0].1.len() as u64, pending: 0 });
    let tables = store.disk.read(|database| Ok(database.begin_read().unwrap().list_tables().unwrap().count())).unwrap();
    assert_eq!(tables, 4);
}

#[tokio::test]
async fn many_at_once_are_all_on_disk() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("dht.redb");
    let own = Keypair::generate_ed25519();
    let records: Vec<_> = (0..500).map(|n| record(&own, &n.to_string())).collect();
    let store = open(&path, &own).await;
    let puts = records.iter().map(|(key, record)| store.put(key, record.clone()));
    assert!(futures::future::join_all(puts).await.iter().all(|stored| matches!(stored, Ok(Stored::New))));
    assert!(matches!(store.put(&records[0].0, records[0].1.clone()).await, Ok(Stored::Kept)));
    assert_eq!(store.pending(None, 1000).unwrap().len(), 500);
    store.settle(place(&records[0].0, &own.public().to_peer_id().to_string(), None)).await;
    store.flush().await;
    drop(store);
    let store = open(&path, &own).await;
    assert_eq!(store.usage().unwrap().pending, 499);
    assert!(records.iter().all(|(key, record)| store.get(key) == std::slice::from_ref(record)));
    // A walk meets each once, and what another store lacks is told apart from what it has.
    let mut met = Vec::new();
    while let Some(last) =
        store.walk(met.last().map(Vec::as_slice), 64).unwrap().into_iter().map(|entry| entry.place).fold(
            None,
            |_, place| {
                met.push(place.clone());
                Some(place)
            },
        )
    {
        assert_eq!(met.last(), Some(&last));
    }
    assert_eq!(met.len(), 500);
    let held = [(met[3].clone(), 1), (place(b"/chorus/content/none", "nobody", None), 1), (met[4].clone(), 9)];
    assert_eq!(store.lacks(&held).unwrap(), [1]);
}

#[tokio::test]
async fn one_author_does_not_occupy_a_name_with_many_roles() {
    let folder = tempfile::tempdir().unwrap();
    let (author, other, local) =
        (Keypair::generate_ed25519(), Keypair::generate_ed25519(), Keypair::generate_ed25519());
    let store = open(&folder.path().join("dht.redb"), &local).await;
    store.set_members(HashSet::from([author.public().to_peer_id().to_string()]));
    let name = content_hash(b"wanted");
    let key = format!("/chorus/content/{name}");
    let of_role = |by: &Keypair, role: String| {
        let header = Header {
            author: by.public().to_peer_id().to_string(),
            blocks: None,
            created_at: 1,
            hash: name.clone(),
            kind: "content".into(),
            name: name.clone(),
            of: None,
            role: Some(role),
            v: 1,
            version: 1,
        };
        Bytes::from(record::write(by, &header, b"sealed").unwrap())
    };
    for n in 0..10 {
        let kept = store.keep(key.as_bytes(), of_role(&author, format!("role{n}"))).await;
        assert_eq!(kept.is_ok(), n < 3, "{kept:?}");
    }
    store.keep(key.as_bytes(), of_role(&other, "developer".into())).await.unwrap();
    for n in 0..10 {
        store.put(key.as_bytes(), of_role(&local, format!("role{n}"))).await.unwrap();
    }
}
