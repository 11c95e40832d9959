use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use serde::{Deserialize, Serialize};

use crate::{Failure, Record, Sent};

/// What is in one store of one task, in the order of its keys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreDump {
    /// `<sub-topology>_<partition>`.
    pub task: String,
    /// The store's name.
    pub store: String,
    /// The next changelog offset to read; `None` where nothing was ever written.
    pub offset: Option<i64>,
    /// In the order of their keys.
    pub entries: Vec<StoreEntry>,
}

/// Key, timestamp in milliseconds, value.
pub type StoreEntry = (Vec<u8>, i64, Vec<u8>);

/// Differences shown in a failure; the rest is only counted.
const SHOWN: usize = 5;

/// What a line of a dump begins with.
const LEAD: &str = "store ";

impl StoreDump {
    /// The line, without its end.
    #[must_use]
    pub fn line(&self) -> String {
        // Strings and numbers can always be written.
        format!("{LEAD}{}", serde_json::to_string(self).unwrap_or_default())
    }

    /// Takes a line apart; `None` for one that is no store.
    #[must_use]
    pub fn parse(line: &str) -> Option<Self> {
        serde_json::from_str(line.strip_prefix(LEAD)?).ok()
    }
}

/// What every store of an application holds: by task and store, without the offsets.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stores(BTreeMap<(String, String), Vec<StoreEntry>>);

impl Stores {
    /// What the stores of an application hold, from the state directories of all its processes.
    ///
    /// A task that has moved leaves its stores behind as they were then: of several copies the one furthest in the
    /// changelog counts.
    #[must_use]
    pub fn newest(dumps: impl IntoIterator<Item = StoreDump>) -> Self {
        let mut newest: BTreeMap<(String, String), StoreDump> = BTreeMap::new();
        for dump in dumps {
            let name = (dump.task.clone(), dump.store.clone());
            if newest.get(&name).is_none_or(|other| other.offset < dump.offset) {
                newest.insert(name, dump);
            }
        }
        Self(newest.into_iter().map(|(name, dump)| (name, dump.entries)).collect())
    }

    /// The entries of all stores by key.
    ///
    /// # Errors
    /// When a key is in two stores.
    pub fn by_key(&self) -> Result<BTreeMap<&[u8], &StoreEntry>, Failure> {
        let mut entries = BTreeMap::new();
        for ((task, store), found) in &self.0 {
            for entry in found {
                if entries.insert(entry.0.as_slice(), entry).is_some() {
                    let key = String::from_utf8_lossy(&entry.0);
                    return Err(Failure::new(format!("key {key} is in store {store} of task {task} and of another")));
                }
            }
        }
        Ok(entries)
    }

    /// How many entries there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.values().map(Vec::len).sum()
    }

    /// Whether there is no entry.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Checks that the stores hold what an exact count of these records leaves: the number of each key's records, under
/// their highest timestamp.
///
/// # Errors
/// When there is a difference, naming the first.
pub fn check_stores_exact(sent: &[Sent], stores: &Stores) -> Result<(), Failure> {
    let mut wanted: BTreeMap<&[u8], (i64, u64)> = BTreeMap::new();
    for Sent { record, .. } in sent {
        let (timestamp, count) = wanted.entry(&record.key).or_insert((i64::MIN, 0));
        *timestamp = (*timestamp).max(record.timestamp);
        *count += 1;
    }
    let entry = |(key, (timestamp, count)): (&[u8], (i64, u64))| {
        (key.to_vec(), (key.to_vec(), timestamp, count.to_be_bytes().to_vec()))
    };
    compare(&wanted.into_iter().map(entry).collect(), stores)
}

/// Checks that the stores hold what was written last for each key: that value, under that timestamp.
///
/// # Errors
/// When there is a difference, naming the first.
pub fn check_stores_last(outputs: &[Vec<Record>], stores: &Stores) -> Result<(), Failure> {
    let mut wanted = BTreeMap::new();
    for record in outputs.iter().flatten() {
        let (key, value) = (record.key.clone().unwrap_or_default(), record.value.clone().unwrap_or_default());
        wanted.insert(key.clone(), (key, record.timestamp, value));
    }
    compare(&wanted, stores)
}

fn compare(wanted: &BTreeMap<Vec<u8>, StoreEntry>, stores: &Stores) -> Result<(), Failure> {
    let found = stores.by_key()?;
    let keys: BTreeSet<&[u8]> = wanted.keys().map(Vec::as_slice).chain(found.keys().copied()).collect();
    let mut text = String::new();
    let mut differences = 0_usize;
    for key in keys {
        let (due, held) = (wanted.get(key), found.get(key).copied());
        if due == held {
            continue;
        }
        differences += 1;
        if differences <= SHOWN {
            let entry = |entry: Option<&StoreEntry>| entry.map(|(_, timestamp, value)| (*timestamp, value.clone()));
            // Writing to a string cannot fail.
            let _ =
                write!(text, "\n  {}: {:?} where {:?} was due", String::from_utf8_lossy(key), entry(held), entry(due));
        }
    }
    if differences == 0 {
        Ok(())
    } else {
        Err(Failure::new(format!("the stores differ in {differences} keys, first (time, value):{text}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Outgoing;

    fn dump(task: &str, offset: i64, entries: &[(&str, i64, u64)]) -> StoreDump {
        let entries = entries
            .iter()
            .map(|(key, timestamp, count)| (key.as_bytes().to_vec(), *timestamp, count.to_be_bytes().to_vec()));
        StoreDump {
            task: task.to_owned(),
            store: "counts".to_owned(),
            offset: Some(offset),
            entries: entries.collect(),
        }
    }

    fn sent(records: &[(&str, i64)]) -> Vec<Sent> {
        let record = |(index, (key, timestamp)): (u64, &(&str, i64))| Sent {
            index,
            offset: 0,
            record: Outgoing { partition: 0, timestamp: *timestamp, key: key.as_bytes().to_vec(), value: Vec::new() },
        };
        (0..).zip(records).map(record).collect()
    }

    #[test]
    fn a_line_is_read_back() {
        let dump = dump("1_0", 3, &[("a", 1, 1), ("b", -1, 2)]);
        assert_eq!(StoreDump::parse(&dump.line()), Some(dump));
        assert_eq!(StoreDump::parse("ready"), None);
    }

    #[test]
    fn the_copy_furthest_in_the_changelog_counts() {
        let old = dump("1_0", 3, &[("a", 1, 1)]);
        let new = dump("1_0", 9, &[("a", 5, 3)]);
        for copies in [[old.clone(), new.clone()], [new.clone(), old]] {
            assert_eq!(Stores::newest(copies), Stores::newest([new.clone()]));
        }
    }

    #[test]
    fn a_reference_is_compared_key_by_key() {
        let sent = sent(&[("a", 1), ("b", 2), ("a", 3), ("a", 2)]);
        let check = |entries: &[(&str, i64, u64)]| {
            check_stores_exact(&sent, &Stores::newest([dump("1_0", 1, entries)])).map_err(|failure| failure.to_string())
        };
        check(&[("a", 3, 3), ("b", 2, 1)]).unwrap();
        for (entries, said) in [
            (&[("a", 3, 3)][..], "b: None where Some((2, "),
            (&[("a", 3, 4), ("b", 2, 1)], "a: Some((3, "),
            (&[("a", 2, 3), ("b", 2, 1)], "a: Some((2, "),
            (&[("a", 3, 3), ("b", 2, 1), ("c", 1, 1)], "where None was due"),
        ] {
            let text = check(entries).unwrap_err();
            assert!(text.contains("in 1 keys") && text.contains(said), "{text}");
        }
    }

    #[test]
    fn the_last_output_of_each_key_is_compared() {
        let output = |offset: i64, key: &str, timestamp: i64, count: u64| Record {
            partition: 0,
            offset,
            timestamp,
            key: Some(key.as_bytes().to_vec()),
            value: Some(count.to_be_bytes().to_vec()),
            headers: Vec::new(),
        };
        let outputs = [vec![output(0, "a", 1, 1), output(1, "b", 2, 1)], vec![output(0, "a", 3, 2)]];
        check_stores_last(&outputs, &Stores::newest([dump("1_0", 1, &[("a", 3, 2), ("b", 2, 1)])])).unwrap();
        check_stores_last(&outputs, &Stores::newest([dump("1_0", 1, &[("a", 1, 1), ("b", 2, 1)])])).unwrap_err();
        check_stores_last(&outputs, &Stores::newest([dump("1_0", 1, &[("a", 3, 2)])])).unwrap_err();
    }

    #[test]
    fn a_key_in_two_stores_is_refused() {
        let stores = Stores::newest([dump("1_0", 1, &[("a", 1, 1)]), dump("1_1", 1, &[("a", 1, 1)])]);
        assert!(stores.by_key().unwrap_err().to_string().contains("key a"));
        assert_eq!(stores.len(), 2);
    }
}
