//! Addresses: which ones are worth keeping, and names resolved to all that stand behind them.

use std::net::{IpAddr, SocketAddr};

use libp2p::{Multiaddr, multiaddr::Protocol};
use rustix::{
    io::Errno,
    net::{self, AddressFamily, SocketFlags, SocketType, sockopt},
};

use crate::{Error, Result};

/// Addresses that one name may stand for.
const RESOLVED_MAX: usize = 256;

/// The IP address at the start of a multiaddr.
pub fn ip_of(address: &Multiaddr) -> Option<IpAddr> {
    match address.iter().next()? {
        Protocol::Ip4(ip) => Some(ip.into()),
        Protocol::Ip6(ip) => Some(ip.into()),
        _ => None,
    }
}

/// The TCP port of a multiaddr.
pub fn port_of(address: &Multiaddr) -> Option<u16> {
    address.iter().find_map(|part| match part {
        Protocol::Tcp(port) => Some(port),
        _ => None,
    })
}

/// Whether another program serves this port of this machine. Whatever else is wrong with it shows when libp2p binds.
pub fn is_taken(address: &Multiaddr) -> bool {
    let (Some(ip), Some(port)) = (ip_of(address), port_of(address)) else { return false };
    matches!(bind_alone(SocketAddr::new(ip, port)), Err(Errno::ADDRINUSE))
}

/// Binds as libp2p does, but shares the port with nobody. `::` is for IPv6 alone: the agent itself may have `0.0.0.0`.
fn bind_alone(address: SocketAddr) -> rustix::io::Result<()> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = net::socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    if address.is_ipv6() {
        sockopt::set_ipv6_v6only(&socket, true)?;
    }
    net::bind(&socket, &address)
}

/// Whether a peer's listen address is worth remembering for one that we see at `seen`: a loopback address of a peer on
/// another machine leads to ourselves.
pub fn worth_keeping(address: &Multiaddr, seen: Option<IpAddr>) -> bool {
    let Some(ip) = ip_of(address) else { return false };
    let reachable = match ip {
        IpAddr::V4(v4) => !v4.is_unspecified() && !v4.is_multicast() && !v4.is_broadcast(),
        // A link-local address means nothing without its interface.
        IpAddr::V6(v6) => !v6.is_unspecified() && !v6.is_multicast() && !v6.is_unicast_link_local(),
    };
    reachable
        && port_of(address).is_some_and(|port| port > 0)
        && (!ip.is_loopback() || seen.is_none_or(|seen| seen.is_loopback()))
}

/// All addresses behind a multiaddr; those without a name are returned as they are.
pub async fn resolve(address: &Multiaddr) -> Result<Vec<Multiaddr>> {
    let mut parts = address.iter();
    let (name, wants_v4, wants_v6) = match parts.next() {
        Some(Protocol::Dns(name)) => (name.into_owned(), true, true),
        Some(Protocol::Dns4(name)) => (name.into_owned(), true, false),
        Some(Protocol::Dns6(name)) => (name.into_owned(), false, true),
        Some(Protocol::Ip4(_) | Protocol::Ip6(_)) => return Ok(vec![address.clone()]),
        _ => {
            return Err(Error::Invalid(format!(
                "`{address}`: an address begins with /ip4, /ip6, /dns, /dns4 or /dns6"
            )));
        }
    };
    let rest: Vec<Protocol<'_>> = parts.collect();
    let found = lookup(&name).await.map_err(|e| Error::Unavailable(format!("`{name}` cannot be resolved: {e}")))?;
    let mut all: Vec<Multiaddr> = Vec::new();
    for ip in found.into_iter().filter(|ip| if ip.is_ipv4() { wants_v4 } else { wants_v6 }).take(RESOLVED_MAX) {
        let mut resolved = Multiaddr::from(ip);
        rest.iter().for_each(|part| resolved.push(part.clone()));
        if !all.contains(&resolved) {
            all.push(resolved);
        }
    }
    if all.is_empty() {
        return Err(Error::Unavailable(format!("`{name}` has no address of the wanted kind")));
    }
    Ok(all)
}

/// The IP addresses behind a name. The system is asked each time, and keeps no answer: what its files and its name server
/// say now counts.
async fn lookup(name: &str) -> std::io::Result<Vec<IpAddr>> {
    #[cfg(test)]
    if let Some(found) = names::of(name) {
        return Ok(found);
    }
    Ok(tokio::net::lookup_host((name, 0)).await?.map(|socket| socket.ip()).collect())
}

/// Names of a test's own, which stand for other addresses from one moment to the next.
#[cfg(test)]
pub mod names {
    use std::{
        collections::HashMap,
        net::IpAddr,
        sync::{LazyLock, Mutex},
    };

    static NAMES: LazyLock<Mutex<HashMap<String, Vec<IpAddr>>>> = LazyLock::new(Mutex::default);

    pub fn set(name: &str, addresses: &[&str]) {
        let addresses = addresses.iter().map(|address| address.parse().expect("an address")).collect();
        NAMES.lock().expect("no panic").insert(name.into(), addresses);
    }

    pub fn of(name: &str) -> Option<Vec<IpAddr>> {
        NAMES.lock().expect("no panic").get(name).cloned()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed test is a panic")]
mod tests {
    use super::*;

    #[tokio::test]
    async fn names_resolve_and_keep_what_follows() {
        let all = resolve(&"/dns4/localhost/tcp/9000".parse().unwrap()).await.unwrap();
        assert_eq!(all, vec!["/ip4/127.0.0.1/tcp/9000".parse::<Multiaddr>().unwrap()]);
        assert!(resolve(&"/memory/1".parse().unwrap()).await.is_err());
    }

    #[test]
    fn a_port_is_taken_where_somebody_serves_it_and_nowhere_else() {
        let server = std::net::TcpListener::bind("0.0.0.0:0").unwrap();
        let port = server.local_addr().unwrap().port();
        let taken = |ip: &str| is_taken(&format!("/{ip}/tcp/{port}").parse().unwrap());
        assert!(taken("ip4/0.0.0.0"));
        assert!(taken("ip4/127.0.0.1"));
        // An agent listens on both.
        assert!(!taken("ip6/::"));
        drop(server);
        assert!(!taken("ip4/0.0.0.0"));
    }

    #[test]
    fn loopback_of_a_remote_machine_is_not_kept() {
        let loopback: Multiaddr = "/ip4/127.0.0.1/tcp/9000".parse().unwrap();
        assert!(worth_keeping(&loopback, Some([127, 0, 0, 1].into())));
        assert!(!worth_keeping(&loopback, Some([10, 0, 0, 1].into())));
        assert!(!worth_keeping(&"/ip4/0.0.0.0/tcp/9000".parse().unwrap(), None));
        assert!(!worth_keeping(&"/ip4/10.0.0.1/tcp/0".parse().unwrap(), None));
    }
}
