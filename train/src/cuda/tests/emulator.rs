//! A device on the CPU: the kernels' own text, compiled as C++ behind `emulate.h`; convolutions and matrix products as
//! plain loops. Fresh memory holds no numbers, and every allocation ends in a margin that must stay as it was.

use crate::Result;
use crate::config::Precision;
use crate::cuda::device::{Address, Argument, Convolution, Device, Direction, Pending, Product};
use crate::cuda::kernels::{names, text};
use rayon::prelude::*;
use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::{CString, c_char, c_int, c_uint, c_void};
use std::process::Command;
use std::sync::{Mutex, OnceLock, PoisonError};

type Emulate = unsafe extern "C" fn(*const c_char, c_uint, c_uint, *mut *mut c_void, *const c_char, c_int) -> c_int;

/// Bytes behind each allocation, and what they hold; as numbers it is not a number in either precision.
const MARGIN: usize = 256;
const FRESH: u8 = 0xff;

/// One kernel at a time: the emulated block's shared memory is the library's own.
static TURN: Mutex<()> = Mutex::new(());
static LIBRARIES: [OnceLock<Option<libloading::Library>>; 2] = [OnceLock::new(), OnceLock::new()];

pub struct Emulator {
    precision: Precision,
    backwards: bool,
    emulate: Emulate,
    memory: RefCell<HashMap<Address, Vec<u64>>>,
}

/// Compiles the kernels as a shared library; none where there is no compiler.
fn build(precision: Precision) -> Option<libloading::Library> {
    // The fibers of `emulate.h` are those of a Linux C library.
    if !cfg!(target_os = "linux") || Command::new("c++").arg("--version").output().is_err() {
        return None;
    }
    let folder = tempfile::tempdir().unwrap();
    let kernels = text(precision);
    let table: String = names(&kernels).iter().map(|name| format!("KERNEL({name})\n")).collect();
    let source = [
        include_str!("emulate.h"),
        &kernels,
        "static const emulator::Entry kernels[] = {\n",
        &table,
        "};\n",
        include_str!("emulate.cpp"),
    ]
    .concat();
    let (from, to) = (folder.path().join("kernels.cpp"), folder.path().join("kernels.so"));
    std::fs::write(&from, source).unwrap();
    let options = ["-std=c++17", "-O2", "-U_FORTIFY_SOURCE", "-ffp-contract=off", "-fno-strict-aliasing", "-fPIC"];
    let output = Command::new("c++").args(options).args(["-shared", "-o"]).arg(&to).arg(&from).output().unwrap();
    assert!(output.status.success(), "the kernels do not compile:\n{}", String::from_utf8_lossy(&output.stderr));
    // SAFETY: the library was just built from our own text and runs nothing when it is opened.
    Some(unsafe { libloading::Library::new(&to) }.unwrap())
}

impl Emulator {
    /// A device whose blocks' threads take turns in ascending order, or backwards.
    pub fn open(precision: Precision, backwards: bool) -> Option<Self> {
        let library = LIBRARIES[usize::from(precision == Precision::Bf16)].get_or_init(|| build(precision)).as_ref()?;
        // SAFETY: the function has this type in `emulate.cpp`.
        let emulate = *unsafe { library.get::<Emulate>(b"emulate") }.unwrap();
        Some(Self { precision, backwards, emulate, memory: RefCell::default() })
    }

    /// The bytes at an address.
    #[allow(clippy::mut_from_ref)]
    fn bytes(&self, at: Address, len: usize) -> &mut [u8] {
        let memory = self.memory.borrow();
        let inside = |(from, block): (&Address, &Vec<u64>)| {
            *from <= at && at + len as Address <= from + (8 * block.len() - MARGIN) as Address
        };
        assert!(memory.iter().any(inside), "{len} bytes at {at:#x} are not inside one allocation");
        // SAFETY: inside an allocation that lives as long as the device; the tests use one range at a time.
        unsafe { std::slice::from_raw_parts_mut(at as *mut u8, len) }
    }

    fn load(&self, at: Address, len: usize) -> Vec<f32> {
        let bytes = self.bytes(at, len * self.precision.bytes());
        match self.precision {
            Precision::Bf16 => bytes.chunks_exact(2).map(|b| of_bf16(u16::from_le_bytes([b[0], b[1]]))).collect(),
            _ => of_bytes(bytes),
        }
    }

    fn store(&self, at: Address, values: &[f32]) {
        let bytes: Vec<u8> = match self.precision {
            Precision::Bf16 => values.iter().flat_map(|v| to_bf16(*v).to_le_bytes()).collect(),
            _ => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
        };
        self.bytes(at, bytes.len()).copy_from_slice(&bytes);
    }
}

fn of_bytes(bytes: &[u8]) -> Vec<f32> {
    bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
}

pub fn of_bf16(value: u16) -> f32 {
    f32::from_bits(u32::from(value) << 16)
}

/// To the nearest, ties to even.
pub fn to_bf16(value: f32) -> u16 {
    let bits = value.to_bits();
    (bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16) as u16
}

impl Drop for Emulator {
    fn drop(&mut self) {
        for block in self.memory.borrow().values() {
            let margin = &block[block.len() - MARGIN / 8..];
            assert!(margin.iter().all(|v| *v == u64::MAX) || std::thread::panicking(), "something wrote past its end");
        }
    }
}

struct Done(Vec<u8>);

impl Pending for Done {
    fn wait(self: Box<Self>) -> Result<Vec<u8>> {
        Ok(self.0)
    }
}

impl Device for Emulator {
    fn precision(&self) -> Precision {
        self.precision
    }

    fn width(&self) -> usize {
        2
    }

    fn allocate(&self, bytes: usize) -> Result<Address> {
        let block = vec![u64::from_ne_bytes([FRESH; 8]); (bytes + MARGIN).div_ceil(8)];
        let address = block.as_ptr() as Address;
        self.memory.borrow_mut().insert(address, block);
        Ok(address)
    }

    fn release(&self, _: Address) {
        // Everything stays until the margins have been looked at.
    }

    fn write(&self, to: Address, bytes: &[u8]) -> Result<()> {
        self.bytes(to, bytes.len()).copy_from_slice(bytes);
        Ok(())
    }

    fn read(&self, from: Address, bytes: usize) -> Result<Box<dyn Pending>> {
        Ok(Box::new(Done(self.bytes(from, bytes).to_vec())))
    }

    fn clear(&self, at: Address, bytes: usize) -> Result<()> {
        self.bytes(at, bytes).fill(0);
        Ok(())
    }

    fn launch(&self, kernel: &'static str, grid: (usize, usize), arguments: &[Argument]) -> Result<()> {
        let kinds = arguments.iter().map(|argument| match argument {
            Argument::Pointer(_) => 'p',
            Argument::Int(_) => 'i',
            Argument::Long(_) => 'l',
            Argument::Float(_) => 'f',
        });
        let kinds = CString::new(kinds.collect::<String>()).unwrap();
        let mut pointers: Vec<*mut c_void> = arguments
            .iter()
            .map(|argument| match argument {
                Argument::Pointer(value) => std::ptr::from_ref(value).cast_mut().cast(),
                Argument::Int(value) => std::ptr::from_ref(value).cast_mut().cast(),
                Argument::Long(value) => std::ptr::from_ref(value).cast_mut().cast(),
                Argument::Float(value) => std::ptr::from_ref(value).cast_mut().cast(),
            })
            .collect();
        let name = CString::new(kernel).unwrap();
        let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        // SAFETY: the library checks name and types of the arguments; the kernels stay inside their maps, which the
        // margins and the comparisons test.
        let status = unsafe {
            let (width, height) = (grid.0 as c_uint, grid.1 as c_uint);
            (self.emulate)(name.as_ptr(), width, height, pointers.as_mut_ptr(), kinds.as_ptr(), self.backwards.into())
        };
        assert_eq!(status, 0, "{kernel}{}", if status == 1 { " does not exist" } else { " takes other arguments" });
        Ok(())
    }

    fn convolve(&self, direction: Direction, shape: &Convolution, from: [Address; 2], to: Address) -> Result<()> {
        let (height, width) = shape.sides();
        let x_len = shape.rows * shape.height * shape.width * shape.input;
        let y_len = shape.rows * height * width * shape.output;
        let w_len = shape.output * shape.kernel * shape.kernel * shape.input / shape.groups;
        let result = match direction {
            Direction::Forward => {
                let (x, w) = (self.load(from[0], x_len), self.load(from[1], w_len));
                let mut y = vec![0f32; y_len];
                y.par_chunks_mut(y_len / shape.rows).enumerate().for_each(|(row, y)| {
                    let x = &x[row * x_len / shape.rows..];
                    each_tap(shape, |at, o, from, weight, inputs| {
                        let sum: f32 = (0..inputs).map(|i| x[from + i] * w[weight + i]).sum();
                        y[at * shape.output + o] += sum;
                    });
                });
                y
            }
            Direction::Input => {
                let (g, w) = (self.load(from[0], y_len), self.load(from[1], w_len));
                let mut dx = vec![0f32; x_len];
                dx.par_chunks_mut(x_len / shape.rows).enumerate().for_each(|(row, dx)| {
                    let g = &g[row * y_len / shape.rows..];
                    each_tap(shape, |at, o, from, weight, inputs| {
                        let g = g[at * shape.output + o];
                        (0..inputs).for_each(|i| dx[from + i] += g * w[weight + i]);
                    });
                });
                dx
            }
            Direction::Weights => {
                let (x, g) = (self.load(from[0], x_len), self.load(from[1], y_len));
                let mut dw = vec![0f32; w_len];
                for row in 0..shape.rows {
                    let (x, g) = (&x[row * x_len / shape.rows..], &g[row * y_len / shape.rows..]);
                    each_tap(shape, |at, o, from, weight, inputs| {
                        let g = g[at * shape.output + o];
                        (0..inputs).for_each(|i| dw[weight + i] += g * x[from + i]);
                    });
                }
                dw
            }
        };
        self.store(to, &result);
        Ok(())
    }

    fn multiply(&self, product: &Product) -> Result<()> {
        let Product { transpose, m, n, k, factor, a, b, c, add, .. } = *product;
        let sides = |transposed: bool, rows, columns| if transposed { (columns, rows) } else { (rows, columns) };
        let read = |(at, distance): (Address, usize), (rows, columns): (usize, usize)| {
            assert!(distance >= rows, "columns overlap");
            of_bytes(self.bytes(at, 4 * ((columns - 1) * distance + rows)))
        };
        let (av, bv) = (read(a, sides(transpose[0], m, k)), read(b, sides(transpose[1], k, n)));
        assert!(c.1 >= m, "columns overlap");
        let mut cv = of_bytes(self.bytes(c.0, 4 * ((n - 1) * c.1 + m)));
        for column in 0..n {
            for row in 0..m {
                let of_a = |i: usize| if transpose[0] { av[row * a.1 + i] } else { av[i * a.1 + row] };
                let of_b = |i: usize| if transpose[1] { bv[i * b.1 + column] } else { bv[column * b.1 + i] };
                let sum: f32 = (0..k).map(|i| of_a(i) * of_b(i)).sum();
                let to = &mut cv[column * c.1 + row];
                *to = factor * sum + if add { *to } else { 0.0 };
            }
        }
        let bytes: Vec<u8> = cv.iter().flat_map(|v| v.to_le_bytes()).collect();
        self.bytes(c.0, bytes.len()).copy_from_slice(&bytes);
        Ok(())
    }
}

/// Calls `f(output pixel, output channel, first input number, first weight, input channels)` for each place of a picture's
/// result and each tap that lies inside the picture.
fn each_tap(shape: &Convolution, mut f: impl FnMut(usize, usize, usize, usize, usize)) {
    let (height, width) = shape.sides();
    let (inputs, outputs) = (shape.input / shape.groups, shape.output / shape.groups);
    for (y, x) in (0..height).flat_map(|y| (0..width).map(move |x| (y, x))) {
        for (v, u) in (0..shape.kernel).flat_map(|v| (0..shape.kernel).map(move |u| (v, u))) {
            let (row, column) = (y * shape.stride + v, x * shape.stride + u);
            let inside = |at: usize, side: usize| at >= shape.padding && at < side + shape.padding;
            if !inside(row, shape.height) || !inside(column, shape.width) {
                continue;
            }
            let pixel = (row - shape.padding) * shape.width + column - shape.padding;
            for o in 0..shape.output {
                let weight = ((o * shape.kernel + v) * shape.kernel + u) * inputs;
                f(y * width + x, o, pixel * shape.input + o / outputs * inputs, weight, inputs);
            }
        }
    }
}
