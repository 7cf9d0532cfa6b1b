//! Measures each codec and the router alone, with the input that a caller would give them.
//!
//! `cargo bench --bench micro` runs all, `cargo bench --bench micro -- websocket` those with this word in their names. Each is compared
//! with the last run on this machine. Figures of another machine, or of a busy one, cannot be compared.

mod control;
mod fastcgi;
mod framing;
#[cfg(feature = "lua")]
mod lua;
mod router;
mod session_id;

use std::hint::black_box;
use std::time::Duration;

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, Throughput};

fn main() {
    // Short, so that all of them take a few minutes. The aim is to find changes by a factor, not by a percent.
    let mut criterion = Criterion::default()
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1))
        .sample_size(30)
        .configure_from_args();
    framing::benches(&mut criterion);
    #[cfg(feature = "lua")]
    lua::benches(&mut criterion);
    fastcgi::benches(&mut criterion);
    control::benches(&mut criterion);
    session_id::benches(&mut criterion);
    router::benches(&mut criterion);
    criterion.final_summary();
}

/// One benchmark. `black_box` keeps the compiler from removing the unused result.
fn bench<R>(
    group: &mut BenchmarkGroup<'_, WallTime>,
    name: impl Into<String>,
    throughput: Throughput,
    mut run: impl FnMut() -> R,
) {
    group.throughput(throughput).bench_function(name.into(), |bencher| bencher.iter(|| black_box(run())));
}

/// Text as applications send it: JSON with changing values, so that it compresses, but not to almost nothing.
fn text(len: usize) -> Vec<u8> {
    let mut state = 12_345_u32;
    let mut text = String::new();
    while text.len() < len {
        state = state.wrapping_mul(1_103_515_245).wrapping_add(12_345);
        text.push_str(&format!("{{\"user\":{},\"text\":\"hello {}\"}},", state >> 20, state >> 8));
    }
    text.truncate(len);
    text.into_bytes()
}
