//! Shared by all commands that act as a client: reading the target's URL, trusting its certificate, the WebSocket handshake.
//!
//! Owns nothing that runs: `connect` has one task for its connection, `bench` one thread for thousands.

pub(crate) mod handshake;
pub(crate) mod server_address;
pub(crate) mod tls;

use crate::commands::cli::{self, FramingArgs};
use crate::config::model::StreamFraming;
use crate::proto::framing::Framing;

/// The framing of a stream, as the command line has it.
///
/// # Errors
///
/// Names the option that is out of range or does not fit another one.
pub(crate) fn stream_framing(args: &FramingArgs) -> Result<Framing, String> {
    match args.stream_framing()? {
        // Only the server waits for silence. A client shows bytes as they come.
        StreamFraming::Gap(_) => Ok(Framing::Raw),
        framing => framing.framing().ok_or_else(|| cli::NO_LUA.to_owned()),
    }
}
