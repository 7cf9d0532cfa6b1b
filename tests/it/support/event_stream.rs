//! A client of event streams and polls over HTTP/1.1 and HTTP/2. HTTP is done by hyper, and the events are parsed here.

use std::net::SocketAddr;
use std::time::Duration;

use ::http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Longest wait for anything.
const PATIENCE: Duration = Duration::from_secs(30);

/// One event, parsed as in the HTML standard (section 9.2.6).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Event {
    pub name: String,
    pub id: String,
    pub data: String,
}

/// An event without a name.
pub fn message(data: &str) -> Event {
    Event { data: data.to_owned(), ..Event::default() }
}

/// A connection on which requests are made.
pub enum Http {
    One(http1::SendRequest<Full<Bytes>>),
    Two(http2::SendRequest<Full<Bytes>>),
}

impl Http {
    pub async fn one(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.expect("the node listens");
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.expect("a handshake");
        tokio::spawn(connection);
        Self::One(sender)
    }

    /// Connects by HTTP/2 with prior knowledge, as a client without TLS must.
    pub async fn two(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.expect("the node listens");
        let handshake = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await;
        let (sender, connection) = handshake.expect("a handshake");
        tokio::spawn(connection);
        Self::Two(sender)
    }

    /// Sends a request and waits for the head of the answer.
    pub async fn begin(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Response<Incoming> {
        let mut request = Request::builder().method(Method::from_bytes(method.as_bytes()).unwrap());
        request = match self {
            Self::One(_) => request.uri(path).header("host", "shop.example"),
            Self::Two(_) => request.uri(format!("http://shop.example{path}")),
        };
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(Bytes::copy_from_slice(body))).unwrap();
        let answer = match self {
            Self::One(sender) => {
                sender.ready().await.expect("the connection is there");
                timeout(PATIENCE, sender.send_request(request)).await
            }
            Self::Two(sender) => {
                sender.ready().await.expect("the connection is there");
                timeout(PATIENCE, sender.send_request(request)).await
            }
        };
        answer.unwrap_or_else(|_| panic!("no answer to {method} {path}")).expect("an answer")
    }

    /// Sends a request and waits for the whole answer.
    pub async fn ask(&mut self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        let (head, body) = self.begin(method, path, headers, body).await.into_parts();
        let body = timeout(PATIENCE, body.collect()).await.expect("the answer ends").expect("the answer is whole");
        Answer { status: head.status, headers: head.headers, body: body.to_bytes() }
    }

    /// Opens a session with a stream.
    pub async fn stream(mut self, path: &str, headers: &[(&str, &str)]) -> Stream {
        let headers: Vec<_> = headers.iter().copied().chain([("accept", "text/event-stream")]).collect();
        let (head, body) = self.begin("GET", path, &headers, b"").await.into_parts();
        assert_eq!(head.status, StatusCode::OK, "{head:?}");
        assert_eq!(head.headers["content-type"], "text/event-stream");
        let mut stream =
            Stream { http: self, headers: head.headers, body, text: Vec::new(), comments: 0, address: String::new() };
        let first = stream.event().await;
        assert_eq!(first.name, "session");
        assert_eq!(first.data, stream.headers["longwire-session"].to_str().unwrap());
        stream.address = first.data;
        stream
    }
}

#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Answer {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The events of an answer to a poll.
    pub fn events(&self) -> Vec<Event> {
        assert_eq!(self.headers["content-type"], "text/event-stream");
        let mut rest = self.body.to_vec();
        let events: Vec<_> = std::iter::from_fn(|| take_event(&mut rest, &mut 0)).collect();
        assert!(rest.is_empty(), "a poll is answered with whole events: {rest:?}");
        events
    }
}

/// The stream of a session.
pub struct Stream {
    pub http: Http,
    pub headers: HeaderMap,
    /// The path for the session's requests.
    pub address: String,
    pub comments: usize,
    body: Incoming,
    text: Vec<u8>,
}

impl Stream {
    /// The next event; `None` at the end of the stream.
    pub async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = take_event(&mut self.text, &mut self.comments) {
                return Some(event);
            }
            if !self.more().await {
                assert!(self.text.is_empty(), "the stream ended inside an event: {:?}", self.text);
                return None;
            }
        }
    }

    pub async fn event(&mut self) -> Event {
        self.next().await.expect("the stream goes on")
    }

    /// Waits for a comment; events that come before it are dropped.
    pub async fn comment(&mut self) {
        let before = self.comments;
        while self.comments == before {
            assert!(self.more().await, "the stream goes on");
            while take_event(&mut self.text, &mut self.comments).is_some() {}
        }
    }

    /// Reads more; false at the end of the stream, with or without an error.
    async fn more(&mut self) -> bool {
        match timeout(PATIENCE, self.body.frame()).await.expect("something comes") {
            Some(Ok(frame)) => {
                self.text.extend_from_slice(frame.data_ref().map_or(&[][..], |data| data));
                true
            }
            Some(Err(_)) | None => false,
        }
    }
}

/// The first whole event of a text, if there is one.
fn take_event(text: &mut Vec<u8>, comments: &mut usize) -> Option<Event> {
    loop {
        let end = text.windows(2).position(|pair| pair == b"\n\n")? + 2;
        let block: Vec<u8> = text.drain(..end).collect();
        let mut event = Event::default();
        let mut data = Vec::new();
        for line in String::from_utf8(block).expect("UTF-8").lines() {
            let (field, value) = line.split_once(':').unwrap_or((line, ""));
            let value = value.strip_prefix(' ').unwrap_or(value);
            match field {
                "event" => event.name = value.to_owned(),
                "id" => event.id = value.to_owned(),
                "data" => data.push(value.to_owned()),
                "" => *comments += usize::from(!line.is_empty()),
                _ => panic!("unknown field: {line}"),
            }
        }
        if !data.is_empty() {
            event.data = data.join("\n");
            return Some(event);
        }
    }
}
