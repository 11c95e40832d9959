use std::collections::BTreeSet;
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::{fmt, fs};

use rocksdb::{
    BoundColumnFamily, ColumnFamilyDescriptor, DB, DEFAULT_COLUMN_FAMILY_NAME, Options, ReadOptions, WriteBatch,
    WriteOptions,
};

use super::{Shared, failed};
use crate::staged::check_size;
use crate::store::is_empty_range;
use crate::{Backend, Batch, Error, Reader, Result, StoreId, Visitor, name};

/// Says which form offsets and origins have, so that a later form is not misread.
const FORMAT_KEY: &[u8] = b"format";
const FORMAT: &[u8] = b"1";

/// The stores of one task in a RocksDB database. Opened by [`open`](super::open); closing flushes.
pub struct Rocks {
    database: Arc<Database>,
    shared: Shared,
}

/// What readers on other threads use too.
struct Database {
    db: DB,
    path: PathBuf,
    stores: Arc<Stores>,
    /// Made once, since every look-up needs some.
    read: ReadOptions,
}

struct Stores {
    names: Vec<String>,
    keys: Vec<Keys>,
}

/// How a store is called inside the database.
struct Keys {
    /// Its column family. The prefix keeps a store named "default" apart from RocksDB's own.
    family: String,
    /// The keys of its offset and origin in the default column family.
    offset: Vec<u8>,
    origin: Vec<u8>,
}

impl Stores {
    fn new<S: AsRef<str>>(names: &[S]) -> Result<Self> {
        let names: Vec<String> = names.iter().map(|name| name.as_ref().to_owned()).collect();
        let mut seen = BTreeSet::new();
        for store in &names {
            name::check("store", store)?;
            if !seen.insert(store) {
                return Err(Error::Name { what: "store", name: store.clone(), reason: "it is given twice" });
            }
        }
        let keys = names.iter().map(|name| Keys {
            family: format!("store/{name}"),
            offset: format!("offset/{name}").into_bytes(),
            origin: format!("origin/{name}").into_bytes(),
        });
        Ok(Self { keys: keys.collect(), names })
    }
}

impl Rocks {
    pub(super) fn open<S: AsRef<str>>(path: &Path, names: &[S], shared: &Shared) -> Result<Self> {
        let stores = Stores::new(names)?;
        fs::create_dir_all(path).map_err(Error::io("create", path))?;
        let options = shared.options();
        // RocksDB opens all column families or none, so those of removed stores are opened with the others.
        let mut families: BTreeSet<String> = stores.keys.iter().map(|keys| keys.family.clone()).collect();
        families.insert(DEFAULT_COLUMN_FAMILY_NAME.to_owned());
        if path.join("CURRENT").exists() {
            families.extend(DB::list_cf(&options, path).map_err(failed("list", path))?);
        }
        let families = families.into_iter().map(|name| ColumnFamilyDescriptor::new(name, options.clone()));
        let db = DB::open_cf_descriptors(&options, path, families).map_err(failed("open", path))?;
        check_format(&db, path)?;
        let database = Database { db, path: path.to_owned(), stores: Arc::new(stores), read: ReadOptions::default() };
        Ok(Self { database: Arc::new(database), shared: shared.clone() })
    }

    fn options(&self) -> Options {
        self.shared.options()
    }
}

fn check_format(db: &DB, path: &Path) -> Result<()> {
    match db.get(FORMAT_KEY).map_err(failed("read", path))? {
        None => db.put(FORMAT_KEY, FORMAT).map_err(failed("write", path)),
        Some(found) if found == FORMAT => Ok(()),
        Some(found) => Err(Error::Foreign {
            subject: format!("database {}", path.display()),
            differs: format!(
                "its format is {}, this program knows {}; use the program that wrote it, or delete the directory to \
                 rebuild it from the changelog",
                String::from_utf8_lossy(&found),
                String::from_utf8_lossy(FORMAT)
            ),
        }),
    }
}

impl Database {
    /// A store's column family; none only while the store is being cleared.
    fn family(&self, store: StoreId) -> Result<Arc<BoundColumnFamily<'_>>> {
        let keys = store.of(&self.stores.keys)?;
        self.db.cf_handle(&keys.family).ok_or(Error::Closed)
    }

    fn failed(&self, action: &'static str) -> impl Fn(rocksdb::Error) -> Error {
        failed(action, &self.path)
    }
}

impl Reader for Database {
    fn stores(&self) -> &[String] {
        &self.stores.names
    }

    fn get(&self, store: StoreId, key: &[u8], out: &mut Vec<u8>) -> Result<bool> {
        out.clear();
        let value = self.db.get_pinned_cf_opt(&self.family(store)?, key, &self.read).map_err(self.failed("read"))?;
        out.extend_from_slice(value.as_deref().unwrap_or_default());
        Ok(value.is_some())
    }

    fn scan(&self, store: StoreId, from: Bound<&[u8]>, to: Bound<&[u8]>, visit: &mut Visitor<'_>) -> Result<()> {
        let family = self.family(store)?;
        if is_empty_range(from, to) {
            return Ok(());
        }
        // RocksDB's bounds include the lower and exclude the upper.
        let mut options = ReadOptions::default();
        match from {
            Bound::Unbounded => {}
            Bound::Included(from) => options.set_iterate_lower_bound(from),
            Bound::Excluded(from) => options.set_iterate_lower_bound(successor(from)),
        }
        match to {
            Bound::Unbounded => {}
            Bound::Included(to) => options.set_iterate_upper_bound(successor(to)),
            Bound::Excluded(to) => options.set_iterate_upper_bound(to),
        }
        let mut entries = self.db.raw_iterator_cf_opt(&family, options);
        entries.seek_to_first();
        while let Some((key, value)) = entries.item() {
            if visit(key, value).is_break() {
                return Ok(());
            }
            entries.next();
        }
        // The iterator ends at a fault as it does at the end.
        entries.status().map_err(self.failed("scan"))
    }

    fn offset(&self, store: StoreId) -> Result<Option<i64>> {
        let keys = store.of(&self.stores.keys)?;
        let Some(value) = self.db.get_pinned(&keys.offset).map_err(self.failed("read"))? else {
            return Ok(None);
        };
        let bytes = <[u8; 8]>::try_from(&*value).map_err(|_| Error::Corrupt {
            subject: format!("{} of {}", String::from_utf8_lossy(&keys.offset), self.path.display()),
            reason: format!("it has {} bytes instead of 8", value.len()),
        })?;
        Ok(Some(i64::from_be_bytes(bytes)))
    }
}

/// The least key above `key`.
fn successor(key: &[u8]) -> Vec<u8> {
    [key, &[0]].concat()
}

impl Reader for Rocks {
    fn stores(&self) -> &[String] {
        self.database.stores()
    }

    fn get(&self, store: StoreId, key: &[u8], out: &mut Vec<u8>) -> Result<bool> {
        self.database.get(store, key, out)
    }

    fn scan(&self, store: StoreId, from: Bound<&[u8]>, to: Bound<&[u8]>, visit: &mut Visitor<'_>) -> Result<()> {
        self.database.scan(store, from, to, visit)
    }

    fn offset(&self, store: StoreId) -> Result<Option<i64>> {
        self.database.offset(store)
    }
}

impl Backend for Rocks {
    fn write(&mut self, batch: &Batch) -> Result<()> {
        let database = &*self.database;
        let stores = &database.stores.keys;
        let families = (0..=u16::MAX).map(StoreId).zip(stores).map(|(store, _)| database.family(store));
        let families = families.collect::<Result<Vec<_>>>()?;
        let mut write = WriteBatch::with_capacity_bytes(batch.bytes() + batch.len() * 16);
        for change in batch.changes() {
            let family = change.store.of(&families)?;
            // RocksDB drops a change that is too large without a word through this interface.
            check_size("key", change.key)?;
            match change.value {
                Some(value) => {
                    check_size("value", value)?;
                    write.put_cf(family, change.key, value);
                }
                None => write.delete_cf(family, change.key),
            }
        }
        for &(store, next) in batch.offsets() {
            write.put(&store.of(stores)?.offset, next.to_be_bytes());
        }
        for (store, origin) in batch.origins() {
            write.put(&store.of(stores)?.origin, origin);
        }
        database.db.write(write).map_err(database.failed("write"))
    }

    fn flush(&mut self) -> Result<()> {
        self.database.db.flush_wal(true).map_err(self.database.failed("flush"))
    }

    fn clear(&mut self, store: StoreId) -> Result<()> {
        let database = &*self.database;
        let keys = store.of(&database.stores.keys)?;
        // On disk before the entries go: entries without an origin are rebuilt, an origin without entries is believed.
        let mut write = WriteBatch::default();
        write.delete(&keys.offset);
        write.delete(&keys.origin);
        let mut durably = WriteOptions::default();
        durably.set_sync(true);
        database.db.write_opt(write, &durably).map_err(database.failed("clear"))?;
        // A crash between the two leaves no column family, which the next opening creates.
        if database.db.cf_handle(&keys.family).is_some() {
            database.db.drop_cf(&keys.family).map_err(database.failed("clear"))?;
        }
        database.db.create_cf(&keys.family, &self.options()).map_err(database.failed("clear"))
    }

    fn origin(&self, store: StoreId) -> Result<Option<Vec<u8>>> {
        let keys = store.of(&self.database.stores.keys)?;
        self.database.db.get(&keys.origin).map_err(self.database.failed("read"))
    }

    fn reader(&self) -> Box<dyn Reader + Send + Sync> {
        let stores = Arc::clone(&self.database.stores);
        Box::new(RocksReader { database: Arc::downgrade(&self.database), stores })
    }
}

impl Drop for Rocks {
    fn drop(&mut self) {
        if let Err(error) = self.flush() {
            let path = self.database.path.display();
            tracing::warn!(%path, error = &error as &dyn std::error::Error, "cannot flush a database on closing it");
        }
    }
}

impl fmt::Debug for Rocks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rocks")
            .field("path", &self.database.path)
            .field("stores", &self.database.stores.names)
            .finish_non_exhaustive()
    }
}

/// A reader that does not keep the database open.
struct RocksReader {
    database: Weak<Database>,
    stores: Arc<Stores>,
}

impl RocksReader {
    fn database(&self) -> Result<Arc<Database>> {
        self.database.upgrade().ok_or(Error::Closed)
    }
}

impl Reader for RocksReader {
    fn stores(&self) -> &[String] {
        &self.stores.names
    }

    fn get(&self, store: StoreId, key: &[u8], out: &mut Vec<u8>) -> Result<bool> {
        self.database()?.get(store, key, out)
    }

    fn scan(&self, store: StoreId, from: Bound<&[u8]>, to: Bound<&[u8]>, visit: &mut Visitor<'_>) -> Result<()> {
        self.database()?.scan(store, from, to, visit)
    }

    fn offset(&self, store: StoreId) -> Result<Option<i64>> {
        self.database()?.offset(store)
    }
}
