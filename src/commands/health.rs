//! `longwire health`: asks the admin listener of a running node for `/ready`, so that a container without a shell has a health check.

use std::fmt;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::cli::HealthArgs;
use crate::config::find::{self, NoFile};
use crate::config::model::{Bind, Config};
use crate::logging;
use crate::sockets;
use crate::transport::listening::dial_address;

/// Bytes of an answer that are read at most. The list of a node that lacks something is short.
const MAX_ANSWER_BYTES: usize = 64 << 10;

/// Why a node cannot be called ready.
#[derive(Debug)]
pub enum HealthError {
    /// No configuration was named, and none was found.
    NoFile(NoFile),
    /// The configuration is wrong: its errors, with their lines.
    Config(String),
    /// The configuration switches the admin listener off.
    NoAdmin(PathBuf),
    /// Nothing accepts connections at the admin listener's address.
    Connect { admin: Bind, error: io::Error },
    /// Something was there, but did not give the answer of an admin listener.
    Answer { admin: Bind, error: Box<dyn std::error::Error + Send + Sync> },
    /// No answer came in time.
    TimedOut { admin: Bind, after: Duration },
    /// The node answered that it lacks something.
    NotReady(String),
}

impl fmt::Display for HealthError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoFile(error) => error.fmt(f),
            Self::Config(errors) => f.write_str(errors),
            Self::NoAdmin(file) => {
                write!(
                    f,
                    "{}: admin.bind is \"off\", so there is no listener to ask; give it an address",
                    file.display()
                )
            }
            Self::Connect { admin, error } => write!(f, "cannot connect to the admin listener at {admin}: {error}"),
            Self::Answer { admin, error } => write!(f, "no answer from the admin listener at {admin}: {error}"),
            Self::TimedOut { admin, after } => {
                write!(f, "no answer from the admin listener at {admin} within {after:?}")
            }
            Self::NotReady(missing) => write!(f, "not ready: {missing}"),
        }
    }
}

impl std::error::Error for HealthError {}

/// Asks the node of a configuration whether it is ready, and prints the answer.
pub fn run(args: &HealthArgs) -> io::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    Ok(match runtime.block_on(is_ready(args)) {
        Ok(()) => {
            let _closed_early = io::stdout().write_all(b"ready\n");
            ExitCode::SUCCESS
        }
        Err(error) => {
            logging::tell(format_args!("{error}\n"));
            ExitCode::FAILURE
        }
    })
}

async fn is_ready(args: &HealthArgs) -> Result<(), HealthError> {
    let file = find::file(args.config.config.as_deref()).map_err(HealthError::NoFile)?;
    let admin = Config::admin_of(&file).map_err(|errors| HealthError::Config(errors.to_string()))?;
    let admin = reachable(admin.ok_or(HealthError::NoAdmin(file))?);
    match timeout(args.timeout, ask(&admin)).await {
        Ok(answer) => answer,
        Err(_elapsed) => Err(HealthError::TimedOut { admin, after: args.timeout }),
    }
}

/// The address that a client on this machine connects to: no client can connect to "every address".
fn reachable(admin: Bind) -> Bind {
    match admin {
        Bind::Tcp(address) => Bind::Tcp(dial_address(address)),
        Bind::Unix(path) => Bind::Unix(path),
    }
}

async fn ask(admin: &Bind) -> Result<(), HealthError> {
    let failed = |error| HealthError::Connect { admin: admin.clone(), error };
    let answer = match admin {
        Bind::Tcp(address) => ready(sockets::dial_tcp(address).await.map_err(failed)?).await,
        Bind::Unix(path) => ready(UnixStream::connect(path).await.map_err(failed)?).await,
    };
    match answer {
        // Another server may have this port. The body is that of `http::admin`.
        Ok((StatusCode::OK, said)) if said == "ready" => Ok(()),
        Ok((StatusCode::OK, _)) => {
            Err(HealthError::Answer { admin: admin.clone(), error: "another server has this address".into() })
        }
        Ok((StatusCode::SERVICE_UNAVAILABLE, missing)) => Err(HealthError::NotReady(missing)),
        Ok((status, _)) => Err(HealthError::Answer { admin: admin.clone(), error: format!("status {status}").into() }),
        Err(error) => Err(HealthError::Answer { admin: admin.clone(), error }),
    }
}

/// Sends `GET /ready`, and returns the status and what the answer says.
async fn ready<S>(stream: S) -> Result<(StatusCode, String), Box<dyn std::error::Error + Send + Sync>>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let request = Request::get("/ready").header(header::HOST, "longwire").body(Empty::<Bytes>::new())?;
    let asking = async {
        let answer = sender.send_request(request).await?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), MAX_ANSWER_BYTES).collect().await?.to_bytes();
        Ok((status, String::from_utf8_lossy(&body).trim_end().replace('\n', "; ").replace(char::is_control, " ")))
    };
    // The connection moves the bytes. When it has ended, `asking` has all that will come, and knows of the error.
    let moving = async {
        let _told_to_asking = connection.await;
        std::future::pending::<()>().await;
    };
    tokio::select! {
        answer = asking => answer,
        () = moving => unreachable!("it never ends"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_address_is_asked_on_loopback() {
        for (bind, asked) in
            [("0.0.0.0:9011", "127.0.0.1:9011"), ("[::]:9011", "[::1]:9011"), ("127.0.0.2:1", "127.0.0.2:1")]
        {
            assert_eq!(reachable(Bind::Tcp(bind.parse().unwrap())), Bind::Tcp(asked.parse().unwrap()));
        }
    }
}
