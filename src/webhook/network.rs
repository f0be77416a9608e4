//! Which addresses a message may be sent to: those of the public internet, and what the operator names.
//!
//! A URL comes from somebody who may reach less than the daemon does. Without this a webhook would be a way to the services
//! that listen on the daemon's own machine and network, and to the metadata service of a cloud, which gives out credentials.
//! An address is judged when its name was resolved, right before it is connected to, so that a name cannot change in between.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Ranges of IPv4 that are not of the public internet (the registry of special-purpose addresses, RFC 6890, and what is no
/// address of a host), and their prefix lengths.
const SPECIAL_V4: [([u8; 4], u8); 16] = [
    // "This network".
    ([0, 0, 0, 0], 8),
    // Private.
    ([10, 0, 0, 0], 8),
    // Between a provider and its customers; clouds have services there.
    ([100, 64, 0, 0], 10),
    // Loopback.
    ([127, 0, 0, 0], 8),
    // Azure's service for its machines, at an address that looks public.
    ([168, 63, 129, 16], 32),
    // Link-local, with the metadata services of most clouds.
    ([169, 254, 0, 0], 16),
    // Private.
    ([172, 16, 0, 0], 12),
    // Protocol assignments, with the metadata service of another cloud.
    ([192, 0, 0, 0], 24),
    // Documentation.
    ([192, 0, 2, 0], 24),
    // The relays of 6to4, which are no more.
    ([192, 88, 99, 0], 24),
    // Private.
    ([192, 168, 0, 0], 16),
    // Measurements of devices.
    ([198, 18, 0, 0], 15),
    // Documentation, twice.
    ([198, 51, 100, 0], 24),
    ([203, 0, 113, 0], 24),
    // Multicast.
    ([224, 0, 0, 0], 4),
    // Reserved, and broadcast.
    ([240, 0, 0, 0], 4),
];

/// The one range of IPv6 that is given out to hosts of the internet (`2000::/3`).
const GLOBAL_V6: (u16, u8) = (0x2000, 3);

/// Ranges in [`GLOBAL_V6`] that are no hosts of the internet: protocol assignments with Teredo (`2001::/23`), documentation
/// (`2001:db8::/32`, `3fff::/20`), 6to4 (`2002::/16`), of which the last three digits hide an address of IPv4.
const SPECIAL_V6: [([u16; 2], u8); 4] =
    [([0x2001, 0], 23), ([0x2001, 0x0DB8], 32), ([0x2002, 0], 16), ([0x3FFF, 0], 20)];

/// The prefix under which a network of IPv6 alone shows the hosts of IPv4 (`64:ff9b::/96`, RFC 6052).
const NAT64: [u16; 6] = [0x0064, 0xFF9B, 0, 0, 0, 0];

/// The IPv4 address that an address of IPv6 stands for: mapped (`::ffff:a.b.c.d`), or by [`NAT64`].
fn embedded(address: Ipv6Addr) -> Option<Ipv4Addr> {
    address.to_ipv4_mapped().or_else(|| {
        let [_, _, _, _, _, _, _, _, _, _, _, _, last @ ..] = address.octets();
        address.segments().starts_with(&NAT64).then(|| Ipv4Addr::from(last))
    })
}

/// The address that is meant: that of IPv4 when one is embedded.
fn meant(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(v6) => embedded(v6).map_or(address, IpAddr::V4),
    }
}

/// Whether an address is one of the public internet. Everything that is not known to be is not.
pub fn is_public(address: IpAddr) -> bool {
    match meant(address) {
        IpAddr::V4(v4) => {
            !SPECIAL_V4.iter().any(|(base, prefix)| covers(&Ipv4Addr::from(*base).into(), *prefix, v4.into()))
        }
        IpAddr::V6(v6) => {
            let network = |head: [u16; 2]| Ipv6Addr::new(head[0], head[1], 0, 0, 0, 0, 0, 0).into();
            covers(&network([GLOBAL_V6.0, 0]), GLOBAL_V6.1, v6.into())
                && !SPECIAL_V6.iter().any(|(head, prefix)| covers(&network(*head), *prefix, v6.into()))
        }
    }
}

/// Whether the first `prefix` bits of two addresses of one kind are the same.
fn covers(base: &IpAddr, prefix: u8, address: IpAddr) -> bool {
    match (base, address) {
        (IpAddr::V4(base), IpAddr::V4(address)) => {
            let differs = base.to_bits() ^ address.to_bits();
            differs.leading_zeros() >= u32::from(prefix)
        }
        (IpAddr::V6(base), IpAddr::V6(address)) => {
            let differs = base.to_bits() ^ address.to_bits();
            differs.leading_zeros() >= u32::from(prefix)
        }
        _ => false,
    }
}

/// A range of addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Network {
    base: IpAddr,
    prefix: u8,
}

/// Ranges of addresses that an operator allows, besides the public internet.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Networks(Vec<Network>);

/// The text is no range of addresses.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no range of addresses: write it like 10.1.0.0/16, fd00:1::/32 or 127.0.0.1")]
pub struct NotANetwork(String);

impl Networks {
    /// Whether one of these ranges names an address. An address of IPv6 that stands for one of IPv4 is that one.
    pub fn names(&self, address: IpAddr) -> bool {
        let address = meant(address);
        self.0.iter().any(|network| covers(&network.base, network.prefix, address))
    }

    /// Whether a message may go to an address.
    pub fn allow(&self, address: IpAddr) -> bool {
        is_public(address) || self.names(address)
    }
}

impl FromStr for Network {
    type Err = NotANetwork;

    fn from_str(text: &str) -> Result<Self, NotANetwork> {
        let wrong = || NotANetwork(text.chars().take(64).collect());
        let (base, prefix) = text.split_once('/').map_or((text, None), |(base, prefix)| (base, Some(prefix)));
        let base: IpAddr = base.parse().map_err(|_| wrong())?;
        let longest = if base.is_ipv4() { 32 } else { 128 };
        let prefix = match prefix {
            None => longest,
            Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
                digits.parse().ok().filter(|prefix| *prefix <= longest).ok_or_else(wrong)?
            }
            Some(_) => return Err(wrong()),
        };
        // An address of IPv6 that means one of IPv4 is compared as that, so a range of them would never fit.
        let is_meant = meant(base) == base;
        let host_bits = match base {
            IpAddr::V4(v4) => u128::from(v4.to_bits()).checked_shl(96 + u32::from(prefix)),
            IpAddr::V6(v6) => v6.to_bits().checked_shl(u32::from(prefix)),
        };
        // `10.1.2.3/8` is more likely a mistake in the length than in the address.
        if !is_meant || host_bits.is_some_and(|bits| bits != 0) {
            return Err(wrong());
        }
        Ok(Self { base, prefix })
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.base, self.prefix)
    }
}

impl FromIterator<Network> for Networks {
    fn from_iter<T: IntoIterator<Item = Network>>(networks: T) -> Self {
        Self(networks.into_iter().collect())
    }
}

impl Serialize for Networks {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(Network::to_string))
    }
}

impl<'de> Deserialize<'de> for Networks {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let texts = Vec::<String>::deserialize(deserializer)?;
        texts.iter().map(|text| text.parse::<Network>().map_err(de::Error::custom)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap_or_else(|_| panic!("{text}"))
    }

    fn v4(octets: [u8; 4]) -> IpAddr {
        Ipv4Addr::from(octets).into()
    }

    /// The two forms in which IPv6 has an address of IPv4.
    fn hidden(octets: [u8; 4]) -> [IpAddr; 2] {
        let v4 = u128::from(Ipv4Addr::from(octets).to_bits());
        let nat64 = Ipv6Addr::new(0x64, 0xFF9B, 0, 0, 0, 0, 0, 0).to_bits();
        [Ipv6Addr::from_bits(0xFFFF << 32 | v4).into(), Ipv6Addr::from_bits(nat64 | v4).into()]
    }

    #[test]
    fn inner_addresses_are_refused_in_every_form() {
        for octets in [
            [0, 0, 0, 0],
            [0, 1, 2, 3],
            [10, 0, 0, 1],
            [10, 255, 255, 255],
            [100, 64, 0, 1],
            [100, 100, 100, 200],
            [100, 127, 255, 255],
            [127, 0, 0, 1],
            [127, 255, 255, 254],
            [168, 63, 129, 16],
            [169, 254, 0, 1],
            [169, 254, 169, 254],
            [172, 16, 0, 1],
            [172, 31, 255, 255],
            [192, 0, 0, 192],
            [192, 0, 2, 1],
            [192, 88, 99, 1],
            [192, 168, 0, 1],
            [192, 168, 255, 255],
            [198, 18, 0, 1],
            [198, 19, 255, 255],
            [198, 51, 100, 7],
            [203, 0, 113, 7],
            [224, 0, 0, 1],
            [239, 255, 255, 255],
            [240, 0, 0, 1],
            [255, 255, 255, 255],
        ] {
            assert!(!is_public(v4(octets)), "{octets:?}");
            for address in hidden(octets) {
                assert!(!is_public(address), "{address}");
            }
        }
        for text in [
            "::",
            "::1",
            "::7f00:1",
            "::808:808",
            "64:ff9b:1::808:808",
            "100::1",
            "2001::1",
            "2001:1ff::1",
            "2001:db8::1",
            "2002:7f00:1::1",
            "2002:808:808::1",
            "3fff::1",
            "3fff:fff::1",
            "4000::1",
            "5f00::1",
            "fc00::1",
            "fd00:ec2::254",
            "fe80::1",
            "febf::1",
            "fec0::1",
            "ff02::1",
        ] {
            assert!(!is_public(ip(text)), "{text}");
        }
    }

    #[test]
    fn the_internet_is_allowed_up_to_the_edges_of_the_ranges() {
        for octets in [
            [1, 1, 1, 1],
            [8, 8, 8, 8],
            [9, 255, 255, 255],
            [11, 0, 0, 0],
            [100, 63, 255, 255],
            [100, 128, 0, 0],
            [126, 255, 255, 255],
            [128, 0, 0, 0],
            [168, 63, 129, 15],
            [169, 253, 255, 255],
            [172, 15, 255, 255],
            [172, 32, 0, 0],
            [192, 0, 1, 0],
            [192, 167, 255, 255],
            [192, 169, 0, 0],
            [198, 20, 0, 0],
            [223, 255, 255, 255],
        ] {
            assert!(is_public(v4(octets)), "{octets:?}");
            for address in hidden(octets) {
                assert!(is_public(address), "{address}");
            }
        }
        for text in ["2001:200::1", "2001:4860:4860::8888", "2003::1", "2606:4700::1111", "3fff:1000::1"] {
            assert!(is_public(ip(text)), "{text}");
        }
    }

    #[test]
    fn what_the_operator_names_is_allowed_and_nothing_beside_it() {
        let read = |texts: &[&str]| -> Networks {
            texts.iter().map(|text| text.parse::<Network>().unwrap()).collect()
        };
        let networks = read(&["127.0.0.1", "10.1.0.0/16", "fd00:1::/32"]);
        for (address, allowed) in [
            ("127.0.0.1", true),
            ("::ffff:127.0.0.1", true),
            ("64:ff9b::7f00:1", true),
            ("127.0.0.2", false),
            ("10.1.255.255", true),
            ("10.2.0.0", false),
            ("fd00:1:ffff::1", true),
            ("fd00:2::1", false),
            ("::1", false),
            ("8.8.8.8", true),
        ] {
            assert_eq!(networks.allow(ip(address)), allowed, "{address}");
        }
        assert!(!networks.names(ip("8.8.8.8")));
        assert!(read(&["0.0.0.0/0", "::/0"]).allow(ip("::1")));
        for text in [
            "",
            "10.0.0.0/33",
            "10.0.0.0/",
            "10.0.0.0/+8",
            "10.1.2.3/8",
            "::/129",
            "localhost",
            "10.0.0.0/8/8",
            "::ffff:10.0.0.0/104",
        ] {
            assert!(text.parse::<Network>().is_err(), "{text}");
        }
    }
}
