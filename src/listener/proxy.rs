//! Reads the PROXY header that a listed proxy sends before everything else.
//!
//! Promises: no byte after the header is taken from the socket. Leaves to `listener` which peers must send a header, how long it
//! may take, and what happens to a connection without one.

use std::fmt;
use std::future::poll_fn;

use crate::proto::close::CloseReason;
use crate::proto::fastcgi::params::Params;
use crate::proto::proxy::{self, Certificate, Decoded, Ends, HeaderError, Proxied};
use crate::transport::{Arrival, Peer, Transport};

/// The reason why a connection has no header.
#[derive(Debug)]
pub(super) enum NoHeader {
    /// The bytes that came are not a valid header.
    Broken(HeaderError),
    /// The connection ended before the header was complete. Health checks that only open a connection do that.
    Ended,
}

impl NoHeader {
    pub(super) fn reason(&self) -> CloseReason {
        match self {
            NoHeader::Broken(_) => CloseReason::ProxyHeaderBad,
            NoHeader::Ended => CloseReason::ClientGone,
        }
    }
}

impl fmt::Display for NoHeader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NoHeader::Broken(error) => error.fmt(f),
            NoHeader::Ended => f.write_str("the connection ended before its PROXY header was complete"),
        }
    }
}

/// Takes the header off the connection. From then on the connection's two ends are the ones that the header names.
pub(super) async fn take_header(arrival: &mut Arrival) -> Result<(), NoHeader> {
    let proxied = read(&arrival.transport).await?;
    match proxied.ends {
        Ends::Own => {}
        Ends::Ip { source, destination } => {
            arrival.peer = Peer::Ip(source);
            arrival.local = Peer::Ip(destination);
        }
        Ends::Unix => {
            arrival.peer = Peer::Unix;
            arrival.local = Peer::Unix;
        }
    }
    let mut params = Params::new();
    for (name, value) in arrival.params.pairs().chain(told(&proxied)) {
        params.push(name, value).expect("a header is far below a record");
    }
    arrival.params = params.finish();
    Ok(())
}

async fn read(transport: &Transport) -> Result<Proxied, NoHeader> {
    let mut header = Vec::new();
    loop {
        let at_least = match proxy::decode(&header).map_err(NoHeader::Broken)? {
            Decoded::Header { proxied, .. } => return Ok(proxied),
            Decoded::NotYet { at_least } => at_least,
        };
        let from = header.len();
        header.resize(from + at_least, 0);
        match poll_fn(|cx| transport.poll_read(cx, &mut header[from..])).await {
            Ok(0) | Err(_) => return Err(NoHeader::Ended),
            Ok(n) => header.truncate(from + n),
        }
    }
}

/// The params for PHP in addition to the addresses, under the names of Apache's mod_ssl.
fn told(proxied: &Proxied) -> impl Iterator<Item = (&[u8], &[u8])> {
    let tls = proxied.tls.as_ref();
    let verified = tls.map(|tls| match tls.certificate {
        Certificate::None => "NONE",
        Certificate::Good => "SUCCESS",
        Certificate::Bad => "FAILED",
    });
    // A name from a certificate that was not verified is left out.
    let common_name = tls.filter(|tls| tls.certificate == Certificate::Good).and_then(|tls| tls.common_name.as_deref());
    [
        ("HTTPS", tls.map(|_| "on")),
        ("SSL_PROTOCOL", tls.and_then(|tls| tls.version.as_deref())),
        ("SSL_CIPHER", tls.and_then(|tls| tls.cipher.as_deref())),
        ("SSL_CLIENT_VERIFY", verified),
        ("SSL_CLIENT_S_DN_CN", common_name),
        ("SSL_TLS_SNI", proxied.authority.as_deref()),
    ]
    .into_iter()
    .filter_map(|(name, value)| Some((name.as_bytes(), value?.as_bytes())))
}
