//! What a backend says of its own limits, asked on a connection of its own.
//!
//! Not on a connection that serves: php-fpm closes one on which it was asked. The question takes a worker for as long as
//! its answer takes, outside of what `max_connections` counts, so it is asked once at start and once when a backend comes
//! back, and never waited for longer than [`PATIENCE`]. One request runs on a connection whatever is said of multiplexing.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::time::Duration;

use tokio::time::timeout;

use super::stream::Stream;
use crate::config::model::Bind;
use crate::proto::fastcgi::values::{self, Values, ValuesDecoder};

/// For connecting and the answer together. A responder that knows the question has nothing to look up for it.
const PATIENCE: Duration = Duration::from_secs(1);

/// Asks. An error: it could not be asked, did not answer, or answered something else.
pub(super) async fn ask(address: &Bind) -> io::Result<Values> {
    let conversation = async {
        let stream = Stream::connect(address, PATIENCE).await?;
        let question = values::question();
        // The buffer of a new socket has room for these few bytes.
        if stream.try_write_vectored(&[IoSlice::new(&question)])? < question.len() {
            return Err(io::ErrorKind::WriteZero.into());
        }
        let mut decoder = ValuesDecoder::default();
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
    };
    timeout(PATIENCE, conversation).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}
