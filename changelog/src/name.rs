use crate::{Error, Result};

/// Kafka's limit for a topic name, which store and application names become part of.
const MAX_LEN: usize = 249;

/// Refuses a name that is not safe as a directory and inside a topic name. `what` says what it names.
pub(crate) fn check(what: &'static str, name: &str) -> Result<()> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    let reason = match name {
        "" => "it is empty",
        "." | ".." => "it means a directory",
        _ if name.len() > MAX_LEN => "it is too long",
        _ if !name.bytes().all(allowed) => "it has another character",
        _ => return Ok(()),
    };
    Err(Error::Name { what, name: name.to_owned(), reason })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_topic_characters_only() {
        for name in ["a", "word-count", "Store_1.v2", &"x".repeat(249)] {
            check("store", name).unwrap();
        }
        for name in ["", ".", "..", "a/b", "a b", "größe", "a\0", &"x".repeat(250)] {
            let error = check("store", name).unwrap_err().to_string();
            assert!(error.contains("store") && error.contains("a-z"), "{error}");
        }
    }
}
