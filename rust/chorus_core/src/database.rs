//! Files of redb: made whole or not at all, whenever the power goes.
//!
//! redb itself makes a file in place. Stopped before its magic number is written, that file opens never again; and the
//! name of a new file is lost with the power until its folder is synced.

use std::{
    fs::{self, File},
    io,
    path::Path,
};

use redb::{Database, DatabaseError};

/// Makes an empty database at `path` unless there is one.
///
/// # Errors
/// When the folder is missing or the disk fails.
pub(crate) fn make_if_missing(path: &Path) -> Result<(), DatabaseError> {
    if fs::metadata(path).is_ok_and(|found| found.len() > 0) {
        return Ok(());
    }
    let draft = path.with_extension("redb.new");
    match fs::remove_file(&draft) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(broken(error)),
        _ => drop(Database::create(&draft)?),
    }
    fs::rename(&draft, path).map_err(broken)?;
    let folder = path.parent().unwrap_or(Path::new("."));
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(broken)
}

fn broken(error: io::Error) -> DatabaseError {
    DatabaseError::Storage(redb::StorageError::Io(error))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed test is a panic")]
mod tests {
    use std::io::Read;

    use super::*;

    const MAGIC: &[u8] = b"redb";

    #[test]
    fn at_no_moment_is_there_half_a_database() {
        for _ in 0..20 {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("x.redb");
            // What a crash left of an earlier attempt is in nobody's way.
            fs::write(path.with_extension("redb.new"), [0; 4096]).unwrap();
            let watcher = std::thread::spawn({
                let path = path.clone();
                move || {
                    loop {
                        let Ok(mut file) = File::open(&path) else { continue };
                        let mut first = [0; MAGIC.len()];
                        return file.read_exact(&mut first).is_ok() && first == MAGIC;
                    }
                }
            });
            make_if_missing(&path).unwrap();
            assert!(watcher.join().unwrap(), "the file was seen before it was whole");
            Database::open(&path).unwrap();
            assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        }
    }

    #[test]
    fn what_is_there_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.redb");
        fs::write(&path, b"something").unwrap();
        make_if_missing(&path).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"something");
        assert!(make_if_missing(&folder.path().join("missing/x.redb")).is_err());
    }
}
