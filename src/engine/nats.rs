//! NATS: core subjects, with one subscription for each, over one connection to any server of a cluster.
//!
//! The client is not allowed to reconnect by itself, so that a loss is noticed. A link ends with its connection, and the next one
//! goes to the first server that answers.
//!
//! In a cluster, other servers learn of a subscription a moment after the subscriber made it, but before anything that the
//! subscriber publishes afterwards. `PING` and `PONG` confirm no subscriptions, so a link sends itself a message: what it publishes
//! on a subject of its own comes back after everything that it asked for before. Each message to a node also names such a subject
//! for replies. If there is no subscriber, the server says so there at once (503, no responders).

use std::fmt;

use async_nats::{Client, ConnectOptions, Event, ServerAddr, StatusCode, Subscriber};
use bytes::Bytes;
use futures_util::StreamExt;
use percent_encoding::percent_decode_str;
use tokio::time::timeout;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{ANSWER_TIMEOUT, CONNECT_TIMEOUT, Engine, EngineError, Inbox, Link, Outgoing, Reach, Subject};
use super::{first_that, tls};
use crate::certificates::Pair;
use crate::config::engine_url::nats_server;
use crate::config::model::ClientTls;

const SEPARATOR: char = '.';
/// Messages that one subscription holds until they are put into the inbox. If there are more, the client drops them and the link is
/// lost.
const SUBSCRIPTION_CAPACITY: usize = 65_536;

#[derive(Clone, Debug)]
pub struct Nats {
    servers: Vec<ServerAddr>,
    prefix: String,
    /// `None` leaves TLS to the URL and to the server, and trust to the system's authorities.
    tls: Option<ClientTls>,
}

impl Nats {
    /// `urls` are in the format of async-nats: `nats://USER:PASSWORD@HOST:PORT`, `nats://TOKEN@HOST:PORT`, `tls://`. They are tried
    /// in this order. Subjects begin with `prefix`. With `tls` every connection uses TLS, whatever the URL says. A server says in
    /// the clear whether it wants TLS, so an attacker on the way could claim that it does not.
    ///
    /// # Errors
    ///
    /// Names the invalid URL.
    pub fn new(urls: &[String], prefix: impl Into<String>, tls: Option<ClientTls>) -> Result<Self, EngineError> {
        let servers: Vec<ServerAddr> = urls
            .iter()
            .enumerate()
            .map(|(at, url)| {
                nats_server(url).map_err(|error| EngineError(format!("address {} of NATS: {error}", at + 1)))
            })
            .collect::<Result<_, EngineError>>()?;
        if servers.is_empty() {
            return Err(EngineError("NATS needs an address".to_owned()));
        }
        Ok(Self { servers, prefix: prefix.into(), tls })
    }
}

impl Engine for Nats {
    type Link = NatsLink;

    async fn connect(&self, inbox: Inbox) -> Result<NatsLink, EngineError> {
        let (client, ended) = first_that(&self.servers, "NATS", |server| self.dial(server, inbox.clone())).await?;
        let own = client.new_inbox();
        let answers = client.subscribe(format!("{own}.*")).await.map_err(of_nats)?;
        Ok(NatsLink {
            max_payload: client.server_info().max_payload,
            client,
            inbox,
            prefix: self.prefix.clone(),
            own,
            answers,
            round: 0,
            subscriptions: Vec::new(),
            _ended: ended,
        })
    }
}

impl Nats {
    /// Connects to this server alone. Its loss is put into `inbox`, unless the guard was dropped before.
    async fn dial(&self, server: ServerAddr, inbox: Inbox) -> Result<(Client, DropGuard), EngineError> {
        let ended = CancellationToken::new();
        let seen = ended.clone();
        let options = ConnectOptions::new()
            .name("longwire")
            .connection_timeout(CONNECT_TIMEOUT)
            .subscription_capacity(SUBSCRIPTION_CAPACITY)
            // The first connection counts too; 0 would mean no bound.
            .max_reconnects(1)
            .ignore_discovered_servers()
            .event_callback(move |event| {
                let what = match event {
                    Event::Disconnected | Event::Closed => Some("NATS closed the connection".to_owned()),
                    Event::SlowConsumer(_) => Some("NATS messages arrived faster than they were read".to_owned()),
                    Event::LameDuckMode => Some("this NATS server is shutting down".to_owned()),
                    Event::ServerError(error) => Some(format!("NATS: {error}")),
                    Event::Connected | Event::Draining | Event::ClientError(_) => None,
                };
                // A connection that we ended is not a loss.
                if let Some(what) = what.filter(|_| !seen.is_cancelled()) {
                    inbox.lose(EngineError(what));
                }
                async {}
            });
        let options = with_credentials(self.with_tls(options).await?, &server);
        let client = options.connect(&server).await.map_err(|error| {
            let settings = self.tls.clone().unwrap_or_default();
            let why = tls::explain(&error, &settings).unwrap_or_else(|| error.to_string());
            EngineError(format!("NATS at {}:{}: {why}", server.host(), server.port()))
        })?;
        Ok((client, ended.drop_guard()))
    }

    /// async-nats reads the files itself here. If given a finished TLS configuration, it would also read the system's authorities,
    /// and fail if one of their files cannot be read. Its errors do not name files, so the files are checked first.
    async fn with_tls(&self, options: ConnectOptions) -> Result<ConnectOptions, EngineError> {
        let Some(settings) = &self.tls else { return Ok(options) };
        tls::check(settings).await.map_err(of_nats)?;
        let mut options = options.require_tls(true);
        if let Some(ca) = &settings.ca {
            options = options.add_root_certificates(ca.clone());
        }
        if let Some(Pair { cert, key }) = &settings.own {
            options = options.add_client_certificate(cert.clone(), key.clone());
        }
        Ok(options)
    }
}

/// Adds the credentials of the URL, which async-nats does not read itself.
fn with_credentials(options: ConnectOptions, server: &ServerAddr) -> ConnectOptions {
    let plain = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
    match (server.username(), server.password()) {
        (Some(user), Some(password)) => options.user_and_password(plain(user), plain(password)),
        (Some(token), None) => options.token(plain(token)),
        (None, _) => options,
    }
}

fn of_nats(error: impl fmt::Display) -> EngineError {
    EngineError(format!("NATS: {error}"))
}

/// One connection.
pub struct NatsLink {
    client: Client,
    /// Largest message that the server accepts, in bytes.
    max_payload: usize,
    inbox: Inbox,
    prefix: String,
    /// The subject under which answers come.
    own: String,
    answers: Subscriber,
    /// Numbers the messages to ourselves.
    round: u64,
    /// Subscriptions. Dropping a guard ends the task that holds the subscription.
    subscriptions: Vec<(Subject, DropGuard)>,
    _ended: DropGuard,
}

impl fmt::Debug for NatsLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NatsLink").field("prefix", &self.prefix).finish_non_exhaustive()
    }
}

impl NatsLink {
    /// Waits until the server has handled everything that was sent before. Returns the indexes of the messages that had no
    /// receiver.
    async fn round_trip(&mut self) -> Result<Vec<usize>, EngineError> {
        self.round += 1;
        let mark = format!("round-{}", self.round);
        self.client.publish(format!("{}.{mark}", self.own), Bytes::new()).await.map_err(of_nats)?;
        let mut without = Vec::new();
        let coming = async {
            while let Some(answer) = self.answers.next().await {
                let Some((_, last)) = answer.subject.rsplit_once('.') else { continue };
                if last == mark {
                    return true;
                }
                if answer.status == Some(StatusCode::NO_RESPONDERS) {
                    without.extend(last.parse::<usize>());
                }
            }
            false
        };
        match timeout(ANSWER_TIMEOUT, coming).await {
            Ok(true) => Ok(without),
            Ok(false) => Err(EngineError("NATS closed the connection".to_owned())),
            Err(_) => Err(EngineError("NATS does not answer".to_owned())),
        }
    }
}

impl Link for NatsLink {
    async fn subscribe(&mut self, subjects: &[Subject]) -> Result<(), EngineError> {
        for &subject in subjects {
            let mut subscriber = self.client.subscribe(subject.name(&self.prefix, SEPARATOR)).await.map_err(of_nats)?;
            let (inbox, ended) = (self.inbox.clone(), CancellationToken::new());
            self.subscriptions.push((subject, ended.clone().drop_guard()));
            tokio::spawn(async move {
                loop {
                    tokio::select! {
                        message = subscriber.next() => match message {
                            Some(message) => inbox.put(subject, message.payload),
                            None => return,
                        },
                        () = ended.cancelled() => {
                            // If the client is gone, so are its subscriptions.
                            let _ = subscriber.unsubscribe().await;
                            return;
                        }
                    }
                }
            });
        }
        self.round_trip().await.map(drop)
    }

    async fn unsubscribe(&mut self, subjects: &[Subject]) -> Result<(), EngineError> {
        self.subscriptions.retain(|(subject, _)| !subjects.contains(subject));
        Ok(())
    }

    async fn publish(&mut self, messages: &[Outgoing]) -> Result<Vec<Reach>, EngineError> {
        let mut asks = false;
        let mut reaches = vec![Reach::Unknown; messages.len()];
        for (at, message) in messages.iter().enumerate() {
            // The server would close the connection on a larger message.
            if message.payload.len() > self.max_payload {
                reaches[at] = Reach::TooLarge;
                continue;
            }
            let name = message.subject.name(&self.prefix, SEPARATOR);
            let payload = message.payload.clone();
            // Messages on other subjects have receivers, or it does not matter.
            let published = if matches!(message.subject, Subject::Node(_)) {
                asks = true;
                self.client.publish_with_reply(name, format!("{}.{at}", self.own), payload).await
            } else {
                self.client.publish(name, payload).await
            };
            published.map_err(of_nats)?;
        }
        if asks {
            for at in self.round_trip().await? {
                if let Some(reach) = reaches.get_mut(at) {
                    *reach = Reach::Nobody;
                }
            }
        }
        Ok(reaches)
    }
}
