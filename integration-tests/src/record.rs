use rdkafka::Message;
use rdkafka::message::{BorrowedMessage, Headers};

/// One record as a consumer sees it, owned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Partition it was read from.
    pub partition: i32,
    /// Offset in that partition.
    pub offset: i64,
    /// Milliseconds since the epoch, -1 where the record carries none.
    pub timestamp: i64,
    /// Key bytes; `None` is Kafka's null.
    pub key: Option<Vec<u8>>,
    /// Value bytes; `None` is Kafka's null, a deletion in a compacted topic.
    pub value: Option<Vec<u8>>,
    /// Headers in their order, names may repeat.
    pub headers: Vec<(String, Option<Vec<u8>>)>,
}

impl Record {
    /// The key as text, for messages: bytes that are not UTF-8 are replaced.
    #[must_use]
    pub fn key_text(&self) -> String {
        text(self.key.as_deref())
    }

    /// The value as text, for messages: bytes that are not UTF-8 are replaced.
    #[must_use]
    pub fn value_text(&self) -> String {
        text(self.value.as_deref())
    }
}

impl From<&BorrowedMessage<'_>> for Record {
    fn from(message: &BorrowedMessage<'_>) -> Self {
        let headers = message.headers().map_or_else(Vec::new, |headers| {
            headers.iter().map(|header| (header.key.to_owned(), header.value.map(<[u8]>::to_vec))).collect()
        });
        Self {
            partition: message.partition(),
            offset: message.offset(),
            timestamp: message.timestamp().to_millis().unwrap_or(-1),
            key: message.key().map(<[u8]>::to_vec),
            value: message.payload().map(<[u8]>::to_vec),
            headers,
        }
    }
}

fn text(bytes: Option<&[u8]>) -> String {
    bytes.map_or_else(|| "null".to_owned(), |bytes| String::from_utf8_lossy(bytes).into_owned())
}
