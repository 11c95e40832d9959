//! The bytes that members and their leader send each other inside JoinGroup and SyncGroup.
//!
//! ```text
//! kind: 2 bytes ("HS" subscription, "HA" assignment)   version: u16   readable since: u16
//! then fields, in any order:  tag: u16   length: u32   bytes
//! tasks are runs of  subtopology: u32   count: u32   count × partition: i32
//! ```
//!
//! Numbers are big-endian. A reader skips fields that it does not know, so a newer version may add some; one that changes
//! the meaning of a field raises "readable since", and older readers refuse it with a reason instead of guessing.

use std::collections::BTreeSet;

use super::TaskId;

const VERSION: u16 = 1;
const READABLE_SINCE: u16 = 1;
const SUBSCRIPTION: [u8; 2] = *b"HS";
const ASSIGNMENT: [u8; 2] = *b"HA";
/// Kafka refuses a member's data from about this size on.
const MAX_BYTES: usize = 1024 * 1024;
const MAX_PROCESS_ID_BYTES: usize = 256;

/// Tags of a subscription's fields. A tag is never used again for something else.
mod subscription_tag {
    pub(super) const FINGERPRINT: u16 = 1;
    pub(super) const CAPACITY: u16 = 2;
    pub(super) const PROCESS_ID: u16 = 3;
    pub(super) const HELD: u16 = 4;
    pub(super) const PREVIOUS: u16 = 5;
    pub(super) const NONCE: u16 = 6;
}

/// Tags of an assignment's fields.
mod assignment_tag {
    pub(super) const FINGERPRINT: u16 = 1;
    pub(super) const TASKS: u16 = 2;
    pub(super) const FOLLOW_UP: u16 = 3;
}

/// What a member tells the leader.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Subscription {
    /// Of the member's task plan.
    pub(crate) fingerprint: u64,
    /// Its share of the work, compared with other members'.
    pub(crate) capacity: u32,
    /// Names the process, for people.
    pub(crate) process_id: String,
    /// Tasks its workers have, or have been told to start: nobody else may start them.
    pub(crate) held: BTreeSet<TaskId>,
    /// Tasks it had before and does not hold: their state may still be on its disk.
    pub(crate) previous: BTreeSet<TaskId>,
    /// Changed to force a round: a JoinGroup with unchanged bytes makes none.
    pub(crate) nonce: u64,
}

/// What the leader tells a member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AssignedTasks {
    /// Of the plan that the task numbers belong to.
    pub(crate) fingerprint: u64,
    /// Everything the member shall run.
    pub(crate) tasks: BTreeSet<TaskId>,
    /// Whether another round comes as soon as some member has released what it lost.
    pub(crate) follow_up: bool,
}

/// Why user data was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum UserDataError {
    #[error("it is empty: the group is led or used by a client of another kind")]
    Empty,
    #[error("it does not begin with {0:?}: it was written by a client of another kind")]
    Foreign(&'static str),
    #[error("its version {version} can be read since version {readable_since} and this is version {VERSION}")]
    TooNew { version: u16, readable_since: u16 },
    #[error("it ends inside {0}")]
    Truncated(&'static str),
    #[error("it has {0} bytes; at most {MAX_BYTES} are read")]
    TooLong(usize),
    #[error("it lacks its {0}")]
    Missing(&'static str),
    #[error("its {0} cannot be read: {1}")]
    Invalid(&'static str, &'static str),
}

impl Subscription {
    pub(crate) fn encode(&self) -> Vec<u8> {
        use subscription_tag::{CAPACITY, FINGERPRINT, HELD, NONCE, PREVIOUS, PROCESS_ID};
        let mut bytes = header(SUBSCRIPTION);
        put_field(&mut bytes, FINGERPRINT, &self.fingerprint.to_be_bytes());
        put_field(&mut bytes, CAPACITY, &self.capacity.to_be_bytes());
        put_field(&mut bytes, PROCESS_ID, self.process_id.as_bytes());
        put_field(&mut bytes, HELD, &encode_tasks(&self.held));
        put_field(&mut bytes, PREVIOUS, &encode_tasks(&self.previous));
        put_field(&mut bytes, NONCE, &self.nonce.to_be_bytes());
        bytes
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, UserDataError> {
        let (mut fingerprint, mut capacity, mut process_id) = (None, None, None);
        let (mut held, mut previous, mut nonce) = (None, None, None);
        let mut fields = open(bytes, SUBSCRIPTION, "HS")?;
        while let Some((tag, mut field)) = fields.field()? {
            match tag {
                subscription_tag::FINGERPRINT => fingerprint = Some(field.u64("fingerprint")?),
                subscription_tag::CAPACITY => capacity = Some(field.u32("capacity")?),
                subscription_tag::PROCESS_ID => process_id = Some(field.process_id()?),
                subscription_tag::HELD => held = Some(field.tasks("held tasks")?),
                subscription_tag::PREVIOUS => previous = Some(field.tasks("previous tasks")?),
                subscription_tag::NONCE => nonce = Some(field.u64("nonce")?),
                _ => {}
            }
        }
        Ok(Self {
            fingerprint: fingerprint.ok_or(UserDataError::Missing("fingerprint"))?,
            capacity: capacity.ok_or(UserDataError::Missing("capacity"))?,
            process_id: process_id.unwrap_or_default(),
            // Not optional: to take missing for "holds nothing" would give its tasks to somebody else.
            held: held.ok_or(UserDataError::Missing("held tasks"))?,
            previous: previous.unwrap_or_default(),
            nonce: nonce.unwrap_or_default(),
        })
    }
}

impl AssignedTasks {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = header(ASSIGNMENT);
        put_field(&mut bytes, assignment_tag::FINGERPRINT, &self.fingerprint.to_be_bytes());
        put_field(&mut bytes, assignment_tag::TASKS, &encode_tasks(&self.tasks));
        put_field(&mut bytes, assignment_tag::FOLLOW_UP, &[u8::from(self.follow_up)]);
        bytes
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, UserDataError> {
        let (mut fingerprint, mut tasks, mut follow_up) = (None, None, false);
        let mut fields = open(bytes, ASSIGNMENT, "HA")?;
        while let Some((tag, mut field)) = fields.field()? {
            match tag {
                assignment_tag::FINGERPRINT => fingerprint = Some(field.u64("fingerprint")?),
                assignment_tag::TASKS => tasks = Some(field.tasks("tasks")?),
                assignment_tag::FOLLOW_UP => follow_up = field.take::<1>("follow-up mark")? != [0],
                _ => {}
            }
        }
        Ok(Self {
            fingerprint: fingerprint.ok_or(UserDataError::Missing("fingerprint"))?,
            tasks: tasks.ok_or(UserDataError::Missing("tasks"))?,
            follow_up,
        })
    }
}

fn header(kind: [u8; 2]) -> Vec<u8> {
    let mut bytes = kind.to_vec();
    bytes.extend_from_slice(&VERSION.to_be_bytes());
    bytes.extend_from_slice(&READABLE_SINCE.to_be_bytes());
    bytes
}

fn put_field(into: &mut Vec<u8>, tag: u16, field: &[u8]) {
    into.extend_from_slice(&tag.to_be_bytes());
    put_length(into, field.len());
    into.extend_from_slice(field);
}

fn put_length(into: &mut Vec<u8>, length: usize) {
    // Lengths are of sets in memory; a reader refuses data long before they outgrow 32 bits.
    into.extend_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes());
}

fn encode_tasks(tasks: &BTreeSet<TaskId>) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(tasks.len().saturating_mul(4));
    let tasks: Vec<TaskId> = tasks.iter().copied().collect();
    for run in tasks.chunk_by(|a, b| a.subtopology == b.subtopology) {
        let subtopology = run.first().map_or(0, |task| task.subtopology);
        bytes.extend_from_slice(&subtopology.to_be_bytes());
        put_length(&mut bytes, run.len());
        for task in run {
            bytes.extend_from_slice(&task.partition.to_be_bytes());
        }
    }
    bytes
}

/// Checks the header and gives what follows it.
fn open<'a>(bytes: &'a [u8], kind: [u8; 2], name: &'static str) -> Result<Reader<'a>, UserDataError> {
    if bytes.is_empty() {
        return Err(UserDataError::Empty);
    }
    if bytes.len() > MAX_BYTES {
        return Err(UserDataError::TooLong(bytes.len()));
    }
    let mut reader = Reader { rest: bytes };
    if reader.take::<2>("header") != Ok(kind) {
        return Err(UserDataError::Foreign(name));
    }
    let version = reader.u16("header")?;
    let readable_since = reader.u16("header")?;
    if readable_since > VERSION {
        return Err(UserDataError::TooNew { version, readable_since });
    }
    Ok(reader)
}

struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn take<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], UserDataError> {
        let (taken, rest) = self.rest.split_first_chunk::<N>().ok_or(UserDataError::Truncated(what))?;
        self.rest = rest;
        Ok(*taken)
    }

    fn u16(&mut self, what: &'static str) -> Result<u16, UserDataError> {
        self.take(what).map(u16::from_be_bytes)
    }

    fn u32(&mut self, what: &'static str) -> Result<u32, UserDataError> {
        self.take(what).map(u32::from_be_bytes)
    }

    fn u64(&mut self, what: &'static str) -> Result<u64, UserDataError> {
        self.take(what).map(u64::from_be_bytes)
    }

    /// The next field's tag and bytes; `None` at the end.
    fn field(&mut self) -> Result<Option<(u16, Self)>, UserDataError> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let tag = self.u16("a field's tag")?;
        let length = usize::try_from(self.u32("a field's length")?).unwrap_or(usize::MAX);
        let (field, rest) = self.rest.split_at_checked(length).ok_or(UserDataError::Truncated("a field"))?;
        self.rest = rest;
        Ok(Some((tag, Reader::<'a> { rest: field })))
    }

    fn process_id(&mut self) -> Result<String, UserDataError> {
        if self.rest.len() > MAX_PROCESS_ID_BYTES {
            return Err(UserDataError::Invalid("process id", "longer than 256 bytes"));
        }
        match std::str::from_utf8(self.rest) {
            Ok(text) => Ok(text.to_owned()),
            Err(_) => Err(UserDataError::Invalid("process id", "not UTF-8")),
        }
    }

    fn tasks(&mut self, what: &'static str) -> Result<BTreeSet<TaskId>, UserDataError> {
        let mut tasks = BTreeSet::new();
        while !self.rest.is_empty() {
            let subtopology = self.u32(what)?;
            // A count that lies runs into the end of the field; nothing is reserved by it.
            for _ in 0..self.u32(what)? {
                let partition = self.take(what).map(i32::from_be_bytes)?;
                if partition < 0 {
                    return Err(UserDataError::Invalid(what, "negative partition"));
                }
                tasks.insert(TaskId { subtopology, partition });
            }
        }
        Ok(tasks)
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::{btree_set, vec};
    use proptest::prelude::*;

    use super::*;

    fn tasks() -> impl Strategy<Value = BTreeSet<TaskId>> {
        let task = (0..4_u32, 0..1000_i32).prop_map(|(subtopology, partition)| TaskId { subtopology, partition });
        btree_set(task, 0..40)
    }

    fn sample() -> Subscription {
        Subscription {
            fingerprint: 7,
            capacity: 2,
            process_id: "p".to_owned(),
            held: BTreeSet::from([TaskId { subtopology: 1, partition: 3 }]),
            previous: BTreeSet::new(),
            nonce: 9,
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            fingerprint: u64, capacity: u32, nonce: u64, follow_up: bool,
            process_id in ".{0,60}", held in tasks(), previous in tasks(),
        ) {
            let assigned = AssignedTasks { fingerprint, tasks: held.clone(), follow_up };
            prop_assert_eq!(AssignedTasks::decode(&assigned.encode()), Ok(assigned));
            let subscription = Subscription { fingerprint, capacity, process_id, held, previous, nonce };
            prop_assert_eq!(Subscription::decode(&subscription.encode()), Ok(subscription));
        }

        #[test]
        fn any_bytes_are_read_or_refused(mut bytes in vec(any::<u8>(), 0..200), framed: bool, cut in 0..80_usize) {
            if framed {
                // Past the header, so that the fields see the random bytes.
                let mut after = sample().encode();
                after.truncate(cut.max(6));
                after.append(&mut bytes);
                bytes = after;
            }
            let _ = Subscription::decode(&bytes);
            if let Some(kind) = bytes.first_chunk_mut::<2>() {
                *kind = ASSIGNMENT;
            }
            let _ = AssignedTasks::decode(&bytes);
        }

        #[test]
        fn a_cut_subscription_is_never_read_as_a_smaller_claim(cut in 0..80_usize) {
            let whole = sample().encode();
            if let Some(part) = whole.get(..cut)
                && let Ok(read) = Subscription::decode(part) {
                prop_assert_eq!(read.held, sample().held);
            }
        }
    }

    #[test]
    fn fields_of_a_newer_version_are_skipped() {
        let mut bytes = sample().encode();
        bytes[3] = 9; // written by version 9, readable since 1
        put_field(&mut bytes, 4711, b"something new");
        assert_eq!(Subscription::decode(&bytes), Ok(sample()));
    }

    #[test]
    fn data_that_cannot_be_understood_is_refused_with_a_reason() {
        let mut too_new = sample().encode();
        too_new[3] = 9;
        too_new[5] = 8;
        let reason = Subscription::decode(&too_new).map_err(|e| e.to_string());
        assert_eq!(reason, Err("its version 9 can be read since version 8 and this is version 1".to_owned()));
        assert_eq!(AssignedTasks::decode(&[]), Err(UserDataError::Empty));
        assert_eq!(AssignedTasks::decode(&sample().encode()), Err(UserDataError::Foreign("HA")));
        let without_claim = header(SUBSCRIPTION);
        assert_eq!(Subscription::decode(&without_claim), Err(UserDataError::Missing("fingerprint")));
        assert_eq!(Subscription::decode(&vec![0; MAX_BYTES + 1]), Err(UserDataError::TooLong(MAX_BYTES + 1)));
    }
}
