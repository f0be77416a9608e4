//! The first contact: who the server is, who the client is, which cipher, and what goes wrong.

use crate::server::{PSK, SECRET, Server, config, public, within};
use raystream::client::{
    CipherPreference, Client, ConnectError, ConnectReason, Error, Options, ReconnectPolicy,
};
use raystream::conn::{ConnectionError, ServerConfig};
use raystream::noise::{Psk, StaticSecret};
use raystream::wire::{ErrorCode, Suite, handshake::encode_refusal};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::TcpStream;

const IDENTITY: [u8; 32] = [5; 32];

fn options(set: impl FnOnce(&mut Options)) -> Options {
    let mut options = Options::default();
    set(&mut options);
    options
}

fn reason(result: Result<Client, Error>) -> Arc<ConnectError> {
    match result {
        Err(Error::Connect(error)) => error,
        other => panic!("{other:?}"),
    }
}

fn connection_error(error: &ConnectError) -> &ConnectionError {
    match &error.reason {
        ConnectReason::Connection(error) => error,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn every_choice_of_keys_and_ciphers_connects() {
    let server = Server::start(config()).await;
    for (identity, psk, ciphers, suite) in [
        (false, false, CipherPreference::ChaChaFirst, Suite::NK_CHACHAPOLY),
        (false, false, CipherPreference::AesFirst, Suite::NK_AESGCM),
        (true, false, CipherPreference::ChaChaOnly, Suite::IK_CHACHAPOLY),
        (true, false, CipherPreference::AesOnly, Suite::IK_AESGCM),
        (true, true, CipherPreference::ChaChaFirst, Suite::IKPSK2_CHACHAPOLY),
        (false, true, CipherPreference::AesFirst, Suite::NKPSK2_AESGCM),
    ] {
        let options = options(|options| {
            options.identity = identity.then(|| StaticSecret::from_bytes(IDENTITY));
            options.psk = psk.then(|| Psk::from_bytes(PSK));
            options.ciphers = ciphers;
        });
        let (client, session) = server.connect_with(options).await;
        let info = client.connection().unwrap();
        assert_eq!((info.suite, session.peer.suite), (suite, suite));
        assert_eq!(session.peer.key, identity.then(|| public(IDENTITY)));
        assert_eq!(info.server_key, public(SECRET));
        assert_eq!(info.handshake_hash, session.peer.handshake_hash);
        assert_eq!(info.connection_id, [3; 16]);
    }
}

#[tokio::test]
async fn the_next_suite_is_tried_when_the_server_does_not_take_the_first() {
    let server = Server::start(ServerConfig { suites: vec![Suite::NK_AESGCM], ..config() }).await;
    let url = server.url();
    let serve = async {
        let refused = server.accept_with(Arc::clone(&server.config)).await.err();
        assert_eq!(refused, Some(ConnectionError::UnsupportedSuite(Suite::NK_CHACHAPOLY.0)));
        server.accept().await
    };
    let (client, session) = tokio::join!(Client::connect(&url, Options::default()), serve);
    assert_eq!(client.unwrap().connection().unwrap().suite, Suite::NK_AESGCM);
    assert_eq!(session.peer.suite, Suite::NK_AESGCM);
}

#[tokio::test]
async fn a_forged_refusal_is_found_out() {
    let server = Server::start(config()).await;
    let attacker = Server::start(config()).await;
    let url = attacker.url();
    let attack = async {
        let mut first = attacker.accept_raw().await;
        let mut init = [0; 1024];
        assert!(first.read(&mut init).await.unwrap() > 48);
        first.write_all(&[0, 3]).await.unwrap();
        first.write_all(&encode_refusal(ErrorCode::UNSUPPORTED_SUITE)).await.unwrap();
        let mut second = attacker.accept_raw().await;
        let mut upstream = TcpStream::connect(("127.0.0.1", server.port())).await.unwrap();
        let _ = copy_bidirectional(&mut second, &mut upstream).await;
    };
    let victim = Client::connect(&url, Options::default());
    let (result, (), _) =
        within(async { tokio::join!(victim, attack, server.accept_with(Arc::clone(&server.config))) }).await;
    let error = reason(result);
    assert_eq!(connection_error(&error), &ConnectionError::Downgrade);
    assert!(!error.retryable());
}

#[tokio::test]
async fn a_server_that_takes_none_of_the_suites() {
    let server = Server::start(ServerConfig { suites: vec![Suite::IK_AESGCM], ..config() }).await;
    let url = server.url();
    let refuse_two = async {
        for _ in 0..2 {
            assert!(server.accept_with(Arc::clone(&server.config)).await.is_err());
        }
    };
    let (result, ()) = tokio::join!(Client::connect(&url, Options::default()), refuse_two);
    let error = reason(result);
    assert_eq!(connection_error(&error), &ConnectionError::Refused(ErrorCode::UNSUPPORTED_SUITE));
    assert!(error.hint().unwrap().contains("none of the handshakes"));
}

#[tokio::test]
async fn another_key_than_the_urls_is_said_so() {
    let server = Server::start(config()).await;
    let url = format!("raystream://{}@127.0.0.1:{}", public([1; 32]), server.port());
    let (result, _) = tokio::join!(
        Client::connect(&url, Options::default()),
        server.accept_with(Arc::clone(&server.config))
    );
    let error = reason(result);
    assert_eq!(connection_error(&error), &ConnectionError::Refused(ErrorCode::UNKNOWN_KEY));
    assert!(error.hint().unwrap().contains("another key"), "{error}");
}

#[tokio::test]
async fn another_shared_secret_is_refused() {
    let server = Server::start(config()).await;
    let url = server.url();
    let options = options(|options| options.psk = Some(Psk::from_bytes([0; 32])));
    // With psk2 in the second message it is the client that finds out.
    let (result, _) =
        tokio::join!(Client::connect(&url, options), server.accept_with(Arc::clone(&server.config)));
    assert_eq!(connection_error(&reason(result)), &ConnectionError::Decryption);
}

#[tokio::test]
async fn a_url_without_a_key_needs_trust_and_then_the_key_is_insisted_on() {
    let server = Server::start(config()).await;
    let url = format!("raystream://127.0.0.1:{}", server.port());
    assert!(matches!(Client::connect(&url, Options::default()).await, Err(Error::Url(_))));

    let trusting = || {
        options(|options| {
            options.trust_on_first_use = true;
            options.reconnect = Some(ReconnectPolicy::default());
        })
    };
    let (client, session) = tokio::join!(Client::connect(&url, trusting()), server.accept());
    let client = client.unwrap();
    assert_eq!(session.peer.suite, Suite::NX_CHACHAPOLY);
    assert_eq!(client.connection().unwrap().server_key, public(SECRET));
    session.cut();
    // Somebody else takes the place: never again without the key that was seen.
    let other = ServerConfig { identities: vec![StaticSecret::from_bytes([1; 32])], ..config() };
    let refused = server.accept_with(Arc::new(other)).await.err();
    assert_eq!(refused, Some(ConnectionError::UnknownKey));
    let back = server.accept().await;
    assert_eq!(back.peer.suite, Suite::NK_CHACHAPOLY);

    // An identity is shown only to a server whose key is known by then.
    let mut known = trusting();
    known.identity = Some(StaticSecret::from_bytes(IDENTITY));
    let serve = async {
        let mut first = server.accept().await;
        assert_eq!((first.peer.suite, first.peer.key), (Suite::NX_CHACHAPOLY, None));
        assert!(first.end().await.is_orderly());
        server.accept().await
    };
    let (client, session) = tokio::join!(Client::connect(&url, known), serve);
    client.unwrap();
    assert_eq!((session.peer.suite, session.peer.key), (Suite::IK_CHACHAPOLY, Some(public(IDENTITY))));
}

#[tokio::test]
async fn a_server_that_never_answers_is_given_up() {
    let server = Server::start(config()).await;
    let url = server.url();
    let silence = || async {
        let mut stream = server.accept_raw().await;
        let mut init = [0; 1024];
        assert!(stream.read(&mut init).await.unwrap() > 0);
        // HANDSHAKE_INIT is here and nothing will follow: time may pass at once.
        tokio::time::pause();
        stream
    };
    let started = tokio::time::Instant::now();
    let (result, _silent) = tokio::join!(Client::connect(&url, Options::default()), silence());
    assert_eq!(connection_error(&reason(result)), &ConnectionError::HandshakeTimeout);
    assert_eq!(started.elapsed().as_secs(), 3);
    tokio::time::resume();

    let impatient = options(|options| options.connect_timeout = Duration::from_secs(2));
    let (result, _silent) = tokio::join!(Client::connect(&url, impatient), silence());
    let error = reason(result);
    assert!(matches!(error.reason, ConnectReason::Timeout(_)) && error.retryable(), "{error}");
}

#[tokio::test]
async fn what_is_not_a_raystream_server_is_said_so() {
    let server = Server::start(config()).await;
    let url = server.url();
    for answer in [&b"HTTP/1.1 400 Bad Request\r\n\r\n"[..], b"", b"\0\x05hello", b"\0\x71\x02"] {
        let serve = async {
            let mut stream = server.accept_raw().await;
            let mut init = [0; 1024];
            assert!(stream.read(&mut init).await.unwrap() > 0);
            stream.write_all(answer).await.unwrap();
        };
        let (result, ()) = tokio::join!(Client::connect(&url, Options::default()), serve);
        let error = reason(result);
        assert!(error.hint().unwrap().contains("may not be a raystream server"), "{error}");
    }
    let websocket = url.replace("raystream:", "raystream+ws:");
    let serve = async {
        let mut stream = server.accept_raw().await;
        stream.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n").await.unwrap();
        let mut request = Vec::new();
        let _ = stream.read_to_end(&mut request).await;
    };
    let (result, ()) = tokio::join!(Client::connect(&websocket, Options::default()), serve);
    let error = reason(result);
    assert!(matches!(error.reason, ConnectReason::WebSocket(_)), "{error}");
    assert!(error.to_string().contains("404"), "{error}");
}

#[tokio::test]
async fn a_port_where_nothing_listens_is_said_so() {
    let server = Server::start(config()).await;
    let url = server.url();
    server.stop();
    let error = reason(Client::connect(&url, Options::default()).await);
    assert!(error.hint().unwrap().contains("nothing listens there"), "{error}");
    assert!(error.retryable());
}
