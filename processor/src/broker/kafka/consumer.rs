//! Reads assigned partitions, each through a queue of its own.

use std::ffi::{CStr, CString, c_int};
use std::fmt;
use std::os::raw::c_void;
use std::ptr;
use std::sync::Arc;
use std::time::Duration;

use rdkafka::bindings as rd;

use super::client::{Client, Closing, Conf, Kind, Queue, c_string};
use super::errors::{self, ErrorObject};
use super::list::PartitionList;
use crate::broker::{BEGINNING, Batch, BrokerError, Consumer, ErrorClass, RecordView, Result, Slot};
use crate::record::{Headers, TopicPartition};
use crate::wake::Waker;

/// How many messages of a stopped partition are taken off its queue by one call.
const DISCARDED_AT_ONCE: usize = 256;

type Message = *mut rd::rd_kafka_message_t;

/// How many partitions a consumer is made for; it is made anew for more.
const PARTITIONS: usize = 16;

/// Makes the settings of a client that is to read so many partitions.
type MakeConf = Box<dyn Fn(usize) -> Result<Conf> + Send>;

/// A consumer that is in no group.
pub(super) struct KafkaConsumer {
    slots: Vec<Option<Assigned>>,
    // Room for one call of rd_kafka_consume_batch_queue, reused.
    fetched: Vec<Message>,
    connection: Connection,
    // How many partitions the connection is made for.
    planned: usize,
    make_conf: MakeConf,
    closing: Arc<Closing>,
    waker: Waker,
}

/// The client and its queues.
struct Connection {
    main: Queue,
    common: Queue,
    client: Arc<Client>,
}

// SAFETY: the pointers in `fetched` are null between calls; everything else is Send.
unsafe impl Send for KafkaConsumer {}

impl fmt::Debug for KafkaConsumer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KafkaConsumer").field("slots", &self.slots).finish_non_exhaustive()
    }
}

#[derive(Debug)]
struct Assigned {
    name: TopicPartition,
    topic: CString,
    queue: Queue,
    // Offset of the next record to lend.
    position: i64,
    // Nothing was lent or passed since the position was set.
    untouched: bool,
    error: Option<BrokerError>,
}

impl Connection {
    fn new(conf: Conf, closing: &Arc<Closing>, waker: &Waker) -> Result<Self> {
        let client = Client::new(Kind::Consumer, conf, closing)?;
        let queues = Queue::main(&client).zip(Queue::consumer(&client));
        let Some((mut main, mut common)) = queues else {
            return Err(BrokerError::new(ErrorClass::Fatal, "a consumer without its queues"));
        };
        main.wake(waker);
        common.wake(waker);
        Ok(Self { main, common, client })
    }

    /// The queue of a partition. To be made before the partition is assigned: afterwards its first records could land
    /// in the common queue.
    fn queue(&self, topic: &CStr, name: &TopicPartition, waker: &Waker) -> Result<Queue> {
        let mut queue = Queue::partition(&self.client, topic, name.partition)
            .ok_or_else(|| BrokerError::new(ErrorClass::Fatal, format!("no queue for {name}")))?;
        queue.wake(waker);
        Ok(queue)
    }

    fn start(&self, list: &PartitionList) -> Result<()> {
        // SAFETY: client and list are alive; the list is copied.
        let error = unsafe { ErrorObject::take(rd::rd_kafka_incremental_assign(self.client.ptr(), list.ptr())) };
        error.map_or(Ok(()), |error| Err(error.into_error("assign partitions")))
    }

    fn stop(&self, list: &PartitionList) -> Result<()> {
        // SAFETY: as in `start`.
        let error = unsafe { ErrorObject::take(rd::rd_kafka_incremental_unassign(self.client.ptr(), list.ptr())) };
        error.map_or(Ok(()), |error| Err(error.into_error("unassign partitions")))
    }
}

impl KafkaConsumer {
    /// `make_conf` makes the settings for a number of partitions: librdkafka bounds what is queued per partition and
    /// takes the bound only when a client is made.
    pub(super) fn new(make_conf: MakeConf, closing: &Arc<Closing>, waker: Waker) -> Result<Self> {
        Ok(Self {
            slots: Vec::new(),
            fetched: Vec::new(),
            connection: Connection::new(make_conf(PARTITIONS)?, closing, &waker)?,
            planned: PARTITIONS,
            make_conf,
            closing: Arc::clone(closing),
            waker,
        })
    }

    /// Goes over to a client that is made for more partitions; each is read on from its position. Doubling makes this
    /// rare, and nobody sees more of it than a pause of one connection.
    fn grow(&mut self, partitions: usize) -> Result<()> {
        let planned = partitions.next_power_of_two();
        let connection = Connection::new((self.make_conf)(planned)?, &self.closing, &self.waker)?;
        let mut list = PartitionList::new();
        let mut queues = Vec::new();
        for assigned in self.slots.iter().flatten() {
            queues.push(connection.queue(&assigned.topic, &assigned.name, &self.waker)?);
            list.add(&assigned.topic, assigned.name.partition, assigned.position);
        }
        if !queues.is_empty() {
            connection.start(&list)?;
        }
        for (assigned, queue) in self.slots.iter_mut().flatten().zip(queues) {
            assigned.queue = queue;
            assigned.untouched = true;
        }
        self.connection = connection;
        self.planned = planned;
        Ok(())
    }

    fn assigned(&mut self, slot: Slot) -> Result<&mut Assigned> {
        usize::try_from(slot.0)
            .ok()
            .and_then(|index| self.slots.get_mut(index))
            .and_then(Option::as_mut)
            .ok_or_else(|| BrokerError::new(ErrorClass::Fatal, format!("slot {} is not assigned", slot.0)))
    }
}

fn check_start(partition: &TopicPartition, offset: i64) -> Result<()> {
    // Negative offsets are commands to librdkafka; BEGINNING means the same to it as to us.
    if offset < 0 && offset != BEGINNING {
        return Err(BrokerError::new(
            ErrorClass::OutOfRange,
            format!("{partition} cannot be read from offset {offset}: offsets begin at 0"),
        ));
    }
    Ok(())
}

impl Consumer for KafkaConsumer {
    fn assign(&mut self, starts: &[(TopicPartition, i64)]) -> Result<Vec<Slot>> {
        if starts.is_empty() {
            return Ok(Vec::new());
        }
        let partitions = self.slots.iter().flatten().count().saturating_add(starts.len());
        if partitions > self.planned {
            self.grow(partitions)?;
        }
        let mut list = PartitionList::new();
        let mut added = Vec::with_capacity(starts.len());
        for (name, offset) in starts {
            check_start(name, *offset)?;
            let topic = c_string("topic", &name.topic)?;
            let queue = self.connection.queue(&topic, name, &self.waker)?;
            list.add(&topic, name.partition, *offset);
            added.push(Assigned { name: name.clone(), topic, queue, position: *offset, untouched: true, error: None });
        }
        self.connection.start(&list)?;
        let mut slots = Vec::with_capacity(added.len());
        for assigned in added {
            let free = self.slots.iter().position(Option::is_none);
            let index = free.unwrap_or(self.slots.len());
            match self.slots.get_mut(index) {
                Some(place) => *place = Some(assigned),
                None => self.slots.push(Some(assigned)),
            }
            slots.push(Slot(u32::try_from(index).unwrap_or(u32::MAX)));
        }
        Ok(slots)
    }

    fn unassign(&mut self, slots: &[Slot]) -> Result<()> {
        if slots.is_empty() {
            return Ok(());
        }
        let mut list = PartitionList::new();
        for &slot in slots {
            let assigned = self.assigned(slot)?;
            list.add(&assigned.topic, assigned.name.partition, 0);
        }
        self.connection.stop(&list)?;
        for slot in slots {
            let place = usize::try_from(slot.0).ok().and_then(|index| self.slots.get_mut(index));
            if let Some(mut assigned) = place.and_then(Option::take) {
                assigned.discard(&self.connection.client, &mut self.fetched);
            }
        }
        Ok(())
    }

    fn seek(&mut self, slot: Slot, offset: i64) -> Result<()> {
        // rd_kafka_seek_partitions without waiting is lost without a word where the partition has not started yet
        // (its stop or start still under way) or has stopped at an offset out of range. Taking the partition out and
        // in again goes through the same queue of orders, so it is never overtaken, and it raises the version below
        // which librdkafka drops whatever was fetched before.
        let assigned = self.assigned(slot)?;
        check_start(&assigned.name, offset)?;
        let mut list = PartitionList::new();
        list.add(&assigned.topic, assigned.name.partition, offset);
        self.connection.stop(&list)?;
        let mut room = std::mem::take(&mut self.fetched);
        let client = Arc::clone(&self.connection.client);
        let discarded = self.assigned(slot).map(|assigned| assigned.discard(&client, &mut room));
        self.fetched = room;
        discarded?;
        self.connection.start(&list)?;
        let assigned = self.assigned(slot)?;
        assigned.position = offset;
        assigned.untouched = true;
        assigned.error = None;
        Ok(())
    }

    fn fetch(&mut self, slot: Slot, max: usize) -> Result<Option<Box<dyn Batch>>> {
        let mut room = std::mem::take(&mut self.fetched);
        let client = Arc::clone(&self.connection.client);
        let result = self.assigned(slot).and_then(|assigned| {
            if let Some(error) = assigned.error.take() {
                return Err(error);
            }
            assigned.fetch(&client, &mut room, max)
        });
        self.fetched = room;
        Ok(result?.map(|batch| Box::new(batch) as Box<dyn Batch>))
    }

    fn poll(&mut self) -> Result<()> {
        for queue in [&mut self.connection.main, &mut self.connection.common] {
            while let Some(event) = queue.poll(Duration::ZERO) {
                let (code, text) = event.error();
                if code == errors::NO_ERROR {
                    continue;
                }
                if errors::is_authentication(code) {
                    return Err(errors::from_parts("consumer", code, &text));
                }
                // Connections open again by themselves, and the group that librdkafka looks for is of no use to us: not to
                // be allowed to see it is no error.
                tracing::debug!(target: "headwater::librdkafka", code, "consumer: {text}");
            }
        }
        self.connection.client.fatal_error().map_or(Ok(()), Err)
    }
}

impl Assigned {
    /// Takes at most `max` messages off the queue; `room` holds null pointers before and after.
    fn fetch(&mut self, client: &Arc<Client>, room: &mut Vec<Message>, max: usize) -> Result<Option<KafkaBatch>> {
        let max = max.max(1);
        if room.len() < max {
            room.resize(max, ptr::null_mut());
        }
        loop {
            let Some(buffer) = room.get_mut(..max) else {
                return Ok(None);
            };
            // SAFETY: the queue is alive and the buffer has room for `max` pointers. Timeout 0: with any other
            // librdkafka waits until the buffer is full.
            let taken =
                unsafe { rd::rd_kafka_consume_batch_queue(self.queue.ptr(), 0, buffer.as_mut_ptr(), buffer.len()) };
            let Ok(taken) = usize::try_from(taken) else {
                return Err(BrokerError::new(
                    ErrorClass::Retriable,
                    format!("fetch from {}: the queue could not be read", self.name),
                ));
            };
            if let Some((code, text)) = client.take_complaint() {
                self.note(code, &text);
            }
            let taken = buffer.get_mut(..taken).unwrap_or_default();
            if taken.is_empty() {
                return self.error.take().map_or(Ok(None), Err);
            }
            let (batch, at_end, moved) = self.sort_out(taken);
            if !batch.is_empty() || moved {
                return Ok(Some(KafkaBatch {
                    messages: batch,
                    next_offset: self.position,
                    at_end,
                    _client: Arc::clone(client),
                }));
            }
            if let Some(error) = self.error.take() {
                return Err(error);
            }
            // Only outdated messages: the queue may hold more, and it signals only once it has been empty.
        }
    }

    /// Empties the queue of a partition that has been stopped. librdkafka drops outdated records only when they are
    /// read, and until then they hold their memory and count against the bound of queued bytes.
    fn discard(&mut self, client: &Client, room: &mut Vec<Message>) {
        if room.is_empty() {
            room.resize(DISCARDED_AT_ONCE, ptr::null_mut());
        }
        loop {
            // SAFETY: the queue is alive and the buffer has room for as many pointers as it says.
            let taken = unsafe { rd::rd_kafka_consume_batch_queue(self.queue.ptr(), 0, room.as_mut_ptr(), room.len()) };
            let taken = room.get_mut(..usize::try_from(taken).unwrap_or(0)).unwrap_or_default();
            if taken.is_empty() {
                // What was said about it is outdated too.
                client.take_complaint();
                return;
            }
            for place in taken {
                // SAFETY: ours, and not used afterwards.
                unsafe { rd::rd_kafka_message_destroy(std::mem::replace(place, ptr::null_mut())) };
            }
        }
    }

    /// Parts records from what else comes through the queue, and empties `taken`.
    fn sort_out(&mut self, taken: &mut [Message]) -> (Box<[Message]>, bool, bool) {
        let mut records = Vec::with_capacity(taken.len());
        let mut at_end = false;
        let mut moved = false;
        for place in taken {
            let message = std::mem::replace(place, ptr::null_mut());
            // SAFETY: a live message of ours. The code is read as a number: brokers know more codes than the
            // enumeration does.
            let (code, offset) = unsafe { ((&raw const (*message).err).cast::<i32>().read(), (*message).offset) };
            if code == errors::NO_ERROR && offset >= self.position {
                self.position = offset.saturating_add(1);
                self.untouched = false;
                at_end = false;
                records.push(message);
                continue;
            }
            if code == errors::PARTITION_EOF && offset >= self.position {
                self.position = offset;
                self.untouched = false;
                at_end = true;
                moved = true;
            } else if code != errors::NO_ERROR && code != errors::PARTITION_EOF {
                self.note_error(message, code, offset);
            }
            // SAFETY: ours, and not used afterwards.
            unsafe { rd::rd_kafka_message_destroy(message) };
        }
        (records.into_boxed_slice(), at_end, moved)
    }

    fn note_error(&mut self, message: Message, code: i32, offset: i64) {
        // librdkafka drops outdated records by their version, but an offset out of range carries none. It is ours if
        // it is about the position that was set, or, once reading has begun, about one after it.
        let outdated =
            code == errors::OFFSET_RESET && (offset < self.position || (self.untouched && offset != self.position));
        if outdated {
            return;
        }
        // SAFETY: a live message; the text belongs to it and is copied.
        let text = errors::text_of(unsafe { rd::rd_kafka_message_errstr(message) });
        self.note(code, &text);
    }

    fn note(&mut self, code: i32, text: &str) {
        let context = format!("fetch from {} at offset {}", self.name, self.position);
        self.error.get_or_insert_with(|| errors::from_parts(&context, code, text));
    }
}

/// Records in the memory that the fetch answer was read into.
struct KafkaBatch {
    messages: Box<[Message]>,
    next_offset: i64,
    at_end: bool,
    // Destroying a message touches the client.
    _client: Arc<Client>,
}

impl Batch for KafkaBatch {
    fn len(&self) -> usize {
        self.messages.len()
    }

    fn record(&self, index: usize) -> Option<RecordView<'_>> {
        let &message = self.messages.get(index)?;
        // SAFETY: the message is alive until `drop`, so key and value may be lent for as long as `self` is.
        unsafe {
            Some(RecordView {
                offset: (*message).offset,
                timestamp: rd::rd_kafka_message_timestamp(message, ptr::null_mut()),
                key: lend((*message).key, (*message).key_len),
                value: lend((*message).payload, (*message).len),
            })
        }
    }

    fn headers(&self, index: usize, into: &mut Headers) {
        let Some(&message) = self.messages.get(index) else {
            return;
        };
        let mut headers = ptr::null_mut();
        // SAFETY: the message is alive; the headers belong to it. The first call parses them, into the message, and
        // no other reference into it is handed out that this could disturb.
        let code = unsafe { rd::rd_kafka_message_headers(message, &raw mut headers) };
        if code as c_int != errors::NO_ERROR {
            return;
        }
        for position in 0.. {
            let mut name = ptr::null();
            let mut value = ptr::null();
            let mut size = 0;
            // SAFETY: the headers are alive and the three places are ours.
            let code =
                unsafe { rd::rd_kafka_header_get_all(headers, position, &raw mut name, &raw mut value, &raw mut size) };
            if code as c_int != errors::NO_ERROR {
                return;
            }
            // SAFETY: name and value lie in the message and are copied at once; the name ends in zero.
            let (name, value) = unsafe { (CStr::from_ptr(name).to_string_lossy(), lend(value, size)) };
            into.push(&name, value);
        }
    }

    fn next_offset(&self) -> i64 {
        self.next_offset
    }

    fn at_end(&self) -> bool {
        self.at_end
    }
}

impl Drop for KafkaBatch {
    fn drop(&mut self) {
        for &message in &self.messages {
            // SAFETY: ours, once, and the client still lives.
            unsafe { rd::rd_kafka_message_destroy(message) };
        }
    }
}

/// Bytes at a pointer; `None` for the null pointer.
///
/// # Safety
/// `start` is null or has `length` readable bytes for as long as the caller uses the answer.
unsafe fn lend<'a>(start: *const c_void, length: usize) -> Option<&'a [u8]> {
    if start.is_null() {
        return None;
    }
    // SAFETY: by the contract.
    Some(unsafe { std::slice::from_raw_parts(start.cast::<u8>(), length) })
}
