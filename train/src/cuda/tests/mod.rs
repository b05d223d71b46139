//! Every kernel, the walk and whole steps against their CPU twins and the independent vectors, on every device at hand:
//! the kernels' own text run by a C++ compiler's code (twice, with the threads of a block in both orders), and a graphics
//! card where there is one. What is missing is said and skipped.
#![allow(clippy::unwrap_used)]

mod emulator;
mod inference;
mod kernels;
mod library;
mod steps;
mod trainings;
mod walks;

use super::device::Device;
use super::kernels::{Machine, Map, Matrix, PACK};
use super::memory::Block;
use crate::Result;
use crate::config::Precision;
use candle_core::Tensor;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::rc::Rc;

/// Runs a test on every device at hand, with maps of this precision.
pub(super) fn on_devices(precision: Precision, test: impl Fn(&Machine)) {
    for device in devices(precision) {
        test(&Machine::new(device));
    }
}

/// A graphics card, or else the CPU in its place.
pub(super) fn device(precision: Precision) -> Result<Rc<dyn Device>> {
    match super::card::Card::open(precision) {
        Ok(card) => Ok(Rc::new(card)),
        Err(e) => match emulator::Emulator::open(precision, false) {
            Some(emulator) => Ok(Rc::new(emulator)),
            None => Err(e),
        },
    }
}

pub(super) fn devices(precision: Precision) -> Vec<Rc<dyn Device>> {
    let mut devices: Vec<Rc<dyn Device>> = vec![];
    match emulator::Emulator::open(precision, false) {
        Some(forwards) => {
            devices.push(Rc::new(forwards));
            devices.extend(emulator::Emulator::open(precision, true).map(|d| Rc::new(d) as Rc<dyn Device>));
        }
        None => eprintln!("skipped: no C++ compiler (c++) to run the CUDA kernels' text on the CPU"),
    }
    match super::card::Card::open(precision) {
        Ok(card) => devices.push(Rc::new(card)),
        Err(e) => eprintln!("skipped on a graphics card: {e}"),
    }
    devices
}

pub(super) fn rng(seed: u64) -> ChaCha8Rng {
    ChaCha8Rng::seed_from_u64(seed)
}

/// Numbers in −1..1 that both precisions hold exactly.
pub(super) fn numbers(rng: &mut ChaCha8Rng, len: usize) -> Vec<f32> {
    (0..len).map(|_| rng.random_range(-128i32..=128) as f32 / 128.0).collect()
}

/// Largest difference.
pub(super) fn gap(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter()
        .zip(b)
        .map(|(x, y)| if x.is_finite() && y.is_finite() { (x - y).abs() } else { f32::INFINITY })
        .fold(0.0, f32::max)
}

/// `a` and `b` differ by no more than `tolerance` times the largest of `b`.
pub(super) fn close(a: &[f32], b: &[f32], tolerance: f32, what: &str) {
    let largest = b.iter().fold(1e-6f32, |m, v| m.max(v.abs()));
    assert!(gap(a, b) <= tolerance * largest, "{what}: {} of {largest}", gap(a, b));
}

/// Relative rounding of a map's number.
pub(super) fn rounding(machine: &Machine) -> f32 {
    if machine.device().precision() == Precision::Bf16 { 1.0 / 256.0 } else { 1e-6 }
}

/// A tensor N × H × W × C as a map, its channels filled up with zeros.
pub(super) fn upload(machine: &Machine, tensor: &Tensor) -> Map {
    let (n, h, w, c) = tensor.dims4().unwrap();
    let wide = c.next_multiple_of(PACK);
    let mut values = vec![0f32; n * h * w * wide];
    let from = tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    for (to, from) in values.chunks_exact_mut(wide).zip(from.chunks_exact(c)) {
        to[..c].copy_from_slice(from);
    }
    let map = machine.map([n, h, w, wide]).unwrap();
    write(machine, &map.block, &values);
    map
}

/// Puts numbers into a block in the maps' precision.
pub(super) fn write(machine: &Machine, block: &Block, values: &[f32]) {
    match machine.device().precision() {
        Precision::Bf16 => block.write(&values.iter().map(|v| emulator::to_bf16(*v)).collect::<Vec<u16>>()).unwrap(),
        _ => block.write(values).unwrap(),
    }
}

/// Numbers of a block in the maps' precision.
pub(super) fn floats(machine: &Machine, block: &Block, len: usize) -> Result<Vec<f32>> {
    Ok(match machine.device().precision() {
        Precision::Bf16 => block.get::<u16>(len)?.into_iter().map(emulator::of_bf16).collect(),
        _ => block.get(len)?,
    })
}

pub(super) fn values(machine: &Machine, map: &Map) -> Vec<f32> {
    floats(machine, &map.block, map.len()).unwrap()
}

pub(super) fn matrix(machine: &Machine, values: &[f32], columns: usize) -> Matrix {
    let block = Rc::new(machine.pool.put(values).unwrap());
    Matrix { block, rows: values.len() / columns, columns }
}

pub(super) fn of_matrix(matrix: &Matrix) -> Vec<f32> {
    matrix.block.get(matrix.len()).unwrap()
}

/// A tensor's numbers.
pub(super) fn of(tensor: &Tensor) -> Vec<f32> {
    tensor.to_dtype(candle_core::DType::F32).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}
