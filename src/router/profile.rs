//! The profile of a session, set by commands: its uid, its attributes, its channels.

use bytes::Bytes;
use serde::Serialize;

use crate::proto::command::{AttributeKey, Expect, Name};
use crate::proto::fastcgi::params::{EncodedParams, Params};

/// See the module. Most sessions have no profile, many have one channel.
#[derive(Clone, Debug, Default)]
pub struct Profile {
    channels: Vec<Name>,
    person: Option<Box<Person>>,
}

/// The part that PHP gets with each event.
#[derive(Clone, Debug, Default)]
struct Person {
    uid: Option<Name>,
    /// In the order of their keys.
    attributes: Vec<(AttributeKey, Bytes)>,
    /// All of it, encoded for PHP.
    params: EncodedParams,
}

/// The action cannot be done with this session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Refusal;

impl Profile {
    /// The channels that the session is in.
    pub fn channels(&self) -> &[Name] {
        &self.channels
    }

    /// The uid of the session.
    pub fn uid(&self) -> Option<&Name> {
        self.person.as_ref()?.uid.as_ref()
    }

    /// An attribute's value.
    pub fn attribute(&self, key: &AttributeKey) -> Option<&Bytes> {
        let attributes = &self.person.as_ref()?.attributes;
        attributes.binary_search_by(|(known, _)| known.cmp(key)).ok().map(|index| &attributes[index].1)
    }

    /// All attributes, in the order of their keys.
    pub fn attributes(&self) -> &[(AttributeKey, Bytes)] {
        self.person.as_ref().map_or(&[], |person| &person.attributes)
    }

    /// `LONGWIRE_UID` and `LONGWIRE_ATTR_*`.
    pub fn params(&self) -> EncodedParams {
        self.person.as_ref().map(|person| person.params.clone()).unwrap_or_default()
    }

    /// Whether PHP gets something of it. PHP does not get the channels.
    pub(super) fn has_params(&self) -> bool {
        self.person.is_some()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.channels.is_empty() && self.person.is_none()
    }

    pub(super) fn is_in(&self, channel: &Name) -> bool {
        self.channels.contains(channel)
    }

    pub(super) fn enter(&mut self, channel: Name) {
        // Most sessions are in one channel, and room for four would cost each of them 48 bytes.
        if self.channels.capacity() == 0 {
            self.channels.reserve_exact(1);
        }
        self.channels.push(channel);
    }

    /// Leaves a channel. Returns true if the session was in it.
    pub(super) fn exit(&mut self, channel: &Name) -> bool {
        let Some(index) = self.channels.iter().position(|known| known == channel) else { return false };
        self.channels.swap_remove(index);
        true
    }

    /// Binds a uid, or unbinds it.
    pub fn bind(&mut self, uid: Option<Name>) {
        self.change(|person| person.uid = uid);
    }

    /// Sets an attribute if it is as expected and there is room for it in `max_bytes`.
    pub(super) fn set(
        &mut self,
        key: &AttributeKey,
        value: &Bytes,
        expect: &Expect,
        max_bytes: usize,
    ) -> Result<(), Refusal> {
        let old = self.attribute(key);
        let is_expected = match expect {
            Expect::Anything => true,
            Expect::Absent => old.is_none(),
            Expect::Value(expected) => old == Some(expected),
        };
        let size = |(key, value): &(AttributeKey, Bytes)| key.as_str().len() + value.len();
        let others: usize = self.attributes().iter().filter(|(known, _)| known != key).map(size).sum();
        if !is_expected || others + key.as_str().len() + value.len() > max_bytes {
            return Err(Refusal);
        }
        // A slice of the command would keep the whole command in memory for as long as the session lives.
        let value = Bytes::copy_from_slice(value);
        self.change(|person| match person.attributes.binary_search_by(|(known, _)| known.cmp(key)) {
            Ok(index) => person.attributes[index].1 = value,
            Err(index) => person.attributes.insert(index, (key.clone(), value)),
        });
        Ok(())
    }

    pub(super) fn delete(&mut self, key: &AttributeKey) {
        if self.attribute(key).is_some() {
            self.change(|person| person.attributes.retain(|(known, _)| known != key));
        }
    }

    fn change(&mut self, change: impl FnOnce(&mut Person)) {
        let mut person = self.person.take().unwrap_or_default();
        change(&mut person);
        person.params = person.encode();
        self.person = Some(person).filter(|person| person.uid.is_some() || !person.attributes.is_empty());
    }
}

impl Person {
    fn encode(&self) -> EncodedParams {
        const FITS: &str = "a name and an attribute are bounded far below a record";
        let mut params = Params::new();
        if let Some(uid) = &self.uid {
            params.push(b"LONGWIRE_UID", uid.as_bytes()).expect(FITS);
        }
        for (key, value) in &self.attributes {
            let name = format!("LONGWIRE_ATTR_{}", key.as_str().to_ascii_uppercase());
            params.push(name.as_bytes(), value).expect(FITS);
        }
        params.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(profile: &Profile) -> Vec<(String, String)> {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        profile.params().pairs().map(|(name, value)| (text(name), text(value))).collect()
    }

    #[test]
    fn attributes_are_set_compared_bounded_and_deleted() {
        let key = |text: &str| AttributeKey::new(text.as_bytes()).unwrap();
        let mut profile = Profile::default();
        let set = |profile: &mut Profile, name: &str, value: &'static str, expect: Expect| {
            profile.set(&key(name), &Bytes::from_static(value.as_bytes()), &expect, 20).is_ok()
        };
        let is = |value: &'static str| Expect::Value(Bytes::from_static(value.as_bytes()));
        assert!(!set(&mut profile, "room", "1", is("0")), "there is none");
        assert!(profile.is_empty());
        assert!(set(&mut profile, "room", "1", Expect::Absent));
        assert!(!set(&mut profile, "room", "2", Expect::Absent));
        assert!(!set(&mut profile, "room", "2", is("3")));
        assert!(set(&mut profile, "room", "2", is("1")));
        assert!(set(&mut profile, "Name", "0123456789a", Expect::Anything), "20 bytes in all");
        assert!(!set(&mut profile, "room", "22", Expect::Anything), "21 bytes in all");
        profile.bind(Some(Name::new(b"42").unwrap()));
        let expected = [("LONGWIRE_UID", "42"), ("LONGWIRE_ATTR_NAME", "0123456789a"), ("LONGWIRE_ATTR_ROOM", "2")];
        assert_eq!(pairs(&profile), expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
        for name in ["room", "name", "never"] {
            profile.delete(&key(name));
        }
        profile.bind(None);
        assert!(profile.is_empty());
    }
}
