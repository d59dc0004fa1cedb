//! The tables as one block of bytes with the places where addresses and checksums belong.

use acpi_tables::sdt::Sdt;
use caraway_arch::GuestMemory;
use caraway_arch::layout::{ACPI_SIZE, ACPI_START};
use vm_memory::{Bytes, GuestAddress, GuestMemoryError};

use super::fixed;

/// Every table starts at a multiple of this, the FACS needs it.
const ALIGN: usize = 64;
/// Where the checksum is in every table but the FACS.
const CHECKSUM: usize = 9;
const HEADER: usize = 36;
const RSDP_SIZE: usize = 36;

/// Which of the two blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Block {
    /// The root pointer, which guests search for below 1 MiB.
    Rsdp,
    /// Everything else.
    Tables,
}

/// A place that gets the address of the tables added to the offset that is there.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pointer {
    pub(super) block: Block,
    pub(super) offset: usize,
    /// 4 or 8 bytes.
    pub(super) size: u8,
}

/// A byte that makes a range sum up to 0.
#[derive(Debug, Clone, Copy)]
pub(super) struct Checksum {
    pub(super) block: Block,
    pub(super) offset: usize,
    pub(super) start: usize,
    pub(super) length: usize,
}

/// A field of a table that points to another one, which is at `target` in the block.
#[derive(Debug, Clone, Copy)]
pub(super) struct Link {
    pub(super) field: usize,
    pub(super) size: u8,
    pub(super) target: usize,
}

/// Where the tables could not be placed.
#[derive(Debug, thiserror::Error)]
pub enum PlaceError {
    /// More than there is room for.
    #[error("the ACPI tables have {size} bytes; there is room for {ACPI_SIZE}")]
    Size {
        /// Their size in bytes, with the root pointer.
        size: usize,
    },
    /// Guest memory does not take them.
    #[error("guest memory at {ACPI_START:#x} can't take the ACPI tables")]
    Memory(#[source] GuestMemoryError),
}

/// All tables of a machine, not yet at any address.
#[derive(Debug, Clone)]
pub struct Tables {
    pub(super) rsdp: Vec<u8>,
    pub(super) tables: Vec<u8>,
    pub(super) pointers: Vec<Pointer>,
    pub(super) checksums: Vec<Checksum>,
}

impl Tables {
    pub(super) fn new() -> Self {
        Self {
            rsdp: Vec::new(),
            tables: Vec::new(),
            pointers: Vec::new(),
            checksums: Vec::new(),
        }
    }

    fn append(&mut self, bytes: &[u8]) -> usize {
        let offset = self.tables.len().next_multiple_of(ALIGN);
        self.tables.resize(offset, 0);
        self.tables.extend_from_slice(bytes);
        offset
    }

    /// The FACS, the one table without a checksum. Gives its offset.
    pub(super) fn add_facs(&mut self, bytes: &[u8]) -> usize {
        self.append(bytes)
    }

    /// A table and its links. Gives its offset.
    pub(super) fn add(&mut self, table: &Sdt, links: &[Link]) -> usize {
        let bytes = table.as_slice();
        let offset = self.append(bytes);
        for link in links {
            let at = offset + link.field;
            put(&mut self.tables, at, link.size, link.target as u64);
            self.pointers.push(Pointer {
                block: Block::Tables,
                offset: at,
                size: link.size,
            });
        }
        self.checksums.push(Checksum {
            block: Block::Tables,
            offset: offset + CHECKSUM,
            start: offset,
            length: bytes.len(),
        });
        offset
    }

    /// Adds RSDT, XSDT and the root pointer to them.
    pub(super) fn finish(mut self, tables: &[usize]) -> Self {
        let root = |signature, entry: u8| {
            let size = HEADER + tables.len() * usize::from(entry);
            fixed::table(signature, size, 1)
        };
        let links = |entry: u8| -> Vec<Link> {
            (HEADER..)
                .step_by(usize::from(entry))
                .zip(tables)
                .map(|(field, &target)| Link {
                    field,
                    size: entry,
                    target,
                })
                .collect()
        };
        let rsdt = self.add(&root(*b"RSDT", 4), &links(4));
        let xsdt = self.add(&root(*b"XSDT", 8), &links(8));

        let mut rsdp = b"RSD PTR ".to_vec();
        rsdp.push(0);
        rsdp.extend(fixed::OEM_ID);
        rsdp.push(2);
        rsdp.resize(RSDP_SIZE, 0);
        put(&mut rsdp, 16, 4, rsdt as u64);
        put(&mut rsdp, 20, 4, RSDP_SIZE as u64);
        put(&mut rsdp, 24, 8, xsdt as u64);
        self.rsdp = rsdp;
        for (offset, size) in [(16, 4), (24, 8)] {
            self.pointers.push(Pointer {
                block: Block::Rsdp,
                offset,
                size,
            });
        }
        // The first 20 bytes as ACPI 1.0 knew them, then all.
        for (offset, length) in [(8, 20), (32, RSDP_SIZE)] {
            self.checksums.push(Checksum {
                block: Block::Rsdp,
                offset,
                start: 0,
                length,
            });
        }
        // Firmware adds addresses and sums up itself: it starts from checksums of 0.
        for checksum in self.checksums.clone() {
            put(self.block(checksum.block), checksum.offset, 1, 0);
        }
        self
    }

    fn block(&mut self, block: Block) -> &mut Vec<u8> {
        match block {
            Block::Rsdp => &mut self.rsdp,
            Block::Tables => &mut self.tables,
        }
    }

    /// Writes the tables to [`ACPI_START`], linked, and gives the address of the root pointer,
    /// which is on top of them.
    ///
    /// # Errors
    /// [`PlaceError`] if they don't fit.
    pub fn place(&self, memory: &GuestMemory) -> Result<u64, PlaceError> {
        let tables_at = ACPI_START + RSDP_SIZE.next_multiple_of(ALIGN) as u64;
        let size = self.tables.len() + RSDP_SIZE.next_multiple_of(ALIGN);
        if size as u64 > ACPI_SIZE {
            return Err(PlaceError::Size { size });
        }
        let resolved = self.resolve(tables_at);
        memory
            .write_slice(&resolved.rsdp, GuestAddress(ACPI_START))
            .and_then(|()| memory.write_slice(&resolved.tables, GuestAddress(tables_at)))
            .map_err(PlaceError::Memory)?;
        Ok(ACPI_START)
    }

    /// The tables as they are once they are at `address`.
    pub(super) fn resolve(&self, address: u64) -> Self {
        let mut done = self.clone();
        for pointer in &self.pointers {
            let block = done.block(pointer.block);
            let offset = get(block, pointer.offset, pointer.size);
            put(
                block,
                pointer.offset,
                pointer.size,
                offset.wrapping_add(address),
            );
        }
        for checksum in &self.checksums {
            let block = done.block(checksum.block);
            let sum = block
                .iter()
                .skip(checksum.start)
                .take(checksum.length)
                .fold(0u8, |sum, byte| sum.wrapping_add(*byte));
            put(block, checksum.offset, 1, u64::from(0u8.wrapping_sub(sum)));
        }
        done
    }
}

fn put(bytes: &mut [u8], offset: usize, size: u8, value: u64) {
    let field = bytes.iter_mut().skip(offset).take(usize::from(size));
    for (place, byte) in field.zip(value.to_le_bytes()) {
        *place = byte;
    }
}

fn get(bytes: &[u8], offset: usize, size: u8) -> u64 {
    let mut value = [0; 8];
    let field = bytes.iter().skip(offset).take(usize::from(size));
    for (place, byte) in value.iter_mut().zip(field) {
        *place = *byte;
    }
    u64::from_le_bytes(value)
}
