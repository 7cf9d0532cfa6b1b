//! Params: name-value pairs in their wire form (specification section 3.4).
//!
//! Most params of a request are the same for every event of a session, and many are the same for every session of an app. So they are
//! encoded once, kept as [`EncodedParams`] and shared. A block always holds whole pairs. Each pair fits into one PARAMS record, because
//! php-fpm resets a connection on which a pair spans two.

use std::fmt;
use std::sync::Arc;

use super::record::MAX_CONTENT;

/// Whole pairs in their wire form. Cheap to clone; without pairs it holds no memory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EncodedParams(Option<Arc<[u8]>>);

/// A name and value that do not fit into one record, so php-fpm could not accept them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PairTooLong {
    /// Bytes of the pair with its length fields.
    pub bytes: usize,
}

impl fmt::Display for PairTooLong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a param of {} bytes does not fit into one record of {MAX_CONTENT}", self.bytes)
    }
}

impl std::error::Error for PairTooLong {}

/// Builds [`EncodedParams`].
///
/// ```
/// # use longwire::proto::fastcgi::params::Params;
/// let mut params = Params::new();
/// params.push(b"REQUEST_METHOD", b"POST").expect("short");
/// assert_eq!(&params.finish()[..], b"\x0e\x04REQUEST_METHODPOST");
/// ```
#[derive(Debug, Default)]
pub struct Params(Vec<u8>);

impl Params {
    /// No pairs yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// No pairs yet, with capacity for this many encoded bytes.
    pub fn with_capacity(bytes: usize) -> Self {
        Self(Vec::with_capacity(bytes))
    }

    /// Adds a pair. If a name is added twice, php-fpm uses the last one. An error leaves the params unchanged.
    #[inline]
    pub fn push(&mut self, name: &[u8], value: &[u8]) -> Result<(), PairTooLong> {
        if name.len() < 128 && value.len() < 128 {
            // The fast path: nearly all pairs are short, and a message has eleven of them.
            self.0.reserve(2 + name.len() + value.len());
            self.0.extend_from_slice(&[name.len() as u8, value.len() as u8]);
            self.0.extend_from_slice(name);
            self.0.extend_from_slice(value);
            return Ok(());
        }
        self.push_long(name, value)
    }

    fn push_long(&mut self, name: &[u8], value: &[u8]) -> Result<(), PairTooLong> {
        let bytes = length_len(name.len()) + length_len(value.len()) + name.len() + value.len();
        if bytes > MAX_CONTENT {
            return Err(PairTooLong { bytes });
        }
        self.0.reserve(bytes);
        push_length(&mut self.0, name.len());
        push_length(&mut self.0, value.len());
        self.0.extend_from_slice(name);
        self.0.extend_from_slice(value);
        Ok(())
    }

    /// The pairs so far, ready to share.
    pub fn finish(self) -> EncodedParams {
        EncodedParams::new(&self.0)
    }

    /// The pairs so far. This builder is then empty and keeps its capacity.
    pub fn finish_copy(&mut self) -> EncodedParams {
        let copy = EncodedParams::new(&self.0);
        self.0.clear();
        copy
    }
}

impl EncodedParams {
    fn new(pairs: &[u8]) -> Self {
        Self((!pairs.is_empty()).then(|| pairs.into()))
    }

    /// The pairs, in order. Stops at the first incomplete one.
    pub fn pairs(&self) -> Pairs<'_> {
        Pairs(self)
    }

    /// The length of the longest run of whole pairs at the start of `bytes[from..]` that fits one record; 0 at the end.
    pub(super) fn record_len(&self, from: usize) -> usize {
        let rest = &self[from..];
        if rest.len() <= MAX_CONTENT {
            return rest.len();
        }
        let mut pairs = Pairs(rest);
        let mut len = 0;
        while pairs.next().is_some() && rest.len() - pairs.0.len() <= MAX_CONTENT {
            len = rest.len() - pairs.0.len();
        }
        len
    }
}

impl std::ops::Deref for EncodedParams {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.0.as_deref().unwrap_or_default()
    }
}

/// Walks encoded pairs as name and value.
#[derive(Clone, Debug)]
pub struct Pairs<'a>(&'a [u8]);

impl<'a> Pairs<'a> {
    /// Walks the content of PARAMS records.
    pub fn new(encoded: &'a [u8]) -> Self {
        Self(encoded)
    }

    /// The bytes that were not walked: empty at the end of a valid block, otherwise its broken rest.
    pub fn rest(&self) -> &'a [u8] {
        self.0
    }
}

impl<'a> Iterator for Pairs<'a> {
    type Item = (&'a [u8], &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let mut rest = self.0;
        let name_len = take_length(&mut rest)?;
        let value_len = take_length(&mut rest)?;
        // Lengths are below 2^31, so the sum cannot overflow a 64-bit usize; on 32 bits it is refused here.
        if rest.len() < name_len.checked_add(value_len)? {
            return None;
        }
        let (name, rest) = rest.split_at(name_len);
        let (value, rest) = rest.split_at(value_len);
        self.0 = rest;
        Some((name, value))
    }
}

const fn length_len(length: usize) -> usize {
    if length < 128 { 1 } else { 4 }
}

fn push_length(into: &mut Vec<u8>, length: usize) {
    if length < 128 {
        into.push(length as u8);
    } else {
        into.extend_from_slice(&(length as u32 | 1 << 31).to_be_bytes());
    }
}

fn take_length(from: &mut &[u8]) -> Option<usize> {
    let first = *from.first()?;
    if first < 128 {
        *from = &from[1..];
        return Some(usize::from(first));
    }
    let (length, rest) = from.split_first_chunk::<4>()?;
    *from = rest;
    Some((u32::from_be_bytes(*length) & !(1 << 31)) as usize)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn encode(pairs: &[(Vec<u8>, Vec<u8>)]) -> EncodedParams {
        let mut params = Params::new();
        for (name, value) in pairs {
            params.push(name, value).expect("short enough");
        }
        params.finish()
    }

    proptest! {
        #[test]
        fn pairs_survive_the_wire(pairs: Vec<(Vec<u8>, Vec<u8>)>, long in 120usize..70_000) {
            let mut pairs = pairs;
            pairs.push((b"LONG".to_vec(), vec![b'x'; long.min(65_000)]));
            let encoded = encode(&pairs);
            let mut walk = encoded.pairs();
            let decoded: Vec<_> = walk.by_ref().map(|(n, v)| (n.to_vec(), v.to_vec())).collect();
            prop_assert_eq!(decoded, pairs);
            prop_assert!(walk.rest().is_empty());
        }

        #[test]
        fn random_bytes_give_pairs_within_them_and_never_panic(bytes: Vec<u8>) {
            let mut walk = Pairs::new(&bytes);
            let taken: usize = walk.by_ref().map(|(n, v)| n.len() + v.len()).sum();
            prop_assert!(taken + walk.rest().len() <= bytes.len());
        }

        #[test]
        fn records_hold_whole_pairs(lengths in prop::collection::vec(0usize..30_000, 0..12)) {
            let pairs: Vec<_> = lengths.iter().map(|len| (b"NAME".to_vec(), vec![b'v'; *len])).collect();
            let encoded = encode(&pairs);
            let (mut from, mut seen) = (0, Vec::new());
            while from < encoded.len() {
                let len = encoded.record_len(from);
                prop_assert!(len > 0 && len <= MAX_CONTENT);
                let mut walk = Pairs::new(&encoded[from..from + len]);
                seen.extend(walk.by_ref().map(|(_, v)| v.len()));
                prop_assert!(walk.rest().is_empty());
                from += len;
            }
            prop_assert_eq!(seen, lengths);
        }
    }

    #[test]
    fn the_longest_pair_fits_and_one_byte_more_does_not() {
        let longest = MAX_CONTENT - 1 - 4 - 1;
        let mut params = Params::new();
        assert_eq!(params.push(b"N", &vec![0; longest + 1]), Err(PairTooLong { bytes: MAX_CONTENT + 1 }));
        params.push(b"N", &vec![0; longest]).expect("content is exactly the largest");
        assert_eq!(params.finish().len(), MAX_CONTENT);
    }
}
