#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{collections::HashMap, fs, path::Path};

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

/// Entries from a number on, over as many pages as it takes.
async fn read(log: &LogHandle, from: u64, count: u64) -> Vec<Value> {
    let mut query = Query { from: Some(from), count, ..Query::default() };
    let mut entries = Vec::new();
    loop {
        let page = log.page(query.clone()).await.unwrap();
        query.count -= page.entries.len() as u64;
        query.from = Some(page.next);
        entries.extend(page.entries.into_iter().map(|(_, entry)| Value::Object(entry)));
        if query.count == 0 || page.next >= page.length {
            return entries;
        }
    }
}

async fn numbers(log: &LogHandle) -> Vec<u64> {
    read(log, 0, 100_000).await.iter().map(|entry| entry["data"]["n"].as_u64().unwrap()).collect()
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
    let entry = &read(&log, 3, 1).await[0];
    assert_eq!((entry["type"].as_str(), entry["author"].as_str()), (Some("test"), Some("me")));
    assert!(entry["timestamp"].as_u64().unwrap() > 1_600_000_000_000);
    let key = keypair().public().try_into_ed25519().unwrap().to_bytes();
    assert_eq!(log.info().key, hex::encode(key));
    assert_eq!(log.info().fork, 0);
}

#[tokio::test]
async fn an_append_goes_between_the_slices_of_a_page() {
    let dir = scratch();
    let (log, _) = open(dir.path());
    let length = 20 * SLICE_ENTRIES as u64;
    futures::future::join_all((0..length).map(|n| log.append("test", json!({"n": n}), "me"))).await;
    log.close().await;
    let key = signing_key(&keypair()).unwrap();
    let (core, _) = open_core(dir.path(), &key).unwrap();
    let (changed, _) = watch::channel(describe(&core, &key));
    let mut writer = Writer { folder: dir.path().to_path_buf(), key, core: Some(core), info: changed };
    let (reply, mut answer) = oneshot::channel();
    let query = Query { from: Some(0), count: length, ..Query::default() };
    let mut reading = Reading { query, reply, page: None, scanned: 0, bytes: 0 };
    let mut slices = 1;
    let page = loop {
        if let Some(page) = writer.read_slice(&mut reading) {
            break page.unwrap();
        }
        slices += 1;
        writer.append_entries(&[br#"{"type": "later"}"#]).unwrap();
    };
    // The page is of the moment when it was begun, however much comes meanwhile.
    assert_eq!((page.length, page.next, page.entries.len() as u64), (length, length, length));
    assert!(slices >= 20, "{slices} slices");
    assert!(answer.try_recv().is_err());
}

#[tokio::test]
async fn pages_asked_for_before_the_end_are_answered() {
    let dir = scratch();
    let (log, _) = open(dir.path());
    fill(&log, 0..100).await;
    let asked = (0..3 * MAX_READINGS as u64).map(|n| {
        let log = log.clone();
        async move { log.page(Query { from: Some(n % 100), count: 1, ..Query::default() }).await }
    });
    let (pages, ()) = futures::join!(futures::future::join_all(asked), log.close());
    for (n, page) in pages.into_iter().enumerate() {
        assert_eq!(page.unwrap().entries[0].0, n as u64 % 100);
    }
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
    assert_eq!(read(&log, 5, 10).await.len(), 2);
    assert_eq!(read(&log, 2, 3).await.len(), 3);
    assert!(read(&log, 7, 1).await.is_empty());
    assert!(read(&log, u64::MAX, u64::MAX).await.is_empty());
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

/// As before, but so long that the last blocks alone are proven, and that the bitfield is set by an entry of the oplog.
#[tokio::test]
async fn a_long_log_is_cut_at_any_byte_too() {
    let many = repair::MAX_BITFIELD_BLOCKS + 100;
    let dir = scratch();
    let (log, _) = open(dir.path());
    let appends = (0..many).map(|n| {
        let log = log.clone();
        async move { log.append("test", json!({"n": n}), "me").await.unwrap() }
    });
    futures::future::join_all(appends).await;
    log.close().await;
    let opened = copy(dir.path());
    open(opened.path()).0.close().await;
    let grown = copy(opened.path());
    let (log, _) = open(grown.path());
    fill(&log, many..many + 3).await;
    log.close().await;
    for (what, dir) in [("closed", &dir), ("opened", &opened), ("grown", &grown)] {
        let raw = fs::read(dir.path().join(storage::OPLOG)).unwrap();
        let step = if raw.len() > 20_000 { 199 } else { 1 };
        for (nth, length) in (oplog::ENTRIES_AT..raw.len()).step_by(step).enumerate() {
            let damaged = copy(dir.path());
            fs::write(damaged.path().join(storage::OPLOG), &raw[..length]).unwrap();
            let kept = oplog::Oplog::parse(&raw[..length]).state().unwrap().length;
            let (log, repair) = open(damaged.path());
            assert_eq!(log.info().length, kept, "{what} cut to {length}");
            assert_eq!(repair.map_or(0, |repair| repair.lost), 0, "{what} cut to {length}");
            let number = log.append("test", json!({"n": kept}), "me").await.unwrap();
            assert_eq!(number, kept, "{what} cut to {length}");
            let last = read(&log, kept - 1, 9).await;
            assert_eq!((last.len(), &last[1]["data"]["n"]), (2, &json!(kept)), "{what} cut to {length}");
            log.close().await;
            // To verify a long log takes time.
            assert!(
                nth % 10 != 0 || verify(damaged.path()).is_ok_and(|verified| verified.checked == kept + 1),
                "{what} cut to {length}"
            );
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
    let sizes: Vec<usize> = read(&log, 0, 7).await.iter().map(|e| e.to_string().len()).collect();
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
            assert_eq!(read(&log, from, 1).await[0]["type"], "test", "{from}");
        }
        log.append("test", json!({"n": 0}), "me").await.unwrap();
        log.close().await;
    }
}

#[test]
fn a_grown_tree_is_the_one_that_is_proven() {
    let (empty, mut grower) = (tempfile::tempfile().unwrap(), tree::Grower::default());
    for n in 0..100u64 {
        let hash = hypercore_schema::Hash::data(&n.to_le_bytes()).as_bytes().to_vec();
        grower.push(Node::new(2 * n, hash, 8));
        let mut unflushed = grower.nodes.iter().map(|node| (node.index, node.clone())).collect::<HashMap<_, _>>();
        let prove =
            |unflushed: &HashMap<u64, Node>, from| tree::Nodes { file: &empty, unflushed }.proven_roots(n + 1, from);
        for from in [0, n / 2, n, n + 1] {
            assert_eq!(prove(&unflushed, from).unwrap(), grower.roots);
        }
        assert_eq!(tree::byte_length(&grower.roots), Some(8 * (n + 1)));
        // A single leaf is proven by the signature over the roots alone.
        if n > 0 {
            unflushed.get_mut(&n).unwrap().length += 1;
            assert_eq!(prove(&unflushed, 0), None);
        }
    }
}

#[tokio::test]
async fn pages_go_both_ways_and_by_type() {
    let dir = scratch();
    let (log, _) = open(dir.path());
    for n in 0..50u64 {
        log.append(if n % 10 == 3 { "rare" } else { "test" }, json!({"n": n}), "me").await.unwrap();
    }
    let page = |from, count, kind: Option<&str>, newest_first| {
        let query = Query { from, count, kind: kind.map(str::to_owned), newest_first };
        let log = log.clone();
        async move {
            let page = log.page(query).await.unwrap();
            assert!(page.entries.iter().all(|(number, entry)| entry["data"]["n"] == *number));
            assert_eq!(page.length, 50);
            (page.entries.iter().map(|(number, _)| *number).collect::<Vec<_>>(), page.next)
        }
    };
    assert_eq!(page(None, 3, None, false).await, (vec![0, 1, 2], 3));
    assert_eq!(page(Some(48), 9, None, false).await, (vec![48, 49], 50));
    assert_eq!(page(Some(50), 9, None, false).await, (vec![], 50));
    assert_eq!(page(Some(99), 9, None, false).await, (vec![], 99));
    assert_eq!(page(None, 2, None, true).await, (vec![49, 48], 48));
    assert_eq!(page(Some(2), 9, None, true).await, (vec![1, 0], 0));
    assert_eq!(page(Some(0), 9, None, true).await, (vec![], 0));
    assert_eq!(page(Some(99), 1, None, true).await, (vec![49], 49));
    assert_eq!(page(None, 2, Some("rare"), false).await, (vec![3, 13], 14));
    assert_eq!(page(Some(14), 9, Some("rare"), false).await, (vec![23, 33, 43], 50));
    assert_eq!(page(None, 2, Some("rare"), true).await, (vec![43, 33], 33));
    assert_eq!(page(None, 9, Some("none"), false).await, (vec![], 50));
    assert_eq!(page(None, 0, None, false).await, (vec![], 0));
}

#[tokio::test]
async fn a_page_ends_after_so_many_entries_looked_at() {
    let dir = scratch();
    let (log, _) = open(dir.path());
    let appends = (0..MAX_PAGE_SCAN + 10).map(|n| {
        let log = log.clone();
        async move { log.append("test", json!({"n": n}), "me").await.unwrap() }
    });
    futures::future::join_all(appends).await;
    let page = log.page(Query { count: 1, kind: Some("none".into()), ..Query::default() }).await.unwrap();
    assert_eq!((page.entries.len(), page.next, page.length), (0, MAX_PAGE_SCAN, MAX_PAGE_SCAN + 10));
}

#[tokio::test]
async fn who_watches_hears_of_every_append() {
    let dir = scratch();
    let (log, _) = open(dir.path());
    let mut watch = log.watch();
    assert_eq!(watch.borrow_and_update().length, 0);
    log.append("test", json!(1), "me").await.unwrap();
    watch.changed().await.unwrap();
    assert_eq!(watch.borrow_and_update().length, 1);
    log.close().await;
    assert!(watch.changed().await.is_err());
}

fn verify(folder: &Path) -> Result<Verified> {
    let mut verifier = Verifier::open(folder)?;
    while !verifier.step(2)? {}
    Ok(verifier.so_far())
}

#[tokio::test]
async fn a_log_is_verified_at_rest_and_while_it_grows() {
    let dir = sample().await;
    let verified = verify(dir.path()).unwrap();
    assert_eq!((verified.checked, verified.length, verified.fork, verified.unfinished), (7, 7, 0, None));
    let (log, _) = open(dir.path());
    assert_eq!((verified.key, verified.byte_length), (log.info().key, log.info().byte_length));
    assert_eq!(verified.peer_id, keypair().public().to_peer_id().to_string());
    let mut verifier = log.verifier().await.unwrap();
    assert!(!verifier.step(3).unwrap());
    fill(&log, 7..40).await;
    assert!(verifier.step(u64::MAX).unwrap());
    assert_eq!(verifier.so_far().checked, 7);
    let mut verifier = log.verifier().await.unwrap();
    assert!(verifier.step(u64::MAX).unwrap());
    assert_eq!(verifier.so_far().checked, 40);
    let empty = scratch();
    assert_eq!(verify(empty.path()).unwrap_err().code(), "not_found");
    let (log, _) = open(empty.path());
    log.close().await;
    assert_eq!(verify(empty.path()).unwrap().length, 0);
}

#[tokio::test]
async fn any_change_of_the_signed_files_is_found() {
    let dir = sample().await;
    for name in [storage::DATA, storage::TREE, storage::OPLOG] {
        let raw = fs::read(dir.path().join(name)).unwrap();
        for place in (0..raw.len()).step_by(3) {
            let damaged = copy(dir.path());
            let mut bytes = raw.clone();
            bytes[place] ^= 0x10;
            fs::write(damaged.path().join(name), &bytes).unwrap();
            let found = verify(damaged.path());
            match name {
                storage::DATA => assert_eq!(found.unwrap_err().code(), "tampered", "{name} {place}"),
                // Nodes that are in the oplog too stand over those in the file, padding behind a header is nothing, and
                // a bad entry of the oplog ends it: what is left is a shorter log, and signed.
                _ => assert!(found.is_err() || found.is_ok_and(|v| v.checked == v.length), "{name} {place}"),
            }
        }
    }
    // Without its oplog's entries the tree file stands alone: any node counts.
    let flushed = copy(dir.path());
    open(flushed.path()).0.close().await;
    let raw = fs::read(flushed.path().join(storage::TREE)).unwrap();
    // Nodes 7 and 11 would stand over an eighth entry.
    for place in (0..raw.len()).filter(|place| ![7, 11].contains(&(place / 40))) {
        let mut bytes = raw.clone();
        bytes[place] ^= 0x10;
        fs::write(flushed.path().join(storage::TREE), &bytes).unwrap();
        assert_eq!(verify(flushed.path()).unwrap_err().code(), "tampered", "{place}");
    }
}

#[tokio::test]
async fn a_log_of_another_key_does_not_verify() {
    let (dir, other) = (sample().await, scratch());
    let key = Keypair::ed25519_from_bytes([8; 32]).unwrap();
    let (log, _) = LogHandle::open(other.path(), &key).unwrap();
    for n in 0..7 {
        log.append("tset", json!({"n": n, "text": "x".repeat((n % 7) as usize * 11)}), "me").await.unwrap();
    }
    log.close().await;
    // Entries as long as these, under the other key.
    fs::copy(other.path().join(storage::OPLOG), dir.path().join(storage::OPLOG)).unwrap();
    assert_eq!(verify(dir.path()).unwrap_err().code(), "tampered");
    // A whole log of the other key is genuine, and says whose it is; to the agent that runs it is not its own.
    let verified = verify(other.path()).unwrap();
    assert_eq!(verified.peer_id, key.public().to_peer_id().to_string());
    let dir = sample().await;
    let (log, _) = open(dir.path());
    for name in FILES {
        fs::copy(other.path().join(name), dir.path().join(name)).unwrap();
    }
    assert_eq!(log.verifier().await.unwrap_err().code(), "tampered");
}

#[tokio::test]
async fn what_was_cut_off_is_said_and_the_rest_verified() {
    let dir = sample().await;
    let raw = fs::read(dir.path().join(storage::OPLOG)).unwrap();
    fs::write(dir.path().join(storage::OPLOG), &raw[..raw.len() - 1]).unwrap();
    let verified = verify(dir.path()).unwrap();
    assert_eq!(verified.length, 6);
    assert!(verified.unfinished.unwrap().ends_with("a torn entry"));
}

/// Rot far behind the end: the log opens and grows, nothing good is thrown away, and the verifier finds it.
#[tokio::test]
async fn old_damage_is_left_to_the_verifier() {
    const MANY: u64 = 300;
    let dir = scratch();
    let (log, _) = open(dir.path());
    fill(&log, 0..MANY).await;
    log.close().await;
    open(dir.path()).0.close().await;
    for name in [storage::TREE, storage::DATA] {
        let damaged = copy(dir.path());
        let mut bytes = fs::read(damaged.path().join(name)).unwrap();
        bytes[777] ^= 1;
        fs::write(damaged.path().join(name), &bytes).unwrap();
        let (log, repair) = open(damaged.path());
        assert_eq!((repair, log.info().length, log.info().fork), (None, MANY, 0), "{name}");
        fill(&log, MANY..MANY + 1).await;
        assert_eq!(read(&log, MANY - 1, 9).await.len(), 2);
        let mut verifier = log.verifier().await.unwrap();
        assert_eq!(verifier.step(u64::MAX).unwrap_err().code(), "tampered", "{name}");
    }
}

/// Figures, not assertions: `cargo test --release log::tests::growth -- --ignored --nocapture`.
#[tokio::test]
#[ignore = "a benchmark"]
async fn growth() {
    use std::time::Instant;
    let dir = tempfile::tempdir().unwrap();
    let (mut log, _) = open(dir.path());
    println!("entries     open  append   read  (µs, medians of 20)  verify");
    let mut length = 0u64;
    for goal in [100u64, 10_000, 1_000_000] {
        while length < goal {
            let appends = (0..(goal - length).min(1000)).map(|n| {
                let log = log.clone();
                async move { log.append("test", json!({"n": n, "text": "x".repeat(150)}), "me").await.unwrap() }
            });
            length += futures::future::join_all(appends).await.len() as u64;
        }
        let (mut opens, mut appends, mut reads) = (Vec::new(), Vec::new(), Vec::new());
        for round in 0..20u64 {
            log.close().await;
            let start = Instant::now();
            log = open(dir.path()).0;
            opens.push(start.elapsed());
            // The first writes the bitfield, once for each opening.
            for _ in 0..5 {
                let start = Instant::now();
                log.append("test", json!({"n": 0}), "me").await.unwrap();
                appends.push(start.elapsed());
                length += 1;
            }
            for n in 0..20u64 {
                let number = (round * 20 + n).wrapping_mul(0x9E37_79B9_7F4A_7C15) % length;
                let start = Instant::now();
                log.page(Query { from: Some(number), count: 1, ..Query::default() }).await.unwrap();
                reads.push(start.elapsed());
            }
        }
        for spans in [&mut opens, &mut appends, &mut reads] {
            spans.sort();
        }
        let [open, append, read] = [&opens, &appends, &reads].map(|spans| spans[spans.len() / 2].as_micros());
        let mut verifier = log.verifier().await.unwrap();
        let start = Instant::now();
        assert!(verifier.step(u64::MAX).unwrap());
        println!("{length:>7} {open:>8} {append:>7} {read:>6}  {:>27.1?}", start.elapsed());
    }
}
