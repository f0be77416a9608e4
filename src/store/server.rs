//! What the server at the other end says of itself, and whether it will do.

use tokio_postgres::{Client, SimpleQueryMessage};

use super::error::StartError;
use super::session::refused;

/// The oldest Postgres: its statements use `RETURN` bodies and `pg_current_xact_id`.
const MAJOR_LEAST: u32 = 14;

/// The newest Postgres that was there when this was written.
const MAJOR_KNOWN: u32 = 18;

/// In the order of [`Server`]. A session sees what its role and its database are given, not what the file says.
const QUESTION: &str = "SELECT current_setting('server_version_num'), current_setting('server_version'), \
    current_setting('server_encoding'), pg_is_in_recovery(), current_setting('synchronous_commit'), \
    current_setting('fsync'), current_setting('full_page_writes')";

/// A server, as a session sees it.
#[derive(Debug, Clone)]
pub(super) struct Server {
    /// `server_version_num`: the major version times 10,000 and the minor one.
    number: u32,
    version: String,
    encoding: String,
    is_standby: bool,
    synchronous_commit: String,
    fsync: String,
    full_page_writes: String,
}

impl Server {
    /// Asks it.
    pub(super) async fn ask(client: &Client) -> Result<Self, StartError> {
        let messages = client.simple_query(QUESTION).await.map_err(|error| refused(&error))?;
        let row = messages.iter().find_map(|message| match message {
            SimpleQueryMessage::Row(row) => Some(row),
            _ => None,
        });
        let value = |column: usize| {
            row.and_then(|row| row.try_get(column).ok().flatten()).unwrap_or_default().to_owned()
        };
        Ok(Self {
            number: value(0).parse().unwrap_or(0),
            version: value(1),
            encoding: value(2),
            is_standby: value(3) == "t",
            synchronous_commit: value(4),
            fsync: value(5),
            full_page_writes: value(6),
        })
    }

    /// Refuses one that is too old, that takes no writes, or that acknowledges what it can lose.
    pub(super) fn judge(&self, unsafe_durability: bool) -> Result<(), StartError> {
        if self.number / 10_000 < MAJOR_LEAST {
            return Err(StartError::TooOld { found: self.version.clone(), least: MAJOR_LEAST });
        }
        if self.encoding != "UTF8" {
            return Err(StartError::NotUtf8 { found: self.encoding.clone() });
        }
        if self.is_standby {
            return Err(StartError::Standby);
        }
        let not_durable = |setting, value: &str| StartError::NotDurable { setting, value: value.to_owned() };
        if !unsafe_durability && matches!(self.synchronous_commit.as_str(), "off" | "local") {
            return Err(not_durable("synchronous_commit", &self.synchronous_commit));
        }
        if !unsafe_durability && self.fsync != "on" {
            return Err(not_durable("fsync", &self.fsync));
        }
        Ok(())
    }

    /// Says in the log what is not refused and perhaps not meant.
    pub(super) fn warn(&self) {
        if self.number / 10_000 > MAJOR_KNOWN {
            tracing::warn!(
                version = self.version,
                "this Postgres is newer than any this program was written for"
            );
        }
        for (setting, value) in [
            ("synchronous_commit", &self.synchronous_commit),
            ("fsync", &self.fsync),
            ("full_page_writes", &self.full_page_writes),
        ] {
            if matches!(value.as_str(), "off" | "local") {
                tracing::warn!(
                    setting,
                    value,
                    "Postgres can lose or damage what it has acknowledged in a crash"
                );
            }
        }
    }

    /// The level at which commits are acknowledged.
    pub(super) fn synchronous_commit(&self) -> &str {
        &self.synchronous_commit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> Server {
        Server {
            number: 140_000,
            version: "14.0".to_owned(),
            encoding: "UTF8".to_owned(),
            is_standby: false,
            synchronous_commit: "on".to_owned(),
            fsync: "on".to_owned(),
            full_page_writes: "on".to_owned(),
        }
    }

    #[test]
    fn postgres_14_and_newer_will_do_and_13_will_not() {
        for number in [140_000, 150_018, 160_004, 170_002, 180_000, 190_000] {
            assert!(Server { number, ..good() }.judge(false).is_ok(), "{number}");
        }
        let old = Server { number: 130_022, version: "13.22 (Debian)".to_owned(), ..good() };
        let error = old.judge(true).expect_err("it is too old").to_string();
        assert!(error.contains("13.22") && error.contains("14 or newer"), "{error}");
    }

    #[test]
    fn what_can_lose_writes_needs_the_operators_word_and_what_takes_none_never_will_do() {
        for level in ["on", "remote_write", "remote_apply"] {
            assert!(
                Server { synchronous_commit: level.to_owned(), ..good() }.judge(false).is_ok(),
                "{level}"
            );
        }
        for server in [
            Server { synchronous_commit: "off".to_owned(), ..good() },
            Server { synchronous_commit: "local".to_owned(), ..good() },
            Server { fsync: "off".to_owned(), ..good() },
        ] {
            let error = server.judge(false).expect_err("it can lose writes").to_string();
            assert!(error.contains("unsafe_durability"), "{error}");
            assert!(server.judge(true).is_ok());
        }
        assert!(matches!(Server { is_standby: true, ..good() }.judge(true), Err(StartError::Standby)));
    }
}
