//! A stream of bytes whose form is told or found out: a list of paths, encoded pictures, or raw frames.

use super::{Item, List, Pictures, Raw, RawFormat, Source, Stop};
use std::io::{Cursor, ErrorKind, Read};

/// What a stream of bytes holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// Paths of JPEG and PNG files, one a line.
    List,
    /// JPEG or PNG pictures one after the other, with anything in between.
    Pictures,
    /// Raw frames; never found out, always told.
    Raw(RawFormat),
}

impl Form {
    /// The form that a stream begins with. Text without control bytes is a list, unless it is the boundary of a multipart
    /// message; everything else is searched for pictures.
    pub fn of(beginning: &[u8]) -> Self {
        let control = |b: &u8| b.is_ascii_control() && !matches!(b, b'\n' | b'\r' | b'\t');
        let text = !beginning.iter().any(control) && !beginning.contains(&0xff);
        if text && !beginning.starts_with(b"--") { Self::List } else { Self::Pictures }
    }
}

/// See the module's first paragraph.
pub struct Piped {
    reader: Option<Box<dyn Read + Send>>,
    form: Option<Form>,
    origin: String,
    live: bool,
    inner: Option<Box<dyn Source>>,
}

impl Piped {
    /// A stream called `origin`; `live` unless it is a file. Without a form its first bytes decide.
    pub fn new(reader: Box<dyn Read + Send>, form: Option<Form>, origin: &str, live: bool) -> Self {
        Self { reader: Some(reader), form, origin: origin.into(), live, inner: None }
    }

    /// Waits for the first bytes where they have to decide.
    fn open(&mut self, mut reader: Box<dyn Read + Send>) -> Box<dyn Source> {
        let mut beginning = vec![0; 4096];
        let form = match self.form {
            Some(form) => {
                beginning.clear();
                form
            }
            None => {
                let read = loop {
                    match reader.read(&mut beginning) {
                        Err(error) if error.kind() == ErrorKind::Interrupted => {}
                        other => break other.unwrap_or(0),
                    }
                };
                beginning.truncate(read);
                Form::of(&beginning)
            }
        };
        let whole = Cursor::new(beginning).chain(reader);
        match form {
            Form::List => Box::new(List::new(whole)),
            Form::Pictures => Box::new(Pictures::new(whole, &self.origin, self.live)),
            Form::Raw(format) => Box::new(Raw::new(whole, format, &self.origin, self.live)),
        }
    }
}

impl Source for Piped {
    fn next(&mut self, stop: &Stop) -> Option<Item> {
        if let Some(reader) = self.reader.take() {
            self.inner = Some(self.open(reader));
        }
        self.inner.as_mut()?.next(stop)
    }

    fn live(&self) -> bool {
        self.inner.as_ref().map_or(self.live, |inner| inner.live())
    }
}
