//! A video device of the board as a source: what it sends becomes pictures, and one that falls silent is opened anew.
//!
//! The [`Device`] behind it is Video4Linux's, or a recording of one in the tests.

mod v4l2;

use super::place::Options;
use super::{Content, Frame, Item, Source, Stop};
use crate::image::Picture;
use crate::{Error, Result};
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

/// How long to wait before a device is asked again that has nothing yet.
const LOOK: Duration = Duration::from_millis(4);
const FIRST_WAIT: Duration = Duration::from_millis(500);
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// How the bytes of a buffer are a picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Coding {
    /// A JPEG.
    Jpeg,
    /// Two pixels in four bytes, Y U Y V.
    Yuyv,
    /// Red, green, blue.
    Rgb,
    /// Blue, green, red.
    Bgr,
    /// One sample a pixel.
    Gray,
}

/// What a device sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Format {
    /// How bytes are pixels.
    pub coding: Coding,
    /// Pixels a row.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// Bytes from one row to the next; of no meaning for JPEG.
    pub stride: usize,
}

/// A device that streams.
pub trait Device: Send {
    /// Begins to stream, also anew after trouble.
    ///
    /// # Errors
    /// When there is no device, or it has no form of pictures in common with us.
    fn start(&mut self) -> io::Result<Format>;

    /// The next buffer; none while there is none. An empty one is a frame that the driver marked as broken.
    ///
    /// # Errors
    /// When the device is gone.
    fn take(&mut self) -> io::Result<Option<Vec<u8>>>;
}

/// See the module's first paragraph.
pub struct Camera<D> {
    device: D,
    format: Option<Format>,
    name: String,
    number: u64,
    stall: Duration,
    last: Instant,
    wait: Duration,
}

impl Camera<v4l2::Video> {
    /// Opens a device. One that is not there at the start is an error, one that leaves later is waited for.
    ///
    /// # Errors
    /// [`Error::Unreachable`].
    pub fn open(path: &Path, options: &Options) -> Result<Self> {
        Self::start(v4l2::Video::new(path, options.size), path.display().to_string(), options.stall)
    }
}

impl<D: Device> Camera<D> {
    fn start(mut device: D, name: String, stall: Duration) -> Result<Self> {
        let format = device.start().map_err(|e| Error::Unreachable { name: name.clone(), reason: e.to_string() })?;
        Ok(Self { device, format: Some(format), name, number: 0, stall, last: Instant::now(), wait: FIRST_WAIT })
    }

    /// A frame, none yet, or why the device is lost.
    fn look(&mut self, format: Format) -> io::Result<Option<Frame>> {
        let Some(bytes) = self.device.take()? else {
            return match self.last.elapsed() > self.stall {
                true => Err(io::Error::other(format!("it said nothing for {:.1} s", self.stall.as_secs_f64()))),
                false => Ok(None),
            };
        };
        (self.last, self.wait) = (Instant::now(), FIRST_WAIT);
        self.number += 1;
        let name = format!("{}#{}", self.name, self.number);
        Ok(Some(match content(format, bytes) {
            Some(content) => Frame::new(name, Ok(content)),
            None => Frame::broken(name, "the device sent a part of it only"),
        }))
    }
}

impl<D: Device> Source for Camera<D> {
    fn next(&mut self, stop: &Stop) -> Option<Item> {
        while !stop.is_set() {
            let Some(format) = self.format else {
                if stop.wait(self.wait) {
                    return None;
                }
                self.wait = (2 * self.wait).min(LONGEST_WAIT);
                self.last = Instant::now();
                self.format = self.device.start().ok();
                continue;
            };
            match self.look(format) {
                Ok(Some(frame)) => return Some(Item::Frame(frame)),
                Ok(None) => drop(stop.wait(LOOK)),
                Err(error) => {
                    self.format = None;
                    let reason = format!("{error}; trying again until it does");
                    return Some(Item::Trouble(Error::Unreachable { name: self.name.clone(), reason }));
                }
            }
        }
        None
    }

    fn live(&self) -> bool {
        true
    }
}

/// The picture of a buffer; none when bytes are missing.
fn content(format: Format, bytes: Vec<u8>) -> Option<Content> {
    let Format { coding, width, height, stride } = format;
    let samples = match coding {
        Coding::Jpeg => return (!bytes.is_empty()).then_some(Content::Encoded(bytes)),
        Coding::Yuyv => 2,
        Coding::Rgb | Coding::Bgr => 3,
        Coding::Gray => 1,
    };
    let row = samples * width;
    let end = (stride * height.checked_sub(1)?).checked_add(row)?;
    if bytes.len() < end || stride < row || width == 0 {
        return None;
    }
    let mut rgb = Vec::with_capacity(3 * width * height);
    for row in bytes.chunks(stride).take(height).map(|r| &r[..row]) {
        match coding {
            Coding::Yuyv => row.chunks_exact(4).for_each(|p| rgb.extend(pair(p).concat())),
            Coding::Bgr => rgb.extend(row.chunks_exact(3).flat_map(|p| [p[2], p[1], p[0]])),
            Coding::Gray => rgb.extend(row.iter().flat_map(|&v| [v; 3])),
            Coding::Rgb | Coding::Jpeg => rgb.extend_from_slice(row),
        }
    }
    // An odd width would leave half a pair of Y U Y V.
    (rgb.len() == 3 * width * height).then_some(Content::Pixels(Picture { width, height, rgb }))
}

/// Two pixels from Y U Y V by ITU-R BT.601 with its narrow range, in 8-bit fixed point.
fn pair(bytes: &[u8]) -> [[u8; 3]; 2] {
    let (u, v) = (i32::from(bytes[1]) - 128, i32::from(bytes[3]) - 128);
    let pixel = |y: u8| {
        let y = 298 * (i32::from(y) - 16) + 128;
        let byte = |value: i32| (value >> 8).clamp(0, 255) as u8;
        [byte(y + 409 * v), byte(y - 100 * u - 208 * v), byte(y + 516 * u)]
    };
    [pixel(bytes[0]), pixel(bytes[2])]
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::collections::VecDeque;

    /// What a device did, played again: its starts, and what it gave between them.
    struct Recorded {
        starts: VecDeque<io::Result<Format>>,
        gave: VecDeque<io::Result<Option<Vec<u8>>>>,
    }

    impl Device for Recorded {
        fn start(&mut self) -> io::Result<Format> {
            self.starts.pop_front().unwrap_or_else(|| Err(io::Error::other("no more")))
        }
        fn take(&mut self) -> io::Result<Option<Vec<u8>>> {
            self.gave.pop_front().unwrap_or(Ok(None))
        }
    }

    const GRAY: Format = Format { coding: Coding::Gray, width: 2, height: 2, stride: 3 };

    fn frame(item: Option<Item>) -> Frame {
        match item {
            Some(Item::Frame(frame)) => frame,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_recording_becomes_frames_and_a_lost_device_is_opened_anew() {
        let gone = || Err(io::Error::other("No such device"));
        let device = Recorded {
            starts: [Ok(GRAY), gone(), Ok(Format { stride: 2, ..GRAY })].into(),
            gave: [
                Ok(None),
                Ok(Some(vec![1, 2, 0, 3, 4])),
                Ok(Some(vec![])),
                Err(io::Error::other("gone")),
                Ok(Some(vec![5, 6, 7, 8])),
            ]
            .into(),
        };
        let mut camera = Camera::start(device, "/dev/video9".into(), Duration::from_secs(60)).unwrap();
        let stop = Stop::new();
        let first = frame(camera.next(&stop));
        assert_eq!(first.name, "/dev/video9#1");
        assert_eq!(first.picture().unwrap().rgb, [[1; 3], [2; 3], [3; 3], [4; 3]].concat(), "padding is left out");
        assert!(frame(camera.next(&stop)).picture().is_err(), "a broken frame is one frame");
        let said = camera.next(&stop);
        assert!(matches!(&said, Some(Item::Trouble(e)) if e.to_string().contains("gone")), "{said:?}");
        let after = frame(camera.next(&stop));
        assert_eq!(after.name, "/dev/video9#3");
        assert_eq!(after.picture().unwrap().rgb[0], 5);
        stop.set();
        assert!(camera.next(&stop).is_none());
    }

    #[test]
    fn silence_is_loss_and_no_device_is_an_error() {
        let device = Recorded { starts: [Ok(GRAY)].into(), gave: VecDeque::new() };
        let mut camera = Camera::start(device, "cam".into(), Duration::from_millis(30)).unwrap();
        let said = camera.next(&Stop::new());
        assert!(matches!(&said, Some(Item::Trouble(e)) if e.to_string().contains("said nothing")), "{said:?}");
        let none = Recorded { starts: VecDeque::new(), gave: VecDeque::new() };
        assert_eq!(Camera::start(none, "cam".into(), Duration::ZERO).err().unwrap().exit_code(), 69);
    }

    #[test]
    fn colours_come_out_right() {
        // Black, white, and the red, green and blue of colour bars.
        assert_eq!(pair(&[16, 128, 235, 128]), [[0; 3], [255; 3]]);
        for ([y, u, v], rgb) in
            [([81, 90, 240], [254, 0, 0]), ([145, 54, 34], [0, 255, 1]), ([41, 240, 110], [0, 0, 255])]
        {
            let [pixel, _] = pair(&[y, u, y, v]);
            assert!(pixel.iter().zip(rgb).all(|(&a, b)| i32::from(a).abs_diff(b) <= 2), "{pixel:?} for {rgb:?}");
        }
        let bgr = Format { coding: Coding::Bgr, width: 1, height: 1, stride: 3 };
        assert!(matches!(content(bgr, vec![1, 2, 3]), Some(Content::Pixels(p)) if p.rgb == [3, 2, 1]));
        let odd = Format { coding: Coding::Yuyv, width: 3, height: 1, stride: 6 };
        assert!(content(odd, vec![0; 6]).is_none());
        assert!(content(GRAY, vec![0; 4]).is_none() && content(Format { stride: 1, ..GRAY }, vec![0; 9]).is_none());
    }
}
