//! Handshakes at a path that no route has: mostly a client or a configuration with a slip in it, and its owner looks into the log.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use tracing::info;

use super::Site;
use crate::locks::lock;
use crate::transport::Peer;

/// A line at most in this time: anybody can ask for any path.
const PACE: Duration = Duration::from_secs(1);
/// Longest part of a path that is shown.
const SHOWN_BYTES: usize = 100;

/// When the last line was written, and how many were not since.
#[derive(Default)]
pub(super) struct Strays(Mutex<(Option<Instant>, u64)>);

impl Strays {
    /// Logs the path and the route that looks most like it.
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
