//! A file or block device whose bytes are the disk's.

use std::fs::File;
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use super::image::Work;
use super::open::BlockError;
use super::plain;

/// Bytes of a sector, the unit of every offset and length on the wire (5.2).
pub(crate) const SECTOR: u64 = 512;

/// What addresses, offsets and lengths must be multiples of to go past the page cache; enough for
/// every disk that is sold.
pub(crate) const DIRECT_ALIGNMENT: u64 = 4096;

/// An opened and locked raw image.
pub(crate) struct RawImage {
    pub(crate) file: File,
    /// The same file through the page cache, for buffers that `O_DIRECT` does not take.
    buffered: Option<File>,
    size: AtomicU64,
    is_device: bool,
}

impl RawImage {
    /// The image in `file`, which `path` names.
    pub(crate) fn new(
        path: &Path,
        mut file: File,
        buffered: Option<File>,
        read_only: bool,
    ) -> Result<Self, BlockError> {
        let cant_open = |source| BlockError::Open {
            path: path.to_owned(),
            source,
        };
        let size = file.seek(SeekFrom::End(0)).map_err(cant_open)?;
        if size < SECTOR {
            return Err(BlockError::TooSmall {
                path: path.to_owned(),
                size,
            });
        }
        if size % SECTOR != 0 {
            tracing::warn!(
                path = %path.display(), size, read_only,
                "the disk image is not a whole number of 512-byte sectors; the guest does not see the rest"
            );
        }
        let is_device = file
            .metadata()
            .map_err(cant_open)?
            .file_type()
            .is_block_device();
        Ok(Self {
            file,
            buffered,
            size: AtomicU64::new(size),
            is_device,
        })
    }

    /// The disk's size in bytes.
    pub(crate) fn size(&self) -> u64 {
        self.size.load(Ordering::Acquire)
    }

    /// Makes the disk `size` bytes long. A block device must have become so already.
    ///
    /// # Errors
    /// The host's, or that the device is smaller.
    pub(crate) fn grow(&self, size: u64) -> io::Result<()> {
        if self.is_device {
            if (&mut &self.file).seek(SeekFrom::End(0))? < size {
                return Err(io::Error::other("the block device itself is smaller"));
            }
        } else {
            self.file.set_len(size)?;
            self.file.sync_data()?;
        }
        self.size.store(size, Ordering::Release);
        Ok(())
    }

    /// The file through which these buffers can be read or written at `offset`.
    pub(crate) fn file_for(&self, offset: u64, buffers: &[libc::iovec]) -> &File {
        let Some(buffered) = &self.buffered else {
            return &self.file;
        };
        let aligned = |value: usize| value.is_multiple_of(DIRECT_ALIGNMENT as usize);
        let fits =
            |buffer: &libc::iovec| aligned(buffer.iov_base as usize) && aligned(buffer.iov_len);
        if aligned(offset as usize) && buffers.iter().all(fits) {
            &self.file
        } else {
            buffered
        }
    }

    /// The file if it is read and written through the page cache only.
    pub(crate) fn cached(&self) -> Option<&File> {
        self.buffered.is_none().then_some(&self.file)
    }

    /// As [`file_for`](Self::file_for), for `len` bytes of an aligned buffer.
    fn file_for_range(&self, offset: u64, len: u64) -> &File {
        match &self.buffered {
            Some(buffered) if !(offset | len).is_multiple_of(DIRECT_ALIGNMENT) => buffered,
            _ => &self.file,
        }
    }

    /// Does `work`, and returns when it is done.
    ///
    /// # Errors
    /// The host's.
    ///
    /// # Safety
    /// As of [`plain::transfer`], for `buffers`.
    pub(crate) unsafe fn perform(&self, work: Work, buffers: &[libc::iovec]) -> io::Result<()> {
        match work {
            Work::Transfer { direction, offset } => {
                let file = self.file_for(offset, buffers);
                // SAFETY: by the caller's word.
                unsafe { plain::transfer(file, direction, offset, buffers) }
            }
            Work::Flush => self.file.sync_data(),
            Work::Discard { .. } | Work::Zero { .. } => {
                let Some((mode, offset, len)) = allocation(work) else {
                    return Ok(());
                };
                let done = plain::allocate(&self.file, mode, offset, len);
                self.finish_allocation(work, done)
            }
        }
    }

    /// Writes the zeroes one by one where the file system can't make them, and makes them durable
    /// if they must be.
    pub(crate) fn finish_allocation(&self, work: Work, done: io::Result<()>) -> io::Result<()> {
        let Work::Zero {
            offset,
            len,
            durable,
            ..
        } = work
        else {
            return done;
        };
        match done {
            Err(error) if plain::is_unsupported(&error) => {
                plain::write_zeroes(self.file_for_range(offset, len), offset, len)?;
            }
            done => done?,
        }
        if durable {
            self.file.sync_data()
        } else {
            Ok(())
        }
    }
}

/// The mode of `fallocate` and its range, for work that is one.
pub(crate) fn allocation(work: Work) -> Option<(i32, u64, u64)> {
    const ZERO: i32 = libc::FALLOC_FL_ZERO_RANGE | libc::FALLOC_FL_KEEP_SIZE;
    match work {
        Work::Discard { offset, len } => Some((plain::PUNCH, offset, len)),
        Work::Zero {
            offset, len, unmap, ..
        } => Some((if unmap { plain::PUNCH } else { ZERO }, offset, len)),
        _ => None,
    }
}
