//! A librdkafka client, its settings and its queues, with the pointers kept in.

use std::ffi::{CStr, CString, c_int, c_void};
use std::fmt;
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::raw::c_char;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::bindings as rd;

use super::errors::{self, ErrorObject};
use crate::broker::{BrokerError, ErrorClass, Result};
use crate::wake::Waker;

/// Room for librdkafka's error texts.
const ERROR_TEXT: usize = 512;

/// Turns a name into a C string; `what` names it in the error.
pub(super) fn c_string(what: &str, text: &str) -> Result<CString> {
    CString::new(text)
        .map_err(|_| BrokerError::new(ErrorClass::Configuration, format!("{what} {text:?} contains a zero byte")))
}

/// A duration in whole milliseconds, as librdkafka takes it.
pub(super) fn millis(duration: Duration) -> c_int {
    c_int::try_from(duration.as_millis()).unwrap_or(c_int::MAX)
}

/// What a client is made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Consumer,
    Producer,
}

/// Settings of a client to be made.
pub(super) struct Conf {
    ptr: NonNull<rd::rd_kafka_conf_t>,
}

impl Conf {
    pub(super) fn new() -> Self {
        // SAFETY: no precondition; it aborts the process where memory is out and never answers null.
        let ptr = unsafe { rd::rd_kafka_conf_new() };
        Self { ptr: NonNull::new(ptr).unwrap_or_else(|| std::process::abort()) }
    }

    /// Sets one property. An unknown name or a value out of range is refused, naming both.
    pub(super) fn set(&mut self, name: &str, value: &str) -> Result<()> {
        let c_name = c_string("setting", name)?;
        let c_value = c_string("the value of a setting", value)?;
        let mut text = [0 as c_char; ERROR_TEXT];
        // SAFETY: the conf is alive, both strings end in zero and the buffer is as long as said.
        let result = unsafe {
            rd::rd_kafka_conf_set(self.ptr.as_ptr(), c_name.as_ptr(), c_value.as_ptr(), text.as_mut_ptr(), text.len())
        };
        match result {
            rd::rd_kafka_conf_res_t::RD_KAFKA_CONF_OK => Ok(()),
            rd::rd_kafka_conf_res_t::RD_KAFKA_CONF_UNKNOWN => Err(BrokerError::new(
                ErrorClass::Configuration,
                format!("client setting {name:?} (value {value:?}) is not known; accepted: librdkafka's properties"),
            )),
            rd::rd_kafka_conf_res_t::RD_KAFKA_CONF_INVALID => Err(BrokerError::new(
                ErrorClass::Configuration,
                format!("client setting {name:?} cannot be {value:?}: {}", errors::text_of(text.as_ptr())),
            )),
        }
    }
}

impl Drop for Conf {
    fn drop(&mut self) {
        // SAFETY: alive: `Client::new` forgets a conf that the client has taken over.
        unsafe { rd::rd_kafka_conf_destroy(self.ptr.as_ptr()) };
    }
}

/// What librdkafka's threads tell about a client. They hold a pointer to it until the client is destroyed.
#[derive(Debug, Default)]
struct Observed {
    closed_sockets: AtomicU64,
    complained: AtomicBool,
    complaint: Mutex<Option<(i32, String)>>,
}

/// A client of librdkafka. Its functions may be called from any thread.
///
/// Dropping it never waits: librdkafka joins its threads on a thread of ours, and
/// [`Closing::wait`] tells when all are gone. Whatever points into a client (queues,
/// messages, topics) holds it alive.
pub(super) struct Client {
    rk: NonNull<rd::rd_kafka_t>,
    observed: Arc<Observed>,
    closing: Arc<Closing>,
}

// SAFETY: rd_kafka_t is made for use from several threads at once (librdkafka's introduction, "Threads and callbacks").
unsafe impl Send for Client {}
// SAFETY: as above.
unsafe impl Sync for Client {}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("observed", &self.observed).finish_non_exhaustive()
    }
}

impl Client {
    /// Makes a client; its connections open by themselves.
    pub(super) fn new(kind: Kind, conf: Conf, closing: &Arc<Closing>) -> Result<Arc<Self>> {
        let observed = Arc::new(Observed::default());
        let (kind, events) = match kind {
            Kind::Consumer => {
                (rd::rd_kafka_type_t::RD_KAFKA_CONSUMER, rd::RD_KAFKA_EVENT_ERROR | rd::RD_KAFKA_EVENT_REBALANCE)
            }
            Kind::Producer => {
                (rd::rd_kafka_type_t::RD_KAFKA_PRODUCER, rd::RD_KAFKA_EVENT_ERROR | rd::RD_KAFKA_EVENT_DR)
            }
        };
        let mut text = [0 as c_char; ERROR_TEXT];
        // SAFETY: the conf is alive. `observed` outlives the client: it is dropped after rd_kafka_destroy has
        // returned (see `drop`). The callbacks keep to librdkafka's rules: they neither call back nor unwind.
        let rk = unsafe {
            rd::rd_kafka_conf_set_events(conf.ptr.as_ptr(), events);
            rd::rd_kafka_conf_set_log_cb(conf.ptr.as_ptr(), Some(log));
            rd::rd_kafka_conf_set_error_cb(conf.ptr.as_ptr(), Some(complain));
            rd::rd_kafka_conf_set_closesocket_cb(conf.ptr.as_ptr(), Some(close_socket));
            rd::rd_kafka_conf_set_opaque(conf.ptr.as_ptr(), Arc::as_ptr(&observed).cast_mut().cast());
            rd::rd_kafka_new(kind, conf.ptr.as_ptr(), text.as_mut_ptr(), text.len())
        };
        let Some(rk) = NonNull::new(rk) else {
            return Err(BrokerError::new(
                ErrorClass::Configuration,
                format!("client settings contradict each other: {}", errors::text_of(text.as_ptr())),
            ));
        };
        // The client owns the conf now.
        std::mem::forget(conf);
        Ok(Arc::new(Self { rk, observed, closing: Arc::clone(closing) }))
    }

    pub(super) fn ptr(&self) -> *mut rd::rd_kafka_t {
        self.rk.as_ptr()
    }

    /// How many sockets of this client have been closed so far, for whatever reason. Every request whose
    /// answer will not come any more (timeout, broken connection) is followed by one.
    pub(super) fn closed_sockets(&self) -> u64 {
        self.observed.closed_sockets.load(Ordering::Acquire)
    }

    /// The first complaint since it was last asked for. A queue that is read for records hands over some errors in no
    /// other way (that a topic does not exist is one): the call that reads the queue makes the complaint, in its thread.
    pub(super) fn take_complaint(&self) -> Option<(i32, String)> {
        if !self.observed.complained.swap(false, Ordering::AcqRel) {
            return None;
        }
        self.observed.complaint.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// The error that has made this client useless, if there is one.
    pub(super) fn fatal_error(&self) -> Option<BrokerError> {
        let mut text = [0 as c_char; ERROR_TEXT];
        // SAFETY: the client is alive and the buffer is as long as said.
        let code = unsafe { rd::rd_kafka_fatal_error(self.ptr(), text.as_mut_ptr(), text.len()) };
        if code as i32 == errors::NO_ERROR {
            return None;
        }
        let object = ErrorObject {
            code: code as i32,
            text: errors::text_of(text.as_ptr()),
            fatal: true,
            retriable: false,
            requires_abort: false,
        };
        Some(object.into_error("the client is of no more use"))
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let pass = Closing::enter(&self.closing);
        let observed = Arc::clone(&self.observed);
        // A pointer is not Send; the number is turned back on the thread that destroys.
        let address = self.rk.as_ptr().expose_provenance();
        let spawned = std::thread::Builder::new().name("headwater-close".into()).spawn(move || {
            let rk: *mut rd::rd_kafka_t = ptr::with_exposed_provenance_mut(address);
            // SAFETY: this was the last owner, so nothing uses the client any more. Not one of librdkafka's threads.
            unsafe { rd::rd_kafka_destroy_flags(rk, rd::RD_KAFKA_DESTROY_F_NO_CONSUMER_CLOSE) };
            drop(observed);
            drop(pass);
        });
        if let Err(error) = spawned {
            // The callbacks' target must live as long as the client does, which is now for ever.
            std::mem::forget(Arc::clone(&self.observed));
            tracing::error!(target: "headwater::librdkafka", %error, "no thread to close a client: it stays open");
        }
    }
}

/// Counts the clients that are being closed.
#[derive(Debug, Default)]
pub(super) struct Closing {
    count: Mutex<usize>,
    changed: Condvar,
}

/// One client that is being closed.
struct Pass(Arc<Closing>);

impl Closing {
    fn enter(this: &Arc<Self>) -> Pass {
        let mut count = this.count.lock().unwrap_or_else(PoisonError::into_inner);
        *count = count.saturating_add(1);
        Pass(Arc::clone(this))
    }

    /// Waits until every client that was dropped is closed, at most for `timeout`. Says whether they are.
    pub(super) fn wait(&self, timeout: Duration) -> bool {
        let count = self.count.lock().unwrap_or_else(PoisonError::into_inner);
        let (count, _) =
            self.changed.wait_timeout_while(count, timeout, |count| *count > 0).unwrap_or_else(PoisonError::into_inner);
        *count == 0
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        let mut count = self.0.count.lock().unwrap_or_else(PoisonError::into_inner);
        *count = count.saturating_sub(1);
        self.0.changed.notify_all();
    }
}

/// A queue of a client, which it keeps alive.
pub(super) struct Queue {
    ptr: NonNull<rd::rd_kafka_queue_t>,
    // Boxed: librdkafka holds its address while the event is enabled.
    waker: Option<Box<Waker>>,
    client: Arc<Client>,
}

// SAFETY: a queue may be used from any thread, one at a time (`&mut self`).
unsafe impl Send for Queue {}

impl fmt::Debug for Queue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Queue").finish_non_exhaustive()
    }
}

impl Queue {
    fn own(ptr: *mut rd::rd_kafka_queue_t, client: &Arc<Client>) -> Option<Self> {
        Some(Self { ptr: NonNull::new(ptr)?, waker: None, client: Arc::clone(client) })
    }

    /// Errors of the client and, for a producer, deliveries.
    pub(super) fn main(client: &Arc<Client>) -> Option<Self> {
        // SAFETY: the client is alive; the queue is given to us.
        Self::own(unsafe { rd::rd_kafka_queue_get_main(client.ptr()) }, client)
    }

    /// What a consumer has to say beside records.
    pub(super) fn consumer(client: &Arc<Client>) -> Option<Self> {
        // SAFETY: as above.
        Self::own(unsafe { rd::rd_kafka_queue_get_consumer(client.ptr()) }, client)
    }

    /// An empty queue for answers.
    pub(super) fn answers(client: &Arc<Client>) -> Option<Self> {
        // SAFETY: as above.
        Self::own(unsafe { rd::rd_kafka_queue_new(client.ptr()) }, client)
    }

    /// The records of one partition, kept apart from the consumer's common queue for good: librdkafka
    /// remembers that the application chose, and an assignment does not change it.
    pub(super) fn partition(client: &Arc<Client>, topic: &CStr, partition: i32) -> Option<Self> {
        // SAFETY: the client is alive, the string ends in zero; the queue is given to us.
        let queue =
            Self::own(unsafe { rd::rd_kafka_queue_get_partition(client.ptr(), topic.as_ptr(), partition) }, client)?;
        // SAFETY: the queue is alive; null takes the forwarding away.
        unsafe { rd::rd_kafka_queue_forward(queue.ptr.as_ptr(), ptr::null_mut()) };
        Some(queue)
    }

    pub(super) fn ptr(&self) -> *mut rd::rd_kafka_queue_t {
        self.ptr.as_ptr()
    }

    /// Raises the signal whenever the queue stops being empty. A queue that was not emptied does not signal again.
    pub(super) fn wake(&mut self, waker: &Waker) {
        let waker = Box::new(waker.clone());
        let address: *const Waker = &raw const *waker;
        // SAFETY: the waker lives in its box until `drop` has disabled the event.
        unsafe { rd::rd_kafka_queue_cb_event_enable(self.ptr(), Some(raise), address.cast_mut().cast()) };
        self.waker = Some(waker);
    }

    /// The next event, waiting for it at most `timeout`.
    pub(super) fn poll(&mut self, timeout: Duration) -> Option<Event> {
        // SAFETY: the queue is alive; the event is given to us.
        let event = unsafe { rd::rd_kafka_queue_poll(self.ptr(), millis(timeout)) };
        Some(Event { ptr: NonNull::new(event)?, _client: Arc::clone(&self.client) })
    }

    /// The next event that `wanted` accepts, dropping others, at most until `deadline`.
    pub(super) fn await_event(&mut self, deadline: Instant, wanted: impl Fn(&Event) -> bool) -> Option<Event> {
        loop {
            let event = self.poll(deadline.saturating_duration_since(Instant::now()))?;
            if wanted(&event) {
                return Some(event);
            }
        }
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        // SAFETY: the queue is alive. Disabling takes the queue's lock, under which the callback runs, so the waker is
        // not used afterwards and may go with `self`.
        unsafe {
            rd::rd_kafka_queue_cb_event_enable(self.ptr(), None, ptr::null_mut());
            rd::rd_kafka_queue_destroy(self.ptr());
        }
    }
}

/// An event from a queue.
pub(super) struct Event {
    ptr: NonNull<rd::rd_kafka_event_t>,
    _client: Arc<Client>,
}

impl Event {
    pub(super) fn ptr(&self) -> *mut rd::rd_kafka_event_t {
        self.ptr.as_ptr()
    }

    /// One of librdkafka's `RD_KAFKA_EVENT_*`.
    pub(super) fn kind(&self) -> c_int {
        // SAFETY: the event is alive.
        unsafe { rd::rd_kafka_event_type(self.ptr()) }
    }

    /// The code and text of an event that tells of an error; code 0 for one that does not.
    pub(super) fn error(&self) -> (i32, String) {
        // SAFETY: the event is alive; the string belongs to it and is copied.
        unsafe {
            let code = rd::rd_kafka_event_error(self.ptr()) as i32;
            (code, errors::text_of(rd::rd_kafka_event_error_string(self.ptr())))
        }
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        // SAFETY: ours, and not used afterwards.
        unsafe { rd::rd_kafka_event_destroy(self.ptr()) };
    }
}

/// Called by librdkafka under the queue's lock.
unsafe extern "C" fn raise(_: *mut rd::rd_kafka_t, waker: *mut c_void) {
    // SAFETY: `Queue::wake` gave the address of a waker that lives until the event is disabled.
    unsafe { &*waker.cast::<Waker>() }.wake();
}

/// Called by librdkafka in the thread that reads a queue for records.
unsafe extern "C" fn complain(_: *mut rd::rd_kafka_t, code: c_int, text: *const c_char, observed: *mut c_void) {
    // SAFETY: the opaque set in `Client::new`, which outlives the client.
    let observed = unsafe { &*observed.cast::<Observed>() };
    let mut complaint = observed.complaint.lock().unwrap_or_else(PoisonError::into_inner);
    complaint.get_or_insert_with(|| (code, errors::text_of(text)));
    observed.complained.store(true, Ordering::Release);
}

/// Called by librdkafka in place of close(2).
unsafe extern "C" fn close_socket(socket: c_int, observed: *mut c_void) -> c_int {
    // SAFETY: the opaque set in `Client::new`, which outlives the client.
    unsafe { &*observed.cast::<Observed>() }.closed_sockets.fetch_add(1, Ordering::AcqRel);
    // SAFETY: librdkafka hands the socket over to be closed, once.
    drop(unsafe { OwnedFd::from_raw_fd(socket) });
    0
}

/// Called by librdkafka from any of its threads.
unsafe extern "C" fn log(rk: *const rd::rd_kafka_t, level: c_int, facility: *const c_char, text: *const c_char) {
    let client = if rk.is_null() {
        String::new()
    } else {
        // SAFETY: the client that logs is alive; its name is copied.
        errors::text_of(unsafe { rd::rd_kafka_name(rk) })
    };
    let facility = errors::text_of(facility);
    let text = errors::text_of(text);
    match level {
        // Settings for one kind of client are given to all: that some do not apply is no news.
        _ if facility == "CONFWARN" => {
            tracing::debug!(target: "headwater::librdkafka", %client, %facility, "{text}");
        }
        // Connections are opened again by themselves, and attempts that fail repeat themselves for as long as the broker
        // is down: an error for whom a call fails, a warning here.
        ..=3 if facility == "FAIL" => {
            tracing::warn!(target: "headwater::librdkafka", %client, %facility, "{text}");
        }
        ..=3 => tracing::error!(target: "headwater::librdkafka", %client, %facility, "{text}"),
        4 => tracing::warn!(target: "headwater::librdkafka", %client, %facility, "{text}"),
        5 | 6 => tracing::info!(target: "headwater::librdkafka", %client, %facility, "{text}"),
        _ => tracing::debug!(target: "headwater::librdkafka", %client, %facility, "{text}"),
    }
}
