//! Whether a run's outputs are right, by recomputation from the input's specification.

use crate::Result;
use crate::configuration::Workload;
use crate::records::{Checksum, Spec};
use crate::topics::Topics;
use rdkafka::message::{BorrowedMessage, Message};

/// What the outputs of an input must be; computed once, used for every run.
#[derive(Clone, Debug)]
pub struct Expected {
    spec: Spec,
    counts: Vec<u64>,
    checksum: Checksum,
}

impl Expected {
    /// Recomputes the records of `spec`.
    #[must_use]
    pub fn new(spec: Spec) -> Self {
        Self { spec, counts: spec.counts(), checksum: spec.checksum() }
    }

    /// Checks what the run `app_id` has written to `output` and its changelog, and what it has committed.
    ///
    /// # Errors
    /// When something is missing, doubled, out of order or changed (the sentence says what), or the broker does not
    /// answer.
    pub fn check(&self, topics: &Topics, workload: Workload, app_id: &str, output: &str) -> Result<()> {
        match workload {
            Workload::Consume => {}
            Workload::P1 => {
                let mut sum = Checksum::default();
                topics.read(
                    output,
                    |first, _| first,
                    |message| {
                        sum.add(message.key().unwrap_or_default(), message.payload().unwrap_or_default());
                        Ok(())
                    },
                )?;
                compare(&format!("records and checksum of {output}"), &sum, &self.checksum)?;
            }
            Workload::P2 => {
                self.check_counts(topics, output, Steps::Every)?;
                self.check_counts(topics, &format!("{app_id}-count-changelog"), Steps::Rising)?;
            }
        }
        let committed = topics.committed(app_id, &self.spec.topic())?;
        let ends: Vec<_> = topics.ends(&self.spec.topic())?.into_iter().map(|(_, end)| Some(end)).collect();
        compare(&format!("offsets that {app_id} has committed"), &committed, &ends)
    }

    fn check_counts(&self, topics: &Topics, topic: &str, steps: Steps) -> Result<()> {
        let mut counts = Counts::new(self.counts.len());
        topics.read(topic, |first, _| first, |message| counts.add(topic, message, steps))?;
        for (key, (seen, expected)) in (0u64..).zip(counts.last.iter().zip(&self.counts)) {
            compare(&format!("last count of key {key} in {topic}"), seen, expected)?;
        }
        Ok(())
    }
}

/// Which counts a topic must show of a key that ends at n.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Steps {
    /// 1, 2, …, n.
    Every,
    /// Any that rise and end at n: compaction may have removed some.
    Rising,
}

/// The last count seen of each key.
struct Counts {
    last: Vec<u64>,
}

impl Counts {
    fn new(keys: usize) -> Self {
        Self { last: vec![0; keys] }
    }

    fn add(&mut self, topic: &str, message: &BorrowedMessage<'_>, steps: Steps) -> Result<()> {
        let at = || format!("{topic}, partition {}, offset {}", message.partition(), message.offset());
        let (Some(key), Some(count)) = (number(message.key()), number(message.payload())) else {
            return Err(format!("{}: key and count are not 8 bytes each", at()).into());
        };
        self.step(key, count, steps).map_err(|error| format!("{}: {error}", at()).into())
    }

    fn step(&mut self, key: u64, count: u64, steps: Steps) -> Result<()> {
        let known = self.last.len();
        let last = usize::try_from(key).ok().and_then(|key| self.last.get_mut(key));
        let last = last.ok_or_else(|| format!("key {key}, but keys are below {known}"))?;
        let right = match steps {
            Steps::Every => count == *last + 1,
            Steps::Rising => count > *last,
        };
        if !right {
            return Err(format!("count {count} of key {key} follows count {last}").into());
        }
        *last = count;
        Ok(())
    }
}

fn number(bytes: Option<&[u8]>) -> Option<u64> {
    Some(u64::from_be_bytes(bytes?.try_into().ok()?))
}

fn compare<T: PartialEq + std::fmt::Debug>(what: &str, found: &T, expected: &T) -> Result<()> {
    if found == expected {
        return Ok(());
    }
    Err(format!("wrong output: {what}: found {found:?}, expected {expected:?}").into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn steps(counts: &[(u64, u64)], steps: Steps) -> Result<Vec<u64>> {
        let mut all = Counts::new(2);
        for &(key, count) in counts {
            all.step(key, count, steps)?;
        }
        Ok(all.last)
    }

    #[test]
    fn counts_of_several_keys_may_interleave() {
        assert_eq!(steps(&[(0, 1), (1, 1), (0, 2), (1, 2), (0, 3)], Steps::Every).unwrap(), [3, 2]);
    }

    #[test]
    fn a_gap_a_double_and_a_foreign_key_are_found() {
        for wrong in [&[(0, 1), (0, 3)][..], &[(0, 1), (0, 1)], &[(0, 2)], &[(2, 1)]] {
            assert!(steps(wrong, Steps::Every).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_compacted_log_may_have_gaps_but_never_falls() {
        assert_eq!(steps(&[(0, 5), (0, 9)], Steps::Rising).unwrap(), [9, 0]);
        assert!(steps(&[(0, 5), (0, 5)], Steps::Rising).is_err());
    }
}
