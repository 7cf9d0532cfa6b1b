//! The publisher of `bench fanout`: one connection to the router port, to an HTTP API, or to a listener.

use std::rc::Rc;

use bytes::{Bytes, BytesMut};

use super::endpoint::{Endpoint, Speech};
use super::swarm::ConnectionHandle;
use super::trouble::Trouble;
use crate::commands::cli::FanoutArgs;
use crate::config::Secret;
use crate::proto::command::{Action, Command, Message, Name, Target};
use crate::proto::control::Frame;
use crate::proto::control::long::{
    self, Challenge, Hello, NONCE_BYTES, Operation, Proofs, RouterAnswer, RouterRequest, VERSION,
};

/// Longest answer of the router port to the publisher's commands.
const MAX_ANSWER_BYTES: usize = 64 * 1024;

/// Placeholder for the number of a channel.
pub(super) const CHANNEL: &str = "{channel}";

/// The publisher's side of its connection.
pub(super) struct Publisher {
    pub(super) endpoint: Rc<Endpoint>,
    door: Door,
    is_ready: bool,
    /// Messages without an answer yet. A listener gives no answers, so it stays 0 there.
    pub(super) unanswered: u64,
    /// Sessions reached, as counted in the receipts of the router port.
    pub(super) reached: u64,
}

enum Door {
    Router(Box<Router>),
    Http,
    Frames,
}

struct Router {
    channels: Vec<Name>,
    secret: Option<Secret>,
    nonce: [u8; NONCE_BYTES],
    server_nonce: Option<[u8; NONCE_BYTES]>,
    input: BytesMut,
    output: BytesMut,
    number: u32,
}

impl Publisher {
    pub(super) fn new(args: &FanoutArgs) -> Result<Self, String> {
        let (endpoint, door) = if let Some(rest) = args.publish.strip_prefix("router://") {
            let wrong = || format!("{:?} is not router://host:port/channel", args.publish);
            let (address, channel) =
                rest.split_once('/').filter(|(address, _)| !address.is_empty()).ok_or_else(wrong)?;
            if args.channels > 1 && !channel.contains(CHANNEL) {
                return Err(format!("--channels {}: {CHANNEL} is not in {:?}", args.channels, args.publish));
            }
            let channels = (0..args.channels).map(|number| {
                let name = channel.replace(CHANNEL, &number.to_string());
                Name::new(&percent_encoding::percent_decode_str(&name).collect::<Vec<u8>>())
            });
            let channels: Result<Vec<Name>, _> = channels.collect();
            let channels = channels.map_err(|error| format!("{:?}: channel: {error}", args.publish))?;
            let secret = args.secret_file.as_deref().map(Secret::read_file).transpose();
            let secret = secret.map_err(|error| format!("--secret-file {error}"))?;
            let (input, output) = (BytesMut::new(), BytesMut::new());
            let mut nonce = [0; NONCE_BYTES];
            getrandom::fill(&mut nonce).expect("the operating system has random numbers");
            let router = Router { channels, secret, nonce, server_nonce: None, input, output, number: 0 };
            (Endpoint::router(address, MAX_ANSWER_BYTES)?, Door::Router(Box::new(router)))
        } else {
            if args.secret_file.is_some() {
                return Err("--secret-file is for --publish router://".into());
            }
            if args.channels > 1 {
                return Err("--channels is for --publish router://".into());
            }
            let endpoint = Endpoint::new(&args.publish, &args.publish_header, &args.common, true)?;
            let door = if let Speech::Http { .. } = endpoint.speech { Door::Http } else { Door::Frames };
            (endpoint, door)
        };
        Ok(Self { endpoint: Rc::new(endpoint), door, is_ready: false, unanswered: 0, reached: 0 })
    }

    /// Whether a message may be published now.
    pub(super) fn is_ready(&self) -> bool {
        match self.door {
            // An HTTP keep-alive connection carries one request at a time.
            Door::Http => self.is_ready && self.unanswered == 0,
            Door::Router(_) | Door::Frames => self.is_ready,
        }
    }

    /// Whether this is an HTTP publisher, whose connection may be reopened after it has ended.
    pub(super) fn is_http(&self) -> bool {
        matches!(self.door, Door::Http)
    }

    pub(super) fn opened(&mut self, handle: &mut ConnectionHandle<'_>) {
        match &mut self.door {
            Door::Router(router) => {
                let versions = Bytes::from_static(&[VERSION]);
                let hello = Hello { versions, nonce: router.nonce, peer: "longwire bench".to_owned() };
                hello.encode(&mut router.output);
                handle.say_raw(&router.output);
                router.output.clear();
            }
            Door::Http | Door::Frames => self.is_ready = true,
        }
    }

    /// Publishes a message in one of the channels.
    pub(super) fn publish(&mut self, handle: &mut ConnectionHandle<'_>, channel: usize, message: &[u8]) {
        match &mut self.door {
            Door::Router(router) => {
                router.number = router.number.wrapping_add(1);
                let action = Action::Send(Message::new(Bytes::copy_from_slice(message)));
                let command = Command::new(Target::Channel(router.channels[channel].clone()), action);
                RouterRequest { number: router.number, operation: Operation::Command(command) }
                    .encode(&mut router.output);
                handle.say_raw(&router.output);
                router.output.clear();
                self.unanswered += 1;
            }
            Door::Http => {
                handle.say(message);
                self.unanswered += 1;
            }
            // Nothing is counted as unanswered, because the script decides whether it answers.
            Door::Frames => handle.say(message),
        }
    }

    /// Handles an answer; an error means that one message was not published.
    pub(super) fn heard(&mut self, handle: &mut ConnectionHandle<'_>, body: &Bytes) -> Result<(), Trouble> {
        match &mut self.door {
            Door::Router(router) => {
                router.input.extend_from_slice(body);
                loop {
                    let frame = Frame::decode(&mut router.input, MAX_ANSWER_BYTES);
                    match frame.map_err(|error| Trouble::Router(format!("the router port: {error}"))) {
                        Ok(None) => return Ok(()),
                        Ok(Some(frame)) if self.is_ready => match RouterAnswer::decode(&frame) {
                            Ok(RouterAnswer::Receipt { counts, .. }) => {
                                self.unanswered = self.unanswered.saturating_sub(1);
                                self.reached += u64::from(counts.first().copied().unwrap_or(0));
                            }
                            Ok(RouterAnswer::Error { word, text, .. }) => {
                                return Err(Trouble::Router(format!("the router port: {word}: {text}")));
                            }
                            Ok(_) => return Err(Trouble::Router("the router port sent an unexpected answer".into())),
                            Err(wrong) => return Err(Trouble::Router(format!("the router port: {wrong}"))),
                        },
                        Ok(Some(frame)) => match router.greet(&frame) {
                            Ok(is_done) => {
                                self.is_ready = is_done;
                                handle.say_raw(&router.output);
                                router.output.clear();
                            }
                            Err(text) => {
                                handle.refuse(Trouble::Router(text));
                                return Ok(());
                            }
                        },
                        Err(trouble) => {
                            handle.refuse(trouble);
                            return Ok(());
                        }
                    }
                }
            }
            Door::Http => {
                self.unanswered = 0;
                Ok(())
            }
            Door::Frames => Ok(()),
        }
    }

    /// A request was answered with an error.
    pub(super) fn failed(&mut self) {
        self.unanswered = 0;
    }

    pub(super) fn ended(&mut self) {
        self.is_ready = false;
        self.unanswered = 0;
    }
}

impl Router {
    /// Handles a frame of the router port's handshake; true when it is complete and commands may be sent.
    fn greet(&mut self, frame: &Frame) -> Result<bool, String> {
        if let Ok(RouterAnswer::Error { word, text, .. }) = RouterAnswer::decode(frame) {
            return Err(format!("the router port: {word}: {text}"));
        }
        let wrong = |wrong: long::RouterError| format!("the router port: {wrong}");
        let Some(server_nonce) = self.server_nonce else {
            let challenge = Challenge::decode(frame).map_err(wrong)?;
            self.server_nonce = Some(challenge.nonce);
            match (&self.secret, challenge.wants_proof) {
                (Some(secret), true) => {
                    let proof = self.proofs(secret, challenge.nonce).of_client();
                    long::encode_proof(&proof, &mut self.output);
                }
                (None, true) => {
                    return Err("the router port asks for a secret: give its file with --secret-file".to_owned());
                }
                // It may be an impostor that does not know the secret.
                (Some(_), false) => return Err("the router port does not ask for the secret".to_owned()),
                (None, false) => {}
            }
            return Ok(false);
        };
        let proof = long::decode_welcome(frame).map_err(wrong)?;
        match &self.secret {
            Some(secret) if proof.as_deref() != Some(&self.proofs(secret, server_nonce).of_server()[..]) => {
                Err("the router port does not know the secret".to_owned())
            }
            _ => Ok(true),
        }
    }

    fn proofs<'a>(&self, secret: &'a Secret, server_nonce: [u8; NONCE_BYTES]) -> Proofs<'a> {
        Proofs { secret: secret.reveal().as_bytes(), client_nonce: self.nonce, server_nonce }
    }
}
