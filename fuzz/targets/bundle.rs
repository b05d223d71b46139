//! The bytes of a bundle, opened as a board opens it: from a file.
#![no_main]

use excon_edge::bundle::Bundle;
use std::io::Write;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Ok(mut file) = tempfile::NamedTempFile::new() else { return };
    if file.write_all(bytes).is_ok() {
        let _ = Bundle::open(file.path());
    }
});
