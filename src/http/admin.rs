//! The admin listener: `/metrics`, `/live`, `/ready`.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::sync::Semaphore;
use tracing::debug;

use super::{FullBody, is_read, plain};
use crate::metrics::Metrics;
use crate::transport::listening::{AcceptedTasks, Listening};

/// Timeout for a whole request: scrapers send it at once.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// Most connections at once: a few scrapers and balancers.
const MAX_CONNECTIONS: usize = 64;
/// The content type of OpenMetrics text.
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Lists what a node lacks to be ready. Empty if it is ready.
pub type Readiness = Arc<dyn Fn() -> Vec<String> + Send + Sync>;

/// Serves until the future is dropped. `/live` answers as long as the process does. `/ready` lists what is missing.
pub async fn serve_admin(listening: Listening, metrics: Arc<Metrics>, readiness: Readiness) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let accepted = AcceptedTasks::default();
    loop {
        let place = places.clone().acquire_owned().await.expect("the semaphore is never closed");
        let (transport, peer) = listening.next().await;
        let (metrics, readiness) = (metrics.clone(), readiness.clone());
        let service = service_fn(move |request: Request<Incoming>| {
            let response = answer(&request, &metrics, &readiness);
            async move { Ok::<_, Infallible>(response) }
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADER_TIMEOUT)
            .serve_connection(TokioIo::new(transport), service);
        accepted.spawn(async move {
            if let Err(error) = connection.await {
                debug!(%peer, %error, "admin connection ended");
            }
            drop(place);
        });
    }
}

fn answer(request: &Request<Incoming>, metrics: &Metrics, readiness: &Readiness) -> Response<FullBody> {
    if !is_read(request.method()) {
        return plain(StatusCode::METHOD_NOT_ALLOWED, "this port takes only GET and HEAD");
    }
    match request.uri().path() {
        "/metrics" => {
            let mut response = Response::new(Full::new(Bytes::from(metrics.encode())));
            response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(OPENMETRICS));
            response
        }
        "/live" => plain(StatusCode::OK, "live"),
        "/ready" => match readiness() {
            missing if missing.is_empty() => plain(StatusCode::OK, "ready"),
            missing => plain(StatusCode::SERVICE_UNAVAILABLE, missing.join("\n")),
        },
        _ => plain(StatusCode::NOT_FOUND, "not found: this port has /metrics, /live and /ready"),
    }
}
