//! Whose pages may speak to us (RFC 6455 section 10.2), and what browsers are told of it (the Fetch standard's CORS protocol).
//!
//! Browsers send a visitor's cookies with requests of any page. A WebSocket handshake always says whose page it is; other
//! requests say it with `Origin`, or, where that is left out, with `Sec-Fetch-Site`.

use http::{HeaderMap, HeaderName, HeaderValue, header};

use super::host_only;
use crate::config::model::Origins;

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
/// Headers that pages of other hosts may read, beside those that every page may.
const EXPOSED: HeaderValue = HeaderValue::from_static("longwire-session");

/// Whether a request comes from a page that may, or from no browser.
pub(super) fn is_allowed(origins: &Origins, headers: &HeaderMap) -> bool {
    let Some(origin) = headers.get(header::ORIGIN) else {
        // A cross-site GET without CORS has no Origin, and its cookies all the same.
        return *origins == Origins::Any || headers.get(SEC_FETCH_SITE).is_none_or(|site| site != "cross-site");
    };
    let Ok(origin) = origin.to_str() else { return false };
    match origins {
        Origins::Any => true,
        Origins::SameHost => is_same_host(origin, headers),
        Origins::List(list) => {
            list.iter().any(|allowed| allowed.eq_ignore_ascii_case(origin)) || is_same_host(origin, headers)
        }
    }
}

fn is_same_host(origin: &str, headers: &HeaderMap) -> bool {
    let Some((_, authority)) = origin.split_once("://") else { return false };
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or("");
    !host.is_empty() && host_only(authority).eq_ignore_ascii_case(host_only(host))
}

/// What a page of another host must be told to read an answer. `request` is of an allowed origin.
pub(super) fn allow(request: &HeaderMap, response: &mut HeaderMap) {
    if let Some(origin) = request.get(header::ORIGIN) {
        response.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
        response.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
        response.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED);
        response.append(header::VARY, HeaderValue::from_static("Origin"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_pages_of_the_host_or_the_list_may_connect() {
        let list = Origins::List(vec!["https://app.example".to_owned()]);
        let cases = [
            (&Origins::SameHost, None, "shop.example", true),
            (&Origins::SameHost, Some("https://shop.example"), "shop.example", true),
            (&Origins::SameHost, Some("https://SHOP.example"), "shop.example:8080", true),
            (&Origins::SameHost, Some("http://localhost:8080"), "localhost:8080", true),
            (&Origins::SameHost, Some("https://evil.example"), "shop.example", false),
            (&Origins::SameHost, Some("https://shop.example.evil.example"), "shop.example", false),
            (&Origins::SameHost, Some("null"), "shop.example", false),
            (&Origins::SameHost, Some("https://shop.example"), "", false),
            (&list, Some("https://app.example"), "shop.example", true),
            (&list, Some("https://shop.example"), "shop.example", true),
            (&list, Some("http://app.example"), "shop.example", false),
            (&Origins::Any, Some("null"), "shop.example", true),
        ];
        for (origins, origin, host, expected) in cases {
            let mut headers = HeaderMap::new();
            headers.insert(header::HOST, host.parse().unwrap());
            if let Some(origin) = origin {
                headers.insert(header::ORIGIN, origin.parse().unwrap());
            }
            assert_eq!(is_allowed(origins, &headers), expected, "{origins:?} {origin:?} {host}");
        }
    }

    #[test]
    fn a_page_that_hides_its_origin_is_known_by_its_site() {
        for (site, expected) in [("cross-site", false), ("same-origin", true), ("same-site", true), ("none", true)] {
            let headers = HeaderMap::from_iter([(SEC_FETCH_SITE, HeaderValue::from_static(site))]);
            assert_eq!(is_allowed(&Origins::SameHost, &headers), expected, "{site}");
            assert!(is_allowed(&Origins::Any, &headers));
        }
    }
}
