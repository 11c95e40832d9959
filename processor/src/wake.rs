//! How one thread tells another that there is something to do.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

/// Wakes the thread that drives a step function.
///
/// A wake-up is remembered until the next [`Waker::wait`], so one that comes while the
/// step still runs is not lost. Clones share the same signal. Called from librdkafka's
/// threads when a queue becomes non-empty: cheap, never blocks for long.
#[derive(Clone, Debug, Default)]
pub struct Waker {
    inner: Arc<Signal>,
}

#[derive(Debug, Default)]
struct Signal {
    raised: Mutex<bool>,
    changed: Condvar,
}

impl Waker {
    /// A signal that nobody has raised yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Raises the signal.
    pub fn wake(&self) {
        let mut raised = self.inner.raised.lock().unwrap_or_else(PoisonError::into_inner);
        if !*raised {
            *raised = true;
            self.inner.changed.notify_one();
        }
    }

    /// Waits until the signal is raised or `timeout` has passed, and lowers it.
    /// Says whether it had been raised.
    pub fn wait(&self, timeout: Duration) -> bool {
        let raised = self.inner.raised.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut raised, _) = self
            .inner
            .changed
            .wait_timeout_while(raised, timeout, |raised| !*raised)
            .unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *raised)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wake_up_before_the_wait_is_remembered_once() {
        let waker = Waker::new();
        waker.wake();
        waker.wake();
        assert!(waker.wait(Duration::from_secs(5)));
        assert!(!waker.wait(Duration::ZERO));
    }

    #[test]
    fn a_wake_up_from_another_thread_ends_the_wait() {
        let waker = Waker::new();
        let other = waker.clone();
        let thread = std::thread::spawn(move || other.wake());
        assert!(waker.wait(Duration::from_secs(30)));
        thread.join().unwrap();
    }
}
