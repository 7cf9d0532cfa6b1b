//! Why the router port ends a connection.

use std::io;

use crate::proto::control::long::RouterError;

/// The reason why a connection ends before its client ends it.
pub(super) enum EndReason {
    /// An error that is sent to the client and logged.
    Wrong(RouterError),
    /// An error in the short protocol, which has no answers. It is logged only.
    Refused(&'static str, String),
    /// The connection has failed.
    Io(io::Error),
    /// Nothing came for `idle_timeout`.
    Idle,
}

impl From<io::Error> for EndReason {
    fn from(error: io::Error) -> Self {
        EndReason::Io(error)
    }
}

impl From<RouterError> for EndReason {
    fn from(wrong: RouterError) -> Self {
        EndReason::Wrong(wrong)
    }
}
