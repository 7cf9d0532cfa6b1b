//! Errors of the API, as problem details (RFC 9457).

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::Full;
use serde_json::json;

use crate::proto::arguments::BadArgument;

/// The error that answers a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Problem {
    /// The status of the response.
    pub(super) status: StatusCode,
    /// A word that programs can compare. It is also used in metrics.
    pub(super) word: &'static str,
    /// The explanation for people.
    pub(super) detail: String,
    /// A header that the status requires.
    header: Option<(header::HeaderName, &'static str)>,
}

impl Problem {
    pub(super) fn new(status: StatusCode, word: &'static str, detail: impl Into<String>) -> Self {
        Self { status, word, detail: detail.into(), header: None }
    }

    /// An argument is missing, unknown, or wrong.
    pub(super) fn argument(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad_argument", detail)
    }

    /// There is no such session or attribute.
    pub(super) fn absent(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "absent", detail)
    }

    /// The method is not allowed. RFC 9110 section 15.5.6 requires `Allow`.
    pub(super) fn method(allow: &'static str) -> Self {
        let detail = format!("this path takes only {allow}");
        let problem = Self::new(StatusCode::METHOD_NOT_ALLOWED, "method", detail);
        Self { header: Some((header::ALLOW, allow)), ..problem }
    }

    /// The token is missing or wrong. RFC 6750 section 3 requires `WWW-Authenticate`.
    pub(super) fn unauthenticated(detail: &str) -> Self {
        let problem = Self::new(StatusCode::UNAUTHORIZED, "unauthenticated", detail);
        Self { header: Some((header::WWW_AUTHENTICATE, "Bearer")), ..problem }
    }

    pub(super) fn into_response(self) -> Response<Full<Bytes>> {
        let title = self.status.canonical_reason().unwrap_or("Problem");
        let status = self.status.as_u16();
        let body =
            json!({"type": "about:blank", "title": title, "status": status, "detail": self.detail, "error": self.word});
        let mut response = super::response("application/problem+json", body.to_string());
        *response.status_mut() = self.status;
        if let Some((name, value)) = self.header {
            response.headers_mut().insert(name, HeaderValue::from_static(value));
        }
        response
    }
}

impl From<BadArgument> for Problem {
    fn from(wrong: BadArgument) -> Self {
        Self::argument(wrong.to_string())
    }
}
