//! A frame with its header, in the pieces of the host's memory that the driver's buffers are.

use caraway_devices::GuestMemory;
use smallvec::SmallVec;
use vm_memory::{GuestMemoryError, VolatileSlice};

use crate::chain::host_slices;
use crate::queue::Segment;

/// The pieces; on the heap only if there are many.
pub(super) type Pieces<'a> = SmallVec<[VolatileSlice<'a>; 4]>;

/// The host's memory behind the first `count` bytes of `segments`.
pub(super) fn pieces<'a, 's>(
    memory: &'a GuestMemory,
    segments: impl IntoIterator<Item = &'s Segment>,
    count: usize,
) -> Result<Pieces<'a>, GuestMemoryError> {
    let mut pieces = Pieces::new();
    let mut left = count;
    for segment in segments {
        let now = left.min(segment.len as usize);
        if now == 0 {
            break;
        }
        host_slices(memory, segment.address, now, |piece| pieces.push(piece))?;
        left -= now;
    }
    Ok(pieces)
}

/// What of `pieces` is left after `skip` bytes.
pub(super) fn after<'a>(
    pieces: &[VolatileSlice<'a>],
    mut skip: usize,
) -> impl Iterator<Item = VolatileSlice<'a>> {
    pieces.iter().filter_map(move |piece| {
        let before = skip.min(piece.len());
        skip -= before;
        piece.offset(before).ok().filter(|piece| !piece.is_empty())
    })
}

/// Copies what `pieces` hold from byte `skip` on to `bytes`, as far as either goes.
pub(super) fn get(pieces: &[VolatileSlice<'_>], skip: usize, bytes: &mut [u8]) {
    let mut rest = bytes;
    for piece in after(pieces, skip) {
        let (now, later) = rest.split_at_mut(rest.len().min(piece.len()));
        piece.copy_to(now);
        rest = later;
    }
}

/// Copies `bytes` to `pieces` from byte `skip` on; those that have no place there.
pub(super) fn put<'b>(pieces: &[VolatileSlice<'_>], skip: usize, bytes: &'b [u8]) -> &'b [u8] {
    let mut rest = bytes;
    for piece in after(pieces, skip) {
        let (now, later) = rest.split_at(rest.len().min(piece.len()));
        piece.copy_from(now);
        rest = later;
    }
    rest
}

#[cfg(test)]
mod tests {
    use vm_memory::GuestAddress;

    use super::*;

    #[test]
    fn bytes_go_in_and_out_across_pieces() {
        let memory = GuestMemory::from_ranges(&[(GuestAddress(0), 0x1000)]).unwrap();
        let segment = |address, len| Segment {
            address: GuestAddress(address),
            len,
        };
        let segments = [segment(0, 3), segment(0x100, 4), segment(0x200, 5)];
        let some = pieces(&memory, &segments, 9).unwrap();

        let left = put(&some, 2, b"abcdefghijk");
        let mut found = [b'-'; 8];
        get(&some, 3, &mut found);

        assert_eq!(some.iter().map(VolatileSlice::len).sum::<usize>(), 9);
        assert_eq!(left, b"hijk");
        assert_eq!(&found, b"bcdefg--");
        let rest: Vec<_> = after(&some, 3).map(|piece| piece.len()).collect();
        assert_eq!(rest, [4, 2]);
    }
}
