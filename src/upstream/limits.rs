//! Asks a backend for its own limits (FCGI_GET_VALUES), on a separate connection.
//!
//! A connection that serves requests is not used for this: a late answer would belong to no request. The question occupies a worker
//! until it is answered, and that is not counted in `max_connections`. So it is asked only at the start and when a backend comes back,
//! and the wait is never longer than [`PATIENCE`]. Only one request runs on a connection, even if the backend says that it
//! multiplexes.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::time::Duration;

use tokio::time::timeout;

use super::stream::Stream;
use crate::config::model::Bind;
use crate::proto::fastcgi::values::{self, Values, ValuesDecoder};

/// Time for connecting and the answer together. A responder that knows the question can answer without looking anything up.
pub(super) const PATIENCE: Duration = Duration::from_secs(1);
/// Time until the end record that libfcgi waits for is sent. Others have answered by then, and are spared a record that
/// the specification does not have.
const END_AFTER: Duration = Duration::from_millis(200);

/// Asks. An error means that the backend could not be asked, did not answer, or answered something else.
pub(super) async fn ask(address: &Bind) -> io::Result<Values> {
    let conversation = async {
        let stream = Stream::connect(address, PATIENCE).await?;
        let mut decoder = ValuesDecoder::default();
        send(&stream, &values::question())?;
        if let Ok(answer) = timeout(END_AFTER, answer(&stream, &mut decoder)).await {
            return answer;
        }
        send(&stream, &values::question_end())?;
        answer(&stream, &mut decoder).await
    };
    timeout(PATIENCE, conversation).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

/// Whether a backend answers the question at once, as php-fpm does, so that its answer shows that a worker is back. libfcgi
/// waits for a second record. If that is needed, the question cannot be used on a connection that serves requests.
pub(super) async fn answers_at_once(address: &Bind, connect_timeout: Duration) -> bool {
    answers_within(address, connect_timeout.min(PATIENCE), END_AFTER).await.unwrap_or(false)
}

/// The same within another time. False if it stays silent or answers something else. An error if it cannot be reached, or closes.
pub(super) async fn answers_within(address: &Bind, connect: Duration, patience: Duration) -> io::Result<bool> {
    let stream = Stream::connect(address, connect).await?;
    send(&stream, &values::question())?;
    match timeout(patience, answer(&stream, &mut ValuesDecoder::default())).await {
        Ok(Ok(_)) => Ok(true),
        Ok(Err(error)) if error.kind() != io::ErrorKind::Other => Err(error),
        _ => Ok(false),
    }
}

/// Sends a few bytes. The buffer of a new socket has room for them.
fn send(stream: &Stream, bytes: &[u8]) -> io::Result<()> {
    let sent = stream.try_write_vectored(&[IoSlice::new(bytes)])?;
    if sent == bytes.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
}

/// Reads until the answer is there. May be dropped and called again: received bytes stay in the decoder.
async fn answer(stream: &Stream, decoder: &mut ValuesDecoder) -> io::Result<Values> {
    let mut bytes = [0; 512];
    loop {
        poll_fn(|cx| stream.poll_read_ready(cx)).await?;
        match stream.try_read(&mut bytes) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(read) => {
                if let Some(values) = decoder.decode(&bytes[..read]).map_err(io::Error::other)? {
                    return Ok(values);
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
}
