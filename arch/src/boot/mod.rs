//! Kernels without firmware: bzImage by the Linux 64-bit boot protocol, ELF by PVH.
//!
//! What a loader leaves below 1 MiB, beside the tables of [`crate::regs`]:
//!
//! ```text
//! 0x0_6000  PVH start info, module list, memory map
//! 0x0_7000  Linux boot parameters (the zero page)
//! 0x2_0000  command line
//! ```
//!
//! The kernel comes from a file that nobody vouches for: every offset and size in it is checked.

pub mod bzimage;
pub mod pvh;

use std::io::{self, Read, Seek, SeekFrom};

use vm_memory::{Bytes, GuestAddress, ReadVolatile};

use crate::layout::Layout;
use crate::memory::GuestMemory;
use crate::regs::Entry;

/// Where the PVH start info is.
pub const START_INFO: u64 = 0x6000;
/// Where the Linux boot parameters are.
pub const BOOT_PARAMS: u64 = 0x7000;
/// Where the command line is, with its NUL.
pub const CMDLINE: u64 = 0x2_0000;
/// The longest command line in bytes that any kernel gets, NUL not counted.
pub const CMDLINE_MAX: u64 = 0xffff;

const PAGE: u64 = 0x1000;

/// A file to boot from.
pub trait Image: Read + Seek + ReadVolatile {}
impl<T: Read + Seek + ReadVolatile> Image for T {}

/// What a kernel file is, by its magic numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KernelKind {
    /// A Linux bzImage: "HdrS" at 0x202.
    BzImage,
    /// An ELF file, to be entered by PVH.
    Elf,
}

/// Which of the two files an error is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// The kernel.
    Kernel,
    /// The initial RAM disk.
    Initrd,
}

impl std::fmt::Display for Part {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Kernel => "kernel",
            Self::Initrd => "initrd",
        })
    }
}

/// A guest that can't be booted so. The caller names the files.
#[derive(Debug, thiserror::Error)]
pub enum BootError {
    /// The file could not be read.
    #[error("can't read {size} bytes at offset {offset:#x} of the {part}")]
    Read {
        /// Which file.
        part: Part,
        /// Offset in the file.
        offset: u64,
        /// Bytes wanted.
        size: u64,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Neither magic number.
    #[error(
        "not a kernel: neither a bzImage (\"HdrS\" at 0x202) nor an ELF file; it starts with \
         {start:02x?}"
    )]
    NotAKernel {
        /// The first bytes of the file, 4 at most.
        start: Vec<u8>,
    },
    /// The file ends before what its headers promise.
    #[error(
        "truncated kernel: its {what} takes {need} bytes from offset {offset:#x}, and the file \
         has only {size} bytes"
    )]
    Truncated {
        /// What is cut off.
        what: &'static str,
        /// Where it starts in the file.
        offset: u64,
        /// Its size in bytes.
        need: u64,
        /// The file's size in bytes.
        size: u64,
    },
    /// A field of a header that can't be.
    #[error("the kernel's {field} is {value:#x}, which must be {allowed}")]
    Field {
        /// Which field.
        field: &'static str,
        /// Its value.
        value: u64,
        /// What it may be.
        allowed: &'static str,
    },
    /// An ELF file without an entry point for us.
    #[error(
        "the ELF file has no PVH entry (note XEN_ELFNOTE_PHYS32_ENTRY); for Linux, build with \
         CONFIG_PVH=y or take the bzImage"
    )]
    NoPvhEntry,
    /// The kernel does not fit below the hole.
    #[error("the kernel takes guest memory {start:#x}..{end:#x}, and {low}..{high:#x} is there")]
    KernelPlace {
        /// The first address it takes.
        start: u64,
        /// The first address after it.
        end: u64,
        /// The lowest address it may take.
        low: &'static str,
        /// The end of low RAM.
        high: u64,
    },
    /// The initial RAM disk does not fit between the kernel and the end of low RAM.
    #[error("the initrd has {size} bytes, and there is room for {room} above the kernel")]
    InitrdTooBig {
        /// Its size in bytes.
        size: u64,
        /// Bytes that would fit.
        room: u64,
    },
    /// The command line is longer than this kernel takes.
    #[error("the command line has {size} bytes; this kernel takes {most}")]
    CmdlineTooLong {
        /// Its length in bytes.
        size: u64,
        /// The longest possible.
        most: u64,
    },
    /// A NUL would end the command line early.
    #[error("the command line has a NUL at byte {offset}")]
    CmdlineNul {
        /// Where.
        offset: usize,
    },
    /// Guest memory is not there, which a layout does not let happen.
    #[error("guest memory at {address:#x} can't be written: {source}")]
    Memory {
        /// The guest's address.
        address: u64,
        /// Why.
        source: vm_memory::GuestMemoryError,
    },
}

/// What a direct boot consists of.
pub struct DirectBoot<'a, F> {
    /// A bzImage or an ELF file with a PVH note.
    pub kernel: &'a mut F,
    /// The initial RAM disk.
    pub initrd: Option<&'a mut F>,
    /// The kernel's command line.
    pub cmdline: &'a str,
    /// Guest address of the ACPI root pointer, if tables are placed.
    pub rsdp: Option<u64>,
}

impl<F: Image> DirectBoot<'_, F> {
    /// Writes kernel, initrd, command line and boot parameters to `memory`, and says how the
    /// first processor must be set to start them. May be called again for a reset.
    ///
    /// # Errors
    /// [`BootError`]; guest memory may then hold parts of the kernel.
    pub fn load(&mut self, memory: &GuestMemory, layout: &Layout) -> Result<Entry, BootError> {
        match identify(self.kernel)? {
            KernelKind::BzImage => bzimage::load(self, memory, layout),
            KernelKind::Elf => pvh::load(self, memory, layout),
        }
    }
}

/// What kind of kernel `image` is, by its magic numbers.
///
/// # Errors
/// [`BootError::NotAKernel`] if it is none, [`BootError::Read`] if it can't be read.
pub fn identify<F: Image>(image: &mut F) -> Result<KernelKind, BootError> {
    let size = size_of_image(image, Part::Kernel)?;
    let start = read_vec(image, 0, size.min(4))?;
    if start == *b"\x7fELF" {
        return Ok(KernelKind::Elf);
    }
    if size >= 0x206 && read_vec(image, 0x202, 4)? == *b"HdrS" {
        return Ok(KernelKind::BzImage);
    }
    // A bzImage starts with a boot sector; one cut off before its magic is still one.
    if (0x200..0x206).contains(&size) && read_vec(image, 0x1fe, 2)? == [0x55, 0xaa] {
        return Err(BootError::Truncated {
            what: "setup header",
            offset: bzimage::HEADER_OFFSET,
            need: 0x206 - bzimage::HEADER_OFFSET,
            size,
        });
    }
    Err(BootError::NotAKernel { start })
}

fn size_of_image<F: Image>(image: &mut F, part: Part) -> Result<u64, BootError> {
    image
        .seek(SeekFrom::End(0))
        .map_err(|source| BootError::Read {
            part,
            offset: 0,
            size: 0,
            source,
        })
}

fn read_into<F: Image>(image: &mut F, offset: u64, bytes: &mut [u8]) -> Result<(), BootError> {
    let size = bytes.len() as u64;
    image
        .seek(SeekFrom::Start(offset))
        .and_then(|_| Read::read_exact(image, bytes))
        .map_err(|source| BootError::Read {
            part: Part::Kernel,
            offset,
            size,
            source,
        })
}

/// `size` bytes at `offset` of the kernel, where the caller has bounded `size`.
fn read_vec<F: Image>(image: &mut F, offset: u64, size: u64) -> Result<Vec<u8>, BootError> {
    let mut bytes = vec![0; usize::try_from(size).unwrap_or(0)];
    read_into(image, offset, &mut bytes)?;
    Ok(bytes)
}

/// Copies `size` bytes at `offset` of a file straight into guest memory.
fn copy<F: Image>(
    image: &mut F,
    part: Part,
    (offset, size): (u64, u64),
    memory: &GuestMemory,
    address: u64,
) -> Result<(), BootError> {
    let failed = |source| BootError::Read {
        part,
        offset,
        size,
        source,
    };
    image.seek(SeekFrom::Start(offset)).map_err(failed)?;
    let length = usize::try_from(size).map_err(|_| failed(io::ErrorKind::FileTooLarge.into()))?;
    memory
        .read_exact_volatile_from(GuestAddress(address), image, length)
        .map_err(|source| BootError::Memory { address, source })
}

fn write(memory: &GuestMemory, address: u64, bytes: &[u8]) -> Result<(), BootError> {
    memory
        .write_slice(bytes, GuestAddress(address))
        .map_err(|source| BootError::Memory { address, source })
}

/// Zeroes guest memory, which need not be fresh.
fn zero(memory: &GuestMemory, mut address: u64, size: u64) -> Result<(), BootError> {
    static ZEROS: [u8; 1 << 16] = [0; 1 << 16];
    let end = address.saturating_add(size);
    while address < end {
        let length = (end - address).min(ZEROS.len() as u64);
        let zeros = usize::try_from(length).ok().and_then(|n| ZEROS.get(..n));
        write(memory, address, zeros.unwrap_or(&ZEROS))?;
        address += length;
    }
    Ok(())
}

/// Writes the command line with its NUL to [`CMDLINE`].
fn place_cmdline(memory: &GuestMemory, cmdline: &str, most: u64) -> Result<(), BootError> {
    let size = cmdline.len() as u64;
    let most = most.min(CMDLINE_MAX);
    if size > most {
        return Err(BootError::CmdlineTooLong { size, most });
    }
    if let Some(offset) = cmdline.bytes().position(|byte| byte == 0) {
        return Err(BootError::CmdlineNul { offset });
    }
    write(memory, CMDLINE, cmdline.as_bytes())?;
    write(memory, CMDLINE + size, &[0])
}

/// Writes the initrd as high as it may be: below `limit`, above `kernel_end`. Gives its address
/// and size.
fn place_initrd<F: Image>(
    initrd: &mut F,
    memory: &GuestMemory,
    kernel_end: u64,
    limit: u64,
) -> Result<(u64, u64), BootError> {
    let size = size_of_image(initrd, Part::Initrd)?;
    let lowest = kernel_end.div_ceil(PAGE).saturating_mul(PAGE);
    let room = limit.saturating_sub(lowest);
    let address = limit
        .checked_sub(size)
        .map(|address| address & !(PAGE - 1))
        .filter(|&address| address >= lowest)
        .ok_or(BootError::InitrdTooBig { size, room })?;
    copy(initrd, Part::Initrd, (0, size), memory, address)?;
    Ok((address, size))
}

/// That `need` bytes from `offset` are in a file of `size` bytes.
fn check_extent(what: &'static str, offset: u64, need: u64, size: u64) -> Result<(), BootError> {
    match offset.checked_add(need) {
        Some(end) if end <= size => Ok(()),
        _ => Err(BootError::Truncated {
            what,
            offset,
            need,
            size,
        }),
    }
}

#[cfg(test)]
mod tests;
