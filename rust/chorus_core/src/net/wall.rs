//! The wall between members and strangers: who may ask this agent what. A stranger, which holds the network key and no
//! more, is served what it needs to become a member; a member everything that is offered to peers. Requests, byte
//! streams, Raft's lanes and Kademlia all ask here. Who is a member is decided by the replicated log.

use std::{
    collections::HashSet,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use libp2p::PeerId;
use tokio::{sync::watch, time::timeout};

use crate::{Error, Result};

/// The service through which an agent joins.
const JOINING_SERVICE: &str = "mesh";
/// What that service tells strangers; one that was removed learns it by `standing`.
const TOLD_METHODS: [&str; 2] = ["info", "standing"];
/// What of it only who is about to join calls.
const CLAIMING_METHODS: [&str; 2] = ["challenge", "join"];
/// How long a peer that is not listed waits for the log to list it: a new member may ask before the news of its
/// admission has arrived here. An append and its commit travel in far less.
const NEWS_TIMEOUT: Duration = Duration::from_secs(2);

/// Who is a member now.
#[derive(Debug, Default)]
struct State {
    in_mesh: bool,
    members: HashSet<PeerId>,
}

/// The wall of one node. Without a mesh it stands only where `always` was asked for.
#[derive(Debug)]
pub struct Wall {
    always: bool,
    state: watch::Sender<State>,
    /// A copy that costs no lock: whether the wall stands at all.
    stands: AtomicBool,
    /// Who was a member and is none any more, until it is taken.
    left: Mutex<HashSet<PeerId>>,
}

impl Wall {
    /// A wall that stands as soon as this node is in a mesh; with `always` before that, too.
    pub fn new(always: bool) -> Self {
        Self {
            always,
            state: watch::Sender::new(State::default()),
            stands: AtomicBool::new(always),
            left: Mutex::default(),
        }
    }

    /// Replaces the list of members; returns those that left the mesh by it. When this node is in none any more, they
    /// are whom it asks for another.
    pub fn set_members(&self, in_mesh: bool, members: HashSet<PeerId>) -> HashSet<PeerId> {
        let gone: HashSet<PeerId> = match in_mesh {
            true => self.state.borrow().members.difference(&members).copied().collect(),
            false => HashSet::new(),
        };
        {
            let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
            left.retain(|peer| !members.contains(peer));
            left.extend(&gone);
        }
        self.state.send_replace(State { in_mesh, members });
        self.stands.store(self.always || in_mesh, Ordering::Release);
        gone
    }

    /// Those who were members and are none any more, each told once.
    pub fn take_left(&self) -> HashSet<PeerId> {
        std::mem::take(&mut *self.left.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether strangers are told from others here.
    pub fn stands(&self) -> bool {
        self.stands.load(Ordering::Acquire)
    }

    /// Whether this node is in a mesh, so that it has members to keep room for.
    pub fn in_mesh(&self) -> bool {
        self.state.borrow().in_mesh
    }

    /// Whether the peer is listed as a member.
    pub fn is_member(&self, peer: &PeerId) -> bool {
        self.state.borrow().members.contains(peer)
    }

    /// Whether the peer may use what is for members.
    pub fn permits(&self, peer: &PeerId) -> bool {
        !self.stands() || self.is_member(peer)
    }

    /// As [`permits`](Self::permits), with a moment's patience for a peer that has just joined.
    pub async fn permits_soon(&self, peer: &PeerId) -> bool {
        if self.permits(peer) {
            return true;
        }
        let mut news = self.state.subscribe();
        let listed = news.wait_for(|state| state.members.contains(peer));
        matches!(timeout(NEWS_TIMEOUT, listed).await, Ok(Ok(_)))
    }

    /// Lets a request or stream of a peer through, or says why not.
    ///
    /// # Errors
    /// `not_permitted` for a stranger that asks for anything but to join.
    pub async fn admit(&self, peer: &PeerId, service: &str, method: &str) -> Result<()> {
        if is_joining(service, method) || self.permits_soon(peer).await {
            return Ok(());
        }
        let what = format!("{service}.{method}").chars().filter(|c| !c.is_control()).take(80).collect::<String>();
        Err(Error::NotPermitted(format!("{what} is served to members of this agent's mesh only: join the mesh first")))
    }
}

/// Whether a method is one that strangers may call.
pub fn is_joining(service: &str, method: &str) -> bool {
    is_claim(service, method) || (service == JOINING_SERVICE && TOLD_METHODS.contains(&method))
}

/// Whether a call of it claims that the caller is about to join.
pub fn is_claim(service: &str, method: &str) -> bool {
    service == JOINING_SERVICE && CLAIMING_METHODS.contains(&method)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed test is a panic")]
mod tests {
    use super::*;

    #[tokio::test]
    async fn strangers_are_served_what_joining_takes_and_nothing_else() {
        let (member, stranger) = (PeerId::random(), PeerId::random());
        let asks = [("mesh", "info"), ("mesh", "standing"), ("mesh", "challenge"), ("mesh", "join")];
        assert_eq!(asks.map(|(service, method)| is_claim(service, method)), [false, false, true, true]);
        let refused = [
            ("output", "logs"),
            ("coordinator", "blobs.get"),
            ("_raft", "propose"),
            ("_dht", "get"),
            ("mesh", "last"),
            ("mesh", "remove"),
        ];
        // (asked for always, in a mesh) and whether a stranger is kept to what joining takes.
        for (always, in_mesh, stands) in
            [(false, false, false), (true, false, true), (false, true, true), (true, true, true)]
        {
            let wall = Wall::new(always);
            wall.set_members(in_mesh, HashSet::from([member]));
            assert_eq!(wall.stands(), stands);
            for (service, method) in asks {
                assert!(wall.admit(&stranger, service, method).await.is_ok());
            }
            for (service, method) in refused {
                assert_eq!(matches!(wall.admit(&stranger, service, method).await, Err(Error::NotPermitted(_))), stands);
                assert!(wall.admit(&member, service, method).await.is_ok());
            }
        }
    }

    #[tokio::test]
    async fn who_has_just_joined_waits_for_the_news_and_who_was_removed_is_a_stranger() {
        let (wall, peer) = (Wall::new(true), PeerId::random());
        wall.set_members(true, HashSet::new());
        let (admitted, ()) = tokio::join!(wall.admit(&peer, "coordinator", "renew"), async {
            tokio::task::yield_now().await;
            wall.set_members(true, HashSet::from([peer]));
        });
        assert!(admitted.is_ok());
        wall.set_members(true, HashSet::new());
        assert!(wall.admit(&peer, "coordinator", "renew").await.is_err());
    }

    #[test]
    fn who_left_is_told_once_and_not_when_it_came_back_or_when_this_node_left() {
        let (wall, own, other) = (Wall::new(true), PeerId::random(), PeerId::random());
        let both = HashSet::from([own, other]);
        wall.set_members(true, both.clone());
        assert!(wall.take_left().is_empty());
        wall.set_members(true, HashSet::from([own]));
        assert_eq!(wall.take_left(), HashSet::from([other]));
        assert!(wall.take_left().is_empty());
        wall.set_members(true, both.clone());
        wall.set_members(true, HashSet::from([own]));
        wall.set_members(true, both);
        assert!(wall.take_left().is_empty());
        wall.set_members(false, HashSet::new());
        assert!(wall.take_left().is_empty());
    }
}
