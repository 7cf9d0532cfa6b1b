//! What a backend says of its own limits, asked on a connection of its own.
//!
//! For its limits it is not asked on a connection that serves, where a late answer would belong to no request. The question takes a worker for as long
//! as its answer takes, outside of what `max_connections` counts, so it is asked once at start and once when a backend
//! comes back, and never waited for longer than [`PATIENCE`]. One request runs on a connection whatever is said of
//! multiplexing.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::time::Duration;

use tokio::time::timeout;

use super::stream::Stream;
use crate::config::model::Bind;
use crate::proto::fastcgi::values::{self, Values, ValuesDecoder};

/// For connecting and the answer together. A responder that knows the question has nothing to look up for it.
pub(super) const PATIENCE: Duration = Duration::from_secs(1);
/// Before the record that libfcgi waits for is sent. Others have answered by then, and are spared a record that the
/// specification does not have.
const END_AFTER: Duration = Duration::from_millis(200);

/// Asks. An error: it could not be asked, did not answer, or answered something else.
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

/// Whether a backend answers the question at once, as php-fpm does, so that the answer tells when its worker is back. libfcgi
/// waits for a second record: where that has to be sent, the question is of no use on a connection that serves.
pub(super) async fn answers_at_once(address: &Bind, connect_timeout: Duration) -> bool {
    answers_within(address, connect_timeout.min(PATIENCE), END_AFTER).await.unwrap_or(false)
}

/// The same within another time. False: it stays silent or says something else. An error: it cannot be connected to, or closes.
pub(super) async fn answers_within(address: &Bind, connect: Duration, patience: Duration) -> io::Result<bool> {
    let stream = Stream::connect(address, connect).await?;
    send(&stream, &values::question())?;
    match timeout(patience, answer(&stream, &mut ValuesDecoder::default())).await {
        Ok(Ok(_)) => Ok(true),
        Ok(Err(error)) if error.kind() != io::ErrorKind::Other => Err(error),
        _ => Ok(false),
    }
}

/// The buffer of a new socket has room for these few bytes.
fn send(stream: &Stream, bytes: &[u8]) -> io::Result<()> {
    let sent = stream.try_write_vectored(&[IoSlice::new(bytes)])?;
    if sent == bytes.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
}

/// Reads until the answer is there. May be dropped and called again: what came is in the decoder.
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
