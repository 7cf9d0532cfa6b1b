//! Limits on the rate of connect events of each app.
//!
//! There is one gate for each app with a `connect_rate`, shared by all listeners that lead to the app. A client above
//! the rate is refused before a session is made, so a flood costs PHP no more than the rate.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use super::bucket::Bucket;
use super::passed::PassedLimits;
use crate::config::model::{App, Limit};
use crate::locks::lock;
use crate::proto::close::CloseReason;
use crate::transport::Peer;

/// The gates of a node's apps.
pub struct ConnectGates {
    gates: HashMap<String, Mutex<Bucket>>,
    passed: Arc<PassedLimits>,
}

impl ConnectGates {
    /// Makes a gate for each app that has a rate and asks for connect events.
    pub fn new(apps: &[Arc<App>], passed: Arc<PassedLimits>) -> Self {
        let bounded = apps.iter().filter(|app| app.events.connect && app.connect_rate.is_bound());
        let gate = |app: &Arc<App>| (app.name.clone(), Mutex::new(Bucket::full(app.connect_rate, passed.now())));
        Self { gates: bounded.map(gate).collect(), passed }
    }

    /// Lets one more client through. The error is the reason to refuse it.
    pub fn pass(&self, app: &App, peer: Peer) -> Result<(), CloseReason> {
        let Some(gate) = self.gates.get(&app.name) else { return Ok(()) };
        let is_within = lock(gate).take(app.connect_rate, self.passed.now());
        match is_within || !self.passed.acts_on(Limit::ConnectRate, peer) {
            true => Ok(()),
            false => Err(CloseReason::ConnectRate),
        }
    }
}
