//! Keeping records alive. What too few others hold is given to them as soon as there is somebody; an agent that comes is
//! asked what it lacks of the records that it should hold; and a paced walk over the disk does the same for all holders
//! once in 24 hours.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use futures::{StreamExt, stream};
use libp2p::PeerId;
use rand::Rng;
use tokio::{
    sync::{
        Notify, Semaphore,
        broadcast::{self, error::RecvError},
    },
    time::{interval, sleep},
};

use super::{
    facade::Inner,
    replicas::{ANSWER_TIMEOUT, Held, LACKS_MAX},
    store::Entry,
};
use crate::{
    Error, Result,
    net::{NetEvent, shared::now_ms},
};

/// Pause between steps of the walk.
const STEP: Duration = Duration::from_secs(30);
/// Steps in 24 hours.
const STEPS_PER_DAY: u64 = 24 * 60 * 60 / 30;
/// Records written or given at once.
const IN_FLIGHT: usize = 8;
/// Tries to bring one agent up to date, and the pause between them.
const SYNC_TRIES: u32 = 3;
const SYNC_RETRY: Duration = Duration::from_secs(2);
/// Agents that are brought up to date at once, and the pause between the portions that each is asked about.
const SYNCS_MAX: usize = 2;
const SYNC_PAUSE: Duration = Duration::from_millis(20);
/// Pending records tried at one go after a failure.
const PENDING_STEP: usize = 64;

/// Begins what runs until the DHT is dropped.
pub(super) fn start(inner: &Arc<Inner>, events: broadcast::Receiver<NetEvent>) {
    let stop = inner.stop.clone();
    tokio::spawn(stop.clone().run_until_cancelled_owned(pending(Arc::downgrade(inner), inner.chance.clone())));
    tokio::spawn(stop.clone().run_until_cancelled_owned(walk(Arc::downgrade(inner))));
    tokio::spawn(stop.run_until_cancelled_owned(newcomers(Arc::downgrade(inner), inner.kad.routed(), events)));
    inner.chance.notify_one();
}

/// Gives pending records to others whenever there is a chance.
async fn pending(weak: Weak<Inner>, chance: Arc<Notify>) {
    let mut cursor = None;
    loop {
        tokio::select! {
            () = chance.notified() => cursor = None,
            () = sleep(STEP) => {}
        }
        let Some(inner) = weak.upgrade() else { return };
        let mut failures = 0;
        while failures < PENDING_STEP {
            let entries = inner.store.pending(cursor.as_deref(), PENDING_STEP).unwrap_or_default();
            cursor = entries.last().map(|entry| entry.place.clone());
            if entries.is_empty() {
                break;
            }
            let given = stream::iter(entries).map(|entry| give_pending(&inner, entry)).buffer_unordered(IN_FLIGHT);
            let outcomes: Vec<Result<usize>> = given.collect().await;
            failures += outcomes.iter().filter(|outcome| !matches!(outcome, Ok(1..))).count();
        }
    }
}

async fn give_pending(inner: &Arc<Inner>, entry: Entry) -> Result<usize> {
    let key = entry.key().ok_or(Error::Closed)?;
    let replicas = match inner.store.at(&entry.place) {
        Some(record) if entry.until > now_ms() => inner.replicate(key, record).await?,
        // Its time is over: nothing to give.
        _ => 1,
    };
    if replicas > 0 {
        inner.store.settle(entry.place.clone()).await;
    }
    Ok(replicas)
}

/// Brings agents up to date that come, or come back.
async fn newcomers(
    weak: Weak<Inner>,
    mut routed: broadcast::Receiver<PeerId>,
    mut events: broadcast::Receiver<NetEvent>,
) {
    let present = Arc::new(Mutex::new(HashSet::<PeerId>::new()));
    let room = Arc::new(Semaphore::new(SYNCS_MAX));
    loop {
        tokio::select! {
            peer = routed.recv() => match peer {
                Ok(peer) => {
                    let Some(inner) = weak.upgrade() else { return };
                    inner.chance.notify_one();
                    if present.lock().unwrap_or_else(PoisonError::into_inner).insert(peer) {
                        let (stop, room) = (inner.stop.clone(), room.clone());
                        let (weak, present) = (weak.clone(), present.clone());
                        tokio::spawn(stop.run_until_cancelled_owned(async move {
                            let Ok(_permit) = room.acquire_owned().await else { return };
                            // A new member may not know yet that this agent is one, too.
                            for _ in 0..SYNC_TRIES {
                                match sync(&weak, peer).await {
                                    Ok(()) => return,
                                    Err(error) => tracing::debug!(%peer, %error, "an agent could not be brought up to date"),
                                }
                                sleep(SYNC_RETRY).await;
                            }
                            present.lock().unwrap_or_else(PoisonError::into_inner).remove(&peer);
                        }));
                    }
                }
                Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return,
            },
            event = events.recv() => match event {
                Ok(NetEvent::PeerDown { peer }) => {
                    if let Ok(peer) = peer.parse() {
                        present.lock().unwrap_or_else(PoisonError::into_inner).remove(&peer);
                    }
                }
                Ok(_) | Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return,
            },
        }
    }
}

/// Asks one agent what it lacks of all it should hold, from a random place on, so that those who do the same at this
/// moment share the work.
async fn sync(weak: &Weak<Inner>, peer: PeerId) -> Result<()> {
    let begin = format!("/chorus/{}", ["agent", "block", "content", "decision"][rand::rng().random_range(0..4)]);
    let begin = format!("{begin}/{:02x}", rand::rng().random::<u8>()).into_bytes();
    for (mut cursor, end) in [(Some(begin.clone()), None), (None, Some(begin))] {
        loop {
            let inner = weak.upgrade().ok_or(Error::Closed)?;
            let mut entries = inner.store.walk(cursor.as_deref(), LACKS_MAX)?;
            if let Some(end) = &end {
                entries.retain(|entry| entry.place <= *end);
            }
            let Some(last) = entries.last() else { break };
            cursor = Some(last.place.clone());
            let mut meant = Vec::new();
            for entry in entries {
                let Some(key) = entry.key() else { continue };
                if inner.kad.closest(key.as_bytes(), ANSWER_TIMEOUT).await?.peers.contains(&peer) {
                    meant.push(entry);
                }
            }
            give(&inner, peer, meant).await?;
            drop(inner);
            sleep(SYNC_PAUSE).await;
        }
    }
    Ok(())
}

/// The walk over everything that is held, so paced that it takes a day.
async fn walk(weak: Weak<Inner>) {
    let mut cursor: Option<Vec<u8>> = None;
    let mut due = 0;
    let mut steps = interval(STEP);
    loop {
        steps.tick().await;
        let Some(inner) = weak.upgrade() else { return };
        due += inner.store.len().unwrap_or(0);
        let mut count = usize::try_from(due / STEPS_PER_DAY).unwrap_or(usize::MAX);
        due %= STEPS_PER_DAY;
        while count > 0 {
            let entries = inner.store.walk(cursor.as_deref(), count.min(LACKS_MAX)).unwrap_or_default();
            count = count.saturating_sub(entries.len());
            cursor = entries.last().map(|entry| entry.place.clone());
            if entries.is_empty() {
                break; // the end: the next step begins anew
            }
            for (peer, meant) in by_holder(&inner, entries).await {
                let _ = give(&inner, peer, meant).await;
            }
        }
    }
}

async fn by_holder(inner: &Inner, entries: Vec<Entry>) -> HashMap<PeerId, Vec<Entry>> {
    let mut meant: HashMap<PeerId, Vec<Entry>> = HashMap::new();
    for entry in entries {
        let Some(key) = entry.key() else { continue };
        let closest = inner.kad.closest(key.as_bytes(), ANSWER_TIMEOUT).await.unwrap_or_default();
        for peer in closest.peers {
            meant.entry(peer).or_default().push(entry.clone());
        }
    }
    meant
}

/// Gives an agent those of some records that it lacks.
pub(super) async fn give(inner: &Inner, peer: PeerId, entries: Vec<Entry>) -> Result<()> {
    let now = now_ms();
    let live: Vec<Entry> = entries.into_iter().filter(|entry| entry.until > now && entry.names().is_some()).collect();
    let held = live.iter().filter_map(|entry| {
        let (key, author, role) = entry.names()?;
        Some(Held { key: key.into(), author: author.into(), role: role.map(Into::into), version: entry.version })
    });
    let held: Vec<Held> = held.collect();
    if held.is_empty() {
        return Ok(());
    }
    let lacks = inner.replicas.lacks(peer, held).await?;
    // A place that was not asked about is nothing to give.
    let wanted: HashSet<usize> = lacks.into_iter().filter(|at| *at < live.len()).collect();
    let puts = wanted.into_iter().map(|at| {
        let entry = &live[at];
        async move {
            if let (Some(key), Some(record)) = (entry.key(), inner.store.at(&entry.place)) {
                // One that is refused is the other's to refuse.
                let _ = inner.replicas.put(peer, key, record).await;
            }
        }
    });
    stream::iter(puts).buffer_unordered(IN_FLIGHT).for_each(|()| async {}).await;
    Ok(())
}
