//! The four files of a Hypercore, written so that what the log acknowledges is on disk: a write to the oplog is a
//! barrier, before which the other files are synced and after which it is synced itself. Nothing else needs to be.

use std::{
    fs::{DirBuilder, File, OpenOptions},
    io,
    os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use hypercore::{HypercoreError, Storage, Store};
use random_access_storage::{BoxFuture, RandomAccess, RandomAccessError};

pub(super) const OPLOG: &str = "oplog";
pub(super) const TREE: &str = "tree";
pub(super) const DATA: &str = "data";
pub(super) const BITFIELD: &str = "bitfield";

/// The oplog's header holds the secret key that signs the log.
const FILE_MODE: u32 = 0o600;
const FOLDER_MODE: u32 = 0o700;

/// Opens or creates one of the log's files.
pub(super) fn open_file(folder: &Path, name: &str) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(FILE_MODE).open(folder.join(name))
}

/// Makes the log's folder if there is none.
pub(super) fn make_folder(folder: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(FOLDER_MODE).create(folder)
}

/// Makes names that were created or changed in the folder last.
pub(super) fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// The storage of the log in `folder`.
pub(super) async fn open_storage(folder: &Path) -> Result<Storage, HypercoreError> {
    let files = Arc::new(Files {
        tree: OpenFile::new(folder, TREE)?,
        data: OpenFile::new(folder, DATA)?,
        bitfield: OpenFile::new(folder, BITFIELD)?,
        oplog: OpenFile::new(folder, OPLOG)?,
    });
    sync_folder(folder)?;
    Storage::open(
        |store| {
            let access: Arc<dyn hypercore::StorageTraits> = Arc::new(Access { store, files: files.clone() });
            Box::pin(std::future::ready(Ok(access)))
        },
        false,
    )
    .await
}

#[derive(Debug)]
struct Files {
    tree: OpenFile,
    data: OpenFile,
    bitfield: OpenFile,
    oplog: OpenFile,
}

#[derive(Debug)]
struct OpenFile {
    file: File,
    length: AtomicU64,
    dirty: AtomicBool,
}

impl OpenFile {
    fn new(folder: &Path, name: &str) -> io::Result<Self> {
        let file = open_file(folder, name)?;
        let length = AtomicU64::new(file.metadata()?.len());
        Ok(Self { file, length, dirty: AtomicBool::new(false) })
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.dirty.store(true, Ordering::Relaxed);
        self.file.write_all_at(data, offset)?;
        self.length.fetch_max(offset + data.len() as u64, Ordering::Relaxed);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        if self.dirty.swap(false, Ordering::Relaxed) {
            self.file.sync_all().inspect_err(|_| self.dirty.store(true, Ordering::Relaxed))?;
        }
        Ok(())
    }
}

/// One store as the hypercore crate wants it. Work is done at the call; the futures only carry the outcome.
#[derive(Debug)]
struct Access {
    store: Store,
    files: Arc<Files>,
}

impl Access {
    fn file(&self) -> &OpenFile {
        match self.store {
            Store::Tree => &self.files.tree,
            Store::Data => &self.files.data,
            Store::Bitfield => &self.files.bitfield,
            Store::Oplog => &self.files.oplog,
        }
    }

    fn write_now(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        if self.store == Store::Oplog {
            self.files.data.sync()?;
            self.files.tree.sync()?;
            self.files.bitfield.sync()?;
            self.files.oplog.write(offset, data)?;
            return self.files.oplog.sync();
        }
        self.file().write(offset, data)
    }

    fn truncate_now(&self, length: u64) -> io::Result<()> {
        let file = self.file();
        file.dirty.store(true, Ordering::Relaxed);
        file.file.set_len(length)?;
        file.length.store(length, Ordering::Relaxed);
        Ok(())
    }

    fn read_now(&self, offset: u64, length: u64) -> Result<Vec<u8>, RandomAccessError> {
        let stored = self.file().length.load(Ordering::Relaxed);
        let end = offset.checked_add(length);
        if end.is_none_or(|end| end > stored) {
            return Err(RandomAccessError::OutOfBounds { offset, end, length: stored });
        }
        let size = usize::try_from(length).map_err(|e| io::Error::other(e.to_string()))?;
        let mut buffer = vec![0; size];
        self.file().file.read_exact_at(&mut buffer, offset)?;
        Ok(buffer)
    }
}

fn done<T: Send + 'static>(outcome: Result<T, RandomAccessError>) -> BoxFuture<Result<T, RandomAccessError>> {
    Box::pin(std::future::ready(outcome))
}

impl RandomAccess for Access {
    fn write(&self, offset: u64, data: &[u8]) -> BoxFuture<Result<(), RandomAccessError>> {
        done(self.write_now(offset, data).map_err(Into::into))
    }

    fn read(&self, offset: u64, length: u64) -> BoxFuture<Result<Vec<u8>, RandomAccessError>> {
        done(self.read_now(offset, length))
    }

    fn del(&self, _offset: u64, _length: u64) -> BoxFuture<Result<(), RandomAccessError>> {
        // Only clearing entries deletes, and this log keeps all of them.
        done(Err(io::Error::from(io::ErrorKind::Unsupported).into()))
    }

    fn truncate(&self, length: u64) -> BoxFuture<Result<(), RandomAccessError>> {
        done(self.truncate_now(length).map_err(Into::into))
    }

    fn len(&self) -> u64 {
        self.file().length.load(Ordering::Relaxed)
    }
}
