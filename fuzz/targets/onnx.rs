//! ONNX bytes through the two readers: the runtime's gate with the engine behind it, and the converter's importer.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = excon_edge::engine::open(bytes, "fuzz.onnx");
    let _ = excon_convert::import::import("fuzz.onnx".as_ref(), bytes, Some(16));
});
