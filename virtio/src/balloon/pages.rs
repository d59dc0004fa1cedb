//! Guest RAM that goes back to the host.

use caraway_devices::GuestMemory;
use vm_memory::{GuestAddress, GuestMemoryBackend, GuestMemoryRegion, MemoryRegionAddress};

/// Bytes of a page, as the balloon counts them (5.5.6) and as the host's processor does.
pub(super) const PAGE: u64 = 4096;

/// A range of whole pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Range {
    pub(super) start: u64,
    pub(super) len: u64,
}

impl Range {
    /// The whole pages in `len` bytes from `start` on.
    pub(super) fn inside(start: u64, len: u64) -> Option<Self> {
        let first = start.checked_next_multiple_of(PAGE)?;
        let end = start.checked_add(len)? / PAGE * PAGE;
        (end > first).then(|| Self {
            start: first,
            len: end - first,
        })
    }
}

/// The ranges that these pages make, which come in any order: each range is a system call.
pub(super) fn ranges(pages: &mut [u32]) -> Vec<Range> {
    pages.sort_unstable();
    let mut ranges: Vec<Range> = Vec::new();
    for page in pages {
        let start = u64::from(*page) * PAGE;
        match ranges.last_mut() {
            Some(last) if start == last.start + last.len => last.len += PAGE,
            // The same page again.
            Some(last) if start < last.start + last.len => {}
            _ => ranges.push(Range { start, len: PAGE }),
        }
    }
    ranges
}

/// Gives what of `range` is RAM back to the host, which forgets its content: the guest finds zeroes
/// there, on pages that are its own again as soon as it touches them. How many bytes.
pub(super) fn release(memory: &GuestMemory, range: Range) -> u64 {
    let end = range.start.saturating_add(range.len);
    let mut released = 0;
    let mut at = range.start;
    while at < end {
        let Some(region) = memory.find_region(GuestAddress(at)) else {
            // No RAM here: on with the next region, if there is one.
            let later = memory.iter().map(|region| region.start_addr().0);
            match later.filter(|start| *start > at).min() {
                Some(start) => at = start,
                None => break,
            }
            continue;
        };
        let offset = at - region.start_addr().0;
        let len = (region.len() - offset).min(end - at);
        let advice = match region.file_offset() {
            // What others map too has to go from the file.
            Some(_) => libc::MADV_REMOVE,
            None => libc::MADV_DONTNEED,
        };
        if advise(region, offset, len, advice) {
            released += len;
        }
        at += len;
    }
    released
}

/// Keeps the host from making huge pages of guest RAM. Where it may, a daemon of the kernel's (khugepaged) fills
/// the holes that single pages leave, and the guest becomes as large again as it was. That this host has no
/// huge pages is as good.
pub(super) fn keep_holes(memory: &GuestMemory) {
    for region in memory.iter() {
        advise(region, 0, region.len(), libc::MADV_NOHUGEPAGE);
    }
}

fn advise(region: &impl GuestMemoryRegion, offset: u64, len: u64, advice: libc::c_int) -> bool {
    let Ok(length) = usize::try_from(len) else {
        return false;
    };
    let Ok(slice) = region.get_slice(MemoryRegionAddress(offset), length) else {
        return false;
    };
    let guard = slice.ptr_guard_mut();
    // SAFETY: the range is inside of one mapping of guest RAM, whose content is the guest's to lose
    // and which nobody in this process refers to but through volatile accesses.
    let done = unsafe { libc::madvise(guard.as_ptr().cast(), length, advice) };
    if done != 0 {
        let error = std::io::Error::last_os_error();
        tracing::debug!(offset, len, advice, %error, "advice on guest memory is refused");
    }
    done == 0
}

#[cfg(test)]
mod tests {
    use vm_memory::Bytes;

    use super::*;

    #[test]
    fn pages_in_any_order_make_few_ranges() {
        let range = |start: u64, pages: u64| Range {
            start: start * PAGE,
            len: pages * PAGE,
        };

        let found = ranges(&mut [9, 5, 4, 6, 5, 0]);

        assert_eq!(found, [range(0, 1), range(4, 3), range(9, 1)]);
    }

    #[test]
    fn only_whole_pages_count() {
        assert_eq!(Range::inside(1, 2 * PAGE - 2), None);
        assert_eq!(Range::inside(u64::MAX - 5, 10), None);
        let found = Range::inside(1, 2 * PAGE);
        let one = Range {
            start: PAGE,
            len: PAGE,
        };
        assert_eq!(found, Some(one));
    }

    #[test]
    fn only_ram_is_given_back_on_either_side_of_a_hole() {
        let parts = [
            (GuestAddress(0), 4 * PAGE as usize),
            (GuestAddress(8 * PAGE), 4 * PAGE as usize),
        ];
        let memory = GuestMemory::from_ranges(&parts).unwrap();
        for page in [1, 2, 3, 8, 9] {
            memory.write_obj(7_u8, GuestAddress(page * PAGE)).unwrap();
        }

        let range = Range {
            start: 2 * PAGE,
            len: 7 * PAGE,
        };
        let released = release(&memory, range);

        assert_eq!(released, 3 * PAGE);
        let bytes = [1, 2, 3, 8, 9].map(|page| {
            let byte: u8 = memory.read_obj(GuestAddress(page * PAGE)).unwrap();
            byte
        });
        assert_eq!(bytes, [7, 0, 0, 0, 7]);
    }
}
