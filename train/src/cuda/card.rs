//! An NVIDIA graphics card as a [`Device`]: one context, one stream, the kernels as a module, cuBLAS, cuDNN.
//!
//! SAFETY of this module: addresses come from [`Card::allocate`], and the pool and the kernels' functions above keep every
//! access inside what was allocated; all work is on one stream, so that a later use sees an earlier result; handles live
//! as long as the card.

use super::convolution::Convolutions;
use super::device::{Address, Argument, Convolution, Device, Direction, Pending, Product};
use super::fail;
use super::kernels::{THREADS, names, text};
use crate::Result;
use crate::config::Precision;
use cudarc::cublas::sys as blas;
use cudarc::driver::sys::{CUdevice_attribute_enum as Attribute, CUevent, CUevent_flags, CUfunction, CUstream};
use cudarc::driver::{CudaContext, CudaStream, DriverError, result as driver};
use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::ffi::{CString, c_void};
use std::rc::Rc;
use std::sync::Arc;

/// What to do without a library, with the names of NVIDIA's packages.
const INSTALL: &str = "Install NVIDIA's driver, and the libraries with `pip install nvidia-cuda-nvrtc nvidia-cublas \
    nvidia-cudnn-cu13` or a CUDA toolkit and cuDNN 9; their folders must be in LD_LIBRARY_PATH (docs/cuda.md). \
    Or train with --device cpu";

/// Copies to the card of up to so many bytes, those of a step, wait for nothing.
const STAGED: usize = 1 << 20;

/// See the module's first paragraph.
pub(super) struct Card {
    precision: Precision,
    width: usize,
    functions: HashMap<String, CUfunction>,
    blas: blas::cublasHandle_t,
    convolutions: RefCell<Convolutions>,
    pinned: Rc<RefCell<Vec<Pinned>>>,
    /// Copies to the card that may still be under way, oldest first.
    writing: RefCell<VecDeque<(Pinned, CUevent)>>,
    stream: Arc<CudaStream>,
    context: Arc<CudaContext>,
}

impl Card {
    /// Opens the first card and compiles the kernels for it.
    ///
    /// # Errors
    /// When a library or a card is missing, naming it.
    pub fn open(precision: Precision) -> Result<Self> {
        // SAFETY: asking for a library opens and closes it.
        let present = unsafe {
            [
                ("the driver (libcuda)", cudarc::driver::sys::is_culib_present()),
                ("NVRTC (libnvrtc)", cudarc::nvrtc::sys::is_culib_present()),
                ("cuBLAS (libcublas)", blas::is_culib_present()),
                ("cuDNN (libcudnn)", cudarc::cudnn::sys::is_culib_present()),
            ]
        };
        if let Some((name, _)) = present.iter().find(|(_, present)| !present) {
            return Err(fail(name, format!("is not there. {INSTALL}")));
        }
        let context =
            CudaContext::new(0).map_err(|e| fail("the driver", format!("finds no card ({e:?}). {INSTALL}")))?;
        let ask = |attribute| context.attribute(attribute).map_err(of_driver);
        let major = ask(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?;
        let minor = ask(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?;
        if precision == Precision::Bf16 && major < 8 {
            let reason = format!("capability {major}.{minor} has no bf16; train with --set precision=f32");
            return Err(fail("the card", reason));
        }
        let width = ask(Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?.max(1) as usize;
        let stream = context.new_stream().map_err(of_driver)?;
        let functions = load(precision, major, minor)?;
        let blas = open_blas(stream.cu_stream())?;
        let convolutions = RefCell::new(Convolutions::open(stream.cu_stream(), precision)?);
        let (pinned, writing) = (Rc::default(), RefCell::default());
        Ok(Self { precision, width, functions, blas, convolutions, pinned, writing, stream, context })
    }

    /// Host memory that the card copies from or to by itself, at least so many bytes.
    fn pinned(&self, bytes: usize) -> Result<Pinned> {
        let mut free = self.pinned.borrow_mut();
        if let Some(at) = free.iter().position(|p| p.capacity >= bytes && p.capacity <= 4 * bytes.max(1)) {
            return Ok(free.swap_remove(at));
        }
        let capacity = bytes.max(1);
        // SAFETY: a plain allocation.
        let address = unsafe { driver::malloc_host(capacity, 0) }.map_err(of_driver)?;
        Ok(Pinned { address, capacity })
    }

    /// Takes back the buffers of copies that are done, or of all after `wait`.
    fn recycle(&self, wait: bool) {
        let mut writing = self.writing.borrow_mut();
        while let Some(&(pinned, event)) = writing.front() {
            // SAFETY: the event is ours, and recorded.
            let done = unsafe { if wait { driver::event::synchronize(event) } else { driver::event::query(event) } };
            if done.is_err() && !wait {
                break;
            }
            writing.pop_front();
            // SAFETY: nobody else has the event.
            let _ = unsafe { driver::event::destroy(event) };
            self.pinned.borrow_mut().push(pinned);
        }
    }

    fn stream(&self) -> CUstream {
        self.stream.cu_stream()
    }
}

/// Compiles the kernels and finds them by name.
fn load(precision: Precision, major: i32, minor: i32) -> Result<HashMap<String, CUfunction>> {
    let text = text(precision);
    let image = CString::new(compile(&text, &format!("compute_{major}{minor}"))?).map_err(|e| fail("NVRTC", e))?;
    // SAFETY: the image is the text of a whole module, ended by a zero.
    let module = unsafe { driver::module::load_data(image.as_ptr().cast()) }.map_err(|e| {
        fail("the driver", format!("does not take the compiled kernels ({e:?}); it may be older than NVRTC. {INSTALL}"))
    })?;
    let find = |name: &str| {
        let c_name = CString::new(name).map_err(|e| fail(name, e))?;
        // SAFETY: the module was just loaded and is never unloaded while the program runs.
        let function = unsafe { driver::module::get_function(module, c_name) }.map_err(of_driver)?;
        Ok((name.to_string(), function))
    };
    names(&text).into_iter().map(find).collect()
}

/// The kernels' text as PTX for a virtual architecture such as `compute_90`.
///
/// # Errors
/// With the compiler's own words. NVRTC must be present.
pub(super) fn compile(text: &str, architecture: &str) -> Result<String> {
    let options = cudarc::nvrtc::CompileOptions {
        options: vec![format!("--gpu-architecture={architecture}"), "--std=c++17".into()],
        name: Some("kernels.cu".into()),
        ..Default::default()
    };
    match cudarc::nvrtc::compile_ptx_with_opts(text, options) {
        Ok(ptx) => Ok(ptx.to_src().trim_end_matches('\0').to_string()),
        Err(cudarc::nvrtc::CompileError::CompileError { log, .. }) => Err(fail("NVRTC", log.to_string_lossy())),
        Err(e) => Err(fail("NVRTC", format!("{e:?}"))),
    }
}

fn open_blas(stream: CUstream) -> Result<blas::cublasHandle_t> {
    let mut handle = std::ptr::null_mut();
    // SAFETY: the handle is written by the first call and used by the second; both enums are cuBLAS' own. The two stream
    // types name the same thing.
    unsafe {
        blas::cublasCreate_v2(&mut handle).result().map_err(of_blas)?;
        blas::cublasSetStream_v2(handle, stream.cast()).result().map_err(of_blas)?;
    }
    Ok(handle)
}

fn event() -> Result<CUevent> {
    driver::event::create(CUevent_flags::CU_EVENT_DISABLE_TIMING).map_err(of_driver)
}

fn of_driver(e: DriverError) -> crate::Error {
    fail("the driver", format!("{e:?}"))
}

fn of_blas(e: cudarc::cublas::result::CublasError) -> crate::Error {
    fail("cuBLAS", e)
}

impl Drop for Card {
    fn drop(&mut self) {
        // What is under way is finished first. Nothing can be done about an error here.
        let _ = self.context.bind_to_thread();
        let _ = self.stream.synchronize();
        self.recycle(true);
        // SAFETY: nobody has the handle any more, nor the buffers.
        unsafe {
            let _ = blas::cublasDestroy_v2(self.blas);
            for pinned in self.pinned.borrow_mut().drain(..) {
                let _ = driver::free_host(pinned.address);
            }
        }
    }
}

impl Device for Card {
    fn precision(&self) -> Precision {
        self.precision
    }

    fn width(&self) -> usize {
        self.width
    }

    fn allocate(&self, bytes: usize) -> Result<Address> {
        // SAFETY: see the module's first paragraph.
        unsafe { driver::malloc_sync(bytes) }.map_err(|e| {
            let reason = format!("{bytes} more bytes cannot be had ({e:?}). Choose a smaller batch, or --device cpu");
            fail("memory", reason)
        })
    }

    fn release(&self, address: Address) {
        // SAFETY: the address came from `allocate`; freeing waits for what is under way.
        let _ = unsafe { driver::free_sync(address) };
    }

    fn write(&self, to: Address, bytes: &[u8]) -> Result<()> {
        if bytes.len() > STAGED {
            // SAFETY: see the module's first paragraph. Ordinary memory is copied aside before the call returns.
            return unsafe { driver::memcpy_htod_async(to, bytes, self.stream()) }.map_err(of_driver);
        }
        // The driver may wait before it copies from ordinary memory, so it is given memory that it need not.
        self.recycle(false);
        let pinned = self.pinned(bytes.len())?;
        let event = event()?;
        // SAFETY: the buffer is ours and long enough, and stays as it is until the event has passed.
        unsafe {
            let from = std::slice::from_raw_parts_mut(pinned.address.cast::<u8>(), bytes.len());
            from.copy_from_slice(bytes);
            driver::memcpy_htod_async(to, from, self.stream()).map_err(of_driver)?;
            driver::event::record(event, self.stream()).map_err(of_driver)?;
        }
        self.writing.borrow_mut().push_back((pinned, event));
        Ok(())
    }

    fn read(&self, from: Address, bytes: usize) -> Result<Box<dyn Pending>> {
        let pinned = self.pinned(bytes)?;
        let event = event()?;
        let copying = Copying { pinned: Some(pinned), bytes, event, free: Rc::clone(&self.pinned) };
        // SAFETY: the buffer is as long as said and stays until the event has passed, which `Copying` waits for.
        unsafe {
            let to = std::slice::from_raw_parts_mut(pinned.address.cast::<u8>(), bytes);
            driver::memcpy_dtoh_async(to, from, self.stream()).map_err(of_driver)?;
            driver::event::record(event, self.stream()).map_err(of_driver)?;
        }
        Ok(Box::new(copying))
    }

    fn clear(&self, at: Address, bytes: usize) -> Result<()> {
        // SAFETY: see the module's first paragraph.
        unsafe { driver::memset_d8_async(at, 0, bytes, self.stream()) }.map_err(of_driver)
    }

    fn launch(&self, kernel: &'static str, grid: (usize, usize), arguments: &[Argument]) -> Result<()> {
        let function = *self.functions.get(kernel).ok_or_else(|| fail(kernel, "is no kernel"))?;
        let pointer = |argument: &Argument| -> *mut c_void {
            match argument {
                Argument::Pointer(value) => std::ptr::from_ref(value).cast_mut().cast(),
                Argument::Int(value) => std::ptr::from_ref(value).cast_mut().cast(),
                Argument::Long(value) => std::ptr::from_ref(value).cast_mut().cast(),
                Argument::Float(value) => std::ptr::from_ref(value).cast_mut().cast(),
            }
        };
        let mut pointers: Vec<*mut c_void> = arguments.iter().map(pointer).collect();
        let grid = (grid.0 as u32, grid.1 as u32, 1);
        // SAFETY: the arguments are copied by the call; that they are those of the kernel, in number and type, the tests
        // check for every kernel.
        unsafe { driver::launch_kernel(function, grid, (THREADS as u32, 1, 1), 0, self.stream(), &mut pointers) }
            .map_err(|e| fail(kernel, format!("{e:?}")))
    }

    fn convolve(&self, direction: Direction, shape: &Convolution, from: [Address; 2], to: Address) -> Result<()> {
        self.convolutions.borrow_mut().run(direction, shape, from, to)
    }

    fn multiply(&self, product: &Product) -> Result<()> {
        let Product { transpose, m, n, k, factor, a, b, c, add, exact } = *product;
        let operation = |t| if t { blas::cublasOperation_t::CUBLAS_OP_T } else { blas::cublasOperation_t::CUBLAS_OP_N };
        let mode = if exact || self.precision == Precision::F32 {
            blas::cublasMath_t::CUBLAS_DEFAULT_MATH
        } else {
            blas::cublasMath_t::CUBLAS_TF32_TENSOR_OP_MATH
        };
        let beta = if add { 1.0f32 } else { 0.0 };
        let int = |value: usize| value as i32;
        // SAFETY: see the module's first paragraph; the factors are read before the call returns.
        unsafe {
            blas::cublasSetMathMode(self.blas, mode).result().map_err(of_blas)?;
            blas::cublasSgemm_v2(
                self.blas,
                operation(transpose[0]),
                operation(transpose[1]),
                int(m),
                int(n),
                int(k),
                &factor,
                a.0 as *const f32,
                int(a.1),
                b.0 as *const f32,
                int(b.1),
                &beta,
                c.0 as *mut f32,
                int(c.1),
            )
            .result()
            .map_err(of_blas)
        }
    }
}

/// Host memory that the card copies into.
#[derive(Clone, Copy)]
struct Pinned {
    address: *mut c_void,
    capacity: usize,
}

/// A copy to the host; the buffer goes back when it is done.
struct Copying {
    pinned: Option<Pinned>,
    bytes: usize,
    event: CUevent,
    free: Rc<RefCell<Vec<Pinned>>>,
}

impl Pending for Copying {
    fn wait(self: Box<Self>) -> Result<Vec<u8>> {
        // SAFETY: the event is ours.
        unsafe { driver::event::synchronize(self.event) }.map_err(of_driver)?;
        let Some(pinned) = self.pinned else { return Ok(vec![]) };
        // SAFETY: the copy has filled so many bytes, and nobody writes them any more.
        Ok(unsafe { std::slice::from_raw_parts(pinned.address.cast::<u8>(), self.bytes) }.to_vec())
    }
}

impl Drop for Copying {
    fn drop(&mut self) {
        // SAFETY: the event is ours; after it the card no longer writes to the buffer.
        unsafe {
            let _ = driver::event::synchronize(self.event);
            let _ = driver::event::destroy(self.event);
        }
        self.free.borrow_mut().extend(self.pinned.take());
    }
}
