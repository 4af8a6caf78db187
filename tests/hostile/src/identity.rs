//! One identity: a swarm of its own with one connection to the attacked agent.

use std::time::Duration;

use futures::StreamExt;
use libp2p::{
    Multiaddr, PeerId, Swarm, SwarmBuilder, Transport,
    core::{muxing::StreamMuxerBox, transport::Boxed, upgrade::Version},
    gossipsub::{self, IdentTopic, MessageAuthenticity, MessageId, PublishError, ValidationMode},
    identify,
    identity::Keypair,
    multiaddr::Protocol,
    noise, ping,
    pnet::{PnetConfig, PreSharedKey},
    swarm::{NetworkBehaviour, SwarmEvent},
    tcp, yamux,
};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::timeout,
};

use crate::Failure;

/// The topics that all agents follow.
const TOPICS: [&str; 6] = [
    "chorus/tasks",
    "chorus/coordination/v1",
    "hmmm/meta-discussion/v1",
    "chorus/election/v1",
    "chorus/decisions",
    "chorus/health",
];
/// Larger than any agent takes.
const TRANSMIT_MAX_BYTES: usize = 4 * 1024 * 1024;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);
/// A peer that is thrown out comes back as soon as this.
const REDIAL_EVERY: Duration = Duration::from_millis(500);

#[derive(NetworkBehaviour)]
struct Behaviour {
    gossip: gossipsub::Behaviour,
    identify: identify::Behaviour,
    ping: ping::Behaviour,
    streams: libp2p_stream::Behaviour,
}

/// What an identity's swarm is asked to publish.
pub struct Publish {
    pub topic: String,
    pub data: Vec<u8>,
    pub done: oneshot::Sender<Result<MessageId, PublishError>>,
}

/// A handle of one identity; its swarm runs in a task of its own.
pub struct Identity {
    pub peer: PeerId,
    pub keypair: Keypair,
    /// The attacked agent.
    pub target: PeerId,
    pub streams: libp2p_stream::Control,
    publish: mpsc::Sender<Publish>,
    /// Whether the agent is connected, and whether it follows the topics yet.
    state: watch::Receiver<(bool, bool)>,
}

impl Identity {
    /// Makes a new identity and dials the agent, again when it `returns` and the connection closes.
    pub fn start(network_key: [u8; 32], address: Multiaddr, returns: bool) -> Result<Self, Failure> {
        let keypair = Keypair::generate_ed25519();
        let peer = keypair.public().to_peer_id();
        let Some(Protocol::P2p(target)) = address.iter().last() else {
            return Err("the multiaddr must end in /p2p/PEER".into());
        };
        let mut swarm = SwarmBuilder::with_existing_identity(keypair.clone())
            .with_tokio()
            .with_other_transport(|key| transport(key, network_key))?
            .with_behaviour(behaviour)?
            .with_swarm_config(|config| config.with_idle_connection_timeout(Duration::from_secs(3600)))
            .build();
        for topic in TOPICS {
            swarm.behaviour_mut().gossip.subscribe(&IdentTopic::new(topic))?;
        }
        let streams = swarm.behaviour().streams.new_control();
        swarm.dial(address.clone())?;
        let (publish, wishes) = mpsc::channel(256);
        let (told, state) = watch::channel((false, false));
        tokio::spawn(drive(swarm, target, returns.then_some(address), wishes, told));
        Ok(Self { peer, keypair, target, streams, publish, state })
    }

    /// Waits until the agent is connected and known to follow the topics.
    pub async fn connected(&mut self) -> Result<(), Failure> {
        timeout(CONNECT_TIMEOUT, self.state.wait_for(|(connected, follows)| *connected && *follows))
            .await
            .map_err(|_| "the agent did not take the connection")??;
        Ok(())
    }

    /// Whether the connection still stands.
    pub fn is_connected(&self) -> bool {
        self.state.borrow().0
    }

    /// Signs and publishes any bytes.
    pub async fn publish(&self, topic: &str, data: Vec<u8>) -> Result<(), String> {
        let (done, answer) = oneshot::channel();
        let wish = Publish { topic: topic.into(), data, done };
        self.publish.send(wish).await.map_err(|_| "the swarm ended")?;
        match answer.await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err("the swarm ended".into()),
        }
    }
}

async fn drive(
    mut swarm: Swarm<Behaviour>,
    target: PeerId,
    returns_to: Option<Multiaddr>,
    mut wishes: mpsc::Receiver<Publish>,
    told: watch::Sender<(bool, bool)>,
) {
    let mut redial = tokio::time::interval(REDIAL_EVERY);
    loop {
        tokio::select! {
            _ = redial.tick() => {
                if let Some(address) = &returns_to
                    && !swarm.is_connected(&target)
                {
                    // Fails while a dial is under way; the next tick tries again.
                    let _ = swarm.dial(address.clone());
                }
            }
            wish = wishes.recv() => {
                let Some(Publish { topic, data, done }) = wish else { return };
                let _ = done.send(swarm.behaviour_mut().gossip.publish(IdentTopic::new(topic), data));
            }
            event = swarm.select_next_some() => match event {
                SwarmEvent::ConnectionEstablished { peer_id, .. } if peer_id == target => {
                    told.send_modify(|state| state.0 = true);
                }
                SwarmEvent::ConnectionClosed { peer_id, num_established: 0, .. } if peer_id == target => {
                    told.send_modify(|state| *state = (false, false));
                }
                SwarmEvent::Behaviour(BehaviourEvent::Gossip(gossipsub::Event::Subscribed { peer_id, .. }))
                    if peer_id == target =>
                {
                    told.send_modify(|state| state.1 = true);
                }
                _ => {}
            }
        }
    }
}

fn transport(keypair: &Keypair, network_key: [u8; 32]) -> Result<Boxed<(PeerId, StreamMuxerBox)>, Failure> {
    let private = PnetConfig::new(PreSharedKey::new(network_key));
    let noise = noise::Config::new(keypair)?;
    Ok(tcp::tokio::Transport::new(tcp::Config::default().nodelay(true))
        .and_then(move |socket, _| private.handshake(socket))
        .upgrade(Version::V1Lazy)
        .authenticate(noise)
        .multiplex(yamux::Config::default())
        .boxed())
}

fn behaviour(keypair: &Keypair) -> Result<Behaviour, Failure> {
    let config = gossipsub::ConfigBuilder::default()
        .validation_mode(ValidationMode::Strict)
        .max_transmit_size(TRANSMIT_MAX_BYTES)
        .flood_publish(true)
        .message_id_fn(|message| {
            let mut id = message.source.map(|source| source.to_bytes()).unwrap_or_default();
            id.extend_from_slice(&message.sequence_number.unwrap_or_default().to_be_bytes());
            MessageId::from(id)
        })
        .build()?;
    Ok(Behaviour {
        gossip: gossipsub::Behaviour::new(MessageAuthenticity::Signed(keypair.clone()), config)?,
        identify: identify::Behaviour::new(identify::Config::new("/chorus/1.0.0".into(), keypair.public())),
        ping: ping::Behaviour::default(),
        streams: libp2p_stream::Behaviour::new(),
    })
}
