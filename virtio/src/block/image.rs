//! The file or block device behind a disk.

use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::lock::{self, Holder};

/// Bytes of a sector, the unit of every offset and length on the wire (5.2).
pub(crate) const SECTOR: u64 = 512;

/// What to open as a disk.
#[derive(Debug, Clone, Default)]
pub struct BlockConfig {
    /// The raw image: a regular file or a block device.
    pub path: PathBuf,
    /// Whether the guest may only read; others may then read it at the same time.
    pub read_only: bool,
    /// What the guest sees as the disk's serial number; its first 20 bytes.
    pub serial: String,
    /// Whether to go past the host's page cache (`O_DIRECT`).
    pub direct: bool,
    /// Whether to use plain system calls even where io_uring is to be had.
    pub synchronous: bool,
}

/// Why a disk could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum BlockError {
    /// It can't be opened, or its size can't be had.
    #[error("the disk image {path:?} can't be opened")]
    Open {
        /// The image.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// It is neither a regular file nor a block device.
    #[error("{path:?} is a {found}; a disk image is a regular file or a block device")]
    NotADisk {
        /// The image.
        path: PathBuf,
        /// What it is.
        found: &'static str,
    },
    /// It has no whole sector.
    #[error("the disk image {path:?} has {size} bytes; the smallest disk is one sector of 512")]
    TooSmall {
        /// The image.
        path: PathBuf,
        /// Its size in bytes.
        size: u64,
    },
    /// Someone else uses it.
    #[error(
        "the disk image {path:?} is in use by {}; stop that first, or open it read-only in both",
        .holder.as_ref().map_or_else(|| "another process".to_owned(), ToString::to_string)
    )]
    InUse {
        /// The image.
        path: PathBuf,
        /// Who, if that can be found out.
        holder: Option<Holder>,
    },
    /// It can't be locked.
    #[error("the disk image {path:?} can't be locked")]
    Lock {
        /// The image.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

/// An opened and locked image.
pub(crate) struct Image {
    pub(crate) file: File,
    /// The same file through the page cache, for buffers that `O_DIRECT` does not take.
    buffered: Option<File>,
    pub(crate) sectors: u64,
    pub(crate) read_only: bool,
}

/// What addresses, offsets and lengths must be multiples of to go past the page cache; enough for
/// every disk that is sold.
const DIRECT_ALIGNMENT: u64 = 4096;

impl Image {
    pub(crate) fn open(config: &BlockConfig) -> Result<Self, BlockError> {
        let path = || config.path.clone();
        let cant_open = |source| BlockError::Open {
            path: path(),
            source,
        };
        let metadata = std::fs::metadata(&config.path).map_err(cant_open)?;
        if let Some(found) = wrong_kind(metadata.file_type()) {
            return Err(BlockError::NotADisk {
                path: path(),
                found,
            });
        }
        let flags = if config.direct { libc::O_DIRECT } else { 0 };
        let open = |flags| open(&config.path, config.read_only, flags).map_err(cant_open);
        let mut file = open(flags)?;
        let buffered = config.direct.then(|| open(0)).transpose()?;
        match lock::lock(&file, config.read_only) {
            Ok(true) => {}
            Ok(false) => {
                return Err(BlockError::InUse {
                    path: path(),
                    holder: lock::holder(&file),
                });
            }
            Err(source) => {
                return Err(BlockError::Lock {
                    path: path(),
                    source,
                });
            }
        }
        let size = file.seek(SeekFrom::End(0)).map_err(cant_open)?;
        let sectors = size / SECTOR;
        if sectors == 0 {
            return Err(BlockError::TooSmall { path: path(), size });
        }
        if size % SECTOR != 0 {
            tracing::warn!(
                path = %config.path.display(), size,
                "the disk image is not a whole number of 512-byte sectors; the guest does not see the rest"
            );
        }
        Ok(Self {
            file,
            buffered,
            sectors,
            read_only: config.read_only,
        })
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

    /// As [`file_for`](Self::file_for), for `len` bytes of an aligned buffer.
    pub(crate) fn file_for_range(&self, offset: u64, len: u64) -> &File {
        match &self.buffered {
            Some(buffered) if !(offset | len).is_multiple_of(DIRECT_ALIGNMENT) => buffered,
            _ => &self.file,
        }
    }
}

fn open(path: &Path, read_only: bool, flags: i32) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(!read_only)
        .custom_flags(flags)
        .open(path)
}

fn wrong_kind(kind: std::fs::FileType) -> Option<&'static str> {
    if kind.is_file() || kind.is_block_device() {
        None
    } else if kind.is_dir() {
        Some("directory")
    } else if kind.is_char_device() {
        Some("character device")
    } else if kind.is_fifo() {
        Some("pipe")
    } else {
        Some("socket")
    }
}
