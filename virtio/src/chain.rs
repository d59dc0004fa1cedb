//! The bytes of a descriptor chain, which lie wherever its segments do.

use caraway_devices::GuestMemory;
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryError, VolatileSlice};

use crate::queue::{Chain, Segment};

impl Chain {
    /// Bytes that the device may read.
    #[must_use]
    pub fn readable_len(&self) -> u64 {
        length(&self.readable)
    }

    /// Bytes that the device may write.
    #[must_use]
    pub fn writable_len(&self) -> u64 {
        length(&self.writable)
    }

    /// Appends to `into` at most `count` bytes of the readable part from byte `from` on.
    ///
    /// # Errors
    /// A segment is not in RAM; [`Virtqueue::pop`](crate::Virtqueue::pop) gives none such.
    pub fn read(
        &self,
        memory: &GuestMemory,
        from: u64,
        count: usize,
        into: &mut Vec<u8>,
    ) -> Result<(), GuestMemoryError> {
        for (address, now) in pieces(&self.readable, from, count) {
            let start = into.len();
            into.resize(start + now, 0);
            memory.read_slice(&mut into[start..], address)?;
        }
        Ok(())
    }

    /// Writes `bytes` to the writable part from byte `from` on; how many of them had room.
    ///
    /// # Errors
    /// A segment is not in RAM; [`Virtqueue::pop`](crate::Virtqueue::pop) gives none such.
    pub fn write(
        &self,
        memory: &GuestMemory,
        from: u64,
        bytes: &[u8],
    ) -> Result<usize, GuestMemoryError> {
        let mut done = 0;
        for (address, now) in pieces(&self.writable, from, bytes.len()) {
            memory.write_slice(&bytes[done..done + now], address)?;
            done += now;
        }
        Ok(done)
    }
}

fn length(segments: &[Segment]) -> u64 {
    segments.iter().map(|segment| u64::from(segment.len)).sum()
}

/// The host's memory behind `len` bytes at `address`, in as many pieces as RAM is there.
///
/// # Errors
/// Not all of it is RAM.
pub(crate) fn host_slices<'a>(
    memory: &'a GuestMemory,
    address: GuestAddress,
    len: usize,
    mut each: impl FnMut(VolatileSlice<'a>),
) -> Result<(), GuestMemoryError> {
    if let Ok(slice) = memory.get_slice(address, len) {
        each(slice);
        return Ok(());
    }
    for slice in GuestMemoryBackend::get_slices(memory, address, len) {
        each(slice?);
    }
    Ok(())
}

/// Where the bytes from `from` on are, at most `count` of them, piece by piece.
fn pieces(
    segments: &[Segment],
    from: u64,
    count: usize,
) -> impl Iterator<Item = (GuestAddress, usize)> {
    let (mut skip, mut left) = (from, count);
    segments.iter().filter_map(move |segment| {
        let length = u64::from(segment.len);
        if skip >= length {
            skip -= length;
            return None;
        }
        let address = GuestAddress(segment.address.0 + skip);
        let now = usize::try_from(length - skip).unwrap_or(left).min(left);
        skip = 0;
        left -= now;
        (now > 0).then_some((address, now))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chain() -> (Chain, GuestMemory) {
        let segment = |address, len| Segment {
            address: GuestAddress(address),
            len,
        };
        let segments = [segment(0, 3), segment(0x100, 4), segment(0x200, 5)];
        let memory = GuestMemory::from_ranges(&[(GuestAddress(0), 0x1000)]).unwrap();
        let chain = Chain {
            head: 0,
            readable: segments.into_iter().collect(),
            writable: segments.into_iter().collect(),
        };
        (chain, memory)
    }

    #[test]
    fn what_is_written_to_segments_reads_back_from_any_byte_on() {
        let (chain, memory) = chain();

        let written = chain.write(&memory, 0, b"abcdefghijklmnop").unwrap();

        assert_eq!(written, 12);
        let mut bytes = vec![b'>'];
        chain.read(&memory, 2, 6, &mut bytes).unwrap();
        assert_eq!(bytes, b">cdefgh");
    }

    #[test]
    fn a_write_starts_at_its_byte() {
        let (chain, memory) = chain();

        let written = chain.write(&memory, 6, b"xyz").unwrap();

        assert_eq!(written, 3);
        let mut bytes = Vec::new();
        chain.read(&memory, 0, 100, &mut bytes).unwrap();
        assert_eq!(bytes, b"\0\0\0\0\0\0xyz\0\0\0");
    }
}
