//! Which process serves which service, and what of it peers may ask. With rules, a service belongs to the process that
//! they name, and peers reach only the methods that they list, whatever the process offers: this is the one place where
//! calls of peers for an agent's own affairs are refused.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use serde::Deserialize;

use super::connection::Connection;
use crate::{Error, Result, net::CORE_PREFIX};

/// What an agent's configuration says of one service.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServiceRule {
    /// The process that may offer it, by the name of its `hello`.
    pub process: String,
    /// Methods and streams that peers may ask for; siblings may ask for all.
    #[serde(default)]
    pub peers: BTreeSet<String>,
}

/// All services that may be offered, by name.
pub type ServiceRules = BTreeMap<String, ServiceRule>;

const MAX_SERVICE_NAME_BYTES: usize = 128;
/// More services than all processes together have.
const MAX_SERVICES: usize = 1024;

#[derive(Debug, Default)]
pub(super) struct Services {
    /// `None`: every process may offer every service, and peers ask for all of what is offered to them.
    rules: Option<ServiceRules>,
    table: Mutex<HashMap<String, Offer>>,
}

#[derive(Debug)]
struct Offer {
    connection: Weak<Connection>,
    peers: bool,
}

impl Services {
    pub fn new(rules: Option<ServiceRules>) -> Self {
        Self { rules, table: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Offer>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives `service` to a process. The latest offer wins: a process that connects anew takes its services over.
    pub fn offer(&self, service: &str, peers: bool, connection: &Arc<Connection>) -> Result<()> {
        if service.is_empty() || service.len() > MAX_SERVICE_NAME_BYTES || service.starts_with(CORE_PREFIX) {
            return Err(Error::Invalid(format!(
                "service: 1 to {MAX_SERVICE_NAME_BYTES} bytes that do not begin with {CORE_PREFIX:?}"
            )));
        }
        if let Some(rules) = &self.rules {
            let process = connection.label();
            match rules.get(service) {
                Some(rule) if rule.process == process => {}
                Some(rule) => {
                    return Err(Error::NotPermitted(format!(
                        "the service {service} belongs to the process {}; {process} may not offer it",
                        rule.process
                    )));
                }
                None => {
                    return Err(Error::NotPermitted(format!(
                        "this agent has no service {service:?}; its services are {}",
                        rules.keys().map(String::as_str).collect::<Vec<_>>().join(", ")
                    )));
                }
            }
        }
        let mut table = self.lock();
        if table.len() >= MAX_SERVICES && !table.contains_key(service) {
            return Err(Error::TooLarge(format!("more than {MAX_SERVICES} services")));
        }
        table.insert(service.to_owned(), Offer { connection: Arc::downgrade(connection), peers });
        Ok(())
    }

    /// The process that serves `service`.
    pub fn find(&self, service: &str) -> Result<Arc<Connection>> {
        self.offered(service, false)
    }

    /// The process that serves `service`, for a peer that asks for `method`.
    pub fn find_for_peer(&self, service: &str, method: &str) -> Result<Arc<Connection>> {
        if let Some(rule) = self.rules.as_ref().and_then(|rules| rules.get(service))
            && !rule.peers.contains(method)
        {
            let method: String = method.chars().filter(|c| !c.is_control()).take(40).collect();
            return Err(Error::NotPermitted(format!("{service}.{method} is for this agent's own processes")));
        }
        self.offered(service, true)
    }

    fn offered(&self, service: &str, for_peer: bool) -> Result<Arc<Connection>> {
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
