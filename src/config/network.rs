//! Networks of trusted peers: how they are written (`10.0.0.0/8`, `2001:db8::7`, `unix:`), and whether an address is in them.

use std::fmt;
use std::net::IpAddr;

use super::item::Item;
use super::problem::Report;
use super::value::{Value, elements, read_str};

/// Networks of trusted peers, and whether peers on Unix sockets are among them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Networks {
    networks: Vec<Network>,
    unix: bool,
}

impl Networks {
    /// Whether no peer is in them.
    pub fn is_empty(&self) -> bool {
        self.networks.is_empty() && !self.unix
    }

    /// Whether a peer is in one of them; a peer on a Unix socket has no address.
    pub fn contains(&self, peer: Option<IpAddr>) -> bool {
        match peer.map(|address| address.to_canonical()) {
            Some(address) => self.networks.iter().any(|network| network.contains(address)),
            None => self.unix,
        }
    }

    /// Whether every peer on IPv4 or every peer on IPv6 is in them.
    pub(super) fn has_everybody(&self) -> bool {
        self.networks.iter().any(|network| network.prefix == 0)
    }
}

impl fmt::Display for Networks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unix = self.unix.then(|| "unix:".to_owned());
        let texts: Vec<_> = self.networks.iter().map(Network::to_string).chain(unix).collect();
        f.write_str(&texts.join(", "))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Network {
    base: IpAddr,
    prefix: u32,
}

impl Network {
    /// Reads an address or a network. An error is the whole rule.
    fn parse(text: &str) -> Result<Self, String> {
        let (address, prefix) = text.split_once('/').map_or((text, None), |(address, prefix)| (address, Some(prefix)));
        let Ok(base) = address.parse::<IpAddr>() else {
            let hint = if address.starts_with('[') { ", an IPv6 address has no brackets here" } else { "" };
            return Err(format!("must be {}{hint}", Networks::kind_of_one()));
        };
        if base.to_canonical() != base {
            return Err(format!("an IPv4-mapped IPv6 address must be written as {}", base.to_canonical()));
        }
        let bits = if base.is_ipv4() { 32 } else { 128 };
        let prefix = match prefix {
            None => bits,
            Some(text) => match text.parse() {
                Ok(prefix) if prefix <= bits && text.bytes().all(|byte| byte.is_ascii_digit()) => prefix,
                _ => return Err(format!("the prefix length of this network must be an integer from 0 to {bits}")),
            },
        };
        let network = Self { base: masked(base, prefix), prefix };
        if network.base != base {
            return Err(format!("has bits set after its prefix, did you mean \"{network}\"?"));
        }
        Ok(network)
    }

    fn contains(&self, address: IpAddr) -> bool {
        address.is_ipv4() == self.base.is_ipv4() && masked(address, self.prefix) == self.base
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.base, self.prefix) {
            (IpAddr::V4(_), 32) | (IpAddr::V6(_), 128) => self.base.fmt(f),
            (base, prefix) => write!(f, "{base}/{prefix}"),
        }
    }
}

/// The first `prefix` bits of an address; the rest is zero.
fn masked(address: IpAddr, prefix: u32) -> IpAddr {
    match address {
        // A plain shift by all bits would leave the number as it is.
        IpAddr::V4(address) => IpAddr::V4((address.to_bits() & !u32::MAX.checked_shr(prefix).unwrap_or(0)).into()),
        IpAddr::V6(address) => IpAddr::V6((address.to_bits() & !u128::MAX.checked_shr(prefix).unwrap_or(0)).into()),
    }
}

impl Networks {
    fn kind_of_one() -> &'static str {
        "an address, a network such as \"10.0.0.0/8\", or \"unix:\" for peers on a Unix socket"
    }
}

impl Value for Networks {
    fn kind() -> String {
        "a list of addresses and networks: [\"10.0.0.0/8\", \"unix:\"]".into()
    }

    fn read(item: &Item<'_>, report: &mut Report<'_>) -> Option<Self> {
        let mut networks = Self::default();
        for element in elements(item, &Self::kind(), report)? {
            match read_str(&element, Self::kind_of_one(), report) {
                None => {}
                Some("unix:") => networks.unix = true,
                Some(text) => match Network::parse(text) {
                    Ok(network) => networks.networks.push(network),
                    Err(rule) => report.refuse(&element, rule),
                },
            }
        }
        Some(networks)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_in_a_network() {
        for (network, address, expected) in [
            ("10.0.0.0/8", "10.255.0.1", true),
            ("10.0.0.0/8", "11.0.0.1", false),
            ("10.0.0.0/8", "::ffff:10.0.0.1", true),
            ("10.0.0.0/8", "::a00:1", false),
            ("192.0.2.7", "192.0.2.7", true),
            ("192.0.2.7", "192.0.2.6", false),
            ("192.0.2.6/31", "192.0.2.7", true),
            ("0.0.0.0/0", "255.255.255.255", true),
            ("0.0.0.0/0", "::1", false),
            ("::/0", "::1", true),
            ("2001:db8::/33", "2001:db8:7fff::1", true),
            ("2001:db8::/33", "2001:db8:8000::1", false),
            ("::1", "::1", true),
        ] {
            let networks = Networks { networks: vec![Network::parse(network).unwrap()], unix: false };
            assert_eq!(networks.contains(Some(address.parse().unwrap())), expected, "{address} in {network}");
            assert!(!networks.contains(None));
            assert_eq!(networks.to_string(), network);
        }
        assert!(Networks { unix: true, ..Networks::default() }.contains(None));
    }
}
