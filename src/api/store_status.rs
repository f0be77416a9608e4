//! The one translation of what the store says into what a peer is told.

use std::time::Duration;

use crate::rpc::Status;
use crate::store::StoreError;
use crate::wire::registry::ErrorCode;

/// What a caller is told to wait who has too much under way: until something of it ends, which is up to him.
const BUSY_RETRY_AFTER: Duration = Duration::from_secs(1);

impl From<StoreError> for Status {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::NotFound => Self::new(ErrorCode::NOT_FOUND, "there is no such table or document"),
            StoreError::Conflict => Self::new(
                ErrorCode::CONFLICT,
                "the document has another version, or another writer holds it; nothing was written",
            ),
            StoreError::AlreadyExists => Self::new(ErrorCode::ALREADY_EXISTS, "it exists already"),
            StoreError::Taken => Self::new(
                ErrorCode::ALREADY_EXISTS,
                "another document has a value that is unique in this table; nothing was written",
            ),
            StoreError::InvalidInput(message) => Self::invalid(message),
            StoreError::Reset(reason) => Self::new(ErrorCode::RESET, reason),
            StoreError::Misfit(misfits) => super::schemas::misfit(&misfits),
            StoreError::SchemaChanged => Self::new(
                ErrorCode::CONFLICT,
                "the schema of the table was changed at the same time; nothing was written",
            ),
            StoreError::TooLarge => Self::new(
                ErrorCode::PAYLOAD_TOO_LARGE,
                format!("a document may have {} bytes at most", crate::store::DOCUMENT_LEN_MAX),
            ),
            StoreError::Unavailable { retry_after } => {
                Self::new(ErrorCode::SERVICE_UNAVAILABLE, "the database cannot take this now")
                    .with_retry_after(retry_after)
            }
            StoreError::Busy(message) => {
                Self::new(ErrorCode::RATE_LIMITED, message).with_retry_after(BUSY_RETRY_AFTER)
            }
            StoreError::Timeout => Self::new(
                ErrorCode::TIMEOUT,
                "the time was over, and what was still running was stopped; a write may have happened",
            ),
            StoreError::Cancelled => Self::new(
                ErrorCode::CANCELLED,
                "the call was cancelled, and what was still running was stopped; a write may have happened",
            ),
            StoreError::UnknownOutcome => Self::new(
                ErrorCode::UNKNOWN_OUTCOME,
                "the connection to the database broke: the write may or may not have happened",
            ),
            StoreError::Internal => Self::internal(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn retryable_codes_are_those_where_nothing_happened() {
        let wait = Duration::from_millis(250);
        let status = Status::from(StoreError::Unavailable { retry_after: wait });
        assert!(status.code.is_retryable());
        assert_eq!(status.retry_after, Some(wait));
        assert!(Status::from(StoreError::Conflict).code.is_retryable());
        for maybe_done in
            [StoreError::UnknownOutcome, StoreError::Timeout, StoreError::Cancelled, StoreError::Internal]
        {
            assert!(!Status::from(maybe_done).code.is_retryable());
        }
    }
}
