//! The judge: what the engine counted, and what a plain loop counts.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use headwater::broker::Broker;
use headwater::{Error, Result};
use headwater_examples::topics::{Follower, ends};

const DEADLINE: Duration = Duration::from_secs(60);

/// The newest count of each word in the output topic.
pub(crate) fn counted(broker: &dyn Broker, topic: &str) -> Result<BTreeMap<String, i64>> {
    let (mut counts, mut wrong) = (BTreeMap::new(), None);
    Follower::new(broker, topic)?.read_to(&ends(broker, topic)?, DEADLINE, |record| {
        let key = record.key.and_then(|key| String::from_utf8(key.to_vec()).ok());
        let count = record.value.and_then(|value| <[u8; 8]>::try_from(value).ok()).map(i64::from_be_bytes);
        match (key, count) {
            (Some(word), Some(count)) => {
                counts.insert(word, count);
            }
            _ => wrong = Some(record.offset),
        }
    })?;
    match wrong {
        Some(offset) => Err(Error::Topic(format!("topic {topic} holds a record that is no count, at offset {offset}"))),
        None => Ok(counts),
    }
}

/// The words of the input topic, counted one by one.
pub(crate) fn recounted(broker: &dyn Broker, topic: &str) -> Result<HashMap<String, i64>> {
    let mut counts = HashMap::new();
    Follower::new(broker, topic)?.read_to(&ends(broker, topic)?, DEADLINE, |record| {
        let line = String::from_utf8_lossy(record.value.unwrap_or_default());
        for word in line.split_whitespace() {
            *counts.entry(word.to_lowercase()).or_insert(0) += 1;
        }
    })?;
    Ok(counts)
}

/// The first word, in order, that the two count differently.
pub(crate) fn first_difference(counted: &BTreeMap<String, i64>, recounted: &HashMap<String, i64>) -> Option<String> {
    let mut words: Vec<_> = counted.keys().chain(recounted.keys()).collect();
    words.sort();
    let differs = words.into_iter().find(|word| counted.get(*word) != recounted.get(*word))?;
    let tell = |count: Option<&i64>| count.map_or("nothing".to_owned(), i64::to_string);
    Some(format!(
        "{differs:?}: the topology says {}, a recount {}",
        tell(counted.get(differs)),
        tell(recounted.get(differs))
    ))
}
