//! The messages between nodes through an engine: one envelope is one payload.
//!
//! ```text
//! | "LW" | version u8 | kind u8 | node u16 | run u64 | number u64 | body ... |      big-endian
//! ```
//!
//! `run` identifies one start of a node. `number` counts the envelopes that one run published on one subject. With it a receiver takes no
//! envelope twice and notices missing ones. An answer names the run that it answers. Commands and queries are frames of the router port's
//! long protocol, so they mean the same in both.
//!
//! # Versions
//!
//! A node of version N reads N and N-1. It writes N-1 while the beats of any present node say that it reads nothing newer. So nodes can be
//! upgraded one after the other, one version at a time. Nodes of other versions do not understand each other, and each logs that.
//!
//! Some parts never change, so that nodes of any two versions never share a node number. These are the header before the body, the kinds
//! 1 (beat), 3 (claim) and 4 (taken), the whole body of claim and taken, and the name, epoch and start of a beat ([`Timeless`]).

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::command::{Command, Name, Query, Receipt};
use super::control::long::{Operation, RouterRequest};
use super::partition::Partition;
use super::presence::{Gone, Report, ReportAck};
pub use super::reader::Malformed;
use super::reader::Reader;
use super::run::{RequestId, Run};

const MAGIC: &[u8; 2] = b"LW";
/// The version of this node. Version 1 was never released, so 2 is the first version that a later one has to read.
pub const VERSION: u8 = 2;
/// Magic, version, kind, node, run, number.
const HEADER_BYTES: usize = 2 + 1 + 1 + 2 + 8 + 8;
const COUNTS: usize = 8;

/// The sender of an envelope: a node, in one of its runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Sender {
    /// The node's number.
    pub node: u16,
    /// This start of the node.
    pub run: Run,
}

/// One payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Envelope {
    pub from: Sender,
    /// Counts the envelopes that this sender has published on this subject, from 1.
    pub number: u64,
    /// The content.
    pub body: Body,
}

/// The content of an envelope.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// To all nodes, at intervals: the sender is present.
    Beat(Beat),
    /// To all nodes: the sender stops.
    Bye,
    /// From a node that starts, to its own node number: asks whether another node has that number already.
    Claim,
    /// The answer to a claim: the number is taken.
    Taken {
        /// The run that asked.
        run: Run,
        /// The name of the node that has the number.
        name: String,
    },
    /// Commands to carry out.
    Commands {
        /// The request id, which the receipts repeat; `None` asks for no receipts. It belongs to the sender's run.
        request: Option<RequestId>,
        /// One command, or several that may share a write.
        commands: Vec<Command>,
    },
    /// The results of commands.
    Receipts {
        /// The request that this answers.
        request: RequestId,
        /// One for each command.
        receipts: Vec<Receipt>,
    },
    Query {
        /// The request id, which the answer repeats. It belongs to the sender's run.
        request: RequestId,
        /// The query itself.
        query: Query,
    },
    /// The answer to a query.
    PartialAnswer {
        /// The request that this answers.
        request: RequestId,
        /// The sender's part of the answer.
        found: PartialAnswer,
    },
    /// To a keeper: the sessions in channels.
    Reports(Vec<Report>),
    /// From a keeper: the reports that it has received.
    ReportAcks {
        /// The run whose reports these are. A later run of that node cannot use them.
        run: Run,
        /// One for each partition.
        acks: Vec<ReportAck>,
    },
    /// From a keeper, to a node that was silent: apps were told that its sessions have left the channels of some partitions.
    TakenForGone(Gone),
    /// The answer to [`Body::TakenForGone`]: the node knows it now.
    KnowsGone(Gone),
}

/// A node's heartbeat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Beat {
    pub name: String,
    /// The epoch in the ids of its sessions.
    pub epoch: u32,
    /// When it started, in milliseconds since 1970. If two nodes have the same number, the one that started later must stop.
    pub started_ms: u64,
    /// How long this beat is valid, in milliseconds.
    pub lease_ms: u32,
    /// Sessions of the node. This version sends it and does not read it.
    pub sessions: u64,
    /// It has apps that get join and leave events, so it can be a keeper.
    pub keeps_account: bool,
    /// The newest version of envelopes that it reads.
    pub reads: u8,
    /// The partitions that it listens to.
    pub interest: Interest,
}

/// A set of partitions.
#[derive(Clone, PartialEq, Eq)]
pub struct Interest([u64; Interest::WORDS]);

impl Interest {
    const WORDS: usize = Partition::COUNT as usize / 64;

    /// Whether a partition is in the set.
    pub fn has(&self, partition: Partition) -> bool {
        let (word, bit) = Self::place(partition);
        self.0[word] & bit != 0
    }

    /// Adds a partition, or removes it.
    pub fn set(&mut self, partition: Partition, is_in: bool) {
        let (word, bit) = Self::place(partition);
        if is_in { self.0[word] |= bit } else { self.0[word] &= !bit }
    }

    /// The partitions in the set.
    pub fn partitions(&self) -> impl Iterator<Item = Partition> + '_ {
        Partition::all().filter(|partition| self.has(*partition))
    }

    /// The number of partitions in the set.
    pub fn len(&self) -> usize {
        self.0.iter().map(|word| word.count_ones() as usize).sum()
    }

    /// Whether the set is empty.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn place(partition: Partition) -> (usize, u64) {
        let number = usize::from(partition.number());
        (number / 64, 1 << (number % 64))
    }
}

impl Default for Interest {
    fn default() -> Self {
        Self([0; Self::WORDS])
    }
}

impl std::fmt::Debug for Interest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.partitions().map(Partition::number)).finish()
    }
}

/// A node's part of the answer to a query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PartialAnswer {
    /// There is no such session, or it has no such attribute.
    Absent,
    /// The answer: JSON, or an attribute's value.
    Whole(Bytes),
    /// A page of a list.
    List {
        /// The length of the whole list.
        count: u64,
        /// Names or ids, sorted by their bytes, each with its count if it has one.
        items: Vec<(Name, u32)>,
        /// The list continues after this page.
        goes_on: bool,
    },
}

mod kind {
    pub(super) const BEAT: u8 = 1;
    pub(super) const BYE: u8 = 2;
    pub(super) const CLAIM: u8 = 3;
    pub(super) const TAKEN: u8 = 4;
    pub(super) const COMMANDS: u8 = 5;
    pub(super) const RECEIPTS: u8 = 6;
    pub(super) const QUERY: u8 = 7;
    pub(super) const PARTIAL_ANSWER: u8 = 8;
    pub(super) const REPORTS: u8 = 9;
    pub(super) const REPORT_ACKS: u8 = 10;
    pub(super) const TAKEN_FOR_GONE: u8 = 11;
    pub(super) const KNOWS_GONE: u8 = 12;
}

/// Why a payload cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unread {
    /// It is not an envelope.
    Other,
    /// It is an envelope of a version that this node does not read.
    Version {
        version: u8,
        from: Sender,
        /// The part that can be read in any version.
        says: Option<Timeless>,
    },
    /// It is a malformed envelope.
    Malformed(Malformed),
}

impl std::fmt::Display for Unread {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Unread::Other => f.write_str("is not an envelope"),
            Unread::Version { version, .. } => {
                write!(f, "is of version {version}, but this node reads version {VERSION}")
            }
            Unread::Malformed(wrong) => wrong.fmt(f),
        }
    }
}

/// The content that nodes of all versions understand, so that no two of them use the same node number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Timeless {
    /// See [`Body::Beat`].
    Beat {
        /// See [`Beat::name`].
        name: String,
        /// See [`Beat::started_ms`].
        started_ms: u64,
    },
    /// See [`Body::Claim`].
    Claim,
    /// See [`Body::Taken`].
    Taken {
        /// The run that asked.
        run: Run,
        /// The name of the node that has the number.
        name: String,
    },
}

impl Timeless {
    fn read(kind: u8, reader: &mut Reader) -> Option<Self> {
        let mut read = || {
            Ok::<_, Malformed>(match kind {
                kind::BEAT => {
                    let (name, _epoch, started_ms) = (reader.text()?, reader.u32()?, reader.u64()?);
                    Some(Timeless::Beat { name, started_ms })
                }
                kind::CLAIM => Some(Timeless::Claim),
                kind::TAKEN => Some(Timeless::Taken { run: reader.run()?, name: reader.text()? }),
                _ => None,
            })
        };
        read().ok().flatten()
    }
}

impl Envelope {
    /// The payload to publish.
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(HEADER_BYTES + 64);
        out.put_slice(MAGIC);
        out.put_u8(VERSION);
        out.put_u8(self.body.kind());
        out.put_u16(self.from.node);
        out.put_u64(self.from.run.bits());
        out.put_u64(self.number);
        self.body.encode(&mut out);
        out.freeze()
    }

    /// Reads a payload.
    ///
    /// # Errors
    ///
    /// The payload is not an envelope, is malformed, or has another version.
    pub fn decode(mut payload: Bytes) -> Result<Self, Unread> {
        if payload.len() < HEADER_BYTES || &payload[..2] != MAGIC {
            return Err(Unread::Other);
        }
        payload.advance(2);
        let (version, kind) = (payload.get_u8(), payload.get_u8());
        let from = Sender { node: payload.get_u16(), run: Run::of(payload.get_u64()) };
        let number = payload.get_u64();
        let mut reader = Reader(payload);
        if version != VERSION {
            return Err(Unread::Version { version, from, says: Timeless::read(kind, &mut reader) });
        }
        let body = Body::decode(kind, from.run, &mut reader).map_err(Unread::Malformed)?;
        reader.end().map_err(Unread::Malformed)?;
        Ok(Self { from, number, body })
    }
}

impl Body {
    fn kind(&self) -> u8 {
        match self {
            Body::Beat(_) => kind::BEAT,
            Body::Bye => kind::BYE,
            Body::Claim => kind::CLAIM,
            Body::Taken { .. } => kind::TAKEN,
            Body::Commands { .. } => kind::COMMANDS,
            Body::Receipts { .. } => kind::RECEIPTS,
            Body::Query { .. } => kind::QUERY,
            Body::PartialAnswer { .. } => kind::PARTIAL_ANSWER,
            Body::Reports(_) => kind::REPORTS,
            Body::ReportAcks { .. } => kind::REPORT_ACKS,
            Body::TakenForGone(_) => kind::TAKEN_FOR_GONE,
            Body::KnowsGone(_) => kind::KNOWS_GONE,
        }
    }

    fn encode(&self, out: &mut BytesMut) {
        match self {
            Body::Bye | Body::Claim => {}
            Body::Reports(reports) => reports.iter().for_each(|report| report.encode(out)),
            Body::ReportAcks { run, acks } => {
                out.put_u64(run.bits());
                acks.iter().for_each(|ack| ack.encode(out));
            }
            Body::TakenForGone(gone) | Body::KnowsGone(gone) => gone.encode(out),
            Body::Beat(beat) => {
                put_text(&beat.name, out);
                out.put_u32(beat.epoch);
                out.put_u64(beat.started_ms);
                out.put_u32(beat.lease_ms);
                out.put_u64(beat.sessions);
                out.put_u8(u8::from(beat.keeps_account));
                out.put_u8(beat.reads);
                beat.interest.0.iter().for_each(|word| out.put_u64(*word));
            }
            Body::Taken { run, name } => {
                out.put_u64(run.bits());
                put_text(name, out);
            }
            Body::Commands { request, commands } => {
                out.put_u64(request.map_or(NO_REQUEST, RequestId::number));
                for command in commands {
                    RouterRequest { number: 0, operation: Operation::Command(command.clone()) }.encode(out);
                }
            }
            Body::Receipts { request, receipts } => {
                put_answered(*request, out);
                receipts.iter().flat_map(Receipt::counts).for_each(|count| out.put_u32(count));
            }
            Body::Query { request, query } => {
                out.put_u64(request.number());
                RouterRequest { number: 0, operation: Operation::Query(query.clone()) }.encode(out);
            }
            Body::PartialAnswer { request, found } => {
                put_answered(*request, out);
                match found {
                    PartialAnswer::Absent => out.put_u8(0),
                    PartialAnswer::Whole(body) => {
                        out.put_u8(1);
                        out.put_slice(body);
                    }
                    PartialAnswer::List { count, items, goes_on } => {
                        out.put_u8(2);
                        out.put_u64(*count);
                        out.put_u8(u8::from(*goes_on));
                        for (name, count) in items {
                            out.put_u8(name.as_bytes().len() as u8);
                            out.put_slice(name.as_bytes());
                            out.put_u32(*count);
                        }
                    }
                }
            }
        }
    }

    /// Reads a body that the run `of` sent.
    fn decode(kind: u8, of: Run, reader: &mut Reader) -> Result<Self, Malformed> {
        let asked = |number| RequestId::new(of, number);
        Ok(match kind {
            kind::BEAT => {
                let (name, epoch, started_ms) = (reader.text()?, reader.u32()?, reader.u64()?);
                let (lease_ms, sessions, keeps_account) = (reader.u32()?, reader.u64()?, reader.u8()? == 1);
                let reads = reader.u8()?;
                let mut interest = Interest::default();
                for word in &mut interest.0 {
                    *word = reader.u64()?;
                }
                Body::Beat(Beat { name, epoch, started_ms, lease_ms, sessions, keeps_account, reads, interest })
            }
            kind::BYE => Body::Bye,
            kind::CLAIM => Body::Claim,
            kind::TAKEN => Body::Taken { run: reader.run()?, name: reader.text()? },
            kind::COMMANDS => {
                let (request, mut commands) = (asked(reader.u64()?), Vec::new());
                while let Some(operation) = reader.frame()? {
                    let Operation::Command(command) = operation else { return Err(Malformed::QueryAmongCommands) };
                    commands.push(command);
                }
                let [first, others @ ..] = &commands[..] else { return Err(Malformed::NoCommand) };
                if !others.iter().all(|other| first.may_share_a_write(other)) {
                    return Err(Malformed::MixedCommands);
                }
                Body::Commands { request, commands }
            }
            kind::RECEIPTS => {
                let (request, mut receipts) = (reader.answered()?, Vec::new());
                while !reader.is_empty() {
                    let mut counts = [0; COUNTS];
                    for count in &mut counts {
                        *count = reader.u32()?;
                    }
                    receipts.push(Receipt::from_counts(counts));
                }
                Body::Receipts { request, receipts }
            }
            kind::QUERY => {
                let request = asked(reader.u64()?).ok_or(Malformed::NoNumber)?;
                match reader.frame()? {
                    Some(Operation::Query(query)) => Body::Query { request, query },
                    _ => return Err(Malformed::NoQuery),
                }
            }
            kind::PARTIAL_ANSWER => Body::PartialAnswer { request: reader.answered()?, found: found(reader)? },
            kind::REPORTS => Body::Reports(reader.all(Report::decode)?),
            kind::REPORT_ACKS => Body::ReportAcks { run: reader.run()?, acks: reader.all(ReportAck::decode)? },
            kind::TAKEN_FOR_GONE => Body::TakenForGone(Gone::decode(reader)?),
            kind::KNOWS_GONE => Body::KnowsGone(Gone::decode(reader)?),
            other => return Err(Malformed::Kind(other)),
        })
    }
}

/// The request number if the sender wants no answer.
const NO_REQUEST: u64 = 0;

/// Writes the request that this answers: its run and its number.
fn put_answered(request: RequestId, out: &mut BytesMut) {
    out.put_u64(request.run().bits());
    out.put_u64(request.number());
}

/// A longer text is cut. The configuration allows names of at most 64 characters.
const MAX_TEXT: usize = 255;

fn put_text(text: &str, out: &mut BytesMut) {
    let longest = text.len().min(MAX_TEXT);
    let len = (0..=longest).rev().find(|at| text.is_char_boundary(*at)).expect("0 is one");
    out.put_u8(len as u8);
    out.put_slice(&text.as_bytes()[..len]);
}

fn found(reader: &mut Reader) -> Result<PartialAnswer, Malformed> {
    match reader.u8()? {
        0 => Ok(PartialAnswer::Absent),
        1 => Ok(PartialAnswer::Whole(reader.rest())),
        2 => {
            let (count, goes_on) = (reader.u64()?, reader.u8()? == 1);
            let items = reader.all(|reader| {
                let len = reader.u8()?;
                let name = Name::new(&reader.take(usize::from(len))?).map_err(Malformed::Name)?;
                Ok((name, reader.u32()?))
            })?;
            Ok(PartialAnswer::List { count, items, goes_on })
        }
        other => Err(Malformed::AnswerKind(other)),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::proto::command::{Action, Message, Page, Target};
    use crate::proto::id::SessionId;
    use crate::proto::presence::{Membership, Piece, Standing};

    fn name(text: &str) -> Name {
        Name::new(text.as_bytes()).unwrap()
    }

    fn standing(is_in: bool) -> Standing {
        let session = SessionId::from_bytes(b"AAAAAAAAAAAAAAAA").unwrap();
        let of = Membership { app: name("chat"), channel: name("room:1"), session };
        Standing { of, is_in, again: !is_in, uid: is_in.then(|| name("42")) }
    }

    fn report(whole: Option<Vec<Standing>>, changes: Vec<Standing>) -> Report {
        let partition = Partition::of_channel(&name("room:1"));
        let piece = Piece { number: changes.len() as u32, is_last: changes.is_empty() };
        Report {
            partition,
            piece,
            is_lead: whole.is_some(),
            is_new: changes.is_empty(),
            settled: 7,
            whole,
            from: 9,
            changes,
        }
    }

    const RUN: Run = Run::of(u64::MAX);

    /// A request of [`RUN`].
    fn request(number: u64) -> RequestId {
        RequestId::new(RUN, number).unwrap()
    }

    /// A request of another run.
    fn answered(number: u64) -> RequestId {
        RequestId::new(Run::of(7), number).unwrap()
    }

    fn bodies() -> Vec<Body> {
        let mut interest = Interest::default();
        for number in [0, 63, 64, 1023] {
            interest.set(Partition::new(number).unwrap(), true);
        }
        let send = |to: Target, body: &'static str| Command::new(to, Action::Send(Message::new(body)));
        let id = SessionId::from_bytes(b"AAAAAAAAAAAAAAAA").unwrap();
        let channel = || Target::Channel(name("news"));
        let found = |found| Body::PartialAnswer { request: answered(9), found };
        vec![
            Body::Beat(Beat {
                name: "edge-1".to_owned(),
                epoch: 200_000,
                started_ms: 1 << 41,
                lease_ms: 6000,
                sessions: 100_000,
                keeps_account: true,
                reads: 3,
                interest,
            }),
            Body::Bye,
            Body::Claim,
            Body::Taken { run: Run::of(7), name: "edge-2".to_owned() },
            Body::Commands { request: None, commands: vec![send(Target::All, "to all")] },
            Body::Commands {
                request: Some(request(5)),
                commands: vec![send(channel(), "one"), send(channel(), ""), send(channel(), "two")],
            },
            Body::Commands {
                request: Some(request(6)),
                commands: vec![Command::new(Target::session(id), Action::Join(name("a")))],
            },
            Body::Receipts {
                request: answered(5),
                receipts: vec![Receipt::from_counts([1, 2, 3, 4, 5, 6, 7, 8]), Receipt::default()],
            },
            Body::Query { request: request(8), query: Query::Channel(name("news"), Page::default()) },
            found(PartialAnswer::Absent),
            found(PartialAnswer::Whole(Bytes::from_static(b"{}"))),
            found(PartialAnswer::List { count: 70_000, items: vec![(name("a"), 3), (name("b"), 0)], goes_on: true }),
            Body::Reports(vec![
                report(None, Vec::new()),
                report(Some(Vec::new()), vec![standing(false), standing(true)]),
                report(Some(vec![standing(true)]), vec![standing(false)]),
            ]),
            Body::ReportAcks {
                run: Run::of(12),
                acks: vec![
                    ReportAck { partition: Partition::new(0).unwrap(), received: Some(9), settled: 8 },
                    ReportAck { partition: Partition::new(1023).unwrap(), received: None, settled: 0 },
                ],
            },
            Body::TakenForGone(Gone {
                run: Run::of(u64::MAX),
                as_of: 3,
                partitions: vec![Partition::new(0).unwrap(), Partition::new(1023).unwrap()],
            }),
            Body::KnowsGone(Gone { run: Run::of(1), as_of: u64::MAX, partitions: vec![Partition::new(7).unwrap()] }),
        ]
    }

    #[test]
    fn envelopes_come_back_as_they_were() {
        for body in bodies() {
            let envelope = Envelope { from: Sender { node: 4095, run: RUN }, number: 3, body };
            if let Body::Reports(reports) = &envelope.body {
                let reports: usize = reports.iter().map(Report::encoded_len).sum();
                assert_eq!(HEADER_BYTES + reports, envelope.encode().len());
            }
            assert_eq!(Envelope::decode(envelope.encode()), Ok(envelope));
        }
    }

    #[test]
    fn what_is_cut_or_goes_on_is_refused() {
        for body in bodies() {
            let may_be_cut = matches!(
                body,
                Body::Commands { .. }
                    | Body::Receipts { .. }
                    | Body::PartialAnswer { .. }
                    | Body::Reports(_)
                    | Body::ReportAcks { .. }
                    | Body::TakenForGone(_)
                    | Body::KnowsGone(_)
            );
            let payload = Envelope { from: Sender { node: 1, run: RUN }, number: 3, body }.encode();
            for len in 0..payload.len() {
                let cut = Envelope::decode(payload.slice(..len));
                assert!(cut.is_err() || may_be_cut, "{len} of {}: {cut:?}", payload.len());
            }
            if !may_be_cut {
                let more = Bytes::from([&payload[..], b"x"].concat());
                assert!(Envelope::decode(more).is_err());
            }
        }
        assert_eq!(Envelope::decode(Bytes::from_static(b"{\"channel\": 1}         ")), Err(Unread::Other));
    }

    #[test]
    fn of_another_version_is_read_what_keeps_numbers_apart_and_nothing_else() {
        let from = Sender { node: 4095, run: RUN };
        for body in bodies() {
            let says = match &body {
                Body::Beat(beat) => Some(Timeless::Beat { name: beat.name.clone(), started_ms: beat.started_ms }),
                Body::Claim => Some(Timeless::Claim),
                Body::Taken { run, name } => Some(Timeless::Taken { run: *run, name: name.clone() }),
                _ => None,
            };
            for version in [VERSION - 1, VERSION + 1] {
                let mut payload = BytesMut::from(&Envelope { from, number: 3, body: body.clone() }.encode()[..]);
                payload[2] = version;
                let unread = Unread::Version { version, from, says: says.clone() };
                assert_eq!(Envelope::decode(payload.clone().freeze()), Err(unread));
                // Bytes that a later version adds at the end are ignored.
                payload.put_slice(b"more");
                assert!(
                    matches!(Envelope::decode(payload.freeze()), Err(Unread::Version { says: read, .. }) if read == says)
                );
            }
        }
    }

    proptest! {
        #[test]
        fn random_payloads_never_panic(kind in 0_u8..14, bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut payload = BytesMut::from(&b"LW\x02"[..]);
            payload.put_u8(kind);
            payload.put_slice(&bytes);
            if let Ok(envelope) = Envelope::decode(payload.freeze()) {
                prop_assert_eq!(Envelope::decode(envelope.encode()), Ok(envelope));
            }
        }
    }
}
