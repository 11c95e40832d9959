//! Questions and orders about topics.

use std::collections::HashMap;
use std::ffi::{CString, c_int};
use std::os::raw::c_char;
use std::ptr::{self, NonNull};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::bindings as rd;

use super::client::{Client, Event, Queue, c_string, millis};
use super::errors::{self, ErrorObject, TOPIC_EXISTS, UNKNOWN_TOPIC};
use super::list::{PartitionList, read_entry};
use crate::broker::{Admin, BrokerError, Edge, ErrorClass, NewTopic, Result, TopicInfo};
use crate::record::TopicPartition;

/// Pause before a question is asked again.
const BACKOFF: Duration = Duration::from_millis(20);
/// How much longer than the request itself its answer is waited for.
const MARGIN: Duration = Duration::from_millis(500);

/// Asks by a client of its own kind; every call ends within the request timeout, or says that it did not.
pub(super) struct KafkaAdmin {
    queue: Queue,
    client: Arc<Client>,
    timeout: Duration,
    bootstrap: String,
}

/// A topic in the answer to one question.
struct Described {
    code: i32,
    text: String,
    info: TopicInfo,
    leaders: usize,
}

impl KafkaAdmin {
    pub(super) fn new(client: &Arc<Client>, timeout: Duration, bootstrap: &str) -> Result<Self> {
        let queue = Queue::answers(client)
            .ok_or_else(|| BrokerError::new(ErrorClass::Fatal, "no queue for answers about topics"))?;
        Ok(Self { queue, client: Arc::clone(client), timeout, bootstrap: bootstrap.to_owned() })
    }

    /// Sends one request and waits for its answer.
    fn ask(
        &mut self,
        what: &str,
        operation: rd::rd_kafka_admin_op_t,
        answer: c_int,
        deadline: Instant,
        send: impl FnOnce(&Options, *mut rd::rd_kafka_queue_t),
    ) -> Result<Event> {
        let left = deadline.saturating_duration_since(Instant::now());
        let options = Options::new(&self.client, operation, left)?;
        send(&options, self.queue.ptr());
        let event = self
            .queue
            .await_event(deadline + MARGIN, |event| event.kind() == answer)
            .ok_or_else(|| self.unavailable(what))?;
        match event.error() {
            (errors::NO_ERROR, _) => Ok(event),
            (code, text) => Err(errors::from_parts(what, code, &text)),
        }
    }

    fn unavailable(&self, what: &str) -> BrokerError {
        BrokerError::new(
            ErrorClass::Unavailable,
            format!("{what}: no answer from {} within {} ms", self.bootstrap, self.timeout.as_millis()),
        )
    }

    /// Repeats a question until its answer is final or the time is over.
    fn repeat<T>(&mut self, mut ask: impl FnMut(&mut Self, Instant) -> Result<T>) -> Result<T> {
        let deadline = Instant::now() + self.timeout;
        loop {
            match ask(self, deadline) {
                Err(error) if error.class == ErrorClass::Retriable && Instant::now() + BACKOFF < deadline => {
                    std::thread::sleep(BACKOFF);
                }
                answer => return answer,
            }
        }
    }

    fn describe(&mut self, names: &[&str], deadline: Instant) -> Result<Vec<Described>> {
        let what = "describe topics";
        let c_names = names.iter().map(|name| c_string("topic", name)).collect::<Result<Vec<_>>>()?;
        let mut pointers: Vec<*const c_char> = c_names.iter().map(|name| name.as_ptr()).collect();
        let rk = self.client.ptr();
        let event = self.ask(
            what,
            rd::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS,
            rd::RD_KAFKA_EVENT_DESCRIBETOPICS_RESULT,
            deadline,
            // SAFETY: client, options and queue are alive; the names, which are copied, end in zero.
            |options, queue| unsafe {
                let collection = rd::rd_kafka_TopicCollection_of_topic_names(pointers.as_mut_ptr(), pointers.len());
                rd::rd_kafka_DescribeTopics(rk, collection, options.ptr.as_ptr(), queue);
                rd::rd_kafka_TopicCollection_destroy(collection);
            },
        )?;
        let mut found = HashMap::new();
        // SAFETY: the event is of the kind asked for; everything read belongs to it and is copied.
        unsafe {
            let result = rd::rd_kafka_event_DescribeTopics_result(event.ptr());
            let mut count = 0;
            let topics = rd::rd_kafka_DescribeTopics_result_topics(result, &raw mut count);
            for &topic in array(topics, count) {
                let name = errors::text_of(rd::rd_kafka_TopicDescription_name(topic));
                found.insert(name, read_description(topic));
            }
        }
        names
            .iter()
            .map(|name| {
                found.remove(*name).ok_or_else(|| {
                    BrokerError::new(ErrorClass::Retriable, format!("{what}: the answer leaves out {name:?}"))
                })
            })
            .collect()
    }

    fn create(&mut self, topics: &[NewTopic], deadline: Instant) -> Result<()> {
        let new = topics.iter().map(NativeTopic::new).collect::<Result<Vec<_>>>()?;
        let mut pointers: Vec<_> = new.iter().map(|topic| topic.ptr.as_ptr()).collect();
        let rk = self.client.ptr();
        let event = self.ask(
            "create topics",
            rd::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_CREATETOPICS,
            rd::RD_KAFKA_EVENT_CREATETOPICS_RESULT,
            deadline,
            // SAFETY: client, topics, options and queue are alive; the topics are copied.
            |options, queue| unsafe {
                rd::rd_kafka_CreateTopics(rk, pointers.as_mut_ptr(), pointers.len(), options.ptr.as_ptr(), queue);
            },
        )?;
        // SAFETY: the event is of the kind asked for; everything read belongs to it and is copied.
        unsafe {
            let result = rd::rd_kafka_event_CreateTopics_result(event.ptr());
            let mut count = 0;
            let topics = rd::rd_kafka_CreateTopics_result_topics(result, &raw mut count);
            for &topic in array(topics, count) {
                let code = rd::rd_kafka_topic_result_error(topic) as i32;
                if code != errors::NO_ERROR && code != TOPIC_EXISTS {
                    let context = format!("create topic {}", errors::text_of(rd::rd_kafka_topic_result_name(topic)));
                    let text = errors::text_of(rd::rd_kafka_topic_result_error_string(topic));
                    return Err(errors::from_parts(&context, code, &text));
                }
            }
        }
        Ok(())
    }

    fn list_offsets(&mut self, partitions: &[TopicPartition], edge: Edge, deadline: Instant) -> Result<Vec<i64>> {
        let (spec, isolation) = match edge {
            Edge::Start => (rd::rd_kafka_OffsetSpec_t::RD_KAFKA_OFFSET_SPEC_EARLIEST, UNCOMMITTED),
            Edge::End => (rd::rd_kafka_OffsetSpec_t::RD_KAFKA_OFFSET_SPEC_LATEST, UNCOMMITTED),
            Edge::Stable => (rd::rd_kafka_OffsetSpec_t::RD_KAFKA_OFFSET_SPEC_LATEST, COMMITTED),
        };
        let mut list = PartitionList::new();
        for partition in partitions {
            list.add(&c_string("topic", &partition.topic)?, partition.partition, spec as i64);
        }
        let rk = self.client.ptr();
        let event = self.ask(
            "list offsets",
            rd::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_LISTOFFSETS,
            rd::RD_KAFKA_EVENT_LISTOFFSETS_RESULT,
            deadline,
            // SAFETY: client, list, options and queue are alive; the list is copied.
            |options, queue| unsafe {
                ErrorObject::take(rd::rd_kafka_AdminOptions_set_isolation_level(options.ptr.as_ptr(), isolation));
                rd::rd_kafka_ListOffsets(rk, list.ptr(), options.ptr.as_ptr(), queue);
            },
        )?;
        let mut found = HashMap::new();
        // SAFETY: the event is of the kind asked for; everything read belongs to it and is copied.
        unsafe {
            let result = rd::rd_kafka_event_ListOffsets_result(event.ptr());
            let mut count = 0;
            let infos = rd::rd_kafka_ListOffsets_result_infos(result, &raw mut count);
            for &info in array(infos, count) {
                let answer = read_entry(rd::rd_kafka_ListOffsetsResultInfo_topic_partition(info));
                found.insert((answer.topic, answer.partition), (answer.code, answer.offset));
            }
        }
        partitions
            .iter()
            .map(|partition| {
                let context = format!("offset of {partition}");
                match found.get(&(partition.topic.to_string(), partition.partition)) {
                    Some(&(errors::NO_ERROR, offset)) => Ok(offset),
                    Some(&(code, _)) => Err(errors::from_parts(&context, code, "the broker refused")),
                    None => {
                        Err(BrokerError::new(ErrorClass::Retriable, format!("{context}: the answer leaves it out")))
                    }
                }
            })
            .collect()
    }
}

impl KafkaAdmin {
    /// An error that names the first partition which does not exist.
    fn check_existence(&mut self, partitions: &[TopicPartition], deadline: Instant) -> Result<()> {
        let mut names: Vec<&str> = partitions.iter().map(|partition| &*partition.topic).collect();
        names.sort_unstable();
        names.dedup();
        let described = self.describe(&names, deadline)?;
        let counts: HashMap<_, _> =
            names.iter().zip(described.iter().map(|topic| (topic.code, topic.info.partitions))).collect();
        let missing = partitions.iter().find(|partition| match counts.get(&&*partition.topic) {
            Some(&(errors::NO_ERROR, count)) => !(0..count).contains(&partition.partition),
            Some(&(code, _)) => code == UNKNOWN_TOPIC,
            None => false,
        });
        missing.map_or(Ok(()), |partition| {
            Err(BrokerError::new(ErrorClass::UnknownTopic, format!("{partition} does not exist")))
        })
    }
}

const UNCOMMITTED: rd::rd_kafka_IsolationLevel_t =
    rd::rd_kafka_IsolationLevel_t::RD_KAFKA_ISOLATION_LEVEL_READ_UNCOMMITTED;
const COMMITTED: rd::rd_kafka_IsolationLevel_t = rd::rd_kafka_IsolationLevel_t::RD_KAFKA_ISOLATION_LEVEL_READ_COMMITTED;

impl Admin for KafkaAdmin {
    fn cluster_id(&mut self) -> Result<String> {
        // SAFETY: the client is alive; the answer is null or a string that is ours.
        let id = unsafe { rd::rd_kafka_clusterid(self.client.ptr(), millis(self.timeout)) };
        if id.is_null() {
            return Err(self.unavailable("ask for the cluster id"));
        }
        let text = errors::text_of(id);
        // SAFETY: ours, from librdkafka's allocator, and not used afterwards.
        unsafe { rd::rd_kafka_mem_free(self.client.ptr(), id.cast()) };
        Ok(text)
    }

    fn topics(&mut self, names: &[&str]) -> Result<Vec<Option<TopicInfo>>> {
        if names.is_empty() {
            return Ok(Vec::new());
        }
        self.repeat(|admin, deadline| {
            let described = admin.describe(names, deadline)?;
            names
                .iter()
                .zip(described)
                .map(|(name, topic)| match topic.code {
                    errors::NO_ERROR => Ok(Some(topic.info)),
                    UNKNOWN_TOPIC => Ok(None),
                    code => Err(errors::from_parts(&format!("describe topic {name}"), code, &topic.text)),
                })
                .collect()
        })
    }

    fn create_topics(&mut self, topics: &[NewTopic]) -> Result<()> {
        if topics.is_empty() {
            return Ok(());
        }
        self.repeat(|admin, deadline| admin.create(topics, deadline))?;
        let names: Vec<&str> = topics.iter().map(|topic| topic.name.as_str()).collect();
        // Created is not yet writable: every partition needs a leader that the brokers know of.
        self.repeat(|admin, deadline| {
            let described = admin.describe(&names, deadline)?;
            for (name, topic) in names.iter().zip(described) {
                let partitions = usize::try_from(topic.info.partitions).unwrap_or(usize::MAX);
                if topic.code != errors::NO_ERROR || partitions == 0 || topic.leaders < partitions {
                    return Err(BrokerError::new(
                        ErrorClass::Retriable,
                        format!(
                            "create topic {name}: {} of {partitions} partitions have a leader after {} ms",
                            topic.leaders,
                            admin.timeout.as_millis()
                        ),
                    ));
                }
            }
            Ok(())
        })
    }

    fn offsets(&mut self, partitions: &[TopicPartition], edge: Edge) -> Result<Vec<i64>> {
        if partitions.is_empty() {
            return Ok(Vec::new());
        }
        self.repeat(|admin, deadline| {
            let answer = admin.list_offsets(partitions, edge, deadline);
            if answer.as_ref().is_err_and(|error| error.class == ErrorClass::Retriable) {
                // "No leader" may be for now or for good.
                admin.check_existence(partitions, deadline)?;
            }
            answer
        })
    }
}

/// Reads one topic of an answer.
///
/// # Safety
/// `topic` belongs to a live event.
unsafe fn read_description(topic: *const rd::rd_kafka_TopicDescription_t) -> Described {
    // SAFETY: alive by the contract; all is copied.
    unsafe {
        let error = rd::rd_kafka_TopicDescription_error(topic);
        let (code, text) = if error.is_null() {
            (errors::NO_ERROR, String::new())
        } else {
            let error = ErrorObject::read(error);
            (error.code, error.text)
        };
        let id = rd::rd_kafka_TopicDescription_topic_id(topic);
        let id = if id.is_null() { String::new() } else { topic_id(&errors::text_of(rd::rd_kafka_Uuid_base64str(id))) };
        let mut count = 0;
        let partitions = rd::rd_kafka_TopicDescription_partitions(topic, &raw mut count);
        let leaders = array(partitions, count)
            .iter()
            .filter(|&&partition| {
                let leader = rd::rd_kafka_TopicPartitionInfo_leader(partition);
                !leader.is_null() && rd::rd_kafka_Node_id(leader) >= 0
            })
            .count();
        Described { code, text, info: TopicInfo { partitions: i32::try_from(count).unwrap_or(i32::MAX), id }, leaders }
    }
}

/// The id as Kafka's own tools print it: base64 for URLs, without padding.
fn topic_id(base64: &str) -> String {
    base64
        .trim_end_matches('=')
        .chars()
        .map(|c| match c {
            '+' => '-',
            '/' => '_',
            c => c,
        })
        .collect()
}

/// An array in an answer; empty for the null pointer.
///
/// # Safety
/// `start` is null or the first of `count` entries that live as long as the caller uses them.
unsafe fn array<'a, T>(start: *mut *const T, count: usize) -> &'a [*const T] {
    if start.is_null() {
        return &[];
    }
    // SAFETY: by the contract.
    unsafe { std::slice::from_raw_parts(start, count) }
}

/// Options of one request.
struct Options {
    ptr: NonNull<rd::rd_kafka_AdminOptions_t>,
}

impl Options {
    fn new(client: &Client, operation: rd::rd_kafka_admin_op_t, timeout: Duration) -> Result<Self> {
        // SAFETY: the client is alive; the options are ours.
        let ptr = unsafe { rd::rd_kafka_AdminOptions_new(client.ptr(), operation) };
        let options = NonNull::new(ptr)
            .map(|ptr| Self { ptr })
            .ok_or_else(|| BrokerError::new(ErrorClass::Fatal, "no options for a request about topics"))?;
        // SAFETY: alive. No text is wanted: the only error is a value out of range.
        let code = unsafe {
            rd::rd_kafka_AdminOptions_set_request_timeout(ptr, millis(timeout).clamp(1, 3_600_000), ptr::null_mut(), 0)
        };
        if code as i32 != errors::NO_ERROR {
            return Err(errors::from_code("set the request timeout", code));
        }
        Ok(options)
    }
}

impl Drop for Options {
    fn drop(&mut self) {
        // SAFETY: ours, and not used afterwards.
        unsafe { rd::rd_kafka_AdminOptions_destroy(self.ptr.as_ptr()) };
    }
}

/// A topic to create, as librdkafka wants it.
struct NativeTopic {
    ptr: NonNull<rd::rd_kafka_NewTopic_t>,
}

impl NativeTopic {
    fn new(topic: &NewTopic) -> Result<Self> {
        let name = c_string("topic", &topic.name)?;
        let mut text = [0 as c_char; 256];
        // SAFETY: the name ends in zero and is copied; the buffer is as long as said; the object is ours.
        let ptr = unsafe {
            rd::rd_kafka_NewTopic_new(
                name.as_ptr(),
                topic.partitions,
                c_int::from(topic.replication),
                text.as_mut_ptr(),
                text.len(),
            )
        };
        let new = NonNull::new(ptr).map(|ptr| Self { ptr }).ok_or_else(|| {
            BrokerError::new(
                ErrorClass::Configuration,
                format!(
                    "create topic {:?} with {} partitions and {} replicas: {}",
                    topic.name,
                    topic.partitions,
                    topic.replication,
                    errors::text_of(text.as_ptr())
                ),
            )
        })?;
        for (key, value) in &topic.settings {
            let c_key: CString = c_string("topic setting", key)?;
            let c_value = c_string("the value of a topic setting", value)?;
            // SAFETY: alive; both strings end in zero and are copied.
            let code = unsafe { rd::rd_kafka_NewTopic_set_config(ptr, c_key.as_ptr(), c_value.as_ptr()) };
            if code as i32 != errors::NO_ERROR {
                return Err(errors::from_code(&format!("topic setting {key:?} = {value:?}"), code));
            }
        }
        Ok(new)
    }
}

impl Drop for NativeTopic {
    fn drop(&mut self) {
        // SAFETY: ours, and not used afterwards.
        unsafe { rd::rd_kafka_NewTopic_destroy(self.ptr.as_ptr()) };
    }
}

#[cfg(test)]
mod tests {
    use super::topic_id;

    #[test]
    fn a_topic_id_is_printed_as_kafkas_tools_print_it() {
        assert_eq!(topic_id("Zk+/8c3kTo2+/w3Q0a1B9g=="), "Zk-_8c3kTo2-_w3Q0a1B9g");
    }
}
