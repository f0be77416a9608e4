//! The way from HTTP into WebSocket (RFC 6455, section 4.2), and who may go it.

use crate::wire::websocket::SUBPROTOCOL;
use axum::{
    http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, Version, header},
    response::{IntoResponse, Response},
};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

/// The one version of the protocol.
const VERSION: &str = "13";
/// A key is 16 bytes in base64.
const KEY_LEN: usize = 24;

/// A request that is not granted: the status, and what to do about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Refused(StatusCode, &'static str);

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let version = (self.0 == StatusCode::UPGRADE_REQUIRED)
            .then_some([(header::UPGRADE, "websocket"), (header::SEC_WEBSOCKET_VERSION, VERSION)]);
        (self.0, version, self.1).into_response()
    }
}

/// The answer that grants a request.
///
/// # Errors
/// It is not what section 4.2.1 asks for, it does not name the subprotocol, or it comes from a page that is not listed.
pub(super) fn grant<B>(request: &Request<B>, origins: &[String]) -> Result<Response, Refused> {
    let bad = |why| Err(Refused(StatusCode::BAD_REQUEST, why));
    let headers = request.headers();
    if request.method() != Method::GET || request.version() < Version::HTTP_11 {
        return Err(Refused(
            StatusCode::UPGRADE_REQUIRED,
            "a WebSocket is asked for with GET and HTTP/1.1\n",
        ));
    }
    // What is behind the request is frames, and cannot be a body as well.
    let has_body = headers.contains_key(header::TRANSFER_ENCODING)
        || headers.get(header::CONTENT_LENGTH).is_some_and(|length| length != "0");
    if has_body {
        return bad("a request for a WebSocket has no body\n");
    }
    if !names(headers, header::UPGRADE, "websocket") || !names(headers, header::CONNECTION, "upgrade") {
        return Err(Refused(StatusCode::UPGRADE_REQUIRED, "this is the way into a WebSocket: ask for one\n"));
    }
    if only(headers, header::SEC_WEBSOCKET_VERSION).is_none_or(|version| version != VERSION) {
        return Err(Refused(StatusCode::UPGRADE_REQUIRED, "the version of WebSocket is 13\n"));
    }
    let Some(key) = only(headers, header::SEC_WEBSOCKET_KEY).filter(|key| is_key(key.as_bytes())) else {
        return bad("Sec-WebSocket-Key is not one of 16 bytes\n");
    };
    if !is_allowed(headers, origins) {
        return Err(Refused(StatusCode::FORBIDDEN, "this origin is not allowed\n"));
    }
    // Names of subprotocols have upper and lower case.
    if !elements(headers, header::SEC_WEBSOCKET_PROTOCOL).any(|name| name == SUBPROTOCOL.as_bytes()) {
        return bad("the subprotocol raystream.v1 is required\n");
    }
    let accept = HeaderValue::try_from(derive_accept_key(key.as_bytes())).expect("base64 has only letters");
    let headers = [
        (header::CONNECTION, HeaderValue::from_static("upgrade")),
        (header::UPGRADE, HeaderValue::from_static("websocket")),
        (header::SEC_WEBSOCKET_ACCEPT, accept),
        (header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(SUBPROTOCOL)),
    ];
    Ok((StatusCode::SWITCHING_PROTOCOLS, headers).into_response())
}

/// The elements of a header that is a list (RFC 9110, section 5.6.1).
fn elements(headers: &HeaderMap, name: HeaderName) -> impl Iterator<Item = &[u8]> {
    headers
        .get_all(name)
        .into_iter()
        .flat_map(|line| line.as_bytes().split(|byte| *byte == b','))
        .map(<[u8]>::trim_ascii)
}

fn names(headers: &HeaderMap, name: HeaderName, element: &str) -> bool {
    elements(headers, name).any(|one| one.eq_ignore_ascii_case(element.as_bytes()))
}

/// A header that is there once.
fn only(headers: &HeaderMap, name: HeaderName) -> Option<&HeaderValue> {
    let mut lines = headers.get_all(name).into_iter();
    lines.next().filter(|_| lines.next().is_none())
}

/// Whether it has the form of 16 bytes in base64: two characters of filling at the end.
fn is_key(key: &[u8]) -> bool {
    let letters = key.strip_suffix(b"==").unwrap_or_default();
    key.len() == KEY_LEN
        && letters.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/'))
}

/// A browser always names its origin, a native client never does.
fn is_allowed(headers: &HeaderMap, origins: &[String]) -> bool {
    let mut named = headers.get_all(header::ORIGIN).into_iter();
    named.all(|origin| origins.iter().any(|one| one.as_bytes() == origin.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The request of RFC 6455, section 1.2, with lines put in the place of others; an empty one is left out.
    fn asked(changes: &[(&'static str, &'static str)]) -> Result<Response, Refused> {
        grant(&request(changes), &["https://app.example.com".to_owned()])
    }

    fn request(changes: &[(&'static str, &'static str)]) -> Request<()> {
        let mut lines = vec![
            ("host", "server.example.com"),
            ("upgrade", "websocket"),
            ("connection", "Upgrade"),
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
            ("sec-websocket-protocol", "chat, raystream.v1"),
            ("sec-websocket-version", "13"),
        ];
        lines.retain(|(name, _)| changes.iter().all(|(changed, _)| changed != name));
        lines.extend(changes.iter().filter(|(_, value)| !value.is_empty()));
        let mut request = Request::new(());
        for (name, value) in lines {
            request.headers_mut().append(name, HeaderValue::from_static(value));
        }
        request
    }

    fn status(changes: &[(&'static str, &'static str)]) -> u16 {
        asked(changes).into_response().status().as_u16()
    }

    #[test]
    fn the_example_of_the_rfc_is_granted() {
        let granted = asked(&[]).unwrap();
        assert_eq!(granted.status(), StatusCode::SWITCHING_PROTOCOLS);
        assert_eq!(granted.headers()["sec-websocket-accept"], "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        assert_eq!(granted.headers()["sec-websocket-protocol"], "raystream.v1");
        assert_eq!(status(&[("upgrade", "h2c, WebSocket"), ("connection", "keep-alive, UPGRADE")]), 101);
        assert_eq!(
            status(&[("sec-websocket-protocol", "a"), ("sec-websocket-protocol", "raystream.v1")]),
            101
        );
    }

    #[test]
    fn what_is_not_such_a_request_is_refused() {
        assert_eq!(status(&[("upgrade", "")]), 426);
        assert_eq!(status(&[("connection", "close")]), 426);
        for (method, version) in [
            (Method::HEAD, Version::HTTP_11),
            (Method::POST, Version::HTTP_11),
            (Method::GET, Version::HTTP_10),
        ] {
            let mut request = request(&[]);
            *request.method_mut() = method;
            *request.version_mut() = version;
            assert_eq!(grant(&request, &[]).into_response().status(), StatusCode::UPGRADE_REQUIRED);
        }
        assert_eq!(status(&[("content-length", "0")]), 101);
        assert_eq!(status(&[("content-length", "1")]), 400);
        assert_eq!(status(&[("transfer-encoding", "chunked")]), 400);
        for version in ["", "12", "13, 12"] {
            let refused = asked(&[("sec-websocket-version", version)]).unwrap_err().into_response();
            assert_eq!(refused.status(), StatusCode::UPGRADE_REQUIRED);
            assert_eq!(refused.headers()["sec-websocket-version"], "13");
        }
        assert_eq!(status(&[("sec-websocket-version", "13"), ("sec-websocket-version", "13")]), 426);
        for key in ["", "dGhlIHNhbXBsZSBub25jZQ=", "dGhlIHNhbXBsZSBub25jZQ", "dGhlIHNhbXBsZSBub25jZ*=="] {
            assert_eq!(status(&[("sec-websocket-key", key)]), 400, "{key}");
        }
        for protocol in ["", "chat", "raystream.v2", "Raystream.v1"] {
            assert_eq!(status(&[("sec-websocket-protocol", protocol)]), 400, "{protocol}");
        }
    }

    #[test]
    fn only_listed_origins_and_native_clients_come_in() {
        assert_eq!(status(&[("origin", "https://app.example.com")]), 101);
        assert_eq!(status(&[("origin", "https://app.example.com.evil.test")]), 403);
        assert_eq!(status(&[("origin", "null")]), 403);
        assert_eq!(status(&[("origin", "https://app.example.com"), ("origin", "https://evil.test")]), 403);
    }
}
