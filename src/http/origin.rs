//! Decides which pages may connect (RFC 6455 section 10.2), and what browsers are told about it (the Fetch standard's CORS
//! protocol).
//!
//! Browsers send a visitor's cookies with requests of any page. A WebSocket handshake always names the page's origin. Other
//! requests name it in `Origin`, or, where that is left out, describe it in `Sec-Fetch-Site`.

use std::net::IpAddr;

use http::{HeaderMap, HeaderName, HeaderValue, header};

use super::host_only;
use crate::config::model::Origins;

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
/// Headers that pages of other hosts may read, in addition to those that every page may read.
const EXPOSED: HeaderValue = HeaderValue::from_static("longwire-session");

/// True if a request comes from an allowed page, or not from a browser. `is_secure`: it came over TLS.
pub(super) fn is_allowed(origins: &Origins, headers: &HeaderMap, is_secure: bool) -> bool {
    let Some(origin) = headers.get(header::ORIGIN) else {
        // A cross-site GET without CORS has no Origin, but it has cookies.
        return *origins == Origins::Any || headers.get(SEC_FETCH_SITE).is_none_or(|site| site != "cross-site");
    };
    // With two Origin headers the request is refused: RFC 6454 section 7.3 allows one.
    let is_only = headers.get_all(header::ORIGIN).iter().nth(1).is_none();
    let Some(origin) = origin.to_str().ok().filter(|_| is_only) else { return false };
    match origins {
        Origins::Any => true,
        Origins::SameHost => is_same_host(origin, headers, is_secure),
        Origins::List(list) => {
            list.iter().any(|listed| listed.matches(origin)) || is_same_host(origin, headers, is_secure)
        }
    }
}

/// True for a page of the host that the request is for, as cookies and `SameSite` see it.
///
/// The port does not matter. Cookies have none (RFC 6265 section 8.5), and same-site requests may come from any port, so a page on
/// another port of the host has this visitor's cookies anyway.
///
/// The scheme does matter. An attacker on the line can put a page in front of a visitor under `http://`, and that page must not
/// connect with the cookies of `https://`. Browsers call it cross-site.
fn is_same_host(origin: &str, headers: &HeaderMap, is_secure: bool) -> bool {
    let Some((scheme, authority)) = origin.split_once("://") else { return false };
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or("");
    let (page, asked) = (host_only(authority), host_only(host));
    let is_trustworthy = match scheme {
        "https" => true,
        // There is no line to attack for a page from this machine (W3C Secure Contexts section 3.1).
        "http" => !is_secure || is_loopback(page),
        _ => false,
    };
    is_trustworthy && !asked.is_empty() && page.eq_ignore_ascii_case(asked)
}

fn is_loopback(host: &str) -> bool {
    let address = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    host.eq_ignore_ascii_case("localhost") || address.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Adds the headers that let a page of another host read an answer. The origin of `request` is allowed.
pub(super) fn allow(origins: &Origins, request: &HeaderMap, response: &mut HeaderMap) {
    if let Some(origin) = request.get(header::ORIGIN) {
        response.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
        // Any page can get the origin "null" with a sandboxed frame, so "null" gets no answer that was made with a visitor's
        // cookies.
        if origin != "null" || *origins == Origins::Any {
            response.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
        }
        response.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED);
        response.append(header::VARY, HeaderValue::from_static("Origin"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::config::model::OriginPattern;

    fn list(origin: &str) -> Origins {
        Origins::List(vec![OriginPattern::Exact(origin.into())])
    }

    #[test]
    fn only_pages_of_the_host_or_the_list_may_connect() {
        let (app, null) = (list("https://app.example"), list("null"));
        let cases = [
            (&Origins::SameHost, None, "shop.example", true),
            (&Origins::SameHost, Some("https://shop.example"), "shop.example", true),
            (&Origins::SameHost, Some("https://SHOP.example"), "shop.example:8080", true),
            (&Origins::SameHost, Some("https://shop.example:8443"), "shop.example", true),
            (&Origins::SameHost, Some("http://localhost:8080"), "localhost:8080", true),
            (&Origins::SameHost, Some("https://evil.example"), "shop.example", false),
            (&Origins::SameHost, Some("https://shop.example.evil.example"), "shop.example", false),
            (&Origins::SameHost, Some("null"), "shop.example", false),
            (&Origins::SameHost, Some("null"), "null", false),
            (&Origins::SameHost, Some("file://"), "", false),
            (&Origins::SameHost, Some("capacitor://localhost"), "localhost", false),
            (&Origins::SameHost, Some("https://shop.example"), "", false),
            (&app, Some("https://app.example"), "shop.example", true),
            (&app, Some("https://shop.example"), "shop.example", true),
            (&app, Some("http://app.example"), "shop.example", false),
            (&null, Some("null"), "shop.example", true),
            (&null, Some("file://"), "shop.example", false),
            (&Origins::Any, Some("null"), "shop.example", true),
        ];
        for (origins, origin, host, expected) in cases {
            let mut headers = HeaderMap::new();
            headers.insert(header::HOST, host.parse().unwrap());
            if let Some(origin) = origin {
                headers.insert(header::ORIGIN, origin.parse().unwrap());
            }
            assert_eq!(is_allowed(origins, &headers, false), expected, "{origins:?} {origin:?} {host}");
        }
    }

    #[test]
    fn a_page_without_tls_is_not_of_the_same_host_as_one_with_it() {
        for (origin, host, with_tls, without) in [
            ("https://shop.example", "shop.example", true, true),
            ("http://shop.example", "shop.example", false, true),
            ("http://shop.example:443", "shop.example", false, true),
            ("http://localhost:3000", "localhost:8443", true, true),
            ("http://127.0.0.1:3000", "127.0.0.1:8443", true, true),
            ("http://[::1]:3000", "[::1]:8443", true, true),
            ("http://127.0.0.1.shop.example", "127.0.0.1.shop.example", false, true),
        ] {
            let pairs = [(header::ORIGIN, origin), (header::HOST, host)];
            let headers = pairs.map(|(name, value)| (name, value.parse().unwrap()));
            let headers = HeaderMap::from_iter(headers);
            assert_eq!(is_allowed(&Origins::SameHost, &headers, true), with_tls, "{origin}");
            assert_eq!(is_allowed(&Origins::SameHost, &headers, false), without, "{origin}");
            assert!(is_allowed(&list(origin), &headers, true), "it may be listed: {origin}");
        }
    }

    #[test]
    fn of_several_origins_none_counts() {
        let mut headers = HeaderMap::new();
        headers.append(header::HOST, HeaderValue::from_static("shop.example"));
        headers.append(header::ORIGIN, HeaderValue::from_static("https://shop.example"));
        assert!(is_allowed(&Origins::SameHost, &headers, true));
        headers.append(header::ORIGIN, HeaderValue::from_static("https://evil.example"));
        assert!(!is_allowed(&Origins::SameHost, &headers, true));
        assert!(!is_allowed(&list("https://evil.example"), &headers, true));
    }

    #[test]
    fn a_page_without_an_origin_of_its_own_reads_no_answer_that_cookies_made() {
        for (origins, origin, with_cookies) in [
            (list("null"), "null", false),
            (list("https://app.example"), "https://app.example", true),
            (Origins::Any, "null", true),
        ] {
            let mut answer = HeaderMap::new();
            allow(&origins, &HeaderMap::from_iter([(header::ORIGIN, origin.parse().unwrap())]), &mut answer);
            assert_eq!(answer[header::ACCESS_CONTROL_ALLOW_ORIGIN], origin);
            assert_eq!(answer.contains_key(header::ACCESS_CONTROL_ALLOW_CREDENTIALS), with_cookies, "{origins:?}");
        }
    }

    #[test]
    fn a_page_that_hides_its_origin_is_known_by_its_site() {
        for (site, expected) in [("cross-site", false), ("same-origin", true), ("same-site", true), ("none", true)] {
            let headers = HeaderMap::from_iter([(SEC_FETCH_SITE, HeaderValue::from_static(site))]);
            assert_eq!(is_allowed(&Origins::SameHost, &headers, true), expected, "{site}");
            assert!(is_allowed(&Origins::Any, &headers, true));
        }
    }
}
