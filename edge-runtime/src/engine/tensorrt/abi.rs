//! The C ABI of `shim/shim.h` as Rust calls it: the same structures and functions under the same names, looked up in a
//! library that is opened at run time. Nothing else in the crate calls C.

use std::ffi::{c_char, c_void};
use std::path::Path;

/// Number of the ABI in `shim.h`; a library of another one is refused.
pub const ABI: u32 = 1;

/// An object of the shim, only ever seen through a pointer.
#[repr(C)]
pub struct Opaque {
    _bytes: [u8; 0],
}

/// `ExconDevice`.
#[repr(C)]
pub struct Device {
    pub name: [c_char; 128],
    pub capability: [i32; 2],
    pub driver: i32,
    pub integrated: i32,
    pub memory: u64,
}

/// `ExconOptions`.
#[repr(C)]
pub struct Options {
    pub half: i32,
    pub int8: i32,
    pub dla_core: i32,
    pub reserved: i32,
    pub workspace: u64,
}

/// `ExconReport`.
#[repr(C)]
#[derive(Default)]
pub struct Report {
    pub layers: i32,
    pub dla_layers: i32,
    pub head_layers: i32,
}

/// `ExconTensor`.
#[repr(C)]
pub struct Tensor {
    pub name: [c_char; 128],
    pub input: i32,
    pub is_float: i32,
    pub rank: i32,
    pub shape: [i64; 8],
}

/// `ExconLog`.
pub type Log = unsafe extern "C" fn(*mut c_void, i32, *const c_char);
/// `ExconProgress`.
pub type Progress = unsafe extern "C" fn(*mut c_void, *const c_char, i32, i32) -> i32;

type Handle = *mut Opaque;
type Held = *const Opaque;
type Text = *mut c_char;
type Bytes = *const c_void;

macro_rules! functions {
    ($($name:ident: $kind:ty;)*) => {
        /// The functions of an opened shim.
        pub struct Abi {
            $(pub $name: $kind,)*
            // Never closed: CUDA's libraries do not take that well, and a build that was given up may still run in it.
            _library: std::mem::ManuallyDrop<libloading::Library>,
        }

        impl Abi {
            fn look_up(library: libloading::Library) -> Result<Self, libloading::Error> {
                $(
                    // SAFETY: `shim.h` of this ABI number declares the function with this signature.
                    let $name = *unsafe { library.get::<$kind>(concat!("excon_trt_", stringify!($name), "\0").as_bytes())? };
                )*
                Ok(Self { $($name,)* _library: std::mem::ManuallyDrop::new(library) })
            }
        }
    };
}

functions! {
    versions: unsafe extern "C" fn(*mut i32, *mut i32);
    device_count: unsafe extern "C" fn(*mut i32, Text, usize) -> i32;
    device: unsafe extern "C" fn(i32, *mut Device, Text, usize) -> i32;
    builder_new: unsafe extern "C" fn(i32, Log, *mut c_void, *mut Handle, Text, usize) -> i32;
    builder_parse: unsafe extern "C" fn(Handle, Bytes, usize, *mut i32, Text, usize) -> i32;
    builder_build: unsafe extern "C" fn(
        Handle, *const Options, Progress, *mut c_void, *mut Handle, *mut Report, Text, usize,
    ) -> i32;
    builder_free: unsafe extern "C" fn(Handle);
    plan_data: unsafe extern "C" fn(Held) -> Bytes;
    plan_size: unsafe extern "C" fn(Held) -> usize;
    plan_free: unsafe extern "C" fn(Handle);
    runtime_new: unsafe extern "C" fn(i32, Log, *mut c_void, *mut Handle, Text, usize) -> i32;
    runtime_free: unsafe extern "C" fn(Handle);
    engine_new: unsafe extern "C" fn(Handle, Bytes, usize, *mut Handle, Text, usize) -> i32;
    engine_tensors: unsafe extern "C" fn(Held) -> i32;
    engine_tensor: unsafe extern "C" fn(Held, i32, *mut Tensor, Text, usize) -> i32;
    engine_free: unsafe extern "C" fn(Handle);
    context_new: unsafe extern "C" fn(Handle, u32, *mut Handle, Text, usize) -> i32;
    context_buffer: unsafe extern "C" fn(Handle, i32) -> *mut f32;
    context_run: unsafe extern "C" fn(Handle, u32, Text, usize) -> i32;
    context_graph: unsafe extern "C" fn(Held) -> i32;
    context_free: unsafe extern "C" fn(Handle);
}

impl Abi {
    /// Opens a shim; the error says why it cannot be used.
    pub fn open(path: &Path) -> Result<Self, String> {
        // SAFETY: what runs when it is loaded are the initialisers of TensorRT's and CUDA's own libraries, and the path
        // is one of this program's, or one that its caller has chosen.
        let library = unsafe { libloading::Library::new(path) }.map_err(|e| e.to_string())?;
        // SAFETY: in every ABI this function takes nothing and returns a number.
        let abi = unsafe { library.get::<unsafe extern "C" fn() -> u32>(b"excon_trt_abi\0") };
        let abi = abi.map_err(|_| "it is no shim of excon-edge".to_string())?;
        // SAFETY: as above.
        let abi = unsafe { abi() };
        if abi != ABI {
            return Err(format!("it was compiled by another version of excon-edge (ABI {abi}, this one is {ABI})"));
        }
        Self::look_up(library).map_err(|e| e.to_string())
    }
}
