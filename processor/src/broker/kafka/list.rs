//! librdkafka's list of partitions with offsets.

use std::ffi::CStr;
use std::os::raw::c_void;
use std::ptr::NonNull;

use rdkafka::bindings as rd;

use super::client::c_string;
use crate::broker::{BrokerError, ErrorClass, Result};

/// A list that is built here and read by librdkafka.
pub(super) struct PartitionList {
    ptr: NonNull<rd::rd_kafka_topic_partition_list_t>,
}

/// What librdkafka answered for one partition.
pub(super) struct PartitionAnswer {
    pub(super) topic: String,
    pub(super) partition: i32,
    pub(super) offset: i64,
    pub(super) code: i32,
}

impl PartitionList {
    pub(super) fn new() -> Self {
        // SAFETY: no precondition; never null (it aborts where memory is out).
        let ptr = unsafe { rd::rd_kafka_topic_partition_list_new(0) };
        Self { ptr: NonNull::new(ptr).unwrap_or_else(|| std::process::abort()) }
    }

    /// Adds a partition with an offset.
    pub(super) fn add(&mut self, topic: &CStr, partition: i32, offset: i64) {
        // SAFETY: the list is alive and the name, which is copied, ends in zero; the entry lies in the list.
        unsafe {
            let entry = rd::rd_kafka_topic_partition_list_add(self.ptr.as_ptr(), topic.as_ptr(), partition);
            (*entry).offset = offset;
        }
    }

    /// Adds a partition with an offset and the text committed beside it.
    pub(super) fn add_committed(&mut self, topic: &str, partition: i32, offset: i64, metadata: &str) -> Result<()> {
        let topic = c_string("topic", topic)?;
        // SAFETY: as in `add`. The list frees the metadata with free(3), so it has to come from malloc(3).
        unsafe {
            let entry = rd::rd_kafka_topic_partition_list_add(self.ptr.as_ptr(), topic.as_ptr(), partition);
            (*entry).offset = offset;
            if !metadata.is_empty() {
                let copy = malloc(metadata.len());
                let Some(copy) = NonNull::new(copy) else {
                    return Err(BrokerError::new(ErrorClass::Fatal, "no memory for offset metadata"));
                };
                copy.cast::<u8>()
                    .copy_from_nonoverlapping(NonNull::new_unchecked(metadata.as_ptr().cast_mut()), metadata.len());
                (*entry).metadata = copy.as_ptr();
                (*entry).metadata_size = metadata.len();
            }
        }
        Ok(())
    }

    pub(super) fn ptr(&self) -> *mut rd::rd_kafka_topic_partition_list_t {
        self.ptr.as_ptr()
    }
}

impl Drop for PartitionList {
    fn drop(&mut self) {
        // SAFETY: ours, and not used afterwards.
        unsafe { rd::rd_kafka_topic_partition_list_destroy(self.ptr.as_ptr()) };
    }
}

/// Reads an entry of somebody else's list.
///
/// # Safety
/// `entry` is an entry of a live list.
pub(super) unsafe fn read_entry(entry: *const rd::rd_kafka_topic_partition_t) -> PartitionAnswer {
    // SAFETY: live by the contract. The code is read as a number: brokers know more codes than the enumeration does.
    unsafe {
        PartitionAnswer {
            topic: super::errors::text_of((*entry).topic),
            partition: (*entry).partition,
            offset: (*entry).offset,
            code: (&raw const (*entry).err).cast::<i32>().read(),
        }
    }
}

unsafe extern "C" {
    fn malloc(size: usize) -> *mut c_void;
}
