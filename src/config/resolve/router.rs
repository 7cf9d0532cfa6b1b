//! The router and the HTTP API: from the written values to the model.

use std::path::Path;
use std::time::Duration;

use super::common::{resolve_address, resolve_secret_text};
use super::socket;
use crate::config::Secret;
use crate::config::address::AddressOrOff;
use crate::config::model::{self, Bind};
use crate::config::problem::Report;
use crate::config::schema::Entry;
use crate::config::secret::SecretText;
use crate::config::value::size_text;
use crate::config::written;

/// A shorter secret can be guessed with patience.
const SHORTEST_SECRET: usize = 16;
/// Old clients may never close their connections. A client of the long protocol notices a closed connection before it sends.
const DEFAULT_IDLE_TIMEOUT: Duration = Duration::from_secs(600);

/// Four of the largest messages at once: programs that send such messages are few.
const DEFAULT_BUFFERED_BYTES: u64 = 64 << 20;

/// The router; `None` only if `report` has errors.
pub(super) fn resolve_router(
    written: &written::Router,
    api: &written::Api,
    base: &Path,
    report: &mut Report<'_>,
) -> Option<model::Router> {
    let bind = resolve_bind(&written.bind, base, report);
    let secret = resolve_secret(written.secret.as_ref(), base, report);
    let is_local = bind.as_ref().is_none_or(|bind| bind.as_ref().is_none_or(is_local));
    if !is_local {
        require_secret(written.secret.as_ref(), &written.bind, "secret", report);
    }
    let short_protocol = written.short_protocol.as_ref().map(|entry| (entry.value, entry.place.as_ref()));
    if let Some((true, Some(place))) = short_protocol {
        if !is_local {
            report.error(place, "has no secret, so it is accepted only on loopback addresses and Unix sockets");
        } else if written.secret.is_some() {
            report.warn(place, "accepts commands without the secret: the short protocol has none");
        }
    }
    let socket = socket::resolve(&written.socket, written.bind.value.0.as_ref(), report);
    Some(model::Router {
        bind: bind?,
        socket,
        advertise: written.advertise.as_ref().map(|entry| entry.value.clone()),
        short_protocol: is_local && short_protocol.map_or(written.secret.is_none(), |(written, _)| written),
        secret,
        max_message_bytes: written.max_message_bytes.value.0 as usize,
        max_buffered_bytes: resolve_buffered_bytes(written, api, report),
        max_connections: written.max_connections.value.0 as usize,
        idle_timeout: written.idle_timeout.as_ref().map_or(DEFAULT_IDLE_TIMEOUT, |entry| entry.value.0),
        // Clients of the short protocol have no ping, and fooking's Go client never reconnects.
        short_idle_timeout: written.idle_timeout.as_ref().map_or(Duration::ZERO, |entry| entry.value.0),
        slow_readers: written.slow_readers.value.0.clone(),
        profile: model::ProfileLimits {
            max_channels: written.max_channels_per_session.value.0 as usize,
            max_attribute_bytes: written.max_attribute_bytes.value.0 as usize,
        },
    })
}

/// The buffer must have room for the largest message.
fn resolve_buffered_bytes(router: &written::Router, api: &written::Api, report: &mut Report<'_>) -> usize {
    let largest = router.max_message_bytes.value.0.max(api.max_body_bytes.value.0);
    let Some(entry) = &router.max_buffered_bytes else { return DEFAULT_BUFFERED_BYTES.max(largest) as usize };
    if let Some(place) = entry.place.as_ref().filter(|_| entry.value.0 < largest) {
        let largest = size_text(largest);
        report.error(place, format!("must be at least max_message_bytes and max_body_bytes of [api], {largest}"));
    }
    entry.value.0 as usize
}

/// The API; `None` only if `report` has errors.
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
    let socket = socket::resolve(&written.socket, written.bind.value.0.as_ref(), report);
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

fn require_secret(secret: Option<&Entry<SecretText>>, bind: &Entry<AddressOrOff>, key: &str, report: &mut Report<'_>) {
    if let (None, Some(place)) = (secret, &bind.place) {
        report.error(place, format!("other machines can connect there, so a {key} is needed"));
    }
}

fn resolve_secret(entry: Option<&Entry<SecretText>>, base: &Path, report: &mut Report<'_>) -> Option<Secret> {
    let entry = entry?;
    let place = entry.place.as_ref()?;
    let secret = resolve_secret_text(&entry.value, Some(place), base, report)?;
    if secret.reveal().len() < SHORTEST_SECRET {
        report.error(place, format!("a secret has at least {SHORTEST_SECRET} characters"));
    }
    Some(secret)
}
