use super::{Batch, Layout, Record, StoreId};

/// Keys and values as the changelog has them.
#[derive(Clone, Copy, Debug, Default)]
pub struct Plain;

impl Layout for Plain {
    fn version(&self) -> &'static str {
        "plain/1"
    }

    fn fold(&self, store: StoreId, record: &Record<'_>, batch: &mut Batch) {
        match record.value {
            Some(value) => batch.put(store, record.key, value),
            None => batch.delete(store, record.key),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_kept() {
        let mut batch = Batch::new();
        Plain.fold(StoreId(1), &Record { key: b"k", value: Some(b"v"), timestamp: 1, offset: 0 }, &mut batch);
        Plain.fold(StoreId(1), &Record { key: b"k", value: None, timestamp: 2, offset: 1 }, &mut batch);
        let changes: Vec<_> = batch.changes().map(|change| (change.key, change.value)).collect();
        assert_eq!(changes, [(b"k".as_slice(), Some(b"v".as_slice())), (b"k".as_slice(), None)]);
    }
}
