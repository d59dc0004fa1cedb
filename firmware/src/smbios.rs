//! SMBIOS tables (DMTF DSP0134, 2.8): who made the machine, its processors and its memory.

use caraway_arch::layout::{GIB, KIB, MIB, SMBIOS_SIZE, SMBIOS_START};
use caraway_arch::{GuestMemory, Layout};
use vm_memory::{Bytes, GuestAddress, GuestMemoryError};

/// The fw_cfg file with the entry point.
pub const ANCHOR_FILE: &str = "etc/smbios/smbios-anchor";
/// The fw_cfg file with the structures.
pub const TABLES_FILE: &str = "etc/smbios/smbios-tables";

const ANCHOR_SIZE: u64 = 0x20;
const MAKER: &str = "Caraway";
/// A string of one structure, longer ones are cut: readers take 64 characters at least.
const STRING_MAX: usize = 64;

/// What the tables tell.
#[derive(Debug, Clone, Copy)]
pub struct Identity<'a> {
    /// The machine's name from its config.
    pub name: &'a str,
    /// Its UUID, in the order in which one writes it.
    pub uuid: [u8; 16],
    /// How many processors it has.
    pub cpus: u16,
    /// Its memory.
    pub layout: &'a Layout,
}

/// SMBIOS in two parts: as firmware gets them, or placed by [`Smbios::place`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Smbios {
    /// The entry point; its address and checksums are firmware's to write.
    pub anchor: Vec<u8>,
    /// The structures.
    pub tables: Vec<u8>,
}

/// Tables that don't fit.
#[derive(Debug, thiserror::Error)]
pub enum SmbiosError {
    /// More than there is room for.
    #[error("the SMBIOS tables have {size} bytes; there is room for {SMBIOS_SIZE}")]
    Size {
        /// Their size in bytes, with the entry point.
        size: u64,
    },
    /// Guest memory does not take them.
    #[error("guest memory at {SMBIOS_START:#x} can't take the SMBIOS tables")]
    Memory(#[source] GuestMemoryError),
}

/// One structure: type, handle, fields after the header, strings.
struct Structure {
    bytes: Vec<u8>,
    strings: Vec<u8>,
    count: u8,
}

impl Structure {
    fn new(kind: u8, handle: u16) -> Self {
        let mut bytes = vec![kind, 0];
        bytes.extend(handle.to_le_bytes());
        Self {
            bytes,
            strings: Vec::new(),
            count: 0,
        }
    }

    fn put(mut self, field: &[u8]) -> Self {
        self.bytes.extend_from_slice(field);
        self
    }

    /// A string, by its number; 0 for none.
    fn text(mut self, text: &str) -> Self {
        let clean: Vec<u8> = text
            .bytes()
            .filter(|byte| (0x20..0x7f).contains(byte))
            .take(STRING_MAX)
            .collect();
        if clean.is_empty() {
            self.bytes.push(0);
        } else {
            self.count += 1;
            self.bytes.push(self.count);
            self.strings.extend(clean);
            self.strings.push(0);
        }
        self
    }

    fn finish(mut self, tables: &mut Tables) {
        let length = u8::try_from(self.bytes.len()).unwrap_or(u8::MAX);
        if let Some(place) = self.bytes.get_mut(1) {
            *place = length;
        }
        if self.strings.is_empty() {
            self.strings.push(0);
        }
        self.strings.push(0);
        let size = self.bytes.len() + self.strings.len();
        tables.count += 1;
        tables.largest = tables.largest.max(size);
        tables.bytes.extend(self.bytes);
        tables.bytes.extend(self.strings);
    }
}

#[derive(Default)]
struct Tables {
    bytes: Vec<u8>,
    count: u16,
    largest: usize,
}

impl Smbios {
    /// The tables of one machine.
    pub fn new(identity: &Identity<'_>) -> Self {
        let mut tables = Tables::default();
        bios(&mut tables);
        system(&mut tables, identity);
        chassis(&mut tables);
        for cpu in 0..identity.cpus {
            processor(&mut tables, cpu);
        }
        memory(&mut tables, identity.layout);
        Structure::new(32, 0x2000)
            .put(&[0; 6])
            .put(&[0])
            .finish(&mut tables);
        Structure::new(127, 0x7f00).finish(&mut tables);
        let anchor = anchor(&tables, 0);
        Self {
            anchor,
            tables: tables.bytes,
        }
    }

    /// Writes entry point and structures to [`SMBIOS_START`], where a kernel without firmware
    /// finds them.
    ///
    /// # Errors
    /// [`SmbiosError`] if they don't fit.
    pub fn place(&self, memory: &GuestMemory) -> Result<(), SmbiosError> {
        let size = ANCHOR_SIZE + self.tables.len() as u64;
        if size > SMBIOS_SIZE {
            return Err(SmbiosError::Size { size });
        }
        let tables = SMBIOS_START + ANCHOR_SIZE;
        let mut anchor = self.anchor.clone();
        seal(&mut anchor, tables as u32);
        memory
            .write_slice(&anchor, GuestAddress(SMBIOS_START))
            .and_then(|()| memory.write_slice(&self.tables, GuestAddress(tables)))
            .map_err(SmbiosError::Memory)
    }
}

/// The 2.1 entry point (section 5.2.1).
fn anchor(tables: &Tables, address: u32) -> Vec<u8> {
    let mut anchor = b"_SM_".to_vec();
    anchor.extend([0, 0x1f, 2, 8]); // checksum, length, version
    anchor.extend(clamp(tables.largest as u64).to_le_bytes());
    anchor.extend([0; 6]); // revision, formatted area
    anchor.extend(b"_DMI_\0");
    anchor.extend(clamp(tables.bytes.len() as u64).to_le_bytes());
    anchor.extend([0; 4]); // address
    anchor.extend(tables.count.to_le_bytes());
    anchor.push(0x28);
    seal(&mut anchor, address);
    anchor
}

/// Writes the address of the structures and both checksums.
fn seal(anchor: &mut [u8], address: u32) {
    if let Some(place) = anchor.get_mut(0x18..0x1c) {
        place.copy_from_slice(&address.to_le_bytes());
    }
    for (start, at) in [(0x10, 0x15), (0, 0x04)] {
        if let Some(place) = anchor.get_mut(at) {
            *place = 0;
        }
        let sum = anchor
            .iter()
            .skip(start)
            .fold(0u8, |sum, byte| sum.wrapping_add(*byte));
        if let Some(place) = anchor.get_mut(at) {
            *place = 0u8.wrapping_sub(sum);
        }
    }
}

fn clamp(value: u64) -> u16 {
    u16::try_from(value).unwrap_or(u16::MAX)
}

fn bios(tables: &mut Tables) {
    Structure::new(0, 0)
        .text(MAKER)
        .text(env!("CARGO_PKG_VERSION"))
        .put(&0xe800u16.to_le_bytes()) // starting segment
        .text("01/01/2025")
        .put(&[0]) // 64 KiB of ROM
        .put(&(1u64 << 3).to_le_bytes()) // "characteristics not supported"
        .put(&[0, 1 << 4]) // a virtual machine
        .put(&[0, 0, 0xff, 0xff])
        .finish(tables);
}

fn system(tables: &mut Tables, identity: &Identity<'_>) {
    let [a, b, c, d, e, f, g, h, rest @ ..] = identity.uuid;
    Structure::new(1, 0x100)
        .text(MAKER)
        .text(identity.name)
        .text(env!("CARGO_PKG_VERSION"))
        .text("")
        .put(&[d, c, b, a, f, e, h, g]) // the first three fields are little endian
        .put(&rest)
        .put(&[6]) // woken by the power switch
        .text("")
        .text("Virtual Machine")
        .finish(tables);
}

fn chassis(tables: &mut Tables) {
    Structure::new(3, 0x300)
        .text(MAKER)
        .put(&[1]) // other
        .text("")
        .text("")
        .text("")
        .put(&[3, 3, 3, 2]) // safe, safe, safe, unknown
        .put(&[0; 4])
        .put(&[0, 0, 0, 0])
        .text("")
        .finish(tables);
}

fn processor(tables: &mut Tables, index: u16) {
    Structure::new(4, 0x400u16.wrapping_add(index))
        .text(&format!("CPU {index}"))
        .put(&[3, 1]) // central processor, family "other"
        .text(MAKER)
        .put(&[0; 8]) // id
        .text("")
        .put(&[0]) // voltage
        .put(&[0; 6]) // external clock, maximum and current speed: unknown
        .put(&[0x41, 1]) // populated and on; upgrade "other"
        .put(&[0xff; 6]) // no cache handles
        .text("")
        .text("")
        .text("")
        .put(&[1, 1, 1]) // cores, enabled cores, threads
        .put(&(1u16 << 2).to_le_bytes()) // 64 bits
        .put(&1u16.to_le_bytes())
        .finish(tables);
}

fn memory(tables: &mut Tables, layout: &Layout) {
    let array = 0x1000u16;
    let kib = layout.memory() / KIB;
    let (short, long) = match u32::try_from(kib) {
        Ok(kib) if kib < 0x8000_0000 => (kib, 0),
        _ => (0x8000_0000, layout.memory()),
    };
    Structure::new(16, array)
        .put(&[1, 3, 6]) // other place, system memory, multi-bit ECC
        .put(&short.to_le_bytes())
        .put(&0xfffeu16.to_le_bytes())
        .put(&1u16.to_le_bytes())
        .put(&long.to_le_bytes())
        .finish(tables);

    let mib = layout.memory() / MIB;
    let (short, long) = match u16::try_from(mib) {
        Ok(mib) if mib < 0x7fff => (mib, 0),
        _ => (0x7fff, u32::try_from(mib).unwrap_or(u32::MAX)),
    };
    Structure::new(17, 0x1100)
        .put(&array.to_le_bytes())
        .put(&[0xfe, 0xff, 0xff, 0xff, 0xff, 0xff]) // no error information, widths unknown
        .put(&short.to_le_bytes())
        .put(&[9, 0]) // a DIMM
        .text("DIMM 0")
        .text("")
        .put(&[7]) // RAM
        .put(&(1u16 << 1).to_le_bytes())
        .put(&[0, 0]) // speed
        .text(MAKER)
        .text("")
        .text("")
        .text("")
        .put(&[0])
        .put(&long.to_le_bytes())
        .put(&[0; 8])
        .finish(tables);

    for (handle, range) in (0x1300u16..).zip(layout.ram()) {
        // In KiB, which the 32 bits of the old fields hold up to 4 TiB.
        let (first, last) = (range.start() / KIB, range.last() / KIB);
        let narrow = range.end() <= 4096 * GIB;
        let (start, end, wide) = match (u32::try_from(first), u32::try_from(last)) {
            (Ok(first), Ok(last)) if narrow => (first, last, (0, 0)),
            _ => (u32::MAX, u32::MAX, (range.start(), range.last())),
        };
        Structure::new(19, handle)
            .put(&start.to_le_bytes())
            .put(&end.to_le_bytes())
            .put(&array.to_le_bytes())
            .put(&[1])
            .put(&wide.0.to_le_bytes())
            .put(&wide.1.to_le_bytes())
            .finish(tables);
    }
}

#[cfg(test)]
mod tests {
    use caraway_arch::{Backing, memory as guest};

    use super::*;

    fn smbios(name: &str) -> Smbios {
        let layout = Layout::new(6 * GIB, 48).unwrap();
        Smbios::new(&Identity {
            name,
            uuid: std::array::from_fn(|at| at as u8),
            cpus: 2,
            layout: &layout,
        })
    }

    /// Types of the structures, read as a guest reads them.
    fn kinds(tables: &[u8]) -> Vec<u8> {
        let (mut kinds, mut at) = (Vec::new(), 0);
        while at < tables.len() {
            kinds.push(tables[at]);
            at += usize::from(tables[at + 1]);
            at += tables[at..]
                .windows(2)
                .position(|pair| pair == [0, 0])
                .unwrap()
                + 2;
        }
        kinds
    }

    fn sum(bytes: &[u8]) -> u8 {
        bytes.iter().fold(0, |sum, byte| sum.wrapping_add(*byte))
    }

    #[test]
    fn all_structures_can_be_walked() {
        assert_eq!(
            kinds(&smbios("desk").tables),
            [0, 1, 3, 4, 4, 16, 17, 19, 19, 32, 127]
        );
    }

    #[test]
    fn structures_have_the_lengths_of_version_2_8() {
        let tables = smbios("desk").tables;
        let mut at = 0;
        let mut lengths = Vec::new();
        while at < tables.len() {
            lengths.push((tables[at], tables[at + 1]));
            at += usize::from(tables[at + 1]);
            at += tables[at..]
                .windows(2)
                .position(|pair| pair == [0, 0])
                .unwrap()
                + 2;
        }
        lengths.dedup();
        let expected = [
            (0, 0x18),
            (1, 0x1b),
            (3, 0x16),
            (4, 0x2a),
            (16, 0x17),
            (17, 0x28),
            (19, 0x1f),
            (32, 0x0b),
            (127, 4),
        ];
        assert_eq!(lengths, expected);
    }

    #[test]
    fn both_checksums_of_a_placed_anchor_are_right() {
        let memory = guest::create(&Layout::new(2 * MIB, 48).unwrap(), Backing::Anonymous).unwrap();
        smbios("desk").place(&memory).unwrap();
        let mut anchor = [0; 0x1f];
        memory
            .read_slice(&mut anchor, GuestAddress(SMBIOS_START))
            .unwrap();
        assert_eq!((sum(&anchor), sum(&anchor[0x10..])), (0, 0));
        assert_eq!(anchor[0x18..0x1c], 0xf_0020_u32.to_le_bytes());
    }

    #[test]
    fn a_name_that_is_not_ascii_is_cleaned_and_cut() {
        let tables = smbios(&format!("a\u{1f600}\0{}", "b".repeat(300))).tables;
        let name = format!("a{}\0", "b".repeat(63));
        assert!(tables.windows(65).any(|bytes| bytes == name.as_bytes()));
    }
}
