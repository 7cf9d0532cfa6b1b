//! What every command that is a client needs: where to connect, whom to believe, how a WebSocket handshake is made.
//!
//! Owns nothing that runs: `connect` dials with a task a connection, `bench` with one thread for thousands.

pub(crate) mod handshake;
pub(crate) mod target;
pub(crate) mod tls;

use std::sync::Arc;

use crate::cli::{self, FramingArgs};
use crate::config::model::StreamFraming;
use crate::proto::framing::Framing;

/// The framing of a stream, as the command line has it.
///
/// # Errors
///
/// Says which options do not fit each other.
pub(crate) fn stream_framing(args: &FramingArgs) -> Result<Framing, String> {
    Ok(match args.stream_framing()? {
        StreamFraming::Length(framing) => Framing::Length(framing),
        StreamFraming::Delimiter(framing) => Framing::Delimiter(Arc::new(framing)),
        StreamFraming::Raw => Framing::Raw,
        StreamFraming::Lua(_) => return Err(cli::NO_LUA.to_owned()),
    })
}
