//! The router and the HTTP API, from what was written to what runs.

use std::path::Path;
use std::time::Duration;

use super::Secret;
use super::account;
use super::address::AddressOrOff;
use super::model::{self, Bind};
use super::problem::{Place, Report};
use super::resolve::resolve_address;
use super::schema::Entry;
use super::written;

/// Guessing a shorter one is a matter of patience.
const SHORTEST_SECRET: usize = 16;
/// Old clients may never close what they opened, and a client of the long protocol finds a closed connection before it asks.
const DEFAULT_IDLE_TIMEOUT: Duration = Duration::from_secs(600);

/// The router; `None` only beside errors in `report`.
pub(super) fn resolve_router(written: &written::Router, base: &Path, report: &mut Report<'_>) -> Option<model::Router> {
    let bind = resolve_bind(&written.bind, base, report);
    let secret = resolve_secret(written.secret.as_ref(), base, report);
    let is_local = bind.as_ref().is_none_or(|bind| bind.as_ref().is_none_or(is_local));
    if !is_local {
        require_secret(written.secret.as_ref(), &written.bind, "secret", report);
        if let Some(place) = written.short_protocol.place.as_ref().filter(|_| written.short_protocol.value) {
            report.error(place, "knows no secret, so it is spoken on loopback addresses and Unix sockets only");
        }
    }
    let socket = account::resolve(&written.socket, written.bind.value.0.as_ref(), report);
    Some(model::Router {
        bind: bind?,
        socket,
        advertise: written.advertise.as_ref().map(|entry| entry.value.clone()),
        secret,
        short_protocol: written.short_protocol.value && is_local,
        max_message_bytes: written.max_message_bytes.value.0 as usize,
        max_connections: written.max_connections.value.0 as usize,
        idle_timeout: written.idle_timeout.as_ref().map_or(DEFAULT_IDLE_TIMEOUT, |entry| entry.value.0),
        // Its clients have no ping, and the ancestor's Go client never dials again.
        short_idle_timeout: written.idle_timeout.as_ref().map_or(Duration::ZERO, |entry| entry.value.0),
        slow_readers: written.slow_readers.value.0.clone(),
        profile: model::ProfileLimits {
            max_channels: written.max_channels_per_session.value.0 as usize,
            max_attribute_bytes: written.max_attribute_bytes.value.0 as usize,
        },
    })
}

/// The API; `None` only beside errors in `report`.
pub(super) fn resolve_api(written: &written::Api, base: &Path, report: &mut Report<'_>) -> Option<model::Api> {
    let bind = resolve_bind(&written.bind, base, report);
    let token = resolve_secret(written.token.as_ref(), base, report);
    if !bind.as_ref().is_none_or(|bind| bind.as_ref().is_none_or(is_local)) {
        require_secret(written.token.as_ref(), &written.bind, "token", report);
    }
    if let (Some(token), Some(entry)) = (&token, &written.token)
        && let Some(place) = &entry.place
        && !token.reveal().bytes().all(|b| b.is_ascii_graphic())
    {
        report.error(place, "a bearer token is made of visible ASCII characters (RFC 6750 section 2.1)");
    }
    let socket = account::resolve(&written.socket, written.bind.value.0.as_ref(), report);
    Some(model::Api { bind: bind?, socket, token, max_body_bytes: written.max_body_bytes.value.0 as usize })
}

fn resolve_bind(entry: &Entry<AddressOrOff>, base: &Path, report: &mut Report<'_>) -> Option<Option<Bind>> {
    match &entry.value.0 {
        Some(address) => resolve_address(address, entry.place.as_ref(), base, report).map(Some),
        None => Some(None),
    }
}

/// Whether only this machine can connect.
fn is_local(bind: &Bind) -> bool {
    match bind {
        Bind::Tcp(address) => address.ip().to_canonical().is_loopback(),
        Bind::Unix(_) => true,
    }
}

fn require_secret(secret: Option<&Entry<String>>, bind: &Entry<AddressOrOff>, key: &str, report: &mut Report<'_>) {
    if let (None, Some(place)) = (secret, &bind.place) {
        report.error(place, format!("others than this machine can connect there, so a {key} is needed"));
    }
}

fn resolve_secret(entry: Option<&Entry<String>>, base: &Path, report: &mut Report<'_>) -> Option<Secret> {
    let entry = entry?;
    let place = entry.place.as_ref()?;
    let secret = resolve_secret_text(&entry.value, Some(place), base, report)?;
    if secret.reveal().len() < SHORTEST_SECRET {
        report.error(place, format!("a secret has at least {SHORTEST_SECRET} characters"));
    }
    Some(secret)
}

/// One text that may be kept elsewhere.
pub(super) fn resolve_secret_text(
    text: &str,
    place: Option<&Place>,
    base: &Path,
    report: &mut Report<'_>,
) -> Option<Secret> {
    let place = place?;
    match Secret::read(text, base) {
        Ok((secret, warning)) => {
            if let Some(warning) = warning {
                report.warn(place, warning);
            }
            Some(secret)
        }
        Err(rule) => {
            report.error(place, rule);
            None
        }
    }
}
