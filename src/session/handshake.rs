//! The handshake: turns an HTTP request that asks for a session into that session. First PHP is asked, if the app wants
//! that. Then a WebSocket client gets the 101, and the socket is taken over from hyper. A client of event streams gets
//! its first event.
//!
//! The handshake runs in a task of its own, not in hyper's. When a client vanishes in the middle, hyper's future is
//! dropped with it, and PHP would never get the close event of a session that it has admitted.

use std::io::IoSlice;
use std::sync::Arc;

use bytes::Bytes;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::answer::{Answer, ConnectAnswer, EventInfo, HandshakeAnswer, Head};
use super::endpoint::{Endpoint, Event};
use super::limits::Permit;
use super::pending::Pending;
use super::{Session, SessionState};
use crate::outbox::{ClientLink, Close, Feed, Outbox};
use crate::proto::close::CloseReason;
use crate::proto::fastcgi::params::EncodedParams;
use crate::proto::framing::{Decoder, FrameKind, Framing};
use crate::proto::id::SessionId;
use crate::router::Profile;
use crate::transport::{Peer, Transport};
use crate::upstream::Class;

/// An HTTP request that asks for a session. It has been checked and is valid.
pub struct Opening {
    /// The endpoint that received it.
    pub endpoint: Arc<Endpoint>,
    /// The framing, with the negotiated options.
    pub framing: Framing,
    /// The other end.
    pub peer: Peer,
    /// This end.
    pub local: Peer,
    /// The params of the connection, with URI and headers.
    pub own_params: EncodedParams,
    /// The place that the session takes.
    pub permit: Permit,
    /// The way to the client.
    pub way: Way,
}

/// The way to a client that came over HTTP.
pub enum Way {
    /// The connection's socket, once the 101 is sent.
    Socket(OnUpgrade),
    Responses {
        /// The feed of the responses' bodies.
        feed: Arc<Feed>,
        /// Cancelled to end the connection of a client that does not read.
        cut: CancellationToken,
        /// Gives the address to which the client of a session sends its requests.
        address: Box<dyn FnOnce(SessionId) -> String + Send>,
    },
}

/// The result of a handshake, for the client.
#[derive(Debug)]
pub enum Verdict {
    /// The session exists, or will exist once the 101 is sent. These headers of the handler go with the response.
    Accepted(SessionId, Box<Head>),
    /// The handler's own refusal, status and body.
    Refused(Box<Head>, Vec<u8>),
    /// The handler failed or could not be asked. Nothing of its answer is shown to the client.
    Failed,
}

/// Asks PHP if the app wants that, sends `verdict`, and starts the session. The future ends when the session is live.
/// If the session never becomes live, the future ends when its close event is delivered.
///
/// While PHP is asked, the session is a guest, and commands already find it. If it never becomes live, the effects of
/// those commands are discarded.
#[expect(clippy::too_many_lines, reason = "the order of its steps is what matters")]
pub async fn shake_hands(opening: Opening, mut verdict: oneshot::Sender<Verdict>) {
    let endpoint = opening.endpoint;
    let events = endpoint.app.events;
    let mut state = SessionState {
        id: endpoint.hub.ids.next_id(),
        peer: opening.peer.into(),
        local: opening.local.into(),
        own_params: opening.own_params,
        next_seq: 0,
        decoder: Decoder::new(&opening.framing),
        pending: Pending::default(),
        connect_due: false,
        close_owed: false,
    };
    let link = match &opening.way {
        Way::Socket(_) => ClientLink::awaited(),
        Way::Responses { feed, .. } => ClientLink::Feed(feed.clone()),
    };
    let guest = Guest::new(&endpoint, Outbox::of_guest(state.id, opening.framing, endpoint.terms.clone(), link));
    let mut first_reply = None;
    if events.connect {
        match ask(&endpoint, &mut state, &mut verdict).await {
            Some(answer) if !answer.head.refuses() => {
                state.close_owed = true;
                endpoint.keep_cookies(&mut state, &answer.head.cookies);
                first_reply = Some(answer);
            }
            Some(answer) => {
                drop(guest);
                let refusal = match answer.head.status {
                    500.. => Verdict::Failed,
                    _ => Verdict::Refused(Box::new(answer.head), answer.greeting.into_body()),
                };
                if verdict.send(refusal).is_err() {
                    // If the client still waits, the refusal is counted where its response is made.
                    endpoint.hub.count_refused(&endpoint.listener, CloseReason::ClientGone);
                }
                return;
            }
            None => {
                let profile = guest.leave();
                let is_heard = verdict.send(Verdict::Failed).is_ok();
                let reason = if is_heard { CloseReason::ConnectFailed } else { CloseReason::ClientGone };
                return never_live(&endpoint, state, profile.params(), reason).await;
            }
        }
    }
    let head = first_reply.as_ref().map(|answer| Box::new(answer.head.clone())).unwrap_or_default();
    let accepted = Verdict::Accepted(state.id, head);
    let responses = match opening.way {
        Way::Socket(on_upgrade) => {
            // hyper sends the 101 when it has this.
            let _ = verdict.send(accepted);
            let Some((transport, early)) = take_over(&endpoint, on_upgrade).await else {
                // The close event carries the uid and attributes that the handler set, so that it can tell whose
                // session this was.
                let mut actions = Vec::new();
                if let Some(ConnectAnswer { head, greeting }) = first_reply {
                    actions = head.actions;
                    greeting.give_up().await;
                }
                let profile = endpoint.hub.router.profile_after(guest.leave(), &actions);
                return never_live(&endpoint, state, profile.params(), CloseReason::ClientGone).await;
            };
            state.pending.keep_unread(early);
            guest.outbox.arrive(transport);
            None
        }
        Way::Responses { cut, address, .. } => Some((cut, address, verdict, accepted)),
    };
    // Without a connect event, PHP learns of a session by its first frame. It always gets the close event, if the app
    // asked for it.
    state.close_owed = true;
    let outbox = guest.stay();
    let mut session = Session::new(endpoint, state, outbox, opening.permit);
    if let Some((cut, address, verdict, accepted)) = responses {
        // The session must be found at its address before the client learns the address.
        session.take_posts(cut);
        if let Some(event) = session.outbox.framing().notice("session", &address(session.state.id)) {
            session.outbox.write_frame(&[IoSlice::new(&event)]);
        }
        let _ = verdict.send(accepted);
    }
    match first_reply {
        Some(answer) => {
            session.is_greeting = super::answer::greet(&session.outbox, answer).await;
            session.in_flight = u32::from(session.is_greeting);
        }
        None => session.outbox.admit(),
    }
    session.spawn();
}

/// A session that the router knows but that is not live yet. Dropping it removes it from the router.
struct Guest<'a> {
    endpoint: &'a Endpoint,
    outbox: Arc<Outbox>,
    stays: bool,
}

impl<'a> Guest<'a> {
    fn new(endpoint: &'a Endpoint, outbox: Outbox) -> Self {
        let outbox = Arc::new(outbox);
        endpoint.hub.router.insert(outbox.clone());
        Self { endpoint, outbox, stays: false }
    }

    /// The session becomes live.
    fn stay(mut self) -> Arc<Outbox> {
        self.stays = true;
        self.outbox.clone()
    }

    /// The session never becomes live. Returns its profile, which commands may have changed.
    fn leave(mut self) -> Profile {
        self.stays = true;
        self.forget()
    }

    fn forget(&self) -> Profile {
        let hub = &self.endpoint.hub;
        let profile = hub.router.remove(self.outbox.id());
        hub.metrics.router.count_lost(self.outbox.end());
        profile
    }
}

impl Drop for Guest<'_> {
    fn drop(&mut self) {
        if !self.stays {
            self.forget();
        }
    }
}

/// Sends the connect event and waits for the answer. `None` means that there is no answer. Then `state.close_owed` says
/// whether PHP may have seen the event.
async fn ask(
    endpoint: &Arc<Endpoint>,
    state: &mut SessionState,
    verdict: &mut oneshot::Sender<Verdict>,
) -> Option<ConnectAnswer> {
    let event = Event {
        class: Class::Connect,
        seq: 0,
        kind: FrameKind::Text,
        body: Bytes::new(),
        profile: EncodedParams::default(),
    };
    state.next_seq = 1;
    let client_gone = CancellationToken::new();
    let info = EventInfo::new(endpoint.clone(), state.id, &event);
    let (answer, mut receiver) = HandshakeAnswer::new(info, client_gone.clone());
    endpoint.submit(state, event, Answer::Handshake(Box::new(answer)));
    let result = tokio::select! {
        result = &mut receiver => result,
        () = verdict.closed() => {
            client_gone.cancel();
            receiver.await
        }
    };
    match result {
        Ok(Ok(answer)) => Some(answer),
        Ok(Err(failed)) => {
            state.close_owed = failed.may_have_run;
            None
        }
        // The upstream dropped the event and has logged the reason. PHP may have noted the session.
        Err(_) => {
            state.close_owed = true;
            None
        }
    }
}

/// Sends the close event of a session that never became live, because PHP may have admitted it.
async fn never_live(endpoint: &Arc<Endpoint>, mut state: SessionState, profile: EncodedParams, reason: CloseReason) {
    if reason == CloseReason::ClientGone {
        endpoint.hub.count_refused(&endpoint.listener, reason);
    }
    if let Some(delivered) = endpoint.close_event(&mut state, profile, &Close::new(reason)) {
        delivered.await;
    }
}

/// Takes the socket out of hyper, with the bytes that the client has sent after its request.
async fn take_over(endpoint: &Endpoint, on_upgrade: OnUpgrade) -> Option<(Transport, Bytes)> {
    // The 101 is only a few bytes. A client that does not take them within `close_timeout` is treated as gone.
    let limit = endpoint.http_settings().map(|http| http.websocket.close_timeout).unwrap_or_default();
    let upgraded = match tokio::time::timeout(limit, on_upgrade).await {
        Ok(Ok(upgraded)) => upgraded,
        Ok(Err(error)) => {
            debug!(%error, "upgrade failed");
            return None;
        }
        Err(_) => return None,
    };
    let parts =
        upgraded.downcast::<TokioIo<Transport>>().expect("every connection that http serves is a TokioIo<Transport>");
    // An empty slice would keep hyper's whole read buffer alive.
    let early = if parts.read_buf.is_empty() { Bytes::new() } else { parts.read_buf };
    Some((parts.io.into_inner(), early))
}
