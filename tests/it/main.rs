//! Tests of the whole: the real binary, the real php-fpm, real peers. One test binary, so that the crate is linked once.

// A test binary has no outside: `pub` means "for the other files here".
#![allow(unreachable_pub)]

#[cfg(feature = "lua")]
mod ancestor;
mod answers;
mod api;
mod api_schema;
mod autobahn;
mod bench;
mod bounds;
mod bridge;
mod chat;
mod check;
mod cluster;
mod cluster_demo;
mod cluster_faults;
mod cluster_peers;
mod cluster_steady;
mod cmpp;
mod codings;
mod concurrency_per;
mod connect;
mod control_headers;
mod dev_page;
mod devices;
mod docker;
mod engine_clusters;
mod engine_tls;
mod event_streams;
mod example_notify;
mod example_push;
mod examples;
mod failing_scripts;
mod faults;
mod floods;
mod frameworks;
mod framing_interop;
mod goodbyes;
mod guests;
mod heartbeat;
mod hostile;
mod lifecycle;
mod limits;
mod log_trouble;
#[cfg(feature = "lua")]
mod lua;
mod odd_orders;
mod own_faults;
mod php_client;
mod plain_requests;
mod presence;
mod proxies;
mod published;
mod readme;
mod requests;
mod responders;
mod router_auth;
mod router_client;
mod router_load;
mod router_port;
mod router_suite;
mod session_cookies;
mod static_files;
mod statuses;
mod subprotocols;
mod support;
mod tidy;
mod tidy_locks;
mod tls;
mod unix_sockets;
mod upstream_background;
mod upstream_faults;
mod upstream_peers;
mod upstream_pool;
mod upstream_supervisor;
