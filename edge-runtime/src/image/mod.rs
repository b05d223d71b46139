//! From bytes to the network's input: strict decoding, one preprocessing for trainer, converter and board.

mod decode;
mod preprocess;
mod resample;
#[cfg(test)]
mod tests;

pub use decode::{MAX_BYTES, MAX_PIXELS, MAX_SIDE, decode, decode_within, is_whole, read};
pub use preprocess::Preprocess;
pub use resample::{Window, resample, resample_plane};

/// An 8-bit RGB picture, rows top to bottom, interleaved (`height × width × 3`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Picture {
    /// Pixels per row, at least 1.
    pub width: usize,
    /// Rows, at least 1.
    pub height: usize,
    /// `height * width * 3` bytes.
    pub rgb: Vec<u8>,
}
