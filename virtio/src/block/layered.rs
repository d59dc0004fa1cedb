//! Images that are more than the disk's bytes: qcow2 and vmdk, by `imago`.

use std::fs::File;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use imago::format::PreallocateMode;
use imago::io_buffers::IoBuffer;
use imago::{FormatAccess, ShallowMapping};
use parking_lot::RwLock;

use super::buffers;
use super::layer::{Journal, Layer};
use super::plain::{self, Direction};

/// `imago`'s view of an image and of what is under it.
pub(crate) type Access = FormatAccess<Layer>;

/// How many bytes of a request are copied at once.
const PIECE: u64 = 1 << 20;
/// Where the copy begins in memory, so that it goes past the page cache, too.
const ALIGNMENT: usize = 4096;

/// A qcow2 or vmdk image.
pub(crate) struct Layered {
    /// Taken for writing by everything that changes which clusters are used.
    access: RwLock<Access>,
    size: AtomicU64,
    /// How to write to it; `None` if it is only read.
    writer: Option<Writer>,
}

/// What a qcow2 image that is written has.
pub(crate) struct Writer {
    pub(crate) journal: Arc<Journal>,
    /// The file, as guest data reaches it.
    pub(crate) file: Arc<File>,
    /// Bytes of a cluster.
    pub(crate) cluster: u64,
}

impl Layered {
    pub(crate) fn new(access: Access, writer: Option<Writer>) -> Self {
        Self {
            size: AtomicU64::new(access.size()),
            access: RwLock::new(access),
            writer,
        }
    }

    /// The disk's size in bytes.
    pub(crate) fn size(&self) -> u64 {
        self.size.load(Ordering::Acquire)
    }

    fn writer(&self) -> io::Result<&Writer> {
        self.writer
            .as_ref()
            .ok_or_else(|| io::Error::from_raw_os_error(libc::EROFS))
    }

    /// Moves all of `iovecs` at `offset`.
    ///
    /// # Errors
    /// The host's, or that the image is damaged.
    ///
    /// # Safety
    /// As of [`plain::transfer`](super::plain::transfer).
    pub(crate) unsafe fn transfer(
        &self,
        direction: Direction,
        offset: u64,
        iovecs: &[libc::iovec],
    ) -> io::Result<()> {
        let mut left;
        let mut rest = iovecs;
        let mut at = offset;
        loop {
            let len: u64 = rest.iter().map(|buffer| buffer.iov_len as u64).sum();
            if len == 0 {
                break;
            }
            // The guest may change its buffers at any time and have them overlap; what `imago` works
            // on stays as it is.
            let now = len.min(PIECE);
            let mut copy = IoBuffer::new(now as usize, ALIGNMENT)?;
            let bytes = copy.as_mut().into_slice();
            match direction {
                Direction::Read => {
                    self.access.read().read(&mut *bytes, at)?;
                    // SAFETY: by the caller's word.
                    unsafe { buffers::scatter(bytes, rest) };
                }
                Direction::Write { .. } => {
                    // SAFETY: by the caller's word.
                    unsafe { buffers::gather(rest, bytes) };
                    self.write(at, bytes)?;
                }
            }
            at = at.saturating_add(now);
            left = plain::after(rest, now as usize);
            rest = &left;
        }
        match direction {
            Direction::Write { durable: true } => self.flush(),
            _ => Ok(()),
        }
    }

    fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let writer = self.writer()?;
        let access = self.access.read();
        if is_mapped(&access, offset, bytes.len() as u64)? {
            return access.write(bytes, offset);
        }
        drop(access);
        let access = self.access.write();
        let mut rest = bytes;
        for (at, len) in pieces(offset, bytes.len() as u64, writer.cluster) {
            let (now, later) = rest.split_at(len as usize);
            access.write(now, at)?;
            writer.after_change(&access)?;
            rest = later;
        }
        Ok(())
    }

    /// Makes everything written so far durable.
    ///
    /// # Errors
    /// The host's.
    pub(crate) fn flush(&self) -> io::Result<()> {
        self.settle()?;
        match &self.writer {
            Some(writer) => writer.file.sync_data(),
            None => Ok(()),
        }
    }

    /// Lets what the image says of itself into its file, which need not be durable.
    ///
    /// # Errors
    /// The host's.
    pub(crate) fn settle(&self) -> io::Result<()> {
        match &self.writer {
            Some(writer) => writer.let_in(&self.access.write()),
            None => Ok(()),
        }
    }

    /// Gives the clusters of a range back.
    ///
    /// # Errors
    /// The host's.
    pub(crate) fn discard(&self, offset: u64, len: u64) -> io::Result<()> {
        self.free(offset, len, true, |access, at, len| {
            match access.discard_to_any(at, len) {
                // Of a version 2 image: it may keep them.
                Err(error) if error.kind() == io::ErrorKind::Unsupported => Ok(()),
                done => done,
            }
        })
    }

    /// Makes a range zeroes, and gives its clusters back if `unmap`.
    ///
    /// # Errors
    /// The host's.
    pub(crate) fn write_zeroes(&self, offset: u64, len: u64, unmap: bool) -> io::Result<()> {
        let cluster = self.writer()?.cluster;
        // What is not whole clusters is written, so that no cluster is freed and given out at once.
        let end = offset.saturating_add(len);
        let first = offset.next_multiple_of(cluster).min(end);
        let last = (end - end % cluster).max(first);
        let zeroes = vec![0; cluster as usize];
        for (at, len) in [(offset, first - offset), (last, end - last)] {
            if len > 0 {
                self.write(at, &zeroes[..len as usize])?;
            }
        }
        self.free(first, last - first, unmap, |access, at, len| {
            let done = if unmap {
                access.discard_to_zero(at, len)
            } else {
                access.write_zeroes(at, len)
            };
            match done {
                Err(error) if error.kind() == io::ErrorKind::Unsupported => {
                    let mut each = pieces(at, len, cluster);
                    each.try_for_each(|(at, len)| access.write(&zeroes[..len as usize], at))
                }
                done => done,
            }
        })
    }

    /// Does `what` to a range, one L2 table's share after the other. If `unmap`, the host gets back what the
    /// clusters took that are in use no longer.
    fn free(
        &self,
        offset: u64,
        len: u64,
        unmap: bool,
        what: impl Fn(&mut Access, u64, u64) -> io::Result<()>,
    ) -> io::Result<()> {
        let writer = self.writer()?;
        let mut access = self.access.write();
        for (at, len) in pieces(offset, len, writer.cluster * (writer.cluster / 8)) {
            let used = match unmap {
                true => extents(&access, at, len, writer.cluster)?,
                false => Vec::new(),
            };
            what(&mut access, at, len)?;
            writer.after_change(&access)?;
            for extent in used {
                writer.punch(&access, &extent)?;
            }
        }
        Ok(())
    }

    /// Makes the disk `size` bytes long, which is more than it was.
    ///
    /// # Errors
    /// The host's.
    pub(crate) fn grow(&self, size: u64) -> io::Result<()> {
        let writer = self.writer()?;
        let access = self.access.write();
        access.resize_grow(size, PreallocateMode::None)?;
        writer.let_in(&access)?;
        writer.file.sync_data()?;
        self.size.store(access.size(), Ordering::Release);
        Ok(())
    }
}

impl Drop for Layered {
    fn drop(&mut self) {
        if let Err(error) = self.settle() {
            tracing::error!(%error, "what a disk image says of itself can't be written");
        }
    }
}

impl Writer {
    /// Lets the tables in if they may not wait any longer.
    fn after_change(&self, access: &Access) -> io::Result<()> {
        if self.journal.take_freed() || self.journal.is_full() {
            self.let_in(access)?;
        }
        Ok(())
    }

    /// Makes a hole in the file of what of an extent the disk has no longer. The tables say so already; whoever
    /// sees them as they were before, as after a power failure, finds zeroes, which a discard may leave.
    fn punch(&self, access: &Access, extent: &Extent) -> io::Result<()> {
        let mut done = 0;
        while done < extent.len {
            let (mapping, found) =
                access.get_shallow_mapping(extent.at + done, extent.len - done)?;
            let place = extent.place + done;
            let stays = matches!(mapping, ShallowMapping::Raw { offset, .. } if offset == place);
            if found == 0 {
                break;
            }
            // Not every file system can. Then the room is the image's for other clusters, as ever.
            if !stays && let Err(error) = plain::allocate(&self.file, plain::PUNCH, place, found) {
                tracing::debug!(%error, "no hole could be made in a disk image");
                break;
            }
            done += found;
        }
        Ok(())
    }

    /// Lets the tables in. Nothing else is done with the image meanwhile.
    fn let_in(&self, access: &Access) -> io::Result<()> {
        access.flush()?;
        self.journal.let_in()
    }
}

/// Whether `len` bytes from `offset` have clusters of their own, so that writing them changes no
/// table.
fn is_mapped(access: &Access, mut offset: u64, mut len: u64) -> io::Result<bool> {
    while len > 0 {
        let (mapping, found) = access.get_shallow_mapping(offset, len)?;
        if !matches!(mapping, ShallowMapping::Raw { writable: true, .. }) || found == 0 {
            return Ok(false);
        }
        offset = offset.saturating_add(found);
        len = len.saturating_sub(found);
    }
    Ok(true)
}

/// Clusters that follow each other on the disk and in the file, and that nothing else refers to.
struct Extent {
    /// Where they are on the disk.
    at: u64,
    /// Where they are in the file.
    place: u64,
    len: u64,
}

/// The whole clusters of a range that are in the file.
fn extents(access: &Access, offset: u64, len: u64, cluster: u64) -> io::Result<Vec<Extent>> {
    let end = offset.saturating_add(len);
    let end = end - end % cluster;
    let mut at = offset.next_multiple_of(cluster);
    let mut extents = Vec::new();
    while at < end {
        let (mapping, len) = access.get_shallow_mapping(at, end - at)?;
        if let ShallowMapping::Raw {
            offset: place,
            writable: true,
            ..
        } = mapping
        {
            extents.push(Extent { at, place, len });
        }
        if len == 0 {
            break;
        }
        at += len;
    }
    Ok(extents)
}

/// Cuts a range at the multiples of `step`.
fn pieces(offset: u64, len: u64, step: u64) -> impl Iterator<Item = (u64, u64)> {
    let end = offset.saturating_add(len);
    let mut at = offset;
    std::iter::from_fn(move || {
        let now = (step - at % step).min(end - at);
        let piece = (at, now);
        at += now;
        (now > 0).then_some(piece)
    })
}
