//! Requests as the driver writes them (5.2.6), parsed into a type before anything is done.

use caraway_devices::GuestMemory;
use vm_memory::{Address, Bytes, GuestAddress};

use super::raw::SECTOR;
use crate::queue::{Chain, Segment, Segments};

/// `struct virtio_blk_outhdr`.
const HEADER: u32 = 16;
/// `struct virtio_blk_discard_write_zeroes`.
const RANGE: u32 = 16;
/// A range's flag that allows to give its blocks back.
const RANGE_UNMAP: u32 = 1;

const TYPE_IN: u32 = 0;
const TYPE_OUT: u32 = 1;
const TYPE_FLUSH: u32 = 4;
const TYPE_GET_ID: u32 = 8;
const TYPE_DISCARD: u32 = 11;
const TYPE_WRITE_ZEROES: u32 = 13;

/// The longest discard in one request, in sectors: 1 GiB.
pub(crate) const MAX_DISCARD: u32 = 1 << 21;
/// The longest write of zeroes in one request, in sectors: 16 MiB, since the host may have to
/// write them one by one.
pub(crate) const MAX_WRITE_ZEROES: u32 = 1 << 15;

/// The last byte of a request (5.2.6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Status {
    Ok = 0,
    IoError = 1,
    Unsupported = 2,
}

/// What the driver wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Request {
    /// Fill `data` from byte `offset`.
    Read { offset: u64, data: Segments },
    /// Write `data` at byte `offset`.
    Write { offset: u64, data: Segments },
    /// Make everything written so far durable.
    Flush,
    /// Fill `data` with the serial number.
    Identify { data: Segments },
    /// The bytes are not needed any more.
    Discard { offset: u64, len: u64 },
    /// The bytes are to be zero; their blocks may be given back if `unmap`.
    WriteZeroes { offset: u64, len: u64, unmap: bool },
    /// Something that can only be answered with this status.
    Refused(Status),
}

/// A request and where its status goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Parsed {
    pub(crate) request: Request,
    pub(crate) status: GuestAddress,
}

/// A chain that can't even be answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ParseError {
    #[error("a request has no room for its status")]
    NoStatus,
    #[error("a request is shorter than its header of 16 bytes")]
    NoHeader,
}

/// Parses `chain` for `disk`.
pub(crate) fn parse(memory: &GuestMemory, chain: Chain, disk: Disk) -> Result<Parsed, ParseError> {
    let Chain {
        mut readable,
        mut writable,
        ..
    } = chain;
    let status = take_last_byte(&mut writable).ok_or(ParseError::NoStatus)?;
    let header: [u8; HEADER as usize] =
        take_front(memory, &mut readable).ok_or(ParseError::NoHeader)?;
    let [t0, t1, t2, t3, _, _, _, _, sector @ ..] = header;
    let kind = u32::from_le_bytes([t0, t1, t2, t3]);
    let sector = u64::from_le_bytes(sector);
    let request = match kind {
        TYPE_IN => match disk.bytes(sector, total(&writable)) {
            Some(offset) => Request::Read {
                offset,
                data: writable,
            },
            None => Request::Refused(Status::IoError),
        },
        TYPE_OUT | TYPE_DISCARD | TYPE_WRITE_ZEROES if disk.read_only => {
            Request::Refused(Status::IoError)
        }
        TYPE_OUT => match disk.bytes(sector, total(&readable)) {
            Some(offset) => Request::Write {
                offset,
                data: readable,
            },
            None => Request::Refused(Status::IoError),
        },
        TYPE_FLUSH => Request::Flush,
        TYPE_GET_ID => Request::Identify { data: writable },
        TYPE_DISCARD | TYPE_WRITE_ZEROES => disk
            .range(memory, readable, kind)
            .unwrap_or_else(Request::Refused),
        _ => Request::Refused(Status::Unsupported),
    };
    Ok(Parsed { request, status })
}

/// What a request is checked against.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Disk {
    /// Its size in sectors.
    pub(crate) sectors: u64,
    /// Whether it may not be changed.
    pub(crate) read_only: bool,
}

impl Disk {
    /// The first byte of `len` bytes from `sector`, if they are whole sectors of the disk.
    fn bytes(&self, sector: u64, len: u64) -> Option<u64> {
        let whole = len.is_multiple_of(SECTOR);
        let end = sector.checked_add(len / SECTOR)?;
        (whole && end <= self.sectors).then(|| sector * SECTOR)
    }

    /// The request of type `kind` for the only range in `data` (we say that one is the maximum).
    fn range(
        &self,
        memory: &GuestMemory,
        mut data: Segments,
        kind: u32,
    ) -> Result<Request, Status> {
        if total(&data) != u64::from(RANGE) {
            return Err(Status::Unsupported);
        }
        let range: [u8; RANGE as usize] = take_front(memory, &mut data).ok_or(Status::IoError)?;
        let [s0, s1, s2, s3, s4, s5, s6, s7, n0, n1, n2, n3, flags @ ..] = range;
        let sector = u64::from_le_bytes([s0, s1, s2, s3, s4, s5, s6, s7]);
        let count = u32::from_le_bytes([n0, n1, n2, n3]);
        let flags = u32::from_le_bytes(flags);
        let (max, allowed) = match kind {
            TYPE_DISCARD => (MAX_DISCARD, 0),
            _ => (MAX_WRITE_ZEROES, RANGE_UNMAP),
        };
        if flags & !allowed != 0 {
            return Err(Status::Unsupported);
        }
        let len = u64::from(count) * SECTOR;
        let offset = self.bytes(sector, len).ok_or(Status::IoError)?;
        if count == 0 || count > max {
            return Err(Status::IoError);
        }
        Ok(match kind {
            TYPE_DISCARD => Request::Discard { offset, len },
            _ => Request::WriteZeroes {
                offset,
                len,
                unmap: flags & RANGE_UNMAP != 0,
            },
        })
    }
}

/// How many bytes `segments` have.
pub(crate) fn total(segments: &[Segment]) -> u64 {
    segments.iter().map(|segment| u64::from(segment.len)).sum()
}

/// Cuts the last byte off and says where it is.
fn take_last_byte(segments: &mut Segments) -> Option<GuestAddress> {
    let last = segments.last_mut()?;
    last.len -= 1;
    let address = last.address.checked_add(u64::from(last.len))?;
    if last.len == 0 {
        segments.pop();
    }
    Some(address)
}

/// Cuts the first `N` bytes off and reads them, however the driver cut them into segments.
fn take_front<const N: usize>(memory: &GuestMemory, segments: &mut Segments) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    let mut filled = 0;
    let mut used = 0;
    for segment in segments.iter_mut() {
        let now = (N - filled).min(segment.len as usize);
        memory
            .read_slice(&mut bytes[filled..filled + now], segment.address)
            .ok()?;
        filled += now;
        segment.len -= now as u32;
        segment.address = segment.address.checked_add(now as u64)?;
        if segment.len > 0 {
            break;
        }
        used += 1;
    }
    segments.drain(..used);
    (filled == N).then_some(bytes)
}
