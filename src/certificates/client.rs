//! TLS from this node to servers: the authorities that it trusts, and its own certificate.

use std::path::PathBuf;
use std::sync::Arc;

use rustls::crypto::ring;
use rustls::sign::SingleCertAndKey;
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, RootCertStore};

use super::files::{self, LoadError};
use super::{Pair, Remark};

/// Settings of TLS to a server. By default the system's authorities are trusted and no certificate is shown.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientSettings {
    /// The file of authorities for the server's certificate, instead of the ones that the system trusts.
    pub ca: Option<PathBuf>,
    /// The certificate for a server that asks for one.
    pub own: Option<Pair>,
}

impl ClientSettings {
    /// Loads the files, to check that they can be used.
    ///
    /// # Errors
    ///
    /// The first file that cannot be used.
    pub fn check(&self) -> Result<Vec<Remark>, LoadError> {
        self.ca.as_deref().map(files::load_roots).transpose()?;
        let own = self.own.as_ref().map(|pair| files::load_pair(0, pair, &ring::default_provider())).transpose()?;
        Ok(own.map(|own| own.remarks).unwrap_or_default())
    }

    /// The configuration for the next handshake. Reads the files, so renewed ones count from now on. Blocks while it reads.
    ///
    /// # Errors
    ///
    /// Names the first file that cannot be used, or says why the system trusts no authority.
    pub fn client_config(&self) -> Result<ClientConfig, String> {
        let provider = Arc::new(ring::default_provider());
        let roots = match &self.ca {
            Some(file) => files::load_roots(file).map_err(|error| error.to_string())?,
            None => roots_of_system()?,
        };
        let own = self.own.as_ref().map(|pair| files::load_pair(0, pair, &provider)).transpose();
        let own = own.map_err(|error| error.to_string())?;
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13, &TLS12])
            .expect("ring has cipher suites for both")
            .with_root_certificates(roots);
        Ok(match own {
            Some(own) => builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(own.key))),
            None => builder.with_no_client_auth(),
        })
    }
}

/// The authorities that the system trusts.
///
/// # Errors
///
/// Says why it trusts none.
pub fn roots_of_system() -> Result<RootCertStore, String> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    // An unusable one must not prevent the use of the others.
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        let why = found.errors.first().map_or_else(String::new, |error| format!(" ({error})"));
        return Err(format!("this system trusts no authority{why}"));
    }
    Ok(roots)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::super::Role;
    use super::*;

    /// Settings with a valid authority and a valid own pair.
    fn folder() -> (tempfile::TempDir, ClientSettings) {
        let dir = tempfile::tempdir().unwrap();
        let made = rcgen::generate_simple_self_signed(vec!["node.example".to_owned()]).unwrap();
        let path = |name: &str| dir.path().join(name);
        fs::write(path("ca.pem"), made.cert.pem()).unwrap();
        fs::write(path("own.key"), made.signing_key.serialize_pem()).unwrap();
        let own = Some(Pair { cert: path("ca.pem"), key: path("own.key") });
        let settings = ClientSettings { ca: Some(path("ca.pem")), own };
        (dir, settings)
    }

    #[track_caller]
    fn check(settings: &ClientSettings, role: Role, file: &Path, part: &str) {
        let error = settings.check().expect_err("one file is of no use");
        assert_eq!(error.role, role);
        let (told, later) = (error.to_string(), settings.client_config().expect_err("it still is"));
        assert!(told.starts_with(&format!("{}: ", file.display())) && told.contains(part), "{told}");
        assert_eq!(told, later);
    }

    #[test]
    fn a_file_that_is_of_no_use_is_named_at_the_start_and_at_each_handshake() {
        let (dir, good) = folder();
        let absent = dir.path().join("absent.pem");
        let empty = dir.path().join("empty.pem");
        fs::write(&empty, "nothing here").unwrap();
        check(&ClientSettings { ca: Some(absent.clone()), ..good.clone() }, Role::Roots, &absent, "No such file");
        check(&ClientSettings { ca: Some(empty.clone()), ..good.clone() }, Role::Roots, &empty, "no certificate in it");
        let half = dir.path().join("half.pem");
        fs::write(&half, "-----BEGIN CERTIFICATE-----\nAAAA").unwrap();
        check(&ClientSettings { ca: Some(half.clone()), ..good.clone() }, Role::Roots, &half, "is cut off");
        let own = good.own.clone().unwrap();
        let of = |cert: &Path, key: &Path| ClientSettings {
            own: Some(Pair { cert: cert.to_owned(), key: key.to_owned() }),
            ..good.clone()
        };
        check(&of(&empty, &own.key), Role::Cert(0), &empty, "no certificate in it");
        check(&of(&own.cert, &own.cert), Role::Key(0), &own.cert, "no private key in it");
        let (_other_dir, other) = folder();
        let other = other.own.unwrap();
        check(&of(&own.cert, &other.key), Role::Key(0), &other.key, "does not belong to the certificate");
    }

    #[test]
    fn good_files_shake_hands_and_renewed_ones_are_read() {
        let (dir, settings) = folder();
        assert!(settings.check().unwrap().iter().all(|remark| remark.text.contains("can be read by every user")));
        assert!(settings.client_config().unwrap().client_auth_cert_resolver.has_certs());
        let roots_only = ClientSettings { own: None, ..settings };
        assert!(!roots_only.client_config().unwrap().client_auth_cert_resolver.has_certs());
        fs::write(dir.path().join("ca.pem"), "half a fi").unwrap();
        assert!(roots_only.client_config().is_err());
    }
}
