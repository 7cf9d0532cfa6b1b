//! The PROXY protocol, versions 1 and 2: a header in which a proxy describes its client, before all other bytes of a connection.
//!
//! HAProxy's proxy-protocol.txt is the specification; its sections are cited. The decoder keeps nothing. It gets all bytes so far, and
//! returns either the content of the header, or a number of bytes that certainly still belong to it. A caller that reads no more than
//! that takes exactly the header from a socket, and leaves the rest to TLS, HTTP or a framing.
//!
//! Leaves to `listener` which proxies to believe. (Addresses are those of `core::net`: values, not sockets.)

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::fmt;

/// Longest header of version 1, with its CRLF (section 2.1).
pub const MAX_V1_BYTES: usize = 107;
/// Longest header of version 2 that is accepted, as in nginx. Addresses need at most 232 bytes. The rest is room for extensions: host name,
/// TLS, the ids of clouds. The protocol itself would allow 65 551 bytes.
pub const MAX_V2_BYTES: usize = 4096;

/// Section 2.2: no header of version 1, and no common protocol, begins with these twelve bytes.
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// Signature, version and command, family and transport, length.
const V2_HEAD: usize = 16;
const V1_START: &[u8] = b"PROXY ";
/// The length of the shortest header, which is of version 1.
const SHORTEST: usize = b"PROXY UNKNOWN\r\n".len();

/// The content of a header.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Proxied {
    /// The two ends of the client's connection to the proxy.
    pub ends: Ends,
    /// The TLS connection between client and proxy, if they used TLS.
    pub tls: Option<ClientTls>,
    /// The host name that the client asked for: with TLS, the SNI (PP2_TYPE_AUTHORITY).
    pub authority: Option<String>,
}

/// The two ends of the client's connection to the proxy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ends {
    /// The proxy connects for itself (a health check) or does not know the ends: use the socket's own addresses.
    #[default]
    Own,
    /// A TCP connection.
    Ip {
        /// The client.
        source: SocketAddr,
        /// The address that it connected to.
        destination: SocketAddr,
    },
    /// A Unix socket. The paths at its ends are not addresses of clients.
    Unix,
}

/// The client's TLS connection, as described by the proxy that terminated it (section 2.2.6). Texts that are not UTF-8, or have control
/// characters, are left out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientTls {
    /// `TLSv1.3`
    pub version: Option<String>,
    /// `TLS_AES_256_GCM_SHA384`
    pub cipher: Option<String>,
    /// Whether the client presented a certificate, and whether the proxy verified it.
    pub certificate: Certificate,
    /// The common name in the certificate.
    pub common_name: Option<String>,
}

/// A client's certificate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Certificate {
    /// None was presented.
    #[default]
    None,
    /// Presented and verified.
    Good,
    /// Presented, but not verified.
    Bad,
}

/// The result of decoding the bytes so far.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decoded {
    /// The header is complete.
    Header {
        /// Its length in bytes.
        used: usize,
        /// Its content.
        proxied: Proxied,
    },
    /// The header is incomplete: at least this many more bytes (one or more) certainly belong to it.
    NotYet {
        /// Bytes.
        at_least: usize,
    },
}

/// Why bytes are not a PROXY header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeaderError {
    /// They do not begin like a PROXY header.
    NoHeader,
    /// The line of version 1 is malformed or too long.
    BadLine,
    /// Unknown version or command in a v2 header.
    BadCommand,
    /// Unknown family or transport.
    BadFamily,
    /// The announced length of the header is too short for its addresses.
    Short,
    /// The announced length of the header is above [`MAX_V2_BYTES`].
    TooLong,
    /// An extension after the addresses does not fit into the header.
    BadExtension,
    /// The header has a CRC32C, and it is wrong.
    BadChecksum,
}

impl fmt::Display for HeaderError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            HeaderError::NoHeader => "no PROXY header",
            HeaderError::BadLine => "the line of a PROXY header of version 1 is malformed",
            HeaderError::BadCommand => "unknown version or command in a PROXY header of version 2",
            HeaderError::BadFamily => "unknown family or transport in a PROXY header",
            HeaderError::Short => "a PROXY header is too short for its addresses",
            HeaderError::TooLong => "a PROXY header is longer than 4096 bytes",
            HeaderError::BadExtension => "a TLV of a PROXY header extends past the end of the header",
            HeaderError::BadChecksum => "the checksum of a PROXY header is wrong",
        })
    }
}

impl std::error::Error for HeaderError {}

/// Decodes all bytes that have arrived so far.
pub fn decode(input: &[u8]) -> Result<Decoded, HeaderError> {
    let begins_with = |start: &[u8]| input.iter().zip(start).all(|(found, expected)| found == expected);
    if input.is_empty() {
        Ok(Decoded::NotYet { at_least: SHORTEST })
    } else if begins_with(V1_START) {
        decode_v1(input)
    } else if begins_with(SIGNATURE) {
        decode_v2(input)
    } else {
        Err(HeaderError::NoHeader)
    }
}

fn decode_v1(input: &[u8]) -> Result<Decoded, HeaderError> {
    let window = &input[..input.len().min(MAX_V1_BYTES)];
    let Some(end) = window.iter().position(|byte| *byte == b'\n') else {
        return match input.len() < MAX_V1_BYTES {
            true => Ok(Decoded::NotYet { at_least: v1_rest(input).min(MAX_V1_BYTES - input.len()) }),
            false => Err(HeaderError::BadLine),
        };
    };
    let line = window[..end].strip_suffix(b"\r").and_then(|line| line.strip_prefix(V1_START));
    let line = line.and_then(|line| str::from_utf8(line).ok()).ok_or(HeaderError::BadLine)?;
    let ends = if line == "UNKNOWN" || line.starts_with("UNKNOWN ") {
        // The rest of the line must be ignored (section 2.1).
        Ends::Own
    } else {
        v1_ends(line).ok_or(HeaderError::BadLine)?
    };
    Ok(Decoded::Header { used: end + 1, proxied: Proxied { ends, ..Proxied::default() } })
}

/// The bytes that an unfinished line certainly still needs: CRLF, and a space and a character for each missing field.
fn v1_rest(line: &[u8]) -> usize {
    if line.len() < SHORTEST {
        return SHORTEST - line.len();
    }
    let end = if line.ends_with(b"\r") { 1 } else { 2 };
    let is_known = line.starts_with(b"PROXY TCP");
    let spaces = line.iter().filter(|byte| **byte == b' ').count();
    let missing = if is_known { 5_usize.saturating_sub(spaces) } else { 0 };
    let empty_field = usize::from(is_known && line.ends_with(b" "));
    end + 2 * missing + empty_field
}

fn v1_ends(line: &str) -> Option<Ends> {
    let mut fields = line.split(' ');
    let family = fields.next()?;
    let mut address = || -> Option<IpAddr> {
        let text = fields.next()?;
        match family {
            "TCP4" => text.parse().ok().map(IpAddr::V4),
            "TCP6" => text.parse().ok().map(IpAddr::V6),
            _ => None,
        }
    };
    let (source, destination) = (address()?, address()?);
    let (source_port, destination_port) = (v1_port(fields.next()?)?, v1_port(fields.next()?)?);
    fields.next().is_none().then_some(Ends::Ip {
        source: SocketAddr::new(source, source_port),
        destination: SocketAddr::new(destination, destination_port),
    })
}

/// Digits only, without a leading zero (section 2.1).
fn v1_port(text: &str) -> Option<u16> {
    let is_canonical = text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    text.parse().ok().filter(|_| is_canonical)
}

fn decode_v2(input: &[u8]) -> Result<Decoded, HeaderError> {
    let Some(head) = input.first_chunk::<V2_HEAD>() else {
        let shortest = if input.len() < SHORTEST { SHORTEST } else { V2_HEAD };
        return Ok(Decoded::NotYet { at_least: shortest - input.len() });
    };
    let is_proxied = match head[12] {
        0x20 => false,
        0x21 => true,
        _ => return Err(HeaderError::BadCommand),
    };
    let (family, transport) = (head[13] >> 4, head[13] & 0x0f);
    if family > 3 || transport > 2 {
        return Err(HeaderError::BadFamily);
    }
    let used = V2_HEAD + usize::from(u16::from_be_bytes([head[14], head[15]]));
    if used > MAX_V2_BYTES {
        return Err(HeaderError::TooLong);
    }
    let Some(header) = input.get(..used) else {
        return Ok(Decoded::NotYet { at_least: used - input.len() });
    };
    let proxied = match (family, transport) {
        // The rest of the header must be discarded for LOCAL, unspecified families, and protocols other than stream (section 2.2).
        _ if !is_proxied => Proxied::default(),
        (1, 1) => v2_proxied(header, 12, v2_ipv4)?,
        (2, 1) => v2_proxied(header, 36, v2_ipv6)?,
        (3, 1) => v2_proxied(header, 216, |_| Ends::Unix)?,
        _ => Proxied::default(),
    };
    Ok(Decoded::Header { used, proxied })
}

fn v2_proxied(header: &[u8], address_bytes: usize, ends: fn(&[u8]) -> Ends) -> Result<Proxied, HeaderError> {
    let (addresses, extensions) = header[V2_HEAD..].split_at_checked(address_bytes).ok_or(HeaderError::Short)?;
    let mut proxied = Proxied { ends: ends(addresses), ..Proxied::default() };
    let mut rest = extensions;
    while let Some((kind, value)) = take_tlv(&mut rest)? {
        match kind {
            tlv::AUTHORITY => proxied.authority = plain_text(value),
            tlv::SSL => proxied.tls = client_tls(value)?,
            tlv::CRC32C => {
                let at = header.len() - rest.len() - value.len();
                check_crc32c(header, at, value)?;
            }
            _ => {}
        }
    }
    Ok(proxied)
}

fn v2_ipv4(addresses: &[u8]) -> Ends {
    let address = |at: usize| Ipv4Addr::new(addresses[at], addresses[at + 1], addresses[at + 2], addresses[at + 3]);
    Ends::Ip {
        source: SocketAddr::new(address(0).into(), v2_port(addresses, 8)),
        destination: SocketAddr::new(address(4).into(), v2_port(addresses, 10)),
    }
}

fn v2_ipv6(addresses: &[u8]) -> Ends {
    let address = |at: usize| {
        let octets: [u8; 16] = addresses[at..at + 16].try_into().expect("sixteen were asked for");
        Ipv6Addr::from(octets)
    };
    Ends::Ip {
        source: SocketAddr::new(address(0).into(), v2_port(addresses, 32)),
        destination: SocketAddr::new(address(16).into(), v2_port(addresses, 34)),
    }
}

fn v2_port(addresses: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([addresses[at], addresses[at + 1]])
}

/// Kinds of TLVs (sections 2.2.1 to 2.2.6).
mod tlv {
    pub(super) const AUTHORITY: u8 = 0x02;
    pub(super) const CRC32C: u8 = 0x03;
    pub(super) const SSL: u8 = 0x20;
    pub(super) const SSL_VERSION: u8 = 0x21;
    pub(super) const SSL_CN: u8 = 0x22;
    pub(super) const SSL_CIPHER: u8 = 0x23;
}

/// Bits of the client field in an SSL TLV.
mod client {
    pub(super) const SSL: u8 = 0x01;
    /// The client presented a certificate, on this connection or earlier in its TLS session.
    pub(super) const CERTIFICATE: u8 = 0x02 | 0x04;
}

fn take_tlv<'a>(rest: &mut &'a [u8]) -> Result<Option<(u8, &'a [u8])>, HeaderError> {
    if rest.is_empty() {
        return Ok(None);
    }
    let (head, behind) = rest.split_first_chunk::<3>().ok_or(HeaderError::BadExtension)?;
    let length = usize::from(u16::from_be_bytes([head[1], head[2]]));
    let (value, behind) = behind.split_at_checked(length).ok_or(HeaderError::BadExtension)?;
    *rest = behind;
    Ok(Some((head[0], value)))
}

/// `None` if the client did not use TLS; a proxy may send the TLV even then.
fn client_tls(value: &[u8]) -> Result<Option<ClientTls>, HeaderError> {
    let (head, mut rest) = value.split_first_chunk::<5>().ok_or(HeaderError::BadExtension)?;
    let mut tls = ClientTls::default();
    while let Some((kind, value)) = take_tlv(&mut rest)? {
        match kind {
            tlv::SSL_VERSION => tls.version = plain_text(value),
            tlv::SSL_CN => tls.common_name = plain_text(value),
            tlv::SSL_CIPHER => tls.cipher = plain_text(value),
            _ => {}
        }
    }
    let is_verified = head[1..] == [0; 4];
    tls.certificate = match head[0] & client::CERTIFICATE != 0 {
        false => Certificate::None,
        true if is_verified => Certificate::Good,
        true => Certificate::Bad,
    };
    Ok((head[0] & client::SSL != 0).then_some(tls))
}

/// A text that the client chose, if a param can carry it: not empty, UTF-8, without control characters.
fn plain_text(value: &[u8]) -> Option<String> {
    let text = str::from_utf8(value).ok()?;
    (!text.is_empty() && !text.contains(char::is_control)).then(|| text.to_owned())
}

/// Section 2.2.3: the checksum is over the whole header, with zeros in place of the checksum itself.
fn check_crc32c(header: &[u8], at: usize, value: &[u8]) -> Result<(), HeaderError> {
    let told: [u8; 4] = value.try_into().map_err(|_| HeaderError::BadExtension)?;
    let blanked = header.iter().enumerate().map(|(i, byte)| if (at..at + 4).contains(&i) { 0 } else { *byte });
    (crc32c(blanked) == u32::from_be_bytes(told)).then_some(()).ok_or(HeaderError::BadChecksum)
}

/// RFC 4960 appendix B, computed bit by bit: headers are short, and few have a checksum.
fn crc32c(bytes: impl Iterator<Item = u8>) -> u32 {
    let sum = bytes.fold(u32::MAX, |sum, byte| {
        (0..8).fold(sum ^ u32::from(byte), |sum, _| (sum >> 1) ^ (0x82f6_3b78 & (sum & 1).wrapping_neg()))
    });
    !sum
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn v2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let mut header = SIGNATURE.to_vec();
        header.extend([command, family]);
        header.extend((rest.len() as u16).to_be_bytes());
        header.extend(rest);
        header
    }

    fn tlv(kind: u8, value: &[u8]) -> Vec<u8> {
        [&[kind], &(value.len() as u16).to_be_bytes()[..], value].concat()
    }

    fn encode_v1(proxied: &Proxied) -> Vec<u8> {
        let Ends::Ip { source, destination } = proxied.ends else { return b"PROXY UNKNOWN\r\n".to_vec() };
        let family = if source.is_ipv4() { "TCP4" } else { "TCP6" };
        let ports = (source.port(), destination.port());
        format!("PROXY {family} {} {} {} {}\r\n", source.ip(), destination.ip(), ports.0, ports.1).into_bytes()
    }

    fn encode_v2(proxied: &Proxied, has_checksum: bool) -> Vec<u8> {
        let (family, mut rest) = match proxied.ends {
            Ends::Own => return v2(0x20, 0, b""),
            Ends::Unix => (0x31, vec![b'/'; 216]),
            Ends::Ip { source, destination } => {
                let mut rest = Vec::new();
                for end in [source, destination] {
                    match end.ip() {
                        IpAddr::V4(ip) => rest.extend(ip.octets()),
                        IpAddr::V6(ip) => rest.extend(ip.octets()),
                    }
                }
                rest.extend([source, destination].iter().flat_map(|end| end.port().to_be_bytes()));
                (if source.is_ipv4() { 0x11 } else { 0x21 }, rest)
            }
        };
        if let Some(authority) = &proxied.authority {
            rest.extend(tlv(tlv::AUTHORITY, authority.as_bytes()));
        }
        // An unknown kind.
        rest.extend(tlv(0xee, b"skip me"));
        if let Some(tls) = &proxied.tls {
            let (bits, verify) = match tls.certificate {
                Certificate::None => (1, 0_u32),
                Certificate::Good => (3, 0),
                Certificate::Bad => (5, 18),
            };
            let mut value = vec![bits];
            value.extend(verify.to_be_bytes());
            for (kind, text) in
                [(tlv::SSL_VERSION, &tls.version), (tlv::SSL_CN, &tls.common_name), (tlv::SSL_CIPHER, &tls.cipher)]
            {
                value.extend(text.iter().flat_map(|text| tlv(kind, text.as_bytes())));
            }
            rest.extend(tlv(tlv::SSL, &value));
        }
        if !has_checksum {
            return v2(0x21, family, &rest);
        }
        rest.extend(tlv(tlv::CRC32C, &[0; 4]));
        let mut header = v2(0x21, family, &rest);
        let sum = crc32c(header.iter().copied());
        let at = header.len() - 4;
        header[at..].copy_from_slice(&sum.to_be_bytes());
        header
    }

    #[track_caller]
    fn check(input: &[u8], expected: Result<Ends, HeaderError>) {
        let whole =
            expected.map(|ends| Decoded::Header { used: input.len(), proxied: Proxied { ends, ..Proxied::default() } });
        assert_eq!(decode(input), whole, "{}", String::from_utf8_lossy(input));
    }

    fn ip(source: &str, destination: &str) -> Ends {
        Ends::Ip { source: source.parse().unwrap(), destination: destination.parse().unwrap() }
    }

    #[test]
    fn lines_of_version_1_are_read_strictly() {
        let (v4, v6) = (ip("192.0.2.1:56324", "192.0.2.2:443"), ip("[2001:db8::1]:1", "[::2]:65535"));
        for (line, expected) in [
            ("PROXY TCP4 192.0.2.1 192.0.2.2 56324 443\r\n", Ok(v4)),
            ("PROXY TCP6 2001:db8::1 ::2 1 65535\r\n", Ok(v6)),
            ("PROXY UNKNOWN\r\n", Ok(Ends::Own)),
            ("PROXY UNKNOWN ffff::1 whatever\r\n", Ok(Ends::Own)),
            ("PROXY TCP4 192.0.2.1 192.0.2.2 56324 443\n", Err(HeaderError::BadLine)),
            ("PROXY TCP4 192.0.2.1 192.0.2.2 56324 443 \r\n", Err(HeaderError::BadLine)),
            ("PROXY TCP4 192.0.2.1  192.0.2.2 56324 443\r\n", Err(HeaderError::BadLine)),
            ("PROXY TCP4 192.0.2.1 192.0.2.2 056324 443\r\n", Err(HeaderError::BadLine)),
            ("PROXY TCP4 192.0.2.1 192.0.2.2 +6324 443\r\n", Err(HeaderError::BadLine)),
            ("PROXY TCP4 192.0.2.1 192.0.2.2 65536 443\r\n", Err(HeaderError::BadLine)),
            ("PROXY TCP4 192.0.2.1 192.0.2.2 443\r\n", Err(HeaderError::BadLine)),
            ("PROXY TCP4 192.0.2.01 192.0.2.2 1 443\r\n", Err(HeaderError::BadLine)),
            ("PROXY TCP4 ::1 ::2 1 443\r\n", Err(HeaderError::BadLine)),
            ("PROXY TCP6 192.0.2.1 192.0.2.2 1 443\r\n", Err(HeaderError::BadLine)),
            ("PROXY UDP4 192.0.2.1 192.0.2.2 1 443\r\n", Err(HeaderError::BadLine)),
            ("PROXY UNKNOWNS\r\n", Err(HeaderError::BadLine)),
            ("GET / HTTP/1.1\r\n", Err(HeaderError::NoHeader)),
            ("PROXX", Err(HeaderError::NoHeader)),
            ("\r\n\r\nGET", Err(HeaderError::NoHeader)),
        ] {
            check(line.as_bytes(), expected);
        }
    }

    #[test]
    fn heads_of_version_2_are_checked_before_anything_is_waited_for() {
        let four = [192, 0, 2, 1, 192, 0, 2, 2, 0xdc, 0x04, 0x01, 0xbb];
        for (header, expected) in [
            (v2(0x21, 0x11, &four), Ok(ip("192.0.2.1:56324", "192.0.2.2:443"))),
            (v2(0x20, 0x11, &four), Ok(Ends::Own)),
            (v2(0x20, 0x00, b"anything"), Ok(Ends::Own)),
            (v2(0x21, 0x00, b"anything"), Ok(Ends::Own)),
            (v2(0x21, 0x12, &four), Ok(Ends::Own)),
            (v2(0x21, 0x31, &[b'/'; 216]), Ok(Ends::Unix)),
            (v2(0x21, 0x11, &four[1..]), Err(HeaderError::Short)),
            (v2(0x21, 0x21, &four), Err(HeaderError::Short)),
            (v2(0x21, 0x41, &four), Err(HeaderError::BadFamily)),
            (v2(0x21, 0x13, &four), Err(HeaderError::BadFamily)),
            (v2(0x22, 0x11, &four), Err(HeaderError::BadCommand)),
            (v2(0x11, 0x11, &four), Err(HeaderError::BadCommand)),
            (v2(0x21, 0x11, &[&four[..], &[1, 0]].concat()), Err(HeaderError::BadExtension)),
            (v2(0x21, 0x11, &[&four[..], &[1, 0, 1]].concat()), Err(HeaderError::BadExtension)),
            (v2(0x21, 0x11, &[&four[..], &tlv(tlv::SSL, &[1])].concat()), Err(HeaderError::BadExtension)),
            (v2(0x21, 0x11, &[&four[..], &tlv(tlv::CRC32C, &[1])].concat()), Err(HeaderError::BadExtension)),
            (v2(0x21, 0x11, &[&four[..], &tlv(tlv::CRC32C, &[1; 4])].concat()), Err(HeaderError::BadChecksum)),
            (v2(0x21, 0x11, &[0; 4096 - 15]), Err(HeaderError::TooLong)),
            (v2(0x21, 0x11, &[0; 4096 - 15])[..16].to_vec(), Err(HeaderError::TooLong)),
        ] {
            check(&header, expected);
        }
        assert!(decode(&v2(0x20, 0, &[0; MAX_V2_BYTES - 16])).is_ok());
    }

    #[test]
    fn the_checksum_is_castagnolis() {
        assert_eq!(crc32c(b"123456789".iter().copied()), 0xe306_9283);
    }

    #[test]
    fn what_a_client_chose_is_left_out_where_it_is_no_plain_text() {
        let mut header = Proxied { ends: ip("192.0.2.1:1", "192.0.2.2:2"), ..Proxied::default() };
        for (authority, expected) in [("shop.example", Some("shop.example")), ("a\nb", None), ("a\0", None), ("", None)]
        {
            header.authority = Some(authority.to_owned());
            let Ok(Decoded::Header { proxied, .. }) = decode(&encode_v2(&header, true)) else {
                panic!("{authority:?}")
            };
            assert_eq!(proxied.authority.as_deref(), expected);
        }
        let tls_without_tls = tlv(tlv::SSL, &[0, 0, 0, 0, 0]);
        let rest = [&[192, 0, 2, 1, 192, 0, 2, 2, 0, 1, 0, 2][..], &tls_without_tls].concat();
        check(&v2(0x21, 0x11, &rest), Ok(header.ends));
    }

    fn some_ends() -> impl Strategy<Value = Ends> {
        let end = |ip: IpAddr, port: u16| SocketAddr::new(ip, port);
        prop_oneof![
            Just(Ends::Own),
            Just(Ends::Unix),
            any::<([u8; 4], [u8; 4], u16, u16)>()
                .prop_map(move |(a, b, c, d)| Ends::Ip { source: end(a.into(), c), destination: end(b.into(), d) }),
            any::<([u8; 16], [u8; 16], u16, u16)>()
                .prop_map(move |(a, b, c, d)| Ends::Ip { source: end(a.into(), c), destination: end(b.into(), d) }),
        ]
    }

    fn some_tls() -> impl Strategy<Value = ClientTls> {
        let text = || proptest::option::of("[A-Za-z0-9._-]{1,40}");
        let certificate = prop_oneof![Just(Certificate::None), Just(Certificate::Good), Just(Certificate::Bad)];
        (text(), text(), text(), certificate).prop_map(|(version, cipher, common_name, certificate)| ClientTls {
            version,
            cipher,
            certificate,
            common_name,
        })
    }

    prop_compose! {
        fn some_header()(
            ends in some_ends(),
            tls in proptest::option::of(some_tls()),
            authority in proptest::option::of("[a-z.]{1,60}"),
            form in 0_u8..3,
        ) -> (Vec<u8>, Proxied) {
            // Version 1 has only addresses, and no Unix sockets. LOCAL has no content at all.
            let bare = Proxied { ends, ..Proxied::default() };
            match (form, ends) {
                (0, Ends::Unix) => (b"PROXY UNKNOWN\r\n".to_vec(), Proxied::default()),
                (0, _) => (encode_v1(&bare), bare),
                (_, Ends::Own) => (encode_v2(&bare, false), bare),
                (_, _) => {
                    let proxied = Proxied { ends, tls, authority };
                    (encode_v2(&proxied, form == 1), proxied)
                }
            }
        }
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded_and_what_follows_is_left((header, proxied) in some_header(), behind in any::<Vec<u8>>()) {
            let whole = Decoded::Header { used: header.len(), proxied };
            prop_assert_eq!(decode(&[header, behind].concat()), Ok(whole));
        }

        #[test]
        fn any_split_gives_the_same_and_never_asks_for_more_than_the_header((header, proxied) in some_header()) {
            for end in 0..header.len() {
                let Ok(Decoded::NotYet { at_least }) = decode(&header[..end]) else {
                    panic!("{end} bytes of {header:?}")
                };
                prop_assert!(at_least > 0 && end + at_least <= header.len(), "{end} + {at_least} of {header:?}");
            }
            let whole = Decoded::Header { used: header.len(), proxied };
            prop_assert_eq!(decode(&header), Ok(whole));
        }

        #[test]
        fn random_bytes_are_never_a_panic(bytes in any::<Vec<u8>>(), start in 0_usize..3, command in 0x20_u8..0x22, family in any::<u8>()) {
            let _ = decode(&bytes);
            let input = match start {
                0 => [&b"PROXY "[..], &bytes].concat(),
                1 => [&b"PROXY TCP4 "[..], &bytes].concat(),
                _ => v2(command, family, &bytes),
            };
            let _ = decode(&input);
        }

        #[test]
        fn nothing_beyond_the_limit_is_ever_asked_for(bytes in any::<Vec<u8>>(), length in any::<u16>()) {
            let line: Vec<u8> = bytes.iter().copied().filter(|byte| *byte != b'\n').cycle().take(200).collect();
            let line = [&b"PROXY TCP4 "[..], &line].concat();
            for end in 0..line.len() {
                match decode(&line[..end]) {
                    Ok(Decoded::NotYet { at_least }) => prop_assert!(end + at_least <= MAX_V1_BYTES),
                    other => prop_assert!(end >= MAX_V1_BYTES && other == Err(HeaderError::BadLine), "{end}: {other:?}"),
                }
            }
            let mut head = v2(0x21, 0x11, b"");
            head[14..16].copy_from_slice(&length.to_be_bytes());
            match decode(&head) {
                Ok(Decoded::NotYet { at_least }) => prop_assert!(16 + at_least <= MAX_V2_BYTES),
                Ok(Decoded::Header { .. }) => prop_assert_eq!(length, 0),
                Err(error) => prop_assert!(error == HeaderError::TooLong || length < 12),
            }
        }
    }
}
