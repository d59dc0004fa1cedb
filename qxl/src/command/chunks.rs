//! Data in pieces: chains of `QXLDataChunk`.

use super::wire::Chunk;
use super::{CommandError, MAX_CHUNKS, some};
use crate::device::{AddressError, GuestAddress, Place, Slots};

/// A piece of guest memory, and where it begins in the whole.
struct Piece {
    start: u64,
    end: u64,
    place: Place,
}

/// Data that is scattered over guest memory; where, was read and checked once.
pub(crate) struct Chunks(Vec<Piece>);

impl Chunks {
    /// `len` bytes in one piece.
    pub(crate) fn flat(
        slots: &Slots,
        address: GuestAddress,
        len: u64,
    ) -> Result<Self, CommandError> {
        let place = slots.resolve(address, len)?;
        let (start, end) = (0, len);
        Ok(Self(vec![Piece { start, end, place }]))
    }

    /// The chain whose first chunk is at `address`, as far as `len` bytes need it.
    pub(crate) fn chain(
        slots: &Slots,
        address: GuestAddress,
        len: u64,
    ) -> Result<Self, CommandError> {
        let mut pieces = Vec::new();
        let mut next = Some(address);
        let mut start = 0;
        for _ in 0..MAX_CHUNKS {
            let Some(address) = next.filter(|_| start < len) else {
                break;
            };
            let chunk: Chunk = slots.get(address)?;
            let size = u64::from(chunk.size.get()).min(len - start);
            if size > 0 {
                let place = slots.resolve(address.plus(size_of::<Chunk>() as u64), size)?;
                let end = start + size;
                pieces.push(Piece { start, end, place });
                start = end;
            }
            next = some(chunk.next.get());
        }
        if start < len {
            let (found, expected) = (start, len);
            return Err(CommandError::Short { found, expected });
        }
        Ok(Self(pieces))
    }

    /// All of the chain whose first chunk is at `address`, which has `most` bytes at most.
    pub(crate) fn whole(
        slots: &Slots,
        address: GuestAddress,
        what: &'static str,
        most: u64,
    ) -> Result<Vec<u8>, CommandError> {
        let mut data = Vec::new();
        let mut next = Some(address);
        for _ in 0..MAX_CHUNKS {
            let Some(address) = next else {
                break;
            };
            let chunk: Chunk = slots.get(address)?;
            let (start, size) = (data.len(), chunk.size.get());
            CommandError::at_most(what, start as u64 + u64::from(size), most)?;
            let place = slots.resolve(address.plus(size_of::<Chunk>() as u64), size.into())?;
            data.resize(start + size as usize, 0);
            place.read(0, &mut data[start..])?;
            next = some(chunk.next.get());
        }
        Ok(data)
    }

    /// Copies the bytes from `at` into `data`.
    pub(crate) fn read(&self, at: u64, data: &mut [u8]) -> Result<(), AddressError> {
        let first = self.0.partition_point(|piece| piece.end <= at);
        let (mut at, mut rest) = (at, data);
        for piece in self.0.iter().skip(first) {
            if rest.is_empty() {
                break;
            }
            let here = (piece.end - at).min(rest.len() as u64);
            let (now, later) = rest.split_at_mut(here as usize);
            piece.place.read(at - piece.start, now)?;
            at += here;
            rest = later;
        }
        // What is past the end reads as zeros; callers ask for no more than they resolved.
        rest.fill(0);
        Ok(())
    }
}
