//! The text of a recording, token by token.
//!
//! A recording is what the reference server writes with `SPICE_WORKER_RECORD_FILENAME`: a first line
//! `SPICE_REPLAY 1`, then events. An event is a line `event NUMBER WHAT TYPE TIME`, and what belongs
//! to it: lines of a name and numbers, in a fixed order, and blobs (`binary 0 NAME SIZE:`, the bytes,
//! a line end).

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};

use vm_memory::VolatileSlice;

/// The first line.
const HEADER: &str = "SPICE_REPLAY 1";
/// Bytes of the longest line that makes sense.
const MAX_LINE: u64 = 256;
/// Bytes of the largest blob that makes sense: a frame buffer of 8192×8192 pixels.
const MAX_BLOB: usize = 256 << 20;

/// Why a recording can't be read on.
#[derive(Debug, thiserror::Error)]
pub enum RecordingError {
    /// The first line is another.
    #[error("it does not begin with \"{HEADER}\", so it is no QXL recording")]
    NotARecording,
    /// It ends within an event, as a recording of a process that was killed does.
    #[error("it ends in the middle of an event")]
    CutShort,
    /// Something else was to come.
    #[error("at byte {at}: \"{found}\" instead of {expected}")]
    Unexpected {
        /// Where, from the start of the text.
        at: u64,
        /// What is there.
        found: String,
        /// What should be.
        expected: String,
    },
    /// The file can't be read.
    #[error("it can't be read")]
    Io(#[from] io::Error),
}

impl RecordingError {
    /// A blob can't be had.
    pub fn of_blob(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => Self::CutShort,
            _ => error.into(),
        }
    }
}

/// What an event is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventKind {
    /// A command of the guest, by its `QXLCommand.type`.
    Command(u32),
    /// Something asked of the server, by the reference's own number.
    Request(u32),
}

/// A recording that is being read.
pub struct Recording<R> {
    input: R,
    at: u64,
    /// What was read last, a line or the beginning of a blob.
    text: Vec<u8>,
}

/// What a recording is read from.
pub trait Input: BufRead {
    /// The file that has these bytes as they are, if there is one.
    fn plain(&mut self) -> Option<&mut BufReader<File>> {
        None
    }
}

/// A recording that is not packed: its blobs can be mapped.
pub struct TextFile(BufReader<File>);

impl TextFile {
    /// Bytes that are read ahead, about as many as the lines of a command have.
    const AHEAD: usize = 4096;

    /// One from where `file` is.
    pub fn new(file: File) -> Self {
        Self(BufReader::with_capacity(Self::AHEAD, file))
    }
}

impl Read for TextFile {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        self.0.read(to)
    }
}

impl BufRead for TextFile {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.0.fill_buf()
    }

    fn consume(&mut self, count: usize) {
        self.0.consume(count);
    }
}

impl Input for TextFile {
    fn plain(&mut self) -> Option<&mut BufReader<File>> {
        Some(&mut self.0)
    }
}

/// One that is packed, or in memory.
impl<R: Read> Input for BufReader<R> {}
impl Input for &[u8] {}

impl<I: Input + ?Sized> Input for Box<I> {
    fn plain(&mut self) -> Option<&mut BufReader<File>> {
        (**self).plain()
    }
}

impl<R: Input> Recording<R> {
    /// Begins to read one.
    ///
    /// # Errors
    /// [`RecordingError::NotARecording`], or the system's.
    pub fn new(input: R) -> Result<Self, RecordingError> {
        let (at, text) = (0, Vec::new());
        let mut recording = Self { input, at, text };
        match recording.line() {
            Ok(line) if line == HEADER.as_bytes() => Ok(recording),
            Err(RecordingError::Io(error)) => Err(error.into()),
            _ => Err(RecordingError::NotARecording),
        }
    }

    /// What the next event is about; `None` at the end.
    ///
    /// # Errors
    /// Something else is there.
    pub fn event(&mut self) -> Result<Option<EventKind>, RecordingError> {
        if self.input.fill_buf()?.is_empty() {
            return Ok(None);
        }
        let [_, what, kind, _] = self.numbers("event")?;
        let kind = kind as u32;
        Ok(Some(match what {
            0 => EventKind::Command(kind),
            _ => EventKind::Request(kind),
        }))
    }

    /// Whether an event, or the end, comes next.
    ///
    /// # Errors
    /// The system's.
    pub fn at_event(&mut self) -> Result<bool, RecordingError> {
        let next = self.input.fill_buf()?;
        Ok(next.is_empty() || next.starts_with(b"e"))
    }

    /// Whether a line of this name comes next, as far as can be told without reading it.
    ///
    /// # Errors
    /// The system's.
    pub fn at_line(&mut self, name: &str) -> Result<bool, RecordingError> {
        let next = self.input.fill_buf()?;
        let seen = next.len().min(name.len());
        Ok(seen > 0 && next[..seen] == name.as_bytes()[..seen])
    }

    /// A line without its end.
    fn line(&mut self) -> Result<&[u8], RecordingError> {
        self.read_until(b'\n')?;
        self.text
            .strip_suffix(b"\n")
            .ok_or(RecordingError::CutShort)
    }

    /// Reads text up to `end`, or as much as makes sense; whether there is something after it.
    fn read_until(&mut self, end: u8) -> Result<bool, RecordingError> {
        self.text.clear();
        let mut input = (&mut self.input).take(MAX_LINE);
        let read = input.read_until(end, &mut self.text)? as u64;
        self.at += read;
        Ok(self.text.last() == Some(&end) || read == MAX_LINE)
    }

    /// Something else than `expected` was read from `at` on.
    fn unexpected(&self, at: u64, expected: String) -> RecordingError {
        let found = String::from_utf8_lossy(self.text.trim_ascii_end()).into_owned();
        RecordingError::Unexpected {
            at,
            found,
            expected,
        }
    }

    /// A line that is `word` alone.
    ///
    /// # Errors
    /// It is another.
    pub fn word(&mut self, word: &str) -> Result<(), RecordingError> {
        self.numbers::<0>(word).map(drop)
    }

    /// The number in a line of this name.
    ///
    /// # Errors
    /// The line has another name, or not one number.
    pub fn number(&mut self, name: &str) -> Result<i128, RecordingError> {
        self.numbers::<1>(name).map(|[number]| number)
    }

    /// The numbers in a line of this name, which may be empty.
    ///
    /// # Errors
    /// The line has another name, or another count of numbers.
    pub fn numbers<const N: usize>(&mut self, name: &str) -> Result<[i128; N], RecordingError> {
        let at = self.at;
        let numbers = numbers_in(self.line()?, name);
        numbers.ok_or_else(|| self.unexpected(at, format!("\"{name}\" and {N} numbers")))
    }

    /// The bytes of a blob.
    ///
    /// # Errors
    /// No blob is there, or it is larger than anything sensible.
    pub fn blob(&mut self) -> Result<Vec<u8>, RecordingError> {
        let len = self.blob_len()?;
        let mut bytes = Vec::new();
        (&mut self.input).take(len as u64).read_to_end(&mut bytes)?;
        if bytes.len() < len {
            return Err(RecordingError::CutShort);
        }
        self.end_blob(len)?;
        Ok(bytes)
    }

    /// Bytes of the blob that comes next, which [`blob_into`](Self::blob_into) reads.
    ///
    /// # Errors
    /// No blob is there, or it is larger than anything sensible.
    pub fn blob_len(&mut self) -> Result<usize, RecordingError> {
        let at = self.at;
        if !self.read_until(b':')? {
            return Err(RecordingError::CutShort);
        }
        let size = size_in(&self.text).filter(|&size| size <= MAX_BLOB);
        size.ok_or_else(|| {
            let expected = format!("\"binary 0 NAME SIZE:\" with at most {MAX_BLOB} bytes");
            self.unexpected(at, expected)
        })
    }

    /// Copies a blob of as many bytes as `memory` has there.
    ///
    /// # Errors
    /// It ends before.
    pub fn blob_into(&mut self, memory: &VolatileSlice<'_>) -> Result<(), RecordingError> {
        let mut done = 0;
        while done < memory.len() {
            let piece = self.input.fill_buf()?;
            if piece.is_empty() {
                return Err(RecordingError::CutShort);
            }
            let count = piece.len().min(memory.len() - done);
            let here = memory.subslice(done, count).map_err(io::Error::other)?;
            here.copy_from(&piece[..count]);
            self.input.consume(count);
            done += count;
        }
        self.end_blob(memory.len())
    }

    /// The file in which the blob that comes next is as it is, and where; none if the recording is packed.
    pub fn place(&mut self) -> Option<(&File, u64)> {
        let at = self.at;
        Some((self.input.plain()?.get_ref(), at))
    }

    /// Leaves out a blob of `len` bytes that has a [`place`](Self::place).
    ///
    /// # Errors
    /// It ends before.
    pub fn skip_blob(&mut self, len: usize) -> Result<(), RecordingError> {
        if let Some(file) = self.input.plain() {
            file.seek_relative(len as i64)?;
        }
        self.end_blob(len)
    }

    /// Leaves out the line end after a blob, which is nobody's.
    fn end_blob(&mut self, len: usize) -> Result<(), RecordingError> {
        if self.input.fill_buf()?.is_empty() {
            return Err(RecordingError::CutShort);
        }
        self.input.consume(1);
        self.at += len as u64 + 1;
        Ok(())
    }
}

/// The numbers in a line of this name.
fn numbers_in<const N: usize>(line: &[u8], name: &str) -> Option<[i128; N]> {
    let rest = str::from_utf8(line).ok()?.strip_prefix(name)?;
    let mut words = rest.split_ascii_whitespace();
    let mut numbers = [0; N];
    for number in &mut numbers {
        *number = words.next()?.parse().ok()?;
    }
    words.next().is_none().then_some(numbers)
}

/// The size in the beginning of a blob.
fn size_in(head: &[u8]) -> Option<usize> {
    let words = str::from_utf8(head).ok()?.strip_prefix("binary 0 ")?;
    let (_, size) = words.strip_suffix(':')?.split_once(' ')?;
    size.parse().ok()
}
