//! Session ids: 16 letters and digits, 93 bits.
//!
//! ```text
//!        5 chars                11 chars
//! | node 12 b, epoch 17 b |   secret 64 b   |
//! ```
//!
//! Each part is a number in base 62. The node that holds the session and the epoch (one run of that node) can be read
//! back. The secret is a counter, encrypted by a permutation with a key that only this process has. A permutation never gives
//! the same value twice, so an id is never reused within an epoch. Without the key the next id cannot be guessed.
//!
//! Ids have only letters and digits, because they are used where other characters are not allowed. PHP's `session_id()` takes
//! `[A-Za-z0-9,-]`, and a file name should not begin with `-`. In URLs, headers, shells and comma-separated lists an id needs no
//! quoting. The first character is always a letter, so that PHP never takes an id for a number: `"12e4..." == "12e5..."` is true in
//! PHP, and an array key of digits becomes an integer.
//!
//! Upper and lower case differ. Where case is ignored (a file system, a MySQL key with a collation that ends in `_ci`), two ids of
//! one epoch are equal with a probability of 1.6e-17: 114/3844 for one character, to the power of eleven.

use std::fmt;
use std::hash::Hasher;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};
use siphasher::sip::SipHasher24;

/// Letters come first: node and epoch together stay below 52 times the fourth power of 62, so every id begins with a letter.
const ALPHABET: &[u8; 62] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
const BASE: u64 = ALPHABET.len() as u64;
/// Characters before the secret.
const PLACE_LEN: usize = 5;
/// Half of the secret.
const HALF_MASK: u64 = u32::MAX as u64;
/// Four rounds make a Feistel network a pseudorandom permutation (Luby and Rackoff 1988); eight leave a margin for
/// halves of only 32 bits.
const ROUNDS: u64 = 8;

const _: () = assert!((SessionId::NODES as u64) * (SessionId::EPOCHS as u64) <= 52 * BASE.pow(PLACE_LEN as u32 - 1));

/// The name of a session, as PHP sees it in `SESSIONID`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SessionId([u8; SessionId::LEN]);

impl SessionId {
    /// Characters in an id.
    pub const LEN: usize = 16;
    /// The number of nodes that ids can distinguish.
    pub const NODES: u16 = 1 << 12;
    /// The number of epochs of a node that ids can distinguish.
    pub const EPOCHS: u32 = 1 << 17;

    /// Reads an id from the wire. `None` unless it has exactly 16 characters, all of the alphabet.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let id: [u8; Self::LEN] = bytes.try_into().ok()?;
        id.iter().all(|c| value_of(*c).is_some()).then_some(Self(id))
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        str::from_utf8(&self.0).expect("only characters of ALPHABET are ever stored")
    }

    /// The node that holds the session. For an id that no node created, it may be a number that no node has.
    pub fn node(&self) -> u16 {
        (self.place() / u64::from(Self::EPOCHS)) as u16
    }

    /// The run of that node that created the id.
    pub fn epoch(&self) -> u32 {
        (self.place() % u64::from(Self::EPOCHS)) as u32
    }

    fn place(&self) -> u64 {
        self.0[..PLACE_LEN].iter().fold(0, |sum, c| {
            sum * BASE + u64::from(value_of(*c).expect("only characters of ALPHABET are ever stored"))
        })
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl From<SessionId> for String {
    fn from(id: SessionId) -> String {
        id.as_str().to_owned()
    }
}

impl TryFrom<String> for SessionId {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::from_bytes(text.as_bytes()).ok_or("a session id is 16 characters of A-Z a-z 0-9")
    }
}

/// Creates the ids of one epoch of one node.
pub struct SessionIds {
    node: u16,
    epoch: u32,
    key: [u8; 16],
    next: AtomicU64,
}

impl SessionIds {
    /// `node` is below [`SessionId::NODES`], `epoch` is taken modulo [`SessionId::EPOCHS`], and `key` is secret and random.
    pub fn new(node: u16, epoch: u32, key: [u8; 16]) -> Self {
        assert!(node < SessionId::NODES, "config checks the node number");
        Self { node, epoch: epoch % SessionId::EPOCHS, key, next: AtomicU64::new(0) }
    }

    /// The next id; never the same twice.
    pub fn next_id(&self) -> SessionId {
        let count = self.next.fetch_add(1, Ordering::Relaxed);
        let (mut left, mut right) = (count >> 32, count & HALF_MASK);
        for round in 0..ROUNDS {
            (left, right) = (right, left ^ self.round(round, right));
        }
        let mut id = [0; SessionId::LEN];
        let place = u64::from(self.node) * u64::from(SessionId::EPOCHS) + u64::from(self.epoch);
        put_digits(&mut id[..PLACE_LEN], place);
        put_digits(&mut id[PLACE_LEN..], left << 32 | right);
        SessionId(id)
    }

    fn round(&self, round: u64, half: u64) -> u64 {
        let mut hasher = SipHasher24::new_with_key(&self.key);
        hasher.write_u64(round);
        hasher.write_u64(half);
        hasher.finish() & HALF_MASK
    }
}

fn value_of(c: u8) -> Option<u8> {
    match c {
        b'A'..=b'Z' => Some(c - b'A'),
        b'a'..=b'z' => Some(c - b'a' + 26),
        b'0'..=b'9' => Some(c - b'0' + 52),
        _ => None,
    }
}

fn put_digits(into: &mut [u8], mut value: u64) {
    for c in into.iter_mut().rev() {
        *c = ALPHABET[(value % BASE) as usize];
        value /= BASE;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn ids_are_distinct_and_tell_node_and_epoch() {
        for (node, epoch) in [(0, 0), (1, 131_071), (4095, 131_071)] {
            let ids = SessionIds::new(node, epoch, [7; 16]);
            let mut seen = HashSet::new();
            for _ in 0..50_000 {
                let id = ids.next_id();
                assert_eq!((id.node(), id.epoch()), (node, epoch));
                assert_eq!(SessionId::from_bytes(id.as_str().as_bytes()), Some(id));
                assert!(id.as_str().bytes().all(|c| c.is_ascii_alphanumeric()), "{id}");
                assert!(
                    id.as_str().starts_with(|first: char| first.is_ascii_alphabetic()),
                    "{id} may pass for a number"
                );
                assert!(seen.insert(id.as_str().to_ascii_lowercase()), "{id} was given before, but for its case");
            }
        }
    }

    #[test]
    fn another_key_gives_other_secrets() {
        let (a, b) = (SessionIds::new(0, 0, [1; 16]), SessionIds::new(0, 0, [2; 16]));
        assert_ne!(a.next_id(), b.next_id());
    }

    #[test]
    fn neighbours_share_no_pattern() {
        // About half of the 64 secret bits change from one id to the next.
        let ids = SessionIds::new(0, 0, [3; 16]);
        let secret = |id: SessionId| {
            let digits = id.0[PLACE_LEN..].iter().map(|c| u64::from(value_of(*c).unwrap()));
            digits.fold(0_u64, |sum, digit| sum.checked_mul(BASE).and_then(|sum| sum.checked_add(digit)).unwrap())
        };
        let secrets: Vec<u64> = (0..1000).map(|_| secret(ids.next_id())).collect();
        let changed: u32 = secrets.windows(2).map(|w| (w[0] ^ w[1]).count_ones()).sum();
        let mean = f64::from(changed) / 999.0;
        assert!((29.0..35.0).contains(&mean), "{mean}");
    }

    #[test]
    fn what_is_not_an_id_is_refused() {
        for bad in [
            &b""[..],
            b"AAAAAAAAAAAAAAA",
            b"AAAAAAAAAAAAAAAAA",
            b"AAAAAAAA AAAAAAA",
            b"AAAAAAAA+AAAAAAA",
            b"AAAAAAAA-AAAAAAA",
            b"AAAAAAAA_AAAAAAA",
            b"AAAAAAAA,AAAAAAA",
        ] {
            assert_eq!(SessionId::from_bytes(bad), None);
        }
    }
}
