//! The reasons why a node does not start.

use std::fmt;

use crate::certificates::LoadError;
use crate::cluster::JoinError;
use crate::lua::ScriptError;
use crate::proto::fastcgi::params::PairTooLong;
use crate::transport::listening::BindError;
use crate::upstream::supervisor::SpawnError;

/// Why a node did not start. No part of it runs then.
#[derive(Debug)]
pub enum StartError {
    /// An address cannot be bound.
    Bind(BindError),
    /// The embedded php-fpm does not run.
    Spawn {
        upstream: String,
        /// What is wrong.
        error: SpawnError,
    },
    /// A listener's certificates cannot be used.
    Tls {
        listener: String,
        /// What is wrong.
        error: Box<LoadError>,
    },
    /// An app's params are too long for FastCGI.
    Params {
        app: String,
        /// What is wrong.
        error: PairTooLong,
    },
    /// The script of a framing cannot be used.
    Script {
        listener: String,
        /// What is wrong.
        error: ScriptError,
    },
    /// The node cannot join the cluster.
    Cluster(JoinError),
    /// The operating system gave no random bytes.
    NoRandomBytes(getrandom::Error),
    /// The operating system gave no threads, or no signals.
    Runtime(std::io::Error),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StartError::Bind(error) => error.fmt(f),
            StartError::Spawn { upstream, error } => write!(f, "upstream {upstream}: {error}"),
            StartError::Tls { listener, error } => write!(f, "listener {listener}: {error}"),
            StartError::Params { app, error } => write!(f, "app {app}: {error}"),
            StartError::Script { listener, error } => write!(f, "listener {listener}: {error}"),
            StartError::Cluster(error) => write!(f, "cluster: {error}"),
            StartError::NoRandomBytes(error) => write!(f, "the system gave no random bytes: {error}"),
            StartError::Runtime(error) => write!(f, "cannot start threads or signal handlers: {error}"),
        }
    }
}

impl std::error::Error for StartError {}

impl From<BindError> for StartError {
    fn from(error: BindError) -> Self {
        StartError::Bind(error)
    }
}
