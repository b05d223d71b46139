//! NVIDIA's own library, where it is given: it loads, says its version, and is asked for nothing without a device.

use super::{excon_edge, mock};
use std::path::Path;

/// `EXCON_TENSORRT_8_6` names the folders, with colons between, that hold `libnvinfer.so.8`, `libnvonnxparser.so.8` and
/// `libcudart.so.12` of version 8.6.
#[test]
fn the_real_library_loads_and_a_missing_device_is_told() {
    let headers = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/tensorrt-headers/8.6");
    let folders = std::env::var("EXCON_TENSORRT_8_6").unwrap_or_default();
    if folders.is_empty() || !headers.is_dir() || !mock::is_there("c++") {
        return eprintln!(
            "skipped: EXCON_TENSORRT_8_6 names no folders of TensorRT 8.6, or headers or compiler are not here"
        );
    }
    let folder = tempfile::tempdir().unwrap();
    // No further than to the count of devices: as far as these declarations are the real ones.
    let cuda = mock::sources().join("cuda").display().to_string();
    let headers = headers.display().to_string();
    let mut setup = vec!["tensorrt", "setup", "--include", &headers, "--include", &cuda];
    folders.split(':').for_each(|folder| setup.extend(["--lib", folder]));
    let run = excon_edge(folder.path(), "", &setup);
    let line = run.json();
    assert!(line["tensorrt"].as_str().unwrap().starts_with("8.6."), "{line}");
    match line["device"].is_null() {
        true => assert!(run.code == 1 && line["trouble"].as_str().is_some_and(|t| t.contains("device")), "{line}"),
        false => assert_eq!(run.code, 0),
    }
    let doctor = excon_edge(folder.path(), "", &["tensorrt", "doctor"]);
    assert!(doctor.stdout.contains("8.6."), "{}", doctor.stdout);
}
