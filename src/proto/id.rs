//! Session ids: 16 characters of `[A-Za-z0-9_-]`, 96 bits.
//!
//! ```text
//!  2 chars      3 chars           11 chars
//! | node 12 b | epoch 18 b |      secret 66 b       |
//! ```
//!
//! The node that holds the session and the epoch (one run of that node) are readable; the secret is a counter sent
//! through a permutation under a key that only this process has. A permutation never gives the same value twice, so
//! an id is never reused within an epoch, and without the key the next one cannot be guessed.

use std::fmt;
use std::hash::Hasher;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};
use siphasher::sip::SipHasher24;

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
/// Half of the secret: 33 bits.
const HALF_MASK: u64 = (1 << 33) - 1;
/// Four rounds make a Feistel network a pseudorandom permutation (Luby and Rackoff 1988); eight leave a margin for
/// halves of only 33 bits.
const ROUNDS: u64 = 8;

/// The name of a session, as PHP sees it in `SESSIONID`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SessionId([u8; SessionId::LEN]);

impl SessionId {
    /// Characters in an id.
    pub const LEN: usize = 16;
    /// Nodes that ids can tell apart.
    pub const NODES: u16 = 1 << 12;
    /// Epochs of a node that ids can tell apart.
    pub const EPOCHS: u32 = 1 << 18;

    /// Reads an id from the wire. `None` unless it is 16 characters of the alphabet.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let id: [u8; Self::LEN] = bytes.try_into().ok()?;
        id.iter().all(|c| value_of(*c).is_some()).then_some(Self(id))
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        str::from_utf8(&self.0).expect("only characters of ALPHABET are ever stored")
    }

    /// The node that holds the session.
    pub fn node(&self) -> u16 {
        self.digits(0, 2) as u16
    }

    /// Which run of that node gave the id.
    pub fn epoch(&self) -> u32 {
        self.digits(2, 3) as u32
    }

    fn digits(&self, from: usize, count: usize) -> u64 {
        self.0[from..from + count]
            .iter()
            .fold(0, |sum, c| sum << 6 | u64::from(value_of(*c).expect("only characters of ALPHABET are ever stored")))
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
        Self::from_bytes(text.as_bytes()).ok_or("a session id is 16 characters of A-Z a-z 0-9 _ -")
    }
}

/// Gives the ids of one epoch of one node.
pub struct SessionIds {
    node: u16,
    epoch: u32,
    key: [u8; 16],
    next: AtomicU64,
}

impl SessionIds {
    /// `node` below [`SessionId::NODES`]; `epoch` is taken modulo [`SessionId::EPOCHS`]; `key` is secret and random.
    pub fn new(node: u16, epoch: u32, key: [u8; 16]) -> Self {
        assert!(node < SessionId::NODES, "config checks the node number");
        Self { node, epoch: epoch % SessionId::EPOCHS, key, next: AtomicU64::new(0) }
    }

    /// The next id; never the same twice.
    pub fn next_id(&self) -> SessionId {
        let count = self.next.fetch_add(1, Ordering::Relaxed);
        let (mut left, mut right) = (count >> 33, count & HALF_MASK);
        for round in 0..ROUNDS {
            (left, right) = (right, left ^ self.round(round, right));
        }
        let mut id = [0; SessionId::LEN];
        put_digits(&mut id[0..2], u128::from(self.node));
        put_digits(&mut id[2..5], u128::from(self.epoch));
        put_digits(&mut id[5..16], u128::from(left) << 33 | u128::from(right));
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
        b'-' => Some(62),
        b'_' => Some(63),
        _ => None,
    }
}

fn put_digits(into: &mut [u8], mut value: u128) {
    for c in into.iter_mut().rev() {
        *c = ALPHABET[(value & 63) as usize];
        value >>= 6;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn ids_are_distinct_and_tell_node_and_epoch() {
        let ids = SessionIds::new(4095, 200_000, [7; 16]);
        let mut seen = HashSet::new();
        for _ in 0..100_000 {
            let id = ids.next_id();
            assert_eq!((id.node(), id.epoch()), (4095, 200_000));
            assert_eq!(SessionId::from_bytes(id.as_str().as_bytes()), Some(id));
            assert!(seen.insert(id), "{id} was given twice");
        }
    }

    #[test]
    fn another_key_gives_other_secrets() {
        let (a, b) = (SessionIds::new(0, 0, [1; 16]), SessionIds::new(0, 0, [2; 16]));
        assert_ne!(a.next_id(), b.next_id());
    }

    #[test]
    fn neighbours_share_no_pattern() {
        // About half of the 66 secret bits change from one id to the next.
        let ids = SessionIds::new(0, 0, [3; 16]);
        let secrets: Vec<u128> = (0..1000)
            .map(|_| {
                let id = ids.next_id();
                u128::from(id.digits(5, 5)) << 36 | u128::from(id.digits(10, 6))
            })
            .collect();
        let changed: u32 = secrets.windows(2).map(|w| (w[0] ^ w[1]).count_ones()).sum();
        let mean = f64::from(changed) / 999.0;
        assert!((30.0..36.0).contains(&mean), "{mean}");
    }

    #[test]
    fn what_is_not_an_id_is_refused() {
        for bad in [&b""[..], b"AAAAAAAAAAAAAAA", b"AAAAAAAAAAAAAAAAA", b"AAAAAAAA AAAAAAA", b"AAAAAAAA+AAAAAAA"] {
            assert_eq!(SessionId::from_bytes(bad), None);
        }
    }
}
