//! Small qcow2 images, byte for byte as the format's description has them (QEMU's
//! `docs/interop/qcow2.txt`), so that what a reader must make of them is known without one.

/// What a cluster of the disk is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cluster {
    /// Nothing is said of it: what is under the image shows.
    None,
    /// It is in the file.
    Data,
    /// It is zero.
    Zero,
    /// It is in the file, deflated.
    Compressed,
}

/// An image.
#[derive(Debug, Clone)]
pub(super) struct Draft {
    /// Clusters have 2 to the power of this bytes: 9 or 12.
    pub(super) cluster_bits: u32,
    /// 2 or 3.
    pub(super) version: u32,
    /// Refcounts have 2 to the power of this bits.
    pub(super) refcount_order: u32,
    /// The disk, at most [`MOST`] clusters.
    pub(super) clusters: Vec<Cluster>,
    /// It has a backing file.
    pub(super) backed: bool,
}

/// Something in the file that is not as it should be.
#[derive(Debug, Clone, Copy)]
pub(super) struct Damage {
    pub(super) place: Place,
    /// The number of the cluster whose place in the file is the value, if there is one.
    pub(super) cluster: Option<u64>,
    /// Flags of the value, or all of it.
    pub(super) bits: u64,
}

/// Where it is; indices are taken modulo what there is.
#[derive(Debug, Clone, Copy)]
pub(super) enum Place {
    /// One of [`FIELDS`].
    HeaderField(usize),
    /// A byte of the header.
    Header(u8),
    RefTable(u8),
    /// A byte of a refcount block.
    RefBlock(u16),
    L1(u8),
    L2(u8),
    /// Eight bytes anywhere.
    Anywhere(u16),
    /// The file ends there.
    End(u16),
}

/// The disk's clusters at most.
const MOST: usize = 160;
/// Fields of the header: offset and length.
const FIELDS: [(usize, usize); 14] = [
    (4, 4),   // version
    (8, 8),   // backing file's name
    (16, 4),  // its length
    (20, 4),  // cluster bits
    (24, 8),  // size
    (32, 4),  // encryption
    (36, 4),  // entries of the L1 table
    (40, 8),  // the L1 table
    (48, 8),  // the refcount table
    (56, 4),  // its clusters
    (60, 4),  // snapshots
    (72, 8),  // incompatible features
    (96, 4),  // refcount order
    (100, 4), // header length
];

/// In clusters: the refcount table, its blocks, the L1 table, and the L2 tables.
const REF_TABLE: u64 = 1;
const REF_BLOCKS: std::ops::Range<u64> = 2..6;
const L1: u64 = 6;
const L2: u64 = 7;

const NAME: &[u8] = b"base.raw";
const NAME_AT: usize = 112;
const COPIED: u64 = 1 << 63;
pub(super) const COMPRESSED: u64 = 1 << 62;
const ZERO: u64 = 1;

/// A cluster of this byte, deflated without a header (by zlib, for 512 and 4096 bytes).
const DEFLATED: u8 = 0xa5;
const DEFLATED_512: &[u8] = &[0x5b, 0xba, 0x74, 0x14, 0x8c, 0x64, 0, 0];
const DEFLATED_4096: &[u8] = &[
    0xed, 0xc1, 0x01, 0x0d, 0, 0, 0, 0xc2, 0xa0, 0xfe, 0x41, 0xde, 0xd3, 0x1e, 0x0e, 0x28, 0, 0, 0,
    0xe0, 0xdd, 0,
];

impl Draft {
    /// An image of a usual kind with these clusters.
    pub(super) fn of(clusters: Vec<Cluster>) -> Self {
        Self {
            cluster_bits: 9,
            version: 3,
            refcount_order: 4,
            clusters,
            backed: false,
        }
    }

    fn cluster(&self) -> u64 {
        1 << self.cluster_bits
    }

    /// The disk's size in bytes.
    pub(super) fn size(&self) -> u64 {
        self.clusters.len() as u64 * self.cluster()
    }

    fn l2_tables(&self) -> u64 {
        (self.clusters.len() as u64).div_ceil(self.cluster() / 8)
    }

    /// What the disk has, above a file of `backing`s.
    pub(super) fn content(&self, backing: u8) -> Vec<u8> {
        let mut content = Vec::new();
        for (index, cluster) in self.clusters.iter().enumerate() {
            let byte = match cluster {
                Cluster::None if self.backed => backing,
                Cluster::None | Cluster::Zero => 0,
                Cluster::Data => index as u8 + 1,
                Cluster::Compressed => DEFLATED,
            };
            content.resize(content.len() + self.cluster() as usize, byte);
        }
        content
    }

    /// The image's file.
    pub(super) fn file(&self) -> Vec<u8> {
        assert!(self.clusters.len() <= MOST);
        let size = self.cluster() as usize;
        let first = L2 + self.l2_tables();
        let mut file = vec![0; first as usize * size];
        for table in 0..self.l2_tables() {
            let offset = ((L2 + table) * self.cluster()) | COPIED;
            put(&mut file, L1 as usize * size + table as usize * 8, offset);
        }
        for (index, cluster) in self.clusters.iter().enumerate() {
            let offset = file.len() as u64;
            let entry = match cluster {
                Cluster::None => 0,
                Cluster::Zero => ZERO,
                Cluster::Data => {
                    file.resize(file.len() + size, index as u8 + 1);
                    offset | COPIED
                }
                Cluster::Compressed => {
                    // One sector of 512 bytes, which the format calls none more.
                    file.extend(match self.cluster_bits {
                        9 => DEFLATED_512,
                        _ => DEFLATED_4096,
                    });
                    file.resize(offset as usize + size, 0);
                    offset | COMPRESSED
                }
            };
            put(&mut file, L2 as usize * size + index * 8, entry);
        }
        let used = file.len() / size;
        for (block, cluster) in (0..).zip(REF_BLOCKS) {
            let offset = cluster * self.cluster();
            put(&mut file, REF_TABLE as usize * size + block * 8, offset);
        }
        for index in 0..used {
            self.count(&mut file, index);
        }
        self.put_header(&mut file);
        file
    }

    /// Counts the file's cluster `index` as used once.
    fn count(&self, file: &mut [u8], index: usize) {
        let bits = 1 << self.refcount_order;
        // The blocks are one after the other.
        let at = REF_BLOCKS.start as usize * self.cluster() as usize * 8 + index * bits;
        // Bits of a byte count from the lowest, bytes of a number from the highest.
        let byte = match bits {
            0..8 => at / 8,
            _ => at / 8 + bits / 8 - 1,
        };
        file[byte] |= 1 << if bits < 8 { at % 8 } else { 0 };
    }

    fn put_header(&self, file: &mut [u8]) {
        let mut field = |at: usize, bytes: &[u8]| file[at..at + bytes.len()].copy_from_slice(bytes);
        field(0, b"QFI\xfb");
        field(4, &self.version.to_be_bytes());
        field(20, &self.cluster_bits.to_be_bytes());
        field(24, &self.size().to_be_bytes());
        field(36, &(self.l2_tables() as u32).to_be_bytes());
        field(40, &(L1 * self.cluster()).to_be_bytes());
        field(48, &(REF_TABLE * self.cluster()).to_be_bytes());
        field(56, &1_u32.to_be_bytes());
        if self.version == 3 {
            field(96, &self.refcount_order.to_be_bytes());
            field(100, &104_u32.to_be_bytes());
        }
        if self.backed {
            field(8, &(NAME_AT as u64).to_be_bytes());
            field(16, &(NAME.len() as u32).to_be_bytes());
            field(NAME_AT, NAME);
        }
    }

    /// Damages `file`, which is this image.
    pub(super) fn apply(&self, damage: &Damage, file: &mut Vec<u8>) {
        let size = self.cluster() as usize;
        let value = damage.cluster.map_or(0, |cluster| cluster * self.cluster()) | damage.bits;
        let table =
            |cluster: u64, index: usize, of: usize| cluster as usize * size + index % of * 8;
        let (at, length) = match damage.place {
            Place::HeaderField(index) => FIELDS[index % FIELDS.len()],
            Place::Header(at) => (usize::from(at) % NAME_AT, 1),
            Place::RefTable(index) => (table(REF_TABLE, index.into(), 6), 8),
            Place::RefBlock(at) => {
                let bytes = (REF_BLOCKS.end - REF_BLOCKS.start) as usize * size;
                let used = bytes.min(file.len() / size * 8).max(1);
                (REF_BLOCKS.start as usize * size + usize::from(at) % used, 1)
            }
            Place::L1(index) => (table(L1, index.into(), self.l2_tables() as usize + 1), 8),
            Place::L2(index) => (table(L2, index.into(), self.clusters.len()), 8),
            Place::Anywhere(at) => (usize::from(at) % file.len().max(1), 8),
            Place::End(at) => return file.truncate(usize::from(at)),
        };
        let bytes = value.to_be_bytes();
        let bytes = &bytes[8 - length..];
        // The file may have been cut off.
        if let Some(there) = file.get_mut(at..at + length) {
            there.copy_from_slice(bytes);
        }
    }
}

fn put(file: &mut [u8], at: usize, value: u64) {
    file[at..at + 8].copy_from_slice(&value.to_be_bytes());
}
