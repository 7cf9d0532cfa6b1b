//! Addresses of engines. `longwire check` and the node use the same parsers, so neither accepts an address that the other refuses.

use async_nats::ServerAddr;
use redis::io::tcp::TcpSettings;
use redis::{ConnectionAddr, ConnectionInfo, IntoConnectionInfo, ProtocolVersion};

/// A server of Redis, or a Sentinel: `redis://`, `rediss://`, `redis+unix://`, and the same with `valkey`.
///
/// # Errors
///
/// The broken rule, without any part of the URL.
#[expect(clippy::disallowed_methods, reason = "the one place")]
pub fn redis_server(url: &str) -> Result<ConnectionInfo, String> {
    // The parser's own error may repeat a part of the URL.
    let wanted = "must be redis://HOST:PORT/NUMBER, the same with rediss://, or redis+unix:///PATH";
    let info = url.into_connection_info().map_err(|_| wanted.to_owned())?;
    if matches!(info.addr(), ConnectionAddr::TcpTls { insecure: true, .. }) {
        return Err(
            "#insecure would accept every certificate: name the trusted authorities in [cluster.tls] ca".to_owned()
        );
    }
    let settings = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP3);
    // A publish is sent at once, in writes of any length: by default redis-rs lets the kernel hold small writes back.
    let tcp = TcpSettings::default().set_nodelay(true);
    Ok(info.set_redis_settings(settings).set_tcp_settings(tcp))
}

/// A server of NATS: `nats://` and `tls://`, or `host:port` alone.
///
/// # Errors
///
/// The broken rule, without any part of the URL.
pub fn nats_server(url: &str) -> Result<ServerAddr, String> {
    let server: ServerAddr = url.parse().map_err(|error: std::io::Error| error.to_string())?;
    match server.scheme() {
        _ if server.host().is_empty() => Err("the host is missing".to_owned()),
        "nats" | "tls" => Ok(server),
        _ => Err("must begin with nats:// or tls://".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_server_is_refused_without_a_piece_of_it() {
        for url in [
            "redis:/user:hunter2@10.0.0.5",
            "redis://user:hunter2@10.0.0.5:99999",
            "http://user:hunter2@10.0.0.5:6379",
            "user:hunter2@10.0.0.5",
            "redis://user:hunter2@",
            "redis://user:hunter2@0.0.0.0",
            "rediss://user:hunter2@10.0.0.5#insecure",
            "",
        ] {
            let wrong = redis_server(url).expect_err(url);
            assert!(!wrong.is_empty() && !wrong.contains("hunter2") && !wrong.contains("10.0.0"), "{url}: {wrong}");
        }
        for url in
            ["http://user:hunter2@10.0.0.5", "nats://user:hunter2@10.0.0.5:99999", "nats://", "wss://hunter2@a", ""]
        {
            let wrong = nats_server(url).expect_err(url);
            assert!(!wrong.is_empty() && !wrong.contains("hunter2") && !wrong.contains("10.0.0"), "{url}: {wrong}");
        }
        for url in [
            "redis://10.0.0.5",
            "rediss://u:p@a:6380/1",
            "valkeys://a",
            "redis+unix:///run/r.sock",
            "redis://[::1]:6379",
        ] {
            redis_server(url).expect(url);
        }
        for url in ["nats://u:p@a:4222", "t0ken@a", "10.0.0.5:4222", "tls://[::1]:4222"] {
            nats_server(url).expect(url);
        }
    }

    #[test]
    fn what_is_published_to_redis_does_not_wait_for_more() {
        assert!(redis_server("redis://10.0.0.5").expect("a server").tcp_settings().nodelay());
    }
}
