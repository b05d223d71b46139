//! Decoding with limits.

use super::Picture;
use crate::Result;
use std::path::Path;

/// Decodes JPEG or PNG bytes, upright by EXIF orientation. `name` appears in errors.
pub fn decode(_name: &str, _bytes: &[u8]) -> Result<Picture> {
    unreachable!("written by the image helper")
}

/// Reads and decodes one file.
pub fn read(_path: &Path) -> Result<Picture> {
    unreachable!("written by the image helper")
}
