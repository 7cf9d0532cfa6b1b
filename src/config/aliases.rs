//! Words that people know from other systems, and our words for them. They are not accepted, but suggested when they are refused.
//!
//! Searching for the nearest spelling finds typing errors, but does not lead from `disconnect` to `close`.

/// Keys of other servers and of PHP frameworks, for all tables. A suggestion counts only if the table has that key.
const KEYS: &[(&str, &[&str])] = &[
    // Where something listens.
    ("bind", &["listen", "addr", "address", "host", "hostname", "port", "socket_path"]),
    ("backlog", &["listen_backlog", "somaxconn"]),
    ("protocol", &["type", "scheme", "transport", "mode"]),
    ("routes", &["path", "paths", "route", "location", "locations", "uri", "url", "endpoint"]),
    ("static", &["root", "document_root", "public", "static_dir", "public_dir", "docroot"]),
    ("app", &["handler", "application", "service"]),
    ("tls", &["ssl", "https", "wss"]),
    ("cert", &["certificate", "cert_file", "certfile", "ssl_certificate", "ssl_cert_file", "local_cert", "crt"]),
    ("key", &["private_key", "key_file", "keyfile", "ssl_certificate_key", "ssl_key_file", "local_pk"]),
    ("client_ca", &["ca", "ca_file", "ssl_client_certificate", "ssl_client_cert_file"]),
    ("client_certs", &["verify_client", "ssl_verify_client", "ssl_verify_peer", "verify_peer"]),
    ("trusted_proxies", &["set_real_ip_from", "real_ip_from", "proxies"]),
    ("forwarded", &["real_ip_header", "forwarded_header"]),
    ("origins", &["allowed_origins", "allow_origin", "cors", "cors_origins"]),
    ("deflate", &["compression", "permessage_deflate", "websocket_compression", "compress"]),
    ("ping_interval", &["heartbeat", "heartbeat_check_interval", "ping", "keepalive", "websocket_ping"]),
    ("owner", &["user", "listen_owner"]),
    ("group", &["listen_group"]),
    ("mode", &["permissions", "listen_mode", "chmod", "umask"]),
    // How bytes become frames: Swoole's names, and Workerman's.
    ("length_bytes", &["package_length_type", "length_type", "length_width", "width"]),
    ("length_offset", &["package_length_offset"]),
    ("header_bytes", &["package_body_offset", "body_offset", "header_length"]),
    ("delimiter", &["package_eof", "eof", "separator", "end"]),
    ("type", &["framing", "codec", "protocol", "open_length_check", "open_eof_check", "open_eof_split"]),
    // The handler of a frame, and its limits.
    ("script", &["file", "script_filename", "php", "handler", "entry", "index"]),
    ("params", &["fastcgi_param", "fastcgi_params", "env", "environment"]),
    (
        "max_frame_bytes",
        &["package_max_length", "max_packet_size", "max_message_size", "max_payload", "client_max_body_size"],
    ),
    ("outbox_bytes", &["buffer_output_size", "socket_buffer_size", "max_send_buffer_size"]),
    ("idle_timeout", &["heartbeat_idle_time", "keepalive_timeout", "timeout"]),
    ("events", &["callbacks", "hooks"]),
    // Where PHP runs.
    ("backends", &["server", "servers", "backend", "fastcgi_pass", "address", "addresses", "hosts", "listen"]),
    ("max_connections", &["max_children", "workers", "max_conns", "pool_size"]),
    ("response_timeout", &["fastcgi_read_timeout", "read_timeout", "timeout"]),
    ("request_timeout", &["request_terminate_timeout", "max_execution_time"]),
    ("connect_timeout", &["fastcgi_connect_timeout"]),
    ("workers", &["worker_num", "max_children", "children", "processes", "pm_max_children"]),
    ("ini", &["php_admin_value", "php_value", "php_ini"]),
    // The node.
    ("threads", &["worker_num", "reactor_num", "workers", "worker_processes"]),
    ("max_sessions", &["max_connection", "max_connections", "max_conn", "worker_connections"]),
    ("level", &["log_level", "loglevel"]),
    ("secret", &["password", "auth", "requirepass"]),
    ("token", &["password", "auth", "api_key", "bearer"]),
    ("urls", &["url", "servers", "hosts", "host"]),
];

/// Our key for a foreign one, if the table has it.
pub(super) fn key<'k>(written: &str, mut known: impl Iterator<Item = &'k str>) -> Option<&'k str> {
    let written = written.to_ascii_lowercase().replace('-', "_");
    let meant = |key: &&str| KEYS.iter().any(|(ours, theirs)| ours == key && theirs.contains(&&*written));
    known.find(meant)
}

/// Our word for a foreign one. Each entry of `aliases` begins with ours.
pub(super) fn word(written: &str, aliases: &[(&'static str, &[&str])]) -> Option<&'static str> {
    let bare = |text: &str| text.to_ascii_lowercase().replace(['-', '_', ' '], "");
    let written = bare(written);
    aliases.iter().find(|(_, theirs)| theirs.iter().any(|theirs| bare(theirs) == written)).map(|(ours, _)| *ours)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_offered_only_where_it_may_stand() {
        let listener = ["bind", "protocol", "routes"];
        assert_eq!(key("listen", listener.into_iter()), Some("bind"));
        assert_eq!(key("Listen", listener.into_iter()), Some("bind"));
        assert_eq!(key("fastcgi_pass", listener.into_iter()), None);
        assert_eq!(key("fastcgi-pass", ["backends"].into_iter()), Some("backends"));
    }

    #[test]
    fn no_alias_is_a_key_that_it_stands_for() {
        for (ours, theirs) in KEYS {
            assert!(!theirs.contains(ours), "{ours}");
        }
    }
}
