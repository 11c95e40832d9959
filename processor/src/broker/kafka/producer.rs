//! Writes records and ends transactions.

use std::ffi::{c_int, c_uint};
use std::fmt;
use std::ptr;
use std::sync::Arc;
use std::time::Duration;

use rdkafka::bindings as rd;
use rdkafka::bindings::rd_kafka_vtype_t as Field;

use super::client::{Client, Closing, Conf, Kind, Queue};
use super::deliveries::Deliveries;
use super::errors;
use super::transactions::Transactions;
use crate::broker::{BrokerError, ErrorClass, OutRecord, Producer, Result, TopicHandle, TransactionCall};
use crate::record::Headers;
use crate::wake::Waker;

/// A producer of librdkafka that learns of deliveries by events, many at a time.
pub(super) struct KafkaProducer {
    sent: u64,
    deliveries: Deliveries,
    transactions: Option<Transactions>,
    // A call whose transactions do not exist is answered by this.
    refusal: Option<BrokerError>,
    main: Queue,
    client: Arc<Client>,
}

impl fmt::Debug for KafkaProducer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KafkaProducer")
            .field("sent", &self.sent)
            .field("reported", &self.deliveries.reported())
            .field("transactions", &self.transactions)
            .finish_non_exhaustive()
    }
}

impl KafkaProducer {
    /// `transactional`: the id, for the name of the call thread, with the time after which a call has lasted too
    /// long to trust what follows, and the time after which it is given up.
    pub(super) fn new(
        conf: Conf,
        transactional: Option<(&str, Duration, Duration)>,
        closing: &Arc<Closing>,
        waker: &Waker,
    ) -> Result<Self> {
        let client = Client::new(Kind::Producer, conf, closing)?;
        let Some(mut main) = Queue::main(&client) else {
            return Err(BrokerError::new(ErrorClass::Fatal, "a producer without its queue"));
        };
        main.wake(waker);
        let transactions = transactional
            .map(|(id, suspicious, deadline)| Transactions::spawn(id, &client, suspicious, deadline, waker))
            .transpose()?;
        Ok(Self { sent: 0, deliveries: Deliveries::new(&client), transactions, refusal: None, main, client })
    }

    fn serve(&mut self) {
        while let Some(event) = self.main.poll(Duration::ZERO) {
            match event.kind() {
                rd::RD_KAFKA_EVENT_DR => self.deliveries.take(&event),
                rd::RD_KAFKA_EVENT_ERROR => {
                    let (code, text) = event.error();
                    tracing::debug!(target: "headwater::librdkafka", code, "producer: {text}");
                }
                _ => {}
            }
        }
    }

    fn send_error(&self, code: rd::rd_kafka_resp_err_t, topic: TopicHandle, partition: i32) -> BrokerError {
        let context = format!("write to {}-{partition}", self.deliveries.name(topic));
        if let Some(fatal) = self.client.fatal_error() {
            return fatal;
        }
        let mut error = errors::from_code(&context, code);
        // Inside a transaction "wrong state" means that it has failed already and waits to be aborted.
        if self.transactions.is_some() && error.class == ErrorClass::Fatal {
            error.class = ErrorClass::Abortable;
        }
        error
    }
}

impl Producer for KafkaProducer {
    fn topic(&mut self, name: &str) -> Result<TopicHandle> {
        self.deliveries.topic(name)
    }

    fn send(&mut self, topic: TopicHandle, partition: i32, record: &OutRecord<'_>) -> Result<()> {
        let Some(handle) = self.deliveries.ptr(topic) else {
            return Err(BrokerError::new(
                ErrorClass::UnknownTopic,
                format!("topic handle {} is not of this producer", topic.0),
            ));
        };
        let (key, key_length) = bytes(record.key);
        let (value, value_length) = bytes(record.value);
        // librdkafka takes 0 as "now". A millisecond beside the truth is nearer to it than today.
        let timestamp = if record.timestamp == 0 { 1 } else { record.timestamp };
        let headers = if record.headers.is_empty() { ptr::null_mut() } else { native_headers(record.headers)? };
        // SAFETY: client and topic are alive. Each field is followed by the arguments that rd_kafka_producev reads for
        // it, in their C types; key and value are copied (F_COPY) before it returns. Null headers are none.
        let code = unsafe {
            rd::rd_kafka_producev(
                self.client.ptr(),
                Field::RD_KAFKA_VTYPE_RKT as c_uint,
                handle,
                Field::RD_KAFKA_VTYPE_PARTITION as c_uint,
                partition,
                Field::RD_KAFKA_VTYPE_MSGFLAGS as c_uint,
                rd::RD_KAFKA_MSG_F_COPY as c_int,
                Field::RD_KAFKA_VTYPE_KEY as c_uint,
                key,
                key_length,
                Field::RD_KAFKA_VTYPE_VALUE as c_uint,
                value,
                value_length,
                Field::RD_KAFKA_VTYPE_TIMESTAMP as c_uint,
                timestamp,
                Field::RD_KAFKA_VTYPE_HEADERS as c_uint,
                headers,
                Field::RD_KAFKA_VTYPE_END as c_uint,
            )
        };
        if code as i32 == errors::NO_ERROR {
            self.sent = self.sent.saturating_add(1);
            return Ok(());
        }
        if !headers.is_null() {
            // SAFETY: a failed call leaves the headers to the caller.
            unsafe { rd::rd_kafka_headers_destroy(headers) };
        }
        Err(self.send_error(code, topic, partition))
    }

    fn poll(&mut self) -> Result<()> {
        self.serve();
        let Some(mut error) = self.deliveries.take_error() else {
            return self.client.fatal_error().map_or(Ok(()), Err);
        };
        if let Some(fatal) = self.client.fatal_error() {
            return Err(fatal);
        }
        // A lost record spoils its transaction and nothing more.
        if self.transactions.is_some() && error.class != ErrorClass::Fenced {
            error.class = match error.class {
                ErrorClass::TooLarge | ErrorClass::Rejected | ErrorClass::NotAuthorised | ErrorClass::UnknownTopic => {
                    error.class
                }
                _ => ErrorClass::Abortable,
            };
        }
        Err(error)
    }

    fn backlog(&self) -> usize {
        usize::try_from(self.sent.saturating_sub(self.deliveries.reported())).unwrap_or(usize::MAX)
    }

    fn acknowledged(&self, topic: TopicHandle, partition: i32) -> Option<i64> {
        self.deliveries.acknowledged(topic, partition)
    }

    fn start(&mut self, call: TransactionCall) {
        if self.transactions.is_none() {
            self.refusal = Some(BrokerError::new(
                ErrorClass::Configuration,
                format!("{}: this producer has no transactional id", super::transactions::name(&call)),
            ));
            return;
        }
        if matches!(call, TransactionCall::Begin) {
            // What went wrong before belongs to a transaction that has been aborted.
            self.serve();
            self.deliveries.take_error();
        }
        if let Some(transactions) = &mut self.transactions {
            transactions.start(call);
        }
    }

    fn outcome(&mut self) -> Option<Result<()>> {
        if let Some(refusal) = self.refusal.take() {
            return Some(Err(refusal));
        }
        // An abort waits for the reports of what it dropped: they must be served while it runs.
        self.serve();
        self.transactions.as_mut()?.outcome()
    }

    fn tainted(&self) -> bool {
        self.transactions.as_ref().is_some_and(|transactions| transactions.tainted(self.client.closed_sockets()))
    }
}

fn bytes(slice: Option<&[u8]>) -> (*const u8, usize) {
    slice.map_or((ptr::null(), 0), |slice| (slice.as_ptr(), slice.len()))
}

fn native_headers(headers: &Headers) -> Result<*mut rd::rd_kafka_headers_t> {
    // SAFETY: no precondition; never null.
    let native = unsafe { rd::rd_kafka_headers_new(headers.len()) };
    for (name, value) in headers.iter() {
        let (value, length) = bytes(value);
        let length = isize::try_from(length).unwrap_or(isize::MAX);
        let name_length = isize::try_from(name.len()).unwrap_or(isize::MAX);
        // SAFETY: the headers are ours; name and value have the lengths said and are copied.
        let code = unsafe { rd::rd_kafka_header_add(native, name.as_ptr().cast(), name_length, value.cast(), length) };
        if code as i32 != errors::NO_ERROR {
            // SAFETY: still ours.
            unsafe { rd::rd_kafka_headers_destroy(native) };
            return Err(errors::from_code(&format!("header {name:?}"), code));
        }
    }
    Ok(native)
}
