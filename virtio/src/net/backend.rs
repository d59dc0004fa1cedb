//! The host's end of a network device.

use std::io;

use vm_memory::VolatileSlice;

use super::header::{Header, Offloads};
use super::pieces::{get, put};

/// The longest frame, in bytes: a TCP segment of 64 KiB with its headers, to be cut by whoever gets
/// it (5.1.6.3.1).
pub const LONGEST: usize = 65_550;

/// The host's end of one pair of queues: a queue of a tap, a socket. No method waits.
///
/// `WouldBlock` from [`send`](Self::send) or [`receive`](Self::receive) means that
/// [`Net::serve_pair`](super::Net::serve_pair) is called once there is room, or a frame; `ConnectionReset` that
/// there will never be any more. Any other error concerns that one frame.
pub trait Backend: Send {
    /// Work that a frame for it may leave undone, and that one from it may.
    fn offloads(&self) -> Offloads;

    /// From now on frames for the guest leave no more undone than this.
    fn set_offloads(&mut self, guest: Offloads);

    /// Whether the driver uses this pair.
    fn set_used(&mut self, used: bool);

    /// Whether the cable is in.
    fn set_link(&mut self, up: bool) {
        let _ = up;
    }

    /// Gets rid of what is left of a frame that was taken.
    ///
    /// # Errors
    /// As the trait says.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }

    /// Takes a whole frame.
    ///
    /// # Errors
    /// As the trait says.
    fn send(&mut self, header: Header, frame: &[VolatileSlice<'_>]) -> io::Result<()>;

    /// Puts the next frame into `room` and what has no place there at the start of `spill`, which is
    /// of [`LONGEST`] bytes; its header and its length.
    ///
    /// # Errors
    /// As the trait says.
    fn receive(
        &mut self,
        room: &[VolatileSlice<'_>],
        spill: &mut [u8],
    ) -> io::Result<(Header, usize)>;
}

/// Puts a frame into `room`, and what has no place there at the start of `spill`, as
/// [`Backend::receive`] is to. What has no place there either is left out.
pub fn scatter(frame: &[u8], room: &[VolatileSlice<'_>], spill: &mut [u8]) {
    let rest = put(room, 0, frame);
    if let Some(spill) = spill.get_mut(..rest.len()) {
        spill.copy_from_slice(rest);
    }
}

/// A copy of a frame that [`Backend::send`] was given.
#[must_use]
pub fn gather(frame: &[VolatileSlice<'_>]) -> Vec<u8> {
    let mut bytes = vec![0; frame.iter().map(VolatileSlice::len).sum()];
    get(frame, 0, &mut bytes);
    bytes
}
