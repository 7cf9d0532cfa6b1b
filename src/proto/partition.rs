//! Partitions: channels and uids are spread over a fixed number of subjects between nodes.
//!
//! A node with members of a hundred thousand channels must not need a hundred thousand subscriptions, so names share them. The partition
//! of a name is its CRC-32 (the one of zlib and of PHP's `crc32()`) over a letter, `c` for a channel or `u` for a uid, and the name. So
//! every node, and any program that publishes directly, finds the same partition.

use super::command::Name;

/// One of [`Partition::COUNT`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Partition(u16);

impl Partition {
    /// The number of partitions, the same on all nodes. More would make heartbeats longer. With fewer, nodes would receive more messages
    /// that are not for them.
    pub const COUNT: u16 = 1024;

    /// `None` if the number is out of range.
    pub fn new(number: u16) -> Option<Self> {
        (number < Self::COUNT).then_some(Self(number))
    }

    /// All of them.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..Self::COUNT).map(Self)
    }

    /// The partition of a channel.
    pub fn of_channel(name: &Name) -> Self {
        Self::of(b'c', name)
    }

    /// The partition of a uid.
    pub fn of_uid(uid: &Name) -> Self {
        Self::of(b'u', uid)
    }

    /// Its number, from 0 to [`Partition::COUNT`] minus 1.
    pub fn number(self) -> u16 {
        self.0
    }

    fn of(letter: u8, name: &Name) -> Self {
        let mut crc = crc32fast::Hasher::new();
        crc.update(&[letter]);
        crc.update(name.as_bytes());
        Self((crc.finalize() % u32::from(Self::COUNT)) as u16)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_are_those_that_php_finds() {
        // php -r 'foreach (["cnews", "unews", "croom:1", "u42"] as $s) echo crc32($s) % 1024, "\n";'
        let name = |text: &str| Name::new(text.as_bytes()).unwrap();
        assert_eq!(Partition::of_channel(&name("news")).number(), 204);
        assert_eq!(Partition::of_uid(&name("news")).number(), 750);
        assert_eq!(Partition::of_channel(&name("room:1")).number(), 53);
        assert_eq!(Partition::of_uid(&name("42")).number(), 478);
        assert_eq!((Partition::new(1023).map(Partition::number), Partition::new(1024)), (Some(1023), None));
    }

    #[test]
    fn names_spread_evenly() {
        let mut counts = vec![0_u32; usize::from(Partition::COUNT)];
        for room in 0..102_400 {
            let name = Name::new(format!("room:{room}").as_bytes()).unwrap();
            counts[usize::from(Partition::of_channel(&name).number())] += 1;
        }
        let (least, most) = (*counts.iter().min().unwrap(), *counts.iter().max().unwrap());
        assert!(least > 50 && most < 150, "a hundred each on average, {least} to {most}");
    }
}
