//! What librdkafka's and the broker's error codes mean to the engine.

use std::ffi::CStr;
use std::os::raw::c_char;

use rdkafka::bindings::{
    rd_kafka_err2str, rd_kafka_error_code, rd_kafka_error_destroy, rd_kafka_error_is_fatal,
    rd_kafka_error_is_retriable, rd_kafka_error_string, rd_kafka_error_t, rd_kafka_error_txn_requires_abort,
    rd_kafka_resp_err_t as Code,
};

use crate::broker::{BrokerError, ErrorClass};

/// Success.
pub(super) const NO_ERROR: i32 = Code::RD_KAFKA_RESP_ERR_NO_ERROR as i32;
/// Not an error: the end of a partition was reached.
pub(super) const PARTITION_EOF: i32 = Code::RD_KAFKA_RESP_ERR__PARTITION_EOF as i32;
/// The fetch position is not in the log.
pub(super) const OFFSET_RESET: i32 = Code::RD_KAFKA_RESP_ERR__AUTO_OFFSET_RESET as i32;
/// A topic that already exists cannot be created.
pub(super) const TOPIC_EXISTS: i32 = Code::RD_KAFKA_RESP_ERR_TOPIC_ALREADY_EXISTS as i32;
/// The broker knows no such topic or partition.
pub(super) const UNKNOWN_TOPIC: i32 = Code::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART as i32;
/// Dropped from the client's queue by an abort.
pub(super) const PURGE_QUEUE: i32 = Code::RD_KAFKA_RESP_ERR__PURGE_QUEUE as i32;
/// Dropped on its way by an abort.
pub(super) const PURGE_INFLIGHT: i32 = Code::RD_KAFKA_RESP_ERR__PURGE_INFLIGHT as i32;

/// The class of a code that comes without an error object.
pub(super) fn class_of(code: i32) -> ErrorClass {
    const fn n(code: Code) -> i32 {
        code as i32
    }
    match code {
        c if c == n(Code::RD_KAFKA_RESP_ERR__AUTO_OFFSET_RESET)
            || c == n(Code::RD_KAFKA_RESP_ERR_OFFSET_OUT_OF_RANGE)
            || c == n(Code::RD_KAFKA_RESP_ERR__NO_OFFSET)
            || c == n(Code::RD_KAFKA_RESP_ERR__LOG_TRUNCATION) =>
        {
            ErrorClass::OutOfRange
        }
        c if c == UNKNOWN_TOPIC
            || c == n(Code::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_ID)
            || c == n(Code::RD_KAFKA_RESP_ERR__UNKNOWN_TOPIC)
            || c == n(Code::RD_KAFKA_RESP_ERR__UNKNOWN_PARTITION)
            || c == n(Code::RD_KAFKA_RESP_ERR_TOPIC_EXCEPTION) =>
        {
            ErrorClass::UnknownTopic
        }
        c if c == n(Code::RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE)
            || c == n(Code::RD_KAFKA_RESP_ERR_RECORD_LIST_TOO_LARGE)
            || c == n(Code::RD_KAFKA_RESP_ERR_INVALID_MSG_SIZE) =>
        {
            ErrorClass::TooLarge
        }
        c if c == n(Code::RD_KAFKA_RESP_ERR_INVALID_RECORD) || c == n(Code::RD_KAFKA_RESP_ERR_INVALID_TIMESTAMP) => {
            ErrorClass::Rejected
        }
        c if c == n(Code::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED)
            || c == n(Code::RD_KAFKA_RESP_ERR_GROUP_AUTHORIZATION_FAILED)
            || c == n(Code::RD_KAFKA_RESP_ERR_CLUSTER_AUTHORIZATION_FAILED)
            || c == n(Code::RD_KAFKA_RESP_ERR_TRANSACTIONAL_ID_AUTHORIZATION_FAILED)
            || c == n(Code::RD_KAFKA_RESP_ERR_SASL_AUTHENTICATION_FAILED)
            || c == n(Code::RD_KAFKA_RESP_ERR__AUTHENTICATION) =>
        {
            ErrorClass::NotAuthorised
        }
        c if c == n(Code::RD_KAFKA_RESP_ERR__FENCED)
            || c == n(Code::RD_KAFKA_RESP_ERR_PRODUCER_FENCED)
            || c == n(Code::RD_KAFKA_RESP_ERR_INVALID_PRODUCER_EPOCH) =>
        {
            ErrorClass::Fenced
        }
        c if lease_is_void(c) => ErrorClass::LeaseVoid,
        c if c == n(Code::RD_KAFKA_RESP_ERR_INVALID_CONFIG)
            || c == n(Code::RD_KAFKA_RESP_ERR_INVALID_PARTITIONS)
            || c == n(Code::RD_KAFKA_RESP_ERR_INVALID_REPLICATION_FACTOR)
            || c == n(Code::RD_KAFKA_RESP_ERR_POLICY_VIOLATION)
            || c == n(Code::RD_KAFKA_RESP_ERR_INVALID_TRANSACTION_TIMEOUT)
            || c == n(Code::RD_KAFKA_RESP_ERR__INVALID_ARG) =>
        {
            ErrorClass::Configuration
        }
        c if c == n(Code::RD_KAFKA_RESP_ERR__TRANSPORT)
            || c == n(Code::RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN)
            || c == n(Code::RD_KAFKA_RESP_ERR__RESOLVE)
            || c == n(Code::RD_KAFKA_RESP_ERR__MSG_TIMED_OUT) =>
        {
            ErrorClass::Unavailable
        }
        // Bytes that this client cannot read stay unreadable however often they are fetched.
        c if c == n(Code::RD_KAFKA_RESP_ERR__FATAL)
            || c == n(Code::RD_KAFKA_RESP_ERR__SSL)
            || c == n(Code::RD_KAFKA_RESP_ERR__BAD_MSG)
            || c == n(Code::RD_KAFKA_RESP_ERR__BAD_COMPRESSION)
            || c == n(Code::RD_KAFKA_RESP_ERR__NOT_IMPLEMENTED)
            || c == n(Code::RD_KAFKA_RESP_ERR__UNSUPPORTED_FEATURE)
            || c == n(Code::RD_KAFKA_RESP_ERR__DESTROY)
            || c == n(Code::RD_KAFKA_RESP_ERR__STATE)
            || c == n(Code::RD_KAFKA_RESP_ERR_UNSUPPORTED_VERSION) =>
        {
            ErrorClass::Fatal
        }
        _ => ErrorClass::Retriable,
    }
}

/// Whether the group refused the member id or generation that offsets were sent under (22, 25, 27, 82).
pub(super) fn lease_is_void(code: i32) -> bool {
    [
        Code::RD_KAFKA_RESP_ERR_ILLEGAL_GENERATION,
        Code::RD_KAFKA_RESP_ERR_UNKNOWN_MEMBER_ID,
        Code::RD_KAFKA_RESP_ERR_REBALANCE_IN_PROGRESS,
        Code::RD_KAFKA_RESP_ERR_FENCED_INSTANCE_ID,
    ]
    .iter()
    .any(|&void| void as i32 == code)
}

/// Whether the broker does not accept who we are, which no repetition mends.
pub(super) fn is_authentication(code: i32) -> bool {
    [
        Code::RD_KAFKA_RESP_ERR__AUTHENTICATION,
        Code::RD_KAFKA_RESP_ERR__SSL,
        Code::RD_KAFKA_RESP_ERR_SASL_AUTHENTICATION_FAILED,
    ]
    .iter()
    .any(|&refused| refused as i32 == code)
}

/// An error from a code that a call returned.
pub(super) fn from_code(context: &str, code: Code) -> BrokerError {
    // SAFETY: a pure look-up; the answer is a static string.
    let text = text_of(unsafe { rd_kafka_err2str(code) });
    from_parts(context, code as i32, &text)
}

/// An error from a code and the client's own words.
pub(super) fn from_parts(context: &str, code: i32, text: &str) -> BrokerError {
    BrokerError::new(class_of(code), format!("{context}: {text} ({code})"))
}

/// What an error object of librdkafka says, taken over and freed.
#[derive(Clone, Debug)]
pub(super) struct ErrorObject {
    pub(super) code: i32,
    pub(super) text: String,
    pub(super) fatal: bool,
    pub(super) retriable: bool,
    pub(super) requires_abort: bool,
}

impl ErrorObject {
    /// Takes an error object over; `None` for the null pointer, which means success.
    ///
    /// # Safety
    /// `error` is null or an error object that the caller owns and does not use afterwards.
    pub(super) unsafe fn take(error: *mut rd_kafka_error_t) -> Option<Self> {
        if error.is_null() {
            return None;
        }
        // SAFETY: not null and, by the contract above, a live error object.
        let read = unsafe { Self::read(error) };
        // SAFETY: owned by the caller, who gave it up.
        unsafe { rd_kafka_error_destroy(error) };
        Some(read)
    }

    /// Reads an error object that somebody else owns.
    ///
    /// # Safety
    /// `error` is a live error object.
    pub(super) unsafe fn read(error: *const rd_kafka_error_t) -> Self {
        // SAFETY: live by the contract; each call only reads it.
        unsafe {
            Self {
                code: rd_kafka_error_code(error) as i32,
                text: text_of(rd_kafka_error_string(error)),
                fatal: rd_kafka_error_is_fatal(error) != 0,
                retriable: rd_kafka_error_is_retriable(error) != 0,
                requires_abort: rd_kafka_error_txn_requires_abort(error) != 0,
            }
        }
    }

    /// The error of a call about a transaction: the flags decide before the code does, except that
    /// a refused lease and a fenced producer are told apart from the rest.
    pub(super) fn into_transaction_error(self, call: &str) -> BrokerError {
        let class = match class_of(self.code) {
            ErrorClass::Fenced => ErrorClass::Fenced,
            _ if self.fatal => ErrorClass::Fatal,
            ErrorClass::LeaseVoid if self.requires_abort => ErrorClass::LeaseVoid,
            _ if self.requires_abort => ErrorClass::Abortable,
            _ if self.retriable => ErrorClass::Retriable,
            class => class,
        };
        BrokerError::new(class, format!("{call}: {} ({})", self.text, self.code))
    }

    /// The error of any other call.
    pub(super) fn into_error(self, context: &str) -> BrokerError {
        let mut error = from_parts(context, self.code, &self.text);
        if self.fatal && error.class != ErrorClass::Fenced {
            error.class = ErrorClass::Fatal;
        }
        error
    }
}

/// Copies a C string; empty for the null pointer.
pub(super) fn text_of(text: *const c_char) -> String {
    if text.is_null() {
        return String::new();
    }
    // SAFETY: librdkafka's strings end in a zero byte; the pointer was checked.
    unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(code: Code) -> ErrorObject {
        ErrorObject { code: code as i32, text: "said so".into(), fatal: false, retriable: false, requires_abort: false }
    }

    #[test]
    fn codes_have_the_class_that_says_what_to_do() {
        let cases = [
            (Code::RD_KAFKA_RESP_ERR__AUTO_OFFSET_RESET, ErrorClass::OutOfRange),
            (Code::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART, ErrorClass::UnknownTopic),
            (Code::RD_KAFKA_RESP_ERR__UNKNOWN_PARTITION, ErrorClass::UnknownTopic),
            (Code::RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE, ErrorClass::TooLarge),
            (Code::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED, ErrorClass::NotAuthorised),
            (Code::RD_KAFKA_RESP_ERR_INVALID_RECORD, ErrorClass::Rejected),
            (Code::RD_KAFKA_RESP_ERR__FENCED, ErrorClass::Fenced),
            (Code::RD_KAFKA_RESP_ERR_ILLEGAL_GENERATION, ErrorClass::LeaseVoid),
            (Code::RD_KAFKA_RESP_ERR_INVALID_CONFIG, ErrorClass::Configuration),
            (Code::RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN, ErrorClass::Unavailable),
            (Code::RD_KAFKA_RESP_ERR__BAD_MSG, ErrorClass::Fatal),
            (Code::RD_KAFKA_RESP_ERR__QUEUE_FULL, ErrorClass::Retriable),
            (Code::RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION, ErrorClass::Retriable),
        ];
        for (code, class) in cases {
            assert_eq!(class_of(code as i32), class, "{code:?}");
        }
    }

    #[test]
    fn a_refused_lease_is_no_fenced_producer() {
        let mut refused = object(Code::RD_KAFKA_RESP_ERR_ILLEGAL_GENERATION);
        refused.requires_abort = true;
        assert_eq!(refused.into_transaction_error("send offsets").class, ErrorClass::LeaseVoid);

        let mut fenced = object(Code::RD_KAFKA_RESP_ERR__FENCED);
        fenced.fatal = true;
        assert_eq!(fenced.into_transaction_error("commit").class, ErrorClass::Fenced);
    }

    #[test]
    fn flags_of_a_transaction_error_come_before_its_code() {
        let mut abortable = object(Code::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED);
        abortable.requires_abort = true;
        assert_eq!(abortable.into_transaction_error("commit").class, ErrorClass::Abortable);

        let mut fatal = object(Code::RD_KAFKA_RESP_ERR_OUT_OF_ORDER_SEQUENCE_NUMBER);
        fatal.fatal = true;
        let error = fatal.into_transaction_error("commit");
        assert_eq!(error.class, ErrorClass::Fatal);
        assert_eq!(error.message, "commit: said so (45)");

        let mut later = object(Code::RD_KAFKA_RESP_ERR__TIMED_OUT);
        later.retriable = true;
        assert_eq!(later.into_transaction_error("init").class, ErrorClass::Retriable);
    }

    #[test]
    fn only_who_we_are_is_a_matter_of_authentication() {
        assert!(is_authentication(Code::RD_KAFKA_RESP_ERR_SASL_AUTHENTICATION_FAILED as i32));
        assert!(!is_authentication(Code::RD_KAFKA_RESP_ERR_GROUP_AUTHORIZATION_FAILED as i32));
        assert!(!is_authentication(Code::RD_KAFKA_RESP_ERR__TRANSPORT as i32));
    }

    #[test]
    fn an_error_names_the_call_and_the_code() {
        let error = from_code("create topic a", Code::RD_KAFKA_RESP_ERR_INVALID_CONFIG);
        assert!(error.message.starts_with("create topic a: "), "{}", error.message);
        assert!(error.message.ends_with("(40)"), "{}", error.message);
    }
}
