//! Params that tell PHP about a TLS connection, under the names that Apache's mod_ssl uses.

use std::fmt::Write;

use rustls::pki_types::CertificateDer;
use rustls::{ProtocolVersion, SupportedCipherSuite};
use x509_parser::prelude::{ASN1Time, AttributeTypeAndValue, FromDer, X509Certificate, X509Name};

use crate::proto::fastcgi::params::{EncodedParams, Params};

/// The results of a handshake.
#[derive(Clone, Copy, Default)]
pub struct TlsFacts<'a> {
    /// `SSL_PROTOCOL`
    pub version: Option<ProtocolVersion>,
    /// `SSL_CIPHER`
    pub cipher: Option<SupportedCipherSuite>,
    /// `SSL_TLS_SNI`
    pub sni: Option<&'a str>,
    /// The client's certificate chain, its own certificate first. It was verified.
    pub peer_certificates: Option<&'a [CertificateDer<'a>]>,
}

/// `HTTPS` and `SSL_*`. Cipher suites have their IANA names.
pub fn params(facts: &TlsFacts<'_>) -> EncodedParams {
    let mut params = Params::new();
    // Values too long for FastCGI are left out. A client that wants its subject seen has to use a shorter one.
    let mut put = |name: &str, value: &str| {
        let _ = params.push(name.as_bytes(), value.as_bytes());
    };
    put("HTTPS", "on");
    match facts.version {
        Some(ProtocolVersion::TLSv1_3) => put("SSL_PROTOCOL", "TLSv1.3"),
        Some(ProtocolVersion::TLSv1_2) => put("SSL_PROTOCOL", "TLSv1.2"),
        _ => {}
    }
    if let Some(cipher) = facts.cipher {
        // rustls marks the suites of TLS 1.3 with a prefix of its own.
        put("SSL_CIPHER", &format!("{:?}", cipher.suite()).replacen("TLS13_", "TLS_", 1));
    }
    if let Some(name) = facts.sni {
        put("SSL_TLS_SNI", name);
    }
    let certificate = facts.peer_certificates.and_then(|chain| chain.first());
    put("SSL_CLIENT_VERIFY", if certificate.is_some() { "SUCCESS" } else { "NONE" });
    if let Some((_, certificate)) = certificate.and_then(|der| X509Certificate::from_der(der).ok()) {
        put("SSL_CLIENT_S_DN", &distinguished_name(certificate.subject()));
        put("SSL_CLIENT_I_DN", &distinguished_name(certificate.issuer()));
        if let Some(name) = certificate.subject().iter_common_name().next() {
            put("SSL_CLIENT_S_DN_CN", &value_of(name));
        }
        let serial = certificate.raw_serial().iter().map(|byte| format!("{byte:02X}")).collect::<String>();
        put("SSL_CLIENT_M_SERIAL", serial.trim_start_matches("00"));
        put("SSL_CLIENT_V_START", &date(&certificate.validity().not_before));
        put("SSL_CLIENT_V_END", &date(&certificate.validity().not_after));
    }
    params.finish()
}

/// The name as a string by RFC 4514: the last part first, `CN=Ann,O=Shop,C=DE`.
fn distinguished_name(name: &X509Name<'_>) -> String {
    let parts: Vec<String> = name
        .iter_rdn()
        .map(|part| {
            part.iter()
                .map(|attribute| format!("{}={}", type_of(attribute), value_of(attribute)))
                .collect::<Vec<_>>()
                .join("+")
        })
        .collect();
    parts.into_iter().rev().collect::<Vec<_>>().join(",")
}

/// The short name of an attribute, or its object identifier.
fn type_of(attribute: &AttributeTypeAndValue<'_>) -> String {
    let registry = x509_parser::objects::oid_registry();
    match x509_parser::objects::oid2abbrev(attribute.attr_type(), registry) {
        Ok(short) => short.to_owned(),
        Err(_) => attribute.attr_type().to_id_string(),
    }
}

/// The value of an attribute by RFC 4514 section 2.4: special characters are escaped, and so is every control character. A value
/// that is not text is written in hexadecimal.
fn value_of(attribute: &AttributeTypeAndValue<'_>) -> String {
    let Ok(text) = attribute.as_str() else {
        return attribute.as_slice().iter().fold("#".to_owned(), |mut hex, byte| {
            let _ = write!(hex, "{byte:02X}");
            hex
        });
    };
    let mut value = String::with_capacity(text.len());
    for (at, c) in text.char_indices() {
        let is_edge = at == 0 || at + c.len_utf8() == text.len();
        match c {
            '"' | '+' | ',' | ';' | '<' | '>' | '\\' => value.extend(['\\', c]),
            '#' if at == 0 => value.push_str("\\#"),
            ' ' if is_edge => value.push_str("\\ "),
            c if c.is_control() => {
                let mut bytes = [0; 4];
                for byte in c.encode_utf8(&mut bytes).bytes() {
                    let _ = write!(value, "\\{byte:02X}");
                }
            }
            c => value.push(c),
        }
    }
    value
}

/// `Nov  6 07:00:00 2026 GMT`, as OpenSSL prints it.
fn date(time: &ASN1Time) -> String {
    let time = time.to_datetime();
    let month = &time.month().to_string()[..3];
    let (day, year) = (time.day(), time.year());
    format!("{month} {day:2} {:02}:{:02}:{:02} {year} GMT", time.hour(), time.minute(), time.second())
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, SerialNumber};

    use super::*;

    fn shown(subject: &[(DnType, &str)]) -> Vec<(String, String)> {
        let mut wanted = CertificateParams::new(vec![]).unwrap();
        wanted.distinguished_name = DistinguishedName::new();
        for (kind, value) in subject {
            wanted.distinguished_name.push(kind.clone(), *value);
        }
        wanted.serial_number = Some(SerialNumber::from(0x00ab_cdef_u64));
        wanted.not_before = rcgen::date_time_ymd(2026, 11, 6);
        wanted.not_after = rcgen::date_time_ymd(2036, 1, 31);
        let key = KeyPair::generate().unwrap();
        let chain = [CertificateDer::from(wanted.self_signed(&key).unwrap().der().to_vec())];
        let facts = TlsFacts { sni: Some("shop.example"), peer_certificates: Some(&chain), ..TlsFacts::default() };
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        params(&facts).pairs().map(|(name, value)| (text(name), text(value))).collect()
    }

    #[test]
    fn a_clients_certificate_is_told_as_apache_tells_it() {
        let params = shown(&[
            (DnType::CountryName, "DE"),
            (DnType::OrganizationName, "Shop, Ltd"),
            (DnType::CommonName, "Ann Lee"),
        ]);
        let dn = "CN=Ann Lee,O=Shop\\, Ltd,C=DE";
        let expected = [
            ("HTTPS", "on"),
            ("SSL_TLS_SNI", "shop.example"),
            ("SSL_CLIENT_VERIFY", "SUCCESS"),
            ("SSL_CLIENT_S_DN", dn),
            ("SSL_CLIENT_I_DN", dn),
            ("SSL_CLIENT_S_DN_CN", "Ann Lee"),
            ("SSL_CLIENT_M_SERIAL", "ABCDEF"),
            ("SSL_CLIENT_V_START", "Nov  6 00:00:00 2026 GMT"),
            ("SSL_CLIENT_V_END", "Jan 31 00:00:00 2036 GMT"),
        ];
        assert_eq!(params, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
    }

    #[test]
    fn hostile_subjects_are_escaped_or_left_out() {
        let value = |params: &[(String, String)], name: &str| {
            params.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone())
        };
        let params = shown(&[(DnType::CommonName, "\u{0}root\n=#+ ")]);
        assert_eq!(value(&params, "SSL_CLIENT_S_DN").unwrap(), "CN=\\00root\\0A=#\\+\\ ");
        let params = shown(&[(DnType::CommonName, "#1")]);
        assert_eq!(value(&params, "SSL_CLIENT_S_DN_CN").unwrap(), "\\#1");
        let params = shown(&[(DnType::CommonName, &"x".repeat(70_000))]);
        assert_eq!(value(&params, "SSL_CLIENT_S_DN"), None);
        assert_eq!(value(&params, "SSL_CLIENT_VERIFY").unwrap(), "SUCCESS");
        assert_eq!(value(&params, "SSL_CLIENT_M_SERIAL").unwrap(), "ABCDEF");
    }

    #[test]
    fn without_a_certificate_nothing_is_told_of_one() {
        let params = params(&TlsFacts { version: Some(ProtocolVersion::TLSv1_3), ..TlsFacts::default() });
        let names: Vec<_> = params.pairs().map(|(name, _)| String::from_utf8(name.to_vec()).unwrap()).collect();
        assert_eq!(names, ["HTTPS", "SSL_PROTOCOL", "SSL_CLIENT_VERIFY"]);
    }
}
