//! Requests by plain system calls: where io_uring is refused, and for the rest of a transfer that
//! the kernel did not do whole.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;

/// Which way the bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    /// From the disk to the guest.
    Read,
    /// From the guest to the disk; durable at once if so.
    Write { durable: bool },
}

impl Direction {
    /// The `RWF_*` flags for it.
    pub(crate) fn flags(self) -> i32 {
        match self {
            Self::Write { durable: true } => libc::RWF_DSYNC,
            _ => 0,
        }
    }
}

/// How many buffers the kernel takes in one call (`IOV_MAX`).
pub(crate) const MAX_BUFFERS: usize = 1024;

/// Moves all of `buffers` at `offset`.
///
/// # Errors
/// Whatever the host says; `UnexpectedEof` where the file ends.
///
/// # Safety
/// Every buffer is mapped, and if `direction` is [`Direction::Read`] writable, until this returns.
pub(crate) unsafe fn transfer(
    file: &File,
    direction: Direction,
    mut offset: u64,
    buffers: &[libc::iovec],
) -> io::Result<()> {
    let mut left;
    let mut rest = buffers;
    while !rest.is_empty() {
        let at = libc::off64_t::try_from(offset).map_err(|_| io::ErrorKind::InvalidInput)?;
        let count = rest.len().min(MAX_BUFFERS) as i32;
        let (fd, first, flags) = (file.as_raw_fd(), rest.as_ptr(), direction.flags());
        // SAFETY: the descriptor is open while `file` is borrowed, `first` points to `count`
        // iovecs, and the caller vouches for what they point to.
        let moved = unsafe {
            match direction {
                Direction::Read => libc::preadv2(fd, first, count, at, flags),
                Direction::Write { .. } => libc::pwritev2(fd, first, count, at, flags),
            }
        };
        match usize::try_from(moved) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(moved) => {
                offset = offset.saturating_add(moved as u64);
                left = after(rest, moved);
                rest = &left;
            }
            Err(_) => {
                let error = io::Error::last_os_error();
                if error.kind() != io::ErrorKind::Interrupted {
                    return Err(error);
                }
            }
        }
    }
    Ok(())
}

/// Fills `buffers` from `offset` as far as the page cache has the bytes; how many it had.
///
/// # Errors
/// `WouldBlock` if it has none; whatever else the host says.
///
/// # Safety
/// Every buffer is mapped and writable until this returns.
pub(crate) unsafe fn read_cached(
    file: &File,
    offset: u64,
    buffers: &[libc::iovec],
) -> io::Result<usize> {
    let at = libc::off64_t::try_from(offset).map_err(|_| io::ErrorKind::InvalidInput)?;
    let count = buffers.len().min(MAX_BUFFERS) as i32;
    // SAFETY: the descriptor is open while `file` is borrowed, there are `count` iovecs, and the
    // caller vouches for what they point to.
    let moved = unsafe {
        libc::preadv2(
            file.as_raw_fd(),
            buffers.as_ptr(),
            count,
            at,
            libc::RWF_NOWAIT,
        )
    };
    usize::try_from(moved).map_err(|_| io::Error::last_os_error())
}

/// What of `buffers` is left after their first `moved` bytes.
pub(crate) fn after(buffers: &[libc::iovec], mut moved: usize) -> Vec<libc::iovec> {
    let is_done = |buffer: &&libc::iovec| {
        let done = moved >= buffer.iov_len;
        moved -= if done { buffer.iov_len } else { 0 };
        done
    };
    let mut left: Vec<_> = buffers.iter().skip_while(is_done).copied().collect();
    if let Some(first) = left.first_mut() {
        first.iov_base = first.iov_base.wrapping_byte_add(moved);
        first.iov_len -= moved;
    }
    left
}

/// What makes a hole in a file, and leaves its length.
pub(crate) const PUNCH: i32 = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;

/// Changes the allocation of `len` bytes from `offset` (`fallocate(2)`).
pub(crate) fn allocate(file: &File, mode: i32, offset: u64, len: u64) -> io::Result<()> {
    let number = |value| libc::off64_t::try_from(value).map_err(|_| io::ErrorKind::InvalidInput);
    let (offset, len) = (number(offset)?, number(len)?);
    // SAFETY: the descriptor is open while `file` is borrowed; the rest is numbers.
    match unsafe { libc::fallocate64(file.as_raw_fd(), mode, offset, len) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Zeroes to write, aligned so that they go past the page cache too.
#[repr(align(4096))]
struct Zeroes([u8; 64 << 10]);

static ZEROES: Zeroes = Zeroes([0; 64 << 10]);

/// Writes `len` zeroes from `offset`.
pub(crate) fn write_zeroes(file: &File, offset: u64, len: u64) -> io::Result<()> {
    let step = ZEROES.0.len() as u64;
    for start in (0..len).step_by(ZEROES.0.len()) {
        let now = step.min(len - start) as usize;
        file.write_all_at(&ZEROES.0[..now], offset.saturating_add(start))?;
    }
    Ok(())
}

/// Errors that go away when one asks again.
pub(crate) fn is_passing(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EAGAIN | libc::EINTR | libc::ECANCELED)
    )
}

/// Whether the host can't do it at all.
pub(crate) fn is_unsupported(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EOPNOTSUPP | libc::ENOSYS))
}
