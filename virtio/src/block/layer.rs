//! The files of an image as `imago` sees them, and the [`Journal`] that keeps what a qcow2 image
//! says of itself true at every moment.

use std::fmt;
use std::fs::File;
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use imago::io_buffers::{IoVector, IoVectorMut};
use imago::storage::PreallocateMode;
use imago::storage::drivers::CommonStorageHelper;
use imago::{Storage, StorageExt};
use parking_lot::Mutex;

use super::plain;
use super::raw::SECTOR;

/// One of an image's files, or a part of one.
#[derive(Debug)]
pub(crate) struct Layer {
    source: Source,
    /// What addresses, offsets and lengths must be multiples of.
    alignment: usize,
    helper: CommonStorageHelper,
}

#[derive(Debug)]
enum Source {
    /// Goes to the file at once.
    File(Arc<File>),
    /// Waits in the journal.
    Journaled(Arc<Journal>),
    /// Bytes in memory, only to be read.
    Text(Vec<u8>),
}

impl Layer {
    /// The bytes of `file`, which takes what is a multiple of `alignment`.
    pub(crate) fn file(file: Arc<File>, alignment: usize) -> Self {
        Self::new(Source::File(file), alignment)
    }

    /// What an image says of itself.
    pub(crate) fn journaled(journal: Arc<Journal>) -> Self {
        Self::new(Source::Journaled(journal), 1)
    }

    /// Bytes that are in no file.
    pub(crate) fn text(text: Vec<u8>) -> Self {
        Self::new(Source::Text(text), 1)
    }

    fn new(source: Source, alignment: usize) -> Self {
        Self {
            source,
            alignment,
            helper: CommonStorageHelper::default(),
        }
    }
}

impl fmt::Display for Layer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("image")
    }
}

// The trait's `unsafe` asks its callers that no two write the same bytes at once; nothing here relies on it.
impl Storage for Layer {
    fn mem_align(&self) -> usize {
        self.alignment
    }

    fn req_align(&self) -> usize {
        self.alignment
    }

    fn size(&self) -> io::Result<u64> {
        match &self.source {
            Source::File(file) => length(file),
            Source::Journaled(journal) => journal.length(),
            Source::Text(text) => Ok(text.len() as u64),
        }
    }

    fn resolve_relative_path<P: AsRef<std::path::Path>>(&self, name: P) -> io::Result<PathBuf> {
        // Whoever opens it decides what it is relative to.
        Ok(name.as_ref().to_owned())
    }

    unsafe fn pure_readv(&self, bufv: IoVectorMut<'_>, offset: u64) -> io::Result<()> {
        let mut at = offset;
        for mut buffer in bufv.into_inner() {
            match &self.source {
                Source::File(file) => read(file, &mut buffer, at)?,
                Source::Journaled(journal) => journal.read(&mut buffer, at)?,
                Source::Text(text) => {
                    let rest = usize::try_from(at).ok().and_then(|from| text.get(from..));
                    let rest = rest.unwrap_or_default();
                    let now = rest.len().min(buffer.len());
                    buffer[..now].copy_from_slice(&rest[..now]);
                    buffer[now..].fill(0);
                }
            }
            at = at.saturating_add(buffer.len() as u64);
        }
        Ok(())
    }

    unsafe fn pure_writev(&self, bufv: IoVector<'_>, offset: u64) -> io::Result<()> {
        let mut at = offset;
        for buffer in bufv.into_inner() {
            match &self.source {
                Source::File(file) => file.write_all_at(&buffer, at)?,
                Source::Journaled(journal) => journal.write(&buffer, at)?,
                Source::Text(_) => return Err(io::ErrorKind::PermissionDenied.into()),
            }
            at = at.saturating_add(buffer.len() as u64);
        }
        Ok(())
    }

    unsafe fn pure_write_zeroes(&self, offset: u64, length: u64) -> io::Result<()> {
        const ZERO: i32 = libc::FALLOC_FL_ZERO_RANGE;
        if let Source::File(file) = &self.source {
            if plain::allocate(file, ZERO, offset, length).is_ok() {
                return Ok(());
            }
            return plain::write_zeroes(file, offset, length);
        }
        let zeroes = vec![0; length.min(1 << 16) as usize];
        for start in (0..length).step_by(1 << 16) {
            let now = (length - start).min(1 << 16) as usize;
            self.write(&zeroes[..now], offset.saturating_add(start))?;
        }
        Ok(())
    }

    fn flush(&self) -> io::Result<()> {
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    fn settle_writes(&self) -> io::Result<()> {
        // Called right before clusters are freed, and never otherwise.
        if let Source::Journaled(journal) = &self.source {
            journal.freed.store(true, Ordering::Relaxed);
        }
        Ok(())
    }

    unsafe fn invalidate_cache(&self) -> io::Result<()> {
        Ok(())
    }

    fn resize(&self, _size: u64, _mode: PreallocateMode) -> io::Result<()> {
        // Asked of a qcow2 image's data when its disk grows, as if that were in a file of its own,
        // whose size is the disk's. It is not: clusters are given out later.
        Ok(())
    }

    fn get_storage_helper(&self) -> &CommonStorageHelper {
        &self.helper
    }
}

fn length(file: &File) -> io::Result<u64> {
    (&mut &*file).seek(SeekFrom::End(0))
}

/// Fills `buffer` from `offset`, with zeroes past the end of the file.
fn read(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<()> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read_at(&mut buffer[filled..], offset.saturating_add(filled as u64)) {
            Ok(0) => break,
            Ok(now) => filled += now,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    buffer[filled..].fill(0);
    Ok(())
}

/// Holds back what is written of a qcow2 image's own tables, and lets it into the file in one go
/// when the tables agree with each other.
///
/// A cluster that is given out is counted in one table and entered in another. Were each written
/// when `imago`'s cache sees fit, whoever is killed in between would leave clusters that are counted
/// and not used. Guest data goes past this: until the tables are let in, nothing refers to it.
#[derive(Debug)]
pub(crate) struct Journal {
    file: Arc<File>,
    held: Mutex<Held>,
    freed: AtomicBool,
}

#[derive(Debug, Default)]
struct Held {
    runs: Vec<Run>,
    bytes: usize,
}

/// Bytes that have changed.
#[derive(Debug)]
struct Run {
    offset: u64,
    bytes: Vec<u8>,
}

/// What is compared to find what has changed.
const BLOCK: usize = SECTOR as usize;
/// More than this is not held back.
const MOST_HELD: usize = 1 << 20;

impl Journal {
    pub(crate) fn new(file: Arc<File>) -> Arc<Self> {
        Arc::new(Self {
            file,
            held: Mutex::default(),
            freed: AtomicBool::new(false),
        })
    }

    /// Whether clusters were freed since this was last asked. They may not be used for anything
    /// else before the tables are let in.
    pub(crate) fn take_freed(&self) -> bool {
        self.freed.swap(false, Ordering::Relaxed)
    }

    /// Whether so much is held back that it should be let in.
    pub(crate) fn is_full(&self) -> bool {
        self.held.lock().bytes > MOST_HELD
    }

    fn length(&self) -> io::Result<u64> {
        let held = self.held.lock();
        let ends = held
            .runs
            .iter()
            .map(|run| run.offset + run.bytes.len() as u64);
        Ok(ends.max().unwrap_or(0).max(length(&self.file)?))
    }

    fn read(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.held.lock().read(&self.file, buffer, offset)
    }

    fn write(&self, buffer: &[u8], offset: u64) -> io::Result<()> {
        let mut held = self.held.lock();
        let mut old = vec![0; buffer.len()];
        held.read(&self.file, &mut old, offset)?;
        let end = length(&self.file)?;
        let mut last: Option<Run> = None;
        for (index, (new, old)) in buffer.chunks(BLOCK).zip(old.chunks(BLOCK)).enumerate() {
            let at = offset.saturating_add((index * BLOCK) as u64);
            // A table must be in the file, even if it is all zeroes.
            if new == old && at.saturating_add(new.len() as u64) <= end {
                held.push(last.take());
                continue;
            }
            let run = last.get_or_insert_with(|| Run {
                offset: at,
                bytes: Vec::new(),
            });
            run.bytes.extend_from_slice(new);
        }
        held.push(last);
        Ok(())
    }

    /// Lets everything into the file, in the order in which it came: whoever is killed in the middle
    /// leaves what `imago` would have left.
    ///
    /// # Errors
    /// The host's; what did not get in stays held.
    pub(crate) fn let_in(&self) -> io::Result<()> {
        let mut held = self.held.lock();
        let mut done = 0;
        let mut result = Ok(());
        for run in &held.runs {
            result = self.file.write_all_at(&run.bytes, run.offset);
            if result.is_err() {
                break;
            }
            done += 1;
        }
        held.runs.drain(..done);
        held.bytes = held.runs.iter().map(|run| run.bytes.len()).sum();
        result
    }
}

impl Held {
    fn push(&mut self, run: Option<Run>) {
        if let Some(run) = run {
            self.bytes += run.bytes.len();
            self.runs.push(run);
        }
    }

    fn read(&self, file: &File, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        read(file, buffer, offset)?;
        let end = offset.saturating_add(buffer.len() as u64);
        for run in &self.runs {
            let (from, to) = (
                run.offset.max(offset),
                (run.offset + run.bytes.len() as u64).min(end),
            );
            if from < to {
                let source = &run.bytes[(from - run.offset) as usize..(to - run.offset) as usize];
                buffer[(from - offset) as usize..(to - offset) as usize].copy_from_slice(source);
            }
        }
        Ok(())
    }
}
