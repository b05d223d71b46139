//! What a user may name as a source, and the source that it is.

use super::{Folder, Form, Http, Piped, Source};
use crate::{Error, Result};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How the source is to be read.
#[derive(Debug, Clone)]
pub struct Options {
    /// Go on with files that come later.
    pub follow: bool,
    /// What a stream of bytes holds; without it, its first bytes decide.
    pub form: Option<Form>,
    /// Size asked of a camera.
    pub size: Option<(u32, u32)>,
    /// A camera that says nothing for so long is lost, and asked anew.
    pub stall: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self { follow: false, form: None, size: None, stall: Duration::from_secs(10) }
    }
}

/// A place that frames come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// `-`: bytes on standard input.
    Stdin,
    /// `http://…`.
    Http(String),
    /// A folder of pictures, its path as the system knows it.
    Folder(PathBuf),
    /// A video device.
    Camera(PathBuf),
    /// A file of pictures or a list, or a named pipe.
    File(PathBuf),
}

impl Place {
    /// What an argument names.
    ///
    /// # Errors
    /// [`Error::Read`] when there is nothing of that name; [`Error::Source`] for another scheme than `http`.
    pub fn of(argument: &Path) -> Result<Self> {
        let text = argument.to_string_lossy();
        if text == "-" {
            return Ok(Self::Stdin);
        }
        if text.contains("://") {
            return match text.starts_with("http://") {
                true => Ok(Self::Http(text.into_owned())),
                false => Err(Error::Source {
                    name: "this address".into(),
                    reason: "only http:// is read; for other schemes put a program in front, as in \
                             `curl -sN https://… | excon-edge watch BUNDLE -`"
                        .into(),
                }),
            };
        }
        let failed = |source| Error::Read { path: argument.into(), source };
        let about = std::fs::metadata(argument).map_err(failed)?;
        if about.is_dir() {
            return Ok(Self::Folder(std::fs::canonicalize(argument).map_err(failed)?));
        }
        Ok(if is_device(&about) { Self::Camera(argument.into()) } else { Self::File(argument.into()) })
    }

    /// The folder, which alone remembers where a watch of it stopped.
    pub fn folder(&self) -> Option<&Path> {
        match self {
            Self::Folder(path) => Some(path),
            _ => None,
        }
    }

    /// Opens it; of a folder the names up to `after` are done.
    ///
    /// # Errors
    /// As the sources'; [`Error::Source`] when the options are not this source's.
    pub fn open(&self, options: &Options, after: Option<&str>) -> Result<Box<dyn Source>> {
        self.check(options)?;
        Ok(match self {
            Self::Folder(path) => Box::new(Folder::open(path, after, options.follow)?),
            Self::Http(address) => Box::new(Http::open(address, options.stall)?),
            Self::Camera(path) => camera(path, options)?,
            Self::Stdin => {
                let stdin = std::io::stdin();
                let live = !is_file(&stdin);
                Box::new(Piped::new(Box::new(stdin), options.form, "stdin", live))
            }
            Self::File(path) => {
                let failed = |source| Error::Read { path: path.clone(), source };
                let file = File::open(path).map_err(failed)?;
                let live = !file.metadata().map_err(failed)?.is_file();
                let origin = path.file_name().unwrap_or_default().to_string_lossy();
                Box::new(Piped::new(Box::new(file) as Box<dyn Read + Send>, options.form, &origin, live))
            }
        })
    }

    fn check(&self, options: &Options) -> Result<()> {
        let bytes = matches!(self, Self::Stdin | Self::File(_));
        let reason = match () {
            () if options.follow && self.folder().is_none() => "only folders are followed; leave --follow out",
            () if options.form.is_some() && !bytes => "its form is known; leave --input and --raw out",
            () if options.size.is_some() && !matches!(self, Self::Camera(_)) => {
                "only cameras take a size; leave --size out"
            }
            () => return Ok(()),
        };
        Err(Error::Source { name: self.to_string(), reason: reason.into() })
    }
}

impl std::fmt::Display for Place {
    /// As it may be shown: without user and password.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Stdin => f.write_str("stdin"),
            Self::Http(address) => match address.rsplit_once('@') {
                Some((_, rest)) => write!(f, "http://{rest}"),
                None => f.write_str(address),
            },
            Self::Folder(path) | Self::Camera(path) | Self::File(path) => write!(f, "{}", path.display()),
        }
    }
}

/// Whether it is one of Video4Linux's devices, whose major number is 81.
#[cfg(target_os = "linux")]
fn is_device(about: &std::fs::Metadata) -> bool {
    use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
    about.file_type().is_char_device() && (about.rdev() >> 8) & 0xfff == 81
}

#[cfg(not(target_os = "linux"))]
fn is_device(_: &std::fs::Metadata) -> bool {
    false
}

/// Whether standard input is a file and no pipe: then nothing need be left out.
#[cfg(unix)]
fn is_file(stdin: &std::io::Stdin) -> bool {
    use std::os::fd::AsFd as _;
    let file = stdin.as_fd().try_clone_to_owned().map(File::from);
    file.and_then(|f| f.metadata()).is_ok_and(|about| about.is_file())
}

#[cfg(not(unix))]
fn is_file(_: &std::io::Stdin) -> bool {
    false
}

#[cfg(all(feature = "camera", target_os = "linux", target_pointer_width = "64"))]
fn camera(path: &Path, options: &Options) -> Result<Box<dyn Source>> {
    Ok(Box::new(super::camera::Camera::open(path, options)?))
}

#[cfg(not(all(feature = "camera", target_os = "linux", target_pointer_width = "64")))]
fn camera(path: &Path, _: &Options) -> Result<Box<dyn Source>> {
    let path = path.display();
    Err(Error::Source {
        name: path.to_string(),
        reason: format!(
            "this program was built without the feature `camera`. Build with `--features camera`, or put GStreamer in \
             front: `gst-launch-1.0 -q v4l2src device={path} ! jpegenc ! fdsink | excon-edge watch BUNDLE -`"
        ),
    })
}
