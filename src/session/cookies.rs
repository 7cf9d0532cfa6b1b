//! The cookies of a session: those that its client sent, with the changes that answers have made since.
//!
//! A WebSocket client gets the cookies of the connect answer with the 101, and none after that. Every later event
//! carries all of them to PHP, as a browser would send them. So a PHP session that begins at `connect`, or that gets a
//! new id in the middle of a WebSocket, is the same one at the next frame. `proto/cookie.rs` has the rules.

use std::time::{SystemTime, UNIX_EPOCH};

use tracing::warn;

use super::SessionState;
use super::cgi;
use super::endpoint::Endpoint;
use crate::proto::cookie;
use crate::proto::fastcgi::params::{EncodedParams, Params};

const NAME: &[u8] = b"HTTP_COOKIE";

impl Endpoint {
    /// Applies these values of `Set-Cookie` to the session's cookies.
    pub(super) fn keep_cookies(&self, state: &mut SessionState, set: &[Box<[u8]>]) {
        if set.is_empty() || cgi::is_ours(&self.app, NAME) {
            return;
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() as i64);
        let of = |name: &[u8]| state.own_params.pairs().find(|(found, _)| *found == name).map(|(_, value)| value);
        let uri = of(b"REQUEST_URI").unwrap_or(self.app.uri.as_bytes());
        let path = uri.split(|b| *b == b'?').next().unwrap_or_default();
        let mut header = of(NAME).map(<[u8]>::to_vec);
        for set in set {
            match cookie::merge(header.as_deref().unwrap_or_default(), set, path, now) {
                Ok(Some(merged)) => header = Some(merged),
                Ok(None) => {}
                Err(reason) => {
                    // Do not log the value: it may be a credential.
                    let name = String::from_utf8_lossy(set.split(|b| *b == b'=').next().unwrap_or_default());
                    warn!(session = %state.id, script = %self.app.script.display(), cookie = %name, "cookie not kept for later events: {reason}");
                }
            }
        }
        if header.as_deref() != of(NAME) {
            state.own_params = with_cookies(&state.own_params, &header.unwrap_or_default());
        }
    }
}

fn with_cookies(params: &EncodedParams, header: &[u8]) -> EncodedParams {
    const FITS: &str = "params were encoded before, and cookies are bounded far below a record";
    let mut changed = Params::new();
    for (name, value) in params.pairs().filter(|(name, _)| *name != NAME) {
        changed.push(name, value).expect(FITS);
    }
    if !header.is_empty() {
        changed.push(NAME, header).expect(FITS);
    }
    changed.finish()
}
