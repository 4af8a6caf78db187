//! The transport: TCP, then the cluster's pre-shared key (pnet), then Noise, then Yamux.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use libp2p::{
    Multiaddr, PeerId, Transport,
    core::{
        ConnectedPoint,
        muxing::StreamMuxerBox,
        transport::{Boxed, DialOpts, ListenerId, PortUse, TransportError, TransportEvent},
        upgrade::Version,
    },
    identity::Keypair,
    noise,
    pnet::{PnetConfig, PreSharedKey},
    tcp, yamux,
};
use tokio::net::TcpStream;
use tokio_util::compat::{Compat, TokioAsyncReadCompatExt};

use crate::{Error, Result};

/// How long connecting may take, handshakes included; a peer of another cluster often just says nothing.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a peer's kernel may leave bytes of ours unacknowledged (`TCP_USER_TIMEOUT`, RFC 5482). After an outage this
/// long a new connection is up sooner than the old one goes on: TCP tries again after ever longer waits.
const UNACKNOWLEDGED_MAX: Duration = Duration::from_secs(15);
/// Substreams that one connection may have.
const SUBSTREAMS_MAX: usize = 1024;

/// Builds the transport.
pub fn build(keypair: &Keypair, network_key: [u8; 32]) -> Result<Boxed<(PeerId, StreamMuxerBox)>> {
    let private = PnetConfig::new(PreSharedKey::new(network_key));
    let noise = noise::Config::new(keypair).map_err(|e| Error::Internal(format!("noise: {e}")))?;
    let mut muxer = yamux::Config::default();
    muxer.set_max_num_streams(SUBSTREAMS_MAX);
    let tcp = tcp::tokio::Transport::new(tcp::Config::default().nodelay(true));
    Ok(NewPort(tcp)
        .and_then(move |socket, _: ConnectedPoint| private.handshake(impatient(socket)))
        .upgrade(Version::V1Lazy)
        .authenticate(noise)
        .multiplex(muxer)
        .timeout(HANDSHAKE_TIMEOUT)
        .boxed())
}

/// Such that the connection ends with an error when the peer's machine is not heard from for [`UNACKNOWLEDGED_MAX`], also
/// while it is being closed. Without this it would take the kernel a quarter of an hour to give up.
fn impatient(socket: tcp::tokio::TcpStream) -> Compat<TcpStream> {
    let socket = TcpStream::from(socket);
    #[cfg(target_os = "linux")]
    {
        let milliseconds = u32::try_from(UNACKNOWLEDGED_MAX.as_millis()).unwrap_or(u32::MAX);
        // It is a connection without it, too: then pings that stay unanswered end it.
        if let Err(error) = rustix::net::sockopt::set_tcp_user_timeout(&socket, milliseconds) {
            tracing::debug!(%error, "a connection without a time limit for acknowledgements");
        }
    }
    socket.compat()
}

/// Dials from a fresh port always. Two agents that dial each other at the same instant from their listening ports would
/// meet in one TCP connection on which both believe to have dialled, and its handshake fails.
struct NewPort<T>(T);

impl<T: Transport + Unpin> Transport for NewPort<T> {
    type Output = T::Output;
    type Error = T::Error;
    type ListenerUpgrade = T::ListenerUpgrade;
    type Dial = T::Dial;

    fn listen_on(
        &mut self,
        id: ListenerId,
        address: Multiaddr,
    ) -> std::result::Result<(), TransportError<Self::Error>> {
        self.0.listen_on(id, address)
    }

    fn remove_listener(&mut self, id: ListenerId) -> bool {
        self.0.remove_listener(id)
    }

    fn dial(
        &mut self,
        address: Multiaddr,
        options: DialOpts,
    ) -> std::result::Result<Self::Dial, TransportError<Self::Error>> {
        self.0.dial(address, DialOpts { port_use: PortUse::New, ..options })
    }

    fn poll(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<TransportEvent<Self::ListenerUpgrade, Self::Error>> {
        Pin::new(&mut self.0).poll(cx)
    }
}
