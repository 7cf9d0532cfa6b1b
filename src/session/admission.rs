//! How many sessions there may be, on the node and from one address.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use crate::proto::close::CloseReason;
use crate::transport::Peer;

/// Counts sessions against the bounds of the node.
///
/// A session counts until its close event is delivered, so the queue of close events, which is never shed, is bounded by
/// `max_sessions` too. It counts for its address until its connection ends.
pub struct Admission {
    max_sessions: usize,
    max_per_address: usize,
    sessions: AtomicUsize,
    /// Only kept when there is a bound for an address.
    addresses: Mutex<HashMap<IpAddr, usize>>,
}

impl Admission {
    /// Bounds on sessions; `max_per_address` of 0 is none.
    pub fn new(max_sessions: usize, max_per_address: usize) -> Self {
        Self { max_sessions, max_per_address, sessions: AtomicUsize::new(0), addresses: Mutex::default() }
    }

    /// One session more, or the reason why not.
    pub fn admit(self: &Arc<Self>, peer: Peer) -> Result<Permit, CloseReason> {
        let address = peer.address().filter(|_| self.max_per_address > 0);
        let counted = self.sessions.fetch_update(Ordering::AcqRel, Ordering::Acquire, |sessions| {
            (sessions < self.max_sessions).then_some(sessions + 1)
        });
        if counted.is_err() {
            return Err(CloseReason::TooManySessions);
        }
        let mut permit = Permit { admission: self.clone(), address: None };
        if let Some(address) = address {
            let mut addresses = self.addresses();
            let count = addresses.entry(address).or_default();
            if *count >= self.max_per_address {
                return Err(CloseReason::TooManySessions);
            }
            *count += 1;
            permit.address = Some(address);
        }
        Ok(permit)
    }

    /// Sessions that count now.
    pub fn sessions(&self) -> usize {
        self.sessions.load(Ordering::Acquire)
    }

    fn addresses(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        self.addresses.lock().expect("nothing panics while addresses are locked")
    }
}

/// A session's place; given back when dropped.
pub struct Permit {
    admission: Arc<Admission>,
    address: Option<IpAddr>,
}

impl Permit {
    /// The connection has ended: the address may come again, though the close event is still owed.
    pub fn release_address(&mut self) {
        if let Some(address) = self.address.take() {
            let mut addresses = self.admission.addresses();
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
    use super::*;

    fn peer(host: u8, port: u16) -> Peer {
        Peer::Ip(([127, 0, 0, host], port).into())
    }

    #[test]
    fn a_node_and_an_address_have_their_bounds() {
        let admission = Arc::new(Admission::new(3, 2));
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
        assert!(admission.addresses().is_empty());
    }

    #[test]
    fn mapped_addresses_count_as_what_they_map() {
        let admission = Arc::new(Admission::new(9, 1));
        let _held = admission.admit(peer(1, 1)).unwrap();
        let mapped = Peer::Ip("[::ffff:127.0.0.1]:9".parse().unwrap());
        assert!(admission.admit(mapped).is_err());
        assert!(admission.admit(Peer::Unix).is_ok());
    }
}
