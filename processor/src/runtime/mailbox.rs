//! Messages from one thread of a process to another.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use crate::wake::Waker;

/// A queue of messages for whoever waits on its waker. Clones share it. Nothing per record goes through here.
pub(crate) struct Mailbox<T> {
    queue: Arc<Mutex<VecDeque<T>>>,
    waker: Waker,
}

impl<T> Clone for Mailbox<T> {
    fn clone(&self) -> Self {
        Self { queue: Arc::clone(&self.queue), waker: self.waker.clone() }
    }
}

impl<T> fmt::Debug for Mailbox<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mailbox").finish_non_exhaustive()
    }
}

impl<T> Mailbox<T> {
    /// An empty one, whose messages raise `waker`.
    pub(crate) fn new(waker: Waker) -> Self {
        Self { queue: Arc::default(), waker }
    }

    /// The signal of its receiver.
    pub(crate) fn waker(&self) -> &Waker {
        &self.waker
    }

    /// Adds a message and wakes the receiver.
    pub(crate) fn send(&self, message: T) {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner).push_back(message);
        self.waker.wake();
    }

    /// The oldest message.
    pub(crate) fn take(&self) -> Option<T> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    }
}
