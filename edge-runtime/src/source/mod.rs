//! Where frames come from: folders, lists of paths, streams of bytes, cameras on the network and on the board.
//!
//! A [`Source`] gives one frame after the other, or says what is wrong with one, and holds at most a frame at a time.
//! Decoding is the taker's, so that a frame nobody has time for costs no more than its bytes. [`Feed`] runs a source on
//! a thread of its own behind a bounded queue: from files every frame is taken and the source waits, of a live source
//! the oldest frame goes when a newer one finds no room, and each that went is counted.

#[cfg(all(feature = "camera", target_os = "linux", target_pointer_width = "64"))]
mod camera;
mod chunked;
mod feed;
mod folder;
mod http;
mod list;
mod pictures;
mod piped;
mod place;
mod raw;
#[cfg(test)]
mod tests;

pub use feed::{Feed, Limits, Next};
pub use folder::Folder;
pub use http::Http;
pub use list::List;
pub use pictures::{Pictures, Piece, Splitter};
pub use piped::{Form, Piped};
pub use place::{Options, Place};
pub use raw::{Raw, RawFormat};

use crate::image::{self, Picture};
use crate::{Error, Result};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

/// A frame before it is decoded.
#[derive(Debug)]
pub enum Content {
    /// A JPEG or PNG file.
    File(PathBuf),
    /// The bytes of a JPEG or PNG.
    Encoded(Vec<u8>),
    /// Pixels.
    Pixels(Picture),
}

/// One frame, or what is wrong with it.
#[derive(Debug)]
pub struct Frame {
    /// File name, path, or `SOURCE#NUMBER`.
    pub name: String,
    /// When it came; of a file, when it was last written to.
    pub at: SystemTime,
    /// The same on the clock that is never set.
    pub arrived: Instant,
    /// What it holds.
    pub content: Result<Content>,
}

impl Frame {
    /// A frame that came now.
    pub fn new(name: String, content: Result<Content>) -> Self {
        Self { name, at: SystemTime::now(), arrived: Instant::now(), content }
    }

    /// A file's frame.
    fn file(name: String, path: PathBuf) -> Self {
        let written = path.metadata().and_then(|about| about.modified());
        let now = Self::new(name, Ok(Content::File(path)));
        Self { at: written.unwrap_or(now.at), ..now }
    }

    /// A frame of a stream that cannot be used.
    fn broken(name: String, reason: &str) -> Self {
        let content = Err(Error::Picture { name: name.clone(), reason: reason.into() });
        Self::new(name, content)
    }

    /// The picture.
    ///
    /// # Errors
    /// What was wrong with the frame as it came, otherwise as [`image::read`] and [`image::decode`].
    pub fn picture(self) -> Result<Picture> {
        match self.content? {
            Content::File(path) => image::read(&path),
            Content::Encoded(bytes) => image::decode(&self.name, &bytes),
            Content::Pixels(picture) => Ok(picture),
        }
    }
}

/// What a source gives.
#[derive(Debug)]
pub enum Item {
    /// A frame.
    Frame(Frame),
    /// The source has trouble and goes on.
    Trouble(Error),
}

/// A source of frames.
pub trait Source: Send {
    /// The next frame, waiting for it. None at the end, and soon after `stop`: at once where the source waits by itself,
    /// with the next bytes where it waits for a pipe.
    fn next(&mut self, stop: &Stop) -> Option<Item>;

    /// Whether frames go on coming while nobody takes them: then late ones may be left out.
    fn live(&self) -> bool;

    /// Frames it will give, where that is known.
    fn expected(&self) -> Option<u64> {
        None
    }
}

/// A wish to end, shared by whoever has it and whoever has to heed it.
#[derive(Debug, Clone, Default)]
pub struct Stop(Arc<AtomicBool>);

impl Stop {
    /// How long a wait is that does not look at the wish.
    const LOOK: Duration = Duration::from_millis(20);

    /// Not wished yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The flag itself, for a signal's handler.
    pub fn flag(&self) -> Arc<AtomicBool> {
        self.0.clone()
    }

    /// Wishes it.
    pub fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether it is wished.
    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// Waits, but not beyond the wish; true when it is wished.
    pub fn wait(&self, time: Duration) -> bool {
        let begun = Instant::now();
        while !self.is_set() {
            let left = time.saturating_sub(begun.elapsed());
            if left.is_zero() {
                return false;
            }
            std::thread::sleep(left.min(Self::LOOK));
        }
        true
    }
}
