//! Why bytes were refused.

/// A peer's bytes that are not what the specification allows. Says what, never the bytes themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// The input ended inside the named field.
    #[error("the input ends inside {0}")]
    Truncated(&'static str),
    /// Bytes are left after the named value.
    #[error("bytes follow after {0}")]
    TrailingBytes(&'static str),
    /// The named field holds a value that is not allowed there.
    #[error("{0} holds a value that is not allowed")]
    InvalidValue(&'static str),
    /// The named value is longer than its limit.
    #[error("{0} is longer than its limit")]
    TooLong(&'static str),
    /// A frame type that this version does not know.
    #[error("frame type {0:#04x} is unknown")]
    UnknownFrameType(u8),
    /// A flag that the frame type does not have.
    #[error("flags {flags:#04x} are not allowed on frame type {frame_type:#04x}")]
    InvalidFlags {
        /// The type of the frame.
        frame_type: u8,
        /// Its flags.
        flags: u8,
    },
    /// An envelope that is not the FlatBuffers table it has to be.
    #[error("the payload is not a valid {0} table")]
    InvalidEnvelope(&'static str),
}
