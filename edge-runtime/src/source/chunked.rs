//! The chunked transfer coding of HTTP/1.1 (RFC 9112, section 7.1), taken off bytes as they come.

/// Where in a chunk the next byte stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    /// In the line with the chunk's size.
    Size,
    /// In an extension behind the size.
    Extension,
    /// In the data, of which so many bytes are left.
    Data(u64),
    /// In the line end behind the data.
    End,
    /// Behind the last chunk.
    Over,
}

/// See the module's first paragraph.
#[derive(Debug)]
pub struct Chunked {
    at: At,
    size: u64,
}

impl Chunked {
    /// At the beginning of a body.
    pub fn new() -> Self {
        Self { at: At::Size, size: 0 }
    }

    /// Whether the last chunk has come.
    pub fn over(&self) -> bool {
        self.at == At::Over
    }

    /// Appends the data in `bytes` to `out`; false when they do not follow the coding.
    pub fn take(&mut self, mut bytes: &[u8], out: &mut Vec<u8>) -> bool {
        while let Some((&byte, rest)) = bytes.split_first() {
            match self.at {
                At::Data(left) => {
                    let part = left.min(bytes.len() as u64) as usize;
                    out.extend_from_slice(&bytes[..part]);
                    bytes = &bytes[part..];
                    self.at = if left == part as u64 { At::End } else { At::Data(left - part as u64) };
                    continue;
                }
                At::Over => return true,
                At::End if byte == b'\n' => (self.at, self.size) = (At::Size, 0),
                At::End if byte == b'\r' => {}
                At::Size | At::Extension if byte == b'\n' => {
                    self.at = if self.size == 0 { At::Over } else { At::Data(self.size) };
                }
                At::Extension => {}
                At::Size => match (byte as char).to_digit(16) {
                    Some(digit) if self.size < 1 << 32 => self.size = self.size * 16 + u64::from(digit),
                    _ if matches!(byte, b'\r' | b' ') => {}
                    _ if byte == b';' => self.at = At::Extension,
                    _ => return false,
                },
                At::End => return false,
            }
            bytes = rest;
        }
        true
    }
}
