//! A whole core: its runtime, its parts and its hub. The calls here are for threads that may wait, not for async code.

mod config;
mod parts;
mod transport;

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use serde_json::{Value, json};
use tokio::runtime::{Builder, Runtime};

pub use config::CoreConfig;

use crate::{Error, Result};
use parts::Running;

/// More threads than this bring nothing: the swarm is one task.
const MAX_DEFAULT_THREADS: usize = 4;
/// Cores of the machine for each thread: the agent's other processes need some too, and what one thread does of a message is
/// less work than waking a second one for it.
const CORES_PER_THREAD: usize = 2;
/// Parts that take longer to stop are left to the end of the process.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);

/// A running core. It belongs to the process that started it: after a fork the child is refused.
pub struct Core {
    pid: u32,
    state: Mutex<Option<(Runtime, Running)>>,
}

impl Core {
    /// Starts everything; answers when the hub's socket is there and the network listens.
    ///
    /// # Errors
    /// `invalid` for a bad configuration; else what keeps a part from starting.
    pub fn start(config: &CoreConfig) -> Result<Self> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let runtime = Builder::new_multi_thread()
            .worker_threads(config.threads.unwrap_or((cores / CORES_PER_THREAD).min(MAX_DEFAULT_THREADS)).max(1))
            .thread_name("chorus-core")
            .enable_all()
            .build()?;
        let running = runtime.block_on(Running::start(config))?;
        Ok(Self { pid: std::process::id(), state: Mutex::new(Some((runtime, running))) })
    }

    /// Stops everything, flushing what is to be kept; safe to call twice.
    ///
    /// # Errors
    /// `refused` in a forked child.
    pub fn stop(&self) -> Result<()> {
        self.check_process()?;
        let taken = self.state.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some((runtime, running)) = taken {
            let stopped = runtime.block_on(async { tokio::time::timeout(STOP_TIMEOUT, running.stop()).await });
            if stopped.is_err() {
                tracing::warn!("the core did not stop in time; it is left behind");
            }
            drop(running);
            runtime.shutdown_timeout(STOP_TIMEOUT);
        }
        Ok(())
    }

    /// Counters of every part.
    ///
    /// # Errors
    /// `closed` after the stop, `refused` in a forked child.
    pub fn stats(&self) -> Result<Value> {
        self.with(|running| running.parts.stats())
    }

    /// Who this core is and where it listens: `peer_id`, `agent_id`, `listen`, and which kind of `role_keys` it has.
    ///
    /// # Errors
    /// As [`stats`](Self::stats).
    pub fn info(&self) -> Result<Value> {
        self.with(|running| {
            let parts = &running.parts;
            json!({
                "peer_id": parts.local, "agent_id": parts.agent_id, "listen": parts.net.state().listen,
                "role_keys": parts.keys.current().kind(),
            })
        })
    }

    /// Another role counts from now on: for what is sealed and opened, and as the sender's role of messages.
    ///
    /// # Errors
    /// `invalid` for a role that is none or has no key; the former one still counts then. Else as [`stats`](Self::stats).
    pub fn set_role(&self, role: Option<&str>) -> Result<()> {
        self.with(|running| {
            running.parts.keys.set_role(role)?;
            running.parts.net.set_role(role);
            Ok(())
        })?
    }

    fn with<T>(&self, read: impl FnOnce(&Running) -> T) -> Result<T> {
        self.check_process()?;
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.as_ref().map(|(_, running)| read(running)).ok_or(Error::Closed)
    }

    fn check_process(&self) -> Result<()> {
        if std::process::id() == self.pid {
            return Ok(());
        }
        Err(Error::Refused("this core was started by another process; start one after the fork instead".into()))
    }
}

impl Drop for Core {
    fn drop(&mut self) {
        let taken = self.state.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        let Some((runtime, running)) = taken else { return };
        if std::process::id() == self.pid {
            drop(running);
            runtime.shutdown_background();
        } else {
            // The runtime's threads did not come along through the fork: nothing here can be stopped.
            std::mem::forget((runtime, running));
        }
    }
}
