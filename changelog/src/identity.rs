//! Where a store's data come from, and whether they can be used.

use std::fmt;
use std::ops::{Bound, ControlFlow, Range};

use serde::{Deserialize, Serialize};

use crate::{Backend, Batch, Error, Result, StoreId};

/// The log that a store is folded from, and the form it is folded into.
///
/// It is kept inside the store's database, beside the changelog offset. The topology is no part of it: a deploy that
/// changes the topology must not cost state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Kafka's cluster id.
    pub cluster: String,
    /// The application id.
    pub application: String,
    /// The changelog topic's name.
    pub topic: String,
    /// The changelog topic's id in text form, which tells a topic from one deleted and created again under the same name.
    /// Empty where the broker does not tell it; then no data can be proved to come from the topic.
    pub topic_id: String,
    /// The changelog partition.
    pub partition: i32,
    /// The form of local keys and values: [`Layout::version`](crate::layout::Layout::version).
    pub layout: String,
}

/// Whether a store's data can be used.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Verdict {
    /// Nothing is there: read the changelog from its start.
    Fresh,
    /// The data are what the changelog says up to `offset`, the next one to read.
    Usable {
        /// The next changelog offset to read.
        offset: i64,
    },
    /// The data cannot be trusted, and the changelog can replace them: clear the store and read from the start.
    Rebuild {
        /// Why, for the log.
        reason: String,
    },
    /// Something is set up wrongly, and to go on could lose the only good copy: stop and explain.
    Refuse {
        /// What is wrong and what an operator can do.
        reason: String,
    },
}

/// Judges the data of a store.
///
/// `changelog` is the range of offsets that the log holds now: its first offset, and the one after its last record.
pub fn verify(backend: &dyn Backend, store: StoreId, identity: &Identity, changelog: &Range<i64>) -> Result<Verdict> {
    let rebuild = |reason: String| Ok(Verdict::Rebuild { reason });
    let offset = backend.offset(store)?;
    let origin = backend.origin(store)?;
    if offset.is_none() && is_empty(backend, store)? {
        return Ok(Verdict::Fresh);
    }
    let Some(origin) = origin else {
        return rebuild("it does not say which log it was made from".to_owned());
    };
    let Ok(found) = serde_json::from_slice::<Identity>(&origin) else {
        return rebuild(format!("its origin cannot be read: {:?}", String::from_utf8_lossy(&origin)));
    };
    if identity.topic_id.is_empty() {
        return rebuild(format!("the broker does not tell the id of topic {}", identity.topic));
    }
    if let Some((difference, harmless)) = identity.difference(&found) {
        let reason = difference.to_string();
        return if harmless {
            rebuild(reason)
        } else {
            Ok(Verdict::Refuse {
                reason: format!("{reason}; give this process another state directory, or delete the task's directory"),
            })
        };
    }
    let Some(offset) = offset else {
        return rebuild("it has data but no changelog offset".to_owned());
    };
    let Range { start, end } = *changelog;
    if offset < start {
        return rebuild(format!("it ends at offset {offset}, and the changelog {identity} now starts at {start}"));
    }
    if offset > end {
        return Ok(Verdict::Refuse {
            reason: format!(
                "it holds the changelog {identity} up to offset {offset}, but that ends at {end} now: the topic has lost \
                 records; recover the topic, or delete the task's directory to accept the loss"
            ),
        });
    }
    Ok(Verdict::Usable { offset })
}

/// Empties a store and records what it is going to be made from.
pub fn adopt(backend: &mut dyn Backend, store: StoreId, identity: &Identity) -> Result<()> {
    backend.clear(store)?;
    record(backend, store, identity)
}

fn record(backend: &mut dyn Backend, store: StoreId, identity: &Identity) -> Result<()> {
    let origin = serde_json::to_vec(identity)
        .map_err(|source| Error::Backend { action: "write the origin of", source: Box::new(source) })?;
    let mut batch = Batch::new();
    batch.origin(store, &origin);
    backend.write(&batch)
}

/// Makes a store ready to be read from its log, and answers the offset to read from.
///
/// Data that can be used are kept; others are dropped and replaced from the changelog's start, with a warning that
/// says why; [`Verdict::Refuse`] becomes [`Error::Foreign`].
pub fn prepare(backend: &mut dyn Backend, store: StoreId, identity: &Identity, changelog: &Range<i64>) -> Result<i64> {
    let name = store.of(backend.stores())?.clone();
    match verify(backend, store, identity, changelog)? {
        Verdict::Usable { offset } => return Ok(offset),
        Verdict::Fresh => record(backend, store, identity)?,
        Verdict::Rebuild { reason } => {
            tracing::warn!(store = name, changelog = %identity, reason, "rebuilding the store from its changelog");
            adopt(backend, store, identity)?;
        }
        Verdict::Refuse { reason } => {
            return Err(Error::Foreign { subject: format!("store {name}"), differs: reason });
        }
    }
    Ok(changelog.start)
}

/// A property in which a store's origin differs from what is expected.
struct Difference {
    property: &'static str,
    found: String,
    expected: String,
}

impl Identity {
    /// The first difference from `found`, and whether the data can be dropped without asking: of another cluster or
    /// application they can only have come here by mistake.
    fn difference(&self, found: &Self) -> Option<(Difference, bool)> {
        let properties = [
            ("cluster", self.cluster.clone(), found.cluster.clone(), false),
            ("application", self.application.clone(), found.application.clone(), false),
            ("changelog", self.topic.clone(), found.topic.clone(), true),
            ("changelog id", self.topic_id.clone(), found.topic_id.clone(), true),
            ("partition", self.partition.to_string(), found.partition.to_string(), true),
            ("layout", self.layout.clone(), found.layout.clone(), true),
        ];
        let differs = properties.into_iter().find(|(_, expected, found, _)| expected != found);
        differs.map(|(property, expected, found, harmless)| (Difference { property, found, expected }, harmless))
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.topic, self.partition)
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "it was made from {} {}, not {}", self.property, self.found, self.expected)
    }
}

fn is_empty(backend: &dyn Backend, store: StoreId) -> Result<bool> {
    let mut empty = true;
    backend.scan(store, Bound::Unbounded, Bound::Unbounded, &mut |_, _| {
        empty = false;
        ControlFlow::Break(())
    })?;
    Ok(empty)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Memory;

    const STORE: StoreId = StoreId(0);

    fn identity() -> Identity {
        Identity {
            cluster: "cluster-1".to_owned(),
            application: "shop".to_owned(),
            topic: "shop-counts-changelog".to_owned(),
            topic_id: "id-7".to_owned(),
            partition: 3,
            layout: "plain/1".to_owned(),
        }
    }

    /// A store that was adopted and has applied the records before `offset`.
    fn store_at(offset: i64) -> Memory {
        let mut memory = Memory::new(&["counts"]);
        adopt(&mut memory, STORE, &identity()).unwrap();
        let mut batch = Batch::new();
        batch.put(STORE, b"k", b"v");
        batch.offset(STORE, offset);
        memory.write(&batch).unwrap();
        memory
    }

    fn verdict(memory: &Memory, identity: &Identity) -> Verdict {
        verify(memory, STORE, identity, &(10..20)).unwrap()
    }

    #[track_caller]
    fn rebuilds(memory: &Memory, identity: &Identity, word: &str) {
        let verdict = verdict(memory, identity);
        assert!(matches!(&verdict, Verdict::Rebuild { reason } if reason.contains(word)), "{verdict:?}");
    }

    #[track_caller]
    fn refuses(memory: &Memory, identity: &Identity, word: &str) {
        let verdict = verdict(memory, identity);
        assert!(matches!(&verdict, Verdict::Refuse { reason } if reason.contains(word)), "{verdict:?}");
    }

    #[test]
    fn an_offset_in_range_is_usable() {
        for offset in [10, 15, 20] {
            assert_eq!(verdict(&store_at(offset), &identity()), Verdict::Usable { offset });
        }
    }

    #[test]
    fn an_offset_out_of_range_is_not() {
        rebuilds(&store_at(9), &identity(), "starts at 10");
        refuses(&store_at(21), &identity(), "ends at 20");
    }

    #[test]
    fn nothing_is_fresh_even_after_an_interrupted_adoption() {
        let mut memory = Memory::new(&["counts"]);
        assert_eq!(verdict(&memory, &identity()), Verdict::Fresh);
        adopt(&mut memory, STORE, &identity()).unwrap();
        assert_eq!(verdict(&memory, &identity()), Verdict::Fresh);
    }

    #[test]
    fn data_of_unknown_origin_are_rebuilt() {
        let mut memory = Memory::new(&["counts"]);
        let mut batch = Batch::new();
        batch.put(STORE, b"k", b"v");
        memory.write(&batch).unwrap();
        rebuilds(&memory, &identity(), "which log");
        batch.offset(STORE, 15);
        memory.write(&batch).unwrap();
        rebuilds(&memory, &identity(), "which log");
        batch.origin(STORE, b"{}");
        memory.write(&batch).unwrap();
        rebuilds(&memory, &identity(), "cannot be read");
    }

    #[test]
    fn data_without_an_offset_are_rebuilt() {
        let mut memory = Memory::new(&["counts"]);
        adopt(&mut memory, STORE, &identity()).unwrap();
        let mut batch = Batch::new();
        batch.put(STORE, b"k", b"v");
        memory.write(&batch).unwrap();
        rebuilds(&memory, &identity(), "no changelog offset");
    }

    #[test]
    fn another_log_of_the_same_application_is_rebuilt() {
        let memory = store_at(15);
        rebuilds(&memory, &Identity { topic: "other".to_owned(), ..identity() }, "other");
        rebuilds(&memory, &Identity { topic_id: "id-8".to_owned(), ..identity() }, "changelog id");
        rebuilds(&memory, &Identity { partition: 4, ..identity() }, "partition 3, not 4");
        rebuilds(&memory, &Identity { layout: "timestamped/1".to_owned(), ..identity() }, "layout");
    }

    #[test]
    fn without_a_topic_id_nothing_is_proved() {
        let mut memory = store_at(15);
        let unknown = Identity { topic_id: String::new(), ..identity() };
        rebuilds(&memory, &unknown, "does not tell the id");
        let mut batch = Batch::new();
        batch.origin(STORE, &serde_json::to_vec(&unknown).unwrap());
        memory.write(&batch).unwrap();
        rebuilds(&memory, &unknown, "does not tell the id");
    }

    #[test]
    fn another_cluster_or_application_is_refused() {
        let memory = store_at(15);
        refuses(&memory, &Identity { cluster: "cluster-2".to_owned(), ..identity() }, "cluster cluster-1");
        refuses(&memory, &Identity { application: "till".to_owned(), ..identity() }, "application shop");
    }

    #[test]
    fn preparation_keeps_what_is_good_and_replaces_what_is_not() {
        let mut memory = store_at(15);
        assert_eq!(prepare(&mut memory, STORE, &identity(), &(10..20)).unwrap(), 15);
        let recreated = Identity { topic_id: "id-8".to_owned(), ..identity() };
        assert_eq!(prepare(&mut memory, STORE, &recreated, &(0..5)).unwrap(), 0);
        assert!(is_empty(&memory, STORE).unwrap());
        assert_eq!(verdict(&memory, &recreated), Verdict::Fresh);
        let error = prepare(&mut store_at(15), STORE, &identity(), &(0..5)).unwrap_err();
        assert!(matches!(error, Error::Foreign { .. }) && error.to_string().contains("store counts"), "{error}");
    }
}
