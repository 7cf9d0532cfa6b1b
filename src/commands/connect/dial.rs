//! Makes the connection. For WebSocket it also makes the handshake (RFC 6455 section 4.1), with hyper as HTTP client.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::net::UnixStream;
use tokio_rustls::TlsConnector;

use super::ConnectError;
use super::wire::{Stream, Wire};
use crate::commands::cli::ConnectArgs;
use crate::commands::client::handshake::{self, accept_value, parse_header};
use crate::commands::client::server_address::ServerAddress;
use crate::commands::client::{self, tls};
use crate::proto::framing::Framing;
use crate::sockets;

/// Bytes of a refusal's body that are shown at most.
const MAX_REFUSAL_BYTES: usize = 4096;

/// Connects, with handshakes if needed, and returns a wire that is ready for frames.
pub(super) async fn dial(server: &ServerAddress, args: &ConnectArgs) -> Result<Wire, ConnectError> {
    let fail = |error: io::Error| ConnectError::Dial { url: args.url.clone(), error };
    match server {
        ServerAddress::Tcp { address, tls } => {
            let framing = stream_framing(args)?;
            let stream = open(address, tls.as_ref(), None, args).await?;
            Ok(Wire::new(stream, framing, args.max_frame_bytes, &Bytes::new()))
        }
        ServerAddress::Unix(path) => {
            let framing = stream_framing(args)?;
            let stream = UnixStream::connect(path).await.map_err(fail)?;
            Ok(Wire::new(Box::new(stream), framing, args.max_frame_bytes, &Bytes::new()))
        }
        ServerAddress::WebSocket { address, host, path, tls } => {
            let key = handshake::key(random());
            let request = request(host, path, &key, args)?;
            let stream = open(address, tls.as_ref(), Some(b"http/1.1"), args).await?;
            let (stream, received) = upgrade(stream, request, &key).await?;
            let framing = Framing::WebSocket { deflate: None };
            Ok(Wire::new(stream, framing, args.max_frame_bytes, &received))
        }
    }
}

/// Opens a connection to `address`, with TLS if `tls` has the name that the certificate must have.
async fn open(
    address: &str,
    tls: Option<&ServerName<'static>>,
    protocol: Option<&[u8]>,
    args: &ConnectArgs,
) -> Result<Box<dyn Stream>, ConnectError> {
    let fail = |error: io::Error| ConnectError::Dial { url: args.url.clone(), error };
    let tls = match tls {
        Some(name) => {
            let config = tls::config(protocol, &args.tls).map_err(ConnectError::Usage)?;
            Some((TlsConnector::from(Arc::new(config)), name.clone()))
        }
        None => None,
    };
    let stream = sockets::dial_tcp(address).await.map_err(fail)?;
    match tls {
        Some((connector, name)) => Ok(Box::new(connector.connect(name, stream).await.map_err(fail)?)),
        None => Ok(Box::new(stream)),
    }
}

fn stream_framing(args: &ConnectArgs) -> Result<Framing, ConnectError> {
    client::stream_framing(&args.framing).map_err(ConnectError::Usage)
}

fn request(host: &str, path: &str, key: &str, args: &ConnectArgs) -> Result<Request<Empty<Bytes>>, ConnectError> {
    let mut builder = Request::get(path)
        .header(header::HOST, host)
        .header(header::CONNECTION, "Upgrade")
        .header(header::UPGRADE, "websocket")
        .header(header::SEC_WEBSOCKET_VERSION, "13")
        .header(header::SEC_WEBSOCKET_KEY, key);
    if !args.protocol.is_empty() {
        builder = builder.header(header::SEC_WEBSOCKET_PROTOCOL, args.protocol.join(", "));
    }
    if let Some(origin) = &args.origin {
        builder = builder.header(header::ORIGIN, origin);
    }
    let mut request = builder.body(Empty::new()).map_err(|error| ConnectError::Usage(error.to_string()))?;
    for line in &args.header {
        let (name, value) = parse_header(line).map_err(ConnectError::Usage)?;
        // The user's Host replaces ours. Other headers, such as Cookie, may occur several times.
        if name == header::HOST {
            request.headers_mut().insert(name, value);
        } else {
            request.headers_mut().append(name, value);
        }
    }
    Ok(request)
}

/// Asks for the upgrade. Returns the socket, and the bytes that the server sent after its answer.
async fn upgrade(
    stream: Box<dyn Stream>,
    request: Request<Empty<Bytes>>,
    key: &str,
) -> Result<(Box<dyn Stream>, Bytes), ConnectError> {
    let broken = |error: hyper::Error| ConnectError::Handshake(format!("handshake failed: {error}"));
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
    let asking = async move {
        let response = sender.send_request(request).await.map_err(broken)?;
        check_response(response, key).await.map(hyper::upgrade::on)?.await.map_err(broken)
    };
    // An error of the connection also fails the request, so it is reported there.
    let (_, upgraded) = tokio::join!(connection.with_upgrades(), asking);
    let parts = upgraded?.downcast::<TokioIo<Box<dyn Stream>>>().expect("this is the stream that was given to hyper");
    Ok((parts.io.into_inner(), parts.read_buf))
}

async fn check_response(response: Response<Incoming>, key: &str) -> Result<Response<Incoming>, ConnectError> {
    let status = response.status();
    if status != StatusCode::SWITCHING_PROTOCOLS {
        let body = Limited::new(response.into_body(), MAX_REFUSAL_BYTES).collect().await;
        let body = body.map(|body| body.to_bytes()).unwrap_or_default();
        let body = String::from_utf8_lossy(&body);
        let body: String = body.trim().chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        let colon = if body.is_empty() { "" } else { ": " };
        return Err(ConnectError::Handshake(format!("the server refused the handshake with {status}{colon}{body}")));
    }
    let accept = response.headers().get(header::SEC_WEBSOCKET_ACCEPT);
    if accept.map(HeaderValue::as_bytes) != Some(accept_value(key).as_bytes()) {
        return Err(ConnectError::Handshake("the server's Sec-WebSocket-Accept does not match our key".into()));
    }
    if let Some(extension) = response.headers().get(header::SEC_WEBSOCKET_EXTENSIONS) {
        return Err(ConnectError::Handshake(format!(
            "the server chose a WebSocket extension that was not offered: {extension:?}"
        )));
    }
    Ok(response)
}

fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("the operating system has random numbers");
    bytes
}
