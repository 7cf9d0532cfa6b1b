//! Where to connect: `tcp://host:port`, `unix:/path`, `ws://host:port/path`.

use std::path::PathBuf;

use http::Uri;

/// A server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// `host:port`
    Tcp(String),
    Unix(PathBuf),
    WebSocket {
        /// `host:port`, to dial.
        address: String,
        /// As the Host header has it.
        host: String,
        /// With the query.
        path: String,
    },
}

impl Target {
    pub(super) fn parse(url: &str) -> Result<Self, String> {
        if let Some(path) = url.strip_prefix("unix:") {
            // unix:///path is how some tools write it.
            let path = path.strip_prefix("//").unwrap_or(path);
            return if path.is_empty() {
                Err("a path is missing after unix:".into())
            } else {
                Ok(Self::Unix(path.into()))
            };
        }
        if url.starts_with("wss://") {
            return Err("wss:// needs TLS, which is not there yet: connect to the ws:// listener behind it".into());
        }
        let uri: Uri = url.parse().map_err(|error| format!("{url:?} is not a URL: {error}"))?;
        let expected = || format!("{url:?} is not tcp://host:port, unix:/path or ws://host:port/path");
        let authority = uri.authority().filter(|authority| !authority.host().is_empty()).ok_or_else(expected)?;
        if authority.as_str().contains('@') {
            return Err("user and password in a URL are not sent: use --header 'Authorization: ...'".into());
        }
        match (uri.scheme_str(), authority.port_u16()) {
            (Some("tcp"), Some(port)) if uri.path().trim_end_matches('/').is_empty() && uri.query().is_none() => {
                Ok(Self::Tcp(format!("{}:{port}", authority.host())))
            }
            (Some("ws"), port) => Ok(Self::WebSocket {
                address: format!("{}:{}", authority.host(), port.unwrap_or(80)),
                host: authority.as_str().to_owned(),
                path: uri.path_and_query().map_or("/", |path| path.as_str()).to_owned(),
            }),
            _ => Err(expected()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_read_or_refused() {
        let ws = |address: &str, host: &str, path: &str| {
            Ok(Target::WebSocket { address: address.into(), host: host.into(), path: path.into() })
        };
        for (url, expected) in [
            ("tcp://127.0.0.1:9005", Ok(Target::Tcp("127.0.0.1:9005".into()))),
            ("tcp://[::1]:9005/", Ok(Target::Tcp("[::1]:9005".into()))),
            ("unix:/run/a.sock", Ok(Target::Unix("/run/a.sock".into()))),
            ("unix:///run/a.sock", Ok(Target::Unix("/run/a.sock".into()))),
            ("ws://localhost:8080/ws?room=1", ws("localhost:8080", "localhost:8080", "/ws?room=1")),
            ("ws://example.org", ws("example.org:80", "example.org", "/")),
            ("tcp://127.0.0.1", Err("is not tcp://host:port")),
            ("tcp://127.0.0.1:9005/path", Err("is not tcp://host:port")),
            ("127.0.0.1:9005", Err("is not")),
            ("http://127.0.0.1:9005", Err("is not tcp://host:port")),
            ("wss://example.org/", Err("needs TLS")),
            ("ws://u:p@example.org/", Err("--header")),
            ("unix:", Err("a path is missing")),
            ("", Err("is not a URL")),
        ] {
            match (Target::parse(url), expected) {
                (Err(error), Err(part)) => assert!(error.contains(part), "{url}: {error}"),
                (found, expected) => assert_eq!(found, expected.map_err(String::from), "{url}"),
            }
        }
    }
}
