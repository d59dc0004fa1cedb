//! The header of a qcow2 image.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use super::Qcow2Error;

/// Bytes of a version 2 header; a version 3 one has [`V3_LENGTH`] at least.
const V2_LENGTH: usize = 72;
const V3_LENGTH: u32 = 104;
const MAGIC: u32 = 0x5146_49fb;
/// Cluster sizes from 512 bytes to 2 MiB, as QEMU allows.
const CLUSTER_BITS: std::ops::RangeInclusive<u32> = 9..=21;
/// The largest L1 table, in bytes: QEMU's limit, too.
const MAX_L1: u64 = 32 << 20;
/// The largest refcount table, in bytes: QEMU's limit, too.
const MAX_REFTABLE: u64 = 8 << 20;
/// The largest disk, in bytes: what QEMU's L1 limit allows with clusters of 2 MiB is more.
const MAX_SIZE: u64 = 1 << 56;
/// Bit 0 of the autoclear features: the image has dirty bitmaps that a writer must keep up.
const AUTOCLEAR_BITMAPS: u64 = 1;

/// What the header says that is needed to open the image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Header {
    /// The disk's size in bytes.
    pub(crate) size: u64,
    /// A cluster has 2 to the power of this bytes.
    pub(crate) cluster_bits: u32,
    /// A refcount has 2 to the power of this bits.
    pub(super) refcount_order: u32,
    pub(super) refcount_table: Table,
    pub(super) l1_table: Table,
    /// The name of its backing file, as far as it is text.
    pub(crate) backing: Option<String>,
}

/// Where a table is in the file, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Table {
    pub(super) offset: u64,
    pub(super) length: u64,
}

impl Header {
    /// Bytes of a cluster.
    pub(crate) fn cluster(&self) -> u64 {
        1 << self.cluster_bits
    }

    /// Reads and checks the header of `file`, which is to be opened for writing if `writable`.
    pub(super) fn read(file: &File, writable: bool) -> io::Result<Result<Self, Qcow2Error>> {
        let mut bytes = [0; V3_LENGTH as usize + 8];
        if super::read_at(file, 0, &mut bytes)? < V2_LENGTH {
            return Ok(Err(Qcow2Error::NotQcow2));
        }
        let mut header = match check(&bytes, super::length(file)?, writable) {
            Ok(header) => header,
            Err(error) => return Ok(Err(error)),
        };
        let name = (be64(&bytes, 8), be32(&bytes, 16) as usize);
        if let (offset @ 1.., length) = name {
            let mut name = vec![0; length];
            file.read_exact_at(&mut name, offset)?;
            header.backing = Some(String::from_utf8_lossy(&name).into_owned());
        }
        Ok(Ok(header))
    }
}

fn be32(bytes: &[u8], at: usize) -> u32 {
    bytes[at..at + 4]
        .iter()
        .fold(0, |all, &b| all << 8 | u32::from(b))
}

fn be64(bytes: &[u8], at: usize) -> u64 {
    bytes[at..at + 8]
        .iter()
        .fold(0, |all, &b| all << 8 | u64::from(b))
}

/// What a set bit of a version 3 header's incompatible features means for us.
const INCOMPATIBLE: [(u64, &str); 5] = [
    (
        1 << 0,
        "was not closed properly; repair it with `qemu-img check -r all`",
    ),
    (
        1 << 1,
        "is marked as damaged; repair it with `qemu-img check -r all`",
    ),
    (
        1 << 2,
        "keeps its data in another file; put both in one with `qemu-img convert -O qcow2`",
    ),
    (
        1 << 3,
        "is compressed with zstd; convert it with `qemu-img convert -O qcow2`",
    ),
    (
        1 << 4,
        "has extended L2 entries; convert it with `qemu-img convert -O qcow2`",
    ),
];

/// Checks a header (with zeroes after its end) of a file of `file_length` bytes.
fn check(
    bytes: &[u8; V3_LENGTH as usize + 8],
    file_length: u64,
    writable: bool,
) -> Result<Header, Qcow2Error> {
    let field = |field, value: u64| Qcow2Error::Field { field, value };
    if be32(bytes, 0) != MAGIC {
        return Err(Qcow2Error::NotQcow2);
    }
    let version = be32(bytes, 4);
    let cluster_bits = be32(bytes, 20);
    if !CLUSTER_BITS.contains(&cluster_bits) {
        return Err(field(
            "cluster size (as a power of two)",
            cluster_bits.into(),
        ));
    }
    let cluster = 1u64 << cluster_bits;
    let refcount_order = match version {
        2 => 4,
        3 => {
            let features = be64(bytes, 72);
            if let Some((_, why)) = INCOMPATIBLE.iter().find(|(bit, _)| features & bit != 0) {
                return Err(Qcow2Error::Unsupported(why));
            }
            if features != 0 {
                return Err(Qcow2Error::Unsupported(
                    "has a feature that is not known here; convert it with `qemu-img convert -O qcow2`",
                ));
            }
            if writable && be64(bytes, 88) & AUTOCLEAR_BITMAPS != 0 {
                return Err(Qcow2Error::ReadOnly(
                    "has dirty bitmaps, which writing would spoil; remove them with `qemu-img bitmap --remove`",
                ));
            }
            let refcount_order = be32(bytes, 96);
            if refcount_order > 6 {
                return Err(field(
                    "refcount width (as a power of two)",
                    refcount_order.into(),
                ));
            }
            let header = be32(bytes, 100);
            if header < V3_LENGTH || u64::from(header) > cluster || !header.is_multiple_of(8) {
                return Err(field("header length", header.into()));
            }
            refcount_order
        }
        other => return Err(Qcow2Error::Version(other)),
    };
    if be32(bytes, 32) != 0 {
        return Err(Qcow2Error::Unsupported(
            "is encrypted; convert it with `qemu-img convert`, and encrypt the host's disk instead",
        ));
    }
    if writable && be32(bytes, 60) != 0 {
        return Err(Qcow2Error::ReadOnly(
            "has internal snapshots; delete them with `qemu-img snapshot -d`",
        ));
    }
    let size = be64(bytes, 24);
    if size > MAX_SIZE {
        return Err(field("disk size", size));
    }
    let table = |name, offset: u64, length: u64, most: u64, least: u64| {
        if !offset.is_multiple_of(cluster) || offset == 0 {
            return Err(field(name, offset));
        }
        if length > most || length < least {
            return Err(field(name, length));
        }
        match offset.checked_add(length) {
            Some(end) if end <= file_length.next_multiple_of(cluster) => {
                Ok(Table { offset, length })
            }
            _ => Err(Qcow2Error::Cut(name)),
        }
    };
    // An L2 table fills a cluster with entries of 8 bytes, each for a cluster.
    let covered = cluster * (cluster / 8);
    let l1 = (be64(bytes, 40), u64::from(be32(bytes, 36)) * 8);
    let l1_table = match (size, l1) {
        (0, (_, 0)) => Table {
            offset: 0,
            length: 0,
        },
        (_, (offset, length)) => {
            let least = size.div_ceil(covered) * 8;
            table("L1 table", offset, length, MAX_L1, least)?
        }
    };
    let refcount_table = table(
        "refcount table",
        be64(bytes, 48),
        u64::from(be32(bytes, 56)) * cluster,
        MAX_REFTABLE.max(cluster),
        cluster,
    )?;
    let (name, name_length) = (be64(bytes, 8), u64::from(be32(bytes, 16)));
    if name != 0
        && (name_length > 1023 || name.saturating_add(name_length) > cluster.min(file_length))
    {
        return Err(field("backing file name's place", name));
    }
    Ok(Header {
        size,
        cluster_bits,
        refcount_order,
        refcount_table,
        l1_table,
        backing: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: u64 = 1 << 20;

    /// The header of an empty image of 64 MiB with clusters of 64 KiB.
    fn sound() -> [u8; V3_LENGTH as usize + 8] {
        let mut bytes = [0; V3_LENGTH as usize + 8];
        let mut put = |at: usize, field: &[u8]| bytes[at..at + field.len()].copy_from_slice(field);
        put(0, &MAGIC.to_be_bytes());
        put(4, &3u32.to_be_bytes());
        put(20, &16u32.to_be_bytes());
        put(24, &(64u64 << 20).to_be_bytes());
        put(36, &1u32.to_be_bytes());
        put(40, &0x3_0000u64.to_be_bytes());
        put(48, &0x1_0000u64.to_be_bytes());
        put(56, &1u32.to_be_bytes());
        put(96, &4u32.to_be_bytes());
        put(100, &V3_LENGTH.to_be_bytes());
        bytes
    }

    /// What is said of a sound header with `field` at `at`.
    fn said_of(at: usize, field: &[u8]) -> String {
        let mut bytes = sound();
        bytes[at..at + field.len()].copy_from_slice(field);
        check(&bytes, FILE, true).err().unwrap().to_string()
    }

    #[test]
    fn a_sound_header_is_taken() {
        let header = check(&sound(), FILE, true).unwrap();

        assert_eq!((header.size, header.cluster()), (64 << 20, 65536));
    }

    #[test]
    fn what_can_not_be_done_is_refused_by_name() {
        for (at, field, word) in [
            (0, &[0u8; 4][..], "does not begin"),
            (4, &[0, 0, 0, 4], "version is 4"),
            (20, &[0, 0, 0, 40], "cluster size"),
            (24, &[0xff; 8], "disk size"),
            (32, &[0, 0, 0, 2], "encrypted"),
            (36, &[0xff; 4], "L1 table"),
            (36, &[0; 4], "L1 table"),
            (40, &[0, 0, 0, 0, 0, 0, 2, 0], "L1 table"),
            (40, &[0, 0, 0, 1, 0, 0, 0, 0], "past the end"),
            (48, &[0xff; 8], "refcount table"),
            (56, &[0xff; 4], "refcount table"),
            (60, &[0, 0, 0, 1], "internal snapshots"),
            (72, &[0, 0, 0, 0, 0, 0, 0, 1], "not closed"),
            (72, &[0, 0, 0, 0, 0, 0, 0, 4], "another file"),
            (72, &[0, 0, 0, 0, 0, 0, 0, 8], "zstd"),
            (72, &[1, 0, 0, 0, 0, 0, 0, 0], "not known"),
            (88, &[0, 0, 0, 0, 0, 0, 0, 1], "bitmaps"),
            (96, &[0, 0, 0, 7], "refcount width"),
            (100, &[0, 0, 0, 8], "header length"),
            (8, &[0xff; 8], "backing file name"),
        ] {
            let said = said_of(at, field);

            assert!(said.contains(word), "{said:?} does not say {word:?}");
        }
    }

    #[test]
    fn snapshots_are_no_harm_to_a_reader() {
        let mut bytes = sound();
        bytes[63] = 1;

        assert!(check(&bytes, FILE, false).is_ok());
    }
}
