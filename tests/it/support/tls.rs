//! Certificates of a private authority, and clients that trust it.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// An authority that signs any certificate, and a folder for its certificates.
pub struct Authority {
    dir: tempfile::TempDir,
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
}

/// A certificate and its key, in files.
pub struct Signed {
    pub cert: PathBuf,
    pub key: PathBuf,
    chain: Vec<CertificateDer<'static>>,
    der: Vec<u8>,
}

impl Authority {
    pub fn new(name: &str) -> Self {
        let mut params = CertificateParams::new(vec![]).expect("no names");
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("random bytes");
        let made = params.self_signed(&key).expect("good parameters");
        let dir = tempfile::tempdir().expect("a temporary directory");
        fs::write(dir.path().join("ca.pem"), made.pem()).expect("the directory is ours");
        Self { dir, certificate: made.der().clone(), issuer: Issuer::new(params, key) }
    }

    pub fn ca_file(&self) -> PathBuf {
        self.dir.path().join("ca.pem")
    }

    /// Signs a certificate for these DNS names with this common name. A later one with the same file name replaces it.
    pub fn sign(&self, file: &str, common_name: &str, names: &[&str]) -> Signed {
        let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).expect("good names");
        params.distinguished_name.push(DnType::CommonName, common_name);
        let key = KeyPair::generate().expect("random bytes");
        let made = params.signed_by(&key, &self.issuer).expect("good parameters");
        let path = |ending: &str| self.dir.path().join(format!("{file}.{ending}"));
        let (cert, key_file) = (path("pem"), path("key"));
        // Write to a new file and rename it, so that a reader in between finds the complete old file.
        for (file, text) in [(&key_file, key.serialize_pem()), (&cert, made.pem())] {
            let fresh = file.with_extension("new");
            fs::write(&fresh, text).expect("the directory is ours");
            fs::rename(&fresh, file).expect("the directory is ours");
        }
        Signed { cert, key: key_file, chain: vec![made.der().clone()], der: key.serialize_der() }
    }

    /// A TLS client that presents `own` if it is asked for a certificate.
    pub fn client(&self, versions: &[&'static SupportedProtocolVersion], own: Option<&Signed>) -> TlsConnector {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.clone()).expect("a certificate");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .expect("versions of ring")
            .with_root_certificates(roots);
        let config = match own {
            None => builder.with_no_client_auth(),
            Some(own) => {
                let key = PrivateKeyDer::try_from(own.der.clone()).expect("a key");
                builder.with_client_auth_cert(own.chain.clone(), key).expect("they belong together")
            }
        };
        TlsConnector::from(Arc::new(config))
    }
}

/// Connects and makes the TLS handshake.
pub async fn connect(
    connector: &TlsConnector,
    address: SocketAddr,
    name: &str,
) -> std::io::Result<TlsStream<TcpStream>> {
    let name = ServerName::try_from(name.to_owned()).expect("a DNS name");
    let socket = TcpStream::connect(address).await?;
    socket.set_nodelay(true)?;
    connector.connect(name, socket).await
}

/// The table of a listener whose default certificate is `signed`.
pub fn table(signed: &Signed, more: &str) -> String {
    let quoted = |path: &Path| format!("{:?}", path.display().to_string());
    format!("tls = {{ cert = {}, key = {}{more} }}\n", quoted(&signed.cert), quoted(&signed.key))
}
