//! What the tables of a qcow2 image say of its clusters, checked before one is written to.
//!
//! Who writes takes clusters that the refcounts call free. Were one of them in use, it would be
//! written over; were a cluster of the disk where a table is, the guest could write the table.
//! All tables are read for this: 128 MiB for each TiB of a disk with clusters of 64 KiB.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io;

use rustix::fs::SeekFrom;

use super::{Header, Qcow2Error};

/// Where an entry of a table says something is; the other bits are flags.
const OFFSET: u64 = 0x00ff_ffff_ffff_fe00;
/// An entry of an L2 table is for a cluster that is compressed.
const COMPRESSED: u64 = 1 << 62;
/// Compressed clusters are counted in these.
const SECTOR: u64 = 512;
/// Clusters that refcount blocks may count, at most: for 64 TiB with clusters of 64 KiB. Each is a
/// bit of memory while the image is opened.
const MAX_COUNTED: u64 = 1 << 30;

/// Checks the tables of the image in `file`, which nobody else writes to.
pub(super) fn check(file: &File, header: &Header) -> io::Result<Result<(), Qcow2Error>> {
    match walk(file, header) {
        Ok(()) => Ok(Ok(())),
        Err(Ended::Damaged(error)) => Ok(Err(error)),
        Err(Ended::Io(error)) => Err(error),
    }
}

/// Why a check ended early.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Damaged(#[from] Qcow2Error),
}

fn walk(file: &File, header: &Header) -> Result<(), Ended> {
    let reader = Reader::new(file, header)?;
    Clusters::count(&reader, header)?.check_disk(&reader, header)
}

/// Reads tables.
struct Reader<'a> {
    file: &'a File,
    /// The file's bytes, with all of its last cluster.
    end: u64,
}

impl<'a> Reader<'a> {
    fn new(file: &'a File, header: &Header) -> io::Result<Self> {
        let end = super::length(file)?.next_multiple_of(header.cluster());
        Ok(Self { file, end })
    }

    /// The entries of the table of `length` bytes at `offset`; none if all are zero because that part
    /// of the file was never written.
    fn entries(&self, offset: u64, length: u64) -> io::Result<Vec<u64>> {
        let bytes = self.bytes(offset, length)?;
        let entry = |bytes: &[u8; 8]| u64::from_be_bytes(*bytes);
        Ok(bytes.as_chunks().0.iter().map(entry).collect())
    }

    fn bytes(&self, offset: u64, length: u64) -> io::Result<Vec<u8>> {
        let data = match rustix::fs::seek(self.file, SeekFrom::Data(offset)) {
            Ok(data) => data,
            Err(rustix::io::Errno::NXIO) => u64::MAX,
            // Not every file knows.
            Err(_) => offset,
        };
        if data >= offset.saturating_add(length) {
            return Ok(Vec::new());
        }
        let mut bytes = vec![0; length as usize];
        super::read_at(self.file, offset, &mut bytes)?;
        Ok(bytes)
    }
}

/// The clusters of an image's file.
struct Clusters {
    /// A cluster has 2 to the power of this bytes.
    bits: u32,
    /// A refcount block counts 2 to the power of this clusters.
    block_bits: u32,
    /// A bit for each cluster that is counted as used, by the number of the refcount block; blocks that
    /// count nothing may be missing.
    counted: HashMap<u64, Vec<u64>>,
    /// Where tables are.
    tables: HashSet<u64>,
}

impl Clusters {
    /// Reads the refcounts, and finds them and the header where they can be.
    fn count(reader: &Reader<'_>, header: &Header) -> Result<Self, Ended> {
        let cluster = header.cluster();
        let mut clusters = Self {
            bits: header.cluster_bits,
            // Eight refcounts of one bit are in a byte.
            block_bits: header.cluster_bits + 3 - header.refcount_order,
            counted: HashMap::new(),
            tables: HashSet::new(),
        };
        let table = &header.refcount_table;
        let mut blocks = reader.entries(table.offset, table.length)?;
        blocks.iter_mut().for_each(|block| *block &= OFFSET);
        for (number, block) in (0..).zip(&blocks).filter(|(_, block)| **block != 0) {
            clusters.check_place(reader, "refcount block", *block)?;
            let counts = reader.bytes(*block, cluster)?;
            if counts.is_empty() {
                continue;
            }
            let used = used(&counts, header.refcount_order);
            clusters.counted.insert(number, used);
            if (clusters.counted.len() as u64) << clusters.block_bits > MAX_COUNTED {
                return Err(Qcow2Error::Unsupported(
                    "has too many clusters; convert it with `qemu-img convert -O qcow2 -o cluster_size=2M`",
                ))?;
            }
        }
        clusters.take("header", 0, cluster)?;
        clusters.take("refcount table", table.offset, table.length)?;
        for block in blocks.into_iter().filter(|block| *block != 0) {
            clusters.take("refcount block", block, cluster)?;
        }
        Ok(clusters)
    }

    /// Checks that what the disk consists of is counted, and is where no table is.
    fn check_disk(&mut self, reader: &Reader<'_>, header: &Header) -> Result<(), Ended> {
        let (l1, cluster) = (&header.l1_table, header.cluster());
        self.take("L1 table", l1.offset, l1.length)?;
        let mut tables = reader.entries(l1.offset, l1.length)?;
        tables.iter_mut().for_each(|table| *table &= OFFSET);
        tables.retain(|table| *table != 0);
        for table in &tables {
            self.check_place(reader, "L2 table", *table)?;
            self.take("L2 table", *table, cluster)?;
        }
        for table in tables {
            for entry in reader.entries(table, cluster)? {
                self.check_data(entry)?;
            }
        }
        Ok(())
    }

    /// Checks an entry of an L2 table.
    fn check_data(&self, entry: u64) -> Result<(), Qcow2Error> {
        let what = "data";
        let (offset, length) = if entry & COMPRESSED != 0 {
            // The larger the clusters, the more bits are for the sectors.
            let offset_bits = 62 - (self.bits - 8);
            let offset = entry & ((1 << offset_bits) - 1);
            let more = (entry & (COMPRESSED - 1)) >> offset_bits;
            (offset, (more + 1) * SECTOR - offset % SECTOR)
        } else {
            (entry & OFFSET, 1 << self.bits)
        };
        if offset == 0 {
            return Ok(());
        }
        if entry & COMPRESSED == 0 {
            self.check_aligned(what, offset)?;
        }
        for cluster in self.of(offset, length) {
            self.check_counted(what, cluster)?;
            if self.tables.contains(&cluster) {
                return Err(self.misplaced(what, cluster, "is where a table is"));
            }
        }
        Ok(())
    }

    /// Takes note of a table, which nothing else may be at.
    fn take(&mut self, what: &'static str, offset: u64, length: u64) -> Result<(), Qcow2Error> {
        for cluster in self.of(offset, length) {
            self.check_counted(what, cluster)?;
            if !self.tables.insert(cluster) {
                return Err(self.misplaced(what, cluster, "is where another table is"));
            }
        }
        Ok(())
    }

    fn check_place(
        &self,
        reader: &Reader<'_>,
        what: &'static str,
        offset: u64,
    ) -> Result<(), Qcow2Error> {
        self.check_aligned(what, offset)?;
        if offset >= reader.end {
            let why = "lies past its end";
            return Err(Qcow2Error::Misplaced { what, offset, why });
        }
        Ok(())
    }

    fn check_aligned(&self, what: &'static str, offset: u64) -> Result<(), Qcow2Error> {
        if offset.is_multiple_of(1 << self.bits) {
            return Ok(());
        }
        let why = "is not where a cluster begins";
        Err(Qcow2Error::Misplaced { what, offset, why })
    }

    fn check_counted(&self, what: &'static str, cluster: u64) -> Result<(), Qcow2Error> {
        let (block, index) = (
            cluster >> self.block_bits,
            cluster & ((1 << self.block_bits) - 1),
        );
        let is_counted = |used: &Vec<u64>| used[(index / 64) as usize] >> (index % 64) & 1 == 1;
        match self.counted.get(&block).is_some_and(is_counted) {
            true => Ok(()),
            false => Err(self.misplaced(what, cluster, "is in use and counted as free")),
        }
    }

    fn misplaced(&self, what: &'static str, cluster: u64, why: &'static str) -> Qcow2Error {
        Qcow2Error::Misplaced {
            what,
            offset: cluster << self.bits,
            why,
        }
    }

    /// The clusters that `length` bytes at `offset` are in.
    fn of(&self, offset: u64, length: u64) -> std::ops::Range<u64> {
        offset >> self.bits..(offset + length).div_ceil(1 << self.bits)
    }
}

/// A bit for each refcount of 2 to the power of `order` bits that is not zero.
fn used(block: &[u8], order: u32) -> Vec<u64> {
    let width = 1 << order;
    let count = block.len() * 8 / width;
    let mut used = vec![0; count.div_ceil(64)];
    for index in 0..count {
        let at = index * width;
        let is_used = match width {
            0..8 => block[at / 8] >> (at % 8) & ((1 << width) - 1) as u8 != 0,
            _ => block[at / 8..(at + width) / 8]
                .iter()
                .any(|byte| *byte != 0),
        };
        used[index / 64] |= u64::from(is_used) << (index % 64);
    }
    used
}
