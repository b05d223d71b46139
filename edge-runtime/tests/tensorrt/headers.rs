//! The shim against NVIDIA's own headers, for both architectures, and through the mock on an emulated ARM.

use super::{mock, tiny};
use excon_edge::engine::tensorrt::{Master, setup};
use std::fs;
use std::path::Path;
use std::process::Command;

const COMPILERS: [&str; 2] = ["c++", "aarch64-linux-gnu-g++"];
const HEADERS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/tensorrt-headers");

#[test]
fn the_shim_compiles_against_every_supported_version() {
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("shim.cpp");
    fs::write(&source, setup::SOURCE).unwrap();
    fs::write(folder.path().join("shim.h"), setup::HEADER).unwrap();
    for version in ["8.2", "8.6", "10.3", "10.13", "10.16", "11.1"] {
        let headers = Path::new(HEADERS).join(version);
        for compiler in COMPILERS {
            if !headers.is_dir() || !mock::is_there(compiler) {
                eprintln!("skipped: TensorRT {version} with {compiler}: headers or compiler are not here");
                continue;
            }
            let mut command = Command::new(compiler);
            command.args([
                "-std=c++14",
                "-fsyntax-only",
                "-Wall",
                "-Wextra",
                "-Werror",
                "-Wno-deprecated-declarations",
            ]);
            command.arg("-isystem").arg(&headers).arg("-isystem").arg(mock::sources().join("cuda"));
            mock::run(command.arg(&source));
        }
    }
}

#[test]
fn the_c_abi_gives_the_same_numbers_from_c_on_both_architectures() {
    let model = Master::new(&tiny::network(true).bytes()).unwrap();
    let mut said = Vec::new();
    for (compiler, c, emulator) in
        [("c++", "cc", None), ("aarch64-linux-gnu-g++", "aarch64-linux-gnu-gcc", Some("qemu-aarch64-static"))]
    {
        if ![Some(compiler), Some(c), emulator].into_iter().flatten().all(mock::is_there) {
            eprintln!("skipped: {compiler}, {c} or {emulator:?} is not here");
            continue;
        }
        let board = mock::Board::new(compiler, mock::VERSION);
        let at = |name: &str| board.path().join(name);
        fs::write(at("model.onnx"), &model.bytes).unwrap();
        fs::write(at("shim.cpp"), setup::SOURCE).unwrap();
        fs::write(at("shim.h"), setup::HEADER).unwrap();
        mock::run(&mut board.sources(compiler).command(&at("shim.cpp"), &at("libshim.so")).unwrap());
        let mut driver = Command::new(c);
        driver.args(["-std=c11", "-Wall", "-Wextra", "-Werror"]).arg("-I").arg(board.path());
        driver.arg(mock::sources().join("driver.c")).arg(at("libshim.so")).arg("-o").arg(at("driver"));
        driver.arg(format!("-Wl,-rpath,{}", board.path().display()));
        // What the shim needs lies beside the mock.
        driver.arg(format!("-Wl,-rpath-link,{}", board.lib.display()));
        mock::run(&mut driver);
        let mut command = match emulator {
            None => Command::new(at("driver")),
            Some(emulator) => {
                let mut command = Command::new(emulator);
                command.args(["-L", "/usr/aarch64-linux-gnu"]).arg(at("driver"));
                command
            }
        };
        said.push(mock::run(command.arg(at("model.onnx"))));
    }
    let Some(first) = said.first() else { return };
    assert!(first.contains("graph 1"), "{first}");
    assert!(said.iter().all(|other| other == first), "{said:?}");
    // And those of the CPU engine.
    let image: Vec<f32> = (0..3 * tiny::SIZE * tiny::SIZE).map(|i| i as f32 / 97.0 - 1.0).collect();
    let ours = excon_edge::engine::open(&tiny::network(true).bytes(), "tiny").unwrap().run(&image).unwrap();
    let line = first.lines().find(|l| l.starts_with("logits ")).unwrap();
    for (text, logit) in line.split(' ').skip(1).zip(ours.logits) {
        assert!((text.parse::<f32>().unwrap() - logit).abs() < 0.05, "{line}");
    }
}
