//! What an operator can do about a connection that was not made.

use std::error::Error as _;
use std::io;

use tokio_postgres::error::SqlState;
use tokio_rustls::rustls;

use crate::store::session::whole_message;

/// The error with its causes and, where there is one, the way out.
pub(in crate::store) fn explain(error: &tokio_postgres::Error) -> String {
    let message = whole_message(error);
    match advice(error, &message) {
        Some(advice) => format!("{message}: {advice}"),
        None => message,
    }
}

fn advice(error: &tokio_postgres::Error, message: &str) -> Option<&'static str> {
    if let Some(database) = error.as_db_error() {
        return of_postgres(database.code(), database.message());
    }
    // The library's own words: it has no type for this.
    if message.contains("server does not support TLS") {
        return Some(
            "switch it on there (`ssl = on`, with a certificate), or allow a connection that others can read with \
             sslmode=disable",
        );
    }
    let cause = error.source()?.downcast_ref::<io::Error>()?;
    if cause.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()).is_some_and(is_alert) {
        return Some(
            "Postgres refuses our certificate: is sslcert signed by a CA of its ssl_ca_file, and not expired?",
        );
    }
    match cause.kind() {
        io::ErrorKind::ConnectionRefused => Some(
            "nothing listens there: is Postgres running, and does it listen on this address (listen_addresses)?",
        ),
        io::ErrorKind::NotFound => {
            Some("there is no such socket: is Postgres running, and is this its folder?")
        }
        _ => None,
    }
}

fn is_alert(error: &rustls::Error) -> bool {
    matches!(error, rustls::Error::AlertReceived(_))
}

fn of_postgres(code: &SqlState, message: &str) -> Option<&'static str> {
    let says = |part: &str| message.contains(part);
    if *code == SqlState::INVALID_PASSWORD {
        return Some("check the user and the password of the URL");
    }
    if *code == SqlState::INVALID_AUTHORIZATION_SPECIFICATION {
        if says("client certificate") {
            return Some("name a certificate and its key with sslcert and sslkey");
        }
        if says("certificate authentication failed") {
            return Some(
                "the certificate has to be for this user (its common name), or mapped to it in pg_ident.conf",
            );
        }
        if says("no encryption") {
            return Some("Postgres wants TLS from this address (pg_hba.conf): use sslmode=verify-full");
        }
    }
    // PgBouncer's; Postgres takes any setting.
    says("unsupported startup parameter").then_some("take `options` out of the URL")
}
