//! Guest memory, mapped after the layout; it costs nothing until the guest touches it.

use std::fs::File;
use std::io;
use std::os::fd::FromRawFd;
use std::sync::Arc;

use vm_memory::mmap::{MmapRegionBuilder, MmapRegionError};
use vm_memory::{FileOffset, GuestAddress, GuestMemoryMmap, GuestRegionMmap};

use crate::layout::{AddressRange, Layout};

/// Guest memory as every device sees it.
pub type GuestMemory = GuestMemoryMmap<()>;

/// What is behind the guest's memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Backing {
    /// Private to this process.
    #[default]
    Anonymous,
    /// A memfd, which other processes can map too.
    Shared,
}

/// Guest memory that could not be had.
#[derive(Debug, thiserror::Error)]
pub enum MemoryError {
    /// More than the whole host has.
    #[error("the guest's {asked} bytes of memory are more than the host's {host}")]
    MoreThanHost {
        /// Bytes that the guest was to have.
        asked: u64,
        /// Bytes that the host has, swap not counted.
        host: u64,
    },
    /// The memfd could not be made.
    #[error("can't make a memory file of {size} bytes")]
    File {
        /// Bytes it was to have.
        size: u64,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A range could not be mapped.
    #[error("can't map {size} bytes of guest memory for {start:#x}: {source}")]
    Map {
        /// The guest's address.
        start: u64,
        /// Bytes of the range.
        size: u64,
        /// Why.
        source: MmapRegionError,
    },
    /// The ranges don't make a guest memory; a layout never does this.
    #[error("guest memory at {start:#x} overlaps other memory or the end of the address space")]
    Range {
        /// The guest's address.
        start: u64,
    },
}

/// Maps the RAM of `layout`.
///
/// # Errors
/// [`MemoryError`], first of all if the guest asks for more than the host has.
pub fn create(layout: &Layout, backing: Backing) -> Result<GuestMemory, MemoryError> {
    let (asked, host) = (layout.memory(), host_memory());
    if asked > host {
        return Err(MemoryError::MoreThanHost { asked, host });
    }
    let file = match backing {
        Backing::Anonymous => None,
        Backing::Shared => Some(Arc::new(memory_file(asked)?)),
    };

    let mut offset = 0;
    let mut regions = Vec::new();
    for range in layout.ram() {
        let part = file.clone().map(|file| FileOffset::from_arc(file, offset));
        regions.push(map(range, part)?);
        offset += range.size();
    }
    GuestMemory::from_regions(regions).map_err(|_| MemoryError::Range { start: 0 })
}

fn map(range: AddressRange, file: Option<FileOffset>) -> Result<GuestRegionMmap<()>, MemoryError> {
    let (start, size) = (range.start(), range.size());
    let failed = |source| MemoryError::Map {
        start,
        size,
        source,
    };
    let length = usize::try_from(size).map_err(|_| MemoryError::Range { start })?;
    let sharing = match file {
        None => libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
        Some(_) => libc::MAP_SHARED,
    };
    let mut builder = MmapRegionBuilder::new(length)
        .with_mmap_prot(libc::PROT_READ | libc::PROT_WRITE)
        .with_mmap_flags(sharing | libc::MAP_NORESERVE);
    if let Some(file) = file {
        builder = builder.with_file_offset(file);
    }
    let region = builder.build().map_err(failed)?;
    GuestRegionMmap::new(region, GuestAddress(start)).ok_or(MemoryError::Range { start })
}

/// The host's memory in bytes, swap not counted.
pub fn host_memory() -> u64 {
    // SAFETY: sysconf takes no pointers.
    let (pages, size) = unsafe {
        (
            libc::sysconf(libc::_SC_PHYS_PAGES),
            libc::sysconf(libc::_SC_PAGESIZE),
        )
    };
    u64::try_from(pages)
        .unwrap_or(0)
        .saturating_mul(u64::try_from(size).unwrap_or(0))
}

fn memory_file(size: u64) -> Result<File, MemoryError> {
    let failed = |source| MemoryError::File { size, source };
    // SAFETY: the name is a constant that ends in NUL.
    let fd = unsafe { libc::memfd_create(c"guest-memory".as_ptr(), libc::MFD_CLOEXEC) };
    if fd < 0 {
        return Err(failed(io::Error::last_os_error()));
    }
    // SAFETY: `fd` was just opened and nobody else owns it.
    let file = unsafe { File::from_raw_fd(fd) };
    file.set_len(size).map_err(failed)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use vm_memory::{Bytes, GuestMemoryBackend, GuestMemoryRegion};

    use super::*;
    use crate::layout::{FOUR_GIB, GIB, MIB};

    fn resident_bytes() -> u64 {
        let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
        statm.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096
    }

    #[test]
    fn both_sides_of_the_hole_are_mapped() {
        let layout = Layout::new(6 * GIB, 48).unwrap();
        let memory = create(&layout, Backing::Anonymous).unwrap();
        let top = GuestAddress(FOUR_GIB + layout.high_size() - 8);
        memory.write_obj(0x1122_3344_5566_7788_u64, top).unwrap();
        assert_eq!(memory.read_obj::<u64>(top).unwrap(), 0x1122_3344_5566_7788);
        assert!(
            memory
                .read_obj::<u8>(GuestAddress(layout.low_end()))
                .is_err()
        );
    }

    #[test]
    fn untouched_memory_costs_nothing() {
        let before = resident_bytes();
        let layout = Layout::new(4 * GIB, 48).unwrap();
        let _memory = create(&layout, Backing::Anonymous).unwrap();
        assert!(resident_bytes() < before + 64 * MIB);
    }

    #[test]
    fn shared_memory_is_one_file_without_gaps() {
        let layout = Layout::new(3 * GIB, 48).unwrap();
        let memory = create(&layout, Backing::Shared).unwrap();
        let offsets: Vec<_> = memory
            .iter()
            .map(|region| region.file_offset().unwrap().start())
            .collect();
        assert_eq!(offsets, [0, 2 * GIB]);
    }

    #[test]
    fn more_than_the_host_has_is_refused_with_both_numbers() {
        let asked = host_memory().next_multiple_of(GIB) + GIB;
        let layout = Layout::new(asked, 52).unwrap();
        let error = create(&layout, Backing::Anonymous).unwrap_err();
        let host = host_memory();
        assert!(error.to_string().contains(&asked.to_string()));
        assert!(error.to_string().contains(&host.to_string()));
    }
}
