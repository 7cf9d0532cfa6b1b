//! Chooses the certificate that a client is shown, by the name that it asks for (SNI, RFC 6066 section 3).

use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

thread_local! {
    /// On unbuffered connections, rustls gives the name only to the code that picks the certificate. So that code leaves it here.
    static ASKED: RefCell<Option<Box<str>>> = const { RefCell::new(None) };
}

/// Takes the name that the last client hello on this thread asked for.
pub fn asked_name() -> Option<Box<str>> {
    ASKED.take()
}

/// Certificates by name: an exact one, then a wildcard, then the first of all.
#[derive(Default)]
pub(super) struct Resolver {
    exact: HashMap<String, Arc<CertifiedKey>>,
    /// Keyed by the part after `*.`. A wildcard stands for one label (RFC 9525 section 6.3).
    wildcards: HashMap<String, Arc<CertifiedKey>>,
    first: Option<Arc<CertifiedKey>>,
}

impl Resolver {
    /// If two certificates have the same name, the first counts.
    pub(super) fn add(&mut self, names: Vec<String>, key: Arc<CertifiedKey>) {
        for name in names {
            let (names, name) = match name.strip_prefix("*.") {
                Some(rest) => (&mut self.wildcards, rest.to_owned()),
                None => (&mut self.exact, name),
            };
            names.entry(name).or_insert_with(|| key.clone());
        }
        self.first.get_or_insert(key);
    }

    fn find(&self, name: Option<&str>) -> Option<&Arc<CertifiedKey>> {
        let Some(name) = name else { return self.first.as_ref() };
        let name = name.to_ascii_lowercase();
        let wildcard = || self.wildcards.get(name.split_once('.')?.1);
        self.exact.get(&name).or_else(wildcard).or(self.first.as_ref())
    }
}

impl ResolvesServerCert for Resolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let name = hello.server_name();
        ASKED.set(name.map(Box::from));
        self.find(name).cloned()
    }
}

impl fmt::Debug for Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Resolver")
            .field("exact", &self.exact.keys())
            .field("wildcards", &self.wildcards.keys())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};

    use super::*;

    #[test]
    fn the_name_picks_the_certificate() {
        let provider = rustls::crypto::ring::default_provider();
        let mut resolver = Resolver::default();
        let certificates =
            [&["shop.example"][..], &["*.shop.example", "a.b.example"], &["www.shop.example", "*.b.example"]];
        let keys = certificates.map(|names| {
            let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
            let made = rcgen::generate_simple_self_signed(names.clone()).unwrap();
            let certificate = CertificateDer::from(made.cert.der().to_vec());
            let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
            let key = Arc::new(CertifiedKey::from_der(vec![certificate], key, &provider).unwrap());
            resolver.add(names, key.clone());
            key
        });
        let cases = [
            (Some("shop.example"), 0),
            (Some("api.shop.example"), 1),
            (Some("WWW.Shop.Example"), 2),
            (Some("a.b.example"), 1),
            (Some("c.b.example"), 2),
            (Some("deep.api.shop.example"), 0),
            (Some("elsewhere"), 0),
            (None, 0),
        ];
        for (name, expected) in cases {
            assert!(Arc::ptr_eq(resolver.find(name).unwrap(), &keys[expected]), "{name:?}");
        }
    }
}
