//! Finds the client of a request that a trusted proxy passes on.
//!
//! Promises: only a listed proxy, recognised by its address, can change the client and the scheme of a request. A header that
//! names no client is counted and changes nothing. Either way PHP finds the headers as they came, under `HTTP_*`.

use std::net::SocketAddr;

use http::{HeaderMap, HeaderName, header};
use tracing::debug;

use super::Site;
use super::connection::{Caller, HttpConnection};
use crate::config::model::{Dialect, Forwarding};
use crate::metrics::ListenerLabels;
use crate::proto::fastcgi::params::{EncodedParams, Params};
use crate::proto::forwarded::{self, Client, Scheme};
use crate::transport::Peer;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// The client of this request: the connection's peer, or the client that a trusted proxy names.
pub(super) fn caller<'c>(site: &Site, headers: &HeaderMap, connection: &'c HttpConnection) -> Caller<'c> {
    let HttpConnection { peer, local, ref params, .. } = *connection;
    let direct = Caller { peer, local, params: params.clone(), connection };
    let Forwarding { trusted_proxies, dialect } = &site.forwarding;
    if !trusted_proxies.contains(peer.address()) {
        return direct;
    }
    let name = match dialect {
        Dialect::XForwardedFor => &X_FORWARDED_FOR,
        Dialect::Forwarded => &header::FORWARDED,
    };
    let is_trusted = |address| trusted_proxies.contains(Some(address));
    match forwarded::client(*dialect, &joined(headers, name), is_trusted) {
        Ok(Some(client)) => {
            let scheme = match dialect {
                Dialect::XForwardedFor => last_scheme(headers),
                Dialect::Forwarded => client.scheme,
            };
            told(&direct, &client, scheme)
        }
        Ok(None) => direct,
        Err(fault) => {
            let labels = ListenerLabels { listener: site.listener.clone() };
            site.hub.metrics.forwarded_without_client.get_or_create(&labels).inc();
            debug!(%peer, listener = %site.listener, header = %name, %fault, "a forwarding header names no client");
            direct
        }
    }
}

/// Header lines of one name form one list (RFC 9110 section 5.3).
fn joined(headers: &HeaderMap, name: &HeaderName) -> Vec<u8> {
    let lines: Vec<&[u8]> = headers.get_all(name).iter().map(|value| value.as_bytes()).collect();
    lines.join(&b", "[..])
}

/// The scheme that the nearest proxy reports. Earlier values may come from the client.
fn last_scheme(headers: &HeaderMap) -> Option<Scheme> {
    let line = headers.get_all(&X_FORWARDED_PROTO).iter().next_back()?.to_str().ok()?;
    Scheme::read(line.rsplit(',').next()?.trim())
}

fn told<'c>(proxy: &Caller<'c>, client: &Client, scheme: Option<Scheme>) -> Caller<'c> {
    let params = scheme.map_or_else(|| proxy.params.clone(), |scheme| with_scheme(&proxy.params, scheme));
    // Port 0 stands for an unknown port; no client connects from it.
    let peer = Peer::Ip(SocketAddr::new(client.address, client.port.unwrap_or(0)));
    Caller { peer, params, local: proxy.local, connection: proxy.connection }
}

/// Sets `HTTPS` as it is between the client and the first proxy.
fn with_scheme(params: &EncodedParams, scheme: Scheme) -> EncodedParams {
    let https = (scheme == Scheme::Https).then_some((&b"HTTPS"[..], &b"on"[..]));
    let mut told = Params::new();
    for (name, value) in params.pairs().filter(|(name, _)| *name != b"HTTPS").chain(https) {
        told.push(name, value).expect("it was a param before, or is short");
    }
    told.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scheme_is_what_the_nearest_proxy_says() {
        for (lines, expected) in [
            (&["https"][..], Some(Scheme::Https)),
            (&["http, https"], Some(Scheme::Https)),
            (&["https", "HTTP"], Some(Scheme::Http)),
            (&["wss"], Some(Scheme::Https)),
            (&["https", "gopher"], None),
            (&[], None),
        ] {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append(X_FORWARDED_PROTO, line.parse().unwrap());
            }
            assert_eq!(last_scheme(&headers), expected, "{lines:?}");
        }
    }

    #[test]
    fn https_is_set_or_taken_away_and_the_rest_stays() {
        let text = |params: &EncodedParams| {
            let pairs = params
                .pairs()
                .map(|(name, value)| format!("{}={}", String::from_utf8_lossy(name), String::from_utf8_lossy(value)));
            pairs.collect::<Vec<_>>()
        };
        let mut params = Params::new();
        params.push(b"HTTPS", b"on").unwrap();
        params.push(b"SSL_PROTOCOL", b"TLSv1.3").unwrap();
        let params = params.finish();
        assert_eq!(text(&with_scheme(&params, Scheme::Https)), ["SSL_PROTOCOL=TLSv1.3", "HTTPS=on"]);
        assert_eq!(text(&with_scheme(&params, Scheme::Http)), ["SSL_PROTOCOL=TLSv1.3"]);
        assert_eq!(text(&with_scheme(&EncodedParams::default(), Scheme::Https)), ["HTTPS=on"]);
    }
}
