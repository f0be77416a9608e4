//! Addresses of servers: `raystream://PUBLICKEY@host:port` and `raystream+ws://PUBLICKEY@host:port/path`.
//!
//! The key is part of the address, because it is the identity: whoever has the URL knows whom to expect, and nobody in
//! between can take the place.

use std::fmt;
use std::net::Ipv6Addr;
use std::str::FromStr;

use crate::noise::PublicKey;

/// The port of a URL that names none.
pub const DEFAULT_PORT: u16 = 7410;
/// The path of a WebSocket URL that names none.
pub const DEFAULT_WEBSOCKET_PATH: &str = crate::wire::websocket::PATH;
/// No host name is longer (RFC 1035 section 2.3.4).
const HOST_MAX: usize = 253;
const TCP_SCHEME: &str = "raystream";
const WEBSOCKET_SCHEME: &str = "raystream+ws";

/// What carries the records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Transport {
    /// Records on a TCP connection.
    Tcp,
    /// Records as binary messages of a WebSocket.
    WebSocket,
}

/// Where a server is and which key it has to prove.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ServerUrl {
    transport: Transport,
    key: Option<PublicKey>,
    host: String,
    port: u16,
    path: String,
}

/// Why a text is no URL of a server.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    /// It does not start with a scheme of ours.
    #[error("the URL has to start with raystream:// or raystream+ws://")]
    Scheme,
    /// There is no key before the host.
    #[error(
        "the URL names no public key (raystream://PUBLICKEY@host:port), so anybody could answer; \
         --trust-on-first-use takes the key that the server shows, and prints it"
    )]
    MissingKey,
    /// What stands before the `@` is no key.
    #[error(
        "what stands before the @ has to be the server's public key: 64 lower-case hexadecimal digits, not {0} characters"
    )]
    Key(usize),
    /// It has the length of a key and another character.
    #[error("the public key has a character that is no lower-case hexadecimal digit")]
    KeyDigits,
    /// There is no host, or one that cannot be.
    #[error("the host has to be a name, an IPv4 address, or an IPv6 address in brackets such as [::1]")]
    Host,
    /// The port is no number from 1 to 65535.
    #[error("the port has to be a number from 1 to 65535")]
    Port,
    /// A path where none can be.
    #[error("only a raystream+ws:// URL has a path")]
    Path,
    /// A query or fragment, white space or a control character.
    #[error("the URL has a character that has no meaning here: {0:?}")]
    Character(char),
}

impl ServerUrl {
    /// What carries the records.
    pub fn transport(&self) -> Transport {
        self.transport
    }

    /// The key the server has to prove, when the URL names one.
    pub fn key(&self) -> Option<PublicKey> {
        self.key
    }

    /// The key the server has to prove.
    ///
    /// # Errors
    /// [`UrlError::MissingKey`], which names the one way to connect without.
    pub fn require_key(&self) -> Result<PublicKey, UrlError> {
        self.key.ok_or(UrlError::MissingKey)
    }

    /// The same server with a key: after the first contact.
    #[must_use]
    pub fn with_key(mut self, key: PublicKey) -> Self {
        self.key = Some(key);
        self
    }

    /// A name or an address; an IPv6 address without its brackets, as resolvers take it.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The path of the WebSocket's request; empty for TCP.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// `host:port`, with brackets around an IPv6 address: the value of a `Host` header, and what names the server where
    /// keys are remembered.
    pub fn authority(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

impl FromStr for ServerUrl {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<Self, UrlError> {
        let (scheme, rest) = text.split_once("://").ok_or(UrlError::Scheme)?;
        let transport = match scheme {
            TCP_SCHEME => Transport::Tcp,
            WEBSOCKET_SCHEME => Transport::WebSocket,
            _ => return Err(UrlError::Scheme),
        };
        let meaningless = |c: &char| c.is_control() || c.is_whitespace() || matches!(c, '?' | '#' | '\\');
        if let Some(found) = rest.chars().find(meaningless) {
            return Err(UrlError::Character(found));
        }
        let (authority, path) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
        let (key, address) = match authority.rsplit_once('@') {
            Some((key, address)) => (Some(parse_key(key)?), address),
            None => (None, authority),
        };
        let (host, port) = parse_address(address)?;
        let path = match (transport, path) {
            (Transport::Tcp, "" | "/") => "",
            (Transport::Tcp, _) => return Err(UrlError::Path),
            (Transport::WebSocket, "" | "/") => DEFAULT_WEBSOCKET_PATH,
            (Transport::WebSocket, path) => path,
        };
        Ok(Self { transport, key, host, port, path: path.to_owned() })
    }
}

fn parse_key(text: &str) -> Result<PublicKey, UrlError> {
    let length = text.chars().count();
    if length != 64 {
        return Err(UrlError::Key(length));
    }
    text.parse().map_err(|_| UrlError::KeyDigits)
}

fn parse_address(address: &str) -> Result<(String, u16), UrlError> {
    let (host, port) = if let Some(rest) = address.strip_prefix('[') {
        let (host, after) = rest.split_once(']').ok_or(UrlError::Host)?;
        let host: Ipv6Addr = host.parse().map_err(|_| UrlError::Host)?;
        let port = match after {
            "" => None,
            after => Some(after.strip_prefix(':').ok_or(UrlError::Host)?),
        };
        (host.to_string(), port)
    } else {
        let (host, port) = match address.split_once(':') {
            // An IPv6 address without brackets has more colons than one.
            Some((_, port)) if port.contains(':') => return Err(UrlError::Host),
            Some((host, port)) => (host, Some(port)),
            None => (address, None),
        };
        let is_host = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        if host.is_empty() || host.len() > HOST_MAX || !host.chars().all(is_host) {
            return Err(UrlError::Host);
        }
        (host.to_ascii_lowercase(), port)
    };
    let port = match port {
        None => DEFAULT_PORT,
        // `u16::from_str` takes a sign.
        Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
            digits.parse().ok().filter(|port| *port != 0).ok_or(UrlError::Port)?
        }
        Some(_) => return Err(UrlError::Port),
    };
    Ok((host, port))
}

impl fmt::Display for ServerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.transport {
            Transport::Tcp => TCP_SCHEME,
            Transport::WebSocket => WEBSOCKET_SCHEME,
        })?;
        f.write_str("://")?;
        if let Some(key) = self.key {
            write!(f, "{key}@")?;
        }
        f.write_str(&self.authority())?;
        match self.path.as_str() {
            DEFAULT_WEBSOCKET_PATH => Ok(()),
            path => f.write_str(path),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "0008101820283038404850586068707880889098a0a8b0b8c0c8d0d8e0e8f0f8";

    #[test]
    fn urls_are_read_and_written_in_one_form() {
        for (text, host, port, path, canonical) in [
            ("raystream://KEY@127.0.0.1:7411", "127.0.0.1", 7411, "", "raystream://KEY@127.0.0.1:7411"),
            (
                "raystream://KEY@DB.example.com/",
                "db.example.com",
                7410,
                "",
                "raystream://KEY@db.example.com:7410",
            ),
            ("raystream://KEY@[0:0::1]:9", "::1", 9, "", "raystream://KEY@[::1]:9"),
            ("raystream://KEY@[::1]", "::1", 7410, "", "raystream://KEY@[::1]:7410"),
            ("raystream+ws://KEY@host:80", "host", 80, "/raystream", "raystream+ws://KEY@host:80"),
            ("raystream+ws://KEY@host:80/a/b", "host", 80, "/a/b", "raystream+ws://KEY@host:80/a/b"),
            ("raystream://host:1", "host", 1, "", "raystream://host:1"),
        ] {
            let url: ServerUrl = text.replace("KEY", KEY).parse().expect("valid");
            assert_eq!((url.host(), url.port(), url.path()), (host, port, path), "{text}");
            assert_eq!(url.to_string(), canonical.replace("KEY", KEY));
            assert_eq!(url.to_string().parse(), Ok(url.clone()));
            assert_eq!(url.key().is_some(), text.contains("KEY"));
        }
    }

    #[test]
    fn every_refusal_says_what_is_wrong() {
        for (text, expected) in [
            ("", UrlError::Scheme),
            ("KEY@host:1", UrlError::Scheme),
            ("http://host:1", UrlError::Scheme),
            ("raystream://abc@host:1", UrlError::Key(3)),
            ("raystream://@host:1", UrlError::Key(0)),
            ("raystream://KEY@evil@host:1", UrlError::Key(69)),
            ("raystream://", UrlError::Host),
            ("raystream://KEY@", UrlError::Host),
            ("raystream://KEY@:1", UrlError::Host),
            ("raystream://KEY@::1", UrlError::Host),
            ("raystream://KEY@[::1", UrlError::Host),
            ("raystream://KEY@[::1]1", UrlError::Host),
            ("raystream://KEY@[1.2.3.4]", UrlError::Host),
            ("raystream://KEY@hö:1", UrlError::Host),
            ("raystream://KEY@host:", UrlError::Port),
            ("raystream://KEY@host:0", UrlError::Port),
            ("raystream://KEY@host:65536", UrlError::Port),
            ("raystream://KEY@host:+1", UrlError::Port),
            ("raystream://KEY@host:1/x", UrlError::Path),
            ("raystream+ws://KEY@host:1/x?y", UrlError::Character('?')),
            ("raystream+ws://KEY@host:1/x\r\nA: b", UrlError::Character('\r')),
        ] {
            assert_eq!(text.replace("KEY", KEY).parse::<ServerUrl>(), Err(expected), "{text}");
        }
        let upper = format!("raystream://{}@host:1", KEY.to_uppercase());
        assert_eq!(upper.parse::<ServerUrl>(), Err(UrlError::KeyDigits));
        let url: ServerUrl = "raystream://host:1".parse().expect("valid");
        assert!(url.require_key().expect_err("no key").to_string().contains("--trust-on-first-use"));
    }
}
