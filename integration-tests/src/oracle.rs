//! What had to come out: plain references on one thread, and checks against them that name the first differences.

use std::collections::BTreeMap;

use crate::{Failure, Record, Sent};

/// How often each key occurs.
pub type Counts = BTreeMap<Vec<u8>, u64>;

/// Differences shown in a failure; the rest is only counted.
const SHOWN: usize = 5;

/// Counts equal keys.
pub fn count_per_key<K: Into<Vec<u8>>>(keys: impl IntoIterator<Item = K>) -> Counts {
    let mut counts = Counts::new();
    for key in keys {
        *counts.entry(key.into()).or_insert(0) += 1;
    }
    counts
}

/// Counts the words of these lines: what stands between white space, in lower case.
pub fn count_words<'a>(lines: impl IntoIterator<Item = &'a str>) -> Counts {
    count_per_key(lines.into_iter().flat_map(str::split_whitespace).map(str::to_lowercase))
}

/// A count written as eight bytes, the most significant first, as Kafka's own serialiser for a Java `long` does.
#[must_use]
pub fn big_endian(bytes: &[u8]) -> Option<u64> {
    bytes.try_into().ok().map(u64::from_be_bytes)
}

/// A count written in decimal digits.
#[must_use]
pub fn decimal(bytes: &[u8]) -> Option<u64> {
    std::str::from_utf8(bytes).ok()?.parse().ok()
}

/// Checks the output of an exact count per key: for each key with n records the values are 1, 2, …, n in this order,
/// all in one partition, and there is no other key.
///
/// `outputs` are the partitions of a topic as [`Judge::read_topic`](crate::Judge::read_topic) gives them; `decode`
/// reads a value.
///
/// # Errors
/// When there is a difference, naming the first of several keys with the record at fault.
pub fn check_counts_exact(
    expected: &Counts,
    outputs: &[Vec<Record>],
    decode: impl Fn(&[u8]) -> Option<u64>,
) -> Result<(), Failure> {
    check(expected, outputs, decode, |outputs, wanted| {
        for ((record, count), next) in outputs.iter().zip(1..) {
            if *count != next {
                let kind = if *count < next { "repeated or gone back" } else { "skipped" };
                return Err(format!("{} is {count} where {next} was due ({kind})", place(record)));
            }
        }
        match outputs.last() {
            Some((record, last)) if *last != wanted => Err(format!("ends at {last} of {wanted}, {}", place(record))),
            _ => Ok(()),
        }
    })
}

/// Checks the output of a count per key that may have taken records again: each key with n records has at least n
/// outputs, the last of them at least n, all in one partition, and there is no other key.
///
/// Single values may be missing: a record counted again after a crash continues from a state that holds it already.
///
/// # Errors
/// As [`check_counts_exact`].
pub fn check_at_least_once(
    expected: &Counts,
    outputs: &[Vec<Record>],
    decode: impl Fn(&[u8]) -> Option<u64>,
) -> Result<(), Failure> {
    check(expected, outputs, decode, |outputs, wanted| {
        let found = u64::try_from(outputs.len()).unwrap_or(u64::MAX);
        match outputs.last() {
            Some((record, last)) if *last < wanted => Err(format!("ends at {last} of {wanted}, {}", place(record))),
            _ if found < wanted => Err(format!("{found} outputs for {wanted} records")),
            _ => Ok(()),
        }
    })
}

/// Checks that a topic holds exactly the records `sent`, each once, at its offset, with its time, key and value.
///
/// # Errors
/// When there is a difference, naming the first of each partition.
pub fn check_produced(sent: &[Sent], read: &[Vec<Record>]) -> Result<(), Failure> {
    let mut differences = Vec::new();
    for (partition, records) in (0..).zip(read) {
        let mut wanted = sent.iter().filter(|sent| sent.record.partition == partition);
        let mut found = records.iter();
        loop {
            match (wanted.next(), found.next()) {
                (None, None) => break,
                (Some(sent), Some(record)) if same(sent, record) => {}
                (sent, record) => {
                    differences.push(format!("partition {partition}: sent {sent:?}, read {record:?}"));
                    break;
                }
            }
        }
    }
    let partitions = i32::try_from(read.len()).unwrap_or(i32::MAX);
    if let Some(stray) = sent.iter().find(|sent| !(0..partitions).contains(&sent.record.partition)) {
        differences.push(format!("sent to a partition that was not read: {stray:?}"));
    }
    if differences.is_empty() { Ok(()) } else { Err(Failure::new(differences.join("\n  "))) }
}

/// Checks that a topic holds each of the records `sent` at its offset, with its time, key and value, and that those of
/// a partition are in the order of their numbers. There may be others.
///
/// # Errors
/// When one is missing, differs, or is out of order, naming the first.
pub fn check_kept(sent: &[Sent], read: &[Vec<Record>]) -> Result<(), Failure> {
    let mut reached: BTreeMap<i32, i64> = BTreeMap::new();
    for sent in sent {
        let partition = sent.record.partition;
        let records = usize::try_from(partition).ok().and_then(|partition| read.get(partition));
        let found = records.and_then(|records| {
            records.binary_search_by_key(&sent.offset, |record| record.offset).ok().and_then(|place| records.get(place))
        });
        if !found.is_some_and(|record| same(sent, record)) {
            return Err(Failure::new(format!("sent {sent:?}, read {found:?}")));
        }
        if let Some(before) = reached.insert(partition, sent.offset)
            && before >= sent.offset
        {
            return Err(Failure::new(format!("sent {sent:?} after offset {before}")));
        }
    }
    Ok(())
}

fn same(sent: &Sent, record: &Record) -> bool {
    record.partition == sent.record.partition
        && record.offset == sent.offset
        && record.timestamp == sent.record.timestamp
        && record.key.as_ref() == Some(&sent.record.key)
        && record.value.as_ref() == Some(&sent.record.value)
}

/// Groups outputs by key and judges each key on its own.
fn check(
    expected: &Counts,
    outputs: &[Vec<Record>],
    decode: impl Fn(&[u8]) -> Option<u64>,
    judge: impl Fn(&[(&Record, u64)], u64) -> Result<(), String>,
) -> Result<(), Failure> {
    let mut by_key: BTreeMap<Option<&[u8]>, Vec<(&Record, u64)>> = BTreeMap::new();
    let mut differences = Vec::new();
    for record in outputs.iter().flatten() {
        let of_key = by_key.entry(record.key.as_deref()).or_default();
        match record.value.as_deref().and_then(&decode) {
            Some(count) => of_key.push((record, count)),
            None => differences.push(format!("{} is no count: {:?}", place(record), record.value)),
        }
    }
    for (key, of_key) in &by_key {
        if let Some((first, _)) = of_key.first()
            && let Some((stray, _)) = of_key.iter().find(|(record, _)| record.partition != first.partition)
        {
            differences.push(format!("key {} is at {} and at {}", stray.key_text(), place(first), place(stray)));
        }
        if key.is_none_or(|key| !expected.contains_key(key)) {
            let at = of_key.first().map(|(record, _)| format!("{} of key {}", place(record), record.key_text()));
            differences.push(format!("no such key: {}", at.unwrap_or_default()));
        }
    }
    for (key, wanted) in expected {
        let of_key = by_key.get(&Some(key.as_slice())).map_or(&[][..], Vec::as_slice);
        let verdict =
            if of_key.is_empty() { Err(format!("no output for {wanted} records")) } else { judge(of_key, *wanted) };
        if let Err(difference) = verdict {
            differences.push(format!("key {}: {difference}", String::from_utf8_lossy(key)));
        }
    }
    if differences.is_empty() {
        return Ok(());
    }
    let shown: Vec<&str> = differences.iter().take(SHOWN).map(String::as_str).collect();
    Err(Failure::new(format!(
        "{} differences over {} keys, first:\n  {}",
        differences.len(),
        expected.len(),
        shown.join("\n  ")
    )))
}

fn place(record: &Record) -> String {
    format!("partition {} offset {}", record.partition, record.offset)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Outgoing;

    /// Outputs of one partition from (key, count) pairs.
    fn outputs(pairs: &[(&str, u64)]) -> Vec<Vec<Record>> {
        let records = (0..).zip(pairs).map(|(offset, (key, count))| Record {
            partition: 0,
            offset,
            timestamp: 0,
            key: Some(key.as_bytes().to_vec()),
            value: Some(count.to_string().into_bytes()),
            headers: Vec::new(),
        });
        vec![records.collect()]
    }

    fn exact(pairs: &[(&str, u64)]) -> Result<(), String> {
        let expected = count_per_key(["a", "b", "a"]);
        check_counts_exact(&expected, &outputs(pairs), decimal).map_err(|failure| failure.to_string())
    }

    fn at_least(pairs: &[(&str, u64)]) -> Result<(), String> {
        let expected = count_per_key(["a", "b", "a"]);
        check_at_least_once(&expected, &outputs(pairs), decimal).map_err(|failure| failure.to_string())
    }

    #[test]
    fn exact_counts_pass() {
        exact(&[("a", 1), ("b", 1), ("a", 2)]).unwrap();
    }

    #[test]
    fn exact_names_what_differs() {
        for (pairs, said) in [
            (
                &[("a", 1), ("b", 1), ("a", 1), ("a", 2)][..],
                "key a: partition 0 offset 2 is 1 where 2 was due (repeated",
            ),
            (&[("a", 1), ("b", 1), ("a", 3)], "is 3 where 2 was due (skipped)"),
            (&[("a", 1), ("b", 1)], "key a: ends at 1 of 2"),
            (&[("a", 1), ("b", 1), ("a", 2), ("a", 3)], "key a: ends at 3 of 2"),
            (&[("a", 1), ("a", 2)], "key b: no output for 1 records"),
            (&[("a", 1), ("b", 1), ("a", 2), ("c", 1)], "no such key: partition 0 offset 3 of key c"),
        ] {
            let text = exact(pairs).unwrap_err();
            assert!(text.contains(said), "{text}");
        }
    }

    #[test]
    fn a_key_in_two_partitions_differs() {
        let mut found = outputs(&[("a", 1), ("b", 1)]);
        let mut other = outputs(&[("a", 2)]);
        for record in other.iter_mut().flatten() {
            record.partition = 1;
        }
        found.append(&mut other);
        let text = check_counts_exact(&count_per_key(["a", "b", "a"]), &found, decimal).unwrap_err().to_string();
        assert!(text.contains("key a is at partition 0 offset 0 and at partition 1 offset 0"), "{text}");
    }

    #[test]
    fn a_value_that_is_no_count_differs() {
        let mut found = outputs(&[("a", 1), ("b", 1), ("a", 2)]);
        if let Some(record) = found.iter_mut().flatten().next() {
            record.value = None;
        }
        let text = check_counts_exact(&count_per_key(["a", "b", "a"]), &found, decimal).unwrap_err().to_string();
        assert!(text.contains("partition 0 offset 0 is no count: None"), "{text}");
    }

    #[test]
    fn at_least_once_allows_repeats_and_no_loss() {
        at_least(&[("a", 1), ("b", 1), ("a", 2)]).unwrap();
        at_least(&[("a", 1), ("b", 1), ("a", 2), ("a", 3)]).unwrap();
        at_least(&[("a", 1), ("a", 1), ("b", 1), ("a", 2)]).unwrap();
        assert!(at_least(&[("a", 1), ("b", 1)]).unwrap_err().contains("key a: ends at 1 of 2"));
        assert!(at_least(&[("a", 2), ("b", 1)]).unwrap_err().contains("key a: 1 outputs for 2 records"));
        assert!(at_least(&[("a", 1), ("a", 2)]).unwrap_err().contains("key b: no output"));
    }

    #[test]
    fn produced_records_are_compared_one_by_one() {
        let read = outputs(&[("a", 1), ("b", 1)]);
        let sent: Vec<Sent> = (0..)
            .zip(read.iter().flatten())
            .map(|(index, record)| Sent {
                index,
                offset: record.offset,
                record: Outgoing {
                    partition: 0,
                    timestamp: 0,
                    key: record.key.clone().unwrap_or_default(),
                    value: record.value.clone().unwrap_or_default(),
                },
            })
            .collect();
        check_produced(&sent, &read).unwrap();
        check_kept(&sent, &read).unwrap();
        check_kept(&sent, &outputs(&[("a", 1), ("b", 1), ("b", 1)])).unwrap();
        assert!(check_kept(&sent, &outputs(&[("a", 1)])).unwrap_err().to_string().ends_with("read None"));
        let reversed: Vec<Sent> = sent.iter().rev().cloned().collect();
        assert!(check_kept(&reversed, &read).unwrap_err().to_string().ends_with("after offset 1"));
        let doubled = outputs(&[("a", 1), ("a", 1), ("b", 1)]);
        assert!(check_kept(&sent, &doubled).unwrap_err().to_string().contains("sent Sent { index: 1"));
        assert!(
            check_produced(&sent, &doubled)
                .unwrap_err()
                .to_string()
                .starts_with("partition 0: sent Some(Sent { index: 1")
        );
        assert!(check_produced(&sent, &outputs(&[("a", 1)])).unwrap_err().to_string().ends_with("read None"));
        assert!(check_produced(&[], &read).unwrap_err().to_string().contains("sent None"));
        assert!(check_produced(&sent, &[]).unwrap_err().to_string().contains("not read"));
    }

    #[test]
    fn words_are_counted_in_lower_case() {
        let counts = count_words(["The sea the", " sea\tand"]);
        assert_eq!(counts, count_per_key(["the", "the", "sea", "sea", "and"]));
    }

    #[test]
    fn counts_are_read_in_both_forms() {
        assert_eq!(big_endian(&258_u64.to_be_bytes()), Some(258));
        assert_eq!(big_endian(b"258"), None);
        assert_eq!(decimal(b"258"), Some(258));
        assert_eq!(decimal(b"2x"), None);
    }
}
