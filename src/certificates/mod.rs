//! TLS for listeners: certificates and keys are read from files, chosen by the name that a client asks for, and renewed while
//! sessions go on. Also TLS from this node to servers.
//!
//! - `client`: TLS to a server.
//! - `files`: reads PEM files, and says what is wrong with them.
//! - `names`: chooses a certificate by name.
//! - `params`: the params that tell PHP about a TLS connection.
//!
//! Promises: an [`Acceptor`] can always accept handshakes, and a broken renewed file changes nothing. TLS 1.2 and 1.3 only, with
//! the cipher suites of rustls, none of which is weak. Sessions are resumed by tickets whose keys are made here, so nothing is
//! stored per client. Tickets outlive a renewal, except where clients show certificates. A resumed session is not verified again,
//! so there a ticket is valid only as long as the roots that it was issued under.

mod client;
mod files;
mod names;
mod params;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::SystemTime;

use rustls::crypto::CryptoProvider;
use rustls::server::{NoServerSessionStorage, ProducesTickets, ServerConfig, WebPkiClientVerifier};
use rustls::version::{TLS12, TLS13};

pub use self::client::{ClientSettings, roots_of_system};
pub use self::files::{Fault, LoadError, Role};
pub use self::names::asked_name;
pub use self::params::{TlsFacts, params};

use self::names::Resolver;

use crate::locks::lock;

/// Settings of a listener's TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Certificate chains with their keys. The first one is also for names that no other one has.
    pub pairs: Vec<Pair>,
    /// The file of authorities for clients' certificates.
    pub client_ca: Option<PathBuf>,
    /// Whether clients have to show a certificate.
    pub client_certs: ClientCerts,
    /// Protocols above TLS, by preference (RFC 7301). Empty: nothing is negotiated.
    pub protocols: Vec<&'static [u8]>,
}

/// A certificate chain and the key of its first certificate, in PEM files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair {
    /// The certificate, followed by the ones that lead to a root.
    pub cert: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// Whether clients have to show a certificate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClientCerts {
    /// They are not asked.
    #[default]
    Off,
    /// A certificate that is shown must be valid.
    Optional,
    /// Without a valid one the handshake fails.
    Required,
}

/// A warning about a file that can be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remark {
    /// The file.
    pub role: Role,
    /// The warning.
    pub text: String,
}

/// Provides a TLS listener with what it needs to accept handshakes.
pub struct Acceptor {
    settings: Settings,
    provider: Arc<CryptoProvider>,
    ticketer: Arc<dyn ProducesTickets>,
    state: Mutex<LoadedCertificates>,
}

struct LoadedCertificates {
    config: Arc<ServerConfig>,
    /// The state of the files when they were last checked, valid or not.
    stamps: Vec<FileStamp>,
}

/// Modification time, size and inode: enough to see that a file has changed.
type FileStamp = Option<(SystemTime, u64, u64)>;

impl Acceptor {
    /// Loads every file.
    ///
    /// # Errors
    ///
    /// The first file that cannot be used.
    pub fn load(settings: Settings) -> Result<(Self, Vec<Remark>), LoadError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let ticketer = make_ticketer(&settings)?;
        // Taken before the files are read, so that a change in between is noticed.
        let stamps = stamps(&settings);
        let (config, remarks) = configure(&settings, &provider, &ticketer)?;
        Ok((Self { settings, provider, ticketer, state: Mutex::new(LoadedCertificates { config, stamps }) }, remarks))
    }

    /// The configuration for the next handshake.
    pub fn server_config(&self) -> Arc<ServerConfig> {
        self.lock().config.clone()
    }

    /// Loads the files again if one of them has changed. True if one has and all are valid. Broken files are reported once, until
    /// they change again.
    ///
    /// # Errors
    ///
    /// The first file that cannot be used. The old ones stay in use.
    pub fn reload(&self) -> Result<bool, LoadError> {
        let stamps = stamps(&self.settings);
        if self.lock().stamps == stamps {
            return Ok(false);
        }
        self.lock().stamps = stamps;
        self.reload_now().map(|()| true)
    }

    /// Loads the files again.
    ///
    /// # Errors
    ///
    /// The first file that cannot be used. The old ones stay in use.
    pub fn reload_now(&self) -> Result<(), LoadError> {
        let stamps = stamps(&self.settings);
        let ticketer = match self.settings.client_certs {
            ClientCerts::Off => self.ticketer.clone(),
            ClientCerts::Optional | ClientCerts::Required => make_ticketer(&self.settings)?,
        };
        let (config, _) = configure(&self.settings, &self.provider, &ticketer)?;
        *self.lock() = LoadedCertificates { config, stamps };
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, LoadedCertificates> {
        lock(&self.state)
    }
}

impl fmt::Debug for Acceptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Acceptor").field("settings", &self.settings).finish_non_exhaustive()
    }
}

fn make_ticketer(settings: &Settings) -> Result<Arc<dyn ProducesTickets>, LoadError> {
    rustls::crypto::ring::Ticketer::new()
        .map_err(|error| LoadError::of(Role::Cert(0), &settings.pairs[0].cert, Fault::Rustls(error)))
}

fn configure(
    settings: &Settings,
    provider: &Arc<CryptoProvider>,
    ticketer: &Arc<dyn ProducesTickets>,
) -> Result<(Arc<ServerConfig>, Vec<Remark>), LoadError> {
    let mut remarks = Vec::new();
    let mut resolver = Resolver::default();
    for (number, pair) in settings.pairs.iter().enumerate() {
        let loaded = files::load_pair(number, pair, provider)?;
        remarks.extend(loaded.remarks);
        resolver.add(loaded.names, Arc::new(loaded.key));
    }
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&TLS13, &TLS12])
        .expect("ring has cipher suites for both");
    let builder = match (&settings.client_ca, settings.client_certs) {
        (Some(path), wanted @ (ClientCerts::Optional | ClientCerts::Required)) => {
            let roots = files::load_roots(path)?;
            let mut verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone());
            if wanted == ClientCerts::Optional {
                verifier = verifier.allow_unauthenticated();
            }
            let verifier = verifier
                .build()
                .map_err(|error| LoadError::of(Role::Roots, path, Fault::Unusable(error.to_string())))?;
            builder.with_client_cert_verifier(verifier)
        }
        _ => builder.with_no_client_auth(),
    };
    let mut config = builder.with_cert_resolver(Arc::new(resolver));
    config.alpn_protocols = settings.protocols.iter().map(|protocol| protocol.to_vec()).collect();
    config.ticketer = ticketer.clone();
    config.session_storage = Arc::new(NoServerSessionStorage {});
    Ok((Arc::new(config), remarks))
}

fn stamps(settings: &Settings) -> Vec<FileStamp> {
    let files = settings.pairs.iter().flat_map(|pair| [&pair.cert, &pair.key]).chain(&settings.client_ca);
    files.map(|path| stamp(path)).collect()
}

fn stamp(path: &Path) -> FileStamp {
    use std::os::unix::fs::MetadataExt;
    let metadata = std::fs::metadata(path).ok()?;
    Some((metadata.modified().ok()?, metadata.len(), metadata.ino()))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    /// A folder with a self-signed certificate for each name.
    fn folder(names: &[&str]) -> (tempfile::TempDir, Settings) {
        let dir = tempfile::tempdir().unwrap();
        let pairs = names.iter().enumerate().map(|(number, name)| make(dir.path(), number, name)).collect();
        let protocols = Vec::new();
        (dir, Settings { pairs, client_ca: None, client_certs: ClientCerts::Off, protocols })
    }

    fn make(dir: &Path, number: usize, name: &str) -> Pair {
        let made = rcgen::generate_simple_self_signed(vec![name.to_owned()]).unwrap();
        let pair = Pair { cert: dir.join(format!("{number}.pem")), key: dir.join(format!("{number}.key")) };
        fs::write(&pair.cert, made.cert.pem()).unwrap();
        fs::write(&pair.key, made.signing_key.serialize_pem()).unwrap();
        pair
    }

    fn fails(settings: Settings, role: Role, part: &str) {
        let error = Acceptor::load(settings).expect_err("one file is of no use");
        assert!(error.role == role && error.to_string().contains(part), "{error:?} {error}");
    }

    #[test]
    fn a_file_that_is_of_no_use_is_named_with_what_is_wrong() {
        let (dir, good) = folder(&["a.example", "b.example"]);
        Acceptor::load(good.clone()).unwrap();
        let write = |name: &str, text: &str| {
            fs::write(dir.path().join(name), text).unwrap();
            dir.path().join(name)
        };
        let with = |change: &dyn Fn(&mut Settings)| {
            let mut settings = good.clone();
            change(&mut settings);
            settings
        };
        let absent = dir.path().join("absent.pem");
        fails(with(&|s| s.pairs[0].cert.clone_from(&absent)), Role::Cert(0), "No such file");
        fails(with(&|s| s.pairs[1].key.clone_from(&absent)), Role::Key(1), "No such file");
        let empty = write("empty.pem", "nothing here");
        fails(with(&|s| s.pairs[0].cert.clone_from(&empty)), Role::Cert(0), "no certificate in it");
        fails(with(&|s| s.pairs[0].key.clone_from(&empty)), Role::Key(0), "no private key in it");
        fails(
            with(&|s| s.pairs[0].key.clone_from(&good.pairs[1].key)),
            Role::Key(0),
            "does not belong to the certificate",
        );
        let locked =
            write("locked.key", "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n");
        fails(with(&|s| s.pairs[0].key.clone_from(&locked)), Role::Key(0), "encrypted");
        fails(with(&|s| s.pairs[0].cert = dir.path().to_owned()), Role::Cert(0), "is not a file");
        fails(with(&|s| s.pairs[0].key = "/dev/zero".into()), Role::Key(0), "is not a file");
        let big = write("big.pem", &"x".repeat((4 << 20) + 1));
        fails(with(&|s| s.pairs[0].cert.clone_from(&big)), Role::Cert(0), "larger than 4194304 bytes");
        let garbage = write("garbage.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
        fails(with(&|s| s.pairs[0].cert.clone_from(&garbage)), Role::Cert(0), "not a certificate");
        let ca = with(&|s| (s.client_ca, s.client_certs) = (Some(empty.clone()), ClientCerts::Required));
        fails(ca, Role::Roots, "no certificate in it");
    }

    #[test]
    fn what_works_and_will_surprise_somebody_is_remarked() {
        let check = |years: [i32; 2], mode: u32, expected: &[(Role, &str)]| {
            let (dir, settings) = folder(&[]);
            let mut wanted = rcgen::CertificateParams::new(vec!["a.example".to_owned()]).unwrap();
            wanted.not_before = rcgen::date_time_ymd(years[0], 1, 1);
            wanted.not_after = rcgen::date_time_ymd(years[1], 1, 1);
            let key = rcgen::KeyPair::generate().unwrap();
            let pair = Pair { cert: dir.path().join("a.pem"), key: dir.path().join("a.key") };
            fs::write(&pair.cert, wanted.self_signed(&key).unwrap().pem()).unwrap();
            fs::write(&pair.key, key.serialize_pem()).unwrap();
            fs::set_permissions(&pair.key, PermissionsExt::from_mode(mode)).unwrap();
            let (_, remarks) = Acceptor::load(Settings { pairs: vec![pair], ..settings }).unwrap();
            let are_expected = remarks.len() == expected.len()
                && remarks
                    .iter()
                    .zip(expected)
                    .all(|(found, (role, part))| found.role == *role && found.text.contains(part));
            assert!(are_expected, "{remarks:?} {expected:?}");
        };
        check([2020, 2100], 0o640, &[]);
        check([2020, 2021], 0o600, &[(Role::Cert(0), "a.pem expired on Jan")]);
        check([2099, 2100], 0o600, &[(Role::Cert(0), "a.pem is not valid before Jan")]);
        check([2020, 2100], 0o644, &[(Role::Key(0), "a.key can be read by every user")]);
    }

    #[test]
    fn renewed_files_are_taken_and_bad_ones_leave_what_is_there() {
        let (dir, settings) = folder(&["a.example"]);
        let pair = settings.pairs[0].clone();
        let (acceptor, _) = Acceptor::load(settings).unwrap();
        let first = acceptor.server_config();
        assert!(!acceptor.reload().unwrap(), "nothing has changed");
        let text = fs::read(&pair.cert).unwrap();
        fs::write(&pair.cert, "half a file").unwrap();
        assert!(acceptor.reload().is_err());
        assert!(!acceptor.reload().unwrap(), "it was told");
        assert!(acceptor.reload_now().is_err(), "but an explicit reload reports it again");
        assert!(Arc::ptr_eq(&first, &acceptor.server_config()));
        fs::write(&pair.cert, text).unwrap();
        assert!(acceptor.reload().unwrap());
        make(dir.path(), 0, "a.example");
        assert!(acceptor.reload().unwrap());
        assert!(!Arc::ptr_eq(&first, &acceptor.server_config()));
    }
}
