//! Takes the place of the crate of this name in libp2p (`[patch.crates-io]`). That one keeps its timers in a thread of its
//! own, which is woken whenever one is made or dropped, and gossipsub makes one for each message to each peer. Here they
//! are tokio's: whoever makes one must be in a runtime, as libp2p is in the core.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use tokio::time::{Instant, Sleep, sleep};

/// Is ready once its time is over.
#[derive(Debug)]
pub struct Delay(Pin<Box<Sleep>>);

impl Delay {
    /// One that is over in `duration`.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    #[must_use]
    pub fn new(duration: Duration) -> Self {
        Self(Box::pin(sleep(duration)))
    }

    /// Begins anew: it is over in `duration` from now.
    pub fn reset(&mut self, duration: Duration) {
        let now = Instant::now();
        // Without end it is beyond every clock: then what `sleep` takes for that.
        match now.checked_add(duration) {
            Some(end) => self.0.as_mut().reset(end),
            None => self.0 = Box::pin(sleep(duration)),
        }
    }
}

impl Future for Delay {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        self.0.as_mut().poll(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORT: Duration = Duration::from_millis(5);

    #[tokio::test]
    async fn it_is_over_when_its_time_is_and_again_when_it_begins_anew() {
        let mut delay = Delay::new(Duration::from_secs(3600));
        for _ in 0..2 {
            let begun = Instant::now();
            delay.reset(SHORT);
            (&mut delay).await;
            assert!(begun.elapsed() >= SHORT);
        }
    }

    #[tokio::test]
    async fn one_without_end_is_never_over() {
        let mut delay = Delay::new(Duration::MAX);
        for _ in 0..2 {
            let over = std::future::poll_fn(|context| Poll::Ready(Pin::new(&mut delay).poll(context).is_ready())).await;
            assert!(!over);
            delay.reset(Duration::MAX);
        }
    }
}
