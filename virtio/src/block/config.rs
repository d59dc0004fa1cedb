//! What a disk is made of.

use std::path::PathBuf;

use super::limit::Limits;

/// What to open as a disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockConfig {
    /// The image that the guest sees.
    pub image: ImageConfig,
    /// The images under it, the next one first. Only these are opened, whatever the image names.
    pub backing: Vec<ImageConfig>,
    /// Whether the guest may only read; others may then read it at the same time.
    pub read_only: bool,
    /// What the guest sees as the disk's serial number; its first 20 bytes.
    pub serial: String,
    /// When what the guest writes is durable, and what keeps it until then.
    pub cache: CacheMode,
    /// How many queues the guest may use, each with a thread; 1 to [`MAX_QUEUES`].
    pub queues: u16,
    /// Whether the guest may give blocks back.
    pub discard: bool,
    /// How much the guest may do in a second.
    pub limits: Limits,
    /// What happens when the host can't do what the guest asks.
    pub on_error: ErrorPolicy,
    /// Whether to use plain system calls even where io_uring is to be had.
    pub synchronous: bool,
}

/// The most queues of a disk.
pub const MAX_QUEUES: u16 = 16;

impl BlockConfig {
    /// A disk of this image, with everything else as it is by default.
    #[must_use]
    pub fn new(image: ImageConfig) -> Self {
        Self {
            image,
            backing: Vec::new(),
            read_only: false,
            serial: String::new(),
            cache: CacheMode::default(),
            queues: 1,
            discard: true,
            limits: Limits::default(),
            on_error: ErrorPolicy::default(),
            synchronous: false,
        }
    }
}

/// A file and how a disk is stored in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageConfig {
    /// A regular file or a block device.
    pub path: PathBuf,
    /// How the disk is stored in it.
    pub format: ImageFormat,
}

/// How a disk is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ImageFormat {
    /// The disk's bytes and nothing else.
    #[default]
    Raw,
    /// QEMU's copy-on-write format, version 2 or 3.
    Qcow2,
    /// VMware's format: a descriptor and flat files beside it, only to be read.
    Vmdk,
}

impl ImageFormat {
    /// Its name.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Qcow2 => "qcow2",
            Self::Vmdk => "vmdk",
        }
    }
}

/// When what the guest writes is durable, and what keeps it until then. The words are QEMU's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CacheMode {
    /// The host's page cache; durable when the guest flushes.
    #[default]
    Writeback,
    /// Past the page cache (`O_DIRECT`); durable when the guest flushes.
    None,
    /// The page cache is only for reading; durable when the write is done.
    Writethrough,
    /// Past the page cache; durable when the write is done.
    Directsync,
    /// The host's page cache; the guest's flushes do nothing. For what can be made again.
    Unsafe,
}

impl CacheMode {
    pub(crate) const fn is_direct(self) -> bool {
        matches!(self, Self::None | Self::Directsync)
    }

    /// Whether every write is durable before it is answered.
    pub(crate) const fn is_write_through(self) -> bool {
        matches!(self, Self::Writethrough | Self::Directsync)
    }
}

/// What happens when the host can't do what the guest asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ErrorPolicy {
    /// When the host has no room left.
    pub no_space: OnError,
    /// When the host fails otherwise.
    pub io: OnError,
}

impl Default for ErrorPolicy {
    fn default() -> Self {
        Self {
            no_space: OnError::Pause,
            io: OnError::Report,
        }
    }
}

/// What happens to a request that the host can't do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnError {
    /// The guest is told.
    Report,
    /// It is kept, and tried again when the machine, which stops meanwhile, goes on.
    Pause,
}
