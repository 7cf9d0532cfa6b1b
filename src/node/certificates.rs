//! The certificates of TLS listeners: loaded at the start, and again when their files change.

use std::sync::Arc;
use std::time::Duration;

use tracing::{error, info};

use super::start_error::StartError;
use crate::certificates::{Acceptor, LoadError};
use crate::config::model::Config;
use crate::metrics::ReloadLabels;
use crate::session::Hub;

/// Time between two looks at the files of certificates: a look is one stat(2) per file.
const CERTIFICATE_WATCH: Duration = Duration::from_secs(5);

/// The acceptors of TLS listeners, by the listeners' names.
pub(super) type Acceptors = Vec<(String, Arc<Acceptor>)>;

pub(super) fn load_certificates(config: &Config) -> Result<Acceptors, StartError> {
    let listeners = config.listeners.iter().filter_map(|listener| Some((&listener.name, listener.tls.clone()?)));
    listeners
        .map(|(name, settings)| match Acceptor::load(settings) {
            Ok((acceptor, _)) => Ok((name.clone(), Arc::new(acceptor))),
            Err(error) => Err(StartError::Tls { listener: name.clone(), error: Box::new(error) }),
        })
        .collect()
}

/// Looks at the files of certificates every `CERTIFICATE_WATCH`, for ever; the owner aborts the task.
pub(super) async fn watch_certificates(acceptors: Acceptors, hub: Arc<Hub>) {
    loop {
        tokio::time::sleep(CERTIFICATE_WATCH).await;
        for (listener, acceptor) in &acceptors {
            match acceptor.reload() {
                Ok(false) => {}
                Ok(true) => told(&hub, listener, Ok(())),
                Err(error) => told(&hub, listener, Err(error)),
            }
        }
    }
}

/// Counts and logs the result of loading certificates again.
pub(super) fn told(hub: &Hub, listener: &str, result: Result<(), LoadError>) {
    let outcome = match &result {
        Ok(()) => "done",
        Err(_) => "failed",
    };
    let labels = ReloadLabels { listener: listener.to_owned(), outcome };
    hub.metrics.certificate_reloads.get_or_create(&labels).inc();
    match result {
        Ok(()) => info!(listener, "certificates loaded again"),
        Err(error) => error!(listener, %error, "certificates not renewed, the old ones stay in use"),
    }
}
