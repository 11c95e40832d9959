use super::{Batch, Layout, Record, StoreId};
use crate::{Error, Result};

/// Values behind the timestamp of the record that set them: `timestamp i64 big-endian ‖ value`, the timestamp in
/// milliseconds. The changelog has the value alone, and the timestamp as the record's.
#[derive(Clone, Copy, Debug, Default)]
pub struct Timestamped;

const PREFIX: usize = size_of::<i64>();

impl Timestamped {
    /// Replaces `out` by the local value.
    pub fn encode(timestamp: i64, value: &[u8], out: &mut Vec<u8>) {
        out.clear();
        out.extend_from_slice(&timestamp.to_be_bytes());
        out.extend_from_slice(value);
    }

    /// Takes a local value apart: the timestamp, and the value as the changelog has it.
    pub fn decode(local: &[u8]) -> Result<(i64, &[u8])> {
        let Some((timestamp, value)) = local.split_first_chunk::<PREFIX>() else {
            return Err(Error::Corrupt {
                subject: "a timestamped value".to_owned(),
                reason: format!("it has {} bytes; its timestamp alone takes {PREFIX}", local.len()),
            });
        };
        Ok((i64::from_be_bytes(*timestamp), value))
    }
}

impl Layout for Timestamped {
    fn version(&self) -> &'static str {
        "timestamped/1"
    }

    fn fold(&self, store: StoreId, record: &Record<'_>, batch: &mut Batch) {
        match record.value {
            Some(value) => batch.put_parts(store, record.key, &[&record.timestamp.to_be_bytes(), value]),
            None => batch.delete(store, record.key),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOCAL: &[u8] = b"\x00\x00\x01\x02\x03\x04\x05\x06value";

    #[test]
    fn the_timestamp_leads() {
        let record = Record { key: b"k", value: Some(b"value"), timestamp: 0x0102_0304_0506, offset: 0 };
        let mut batch = Batch::new();
        Timestamped.fold(StoreId(0), &record, &mut batch);
        Timestamped.fold(StoreId(0), &Record { value: None, ..record }, &mut batch);
        let changes: Vec<_> = batch.changes().map(|change| (change.key, change.value)).collect();
        assert_eq!(changes, [(b"k".as_slice(), Some(LOCAL)), (b"k".as_slice(), None)]);
    }

    #[test]
    fn both_ways() {
        let mut out = b"old".to_vec();
        Timestamped::encode(0x0102_0304_0506, b"value", &mut out);
        assert_eq!(out, LOCAL);
        assert_eq!(Timestamped::decode(LOCAL).unwrap(), (0x0102_0304_0506, b"value".as_slice()));
        Timestamped::encode(-1, b"", &mut out);
        assert_eq!(out, [0xff; 8]);
        assert_eq!(Timestamped::decode(&out).unwrap(), (-1, b"".as_slice()));
        let error = Timestamped::decode(b"1234567").unwrap_err();
        assert!(error.to_string().contains("7 bytes"), "{error}");
    }
}
