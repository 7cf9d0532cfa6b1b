//! Where to connect: `tcp://host:port`, `unix:/path`, `ws://host:port/path`; with TLS `tls://host:port`, `wss://host:port/path`.

use std::path::PathBuf;

use http::Uri;
use rustls::pki_types::ServerName;

/// A server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ServerAddress {
    Tcp {
        /// `host:port`
        address: String,
        /// With TLS: the name that the server's certificate must have.
        tls: Option<ServerName<'static>>,
    },
    Unix(PathBuf),
    WebSocket {
        /// `host:port`, to dial.
        address: String,
        /// The value of the Host header.
        host: String,
        /// With the query.
        path: String,
        /// With TLS: the name that the server's certificate must have.
        tls: Option<ServerName<'static>>,
    },
}

impl ServerAddress {
    pub(crate) fn parse(url: &str) -> Result<Self, String> {
        if let Some(path) = url.strip_prefix("unix:") {
            // Some tools write unix:///path.
            let path = path.strip_prefix("//").unwrap_or(path);
            return if path.is_empty() {
                Err("a path is missing after unix:".into())
            } else {
                Ok(Self::Unix(path.into()))
            };
        }
        let uri: Uri = url.parse().map_err(|error| format!("{url:?} is not a URL: {error}"))?;
        let expected = || {
            format!(
                "{url:?} is not tcp://host:port, tls://host:port, unix:/path, ws://host:port/path or wss://host:port/path"
            )
        };
        let authority = uri.authority().filter(|authority| !authority.host().is_empty()).ok_or_else(expected)?;
        if authority.as_str().contains('@') {
            return Err("user and password in a URL are not supported: use --header 'Authorization: ...'".into());
        }
        let scheme = uri.scheme_str().unwrap_or_default();
        let tls = match scheme {
            "tls" | "wss" => Some(server_name(authority.host())?),
            _ => None,
        };
        match (scheme, authority.port_u16()) {
            ("tcp" | "tls", Some(port)) if uri.path().trim_end_matches('/').is_empty() && uri.query().is_none() => {
                Ok(Self::Tcp { address: format!("{}:{port}", authority.host()), tls })
            }
            ("ws" | "wss", port) => Ok(Self::WebSocket {
                address: format!("{}:{}", authority.host(), port.unwrap_or(if tls.is_some() { 443 } else { 80 })),
                host: authority.as_str().to_owned(),
                path: uri.path_and_query().map_or("/", |path| path.as_str()).to_owned(),
                tls,
            }),
            _ => Err(expected()),
        }
    }
}

fn server_name(host: &str) -> Result<ServerName<'static>, String> {
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    ServerName::try_from(bare.to_owned())
        .map_err(|_| format!("{host:?} is not a host name that a certificate can have"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_read_or_refused() {
        let name = |name: &str| Some(ServerName::try_from(name.to_owned()).unwrap());
        let tcp = |address: &str, tls| Ok(ServerAddress::Tcp { address: address.into(), tls });
        let web = |address: &str, host: &str, path: &str, tls| {
            Ok(ServerAddress::WebSocket { address: address.into(), host: host.into(), path: path.into(), tls })
        };
        for (url, expected) in [
            ("tcp://127.0.0.1:9005", tcp("127.0.0.1:9005", None)),
            ("tcp://[::1]:9005/", tcp("[::1]:9005", None)),
            ("unix:/run/a.sock", Ok(ServerAddress::Unix("/run/a.sock".into()))),
            ("unix:///run/a.sock", Ok(ServerAddress::Unix("/run/a.sock".into()))),
            ("ws://localhost:8080/ws?room=1", web("localhost:8080", "localhost:8080", "/ws?room=1", None)),
            ("ws://example.org", web("example.org:80", "example.org", "/", None)),
            ("wss://example.org/ws", web("example.org:443", "example.org", "/ws", name("example.org"))),
            ("wss://[::1]:8443", web("[::1]:8443", "[::1]:8443", "/", name("::1"))),
            ("tls://example.org:9006", tcp("example.org:9006", name("example.org"))),
            ("tls://example.org", Err("is not tcp://host:port")),
            ("wss://a_b..c/", Err("is not a host name that a certificate")),
            ("tcp://127.0.0.1", Err("is not tcp://host:port")),
            ("tcp://127.0.0.1:9005/path", Err("is not tcp://host:port")),
            ("127.0.0.1:9005", Err("is not")),
            ("http://127.0.0.1:9005", Err("is not tcp://host:port")),
            ("ws://u:p@example.org/", Err("--header")),
            ("unix:", Err("a path is missing")),
            ("", Err("is not a URL")),
        ] {
            match (ServerAddress::parse(url), expected) {
                (Err(error), Err(part)) => assert!(error.contains(part), "{url}: {error}"),
                (found, expected) => assert_eq!(found, expected.map_err(String::from), "{url}"),
            }
        }
    }
}
