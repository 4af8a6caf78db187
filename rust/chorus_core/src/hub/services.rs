//! Which process serves which service.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use super::connection::Connection;
use crate::{Error, Result};

/// Services whose names begin like this belong to the core.
pub(super) const RESERVED_PREFIX: char = '_';
const MAX_SERVICE_NAME_BYTES: usize = 128;
/// More services than all processes together have.
const MAX_SERVICES: usize = 1024;

#[derive(Debug, Default)]
pub(super) struct Services {
    table: Mutex<HashMap<String, Offer>>,
}

#[derive(Debug)]
struct Offer {
    connection: Weak<Connection>,
    peers: bool,
}

impl Services {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Offer>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives `service` to a process; the latest offer wins.
    pub fn offer(&self, service: &str, peers: bool, connection: &Arc<Connection>) -> Result<()> {
        if service.is_empty() || service.len() > MAX_SERVICE_NAME_BYTES || service.starts_with(RESERVED_PREFIX) {
            return Err(Error::Invalid(format!(
                "service: 1 to {MAX_SERVICE_NAME_BYTES} bytes that do not begin with {RESERVED_PREFIX:?}"
            )));
        }
        let mut table = self.lock();
        if table.len() >= MAX_SERVICES && !table.contains_key(service) {
            return Err(Error::TooLarge(format!("more than {MAX_SERVICES} services")));
        }
        table.insert(service.to_owned(), Offer { connection: Arc::downgrade(connection), peers });
        Ok(())
    }

    /// The process that serves `service`, for a peer only when it was offered to peers.
    pub fn find(&self, service: &str, for_peer: bool) -> Result<Arc<Connection>> {
        self.lock()
            .get(service)
            .filter(|offer| offer.peers || !for_peer)
            .and_then(|offer| offer.connection.upgrade())
            .ok_or_else(|| Error::Unavailable(format!("nobody offers {service} here")))
    }

    /// Takes back what a connection offered, unless another has taken it over.
    pub fn withdraw(&self, connection: &Arc<Connection>) {
        self.lock().retain(|_, offer| !std::ptr::eq(offer.connection.as_ptr(), Arc::as_ptr(connection)));
    }
}
