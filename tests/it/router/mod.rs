//! Commands to sessions: the router port, the HTTP API, and their PHP clients.

mod api;
mod api_schema;
mod auth;
mod client;
mod load;
mod php_client;
mod port;
mod suite;
