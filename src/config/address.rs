//! Addresses as they are written: `host:port`, `[::1]:port`, `unix:/path`.

use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};

use super::item::Item;
use super::model::Bind;
use super::problem::Report;
use super::value::{Value, read_str};

/// `sun_path` of Linux has 108 bytes, the last one is a NUL.
const LONGEST_UNIX_PATH: usize = 107;

/// A listening address, or that of a backend, before names are resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Address {
    Tcp { host: String, port: u16 },
    Unix(PathBuf),
}

impl Address {
    /// Reads an address. An error is a whole rule, which does not need "must be" in front.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        if let Some((scheme, rest)) = text.split_once("://") {
            return Err(instead_of_url(scheme, rest));
        }
        if let Some(path) = text.strip_prefix("unix:") {
            return match path {
                "" => Err("a path is missing after unix:".into()),
                path => Ok(Self::Unix(path.into())),
            };
        }
        if text.starts_with(['/', '.']) {
            return Err(format!("must be {}, did you mean \"unix:{text}\"?", Self::kind()));
        }
        let Some((host, port)) = text.rsplit_once(':') else {
            let hint = match text.parse::<u16>() {
                Ok(port) => format!(", did you mean \"127.0.0.1:{port}\"?"),
                Err(_) => String::new(),
            };
            return Err(format!("must be {}{hint}", Self::kind()));
        };
        let Ok(port) = port.parse() else {
            return Err(format!("{port:?} is not a port: must be {}", Self::kind()));
        };
        let host = match host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            Some(inner) if inner.parse::<std::net::Ipv6Addr>().is_ok() => inner,
            Some(inner) => return Err(format!("{inner:?} is not an IPv6 address")),
            None if host.is_empty() => {
                return Err(format!(
                    "the host is missing: write 127.0.0.1:{port} for this machine only, 0.0.0.0:{port} for all IPv4 addresses, or [::]:{port} for all IPv6 addresses"
                ));
            }
            None if host == "*" => {
                return Err(format!(
                    "\"*\" is not a host: write 0.0.0.0:{port} for all IPv4 addresses, or [::]:{port} for all IPv6 addresses"
                ));
            }
            None if host.contains(':') => return Err(format!("an IPv6 address must be in brackets: [{host}]:{port}")),
            None => host,
        };
        Ok(Self::Tcp { host: host.to_owned(), port })
    }

    /// The address to use. Names are looked up here, once; a relative path is below `base`.
    pub(super) fn resolve(&self, base: &Path) -> Result<Bind, String> {
        match self {
            Self::Unix(path) => {
                let path = base.join(path);
                if path.as_os_str().len() > LONGEST_UNIX_PATH {
                    return Err(format!("a socket path has at most {LONGEST_UNIX_PATH} bytes"));
                }
                Ok(Bind::Unix(path))
            }
            Self::Tcp { host, port } => {
                if let Ok(ip) = host.parse::<IpAddr>() {
                    return Ok(Bind::Tcp(SocketAddr::new(ip, *port)));
                }
                let found: Vec<_> = (host.as_str(), *port)
                    .to_socket_addrs()
                    .map_err(|error| format!("{host:?} cannot be resolved: {error}"))?
                    .collect();
                // "localhost" is ::1 first on many machines, and php-fpm listens on 127.0.0.1 there.
                let chosen = found.iter().find(|address| address.is_ipv4()).or(found.first());
                chosen.map(|address| Bind::Tcp(*address)).ok_or_else(|| format!("{host:?} has no address"))
            }
        }
    }
}

/// The error for a URL, which other servers accept: an address has no scheme, and the protocol has its own key.
fn instead_of_url(scheme: &str, rest: &str) -> String {
    // A user and a password must not be shown; a password may have a slash in it.
    let rest = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
    let (authority, path) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
    let route = if path.len() > 1 {
        format!(", and add the path to its routes: {{ {path:?} = \"APP\" }}")
    } else {
        String::new()
    };
    let beside = match scheme.to_ascii_lowercase().as_str() {
        "unix" | "unixs" => return format!("an address has no scheme: write \"unix:{rest}\""),
        "ws" | "http" | "websocket" | "h2c" => format!(", and protocol = \"http\" beside it{route}"),
        "wss" | "https" | "h2" => format!(", and protocol = \"http\" and a tls table beside it{route}"),
        "tls" | "ssl" | "tcps" => ", and a tls table beside it".to_owned(),
        "text" | "line" => ", and framing = { type = \"delimiter\" } beside it".to_owned(),
        "udp" => return "UDP is not supported, only TCP and Unix sockets".to_owned(),
        _ => String::new(),
    };
    match authority {
        "" => format!("an address has no scheme: must be {}{beside}", Address::kind()),
        _ => format!("an address has no scheme: write \"{authority}\"{beside}"),
    }
}

impl Value for Address {
    fn kind() -> String {
        "\"host:port\", \"[::1]:port\" or \"unix:/path\"".into()
    }

    fn read(item: &Item<'_>, report: &mut Report<'_>) -> Option<Self> {
        let text = read_str(item, &Self::kind(), report)?;
        Self::parse(text).map_err(|rule| report.refuse(item, rule)).ok()
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct AddressOrOff(pub Option<Address>);

impl Value for AddressOrOff {
    fn kind() -> String {
        format!("{}, or \"off\"", Address::kind())
    }

    fn read(item: &Item<'_>, report: &mut Report<'_>) -> Option<Self> {
        match read_str(item, &Self::kind(), report)? {
            "off" => Some(Self(None)),
            "none" | "false" | "no" | "disabled" | "" => {
                report.refuse(item, format!("must be {}, did you mean \"off\"?", Self::kind()));
                None
            }
            _ => Address::read(item, report).map(|address| Self(Some(address))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_or_refused_with_advice() {
        let tcp = |host: &str, port| Ok(Address::Tcp { host: host.into(), port });
        for (text, expected) in [
            ("127.0.0.1:9005", tcp("127.0.0.1", 9005)),
            ("[::1]:9005", tcp("::1", 9005)),
            ("php:9000", tcp("php", 9000)),
            ("unix:/run/php/php8.2-fpm.sock", Ok(Address::Unix("/run/php/php8.2-fpm.sock".into()))),
            ("::1:9005", Err("an IPv6 address must be in brackets: [::1]:9005")),
            (
                ":9005",
                Err(
                    "the host is missing: write 127.0.0.1:9005 for this machine only, 0.0.0.0:9005 for all IPv4 addresses, or [::]:9005 for all IPv6 addresses",
                ),
            ),
            ("[php]:9000", Err("\"php\" is not an IPv6 address")),
            ("unix:", Err("a path is missing after unix:")),
            ("tcp://0.0.0.0:9005", Err("an address has no scheme: write \"0.0.0.0:9005\"")),
            (
                "ws://0.0.0.0:8080",
                Err("an address has no scheme: write \"0.0.0.0:8080\", and protocol = \"http\" beside it"),
            ),
            (
                "ws://[::]:8080/ws",
                Err("an address has no scheme: write \"[::]:8080\", and protocol = \"http\" beside it, \
                     and add the path to its routes: { \"/ws\" = \"APP\" }"),
            ),
            (
                "wss://shop.example:443/",
                Err(
                    "an address has no scheme: write \"shop.example:443\", and protocol = \"http\" and a tls table beside it",
                ),
            ),
            ("unix:///run/a.sock", Err("an address has no scheme: write \"unix:/run/a.sock\"")),
            ("udp://0.0.0.0:53", Err("UDP is not supported, only TCP and Unix sockets")),
            ("fcgi://user:p/w@127.0.0.1:9000", Err("an address has no scheme: write \"127.0.0.1:9000\"")),
            ("fcgi://127.0.0.1:9000", Err("an address has no scheme: write \"127.0.0.1:9000\"")),
            (
                "*:9005",
                Err(
                    "\"*\" is not a host: write 0.0.0.0:9005 for all IPv4 addresses, or [::]:9005 for all IPv6 addresses",
                ),
            ),
        ] {
            assert_eq!(Address::parse(text), expected.map_err(String::from), "{text}");
        }
        for (text, part) in [
            ("9005", "did you mean \"127.0.0.1:9005\"?"),
            ("shop", "must be \"host:port\""),
            ("a:b", "\"b\" is not a port"),
            ("/run/a", "did you mean \"unix:/run/a\"?"),
        ] {
            let refusal = Address::parse(text).unwrap_err();
            assert!(refusal.contains(part), "{text}: {refusal}");
        }
    }

    #[test]
    fn a_name_with_two_addresses_gives_the_ipv4_one() {
        let bind = Address::parse("localhost:80").unwrap().resolve(Path::new("/")).unwrap();
        assert_eq!(bind, Bind::Tcp("127.0.0.1:80".parse().unwrap()));
    }

    #[test]
    fn socket_paths_are_below_the_base_and_not_too_long() {
        let resolve = |text: &str| Address::parse(text).unwrap().resolve(Path::new("/etc/longwire"));
        assert_eq!(resolve("unix:a.sock"), Ok(Bind::Unix("/etc/longwire/a.sock".into())));
        assert!(resolve(&format!("unix:/{}", "a".repeat(106))).is_ok());
        assert!(resolve(&format!("unix:/{}", "a".repeat(107))).is_err());
    }
}
