//! Every limit of the wire, with its reason. Units are the last word of a name; bytes and items have none.

use std::time::Duration;

/// Longest record body: the longest Noise message (Noise section 3).
pub const RECORD_BODY_MAX: usize = 65_535;
/// Longest plaintext of a record: the body without the authentication tag.
pub const RECORD_PLAINTEXT_MAX: usize = RECORD_BODY_MAX - TAG_LEN;
/// Longest record body that a server takes before the peer has proved that it holds the keys of the handshake: a first
/// call has room, a stranger's memory has not.
pub const UNAUTHENTICATED_BODY_MAX: usize = 4_096;
/// Authentication tag of both ciphers.
pub const TAG_LEN: usize = 16;
/// `type u8 | flags u8 | stream u32 | length u16`.
pub const FRAME_HEAD_LEN: usize = 8;
/// Longest payload of one frame. A ping waits for at most one frame of another stream: 16 KiB are 0.13 ms at 1 Gbit/s.
pub const FRAME_PAYLOAD_MAX: usize = 16_384;
/// Longest message, in one frame or in fragments.
pub const MESSAGE_MAX: usize = 1 << 20;
/// Bytes of unfinished messages per connection: two whole messages, so that one peer cannot hold a mebibyte per stream.
pub const PARTIAL_BYTES_MAX: usize = 2 * MESSAGE_MAX;
/// Streams that may be in the middle of a message at once, per connection and direction: many short turns help nobody.
pub const PARTIAL_STREAMS_MAX: usize = 64;
/// Calls in flight per connection.
pub const CALLS_MAX: u16 = 256;
/// Subscriptions per connection.
pub const SUBSCRIPTIONS_MAX: u16 = 128;
/// Credit that may be open on one stream (items): the sum has to stay in 31 bits.
pub const CREDIT_MAX: u32 = (1 << 31) - 1;
/// Longest reason in CLOSE, in bytes.
pub const CLOSE_REASON_MAX: usize = 256;
/// Suites that a client may offer.
pub const OFFERED_SUITES_MAX: usize = 8;
/// Suites that a server may list.
pub const SERVER_SUITES_MAX: usize = 14;
/// Longest method or table name in an envelope.
pub const NAME_MAX: usize = 128;
/// Entries of metadata and of trailers.
pub const METADATA_ENTRIES_MAX: usize = 32;
/// Bytes of one metadata key or value.
pub const METADATA_FIELD_MAX: usize = 1_024;
/// Longest cursor text.
pub const CURSOR_MAX: usize = 4_096;

/// Records after which a direction's key is replaced by Noise `Rekey()`: with records of 64 KiB the AES-GCM bound of
/// draft-irtf-cfrg-aead-limits stays under 2^-63.
pub const REKEY_INTERVAL_RECORDS: u64 = 1 << 20;
/// Records after which a direction refuses to go on: far from the end of the nonce, and never reached in 24 hours.
pub const RECORDS_MAX: u64 = 1 << 40;
/// From accept to the first transport record that decrypts.
pub const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(3);
/// A side that has sent nothing for this long sends a HEARTBEAT.
pub const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(15);
/// A side that has heard nothing for this long gives the connection up: three heartbeats lost.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(45);
/// Age at which a server asks for a new handshake.
pub const KEY_AGE_MAX: Duration = Duration::from_secs(24 * 3_600);
/// HEARTBEATs that may wait for their echo.
pub const HEARTBEATS_OUTSTANDING_MAX: usize = 64;

/// Refused requests and ended subscriptions that a peer may cause at once. Against calls that are cancelled at once (HTTP/2
/// Rapid Reset, CVE-2023-44487) stands something else: a call keeps its slot until its work has stopped.
pub const ABUSE_BUDGET: u32 = 1_000;
/// What the abuse budget gets back per second.
pub const ABUSE_REFILL_PER_SECOND: u32 = 100;

const _: () = assert!(FRAME_HEAD_LEN + FRAME_PAYLOAD_MAX <= RECORD_PLAINTEXT_MAX);
const _: () = assert!(MESSAGE_MAX <= PARTIAL_BYTES_MAX);
const _: () = assert!(HEARTBEAT_INTERVAL.as_secs() * 3 <= IDLE_TIMEOUT.as_secs());
