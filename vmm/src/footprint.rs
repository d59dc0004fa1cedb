//! Keeps what a machine costs the host small.

use std::ffi::{c_int, c_void};

/// Takes the pages of code and constants that were touched so far out of the process's resident
/// memory. What is needed again comes back from the page cache, a fault each; reading the command
/// line and the config touches megabytes that a running machine never looks at again.
pub fn forget_touched_code() {
    // SAFETY: `forget` has the signature that dl_iterate_phdr calls, and takes no data.
    unsafe { libc::dl_iterate_phdr(Some(forget), std::ptr::null_mut()) };
}

/// Bytes from which on memory comes from the kernel and goes back to it when it is freed.
const LARGE: c_int = 128 << 10;

/// Keeps all threads on one heap, and large buffers out of it. The C library would give each thread a
/// heap of its own; ours allocate too little to get in each other's way. And it would begin to keep
/// what is freed for next time: the pixels of fifty viewers, long after they have left.
pub fn share_one_heap() {
    // SAFETY: mallopt takes two numbers, and these before there is another thread.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
        libc::mallopt(libc::M_MMAP_THRESHOLD, LARGE);
    }
}

/// Lets go of the segments of one object that nothing ever writes to.
unsafe extern "C" fn forget(info: *mut libc::dl_phdr_info, _: usize, _: *mut c_void) -> c_int {
    // SAFETY: dl_iterate_phdr passes a valid object, whose headers are that many.
    let (base, headers) = unsafe {
        let info = &*info;
        let count = usize::from(info.dlpi_phnum);
        if info.dlpi_phdr.is_null() {
            return 0;
        }
        (
            info.dlpi_addr,
            std::slice::from_raw_parts(info.dlpi_phdr, count),
        )
    };
    for header in headers {
        if header.p_type == libc::PT_LOAD && header.p_flags & libc::PF_W == 0 {
            let page = page_size();
            let start = base.wrapping_add(header.p_vaddr);
            let first = start & !(page - 1);
            let length = start.wrapping_add(header.p_memsz) - first;
            // SAFETY: the range is a mapping of a file that is read-only and, being without
            // PF_W, holds no relocations: its pages read the same when they come back.
            unsafe { libc::madvise(first as *mut c_void, length as usize, libc::MADV_DONTNEED) };
        }
    }
    0
}

fn page_size() -> u64 {
    // SAFETY: sysconf only reads a number.
    let size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    u64::try_from(size).unwrap_or(4096)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resident_file_kib() -> u64 {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status
            .lines()
            .find_map(|l| l.strip_prefix("RssFile:"))
            .unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }

    #[test]
    fn code_that_is_not_run_any_more_is_not_resident() {
        let before = resident_file_kib();

        forget_touched_code();

        assert!(resident_file_kib() < before);
    }
}
