//! The serdes that come with the crate.

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Encoded, Serde, SerdeError};

fn present<'a>(bytes: Option<&'a [u8]>, name: &str) -> Result<&'a [u8], SerdeError> {
    bytes.ok_or_else(|| SerdeError(format!("null where {name} needs a value; Nullable({name}) accepts null")))
}

/// UTF-8 text. Refuses null.
#[derive(Clone, Copy, Debug, Default)]
pub struct Utf8;

impl Serde<String> for Utf8 {
    fn encode(&self, value: &String, into: &mut Vec<u8>) -> Result<Encoded, SerdeError> {
        into.extend_from_slice(value.as_bytes());
        Ok(Encoded::Bytes)
    }

    fn decode(&self, bytes: Option<&[u8]>) -> Result<String, SerdeError> {
        let bytes = present(bytes, "Utf8")?;
        match std::str::from_utf8(bytes) {
            Ok(text) => Ok(text.to_owned()),
            Err(error) => Err(SerdeError(format!(
                "{} bytes are not UTF-8 text: the first wrong byte is at {}",
                bytes.len(),
                error.valid_up_to()
            ))),
        }
    }

    fn canonical(&self) -> Option<&'static str> {
        Some("utf8")
    }
}

/// Bytes as they are. Refuses null.
#[derive(Clone, Copy, Debug, Default)]
pub struct Bytes;

impl Serde<Vec<u8>> for Bytes {
    fn encode(&self, value: &Vec<u8>, into: &mut Vec<u8>) -> Result<Encoded, SerdeError> {
        into.extend_from_slice(value);
        Ok(Encoded::Bytes)
    }

    fn decode(&self, bytes: Option<&[u8]>) -> Result<Vec<u8>, SerdeError> {
        present(bytes, "Bytes").map(<[u8]>::to_vec)
    }

    fn canonical(&self) -> Option<&'static str> {
        Some("bytes")
    }
}

/// A signed 64-bit number, 8 bytes big-endian, as Kafka's `LongSerializer` writes it. Refuses null.
#[derive(Clone, Copy, Debug, Default)]
pub struct I64;

impl Serde<i64> for I64 {
    fn encode(&self, value: &i64, into: &mut Vec<u8>) -> Result<Encoded, SerdeError> {
        into.extend_from_slice(&value.to_be_bytes());
        Ok(Encoded::Bytes)
    }

    fn decode(&self, bytes: Option<&[u8]>) -> Result<i64, SerdeError> {
        let bytes = present(bytes, "I64")?;
        match <[u8; 8]>::try_from(bytes) {
            Ok(bytes) => Ok(i64::from_be_bytes(bytes)),
            Err(_) => Err(SerdeError(format!("{} bytes where I64 needs exactly 8", bytes.len()))),
        }
    }

    fn canonical(&self) -> Option<&'static str> {
        Some("i64")
    }
}

/// JSON text of any type with serde's derives. Refuses null bytes (JSON's own `null` is text).
#[derive(Clone, Copy, Debug, Default)]
pub struct Json;

impl<T: Serialize + DeserializeOwned + 'static> Serde<T> for Json {
    fn encode(&self, value: &T, into: &mut Vec<u8>) -> Result<Encoded, SerdeError> {
        match serde_json::to_writer(into, value) {
            Ok(()) => Ok(Encoded::Bytes),
            Err(error) => Err(SerdeError(format!("cannot be written as JSON: {error}"))),
        }
    }

    fn decode(&self, bytes: Option<&[u8]>) -> Result<T, SerdeError> {
        let bytes = present(bytes, "Json")?;
        serde_json::from_slice(bytes).map_err(|error| {
            SerdeError(format!("{} bytes are not the JSON of {}: {error}", bytes.len(), std::any::type_name::<T>()))
        })
    }
}

/// Makes an `Option` of another serde's type: null is `None`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Nullable<S>(pub S);

impl<T: 'static, S: Serde<T>> Serde<Option<T>> for Nullable<S> {
    fn encode(&self, value: &Option<T>, into: &mut Vec<u8>) -> Result<Encoded, SerdeError> {
        match value {
            Some(value) => self.0.encode(value, into),
            None => Ok(Encoded::Null),
        }
    }

    fn decode(&self, bytes: Option<&[u8]>) -> Result<Option<T>, SerdeError> {
        bytes.map(|bytes| self.0.decode(Some(bytes))).transpose()
    }

    fn canonical(&self) -> Option<&'static str> {
        self.0.canonical()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round_trip<T: PartialEq + std::fmt::Debug>(serde: &impl Serde<T>, value: &T) -> Option<Vec<u8>> {
        let mut bytes = Vec::new();
        let encoded = match serde.encode(value, &mut bytes).unwrap() {
            Encoded::Bytes => Some(bytes),
            Encoded::Null => None,
        };
        assert_eq!(&serde.decode(encoded.as_deref()).unwrap(), value);
        encoded
    }

    #[test]
    fn values_come_back_and_the_bytes_are_kafkas() {
        assert_eq!(round_trip(&I64, &258), Some(vec![0, 0, 0, 0, 0, 0, 1, 2]));
        assert_eq!(round_trip(&Utf8, &"é".to_owned()), Some(vec![0xc3, 0xa9]));
        assert_eq!(round_trip(&Bytes, &vec![]), Some(vec![]));
        assert_eq!(round_trip(&Nullable(Utf8), &None), None);
        assert_eq!(round_trip(&Json, &vec![1, 2]), Some(b"[1,2]".to_vec()));
    }

    #[test]
    fn what_cannot_be_decoded_is_named_with_what_is_accepted() {
        assert_eq!(I64.decode(Some(b"abc")).unwrap_err().0, "3 bytes where I64 needs exactly 8");
        assert!(Utf8.decode(Some(b"a\xff")).unwrap_err().0.contains("the first wrong byte is at 1"));
        assert!(Utf8.decode(None).unwrap_err().0.contains("Nullable(Utf8) accepts null"));
        assert!(Serde::<u8>::decode(&Json, Some(b"x")).unwrap_err().0.contains("JSON of u8"));
    }
}
