//! From an HTTP request that asks for a session to that session: PHP's leave, then for a WebSocket the 101 and the socket out of
//! hyper's hands, for a client of event streams the first event.
//!
//! Runs in a task of its own, not in hyper's: a client that vanishes in the middle takes hyper's future with it, and PHP
//! would wait for ever for the end of a session that it has admitted.

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
use super::{Session, State};
use crate::outbox::{Close, Feed, Link, Outbox};
use crate::proto::close::CloseReason;
use crate::proto::fastcgi::params::EncodedParams;
use crate::proto::framing::{Decoder, FrameKind, Framing};
use crate::proto::id::SessionId;
use crate::router::Profile;
use crate::transport::{Peer, Transport};
use crate::upstream::Class;

/// An HTTP request that asks for a session, looked at and found good.
pub struct Opening {
    /// Where it came in.
    pub endpoint: Arc<Endpoint>,
    /// The framing, with what was negotiated.
    pub framing: Framing,
    /// The other end.
    pub peer: Peer,
    /// This end.
    pub local: Peer,
    /// Of the connection, and URI and headers.
    pub own_params: EncodedParams,
    /// The place among the sessions.
    pub permit: Permit,
    /// What will lead to the client.
    pub way: Way,
}

/// What will lead to a client that came over HTTP.
pub enum Way {
    /// The connection's socket, once the 101 is sent.
    Socket(OnUpgrade),
    /// Responses.
    Responses {
        /// What they are fed from.
        feed: Arc<Feed>,
        /// Cancelled to end the connection of a client that does not read.
        cut: CancellationToken,
        /// Where the client of a session sends its requests.
        address: Box<dyn FnOnce(SessionId) -> String + Send>,
    },
}

/// What the client is to be told.
#[derive(Debug)]
pub enum Verdict {
    /// The session is there, or will be with the 101; these of the handler's headers go with the response.
    Accepted(SessionId, Box<Head>),
    /// The handler's own refusal, status and body.
    Refused(Box<Head>, Vec<u8>),
    /// The handler failed or could not be asked; nothing of it is shown.
    Failed,
}

/// Asks PHP if the app wants that, tells `verdict`, and starts the session; ends when that lives, or when the close event of
/// one that never came to live is delivered.
///
/// While PHP is asked the session is a guest: commands find it. What they have made of it goes when it does not come to live.
pub async fn shake_hands(opening: Opening, mut verdict: oneshot::Sender<Verdict>) {
    let endpoint = opening.endpoint;
    let events = endpoint.app.events;
    let mut state = State {
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
        Way::Socket(_) => Link::awaited(),
        Way::Responses { feed, .. } => Link::Feed(feed.clone()),
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
                    // A client that waited for the answer is counted with it.
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
                // What the handler has bound to the session tells it, at the close event, who it was.
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
    // Without a connect event PHP hears of a session by its first frame, and of its end whenever it asked to.
    state.close_owed = true;
    let outbox = guest.stay();
    let mut session = Session::new(endpoint, state, outbox, opening.permit);
    if let Some((cut, address, verdict, accepted)) = responses {
        // Before the client can know its address, the session can be found there.
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

/// A session that is known to the router and does not live yet. Dropped, it leaves nothing behind.
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

    /// It lives.
    fn stay(mut self) -> Arc<Outbox> {
        self.stays = true;
        self.outbox.clone()
    }

    /// It never will. What commands have made of it.
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

/// The connect event and its answer; `None` when it has none, and then `state.close_owed` says whether PHP may have seen
/// it.
async fn ask(
    endpoint: &Arc<Endpoint>,
    state: &mut State,
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
        // The upstream is gone without a word: it has said why in the log. PHP may have noted the session.
        Err(_) => {
            state.close_owed = true;
            None
        }
    }
}

/// PHP may have admitted a session that never came to live: its close event follows.
async fn never_live(endpoint: &Arc<Endpoint>, mut state: State, profile: EncodedParams, reason: CloseReason) {
    if reason == CloseReason::ClientGone {
        endpoint.hub.count_refused(&endpoint.listener, reason);
    }
    if let Some(delivered) = endpoint.close_event(&mut state, profile, &Close::new(reason)) {
        delivered.await;
    }
}

/// Takes the socket, and what the client has sent behind its request, out of hyper.
async fn take_over(endpoint: &Endpoint, on_upgrade: OnUpgrade) -> Option<(Transport, Bytes)> {
    // The 101 is a few bytes; a client that does not take them within the time of a handshake is none.
    let limit = endpoint.websocket.as_ref().map(|websocket| websocket.close_timeout).unwrap_or_default();
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
