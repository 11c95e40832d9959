//! Topics and stores: names and serdes, declared once and used everywhere.

use std::fmt;
use std::sync::Arc;

use crate::serde::Serde;

/// A shared serde.
pub(crate) type SharedSerde<T> = Arc<dyn Serde<T>>;

/// A topic with the types of its keys and values.
///
/// ```
/// use headwater::prelude::*;
///
/// let lines = Topic::new("lines", Nullable(Utf8), Utf8);      // Topic<Option<String>, String>
/// let pairs = Topic::<_, (u8, u8)>::new("pairs", Utf8, Json); // JSON fits many types: say which
/// assert_eq!((lines.name(), pairs.name()), ("lines", "pairs"));
/// ```
pub struct Topic<K, V> {
    name: Arc<str>,
    pub(crate) key: SharedSerde<K>,
    pub(crate) value: SharedSerde<V>,
}

impl<K, V> Topic<K, V> {
    /// Names a topic and says how its keys and values are written.
    pub fn new(name: impl Into<Arc<str>>, key: impl Serde<K> + 'static, value: impl Serde<V> + 'static) -> Self {
        Self { name: name.into(), key: Arc::new(key), value: Arc::new(value) }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl<K, V> Clone for Topic<K, V> {
    fn clone(&self) -> Self {
        Self { name: Arc::clone(&self.name), key: Arc::clone(&self.key), value: Arc::clone(&self.value) }
    }
}

impl<K, V> fmt::Debug for Topic<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Topic").field(&self.name).finish()
    }
}

/// A state store with the types of its keys and values. Its changelog topic is
/// `<application id>-<name>-changelog`, with the bytes that Kafka Streams writes.
pub struct Store<K, V> {
    name: Arc<str>,
    pub(crate) key: SharedSerde<K>,
    pub(crate) value: SharedSerde<V>,
}

impl<K, V> Store<K, V> {
    /// Names a store and says how its keys and values are written.
    pub fn new(name: impl Into<Arc<str>>, key: impl Serde<K> + 'static, value: impl Serde<V> + 'static) -> Self {
        Self { name: name.into(), key: Arc::new(key), value: Arc::new(value) }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl<K, V> Clone for Store<K, V> {
    fn clone(&self) -> Self {
        Self { name: Arc::clone(&self.name), key: Arc::clone(&self.key), value: Arc::clone(&self.value) }
    }
}

impl<K, V> fmt::Debug for Store<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Store").field(&self.name).finish()
    }
}
