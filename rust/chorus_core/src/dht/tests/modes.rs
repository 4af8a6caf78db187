//! Agents without Kademlia, and peers that a reader is told to ask.

use super::kit::{Node, Options, connected, content, mesh};
use crate::{
    Error,
    dht::{key::content_hash, manifest::BLOCK_BYTES},
};

async fn off(beside: &[&Node]) -> Node {
    Node::start(Options { dht: false, ..Options::default() }, beside).await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_author_without_the_dht_is_asked_directly_by_agents_of_both_modes() {
    let author = off(&[]).await;
    let (plain, with) = (off(&[&author]).await, Node::start(Options::default(), &[&author]).await);
    connected(&author, &plain).await;
    let (name, value) = content("kept at home");
    let large = vec![7; 3 * BLOCK_BYTES + 5];
    let large_name = content_hash(&large);
    assert_eq!(author.dht.put("content", &name, &value, None).await.unwrap().replicas, 0);
    author.dht.put("content", &large_name, &large, None).await.unwrap();
    let me = author.peer().to_string();
    author.dht.put("agent", &me, b"here I am", None).await.unwrap();
    for reader in [&plain, &with] {
        assert!(matches!(reader.dht.get("content", &name, &[]).await, Err(Error::NotFound(_))));
        let got = reader.dht.get("content", &name, &[author.peer()]).await.unwrap();
        assert_eq!((&got.bytes[..], got.author), (&value[..], me.clone()));
        assert!(reader.dht.get("content", &large_name, &[author.peer()]).await.unwrap().bytes == large);
        // Whose record it is, is in its name.
        assert_eq!(&reader.dht.get("agent", &me, &[]).await.unwrap().bytes[..], b"here I am");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_without_the_dht_gets_what_others_hold_there() {
    let [a, b] = mesh().await;
    let (name, value) = content("held by two");
    a.dht.put("content", &name, &value, None).await.unwrap();
    let reader = off(&[&a, &b]).await;
    let stranger = libp2p::PeerId::random();
    let got = reader.dht.get("content", &name, &[stranger, b.peer()]).await.unwrap();
    assert_eq!(&got.bytes[..], &value[..]);
    assert!(matches!(
        reader.dht.get("content", &content("nowhere").0, &[stranger, b.peer()]).await,
        Err(Error::NotFound(_))
    ));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_written_without_the_dht_goes_out_once_it_is_on() {
    let author = off(&[]).await;
    let (name, value) = content("later");
    let key = author.dht.put("content", &name, &value, None).await.unwrap().key;
    let options = author.stop().await;
    let other = Node::start(Options::default(), &[]).await;
    let author = Node::start(Options { dht: true, ..options }, &[&other]).await;
    super::kit::until("the other has it", || other.holds(&key)).await;
    drop(author);
}
