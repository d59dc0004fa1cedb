//! The script by which firmware places and links the tables: entries of 128 bytes, a command each.

use super::tables::{Block, Tables};

/// The fw_cfg file with the script.
pub const LOADER_FILE: &str = "etc/table-loader";
/// The fw_cfg file with the root pointer.
pub const RSDP_FILE: &str = "etc/acpi/rsdp";
/// The fw_cfg file with all other tables.
pub const TABLES_FILE: &str = "etc/acpi/tables";

const ENTRY: usize = 128;
const NAME: usize = 56;
const ALLOCATE: u32 = 1;
const ADD_POINTER: u32 = 2;
const ADD_CHECKSUM: u32 = 3;

/// Where ALLOCATE may place a file.
#[derive(Clone, Copy)]
enum Zone {
    High = 1,
    /// Between 0xf0000 and 1 MiB, where guests look for the root pointer.
    FSegment = 2,
}

impl Block {
    const fn file(self) -> &'static str {
        match self {
            Self::Rsdp => RSDP_FILE,
            Self::Tables => TABLES_FILE,
        }
    }
}

struct Entry(Vec<u8>);

impl Entry {
    fn new(command: u32) -> Self {
        Self(command.to_le_bytes().to_vec())
    }

    fn name(mut self, name: &str) -> Self {
        let end = self.0.len() + NAME;
        self.0.extend(name.bytes().take(NAME - 1));
        self.0.resize(end, 0);
        self
    }

    fn number(mut self, number: usize) -> Self {
        let number = u32::try_from(number).unwrap_or(u32::MAX);
        self.0.extend(number.to_le_bytes());
        self
    }

    fn byte(mut self, byte: u8) -> Self {
        self.0.push(byte);
        self
    }

    fn finish(mut self, script: &mut Vec<u8>) {
        self.0.resize(ENTRY, 0);
        script.extend(self.0);
    }
}

impl Tables {
    /// The files for [`crate::fw_cfg::Items::add_file`], with their names.
    pub fn files(&self) -> [(&'static str, Vec<u8>); 3] {
        [
            (LOADER_FILE, self.script()),
            (RSDP_FILE, self.rsdp.clone()),
            (TABLES_FILE, self.tables.clone()),
        ]
    }

    /// First places for both files, then addresses, then checksums over the result.
    fn script(&self) -> Vec<u8> {
        let mut script = Vec::new();
        for (file, align, zone) in [
            (TABLES_FILE, 64, Zone::High),
            (RSDP_FILE, 16, Zone::FSegment),
        ] {
            Entry::new(ALLOCATE)
                .name(file)
                .number(align)
                .byte(zone as u8)
                .finish(&mut script);
        }
        for pointer in &self.pointers {
            Entry::new(ADD_POINTER)
                .name(pointer.block.file())
                .name(TABLES_FILE)
                .number(pointer.offset)
                .byte(pointer.size)
                .finish(&mut script);
        }
        for checksum in &self.checksums {
            Entry::new(ADD_CHECKSUM)
                .name(checksum.block.file())
                .number(checksum.offset)
                .number(checksum.start)
                .number(checksum.length)
                .finish(&mut script);
        }
        script
    }
}
