//! Session ids.

use std::hint::black_box;

use criterion::{Criterion, Throughput};
use longwire::proto::id::{SessionId, SessionIds};

use super::bench;

pub(super) fn benches(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("session id");
    let ids = SessionIds::new(1, 1, [7; 16]);
    let id = ids.next_id();
    let one = Throughput::Elements(1);
    bench(&mut group, "generate", one.clone(), || ids.next_id());
    bench(&mut group, "parse", one.clone(), || SessionId::from_bytes(black_box(id.as_str().as_bytes())));
    bench(&mut group, "as text", one.clone(), || black_box(&id).as_str().len());
    bench(&mut group, "node", one, || black_box(&id).node());
    group.finish();
}
