//! Finding agents on the local network: `_chorus-peer-discovery._udp.local` with a `dnsaddr=` record per address.
//!
//! Every address is an instance of its own, announced only on the interface that it belongs to, because readers keep only
//! the first `dnsaddr` of an instance and a loopback address is of use on this machine only.

use std::{collections::HashMap, net::IpAddr};

use libp2p::{Multiaddr, PeerId};
use mdns_sd::{IfKind, ServiceDaemon, ServiceEvent, ServiceInfo};
use tokio::sync::mpsc;

use super::{
    addresses::{ip_of, port_of, worth_keeping},
    behaviour::without_peer,
};
use crate::{Error, Result};

/// Type under which agents announce themselves.
const SERVICE_TYPE: &str = "_chorus-peer-discovery._udp.local.";
/// Length of `chorus-peer-discovery`; the crate allows 15 by default, as RFC 6763 wishes.
const SERVICE_NAME_LEN: u8 = 21;
/// Addresses announced.
const ANNOUNCED_MAX: usize = 8;
/// Findings waiting for the loop; more are seen again at the next announcement.
const FOUND_QUEUE: usize = 256;

/// A peer found on the local network.
#[derive(Debug)]
pub struct Found {
    pub peer: PeerId,
    pub address: Multiaddr,
}

/// Announces this agent and finds others until dropped.
pub struct Mdns {
    daemon: ServiceDaemon,
    local: PeerId,
    /// Instance names of what is announced.
    announced: HashMap<Multiaddr, String>,
}

impl Mdns {
    /// Starts browsing; what is found comes out of the receiver.
    pub fn start(local: PeerId) -> Result<(Self, mpsc::Receiver<Found>)> {
        let daemon = ServiceDaemon::new().map_err(failed)?;
        daemon.set_service_name_len_max(SERVICE_NAME_LEN).map_err(failed)?;
        let events = daemon.browse(SERVICE_TYPE).map_err(failed)?;
        let (sender, receiver) = mpsc::channel(FOUND_QUEUE);
        tokio::spawn(async move {
            while let Ok(event) = events.recv_async().await {
                let ServiceEvent::ServiceResolved(service) = event else { continue };
                let found = service.get_property_val_str("dnsaddr").and_then(|text| read(text, local));
                if let Some(found) = found
                    && matches!(sender.try_send(found), Err(mpsc::error::TrySendError::Closed(_)))
                {
                    return;
                }
            }
        });
        Ok((Self { daemon, local, announced: HashMap::new() }, receiver))
    }

    /// Announces exactly these listen addresses from now on.
    pub fn announce(&mut self, listen: &[Multiaddr]) {
        let gone: Vec<Multiaddr> = self.announced.keys().filter(|address| !listen.contains(address)).cloned().collect();
        for address in gone {
            if let Some(name) = self.announced.remove(&address) {
                let _ = self.daemon.unregister(&name);
            }
        }
        for address in listen.iter().filter(|address| worth_keeping(address, None)) {
            if self.announced.contains_key(address) || self.announced.len() >= ANNOUNCED_MAX {
                continue;
            }
            match self.register(address) {
                Ok(name) => {
                    self.announced.insert(address.clone(), name);
                }
                Err(error) => tracing::warn!(%address, %error, "mDNS does not announce this address"),
            }
        }
    }

    fn register(&self, address: &Multiaddr) -> Result<String> {
        let (Some(ip), Some(port)) = (ip_of(address), port_of(address)) else {
            return Err(Error::Invalid("no IP address and TCP port".into()));
        };
        // Unique without telling who is who: a random name for every address and start.
        let instance = hex::encode(rand::random::<[u8; 16]>());
        let properties = [("dnsaddr", format!("{address}/p2p/{}", self.local))];
        let mut info =
            ServiceInfo::new(SERVICE_TYPE, &instance, &format!("{instance}.local."), ip, port, &properties[..])
                .map_err(failed)?;
        info.set_interfaces(vec![match ip {
            IpAddr::V4(v4) if v4.is_loopback() => IfKind::LoopbackV4,
            IpAddr::V6(v6) if v6.is_loopback() => IfKind::LoopbackV6,
            other => IfKind::Addr(other),
        }]);
        // The random name needs no probing, and peers are found a second earlier without it.
        info.set_requires_probe(false);
        let name = info.get_fullname().to_owned();
        self.daemon.register(info).map_err(failed)?;
        Ok(name)
    }

    /// Says goodbye and ends the daemon.
    pub fn stop(&mut self) {
        for (_, name) in self.announced.drain() {
            let _ = self.daemon.unregister(&name);
        }
        let _ = self.daemon.shutdown();
    }
}

impl Drop for Mdns {
    fn drop(&mut self) {
        self.stop();
    }
}

fn read(text: &str, local: PeerId) -> Option<Found> {
    let (address, peer) = without_peer(&text.parse().ok()?);
    let peer = peer.filter(|peer| *peer != local)?;
    worth_keeping(&address, None).then_some(Found { peer, address })
}

fn failed(error: mdns_sd::Error) -> Error {
    Error::Unavailable(format!("mDNS: {error}"))
}
