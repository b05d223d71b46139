//! ONNX files made to exhaust a reader: each is refused with a typed error before it costs memory or work. Both are
//! counted, by an allocator: bytes at their peak (64 MB), and the number of allocations, which no clock can blur.
#![allow(clippy::unwrap_used)]

use excon_edge::{Error, engine};
use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

struct Counting;

static NOW: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);
static COUNT: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call goes to the system's allocator unchanged; only counters are kept beside.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNT.fetch_add(1, Relaxed);
        PEAK.fetch_max(NOW.fetch_add(layout.size(), Relaxed) + layout.size(), Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        NOW.fetch_sub(layout.size(), Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// A field with a length: tag, length, payload.
fn field(number: u64, payload: &[u8]) -> Vec<u8> {
    let mut bytes = varint(number << 3 | 2);
    bytes.extend(varint(payload.len() as u64));
    bytes.extend_from_slice(payload);
    bytes
}

/// A field of one whole number.
fn number(number: u64, value: u64) -> Vec<u8> {
    [varint(number << 3), varint(value)].concat()
}

fn varint(mut value: u64) -> Vec<u8> {
    let mut bytes = vec![];
    while value > 0x7f {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}

/// A model of operator set 17 around the fields of a graph.
fn model(graph: &[u8]) -> Vec<u8> {
    [field(8, &number(2, 17)), field(7, graph)].concat()
}

fn nested(depth: usize) -> Vec<u8> {
    // graph → node → attribute → graph …; built from the inside, so that lengths fit.
    (0..depth).fold(vec![], |graph, _| field(1, &field(5, &field(6, &graph))))
}

#[test]
fn bombs_cost_neither_memory_nor_work() {
    const MANY: usize = 1_000_000;
    let dims = |dims: &[u64]| dims.iter().flat_map(|&d| number(1, d)).collect::<Vec<u8>>();
    let float = number(2, 1);
    let place = [field(1, b"location"), field(2, b"../../etc/passwd")].concat();
    let cases: Vec<(&str, Vec<u8>, &str)> = vec![
        ("a million nodes", model(&field(1, &[]).repeat(MANY)), "more than 32768"),
        ("a million tensors", model(&field(5, &[]).repeat(MANY)), "more than 32768"),
        ("a million attributes", model(&field(1, &field(5, &[]).repeat(MANY))), "more than 32768"),
        ("a million inputs of a node", model(&field(1, &field(1, &[]).repeat(MANY))), "more than 262144 fields"),
        ("a million dimensions", model(&field(5, &number(1, 1).repeat(MANY))), "more than 262144 fields"),
        ("a million operator sets", field(8, &[]).repeat(MANY), "more than 32768"),
        ("a deep nest", model(&nested(2_000)), "subgraphs"),
        (
            "overflowing dimensions",
            model(&field(5, &[dims(&[1 << 40, 1 << 40]), float.clone()].concat())),
            "out of range",
        ),
        ("sizes without data", model(&field(5, &[dims(&[1 << 28]), float.clone()].concat())), "0 bytes are stored"),
        ("external data", model(&field(5, &[dims(&[4]), float, field(13, &place)].concat())), "external data"),
        ("a sparse tensor", model(&field(15, &[])), "sparse tensors"),
        ("a local function", field(25, &[]), "local functions"),
        ("a training graph", field(20, &[]), "training graphs"),
        ("a length beyond the end", vec![0x3a, 0xff, 0xff, 0xff, 0xff, 0x0f], "no protobuf"),
        ("a number without end", vec![0xff; 64], "no protobuf"),
        ("a group", vec![0x3b; 100_000], "no protobuf"),
    ];
    for (name, bytes, words) in cases {
        let (before, count) = (NOW.load(Relaxed), COUNT.load(Relaxed));
        PEAK.store(before, Relaxed);
        let error = engine::open(&bytes, "bomb.onnx").map(|_| ()).unwrap_err();
        let (peak, count) = (PEAK.load(Relaxed) - before, COUNT.load(Relaxed) - count);
        assert!(matches!(error, Error::Bundle { .. }), "{name}: {error}");
        assert!(error.to_string().contains(words), "{name}: expected `{words}` in: {error}");
        assert!(peak < 64 << 20 && count < 1_000, "{name}: {peak} bytes at the peak in {count} allocations");
    }
}
