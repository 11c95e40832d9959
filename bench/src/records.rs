//! The records of an input topic, each a function of the topic's specification and the record's sequence number.
//!
//! Nothing is stored about what was loaded: whoever knows the [`Spec`] can recompute every record, and so what a
//! workload must have made of them.

/// First event time, in milliseconds since the epoch: a round instant in the past, the same in every run.
const EVENT_TIME_START: i64 = 1_700_000_000_000;
/// Milliseconds of event time between two records.
const EVENT_TIME_STEP: i64 = 5;
/// Bytes of a value in front of its filler: sequence number, key id, event time, amount, second key id.
pub const HEADER_BYTES: usize = 40;
/// Raised whenever a record of the same specification changes, so that an older topic is not taken for a new one.
const VERSION: u32 = 1;

/// What an input topic contains. Two topics of equal specification are equal, record by record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Spec {
    /// Number of records.
    pub records: u64,
    /// Number of distinct keys that records are drawn from, uniformly.
    pub keys: u64,
    /// Size of every value in bytes, at least [`HEADER_BYTES`].
    pub value_bytes: usize,
    /// Seed of keys, amounts and filler.
    pub seed: u64,
}

/// One record, in buffers that are reused for the next.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// The key: its id, 8 bytes, big-endian.
    pub key: [u8; 8],
    /// The value: header and filler, big-endian.
    pub value: Vec<u8>,
    /// Event time and record timestamp, in milliseconds since the epoch.
    pub event_time: i64,
}

impl Spec {
    /// The topic's name. It names the whole specification, so that a topic is found again by what it contains.
    #[must_use]
    pub fn topic(&self) -> String {
        let Self { records, keys, value_bytes, seed } = self;
        format!("bench-in-v{VERSION}-{records}x{value_bytes}-{keys}-keys-seed-{seed}")
    }

    /// The key id of record `seq`.
    #[must_use]
    pub fn key_id(&self, seq: u64) -> u64 {
        below(self.random(seq, 0), self.keys)
    }

    /// Writes record `seq` into `record`.
    pub fn write(&self, seq: u64, record: &mut Record) {
        let key_id = self.key_id(seq);
        let step = i64::try_from(seq).unwrap_or(i64::MAX).saturating_mul(EVENT_TIME_STEP);
        record.key = key_id.to_be_bytes();
        record.event_time = EVENT_TIME_START.saturating_add(step);
        record.value.clear();
        for field in [
            seq,
            key_id,
            record.event_time.unsigned_abs(),
            below(self.random(seq, 1), 100_000),
            below(self.random(seq, 2), self.keys),
        ] {
            record.value.extend_from_slice(&field.to_be_bytes());
        }
        let mut word = 3;
        while record.value.len() < self.value_bytes {
            let filler = self.random(seq, word).to_be_bytes();
            let missing = self.value_bytes - record.value.len();
            record.value.extend(filler.into_iter().take(missing));
            word += 1;
        }
    }

    /// How often each key id occurs.
    #[must_use]
    pub fn counts(&self) -> Vec<u64> {
        let mut counts = vec![0; usize::try_from(self.keys).unwrap_or(usize::MAX)];
        for seq in 0..self.records {
            if let Some(count) = usize::try_from(self.key_id(seq)).ok().and_then(|id| counts.get_mut(id)) {
                *count += 1;
            }
        }
        counts
    }

    /// The checksum of all records, see [`Checksum`].
    #[must_use]
    pub fn checksum(&self) -> Checksum {
        let (mut sum, mut record) = (Checksum::default(), Record::default());
        for seq in 0..self.records {
            self.write(seq, &mut record);
            sum.add(&record.key, &record.value);
        }
        sum
    }

    /// A number that looks random, from the seed, the record and the place within the record.
    fn random(&self, seq: u64, word: u64) -> u64 {
        mix(mix(self.seed ^ seq.wrapping_mul(0x9E37_79B9_7F4A_7C15)).wrapping_add(word))
    }
}

/// A sum over records that does not depend on their order, so that partitions may be read in any.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Checksum {
    /// Records added.
    pub records: u64,
    /// Wrapping sum of the records' hashes.
    pub sum: u64,
}

impl Checksum {
    /// Adds one record.
    pub fn add(&mut self, key: &[u8], value: &[u8]) {
        self.records += 1;
        self.sum = self.sum.wrapping_add(hash(hash(0, key), value));
    }
}

/// A number below `limit` from a random one.
fn below(random: u64, limit: u64) -> u64 {
    // The high half of the product is below `limit` and needs no division.
    u64::try_from((u128::from(random) * u128::from(limit)) >> 64).unwrap_or(0)
}

/// Spreads the bits of `x` (the finaliser of splitmix64).
fn mix(mut x: u64) -> u64 {
    x = x.wrapping_add(0x9E37_79B9_7F4A_7C15);
    x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^ (x >> 31)
}

fn hash(seed: u64, bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<8>();
    let mut hash = mix(seed ^ bytes.len() as u64);
    for word in words {
        hash = (hash ^ u64::from_le_bytes(*word)).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(29);
    }
    for byte in rest {
        hash = (hash ^ u64::from(*byte)).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(29);
    }
    mix(hash)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPEC: Spec = Spec { records: 10_000, keys: 100, value_bytes: 100, seed: 1 };

    fn record(spec: &Spec, seq: u64) -> Record {
        let mut record = Record::default();
        spec.write(seq, &mut record);
        record
    }

    #[test]
    fn a_value_holds_sequence_number_key_and_time_and_has_the_stated_size() {
        let Record { key, value, event_time } = record(&SPEC, 7);
        assert_eq!(value.len(), 100);
        assert_eq!(value[..8], 7u64.to_be_bytes());
        assert_eq!(value[8..16], key);
        assert_eq!(value[16..24], event_time.to_be_bytes());
    }

    #[test]
    fn a_record_depends_on_seed_and_number_alone() {
        let mut reused = record(&SPEC, 1);
        SPEC.write(2, &mut reused);
        assert_eq!(reused, record(&SPEC, 2));
        assert_ne!(record(&Spec { seed: 2, ..SPEC }, 2).key, reused.key);
    }

    #[test]
    fn counts_cover_every_key_and_add_up() {
        let counts = SPEC.counts();
        assert_eq!(counts.iter().sum::<u64>(), SPEC.records);
        assert_eq!(counts.len(), 100);
        assert!(counts.iter().all(|&count| (50..150).contains(&count)), "{counts:?}");
    }

    #[test]
    fn the_checksum_ignores_order_and_sees_a_changed_byte() {
        let small = Spec { records: 50, ..SPEC };
        let mut backwards = Checksum::default();
        for seq in (0..50).rev() {
            let record = record(&small, seq);
            backwards.add(&record.key, &record.value);
        }
        assert_eq!(backwards, small.checksum());

        let mut changed = Checksum::default();
        for seq in 0..50 {
            let mut record = record(&small, seq);
            if seq == 13 {
                record.value[99] ^= 1;
            }
            changed.add(&record.key, &record.value);
        }
        assert_ne!(changed, small.checksum());
    }

    #[test]
    fn the_topic_names_the_whole_specification() {
        let topics = [
            SPEC,
            Spec { records: 9_999, ..SPEC },
            Spec { keys: 99, ..SPEC },
            Spec { value_bytes: 101, ..SPEC },
            Spec { seed: 2, ..SPEC },
        ]
        .map(|spec| spec.topic());
        let distinct: std::collections::HashSet<_> = topics.iter().collect();
        assert_eq!(distinct.len(), topics.len());
    }
}
