//! Guest memory, mapped after the layout; it costs nothing until the guest touches it.

use std::fmt;
use std::fs::File;
use std::io;
use std::os::fd::FromRawFd;
use std::path::PathBuf;
use std::sync::Arc;

use vm_memory::mmap::{MmapRegionBuilder, MmapRegionError};
use vm_memory::{FileOffset, GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestRegionMmap};

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
    /// Private, of huge pages that were reserved on the host. All of them are taken at once, so that
    /// the guest never meets one that is not there.
    Reserved(PageSize),
}

/// The size of huge pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PageSize {
    /// 2 MiB.
    TwoMib,
    /// 1 GiB.
    OneGib,
}

impl PageSize {
    /// Every size.
    pub const ALL: [Self; 2] = [Self::TwoMib, Self::OneGib];

    /// In bytes.
    pub const fn bytes(self) -> u64 {
        match self {
            Self::TwoMib => 2 << 20,
            Self::OneGib => 1 << 30,
        }
    }

    /// For mmap: its binary logarithm, where the kernel wants it.
    const fn flags(self) -> libc::c_int {
        let shift = self.bytes().trailing_zeros() as libc::c_int;
        libc::MAP_HUGETLB | shift << libc::MAP_HUGE_SHIFT
    }

    /// The kernel's folder for these pages, which is there if it has any use for the size.
    pub fn folder(self) -> PathBuf {
        format!(
            "/sys/kernel/mm/hugepages/hugepages-{}kB",
            self.bytes() >> 10
        )
        .into()
    }

    /// How many are reserved on the host, and how many of these nobody has or is to have.
    pub fn reserved(self) -> (u64, u64) {
        let count = |name| {
            let text = std::fs::read_to_string(self.folder().join(name)).ok();
            text.and_then(|text| text.trim().parse::<u64>().ok())
                .unwrap_or(0)
        };
        let free = count("free_hugepages").saturating_sub(count("resv_hugepages"));
        (count("nr_hugepages"), free)
    }
}

impl fmt::Display for PageSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TwoMib => "2M",
            Self::OneGib => "1G",
        })
    }
}

/// What the host may do with guest memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Advice {
    /// Keep pages that are equal once (KSM).
    Merge,
    /// Make it of huge pages where it finds some.
    HugePages,
}

impl fmt::Display for Advice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Merge => "merge equal pages (KSM)",
            Self::HugePages => "use transparent huge pages",
        })
    }
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
    /// There are not as many huge pages.
    #[error(
        "the guest needs {wanted} huge pages of {size}, and of the host's {reserved} are {free} free"
    )]
    HugePages {
        /// Bytes of a page.
        size: PageSize,
        /// How many the guest needs.
        wanted: u64,
        /// How many are reserved on the host.
        reserved: u64,
        /// How many of these are nobody's.
        free: u64,
    },
    /// The kernel or the processor knows no pages of this size.
    #[error("this host has no huge pages of {0}")]
    NoHugePages(PageSize),
    /// The kernel can't do what is asked of it.
    #[error("this host's kernel can't {advice}")]
    Advice {
        /// What it was to do.
        advice: Advice,
        /// Why not.
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
    let (file, pages) = match backing {
        Backing::Anonymous => (None, None),
        Backing::Shared => (Some(Arc::new(memory_file(asked)?)), None),
        Backing::Reserved(size) => (None, Some(size)),
    };

    let mut offset = 0;
    let mut regions = Vec::new();
    for range in layout.ram() {
        let part = file.clone().map(|file| FileOffset::from_arc(file, offset));
        let region = map(range, part, pages);
        regions.push(region.map_err(|error| match pages {
            Some(size) => lacking(size, asked, error),
            None => error,
        })?);
        offset += range.size();
    }
    GuestMemory::from_regions(regions).map_err(|_| MemoryError::Range { start: 0 })
}

/// Has the host do this with all of `memory`, or some of it, when it can.
///
/// # Errors
/// [`MemoryError::Advice`]: its kernel was built without.
pub fn advise(memory: &GuestMemory, advice: Advice) -> Result<(), MemoryError> {
    let number = match advice {
        Advice::Merge => libc::MADV_MERGEABLE,
        Advice::HugePages => libc::MADV_HUGEPAGE,
    };
    for region in memory.iter() {
        let length = region.size();
        // SAFETY: the range is a mapping of our own, and neither advice changes what is in it.
        if unsafe { libc::madvise(region.as_ptr().cast(), length, number) } != 0 {
            let source = io::Error::last_os_error();
            return Err(MemoryError::Advice { advice, source });
        }
    }
    Ok(())
}

/// What is missing for `asked` bytes of huge pages that could not be mapped.
fn lacking(size: PageSize, asked: u64, error: MemoryError) -> MemoryError {
    let (reserved, free) = size.reserved();
    let wanted = asked / size.bytes();
    match size.folder().is_dir() {
        false => MemoryError::NoHugePages(size),
        true if free < wanted => MemoryError::HugePages {
            size,
            wanted,
            reserved,
            free,
        },
        true => error,
    }
}

fn map(
    range: AddressRange,
    file: Option<FileOffset>,
    pages: Option<PageSize>,
) -> Result<GuestRegionMmap<()>, MemoryError> {
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
    let kind = match pages {
        None => libc::MAP_NORESERVE,
        Some(size) => size.flags(),
    };
    let mut builder = MmapRegionBuilder::new(length)
        .with_mmap_prot(libc::PROT_READ | libc::PROT_WRITE)
        .with_mmap_flags(sharing | kind);
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
    use vm_memory::{Bytes, GuestMemoryRegion};

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

    /// The flags of the mapping that `memory` starts with, as the kernel shows them.
    fn flags_of(memory: &GuestMemory) -> Vec<String> {
        let region = memory.iter().next().unwrap();
        let start = format!("{:x}-", region.as_ptr() as usize);
        let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let ours = maps.lines().skip_while(|line| !line.starts_with(&start));
        let flags = ours.filter_map(|line| line.strip_prefix("VmFlags:")).next();
        flags
            .unwrap()
            .split_whitespace()
            .map(str::to_owned)
            .collect()
    }

    #[test]
    fn the_host_is_told_what_it_may_do() {
        let layout = Layout::new(64 * MIB, 48).unwrap();
        let memory = create(&layout, Backing::Anonymous).unwrap();
        let before = flags_of(&memory);

        advise(&memory, Advice::Merge).unwrap();
        advise(&memory, Advice::HugePages).unwrap();

        let after = flags_of(&memory);
        for flag in ["mg", "hg"] {
            let has = |flags: &[String]| flags.iter().any(|f| f == flag);
            assert_eq!((has(&before), has(&after)), (false, true), "{flag}");
        }
    }

    #[test]
    fn huge_pages_that_are_not_reserved_are_counted() {
        let (_, free) = PageSize::TwoMib.reserved();
        let size = (free + 8) * PageSize::TwoMib.bytes();
        let layout = Layout::new(size, 48).unwrap();

        let error = create(&layout, Backing::Reserved(PageSize::TwoMib)).unwrap_err();

        let text = error.to_string();
        assert!(
            text.contains(&format!("{} huge pages of 2M", free + 8)),
            "{text}"
        );
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
