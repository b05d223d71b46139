//! Bundles are reproducible, and anything but exactly what was sealed is refused.
#![allow(clippy::unwrap_used)]

use super::*;
use std::collections::BTreeSet;

fn manifest() -> Manifest {
    Manifest {
        schema: SCHEMA.into(),
        name: "tiny".into(),
        version: 3,
        target: "cpu".into(),
        precision: Precision::Float,
        labels: vec!["cup".into(), "jar".into()],
        preprocess: crate::image::Preprocess { size: 2, mean: [0.5; 3], std: [0.25; 3] },
        network: NetworkShapes {
            input: [3, 2, 2],
            features: [2, 1, 1],
            input_name: "input".into(),
            logits_name: "logits".into(),
            features_name: "features".into(),
        },
        calibration: Calibration {
            temperature: 1.25,
            engine: "tract".into(),
            pictures: 10,
            conformal: Some(Conformal { method: "aps".into(), alpha: 0.1, quantile: 0.93, pictures: 10 }),
            completeness_residual: 1e-7,
        },
        shift: ShiftContract {
            mean_time_between_false_alarms: 1e6,
            reference_frames: 0,
            autocorrelation_time: 1.0,
            independent: true,
            masked_every: 16,
        },
        budget: vec![],
        provenance: Provenance {
            recipe: "excon".into(),
            network: "tiny".into(),
            data: "none".into(),
            seed: 1,
            tool: "test".into(),
        },
        files: BTreeMap::new(),
    }
}

fn writer(model: &[u8]) -> Writer {
    let manifest = manifest();
    let golden = Golden { count: 1, inputs: vec![0.5; 12], logits: vec![1.0, 2.0], features: vec![3.0, 4.0] };
    let reference: Tensors = [
        (HEAD_WEIGHT.to_string(), Tensor::f32(&[2, 2], vec![1.0, 2.0, 3.0, 4.0])),
        (HEAD_BIAS.to_string(), Tensor::f32(&[2], vec![0.0, 0.5])),
        ("scores".to_string(), Tensor::f64(&[3], vec![0.1, 0.2, 0.3])),
        ("head.0.weight".to_string(), Tensor::f32(&[3, 2], vec![1.0, 0.0, 0.0, 1.0, -1.0, -1.0])),
        ("head.0.bias".to_string(), Tensor::f32(&[3], vec![0.0, 0.0, 1.0])),
        ("head.2.weight".to_string(), Tensor::f32(&[1, 3], vec![1.0, 10.0, 100.0])),
        ("head.2.bias".to_string(), Tensor::f32(&[1], vec![0.5])),
    ]
    .into();
    let mut writer = Writer::new(manifest.clone());
    writer.member(MODEL, model.to_vec());
    writer.tensors(REFERENCE, &reference).unwrap().tensors(GOLDEN, &golden.to_tensors(&manifest)).unwrap();
    writer
}

fn sealed(folder: &Path) -> PathBuf {
    let path = folder.join("tiny.excon");
    writer(b"model").seal(&path).unwrap();
    path
}

/// The refusal's message.
fn refusal(path: &Path) -> String {
    match Bundle::open(path) {
        Err(error @ Error::Bundle { .. }) => error.to_string(),
        other => panic!("{} was not refused as a bundle: {other:?}", path.display()),
    }
}

#[test]
fn what_is_sealed_comes_back_and_equal_members_give_equal_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let (one, two) = (folder.path().join("one.excon"), folder.path().join("two.excon"));
    let mut first = writer(b"model");
    let set = CalibrationSet { size: 2, rgb: (0..24).collect(), labels: vec![1, 0] };
    first.tensors(CALIBRATION, &set.to_tensors()).unwrap();
    let made = first.clone().seal(&one).unwrap();
    first.seal(&two).unwrap();
    assert_eq!(fs::read(&one).unwrap(), fs::read(&two).unwrap());
    let opened = Bundle::open(&one).unwrap();
    assert_eq!(made, opened);
    assert_eq!(opened.calibration, Some(set));
    assert_eq!(opened.model, b"model");
    assert_eq!(opened.reference["scores"], Tensor::f64(&[3], vec![0.1, 0.2, 0.3]));
    assert_eq!(
        (opened.head.weight.as_slice(), opened.head.bias.as_slice()),
        (&[1.0, 2.0, 3.0, 4.0][..], &[0.0, 0.5][..])
    );
    // ReLU(2, −3, 1 − 2 + 3) = (2, 0, 2), then 2 + 0 + 200 + 0.5.
    assert_eq!(opened.projection.unwrap().project(&[2.0, -3.0]), [202.5]);
    let left: BTreeSet<_> = fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left.len(), 2, "no temporary file is left: {left:?}");
}

#[test]
fn a_public_tar_reads_it_and_the_folder_form_opens() {
    let folder = tempfile::tempdir().unwrap();
    let path = sealed(folder.path());
    let place = folder.path().join("slot");
    tar::Archive::new(File::open(&path).unwrap()).unpack(&place).unwrap();
    let (file, slot) = (Bundle::open(&path).unwrap(), Bundle::open(&place).unwrap());
    assert_eq!((&file.manifest, &file.digest, &file.reference), (&slot.manifest, &slot.digest, &slot.reference));

    fs::write(place.join("extra.bin"), b"x").unwrap();
    assert!(refusal(&place).contains("extra.bin is not in the manifest"));
    fs::remove_file(place.join("extra.bin")).unwrap();
    fs::write(place.join(MODEL), b"other").unwrap();
    assert!(refusal(&place).contains("model.onnx does not match"));
    fs::write(place.join(MODEL), b"longer than declared").unwrap();
    assert!(refusal(&place).contains("larger than declared"));
    fs::remove_file(place.join(MODEL)).unwrap();
    assert!(refusal(&place).contains("model.onnx is missing"));
    #[cfg(unix)]
    {
        fs::write(folder.path().join("elsewhere"), b"model").unwrap();
        std::os::unix::fs::symlink(folder.path().join("elsewhere"), place.join(MODEL)).unwrap();
        assert!(refusal(&place).contains("no plain file"));
    }
}

#[test]
fn every_flipped_byte_and_every_truncation_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let bytes = fs::read(sealed(folder.path())).unwrap();
    let damaged = folder.path().join("damaged.excon");
    let try_bytes = |bytes: &[u8]| {
        fs::write(&damaged, bytes).unwrap();
        refusal(&damaged)
    };
    for at in 0..bytes.len() {
        let mut copy = bytes.clone();
        copy[at] ^= 1 << (at % 8);
        try_bytes(&copy);
    }
    for cut in (0..bytes.len()).filter(|c| c % 512 < 3 || c % 97 == 0) {
        try_bytes(&bytes[..cut]);
    }
    let mut longer = bytes.clone();
    longer.push(0);
    assert!(try_bytes(&longer).contains("bytes where its manifest makes"));
}

#[test]
fn members_of_two_good_bundles_cannot_be_mixed() {
    let folder = tempfile::tempdir().unwrap();
    let (one, two) = (folder.path().join("one.excon"), folder.path().join("two.excon"));
    writer(b"model").seal(&one).unwrap();
    writer(b"ledom").seal(&two).unwrap();
    let (one, two) = (fs::read(&one).unwrap(), fs::read(&two).unwrap());
    assert_eq!(one.len(), two.len());
    let at = two.windows(5).position(|w| w == b"ledom").unwrap();
    let mut mixed = one.clone();
    mixed[at..at + 5].copy_from_slice(b"ledom");
    let path = folder.path().join("mixed.excon");
    fs::write(&path, mixed).unwrap();
    assert!(refusal(&path).contains("model.onnx does not match its digest"));
}

/// A container whose digests are right around a manifest that was edited as text.
fn forged(folder: &Path, edit: impl Fn(String) -> String) -> PathBuf {
    let bundle = fs::read(sealed(folder)).unwrap();
    let members = archive::read(&mut bundle.as_slice(), bundle.len() as u64).ok().unwrap();
    let text = edit(String::from_utf8(members.manifest_bytes).unwrap());
    let mut bytes = Vec::new();
    archive::write(&mut bytes, text.as_bytes(), &members.files).unwrap();
    let path = folder.join("forged.excon");
    fs::write(&path, bytes).unwrap();
    path
}

#[test]
fn manifests_that_promise_nonsense_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let cases = [
        ("excon.bundle/1", "excon.bundle/9", "schema must be"),
        ("\"target\"", "\"goal\": 1, \"target\"", "unknown field `goal`"),
        ("model.onnx", "../model.onnx", "no member of a bundle"),
        ("model.onnx", "plan.bin", "no member of a bundle"),
        ("1.25", "-1.25", "temperature must be positive"),
        ("1.25", "1e999", "manifest.json"),
        ("\"jar\"", "\"cup\"", "labels must be"),
        ("\"jar\"", "\"jar\", \"lid\"", "has shape"),
        ("\"size\": 5,", "\"size\": 18446744073709551615,", "larger than"),
        ("\"size\": 5,", "\"size\": 6,", "does not stand where"),
        ("\"aps\"", "\"guess\"", "method must be aps"),
        ("1000000.0", "0.5", "must exceed 1"),
    ];
    for (from, to, words) in cases {
        let path = forged(folder.path(), |text| {
            assert!(text.contains(from), "{from} is not in the manifest");
            text.replacen(from, to, 1)
        });
        let message = refusal(&path);
        assert!(message.contains(words), "{from} → {to}: expected `{words}` in: {message}");
    }
}

#[test]
fn a_failed_seal_leaves_what_was_there() {
    let folder = tempfile::tempdir().unwrap();
    let path = sealed(folder.path());
    let before = fs::read(&path).unwrap();
    let mut bad = writer(b"model");
    bad.tensors(GOLDEN, &[("inputs".to_string(), Tensor::f32(&[1], vec![f32::NAN]))].into()).unwrap();
    assert!(matches!(bad.seal(&path), Err(Error::Bundle { .. })));
    assert_eq!(fs::read(&path).unwrap(), before);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    let nowhere = folder.path().join("missing/tiny.excon");
    assert!(matches!(writer(b"model").seal(nowhere), Err(Error::Write { .. })));
    assert!(matches!(Bundle::open(folder.path().join("none.excon")), Err(Error::Read { .. })));
}
