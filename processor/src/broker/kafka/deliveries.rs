//! What has been acknowledged: counted, and the highest offset per partition.

use std::ffi::CString;
use std::ptr::NonNull;
use std::sync::Arc;

use rdkafka::bindings as rd;

use super::client::{Client, Event, c_string};
use super::errors::{self, PURGE_INFLIGHT, PURGE_QUEUE};
use crate::broker::{BrokerError, ErrorClass, Result, TopicHandle};

/// A topic that a producer writes to.
struct Topic {
    name: CString,
    ptr: NonNull<rd::rd_kafka_topic_t>,
    // One past the highest acknowledged offset, per partition; -1 where there is none.
    acknowledged: Vec<i64>,
}

/// The topics of a producer and what became of its records.
pub(super) struct Deliveries {
    topics: Vec<Topic>,
    reported: u64,
    error: Option<BrokerError>,
    // Topics point into it.
    client: Arc<Client>,
}

// SAFETY: topic handles may be used from any thread (they belong to the client, which may).
unsafe impl Send for Deliveries {}

impl Deliveries {
    pub(super) fn new(client: &Arc<Client>) -> Self {
        Self { topics: Vec::new(), reported: 0, error: None, client: Arc::clone(client) }
    }

    /// Makes a topic known, or finds it.
    pub(super) fn topic(&mut self, name: &str) -> Result<TopicHandle> {
        let name = c_string("topic", name)?;
        let known = self.topics.iter().position(|topic| topic.name == name);
        let index = match known {
            Some(index) => index,
            None => {
                // SAFETY: the client is alive, the name ends in zero, no settings of its own. The handle is ours.
                let ptr = unsafe { rd::rd_kafka_topic_new(self.client.ptr(), name.as_ptr(), std::ptr::null_mut()) };
                let ptr = NonNull::new(ptr).ok_or_else(|| {
                    BrokerError::new(ErrorClass::Configuration, format!("{name:?} cannot be the name of a topic"))
                })?;
                self.topics.push(Topic { name, ptr, acknowledged: Vec::new() });
                self.topics.len().saturating_sub(1)
            }
        };
        Ok(TopicHandle(u32::try_from(index).unwrap_or(u32::MAX)))
    }

    fn get(&self, handle: TopicHandle) -> Option<&Topic> {
        self.topics.get(usize::try_from(handle.0).ok()?)
    }

    /// The topic as librdkafka knows it.
    pub(super) fn ptr(&self, handle: TopicHandle) -> Option<*mut rd::rd_kafka_topic_t> {
        Some(self.get(handle)?.ptr.as_ptr())
    }

    /// The topic's name.
    pub(super) fn name(&self, handle: TopicHandle) -> String {
        self.get(handle).map_or_else(String::new, |topic| topic.name.to_string_lossy().into_owned())
    }

    /// How many records have been reported, written or not.
    pub(super) fn reported(&self) -> u64 {
        self.reported
    }

    /// One past the highest offset acknowledged in a partition.
    pub(super) fn acknowledged(&self, handle: TopicHandle, partition: i32) -> Option<i64> {
        let &next = self.get(handle)?.acknowledged.get(usize::try_from(partition).ok()?)?;
        (next >= 0).then_some(next)
    }

    /// The first failure since it was last asked for.
    pub(super) fn take_error(&mut self) -> Option<BrokerError> {
        self.error.take()
    }

    /// Counts the reports of one event. All of them are about one partition as a rule, so the topic is looked up by
    /// its address and only where it changes.
    pub(super) fn take(&mut self, event: &Event) {
        let mut last: Option<(*mut rd::rd_kafka_topic_t, usize)> = None;
        loop {
            // SAFETY: the event is alive; the message belongs to it and is read before the event is destroyed.
            let Some(message) = (unsafe { rd::rd_kafka_event_message_next(event.ptr()).as_ref() }) else {
                return;
            };
            self.reported = self.reported.saturating_add(1);
            // SAFETY: a field of a live message, read as a number: brokers know more codes than the enumeration does.
            let code = unsafe { (&raw const message.err).cast::<i32>().read() };
            if code != errors::NO_ERROR {
                self.failed(message, code);
                continue;
            }
            let index = match last {
                Some((topic, index)) if topic == message.rkt => Some(index),
                _ => self.topics.iter().position(|topic| topic.ptr.as_ptr() == message.rkt),
            };
            let (Some(index), Ok(partition)) = (index, usize::try_from(message.partition)) else {
                continue;
            };
            last = Some((message.rkt, index));
            let Some(topic) = self.topics.get_mut(index) else {
                continue;
            };
            if topic.acknowledged.len() <= partition {
                topic.acknowledged.resize(partition.saturating_add(1), -1);
            }
            if let Some(next) = topic.acknowledged.get_mut(partition) {
                *next = (*next).max(message.offset.saturating_add(1));
            }
        }
    }

    fn failed(&mut self, message: &rd::rd_kafka_message_t, code: i32) {
        // An abort drops what it has not sent yet: that is its purpose, not a failure.
        if code == PURGE_QUEUE || code == PURGE_INFLIGHT || self.error.is_some() {
            return;
        }
        // SAFETY: a live message; the name belongs to its topic, the text to the message; both are copied.
        let (topic, text) = unsafe {
            (
                errors::text_of(rd::rd_kafka_topic_name(message.rkt)),
                errors::text_of(rd::rd_kafka_message_produce_errstr(message)),
            )
        };
        let context = format!("write to {topic}-{}", message.partition);
        self.error = Some(errors::from_parts(&context, code, &text));
    }
}

impl Drop for Deliveries {
    fn drop(&mut self) {
        for topic in &self.topics {
            // SAFETY: ours, not used afterwards, and the client still lives.
            unsafe { rd::rd_kafka_topic_destroy(topic.ptr.as_ptr()) };
        }
    }
}
