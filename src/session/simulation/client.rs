//! The client of a simulated session: it sends, reads, leaves and polls, and knows every frame that it may get.

use std::collections::BTreeMap;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use tokio::sync::oneshot;

use super::{ClientKind, World};
use crate::outbox::Batch;
use crate::proto::framing::{Decoder, FrameKind, Framing, Item, client as frames};
use crate::session::{NotTaken, Post};

/// The state of the client.
pub(super) struct Client {
    pub(super) decoder: Decoder,
    pub(super) framing: Framing,
    /// Where each sent frame ends, in bytes since the beginning.
    pub(super) ends: Vec<usize>,
    pub(super) sent: usize,
    /// The rest of a frame that was sent in part.
    pub(super) rest: Vec<u8>,
    pub(super) has_finished: bool,
    pub(super) said_goodbye: bool,
    /// Frames that must still come, and how often: whole replies, lines, pushes.
    pub(super) expected: BTreeMap<Vec<u8>, u32>,
    /// Frames that may come but need not: from scripts that die at the very end, and from refusals.
    pub(super) possible: Vec<Vec<u8>>,
    pub(super) got_last_word: bool,
    pub(super) pings: usize,
}

impl Client {
    /// Whether the client is to get this frame. If so, the frame is taken off the list.
    fn takes(&mut self, body: &[u8]) -> bool {
        if let Some(count) = self.expected.get_mut(body) {
            *count -= 1;
            if *count == 0 {
                self.expected.remove(body);
            }
            return true;
        }
        let before = self.possible.len();
        self.possible.retain(|possible| possible != body);
        self.possible.len() < before
    }
}

impl World {
    pub(super) fn open_window(&self, bytes: usize) {
        self.closed_window.set(None);
        self.pipe.change(|ends| ends.window = ends.window.saturating_add(bytes));
        self.note_window();
    }

    pub(super) fn note_window(&self) {
        let (window, now) = (self.pipe.ends().window, self.node.hub.wheel.now());
        match window {
            0 if self.closed_window.get().is_none() => self.closed_window.set(Some(now)),
            0 => {}
            _ => self.closed_window.set(None),
        }
    }

    pub(super) fn send_bytes(&self, bytes: &[u8]) {
        self.client.borrow_mut().sent += bytes.len();
        self.pipe.change(|ends| ends.unread.extend(bytes));
    }

    pub(super) fn can_send(&self) -> bool {
        let client = self.client.borrow();
        !client.has_finished && !client.said_goodbye && self.kind != ClientKind::Polled
    }

    /// Sends the rest of the last frame, then a new frame or a part of it.
    pub(super) fn send_frame(&self, is_whole: bool) {
        if !self.can_send() {
            return;
        }
        self.send_rest();
        let number = self.messages.get();
        self.messages.set(number + 1);
        let text = format!("m{number}");
        let bytes = {
            let mut client = self.client.borrow_mut();
            let bytes = client.framing.encode_client(FrameKind::Text, text.as_bytes(), [1, 2, 3, 4]).expect("it fits");
            let end = client.sent + bytes.len();
            client.ends.push(end);
            bytes
        };
        let cut = if is_whole { bytes.len() } else { 1 + self.below(bytes.len() - 1) };
        self.say(|| format!("the client sends {text}, {cut} of {} bytes", bytes.len()));
        self.client.borrow_mut().rest = bytes[cut..].to_vec();
        self.send_bytes(&bytes[..cut]);
    }

    pub(super) fn send_rest(&self) {
        let rest = std::mem::take(&mut self.client.borrow_mut().rest);
        if !rest.is_empty() {
            self.send_bytes(&rest);
        }
    }

    pub(super) fn finish(&self) {
        if self.kind != ClientKind::Polled {
            self.say(|| "the client ends its side".into());
            self.client.borrow_mut().has_finished = true;
            self.pipe.change(|ends| ends.has_finished = true);
        }
    }

    pub(super) fn say_goodbye(&self) {
        if self.kind == ClientKind::WebSocket && self.can_send() {
            self.send_rest();
            self.say(|| "the client says goodbye".into());
            self.send_bytes(&frames::close(Some(1000), "", [1, 2, 3, 4]));
            self.client.borrow_mut().said_goodbye = true;
        }
    }

    pub(super) fn vanish(&self, by_reset: bool) {
        self.say(|| format!("the client is gone, by reset: {by_reset}"));
        self.client.borrow_mut().has_finished = true;
        self.pipe.change(|ends| {
            ends.has_finished = true;
            ends.is_gone = true;
            ends.is_reset |= by_reset;
        });
    }

    /// Checks everything that has come.
    pub(super) fn look(&self) {
        let written = std::mem::take(&mut self.pipe.ends().written);
        self.look_at(&written);
        self.note_window();
    }

    pub(super) fn look_at(&self, mut input: &[u8]) {
        let mut pings = 0;
        let mut client = self.client.borrow_mut();
        if client.got_last_word && !input.is_empty() {
            drop(client);
            return self.fail(format!("{} bytes behind the last word", input.len()));
        }
        while !input.is_empty() {
            let Client { decoder, framing, .. } = &mut *client;
            let (used, item) = match decoder.decode(framing, 1 << 20, input) {
                Ok(decoded) => decoded,
                Err(error) => {
                    let shown = String::from_utf8_lossy(&input[..input.len().min(80)]).into_owned();
                    drop(client);
                    return self.fail(format!("the bytes that arrive are not a frame: {error}: {shown:?}"));
                }
            };
            input = &input[used..];
            match item {
                None => {}
                Some(Item::Frame(frame)) => {
                    let body = frame.body.to_vec();
                    let shown: String = String::from_utf8_lossy(&body).chars().take(60).collect();
                    if !client.takes(&body) {
                        drop(client);
                        return self.fail(format!("this frame was never sent: {shown:?}, {} bytes", body.len()));
                    }
                    self.say(|| format!("the client gets {shown:?}"));
                }
                Some(Item::Close { code, .. }) => {
                    self.say(|| format!("the client gets the last word, {code:?}"));
                    client.got_last_word = true;
                    if !input.is_empty() {
                        drop(client);
                        return self.fail("something behind the last word".into());
                    }
                }
                Some(Item::Ping(_)) => pings += 1,
                Some(Item::Pong(_)) => {}
            }
        }
        client.pings += pings;
    }

    pub(super) fn answer_pings(&self) {
        let pings = std::mem::take(&mut self.client.borrow_mut().pings);
        if pings > 0 && self.can_send() {
            self.send_rest();
            self.send_bytes(&frames::pong(b"", [1, 2, 3, 4]));
        }
    }

    pub(super) fn ping(&self) {
        if self.kind == ClientKind::WebSocket && self.can_send() {
            self.send_rest();
            self.say(|| "the client pings".into());
            self.send_bytes(&frames::ping(b"?", [1, 2, 3, 4]));
        }
    }

    pub(super) fn poll_begins(&self) {
        let Some(feed) = &self.feed else { return };
        self.say(|| "a poll begins".into());
        let turn = feed.take_turn();
        *self.turn.borrow_mut() = Some(turn);
    }

    pub(super) fn poll_goes_on(&self, by_hanging_up: bool) {
        let Some(mut turn) = self.turn.borrow_mut().take() else { return };
        if by_hanging_up {
            return;
        }
        match turn.poll_batch(&mut Context::from_waker(Waker::noop())) {
            Poll::Pending => *self.turn.borrow_mut() = Some(turn),
            Poll::Ready(Batch::Frames(frames)) => {
                self.say(|| {
                    format!("a poll gets {:?}", String::from_utf8_lossy(&frames).chars().take(60).collect::<String>())
                });
                let mut client = self.client.borrow_mut();
                for event in String::from_utf8_lossy(&frames).split_terminator("\n\n") {
                    let data: Vec<&str> = event.lines().filter_map(|line| line.strip_prefix("data: ")).collect();
                    if event.contains("event: close") {
                        client.got_last_word = true;
                    } else if !data.is_empty() && !client.takes(data.concat().as_bytes()) {
                        drop(client);
                        return self.fail(format!("this event was never sent: {event:?}"));
                    }
                }
            }
            Poll::Ready(Batch::Superseded | Batch::Ended) => {}
        }
    }

    pub(super) fn post(&self) {
        let Some(posts) = &self.posts else { return };
        let number = self.messages.get();
        self.messages.set(number + 1);
        let (reply, answered) = oneshot::channel();
        let taken = posts.push(Post { kind: FrameKind::Text, body: Bytes::from(format!("m{number}")), reply });
        self.say(|| format!("post m{number}: {taken:?}"));
        match taken {
            Ok(()) => self.waiting_posts.borrow_mut().push(answered),
            Err(NotTaken::Full | NotTaken::Ending) => {}
        }
    }
}
