//! Length-prefixed frames by a Lua script, to compare with the native framing.

use std::hint::black_box;
use std::path::Path;

use criterion::{Criterion, Throughput};
use longwire::config::model::LuaFraming;
use longwire::lua;
use longwire::proto::framing::custom::Outgoing;
use longwire::proto::framing::{FrameKind, Framing, LengthFraming};
use longwire::proto::id::SessionIds;

use super::framing::{SIZES, decoding};
use super::{bench, text};

pub(super) fn benches(criterion: &mut Criterion) {
    let options = LuaFraming {
        script: Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/lua/length.lua"),
        max_instructions: 10_000_000,
        max_memory_bytes: 64 << 20,
    };
    let of_listener = lua::framing("bench", &options, 1, lua::Manner::default()).expect("the script is in the tree");
    let framing = of_listener.of_session(SessionIds::new(1, 1, [7; 16]).next_id());
    let codec = framing.codec().expect("a Lua framing has a codec");
    assert!(codec.open());

    let without_script = Framing::Length(LengthFraming::default());
    decoding(criterion, "length by Lua", &framing, |body| {
        without_script.encode(FrameKind::Binary, body).expect("it fits")
    });
    let mut group = criterion.benchmark_group("encode length by Lua");
    for (size, bytes) in SIZES {
        let body = text(bytes);
        bench(&mut group, size, Throughput::Bytes(bytes as u64), || {
            let mut sent = 0;
            let encoded = codec.encode(black_box(&body), &mut |outgoing| match black_box(outgoing) {
                Outgoing::Frame(frame) => sent += frame.len(),
                other => panic!("the script must neither close nor send by itself: {other:?}"),
            });
            encoded.expect("the script writes every body");
            assert_eq!(sent, bytes + 4);
        });
    }
    group.finish();
}
