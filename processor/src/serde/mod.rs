//! From bytes to values and back.
//!
//! A [`Serde`] decodes borrowed bytes and encodes into a buffer that is reused, so it allocates only
//! what the value itself owns. Both directions know null: a null value is a tombstone to Kafka, not an empty one.

mod basic;

pub use basic::{Bytes, I64, Json, Nullable, Utf8};

/// Whether `encode` wrote bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoded {
    /// The value is what was appended to the buffer.
    Bytes,
    /// The value is null; nothing was appended.
    Null,
}

/// Bytes that cannot be decoded, or a value that cannot be encoded: what was found and what is accepted.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct SerdeError(pub String);

/// Encodes and decodes values of one type.
///
/// ```
/// use headwater::serde::{Encoded, Serde, Utf8};
///
/// let mut bytes = Vec::new();
/// assert_eq!(Utf8.encode(&"be".to_owned(), &mut bytes)?, Encoded::Bytes);
/// assert_eq!(Utf8.decode(Some(&bytes))?, "be");
/// assert!(Utf8.decode(None).is_err()); // null is refused; `Nullable(Utf8)` takes it
/// # Ok::<(), headwater::serde::SerdeError>(())
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not encode and decode `{T}`",
    note = "choose a serde of that type (`Utf8` for `String`, `I64` for `i64`, `Json` for anything with serde's derives, `Nullable(..)` for an `Option`), or implement `Serde<{T}>`"
)]
pub trait Serde<T>: Send + Sync {
    /// Appends the value's bytes to `into`.
    fn encode(&self, value: &T, into: &mut Vec<u8>) -> Result<Encoded, SerdeError>;
    /// Makes a value of bytes, `None` being null.
    fn decode(&self, bytes: Option<&[u8]>) -> Result<T, SerdeError>;
    /// A name for the encoding if it is canonical: encoding what was decoded gives the same bytes, for every
    /// serde that answers this name. Raw keys are then reused instead of being encoded again.
    fn canonical(&self) -> Option<&'static str> {
        None
    }
}
