use std::fmt;
use std::sync::Arc;

use rocksdb::{BlockBasedOptions, Cache, DBCompressionType, Env, LogLevel, Options, WriteBufferManager};

use crate::{Error, Result};

/// Bits of bloom filter per key: one look-up of an absent key in a hundred reads a block.
const BLOOM_BITS: f64 = 10.0;

/// A store that is hardly written must not hold more than a block of this many bytes.
const ARENA_BLOCK_BYTES: usize = 32 * 1024;

/// After this many bytes of log the kernel is asked to write them out, without waiting for it.
const LOG_SYNC_BYTES: u64 = 1024 * 1024;

/// Table files that a database keeps open; a task's files are few, and its process has many tasks.
const MAX_OPEN_FILES: i32 = 256;

/// What the databases of a process may use together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Settings {
    /// Bytes of block cache, which index blocks, filters and write buffers are charged to. Default 128 MiB.
    pub cache_bytes: usize,
    /// Bytes of write buffers; beyond them, data are written out to files. Default 64 MiB.
    pub write_buffer_bytes: usize,
    /// Threads that write buffers out, and as many again that compact. Default 2.
    pub background_threads: u16,
}

impl Default for Settings {
    fn default() -> Self {
        Self { cache_bytes: 128 * 1024 * 1024, write_buffer_bytes: 64 * 1024 * 1024, background_threads: 2 }
    }
}

impl Settings {
    /// Sets [`cache_bytes`](Self::cache_bytes).
    #[must_use]
    pub fn with_cache_bytes(self, cache_bytes: usize) -> Self {
        Self { cache_bytes, ..self }
    }

    /// Sets [`write_buffer_bytes`](Self::write_buffer_bytes).
    #[must_use]
    pub fn with_write_buffer_bytes(self, write_buffer_bytes: usize) -> Self {
        Self { write_buffer_bytes, ..self }
    }

    /// Sets [`background_threads`](Self::background_threads).
    #[must_use]
    pub fn with_background_threads(self, background_threads: u16) -> Self {
        Self { background_threads, ..self }
    }
}

/// The cache, write buffers and threads that all databases of a process share. A clone shares them too.
#[derive(Clone)]
pub struct Shared {
    parts: Arc<Parts>,
}

struct Parts {
    settings: Settings,
    cache: Cache,
    write_buffers: WriteBufferManager,
    env: Env,
}

impl Shared {
    /// Makes the shared parts. One per process: the threads are RocksDB's and the process's, and what is set last counts.
    pub fn new(settings: Settings) -> Result<Self> {
        let cache = Cache::new_lru_cache(settings.cache_bytes);
        // Writers are not stopped when buffers run over: the commit that overruns them starts a flush instead.
        let write_buffers =
            WriteBufferManager::new_write_buffer_manager_with_cache(settings.write_buffer_bytes, false, cache.clone());
        let mut env = Env::new().map_err(|source| Error::Backend { action: "prepare", source: Box::new(source) })?;
        env.set_background_threads(settings.background_threads.into());
        env.set_high_priority_background_threads(settings.background_threads.into());
        Ok(Self { parts: Arc::new(Parts { settings, cache, write_buffers, env }) })
    }

    /// What was set.
    #[must_use]
    pub fn settings(&self) -> Settings {
        self.parts.settings
    }

    /// Bytes that write buffers take now, of all databases.
    #[must_use]
    pub fn write_buffer_usage(&self) -> usize {
        self.parts.write_buffers.get_usage()
    }

    /// Bytes that the block cache takes now, what is charged to it included.
    #[must_use]
    pub fn cache_usage(&self) -> usize {
        self.parts.cache.get_usage()
    }

    /// The options of a database, and of each of its column families.
    pub(super) fn options(&self) -> Options {
        let Parts { settings, cache, write_buffers, env } = &*self.parts;
        let mut options = Options::default();
        options.create_if_missing(true);
        options.create_missing_column_families(true);
        options.set_env(env);
        options.set_write_buffer_manager(write_buffers);
        options.set_max_background_jobs(i32::from(settings.background_threads).saturating_mul(2));
        options.set_max_open_files(MAX_OPEN_FILES);

        // All stores of a task are written out together: a store that is hardly written would else keep the log of
        // all others from being deleted, and so would the offsets.
        options.set_atomic_flush(true);
        options.set_wal_bytes_per_sync(LOG_SYNC_BYTES);
        options.set_write_buffer_size(settings.write_buffer_bytes / 4);
        options.set_max_write_buffer_number(3);
        options.set_arena_block_size(ARENA_BLOCK_BYTES);
        options.set_compression_type(DBCompressionType::Lz4);

        let mut blocks = BlockBasedOptions::default();
        blocks.set_block_cache(cache);
        blocks.set_bloom_filter(BLOOM_BITS, false);
        blocks.set_cache_index_and_filter_blocks(true);
        blocks.set_cache_index_and_filter_blocks_with_high_priority(true);
        blocks.set_pin_l0_filter_and_index_blocks_in_cache(true);
        options.set_block_based_table_factory(&blocks);

        // RocksDB's log of its own doings is for finding faults of RocksDB; its periodic statistics cost a thread.
        options.set_log_level(LogLevel::Warn);
        options.set_keep_log_file_num(2);
        options.set_stats_dump_period_sec(0);
        options.set_stats_persist_period_sec(0);
        options.set_skip_stats_update_on_db_open(true);
        options
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("settings", &self.parts.settings).finish_non_exhaustive()
    }
}
