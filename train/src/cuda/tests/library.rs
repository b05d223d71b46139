//! What can be tested of NVIDIA's libraries without a graphics card, where they are at hand.

use crate::config::Precision;
use crate::cuda::card::compile;
use crate::cuda::convolution::operation;
use crate::cuda::device::{Convolution, Direction};
use crate::cuda::kernels::{names, text};

/// Every kernel compiles to PTX, in both types of maps, for the oldest and a new architecture.
#[test]
fn kernels_compile_to_ptx() {
    // SAFETY: asking for a library opens and closes it.
    if !unsafe { cudarc::nvrtc::sys::is_culib_present() } {
        eprintln!("skipped: no NVRTC (libnvrtc) to compile the CUDA kernels with");
        return;
    }
    for (precision, architecture) in
        [(Precision::Bf16, "compute_80"), (Precision::Bf16, "compute_90"), (Precision::F32, "compute_75")]
    {
        let text = text(precision);
        let ptx = compile(&text, architecture).unwrap();
        let names = names(&text);
        assert!(names.len() > 30);
        for name in names {
            assert!(ptx.contains(&format!(".entry {name}(")), "{name} is missing for {architecture}");
        }
    }
    let error = compile("extern \"C\" __global__ void broken() { nothing; }", "compute_80").unwrap_err().to_string();
    assert!(error.contains("nothing"), "{error}");
}

/// cuDNN takes the description of every convolution there is in our networks.
#[test]
fn cudnn_takes_the_convolutions() {
    // SAFETY: as above. A part of cuDNN needs the driver's library, though no card.
    if !unsafe { cudarc::driver::sys::is_culib_present() && cudarc::cudnn::sys::is_culib_present() } {
        eprintln!("skipped: no cuDNN (libcudnn) with a driver (libcuda) to describe convolutions to");
        return;
    }
    for (side, input, output, kernel, stride, padding) in
        [(32, 8, 64, 3, 1, 1), (32, 64, 128, 3, 2, 1), (16, 256, 512, 1, 2, 0), (64, 8, 64, 7, 2, 3)]
    {
        let shape =
            Convolution { rows: 2, height: side, width: side, input, output, kernel, stride, padding, groups: 1 };
        for direction in [Direction::Forward, Direction::Input, Direction::Weights] {
            for precision in [Precision::Bf16, Precision::F32] {
                assert_eq!(operation(direction, &shape, precision).unwrap().len(), 5);
            }
        }
    }
}
