#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{fs, path::Path};

use hypercore_schema::Node;
use tempfile::TempDir;

use super::*;

const FILES: [&str; 4] = [storage::OPLOG, storage::TREE, storage::DATA, storage::BITFIELD];

/// A folder in memory where there is one: these tests open logs by the thousand, and each opening syncs.
fn scratch() -> TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory).unwrap() } else { tempfile::tempdir().unwrap() }
}

fn keypair() -> Keypair {
    Keypair::ed25519_from_bytes([9; 32]).unwrap()
}

fn open(folder: &Path) -> (LogHandle, Option<Repair>) {
    LogHandle::open(folder, &keypair()).unwrap()
}

async fn numbers(log: &LogHandle) -> Vec<u64> {
    log.read(0, 100_000).await.unwrap().iter().map(|entry| entry["data"]["n"].as_u64().unwrap()).collect()
}

async fn fill(log: &LogHandle, range: std::ops::Range<u64>) {
    for n in range {
        assert_eq!(
            log.append("test", json!({"n": n, "text": "x".repeat((n % 7) as usize * 11)}), "me").await.unwrap(),
            n
        );
    }
}

fn copy(from: &Path) -> TempDir {
    let to = scratch();
    for name in FILES {
        fs::copy(from.join(name), to.path().join(name)).unwrap();
    }
    to
}

/// A log of seven entries of which the last two or three are only in the oplog.
async fn sample() -> TempDir {
    let dir = scratch();
    let (log, repair) = open(dir.path());
    assert_eq!(repair, None);
    fill(&log, 0..7).await;
    log.close().await;
    let oplog = fs::metadata(dir.path().join(storage::OPLOG)).unwrap().len();
    assert!(oplog > oplog::ENTRIES_AT as u64, "some entries are not flushed");
    dir
}

/// Opens a damaged log: it must hold the first entries and nothing else, take another and keep it.
async fn check(folder: &Path, at_least: u64, what: &str) -> Option<Repair> {
    let (log, repair) = open(folder);
    let length = log.info().length;
    assert!((at_least..=7).contains(&length), "{what}: {length} entries, {repair:?}");
    assert_eq!(numbers(&log).await, (0..length).collect::<Vec<_>>(), "{what}");
    if let Some(repair) = &repair {
        assert_eq!(repair.length, length, "{what}");
    }
    fill(&log, length..length + 1).await;
    log.close().await;
    let (log, again) = open(folder);
    assert_eq!(again, None, "{what}: the second start found more to cut");
    assert_eq!(log.info().length, length + 1, "{what}");
    log.close().await;
    repair
}

#[tokio::test]
async fn what_was_appended_is_there_after_reopening() {
    let dir = scratch();
    let mut length = 0;
    for more in [1, 0, 3, 5, 1, 9] {
        let (log, repair) = open(dir.path());
        assert_eq!(repair, None);
        assert_eq!(log.info().length, length);
        fill(&log, length..length + more).await;
        length += more;
        assert_eq!(numbers(&log).await, (0..length).collect::<Vec<_>>());
        log.close().await;
    }
    let (log, _) = open(dir.path());
    let entry = &log.read(3, 1).await.unwrap()[0];
    assert_eq!((entry["type"].as_str(), entry["author"].as_str()), (Some("test"), Some("me")));
    assert!(entry["timestamp"].as_u64().unwrap() > 1_600_000_000_000);
    let key = keypair().public().try_into_ed25519().unwrap().to_bytes();
    assert_eq!(log.info().key, hex::encode(key));
    assert_eq!(log.info().fork, 0);
}

#[tokio::test]
async fn many_append_at_once_and_each_has_its_number() {
    let dir = scratch();
    let (log, _) = open(dir.path());
    let tasks = (0..500u64).map(|n| {
        let log = log.clone();
        async move { (n, log.append("test", json!({"n": n}), "me").await.unwrap()) }
    });
    let given = futures::future::join_all(tasks).await;
    let stored = numbers(&log).await;
    assert_eq!(stored.len(), 500);
    assert!(given.iter().all(|(n, number)| stored[*number as usize] == *n));
    log.close().await;
    assert_eq!(log.append("test", json!(1), "me").await.unwrap_err().code(), "closed");
}

#[tokio::test]
async fn ranges_end_where_the_log_ends() {
    let dir = sample().await;
    let (log, _) = open(dir.path());
    assert_eq!(log.read(5, 10).await.unwrap().len(), 2);
    assert_eq!(log.read(2, 3).await.unwrap().len(), 3);
    assert!(log.read(7, 1).await.unwrap().is_empty());
    assert!(log.read(u64::MAX, u64::MAX).await.unwrap().is_empty());
    assert_eq!(log.append("big", json!("x".repeat(MAX_ENTRY_BYTES)), "me").await.unwrap_err().code(), "too_large");
}

#[tokio::test]
async fn an_oplog_cut_at_any_byte_keeps_its_whole_entries() {
    let dir = sample().await;
    let raw = fs::read(dir.path().join(storage::OPLOG)).unwrap();
    let whole = oplog::Oplog::parse(&raw);
    let flushed = whole.header.as_ref().unwrap().0.length;
    assert_eq!(whole.state().unwrap().length, 7);
    for length in (oplog::ENTRIES_AT..raw.len()).chain([0, 1, 7, 200, 4095, 4096, 4097, 4300, 8191]) {
        let damaged = copy(dir.path());
        fs::write(damaged.path().join(storage::OPLOG), &raw[..length]).unwrap();
        let kept = oplog::Oplog::parse(&raw[..length]);
        let expected = if length >= oplog::ENTRIES_AT { kept.state().unwrap().length } else { 0 };
        let repair = check(damaged.path(), expected, &format!("cut to {length}")).await;
        if length >= oplog::ENTRIES_AT {
            assert!(expected >= flushed);
            // Whole entries are left, and the data of those that are gone.
            assert!(repair.is_some_and(|r| r.length == expected && r.lost == 0), "cut to {length}");
        }
    }
}

#[tokio::test]
async fn any_bad_byte_in_the_oplog_is_survived() {
    let dir = sample().await;
    let raw = fs::read(dir.path().join(storage::OPLOG)).unwrap();
    let flushed = oplog::Oplog::parse(&raw).header.unwrap().0.length;
    let headers = (0..16).chain((16..420).step_by(13)).flat_map(|at| [at, at + oplog::SLOT_BYTES]);
    for place in (oplog::ENTRIES_AT..raw.len()).chain(headers) {
        let damaged = copy(dir.path());
        let mut bytes = raw.clone();
        bytes[place] ^= 0x41;
        fs::write(damaged.path().join(storage::OPLOG), &bytes).unwrap();
        // A bad entry costs no entry before it; a bad header may cost those that were flushed since the other one.
        let at_least = if place >= oplog::ENTRIES_AT { flushed } else { 1 };
        check(damaged.path(), at_least, &format!("byte {place}")).await;
    }
}

#[tokio::test]
async fn data_cut_or_bad_at_any_byte_keeps_what_is_before() {
    let dir = sample().await;
    let data = fs::read(dir.path().join(storage::DATA)).unwrap();
    let (log, _) = open(copy(dir.path()).path());
    let sizes: Vec<usize> = log.read(0, 7).await.unwrap().iter().map(|e| e.to_string().len()).collect();
    log.close().await;
    let whole_before = |byte: usize| {
        let ends = sizes.iter().scan(0, |end, size| {
            *end += size;
            Some(*end)
        });
        ends.filter(|end| *end <= byte).count() as u64
    };
    for place in (0..data.len()).rev().step_by(3) {
        let damaged = copy(dir.path());
        fs::write(damaged.path().join(storage::DATA), &data[..place]).unwrap();
        let repair = check(damaged.path(), whole_before(place), &format!("data cut to {place}")).await.unwrap();
        assert_eq!((repair.length, repair.lost), (whole_before(place), 7 - whole_before(place)));
        assert!(repair.kept.unwrap().join(storage::OPLOG).exists());

        let mut bytes = data.clone();
        bytes[place] ^= 1;
        let damaged = copy(dir.path());
        fs::write(damaged.path().join(storage::DATA), &bytes).unwrap();
        let repair = check(damaged.path(), whole_before(place), &format!("data byte {place}")).await.unwrap();
        assert_eq!(repair.length, whole_before(place));
    }
}

#[tokio::test]
async fn a_lost_or_bad_tree_never_stops_the_start() {
    let dir = sample().await;
    let tree = fs::read(dir.path().join(storage::TREE)).unwrap();
    for place in (0..tree.len()).step_by(7) {
        for cut in [true, false] {
            let damaged = copy(dir.path());
            let mut bytes = tree.clone();
            if cut {
                bytes.truncate(place)
            } else {
                bytes[place] ^= 0x20
            }
            fs::write(damaged.path().join(storage::TREE), &bytes).unwrap();
            check(damaged.path(), 0, &format!("tree {place} {cut}")).await;
        }
    }
    // A bad parent is made anew from its leaves and nothing is lost.
    let damaged = copy(dir.path());
    let mut bytes = tree.clone();
    bytes[3 * 40 + 20] ^= 1;
    fs::write(damaged.path().join(storage::TREE), &bytes).unwrap();
    let repair = check(damaged.path(), 7, "parent").await.unwrap();
    assert_eq!((repair.lost, repair.length), (0, 7));
}

#[tokio::test]
async fn a_lost_bitfield_is_made_anew() {
    let dir = sample().await;
    for bytes in [&b""[..], b"x", &[0; 4096], &[0xff; 9000]] {
        let damaged = copy(dir.path());
        fs::write(damaged.path().join(storage::BITFIELD), bytes).unwrap();
        assert_eq!(check(damaged.path(), 7, "bitfield").await, None);
    }
}

#[tokio::test]
async fn garbage_behind_the_last_entry_is_cut() {
    let dir = sample().await;
    for garbage in [&b"\0\0\0\0"[..], &[0xff; 3], &[0xff; 300], &[0; 5000], &[1, 2, 3, 4, 2, 0, 0, 0, 9]] {
        let damaged = copy(dir.path());
        let path = damaged.path().join(storage::OPLOG);
        let bytes = [fs::read(&path).unwrap(), garbage.to_vec()].concat();
        fs::write(&path, bytes).unwrap();
        let repair = check(damaged.path(), 7, "garbage").await.unwrap();
        assert_eq!((repair.cut_bytes, repair.lost), (garbage.len() as u64, 0));
    }
}

#[tokio::test]
async fn history_that_was_signed_and_lost_makes_a_fork() {
    let dir = sample().await;
    let data = fs::read(dir.path().join(storage::DATA)).unwrap();
    fs::write(dir.path().join(storage::DATA), &data[..data.len() - 1]).unwrap();
    let (log, repair) = open(dir.path());
    assert_eq!(repair.unwrap().lost, 1);
    assert_eq!(log.info().fork, 1);
    fill(&log, 6..12).await;
    log.close().await;
    let (log, repair) = open(dir.path());
    assert_eq!((repair, log.info().fork, log.info().length), (None, 1, 12));
}

#[tokio::test]
async fn the_log_of_another_identity_is_left_alone() {
    let dir = sample().await;
    let before = fs::read(dir.path().join(storage::OPLOG)).unwrap();
    let error = LogHandle::open(dir.path(), &Keypair::generate_ed25519()).unwrap_err();
    assert_eq!(error.code(), "invalid");
    assert_eq!(fs::read(dir.path().join(storage::OPLOG)).unwrap(), before);
}

#[tokio::test]
async fn only_the_owner_can_read_the_files() {
    use std::os::unix::fs::PermissionsExt;
    let dir = scratch();
    let folder = dir.path().join("core/log");
    let (log, _) = open(&folder);
    fill(&log, 0..1).await;
    for name in FILES {
        assert_eq!(fs::metadata(folder.join(name)).unwrap().permissions().mode() & 0o777, 0o600, "{name}");
    }
    assert_eq!(fs::metadata(&folder).unwrap().permissions().mode() & 0o777, 0o700);
}

/// More blocks than the crate's bitfield can be read back with.
#[tokio::test]
async fn a_long_log_opens_again() {
    let dir = scratch();
    let (log, _) = open(dir.path());
    const MANY: u64 = 33_000;
    let appends = (0..MANY).map(|n| {
        let log = log.clone();
        async move { log.append("test", json!({"n": n}), "me").await.unwrap() }
    });
    futures::future::join_all(appends).await;
    log.close().await;
    for round in 0..3 {
        let (log, repair) = open(dir.path());
        assert_eq!(repair, None);
        assert_eq!(log.info().length, MANY + round);
        for from in [0, 1023, 8191, 8192, 32_767, 32_768, MANY - 1] {
            assert_eq!(log.read(from, 1).await.unwrap()[0]["type"], "test", "{from}");
        }
        log.append("test", json!({"n": 0}), "me").await.unwrap();
        log.close().await;
    }
}

#[test]
fn a_grown_tree_is_the_one_that_is_proven() {
    let mut grower = tree::Grower::default();
    for n in 0..100u64 {
        let hash = hypercore_schema::Hash::data(&n.to_le_bytes()).as_bytes().to_vec();
        grower.push(Node::new(2 * n, hash, 8));
        let unflushed = grower.nodes.iter().map(|node| (node.index, node.clone())).collect();
        let mut nodes = tree::Nodes { file: &[], unflushed };
        assert_eq!(nodes.proven_roots(n + 1).unwrap(), grower.roots);
        assert_eq!(tree::byte_length(&grower.roots), Some(8 * (n + 1)));
        // A single leaf is proven by the signature over the roots alone.
        if n > 0
            && let Some(leaf) = nodes.unflushed.get_mut(&n)
        {
            leaf.length += 1;
            assert_eq!(nodes.proven_roots(n + 1), None);
        }
    }
}
