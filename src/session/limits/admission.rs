//! Limits on new connections and on the number of sessions, for the node and for each client address.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use super::bucket::Bucket;
use super::passed::PassedLimits;
use crate::config::model::{Limit, Limits, Rate};
use crate::locks::lock;
use crate::proto::close::CloseReason;
use crate::transport::Peer;

/// The number of addresses whose rates are remembered, in each of two generations. So many fit into a hash table of 32
/// 768 places, which takes 1.3 MB.
const ADDRESSES: usize = 28_672;

/// Counts connections and sessions, and checks them against the limits of the node.
///
/// A session counts until its close event is delivered. So `max_sessions` also bounds the queue of close events, which
/// are never dropped. For its address, a session counts only until its connection ends.
///
/// Call in this order: [`Admission::accept_from`] as soon as the client's address is known, [`Admission::accept`] for
/// every connection, [`Admission::admit`] when a connection becomes a session.
pub struct Admission {
    passed: Arc<PassedLimits>,
    max_sessions: usize,
    max_per_address: usize,
    sessions: AtomicUsize,
    /// Sessions per address. Empty if there is no limit per address.
    addresses: Mutex<HashMap<IpAddr, usize>>,
    accept_rate: Rate,
    accepted: Mutex<Bucket>,
    accept_rate_per_address: Rate,
    accepted_from: Mutex<Generations>,
}

impl Admission {
    /// `max_sessions` is the number that the process can hold, at most the one in `limits`.
    pub fn new(max_sessions: usize, limits: &Limits, passed: Arc<PassedLimits>) -> Self {
        Self {
            max_sessions,
            max_per_address: limits.max_sessions_per_address,
            sessions: AtomicUsize::new(0),
            addresses: Mutex::default(),
            accept_rate: limits.accept_rate,
            accepted: Mutex::new(Bucket::full(limits.accept_rate, passed.now())),
            accept_rate_per_address: limits.accept_rate_per_address,
            accepted_from: Mutex::default(),
            passed,
        }
    }

    /// Counts a new connection. The error is the reason to refuse it if the node has accepted too many lately.
    pub fn accept(&self, peer: Peer) -> Result<(), CloseReason> {
        if !self.accept_rate.is_bound() {
            return Ok(());
        }
        let is_within = lock(&self.accepted).take(self.accept_rate, self.passed.now());
        if !is_within && self.passed.acts_on(Limit::AcceptRate, peer) {
            return Err(CloseReason::AcceptRate);
        }
        Ok(())
    }

    /// The same for the address of the client. Call it first, so that one address cannot use up the rate of all.
    pub fn accept_from(&self, peer: Peer) -> Result<(), CloseReason> {
        let Some(address) = peer.counted_address().filter(|_| self.accept_rate_per_address.is_bound()) else {
            return Ok(());
        };
        let is_within = lock(&self.accepted_from).take(address, self.accept_rate_per_address, self.passed.now());
        if !is_within && self.passed.acts_on(Limit::AcceptRatePerAddress, peer) {
            return Err(CloseReason::AcceptRate);
        }
        Ok(())
    }

    /// Takes a place for one more session. The error is the reason to refuse it.
    pub fn admit(self: &Arc<Self>, peer: Peer) -> Result<Permit, CloseReason> {
        let address = peer.counted_address().filter(|_| self.max_per_address > 0);
        let counted = self.sessions.fetch_update(Ordering::AcqRel, Ordering::Acquire, |sessions| {
            (sessions < self.max_sessions).then_some(sessions + 1)
        });
        if counted.is_err() {
            self.passed.refused_for_want_of_room(self.max_sessions, peer);
            return Err(CloseReason::TooManySessions);
        }
        let mut permit = Permit { admission: self.clone(), address: None };
        if let Some(address) = address {
            let is_beyond = {
                let mut addresses = lock(&self.addresses);
                let count = addresses.entry(address).or_default();
                *count += 1;
                *count > self.max_per_address
            };
            permit.address = Some(address);
            // If the session is refused, dropping the permit takes it out of both counts.
            if is_beyond && self.passed.acts_on(Limit::MaxSessionsPerAddress, peer) {
                return Err(CloseReason::TooManySessions);
            }
        }
        Ok(permit)
    }

    /// The number of sessions that count now.
    pub fn sessions(&self) -> usize {
        self.sessions.load(Ordering::Acquire)
    }
}

/// The rates of the addresses that connected recently.
///
/// Two generations bound its memory. A connecting address is moved into the younger generation. When that is full, the
/// elder one is forgotten and the younger one takes its place. So with more than [`ADDRESSES`] addresses at once, those
/// heard longest ago start again with a full burst. The node's own rate still bounds all of them together.
#[derive(Debug, Default)]
struct Generations {
    younger: HashMap<IpAddr, Bucket>,
    elder: HashMap<IpAddr, Bucket>,
}

impl Generations {
    fn take(&mut self, address: IpAddr, rate: Rate, now: u64) -> bool {
        if let Some(bucket) = self.younger.get_mut(&address) {
            return bucket.take(rate, now);
        }
        let mut bucket = self.elder.remove(&address).unwrap_or_else(|| Bucket::full(rate, now));
        let is_within = bucket.take(rate, now);
        if self.younger.len() >= ADDRESSES {
            self.elder = std::mem::take(&mut self.younger);
        }
        self.younger.insert(address, bucket);
        is_within
    }
}

/// A session's place. Dropping it frees the place.
pub struct Permit {
    admission: Arc<Admission>,
    address: Option<IpAddr>,
}

impl Permit {
    /// The connection has ended: its address may connect again, even if the close event is still to be delivered.
    pub fn release_address(&mut self) {
        if let Some(address) = self.address.take() {
            let mut addresses = lock(&self.admission.addresses);
            if let Some(count) = addresses.get_mut(&address) {
                *count -= 1;
                if *count == 0 {
                    addresses.remove(&address);
                }
            }
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.release_address();
        self.admission.sessions.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn peer(host: u8, port: u16) -> Peer {
        Peer::Ip(([127, 0, 0, host], port).into())
    }

    fn limits(max_per_address: usize, accept_rate: Rate, accept_rate_per_address: Rate, dry_run: &[Limit]) -> Limits {
        Limits {
            max_sessions: 1,
            max_sessions_per_address: max_per_address,
            max_handshakes: 1,
            accept_rate,
            accept_rate_per_address,
            handshake_timeout: Duration::ZERO,
            max_header_bytes: 0,
            drain_timeout: Duration::ZERO,
            dry_run: dry_run.to_vec(),
        }
    }

    fn admission(max_sessions: usize, limits: &Limits) -> Arc<Admission> {
        let passed = Arc::new(PassedLimits::new(&limits.dry_run, Arc::default()));
        Arc::new(Admission::new(max_sessions, limits, passed))
    }

    const NONE: Rate = Rate { per_second: 0, burst: 0 };
    const TWO: Rate = Rate { per_second: 1, burst: 2 };

    #[test]
    fn a_node_and_an_address_have_their_bounds() {
        let admission = admission(3, &limits(2, NONE, NONE, &[]));
        let mut first = admission.admit(peer(1, 1)).unwrap();
        let second = admission.admit(peer(1, 2)).unwrap();
        assert_eq!(admission.admit(peer(1, 3)).err(), Some(CloseReason::TooManySessions));
        assert_eq!(admission.sessions(), 2);
        let third = admission.admit(peer(2, 1)).unwrap();
        assert_eq!(admission.admit(peer(3, 1)).err(), Some(CloseReason::TooManySessions));
        first.release_address();
        drop(third);
        let fourth = admission.admit(peer(1, 4)).unwrap();
        drop((first, second, fourth));
        assert_eq!(admission.sessions(), 0);
        assert!(lock(&admission.addresses).is_empty());
    }

    #[test]
    fn mapped_addresses_count_as_what_they_map() {
        let admission = admission(9, &limits(1, NONE, NONE, &[]));
        let _held = admission.admit(peer(1, 1)).unwrap();
        let mapped = Peer::Ip("[::ffff:127.0.0.1]:9".parse().unwrap());
        assert!(admission.admit(mapped).is_err());
        assert!(admission.admit(Peer::Unix).is_ok());
    }

    #[test]
    fn one_line_of_ipv6_counts_as_one_address() {
        let admission = admission(9, &limits(1, NONE, NONE, &[]));
        let peer = |address: &str| Peer::Ip(address.parse().unwrap());
        let _held = admission.admit(peer("[2001:db8:1:2::7]:1")).unwrap();
        assert!(admission.admit(peer("[2001:db8:1:2:ffff::8]:2")).is_err());
        assert!(admission.admit(peer("[2001:db8:1:3::7]:3")).is_ok());
    }

    #[test]
    fn an_address_that_comes_too_often_is_turned_away_and_others_are_not() {
        let admission = admission(9, &limits(0, NONE, TWO, &[]));
        let from = |host| admission.accept_from(peer(host, 1)).is_ok();
        assert_eq!([from(1), from(1), from(1), from(2), from(2), from(2)], [true, true, false, true, true, false]);
        assert!(admission.accept_from(Peer::Unix).is_ok() && admission.accept(peer(1, 1)).is_ok());
    }

    #[test]
    fn a_limit_that_is_only_tried_turns_nobody_away() {
        let limits = limits(1, TWO, TWO, &[Limit::AcceptRate, Limit::MaxSessionsPerAddress]);
        let admission = admission(9, &limits);
        assert!((0..5).all(|_| admission.accept(peer(1, 1)).is_ok()));
        let held = (admission.admit(peer(1, 1)).unwrap(), admission.admit(peer(1, 2)).unwrap());
        assert_eq!((0..3).filter(|_| admission.accept_from(peer(1, 1)).is_ok()).count(), 2, "this one is in force");
        drop(held);
        assert!(lock(&admission.addresses).is_empty());
    }

    #[test]
    fn more_addresses_than_are_remembered_cost_no_more_memory() {
        let mut generations = Generations::default();
        let mut last = 0;
        for number in 0..3 * ADDRESSES as u32 {
            assert!(generations.take(IpAddr::from(number.to_be_bytes()), TWO, 0));
            last = number;
        }
        assert!(generations.younger.len() + generations.elder.len() <= 2 * ADDRESSES);
        assert!(generations.take(IpAddr::from(last.to_be_bytes()), TWO, 0));
        assert!(
            !generations.take(IpAddr::from(last.to_be_bytes()), TWO, 0),
            "an address that came just now is remembered"
        );
    }
}
