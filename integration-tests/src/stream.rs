/// A record to be produced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outgoing {
    /// Partition it goes to.
    pub partition: i32,
    /// Milliseconds since the epoch.
    pub timestamp: i64,
    /// Key bytes.
    pub key: Vec<u8>,
    /// Value bytes.
    pub value: Vec<u8>,
}

/// An endless stream of records that depends on nothing but a seed: record number `i` is always the same.
///
/// Keys are `key-0` to `key-<keys - 1>` and fall, like partitions, at random and independently, so that the records of
/// a key are spread over all partitions and meet only after a repartition. The value is the record's number in decimal.
/// Timestamps advance by a millisecond per record from 2024-01-01.
#[derive(Debug, Clone, Copy)]
pub struct Stream {
    seed: u64,
    keys: u32,
    partitions: i32,
}

/// 2024-01-01T00:00:00Z in milliseconds.
const FIRST_TIMESTAMP: i64 = 1_704_067_200_000;

impl Stream {
    /// A stream of `keys` different keys over `partitions` partitions; less than one of either counts as one.
    #[must_use]
    pub fn new(seed: u64, keys: u32, partitions: i32) -> Self {
        Self { seed, keys: keys.max(1), partitions: partitions.max(1) }
    }

    /// Record number `index`, from 0 on.
    #[must_use]
    pub fn record(&self, index: u64) -> Outgoing {
        let bits = mix(self.seed ^ mix(index));
        let key = (bits >> 32) % u64::from(self.keys);
        let partition = (bits & 0xffff_ffff) % u64::from(self.partitions.unsigned_abs());
        Outgoing {
            partition: i32::try_from(partition).unwrap_or(0),
            timestamp: FIRST_TIMESTAMP.saturating_add_unsigned(index),
            key: format!("key-{key}").into_bytes(),
            value: index.to_string().into_bytes(),
        }
    }
}

/// The finaliser of `SplitMix64`: a bijection that spreads neighbouring numbers over all 64 bits.
fn mix(number: u64) -> u64 {
    let mut z = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_records() {
        let (one, other) = (Stream::new(7, 100, 8), Stream::new(7, 100, 8));
        assert!((0..1000).all(|index| one.record(index) == other.record(index)));
        let differing = Stream::new(8, 100, 8);
        assert!((0..1000).any(|index| one.record(index) != differing.record(index)));
    }

    #[test]
    fn keys_and_partitions_are_spread() {
        let stream = Stream::new(1, 10, 4);
        let mut seen = BTreeMap::new();
        for record in (0..4000).map(|index| stream.record(index)) {
            *seen.entry((record.key, record.partition)).or_insert(0) += 1;
        }
        assert_eq!(seen.len(), 40);
        assert!(seen.values().all(|count| (50..200).contains(count)), "{seen:?}");
    }
}
