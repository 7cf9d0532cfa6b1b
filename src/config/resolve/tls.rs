//! TLS of a listener: from the written values to the model. The files are loaded here to check them. The node loads them
//! again.

use std::path::Path;

use crate::certificates::{Acceptor, ClientCerts, LoadError, Pair, Remark, Role, Settings};
use crate::config::problem::{Place, Report};
use crate::config::schema::IfWritten;
use crate::config::written;

/// The settings; `Some(None)` if none are written. `None` only if `report` has errors.
pub(super) fn resolve(
    written: &IfWritten<written::Tls>,
    protocols: Vec<&'static [u8]>,
    base: &Path,
    report: &mut Report<'_>,
) -> Option<Option<Settings>> {
    let Some(written) = &written.0 else { return Some(None) };
    let (cert, key) = (written.cert.as_ref()?, written.key.as_ref()?);
    let mut pairs = vec![Pair { cert: base.join(&cert.value), key: base.join(&key.value) }];
    let more = written.more.value.0.iter();
    pairs.extend(more.map(|(cert, key)| Pair { cert: base.join(cert), key: base.join(key) }));
    let client_certs = written.client_certs.value;
    match (&written.client_ca, client_certs, &written.client_certs.place) {
        (None, ClientCerts::Optional | ClientCerts::Required, Some(place)) => {
            report.error(place, "needs client_ca, the authorities that sign certificates of clients");
            return None;
        }
        (Some(ca), ClientCerts::Off, _) => {
            let place = ca.place.as_ref()?;
            report.warn(place, "client_certs is \"off\", so no client is asked for a certificate");
        }
        _ => {}
    }
    let client_ca = written.client_ca.as_ref().map(|entry| base.join(&entry.value));
    let settings = Settings { pairs, client_ca, client_certs, protocols };
    let place_of = |role| -> Option<&Place> {
        match role {
            Role::Cert(0) => cert.place.as_ref(),
            Role::Key(0) => key.place.as_ref(),
            Role::Cert(_) | Role::Key(_) => written.more.place.as_ref(),
            Role::Roots => written.client_ca.as_ref()?.place.as_ref(),
        }
    };
    let loaded = Acceptor::load(settings.clone()).map(|(_, remarks)| remarks);
    judge(loaded, place_of, report)?;
    Some(Some(settings))
}

/// Reports the result of loading files, each at its own place. `None` only if `report` has an error.
pub(super) fn judge<'p>(
    loaded: Result<Vec<Remark>, LoadError>,
    place_of: impl Fn(Role) -> Option<&'p Place>,
    report: &mut Report<'_>,
) -> Option<()> {
    match loaded {
        Ok(remarks) => {
            for remark in remarks {
                report.warn(place_of(remark.role)?, remark.text);
            }
            Some(())
        }
        Err(error) => {
            report.error(place_of(error.role)?, error.to_string());
            None
        }
    }
}
