//! Reads PEM files: certificate chains, keys, roots.

use std::fmt;
use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use rustls::{InconsistentKeys, RootCertStore};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use super::{Pair, Remark};

/// Largest file. A chain has a handful of certificates of 2 KB each, and a bundle of roots some hundred.
const MAX_FILE_BYTES: u64 = 4 << 20;

/// The use of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The certificates of a pair.
    Cert(usize),
    /// The key of a pair.
    Key(usize),
    /// The authorities for the other side's certificates.
    Roots,
}

/// A file that cannot be used.
#[derive(Debug)]
pub struct LoadError {
    /// The use of the file.
    pub role: Role,
    /// The path of the file.
    pub path: PathBuf,
    /// The error.
    pub fault: Fault,
}

/// The reason why a file cannot be used.
#[derive(Debug)]
pub enum Fault {
    /// It cannot be read.
    Io(io::Error),
    /// It does not contain what it should: a certificate or a private key.
    Nothing(&'static str),
    /// Its content cannot be used.
    Unusable(String),
    /// The key belongs to another certificate.
    OtherKey,
    /// rustls does not accept it.
    Rustls(rustls::Error),
}

impl LoadError {
    pub(super) fn of(role: Role, path: &Path, fault: Fault) -> Self {
        Self { role, path: path.to_owned(), fault }
    }
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.path.display())?;
        match &self.fault {
            Fault::Io(error) => error.fmt(f),
            Fault::Nothing(what) => write!(f, "there is no {what} in it (PEM)"),
            Fault::Unusable(what) => f.write_str(what),
            Fault::OtherKey => f.write_str("does not belong to the certificate"),
            Fault::Rustls(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for LoadError {}

/// A pair that can be used.
pub(super) struct Loaded {
    pub(super) key: CertifiedKey,
    /// DNS names that the certificate is for.
    pub(super) names: Vec<String>,
    pub(super) remarks: Vec<Remark>,
}

pub(super) fn load_pair(number: usize, pair: &Pair, provider: &CryptoProvider) -> Result<Loaded, LoadError> {
    let (cert_role, key_role) = (Role::Cert(number), Role::Key(number));
    let chain = certificates(cert_role, &pair.cert)?;
    let (names, mut remarks) = judge(cert_role, &pair.cert, &chain[0])?;
    let text = read(key_role, &pair.key)?;
    let key = PrivateKeyDer::from_pem_slice(&text).map_err(|error| {
        let is_encrypted = text.windows(9).any(|window| window == b"ENCRYPTED");
        let fault = match error {
            _ if is_encrypted => {
                Fault::Unusable("is encrypted, and a server cannot ask for a passphrase: decrypt the key".to_owned())
            }
            pem::Error::NoItemsFound => Fault::Nothing("private key"),
            error => of_pem(&error),
        };
        LoadError::of(key_role, &pair.key, fault)
    })?;
    let key = CertifiedKey::from_der(chain, key, provider).map_err(|error| match error {
        rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
            LoadError::of(key_role, &pair.key, Fault::OtherKey)
        }
        error => LoadError::of(key_role, &pair.key, Fault::Rustls(error)),
    })?;
    let mode = fs::metadata(&pair.key).map(|metadata| metadata.permissions().mode());
    if mode.is_ok_and(|mode| mode & 0o004 != 0) {
        let text = format!("{} can be read by every user of this machine", pair.key.display());
        remarks.push(Remark { role: key_role, text });
    }
    Ok(Loaded { key, names, remarks })
}

pub(super) fn load_roots(path: &Path) -> Result<RootCertStore, LoadError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(Role::Roots, path)? {
        roots.add(certificate).map_err(|error| LoadError::of(Role::Roots, path, Fault::Rustls(error)))?;
    }
    Ok(roots)
}

/// Reads certificates; at least one.
fn certificates(role: Role, path: &Path) -> Result<Vec<CertificateDer<'static>>, LoadError> {
    let text = read(role, path)?;
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    match certificates {
        Ok(certificates) if certificates.is_empty() => Err(LoadError::of(role, path, Fault::Nothing("certificate"))),
        Ok(certificates) => Ok(certificates),
        Err(error) => Err(LoadError::of(role, path, of_pem(&error))),
    }
}

/// Turns a PEM error into a fault. The crate prints a missing marker as a list of numbers.
fn of_pem(error: &pem::Error) -> Fault {
    Fault::Unusable(match error {
        pem::Error::MissingSectionEnd { .. } => "is cut off: a BEGIN line has no END line (PEM)".to_owned(),
        error => error.to_string(),
    })
}

/// Reads a file. Devices and pipes are refused, because their size does not bound what a read returns.
fn read(role: Role, path: &Path) -> Result<Vec<u8>, LoadError> {
    let fail = |fault| LoadError::of(role, path, fault);
    let metadata = fs::metadata(path).map_err(|error| fail(Fault::Io(error)))?;
    if !metadata.is_file() {
        return Err(fail(Fault::Unusable("is not a file".to_owned())));
    }
    let mut bytes = Vec::new();
    let file = fs::File::open(path).map_err(|error| fail(Fault::Io(error)))?;
    file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes).map_err(|error| fail(Fault::Io(error)))?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(fail(Fault::Unusable(format!("is larger than {MAX_FILE_BYTES} bytes"))));
    }
    Ok(bytes)
}

/// The DNS names of a certificate, and a warning if it has expired or is not valid yet.
fn judge(role: Role, path: &Path, certificate: &CertificateDer<'_>) -> Result<(Vec<String>, Vec<Remark>), LoadError> {
    let (_, parsed) = X509Certificate::from_der(certificate)
        .map_err(|error| LoadError::of(role, path, Fault::Unusable(format!("is not a certificate: {error}"))))?;
    let alternatives = parsed.subject_alternative_name().ok().flatten();
    let names = alternatives.iter().flat_map(|names| &names.value.general_names).filter_map(|name| match name {
        GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
        _ => None,
    });
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs() as i64;
    let validity = parsed.validity();
    let remark = if now > validity.not_after.timestamp() {
        Some(format!("{} expired on {}", path.display(), validity.not_after))
    } else if now < validity.not_before.timestamp() {
        Some(format!("{} is not valid before {}", path.display(), validity.not_before))
    } else {
        None
    };
    Ok((names.collect(), remark.map(|text| Remark { role, text }).into_iter().collect()))
}
