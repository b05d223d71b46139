//! Bundles are reproducible, and anything but exactly what was sealed is refused.
#![allow(clippy::unwrap_used)]

use super::*;
use std::collections::BTreeSet;
use std::fs::{self, File};

fn writer(model: &[u8]) -> Writer {
    let mut writer = crate::tiny::writer(false, 12);
    writer.member(MODEL, model.to_vec());
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
    let size = crate::tiny::SIZE;
    let set = CalibrationSet { size, rgb: vec![7; 2 * size * size * 3], labels: vec![1, 0], fit: 1 };
    first.calibration(&set).unwrap();
    let made = first.clone().seal(&one).unwrap();
    first.seal(&two).unwrap();
    assert_eq!(fs::read(&one).unwrap(), fs::read(&two).unwrap());
    let opened = Bundle::open(&one).unwrap();
    assert_eq!(made, opened);
    assert_eq!(opened.calibration, Some(set));
    assert_eq!(opened.model, b"model");
    assert_eq!((opened.head.weight, opened.head.bias), crate::tiny::head());
    assert_eq!(opened.reference.frames(), 12);
    assert!(opened.projection.is_some());
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
    assert_eq!((&file.manifest, &file.digest, &file.golden), (&slot.manifest, &slot.digest, &slot.golden));

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
fn flipped_bytes_and_truncations_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let bytes = fs::read(sealed(folder.path())).unwrap();
    let damaged = folder.path().join("damaged.excon");
    let try_bytes = |bytes: &[u8]| {
        fs::write(&damaged, bytes).unwrap();
        refusal(&damaged)
    };
    // Every byte of headers and short members, one in five of the rest.
    for at in (0..bytes.len()).filter(|at| at % 5 == 0 || *at < 1_024 || at + 2_048 > bytes.len()) {
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
    let members = archive::read(&mut bundle.as_slice(), bundle.len() as u64, &Trust::anyone()).ok().unwrap();
    let manifest_bytes = edit(String::from_utf8(members.manifest_bytes).unwrap()).into_bytes();
    let path = folder.join("forged.excon");
    fs::write(&path, Members { manifest_bytes, ..members }.to_bytes()).unwrap();
    path
}

#[test]
fn manifests_that_promise_nonsense_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let cases = [
        ("excon.bundle/2", "excon.bundle/9", "schema must be"),
        ("\"target\"", "\"goal\": 1, \"target\"", "unknown field `goal`"),
        ("model.onnx", "../model.onnx", "no member of a bundle"),
        ("model.onnx", "plan.bin", "no member of a bundle"),
        ("1.25", "-1.25", "temperature must be positive"),
        ("1.25", "1e999", "manifest.json"),
        ("\"jar\"", "\"cup\"", "labels must be"),
        ("\"jar\"", "\"jar\", \"pot\"", "has shape"),
        ("\"reference_frames\": 12", "\"reference_frames\": 13", "not the one the manifest describes"),
        ("\"size\": 5,", "\"size\": 18446744073709551615,", "larger than"),
        ("\"size\": 5,", "\"size\": 6,", "does not stand where"),
        ("\"aps\"", "\"guess\"", "unknown variant `guess`"),
        ("\"aps\"", "\"raps\"", "conformal needs a penalty for raps"),
        ("\"quantile\": 0.63", "\"quantile\": -0.63", "conformal needs alpha in 0..1 and quantile"),
        (
            "\"engine\"",
            "\"refinement\": {\"method\": \"vector\", \"weights\": [1], \"biases\": [0]}, \"engine\"",
            "needs 3 moderate",
        ),
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

/// The fuzz targets start from a bundle of today; `EXCON_BLESS=1` writes it anew.
#[test]
fn the_bundle_that_fuzzing_starts_from_is_one_of_today() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus/bundle/small.excon");
    if std::env::var_os("EXCON_BLESS").is_some() {
        crate::tiny::writer(true, 12).seal(&path).unwrap();
    }
    crate::predictor::Predictor::open(&path).unwrap();
}

#[test]
fn a_failed_seal_leaves_what_was_there() {
    let folder = tempfile::tempdir().unwrap();
    let path = sealed(folder.path());
    let before = fs::read(&path).unwrap();
    let mut bad = writer(b"model");
    bad.member(GOLDEN, encode(&[("inputs".to_string(), Tensor::f32(&[1], vec![f32::NAN]))].into()).unwrap());
    assert!(matches!(bad.seal(&path), Err(Error::Bundle { .. })));
    assert_eq!(fs::read(&path).unwrap(), before);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    let nowhere = folder.path().join("missing/tiny.excon");
    assert!(matches!(writer(b"model").seal(nowhere), Err(Error::Write { .. })));
    assert!(matches!(Bundle::open(folder.path().join("none.excon")), Err(Error::Read { .. })));
}

#[test]
fn a_projection_head_follows_its_definition() {
    let tensors: Tensors = [
        ("head.0.weight".to_string(), Tensor::f32(&[3, 2], vec![1.0, 0.0, 0.0, 1.0, -1.0, -1.0])),
        ("head.0.bias".to_string(), Tensor::f32(&[3], vec![0.0, 0.0, 1.0])),
        ("head.2.weight".to_string(), Tensor::f32(&[1, 3], vec![1.0, 10.0, 100.0])),
        ("head.2.bias".to_string(), Tensor::f32(&[1], vec![0.5])),
    ]
    .into();
    let head = ProjectionHead::from_tensors(&tensors, 2).unwrap().unwrap();
    // ReLU(2, −3, 1 − 2 + 3) = (2, 0, 2), then 2 + 0 + 200 + 0.5.
    assert_eq!(head.project(&[2.0, -3.0]), [202.5]);
    assert_eq!(head.to_tensors(), tensors);
    assert!(ProjectionHead::from_tensors(&tensors, 3).is_err());
    assert_eq!(ProjectionHead::from_tensors(&Tensors::new(), 2).unwrap(), None);
}

/// A bundle signed by `pair`, as a file.
fn signed(folder: &Path, pair: &minisign::KeyPair, comment: &str) -> PathBuf {
    let members = Members::open(&sealed(folder), &Trust::anyone()).unwrap();
    let bytes = members.manifest_bytes.as_slice();
    let signature = minisign::sign(Some(&pair.pk), &pair.sk, bytes, Some(comment), None).unwrap();
    let path = folder.join("signed.excon");
    Members { signature: Some(signature.into_string().into_bytes()), ..members }.write(&path).unwrap();
    path
}

fn trusting(pair: &minisign::KeyPair) -> Trust {
    let mut trust = Trust::anyone();
    trust.pin("line".into(), &pair.pk.to_box().unwrap().into_string()).unwrap();
    trust
}

/// The message of a bundle that no pinned key answers for.
fn distrusted(path: &Path, trust: &Trust) -> String {
    match Bundle::open_trusted(path, trust) {
        Err(error @ Error::Refused { .. }) => error.to_string(),
        other => panic!("{} was not refused: {other:?}", path.display()),
    }
}

#[test]
fn a_signed_bundle_opens_for_those_who_pinned_its_key_and_says_what_was_signed() {
    let folder = tempfile::tempdir().unwrap();
    let pair = minisign::KeyPair::generate_unencrypted_keypair().unwrap();
    let path = signed(folder.path(), &pair, "timestamp:1700000000 model:tiny expires:1800000000");
    let bundle = Bundle::open_trusted(&path, &trusting(&pair)).unwrap();
    let wanted = Signed { at: Some(1_700_000_000), expires: Some(1_800_000_000), by: Some("line".into()) };
    assert_eq!(bundle.signed, wanted);
    assert_eq!(bundle.digest, Bundle::open(sealed(folder.path())).unwrap().digest, "a signature changes no digest");
    assert_eq!(Bundle::open(&path).unwrap().signed, Signed::default(), "what nobody checked is not believed");

    let place = folder.path().join("slot");
    tar::Archive::new(File::open(&path).unwrap()).unpack(&place).unwrap();
    assert_eq!(Bundle::open_trusted(&place, &trusting(&pair)).unwrap().signed, wanted);
    fs::remove_file(place.join(MANIFEST_SIGNATURE)).unwrap();
    assert!(distrusted(&place, &trusting(&pair)).contains("not signed"));

    // A second key beside the first one: keys are rotated by pinning both for a while.
    let mut both = trusting(&minisign::KeyPair::generate_unencrypted_keypair().unwrap());
    both.pin("new".into(), &pair.pk.to_base64()).unwrap();
    assert_eq!(Bundle::open_trusted(&path, &both).unwrap().signed.by.as_deref(), Some("new"));
}

#[test]
fn strangers_are_refused_before_anything_is_parsed() {
    let folder = tempfile::tempdir().unwrap();
    let [ours, theirs] = [(); 2].map(|()| minisign::KeyPair::generate_unencrypted_keypair().unwrap());
    let trust = trusting(&ours);
    assert!(distrusted(&sealed(folder.path()), &trust).contains("not signed"));
    assert!(distrusted(&signed(folder.path(), &theirs, "x"), &trust).contains("none of the pinned keys (line)"));
    // A manifest that would be refused for what it says is not looked at.
    let garbage = forged(folder.path(), |_| "{ not json".into());
    assert!(distrusted(&garbage, &trust).contains("not signed"));
    assert!(refusal(&garbage).contains("manifest.json"));

    let path = signed(folder.path(), &ours, "timestamp:1 expires:2");
    let members = Members::open(&path, &trust).unwrap();
    let signature = members.signature.clone().unwrap();
    let changed = folder.path().join("changed.excon");
    // Anything signed that was changed: the manifest, the signature, the comment that carries the expiry.
    let text = String::from_utf8(signature.clone()).unwrap();
    let later = text.replace("expires:2", "expires:9");
    for other in [later.into_bytes(), b"".to_vec(), vec![0xFF; 300], signature[..200].to_vec()] {
        Members { signature: Some(other), ..members.clone() }.write(&changed).unwrap();
        distrusted(&changed, &trust);
    }
    let edited = String::from_utf8(members.manifest_bytes.clone()).unwrap().replace("\"version\": 3", "\"version\": 9");
    Members { manifest_bytes: edited.into_bytes(), ..members.clone() }.write(&changed).unwrap();
    assert!(distrusted(&changed, &trust).contains("changed since"));
    let odd = signed(folder.path(), &ours, "timestamp:1 expires:soon");
    assert!(distrusted(&odd, &trust).contains("no time in seconds"));

    // A pin that cannot be read must not become no pin.
    let keys = folder.path().join("keys");
    assert!(!Trust::pinned(&keys).unwrap().is_pinned());
    fs::create_dir(&keys).unwrap();
    fs::write(keys.join("line.pub"), ours.pk.to_box().unwrap().into_string()).unwrap();
    assert_eq!(Trust::pinned(&keys).unwrap().names(), ["line"]);
    fs::write(keys.join("torn.pub"), "untrusted comment: half a k").unwrap();
    assert!(matches!(Trust::pinned(&keys), Err(Error::Refused { .. })));
}
