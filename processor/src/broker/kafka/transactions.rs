//! The calls about transactions. They wait for the broker, so each producer has a thread that makes them.

use std::ffi::{CString, c_int};
use std::fmt;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::bindings as rd;

use super::client::{Client, c_string, millis};
use super::errors::{ErrorObject, NO_ERROR};
use super::list::PartitionList;
use crate::broker::{BrokerError, ErrorClass, Lease, OffsetAndMetadata, Result, TransactionCall};
use crate::record::TopicPartition;
use crate::wake::Waker;

/// Longest single wait inside librdkafka: a producer that was dropped ends its thread at most this much later.
const SLICE: Duration = Duration::from_secs(1);
/// Pause before a call that may be repeated.
const BACKOFF: Duration = Duration::from_millis(20);

/// What a call is called in messages.
pub(super) fn name(call: &TransactionCall) -> &'static str {
    match call {
        TransactionCall::Init => "init transactions",
        TransactionCall::Begin => "begin transaction",
        TransactionCall::SendOffsets { .. } => "send offsets to transaction",
        TransactionCall::Commit => "commit transaction",
        TransactionCall::Abort => "abort transaction",
    }
}

/// The call thread of one producer, seen from its owner.
pub(super) struct Transactions {
    calls: Sender<TransactionCall>,
    shared: Arc<Shared>,
    under_way: bool,
    // Sockets closed when the transaction began; `None` before the first.
    closed_at_begin: Option<u64>,
    client: Arc<Client>,
}

#[derive(Debug, Default)]
struct Shared {
    outcome: Mutex<Option<Result<()>>>,
    // A call outlasted the request timeout since `begin`.
    outlasted: AtomicBool,
    dropped: AtomicBool,
}

impl fmt::Debug for Transactions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transactions")
            .field("under_way", &self.under_way)
            .field("shared", &self.shared)
            .finish_non_exhaustive()
    }
}

impl Transactions {
    pub(super) fn spawn(
        id: &str,
        client: &Arc<Client>,
        suspicious: Duration,
        deadline: Duration,
        waker: &Waker,
    ) -> Result<Self> {
        let (calls, received) = mpsc::channel();
        let shared = Arc::new(Shared::default());
        let caller = Caller { client: Arc::clone(client), shared: Arc::clone(&shared), suspicious, deadline };
        let waker = waker.clone();
        std::thread::Builder::new()
            .name(format!("headwater-txn-{id}"))
            .spawn(move || caller.serve(&received, &waker))
            .map_err(|error| {
                BrokerError::new(ErrorClass::Fatal, format!("no thread for the transactions of {id:?}: {error}"))
            })?;
        Ok(Self { calls, shared, under_way: false, closed_at_begin: None, client: Arc::clone(client) })
    }

    pub(super) fn start(&mut self, call: TransactionCall) {
        if self.under_way {
            // Its outcome would be taken for that of the first.
            tracing::error!("{}: ignored, another transactional call of this producer is under way", name(&call));
            return;
        }
        if matches!(call, TransactionCall::Begin) {
            self.closed_at_begin = Some(self.client.closed_sockets());
        }
        self.under_way = true;
        if let Err(mpsc::SendError(call)) = self.calls.send(call) {
            self.put(Err(BrokerError::new(
                ErrorClass::Fatal,
                format!("{}: the producer's call thread has ended", name(&call)),
            )));
        }
    }

    fn put(&self, outcome: Result<()>) {
        *self.shared.outcome.lock().unwrap_or_else(PoisonError::into_inner) = Some(outcome);
    }

    pub(super) fn outcome(&mut self) -> Option<Result<()>> {
        let outcome = self.shared.outcome.lock().unwrap_or_else(PoisonError::into_inner).take()?;
        self.under_way = false;
        Some(outcome)
    }

    /// librdkafka sends EndTxn again after a timeout or a broken connection and does not tell, and a copy that was
    /// under way can end the transaction after the one it was meant for. Both leave a trace: the call is slow, or a
    /// socket is closed.
    pub(super) fn tainted(&self, closed_sockets: u64) -> bool {
        self.shared.outlasted.load(Ordering::Acquire)
            || self.closed_at_begin.is_some_and(|at_begin| closed_sockets != at_begin)
    }
}

impl Drop for Transactions {
    fn drop(&mut self) {
        self.shared.dropped.store(true, Ordering::Release);
    }
}

/// The thread's side.
struct Caller {
    client: Arc<Client>,
    shared: Arc<Shared>,
    suspicious: Duration,
    deadline: Duration,
}

impl Caller {
    fn serve(self, calls: &Receiver<TransactionCall>, waker: &Waker) {
        while let Ok(call) = calls.recv() {
            let started = Instant::now();
            let outcome = self.make(&call);
            if !matches!(call, TransactionCall::Init) && started.elapsed() > self.suspicious {
                self.shared.outlasted.store(true, Ordering::Release);
            }
            *self.shared.outcome.lock().unwrap_or_else(PoisonError::into_inner) = Some(outcome);
            waker.wake();
        }
    }

    fn make(&self, call: &TransactionCall) -> Result<()> {
        let rk = self.client.ptr();
        match call {
            // SAFETY (each call below): the client is alive, and this thread alone makes transactional calls on it.
            // The answer is null or an error object that is ours.
            TransactionCall::Init => {
                self.await_broker();
                // SAFETY: as above.
                self.repeat(call, |wait| unsafe { ErrorObject::take(rd::rd_kafka_init_transactions(rk, wait)) })
            }
            TransactionCall::Begin => self.repeat(call, |_| {
                // SAFETY: as above.
                unsafe { ErrorObject::take(rd::rd_kafka_begin_transaction(rk)) }
            }),
            TransactionCall::SendOffsets { group, lease, offsets } => {
                let metadata = GroupMetadata::new(group, lease)?;
                let list = committed(offsets)?;
                self.repeat(call, |wait| {
                    // SAFETY: as above; list and metadata live through the call.
                    unsafe {
                        ErrorObject::take(rd::rd_kafka_send_offsets_to_transaction(
                            rk,
                            list.ptr(),
                            metadata.ptr.as_ptr(),
                            wait,
                        ))
                    }
                })
            }
            TransactionCall::Commit => self.repeat(call, |wait| {
                // SAFETY: as above.
                unsafe { ErrorObject::take(rd::rd_kafka_commit_transaction(rk, wait)) }
            }),
            TransactionCall::Abort => self.repeat(call, |wait| {
                // SAFETY: as above.
                unsafe { ErrorObject::take(rd::rd_kafka_abort_transaction(rk, wait)) }
            }),
        }
    }

    /// Waits until a broker can be asked. librdkafka looks for the coordinator as soon as `init` is called and, where
    /// no connection is up at that moment, only half a second later again.
    fn await_broker(&self) {
        let deadline = Instant::now() + self.deadline;
        // The first answer comes over a bootstrap connection, which is given up for the broker that it names; the second
        // needs a connection that stays.
        let mut answers = 0;
        while answers < 2 && Instant::now() < deadline && !self.shared.dropped.load(Ordering::Acquire) {
            let mut metadata = std::ptr::null();
            // SAFETY: the client is alive; no topic is asked for; the answer is ours where the call succeeds.
            let code = unsafe {
                rd::rd_kafka_metadata(self.client.ptr(), 0, std::ptr::null_mut(), &raw mut metadata, millis(SLICE))
            };
            if code as i32 == NO_ERROR {
                // SAFETY: ours, and not used afterwards.
                unsafe { rd::rd_kafka_metadata_destroy(metadata) };
                answers += 1;
            }
        }
    }

    /// Makes a call again while librdkafka says that this may help, in slices, up to the deadline.
    fn repeat(&self, call: &TransactionCall, mut once: impl FnMut(c_int) -> Option<ErrorObject>) -> Result<()> {
        let deadline = Instant::now() + self.deadline;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            // Offsets are sent by one request with this timeout, and a request that times out costs the connection; the
            // other calls go on in the background and are only waited for.
            let slice = match call {
                TransactionCall::SendOffsets { .. } => self.suspicious,
                _ => SLICE,
            };
            let Some(error) = once(millis(left.min(slice)).max(1)) else {
                return Ok(());
            };
            let again = error.retriable && !error.fatal && !error.requires_abort;
            let over = left <= BACKOFF || self.shared.dropped.load(Ordering::Acquire);
            if !again || over {
                return Err(error.into_transaction_error(name(call)));
            }
            std::thread::sleep(BACKOFF);
        }
    }
}

fn committed(offsets: &[(TopicPartition, OffsetAndMetadata)]) -> Result<PartitionList> {
    let mut list = PartitionList::new();
    for (partition, committed) in offsets {
        list.add_committed(&partition.topic, partition.partition, committed.offset, &committed.metadata)?;
    }
    Ok(list)
}

/// Whose offsets they are, and under which lease. Made from the lease, never asked of a consumer: a consumer that
/// is in no group answers metadata without a generation, which the coordinator does not fence.
struct GroupMetadata {
    ptr: NonNull<rd::rd_kafka_consumer_group_metadata_t>,
}

impl GroupMetadata {
    fn new(group: &str, lease: &Lease) -> Result<Self> {
        let group = c_string("group", group)?;
        let member = c_string("member id", &lease.member_id)?;
        let instance = lease.instance_id.as_deref().map(|id| c_string("instance id", id)).transpose()?;
        let instance: *const std::os::raw::c_char =
            instance.as_ref().map_or(std::ptr::null(), |id: &CString| id.as_ptr());
        // SAFETY: all strings end in zero and are copied; a null instance id is none. The object is ours.
        let ptr = unsafe {
            rd::rd_kafka_consumer_group_metadata_new_with_genid(
                group.as_ptr(),
                lease.generation,
                member.as_ptr(),
                instance,
            )
        };
        NonNull::new(ptr)
            .map(|ptr| Self { ptr })
            .ok_or_else(|| BrokerError::new(ErrorClass::Fatal, "no group metadata"))
    }
}

impl Drop for GroupMetadata {
    fn drop(&mut self) {
        // SAFETY: ours, and not used afterwards.
        unsafe { rd::rd_kafka_consumer_group_metadata_destroy(self.ptr.as_ptr()) };
    }
}
