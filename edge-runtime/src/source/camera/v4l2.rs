//! Video4Linux's streaming interface with mapped buffers: the one place that talks to the kernel.
//!
//! Structures and numbers are those of `linux/videodev2.h` on 64-bit systems. The device is opened without blocking, so
//! that a silent one never holds the source.

use super::{Coding, Device, Format};
use rustix::ioctl::{Opcode, Setter, Updater, ioctl, opcode};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use std::ffi::c_void;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

const CAPTURE: u32 = 1;
const MAPPED: u32 = 1;
const ANY_FIELD: u32 = 0;
const BROKEN: u32 = 0x40;
/// Buffers that the driver fills in turn: the newest frame is what counts, the queue is ours.
const BUFFERS: u32 = 3;

/// In the order in which they are tried.
const CODINGS: [(Coding, &[u8; 4]); 5] = [
    (Coding::Jpeg, b"MJPG"),
    (Coding::Yuyv, b"YUYV"),
    (Coding::Rgb, b"RGB3"),
    (Coding::Bgr, b"BGR3"),
    (Coding::Gray, b"GREY"),
];

/// `struct v4l2_format` with `struct v4l2_pix_format` in its union.
#[repr(C)]
struct PixelFormat {
    kind: u32,
    /// The union holds pointers and is aligned as they are.
    _align: u32,
    width: u32,
    height: u32,
    code: [u8; 4],
    field: u32,
    bytes_per_line: u32,
    size: u32,
    rest: [u32; 44],
}

/// `struct v4l2_requestbuffers`.
#[repr(C)]
struct Request {
    count: u32,
    kind: u32,
    memory: u32,
    rest: [u32; 2],
}

/// `struct v4l2_buffer`.
#[repr(C)]
#[derive(Default)]
struct Buffer {
    index: u32,
    kind: u32,
    bytes_used: u32,
    flags: u32,
    field: u32,
    time: [u64; 2],
    time_code: [u32; 4],
    sequence: u32,
    memory: u32,
    offset: u64,
    length: u32,
    rest: [u32; 2],
}

const _: () = assert!(size_of::<PixelFormat>() == 208 && size_of::<Request>() == 20 && size_of::<Buffer>() == 88);

const GET_FORMAT: Opcode = opcode::read_write::<PixelFormat>(b'V', 4);
const SET_FORMAT: Opcode = opcode::read_write::<PixelFormat>(b'V', 5);
const REQUEST: Opcode = opcode::read_write::<Request>(b'V', 8);
const QUERY: Opcode = opcode::read_write::<Buffer>(b'V', 9);
const QUEUE: Opcode = opcode::read_write::<Buffer>(b'V', 15);
const DEQUEUE: Opcode = opcode::read_write::<Buffer>(b'V', 17);
const STREAM_ON: Opcode = opcode::write::<u32>(b'V', 18);

/// A device, open or not.
pub struct Video {
    path: PathBuf,
    size: Option<(u32, u32)>,
    open: Option<Open>,
}

/// An open device; fields are dropped in order, the mappings first.
struct Open {
    mapped: Vec<Mapped>,
    file: File,
}

/// A buffer of the driver's in our memory.
struct Mapped {
    start: *mut c_void,
    length: usize,
}

// SAFETY: a mapping belongs to the process, not to a thread, and only its owner reads it.
unsafe impl Send for Mapped {}

impl Drop for Mapped {
    fn drop(&mut self) {
        // SAFETY: mapped by `Video::open` with this length, and nothing borrows from it beyond `Video::take`.
        let _ = unsafe { munmap(self.start, self.length) };
    }
}

/// One request in which the kernel reads and writes the value.
fn update<const CODE: Opcode, T>(file: &File, value: &mut T) -> io::Result<()> {
    // SAFETY: each code above is made from the type that it is used with, whose layout is the kernel's (see the assertion).
    unsafe { ioctl(file, Updater::<CODE, T>::new(value)) }.map_err(io::Error::from)
}

impl Video {
    /// A device that is yet to be opened; without a size it keeps its own.
    pub fn new(path: &Path, size: Option<(u32, u32)>) -> Self {
        Self { path: path.into(), size, open: None }
    }

    /// Agrees on a form that both sides know.
    fn agree(&self, file: &File) -> io::Result<Format> {
        let blank = || PixelFormat {
            kind: CAPTURE,
            _align: 0,
            width: 0,
            height: 0,
            code: [0; 4],
            field: 0,
            bytes_per_line: 0,
            size: 0,
            rest: [0; 44],
        };
        let mut own = blank();
        update::<GET_FORMAT, _>(file, &mut own)?;
        let (width, height) = self.size.unwrap_or((own.width, own.height));
        for (coding, code) in CODINGS {
            let mut asked = PixelFormat { width, height, code: *code, field: ANY_FIELD, ..blank() };
            // The driver answers with what it can do that is nearest.
            if update::<SET_FORMAT, _>(file, &mut asked).is_ok() && asked.code == *code {
                return Ok(Format {
                    coding,
                    width: asked.width as usize,
                    height: asked.height as usize,
                    stride: asked.bytes_per_line as usize,
                });
            }
        }
        Err(io::Error::other("it sends none of MJPG, YUYV, RGB3, BGR3, GREY; put GStreamer or ffmpeg in front"))
    }
}

impl Device for Video {
    fn start(&mut self) -> io::Result<Format> {
        // Closed first: a device streams for one.
        self.open = None;
        let flags = rustix::fs::OFlags::NONBLOCK.bits() as i32;
        let file = OpenOptions::new().read(true).write(true).custom_flags(flags).open(&self.path)?;
        let format = self.agree(&file)?;
        let mut request = Request { count: BUFFERS, kind: CAPTURE, memory: MAPPED, rest: [0; 2] };
        update::<REQUEST, _>(&file, &mut request)?;
        let mut mapped = Vec::new();
        for index in 0..request.count {
            let mut buffer = Buffer { index, kind: CAPTURE, memory: MAPPED, ..Buffer::default() };
            update::<QUERY, _>(&file, &mut buffer)?;
            let length = buffer.length as usize;
            // SAFETY: a new mapping at a place of the kernel's choice, of the length and offset that the driver named.
            let start =
                unsafe { mmap(std::ptr::null_mut(), length, ProtFlags::READ, MapFlags::SHARED, &file, buffer.offset) }?;
            mapped.push(Mapped { start, length });
            update::<QUEUE, _>(&file, &mut buffer)?;
        }
        // SAFETY: the request reads one u32, the kind of stream.
        unsafe { ioctl(&file, Setter::<STREAM_ON, u32>::new(CAPTURE)) }?;
        self.open = Some(Open { mapped, file });
        Ok(format)
    }

    fn take(&mut self) -> io::Result<Option<Vec<u8>>> {
        let open = self.open.as_ref().ok_or_else(|| io::Error::other("it is not open"))?;
        let mut buffer = Buffer { kind: CAPTURE, memory: MAPPED, ..Buffer::default() };
        match update::<DEQUEUE, _>(&open.file, &mut buffer) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
            other => other?,
        }
        let mapped = open.mapped.get(buffer.index as usize).ok_or_else(|| io::Error::other("it is confused"))?;
        let used = if buffer.flags & BROKEN == 0 { (buffer.bytes_used as usize).min(mapped.length) } else { 0 };
        // SAFETY: the mapping is `length` bytes long and lives as long as `open`; the driver does not write into a buffer
        // between handing it out and getting it back below.
        let bytes = unsafe { std::slice::from_raw_parts(mapped.start.cast::<u8>(), used) }.to_vec();
        update::<QUEUE, _>(&open.file, &mut buffer)?;
        Ok(Some(bytes))
    }
}
