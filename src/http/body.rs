//! Bodies of requests, which are read whole within limits, and bodies of responses, wherever they come from.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderValue, Response, StatusCode, header};
use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyExt, Either, Full};
use hyper::body::Incoming;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::task::AbortOnDropHandle;
use tower_http::services::fs::ServeFileSystemResponseBody;

use super::plain;
use crate::outbox::{BrokenOff, Feed, FeedReader};

/// A short text, a file, or a body that is still being made.
pub(super) type AnyBody = Either<Full<Bytes>, Either<ServeFileSystemResponseBody, FeedBody>>;

/// A body that is complete in memory.
pub(super) fn whole(body: Full<Bytes>) -> AnyBody {
    Either::Left(body)
}

/// A body that comes from a feed.
pub(super) fn fed(body: FeedBody) -> AnyBody {
    Either::Right(Either::Right(body))
}

/// True if the body is still being made, so that it may pause.
pub(super) fn is_fed(body: &AnyBody) -> bool {
    matches!(body, Either::Right(Either::Right(_)))
}

/// A body that a session or a script is still writing.
pub(super) struct FeedBody {
    reader: FeedReader,
    len: Option<u64>,
    _watch: Option<AbortOnDropHandle<()>>,
}

impl FeedBody {
    /// The body of a session, which itself watches for clients that do not read.
    pub(super) fn of_session(reader: FeedReader) -> Self {
        Self { reader, len: None, _watch: None }
    }

    /// The body of an answer. If a client takes nothing for `patience` while something waits for it, the body is abandoned and
    /// `give_up` is called. Otherwise the client could hold a php-fpm worker for as long as it likes.
    pub(super) fn of_answer(
        reader: FeedReader,
        feed: Arc<Feed>,
        len: Option<u64>,
        patience: Duration,
        give_up: impl FnOnce() + Send + 'static,
    ) -> Self {
        let watch = async move {
            let mut last = None;
            loop {
                tokio::time::sleep(patience).await;
                let (taken, waits) = feed.progress();
                if waits && last == Some(taken) {
                    feed.abandon();
                    return give_up();
                }
                last = waits.then_some(taken);
            }
        };
        Self { reader, len, _watch: Some(AbortOnDropHandle::new(tokio::spawn(watch))) }
    }
}

impl Body for FeedBody {
    type Data = Bytes;
    type Error = BrokenOff;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BrokenOff>>> {
        let chunk = std::task::ready!(self.reader.poll_chunk(cx));
        if let (Some(Ok(chunk)), Some(len)) = (&chunk, &mut self.len) {
            *len = len.saturating_sub(chunk.len() as u64);
        }
        Poll::Ready(chunk.map(|chunk| chunk.map(Frame::data)))
    }

    fn size_hint(&self) -> SizeHint {
        self.len.map(SizeHint::with_exact).unwrap_or_default()
    }
}

/// Reads a request's body, at most `max_bytes`. Each piece must come within `patience` of the last one, and all of it within ten
/// times as long.
///
/// # Errors
///
/// The response that says what is wrong.
pub(super) async fn read(
    mut body: Incoming,
    max_bytes: usize,
    patience: Duration,
) -> Result<Bytes, Box<Response<Full<Bytes>>>> {
    let too_large =
        || Box::new(plain(StatusCode::PAYLOAD_TOO_LARGE, format!("the body is above the limit of {max_bytes} bytes")));
    if body.size_hint().lower() > max_bytes as u64 {
        return Err(too_large());
    }
    let ceiling = Instant::now() + patience * 10;
    let mut bytes = BytesMut::new();
    loop {
        let piece = match timeout_at(ceiling, timeout(patience, body.frame())).await {
            Ok(Ok(Some(Ok(piece)))) => piece,
            Ok(Ok(None)) => return Ok(bytes.freeze()),
            Ok(Ok(Some(Err(error)))) => {
                return Err(Box::new(plain(StatusCode::BAD_REQUEST, format!("the body cannot be read: {error}"))));
            }
            Ok(Err(_)) | Err(_) => {
                return Err(Box::new(plain(StatusCode::REQUEST_TIMEOUT, "the body did not come in time")));
            }
        };
        // Trailers are ignored.
        let Ok(data) = piece.into_data() else { continue };
        if bytes.len() + data.len() > max_bytes {
            return Err(too_large());
        }
        bytes.extend_from_slice(&data);
    }
}

/// Marks a response that no cache may keep.
pub(super) fn never_cached<B>(response: &mut Response<B>) {
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
}
