//! TLS to an engine: the handshake, with the files as they are at that moment, and errors that tell an operator what to do.

use std::error::Error;
use std::io;
use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::{AlertDescription, CertificateError, InvalidMessage};
use tokio::net::TcpStream;
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::ANSWER_TIMEOUT;
use crate::config::model::ClientTls;
use crate::sockets;

/// Connects and does the TLS handshake.
pub(super) async fn connect(settings: &ClientTls, host: &str, port: u16) -> io::Result<TlsStream<TcpStream>> {
    let settings = settings.clone();
    let config = off_the_runtime(move || settings.client_config()).await?;
    let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
    let socket = sockets::dial_tcp((host, port)).await?;
    let shaking_hands = TlsConnector::from(Arc::new(config)).connect(name, socket);
    // A Redis without TLS does not answer either: it waits for the end of a line.
    let silent = |_| {
        io::Error::new(
            io::ErrorKind::TimedOut,
            "no answer to the TLS handshake: the server may not speak TLS on this port",
        )
    };
    timeout(ANSWER_TIMEOUT, shaking_hands).await.map_err(silent)?
}

/// Checks that the files are usable.
pub(super) async fn check(settings: &ClientTls) -> io::Result<()> {
    let settings = settings.clone();
    off_the_runtime(move || settings.check().map(drop).map_err(|error| error.to_string())).await
}

/// Reads files away from the runtime's threads: a few own ones, or some hundred of the system.
async fn off_the_runtime<T: Send + 'static>(
    read: impl FnOnce() -> Result<T, String> + Send + 'static,
) -> io::Result<T> {
    spawn_blocking(read).await.map_err(io::Error::other)?.map_err(io::Error::other)
}

/// The meaning of a TLS error for an operator. `None` for other errors, and for errors that explain themselves.
pub(super) fn explain(error: &(dyn Error + 'static), settings: &ClientTls) -> Option<String> {
    let error = tls_error(error)?;
    let meaning = match error {
        rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer) => match &settings.ca {
            Some(file) => format!("its certificate is not signed by an authority in {}", file.display()),
            None => "its certificate is not signed by an authority that this system trusts (set [cluster.tls] ca)"
                .to_owned(),
        },
        rustls::Error::AlertReceived(alert) if is_about_certificates(*alert) => match &settings.own {
            Some(own) => format!("it does not accept the certificate in {}", own.cert.display()),
            None => "it requires a certificate of this node (set [cluster.tls] cert and key)".to_owned(),
        },
        rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType) => {
            "it does not speak TLS on this port".to_owned()
        }
        _ => return None,
    };
    Some(format!("{meaning}: {error}"))
}

/// Alerts that servers send to clients whose certificate is missing or not accepted (RFC 8446 section 6.2). Servers built with Go
/// before 1.21 report a missing certificate as a bad one.
fn is_about_certificates(alert: AlertDescription) -> bool {
    matches!(
        alert,
        AlertDescription::CertificateRequired
            | AlertDescription::BadCertificate
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::CertificateRevoked
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateUnknown
            | AlertDescription::UnknownCA
            | AlertDescription::AccessDenied
    )
}

/// Finds the rustls error inside an error of a client.
fn tls_error<'e>(error: &'e (dyn Error + 'static)) -> Option<&'e rustls::Error> {
    if let Some(found) = error.downcast_ref() {
        return Some(found);
    }
    // The `source` of these two is the source of the error that they wrap, not that error itself.
    if let Some(wrapped) = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
        return tls_error(wrapped);
    }
    if let Some(shared) = error.downcast_ref::<Arc<dyn Error + Send + Sync>>() {
        return tls_error(shared.as_ref());
    }
    tls_error(error.source()?)
}

#[cfg(test)]
mod tests {
    use redis::RedisError;

    use super::*;
    use crate::certificates::Pair;

    #[track_caller]
    fn check(error: &rustls::Error, settings: &ClientTls, expected: Option<&str>) {
        // The forms in which a stream and both clients return it.
        let io = || io::Error::new(io::ErrorKind::InvalidData, error.clone());
        let nats = async_nats::ConnectError::from(io());
        let told = [explain(&io(), settings), explain(&RedisError::from(io()), settings), explain(&nats, settings)];
        let expected = expected.map(|text| format!("{text}: {error}"));
        assert_eq!(told, [expected.clone(), expected.clone(), expected], "{error}");
    }

    #[test]
    fn an_operator_is_told_which_key_to_look_at() {
        let none = ClientTls::default();
        let pair = Pair { cert: "node.pem".into(), key: "node.key".into() };
        let both = ClientTls { ca: Some("ca.pem".into()), own: Some(pair) };
        let unknown = rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer);
        check(&unknown, &both, Some("its certificate is not signed by an authority in ca.pem"));
        let by_system = "its certificate is not signed by an authority that this system trusts (set [cluster.tls] ca)";
        check(&unknown, &none, Some(by_system));
        for alert in [AlertDescription::CertificateRequired, AlertDescription::BadCertificate] {
            let alert = rustls::Error::AlertReceived(alert);
            check(&alert, &none, Some("it requires a certificate of this node (set [cluster.tls] cert and key)"));
            check(&alert, &both, Some("it does not accept the certificate in node.pem"));
        }
        check(&rustls::Error::AlertReceived(AlertDescription::InternalError), &none, None);
        let plain = rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType);
        check(&plain, &none, Some("it does not speak TLS on this port"));
    }

    #[test]
    fn what_is_no_error_of_tls_is_left_alone() {
        let refused = || io::Error::from(io::ErrorKind::ConnectionRefused);
        assert_eq!(explain(&refused(), &ClientTls::default()), None);
        assert_eq!(explain(&RedisError::from(refused()), &ClientTls::default()), None);
    }
}
