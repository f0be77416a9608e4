//! The URL of a receiver.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

/// The longest URL, in bytes: what servers and proxies are known to take.
pub const TARGET_LEN_MAX: usize = 2_048;

/// The longest name of a host, in bytes (RFC 1035).
const HOST_LEN_MAX: usize = 253;

/// The longest part of a name between two dots, in bytes (RFC 1035).
const LABEL_LEN_MAX: usize = 63;

/// Where messages are sent to.
#[derive(Clone, PartialEq, Eq)]
pub struct Target {
    text: String,
    is_https: bool,
    host: Host,
    port: u16,
    path: String,
}

/// The host of a [`Target`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Host {
    /// A name, to be resolved.
    Name(String),
    /// An address.
    Address(IpAddr),
}

/// Why a text is not the URL of a receiver.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// Too long.
    #[error("the URL is longer than {TARGET_LEN_MAX} bytes")]
    TooLong,
    /// Neither `https` nor `http`.
    #[error("the URL begins with https:// (or http://, for an address of your own network)")]
    Scheme,
    /// A character that has to be percent-encoded, or that does not belong into a URL.
    #[error("the URL has a character that does not belong there: percent-encode it")]
    Character,
    /// A user and a password: they would stand in lists and logs.
    #[error("the URL has a user in it: put a token into the path, or verify the signature")]
    User,
    /// What is behind `#` is never sent.
    #[error("the URL has a fragment, which is never sent")]
    Fragment,
    /// No name and no address.
    #[error("the URL has no host that there can be")]
    Host,
    /// No port.
    #[error("the URL has a port that there cannot be")]
    Port,
}

impl Target {
    /// Reads an `https` or `http` URL with a host, and optionally a port, a path and a query.
    ///
    /// # Errors
    /// [`TargetError`]
    pub fn parse(text: &str) -> Result<Self, TargetError> {
        if text.len() > TARGET_LEN_MAX {
            return Err(TargetError::TooLong);
        }
        let (is_https, rest) = match (text.strip_prefix("https://"), text.strip_prefix("http://")) {
            (Some(rest), _) => (true, rest),
            (_, Some(rest)) => (false, rest),
            _ => return Err(TargetError::Scheme),
        };
        if rest.contains('#') {
            return Err(TargetError::Fragment);
        }
        let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        if authority.contains('@') {
            return Err(TargetError::User);
        }
        if !is_encoded(path) {
            return Err(TargetError::Character);
        }
        let (host, port) = host_and_port(authority)?;
        let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
        let port = port.unwrap_or(if is_https { 443 } else { 80 });
        Ok(Self { text: text.to_owned(), is_https, host, port, path })
    }

    /// The URL as it was given.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether it is sent through TLS.
    pub fn is_https(&self) -> bool {
        self.is_https
    }

    /// The host.
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Path and query, as the first line of the request has them.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The value of the header `Host`.
    pub fn authority(&self) -> String {
        let default = if self.is_https { 443 } else { 80 };
        if self.port == default { self.host.to_string() } else { format!("{}:{}", self.host, self.port) }
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A path may hold a token.
        write!(f, "Target({})", self.authority())
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Address(IpAddr::V4(v4)) => write!(f, "{v4}"),
            Self::Address(IpAddr::V6(v6)) => write!(f, "[{v6}]"),
        }
    }
}

/// The characters of a path and a query (RFC 3986), each `%` with its two digits.
fn is_encoded(path: &str) -> bool {
    let mut bytes = path.bytes();
    while let Some(byte) = bytes.next() {
        let is_fine = match byte {
            b'%' => [bytes.next(), bytes.next()]
                .iter()
                .all(|digit| digit.is_some_and(|digit| digit.is_ascii_hexdigit())),
            b'-' | b'.' | b'_' | b'~' | b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b','
            | b';' | b'=' | b':' | b'@' | b'/' | b'?' => true,
            other => other.is_ascii_alphanumeric(),
        };
        if !is_fine {
            return false;
        }
    }
    true
}

fn host_and_port(authority: &str) -> Result<(Host, Option<u16>), TargetError> {
    let (host, port) = match authority.strip_prefix('[') {
        Some(rest) => {
            let (address, port) = rest.split_once(']').ok_or(TargetError::Host)?;
            let address: Ipv6Addr = address.parse().map_err(|_| TargetError::Host)?;
            (Host::Address(address.into()), port)
        }
        None => {
            let (host, port) = authority.split_at(authority.find(':').unwrap_or(authority.len()));
            (name_or_address(host)?, port)
        }
    };
    let port = match port.strip_prefix(':') {
        None if port.is_empty() => None,
        Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
            Some(digits.parse().ok().filter(|port| *port > 0).ok_or(TargetError::Port)?)
        }
        _ => return Err(TargetError::Port),
    };
    Ok((host, port))
}

fn name_or_address(host: &str) -> Result<Host, TargetError> {
    let fits = |label: &str| {
        let inner = label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_');
        (1..=LABEL_LEN_MAX).contains(&label.len())
            && inner
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let labels = host.strip_suffix('.').unwrap_or(host);
    if host.len() > HOST_LEN_MAX || !labels.split('.').all(fits) {
        return Err(TargetError::Host);
    }
    if let Ok(address) = host.parse() {
        return Ok(Host::Address(IpAddr::V4(address)));
    }
    // `127.1`, `2130706433` and `0x7f.0.0.1` are loopback to some resolvers and names to others: what a name ends with is no
    // number, so these are neither.
    let last = labels.rsplit('.').next().unwrap_or_default();
    let is_number = last.bytes().all(|byte| byte.is_ascii_digit())
        || last
            .strip_prefix("0x")
            .or_else(|| last.strip_prefix("0X"))
            .is_some_and(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()));
    if is_number {
        return Err(TargetError::Host);
    }
    Ok(Host::Name(host.to_ascii_lowercase()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_taken_apart() {
        for (text, host, port, path, authority) in [
            ("https://example.com", "example.com", 443, "/", "example.com"),
            ("https://Example.com/hook?a=b%20c", "example.com", 443, "/hook?a=b%20c", "example.com"),
            ("https://example.com:8443?x", "example.com", 8443, "/?x", "example.com:8443"),
            ("http://127.0.0.1:80/", "127.0.0.1", 80, "/", "127.0.0.1"),
            ("http://[::1]:9/a", "[::1]", 9, "/a", "[::1]:9"),
            ("https://example.com./", "example.com.", 443, "/", "example.com."),
        ] {
            let target = Target::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(target.host().to_string(), host);
            assert_eq!((target.port(), target.path()), (port, path), "{text}");
            assert_eq!((target.authority().as_str(), target.as_str()), (authority, text));
            assert_eq!(target.is_https(), text.starts_with("https"));
        }
    }

    #[test]
    fn what_is_no_url_of_a_receiver_is_refused_with_the_reason() {
        let long = format!("https://example.com/{}", "a".repeat(TARGET_LEN_MAX));
        for (text, error) in [
            ("", TargetError::Scheme),
            ("ftp://example.com", TargetError::Scheme),
            ("HTTPS://example.com", TargetError::Scheme),
            ("example.com", TargetError::Scheme),
            (&long, TargetError::TooLong),
            ("https://user:pass@example.com", TargetError::User),
            ("https://example.com@evil.example/", TargetError::User),
            ("https://example.com/#a", TargetError::Fragment),
            ("https://example.com/a b", TargetError::Character),
            ("https://example.com/\r\nhost: x", TargetError::Character),
            ("https://example.com/%4", TargetError::Character),
            ("https://example.com/ä", TargetError::Character),
            ("https://exämple.com/", TargetError::Host),
            ("https:///a", TargetError::Host),
            ("https://-a.example", TargetError::Host),
            ("https://a..example", TargetError::Host),
            ("https://127.1", TargetError::Host),
            ("https://2130706433", TargetError::Host),
            ("https://0x7f000001", TargetError::Host),
            ("https://0x7f.1", TargetError::Host),
            ("https://1.2.3.4.", TargetError::Host),
            ("https://[::1", TargetError::Host),
            ("https://[fe80::1%25eth0]/", TargetError::Host),
            ("https://example.com:0", TargetError::Port),
            ("https://example.com:65536", TargetError::Port),
            ("https://example.com:+1", TargetError::Port),
            ("https://example.com:", TargetError::Port),
            ("https://[::1]80", TargetError::Port),
        ] {
            assert_eq!(Target::parse(text), Err(error), "{text}");
        }
    }
}
