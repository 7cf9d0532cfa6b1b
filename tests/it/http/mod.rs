//! The HTTP side of a node: WebSocket handshakes, event streams, plain requests, TLS, proxies, and malicious clients.

mod autobahn;
mod event_streams;
mod floods;
mod hostile;
mod plain_requests;
mod proxies;
mod requests;
mod static_files;
mod subprotocols;
mod tls;
mod unix_sockets;
