//! The bytes of a picture, through decoding and preprocessing.
#![no_main]

use excon_edge::image::{Preprocess, decode};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Ok(picture) = decode("fuzz", bytes) else { return };
    assert_eq!(picture.rgb.len(), picture.width * picture.height * 3);
    let preprocess = Preprocess { size: 32, mean: [0.5; 3], std: [0.25; 3] };
    let small = preprocess.resize(&picture);
    assert_eq!((small.width, small.height), (32, 32));
    let mut values = Vec::new();
    preprocess.normalise(&small, &mut values);
    assert!(values.iter().all(|v| v.is_finite()));
});
