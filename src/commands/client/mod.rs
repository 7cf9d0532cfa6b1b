//! What every command that is a client needs: where to connect, whom to believe, how a WebSocket handshake is made.
//!
//! Owns nothing that runs: `connect` dials with a task a connection, `bench` with one thread for thousands.

pub(crate) mod handshake;
pub(crate) mod target;
pub(crate) mod tls;

use crate::commands::cli::{self, FramingArgs};
use crate::config::model::StreamFraming;
use crate::proto::framing::Framing;

/// The framing of a stream, as the command line has it.
///
/// # Errors
///
/// Says which options do not fit each other.
pub(crate) fn stream_framing(args: &FramingArgs) -> Result<Framing, String> {
    match args.stream_framing()? {
        // Silence is for the server to wait for: a client prints what comes as it comes.
        StreamFraming::Gap(_) => Ok(Framing::Raw),
        framing => framing.framing().ok_or_else(|| cli::NO_LUA.to_owned()),
    }
}
