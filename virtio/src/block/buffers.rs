//! The guest's buffers as the kernel takes them.

/// Copies `bytes` to `iovecs`, as many as they hold.
///
/// # Safety
/// Every buffer may be written.
pub(crate) unsafe fn scatter(bytes: &[u8], iovecs: &[libc::iovec]) {
    let mut rest = bytes;
    for buffer in iovecs {
        let (now, later) = rest.split_at(rest.len().min(buffer.iov_len));
        // SAFETY: the buffer is `iov_len` bytes that may be written, and none of them is ours.
        unsafe { std::ptr::copy(now.as_ptr(), buffer.iov_base.cast(), now.len()) };
        rest = later;
    }
}

/// Fills `bytes` from `iovecs`, which hold as many at least.
///
/// # Safety
/// Every buffer may be read.
pub(crate) unsafe fn gather(iovecs: &[libc::iovec], bytes: &mut [u8]) {
    let mut rest = bytes;
    for buffer in iovecs {
        let (now, later) = rest.split_at_mut(rest.len().min(buffer.iov_len));
        // SAFETY: the buffer is `iov_len` bytes that may be read, and none of them is ours.
        unsafe {
            std::ptr::copy(
                buffer.iov_base.cast_const().cast(),
                now.as_mut_ptr(),
                now.len(),
            )
        };
        rest = later;
    }
}
