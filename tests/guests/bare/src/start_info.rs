//! What PVH hands over (`hvm_start_info`, xen/include/public/arch-x86/hvm/start_info.h).

use core::ffi::CStr;

use crate::cpu::read;

const MAGIC: u32 = 0x336e_c578;

/// The machine as its loader describes it.
pub struct StartInfo {
    command_line: &'static str,
    rsdp: u64,
    memory_map: u64,
    memory_ranges: u32,
    modules: u64,
    module_count: u32,
}

/// One range of the memory map.
#[derive(Clone, Copy)]
pub struct MemoryRange {
    /// Its first byte.
    pub start: u64,
    /// Bytes.
    pub size: u64,
    /// E820's types: 1 is RAM.
    pub kind: u32,
}

impl StartInfo {
    /// The structure at `address`.
    pub fn at(address: u64) -> Self {
        assert_eq!(read::<u32>(address), MAGIC, "no PVH start info");
        let command_line = match read::<u64>(address + 24) {
            0 => "",
            text => {
                // SAFETY: the loader puts a zero-terminated text there, which nobody changes.
                let text = unsafe { CStr::from_ptr(text as *const _) };
                text.to_str().unwrap_or("")
            }
        };
        let versioned = read::<u32>(address + 4) >= 1;
        Self {
            command_line,
            rsdp: read(address + 32),
            module_count: read(address + 12),
            modules: read(address + 16),
            memory_map: if versioned { read(address + 40) } else { 0 },
            memory_ranges: if versioned { read(address + 48) } else { 0 },
        }
    }

    /// The address of the ACPI root pointer.
    pub fn rsdp(&self) -> u64 {
        self.rsdp
    }

    /// The value of the first `key=value` on the command line.
    pub fn option(&self, key: &str) -> Option<&'static str> {
        let mut words = self.command_line.split_ascii_whitespace();
        words.find_map(|word| word.strip_prefix(key)?.strip_prefix('='))
    }

    /// The number in `key=value`, or `otherwise`.
    pub fn number(&self, key: &str, otherwise: u64) -> u64 {
        self.option(key)
            .and_then(|text| text.parse().ok())
            .unwrap_or(otherwise)
    }

    /// Whether the command line has this word.
    pub fn has(&self, word: &str) -> bool {
        self.command_line
            .split_ascii_whitespace()
            .any(|other| other == word)
    }

    /// The first byte and the length of the file that came along (the initrd of others).
    pub fn module(&self) -> Option<(u64, u64)> {
        (self.module_count > 0).then(|| (read(self.modules), read(self.modules + 8)))
    }

    /// The memory map, in the loader's order.
    pub fn memory(&self) -> impl Iterator<Item = MemoryRange> {
        let map = self.memory_map;
        (0..u64::from(self.memory_ranges)).map(move |index| {
            let entry = map + 24 * index;
            MemoryRange {
                start: read(entry),
                size: read(entry + 8),
                kind: read(entry + 16),
            }
        })
    }
}
