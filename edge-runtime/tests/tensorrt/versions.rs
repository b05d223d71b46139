//! One network on every version's interface: int8, float, and half precision with a head that stays in 32 bits.

use super::{mock, seal};
use excon_edge::bundle::Bundle;
use excon_edge::engine::tensorrt::{Home, How, build, setup};
use excon_edge::predictor::Predictor;
use std::sync::Arc;

#[test]
fn every_version_computes_the_sealed_network() {
    if !mock::is_there("c++") {
        return eprintln!("skipped: there is no C++ compiler here (c++)");
    }
    let folder = tempfile::tempdir().unwrap();
    let bundles = [("int8", true, "tensorrt"), ("float", false, "cpu"), ("half", false, "tensorrt-fp16")]
        .map(|(name, int8, target)| (name, Bundle::open(seal(folder.path(), name, int8, target, 1)).unwrap()));
    for version in [[8, 2, 1], [8, 6, 1], [10, 16, 2], [11, 1, 0]] {
        let board = mock::Board::new("c++", version);
        let home = Home::at(folder.path().join(format!("home-{}", version[0] * 100 + version[1])));
        let library = setup::compile(&board.sources("c++"), &home.shim()).unwrap();
        assert_eq!(library.version(), version);
        let ready = home.ready().unwrap();
        for (name, bundle) in &bundles {
            let job = ready.job(bundle).unwrap();
            assert_eq!(job.half, *name == "half" && version[0] < 11);
            assert_eq!(job.note.is_some(), *name == "half" && version[0] == 11);
            let mut phases = 0;
            let built = build(&ready, &home, &job, &How::default(), &mut |progress| {
                phases += u32::from(progress.phase.is_some());
                true
            });
            let plan = built.unwrap().plan;
            assert_eq!(phases > 0, version[0] >= 10, "progress by phases from 10.3 on");
            let engine = ready.load(&job, &plan).unwrap();
            // Golden inputs and completeness; half precision in the head would break the latter.
            let predictor = Predictor::new(bundle, Arc::new(engine)).unwrap();
            let ours = Predictor::from_bundle(bundle).unwrap();
            let [a, b] = [&predictor, &ours].map(|p| p.engine().run(&bundle.golden.inputs).unwrap());
            let gap = a.features.iter().zip(&b.features).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            let limit = if job.half { 0.01 } else { 1e-4 };
            assert!(gap <= limit || *name == "int8", "{version:?} {name}: {gap}");
            assert_eq!(a.features != b.features, job.half || gap > 0.0);
        }
    }
}
