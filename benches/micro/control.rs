//! Decoding of the router port's two protocols.

use std::hint::black_box;

use bytes::BytesMut;
use criterion::{Criterion, Throughput};
use longwire::proto::command::{Action, Command, Message, Name, Receipt, Target};
use longwire::proto::control::long::{Operation, RouterAnswer, RouterRequest};
use longwire::proto::control::{Frame, short};
use longwire::proto::id::SessionIds;

use super::{bench, text};

const MAX_LEN: usize = 1 << 20;

pub(super) fn benches(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("control");
    let ids = SessionIds::new(1, 1, [7; 16]);
    let to = |count: usize| Target::Sessions((0..count).map(|_| ids.next_id()).collect());
    let channel = Target::Channel(Name::new(b"room:1").expect("it is a name"));
    for (name, to) in [("channel", channel), ("1 session", to(1)), ("1000 sessions", to(1000))] {
        let operation = Operation::Command(Command::new(to, Action::Send(Message::new(text(64)))));
        let request = RouterRequest { number: 1, operation };
        let mut out = BytesMut::new();
        bench(&mut group, format!("encode send to {name}"), Throughput::Elements(1), || {
            out.clear();
            black_box(&request).encode(&mut out);
        });
        let wire = out.freeze();
        let mut input = BytesMut::new();
        bench(&mut group, format!("decode send to {name}"), Throughput::Elements(1), || {
            input.extend_from_slice(black_box(&wire));
            let frame = Frame::decode(&mut input, MAX_LEN).expect("it is short").expect("it is whole");
            RouterRequest::decode(&frame).expect("we encoded it")
        });
    }
    let mut wire = BytesMut::new();
    (0..500).for_each(|_| Frame::encode(9, b"room:1", &text(64), &mut wire));
    let mut input = BytesMut::new();
    bench(&mut group, "decode 500 short publishes in one read", Throughput::Elements(500), || {
        input.extend_from_slice(black_box(&wire));
        while let Some(frame) = Frame::decode(&mut input, MAX_LEN).expect("it is short") {
            black_box(short::decode(&frame).expect("we encoded it"));
        }
    });
    let mut out = BytesMut::new();
    bench(&mut group, "encode receipt", Throughput::Elements(1), || {
        out.clear();
        RouterAnswer::receipt(1, black_box(&Receipt::default()), Vec::new(), false).encode(&mut out);
    });
    group.finish();
}
