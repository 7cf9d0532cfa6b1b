//! Logs handshakes at a path without a route. The cause is mostly a mistake in a client or in the configuration, and its owner
//! looks into the log.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use tracing::info;

use super::Site;
use crate::locks::lock;
use crate::transport::Peer;

/// At most one line is logged in this time, because any client can ask for any path.
const PACE: Duration = Duration::from_secs(1);
/// Most characters of a path that are logged.
const SHOWN_BYTES: usize = 100;

/// The time of the last line, and the number of handshakes since then that were not logged.
#[derive(Default)]
pub(super) struct Strays(Mutex<(Option<Instant>, u64)>);

impl Strays {
    /// Logs the path and the most similar route.
    pub(super) fn tell(&self, site: &Site, peer: Peer, path: &str) {
        let unlogged = {
            let mut window = lock(&self.0);
            let (last, unlogged) = &mut *window;
            if last.is_some_and(|last| last.elapsed() < PACE) {
                *unlogged += 1;
                return;
            }
            *last = Some(Instant::now());
            std::mem::take(unlogged)
        };
        let path: String = path.chars().take(SHOWN_BYTES).collect();
        let nearest = site.routes.iter().map(|(route, _)| route.to_string());
        let nearest = nearest.min_by_key(|route| strsim::damerau_levenshtein(route, &path)).unwrap_or_default();
        info!(%peer, listener = %site.listener, path, nearest, unlogged, "no route for the path of a WebSocket");
    }
}
