//! What fw_cfg offers: a few numbered items, and named files with a directory of them.

use std::collections::BTreeMap;

use caraway_arch::Layout;

/// Numbered items (QEMU `include/standard-headers/linux/qemu_fw_cfg.h` and SeaBIOS
/// `src/fw/paravirt.h`).
mod key {
    pub(super) const SIGNATURE: u16 = 0x00;
    pub(super) const FEATURES: u16 = 0x01;
    pub(super) const UUID: u16 = 0x02;
    pub(super) const RAM_SIZE: u16 = 0x03;
    pub(super) const NO_GRAPHIC: u16 = 0x04;
    pub(super) const CPUS: u16 = 0x05;
    pub(super) const NUMA: u16 = 0x0d;
    pub(super) const BOOT_MENU: u16 = 0x0e;
    pub(super) const MAX_CPUS: u16 = 0x0f;
    pub(super) const DIRECTORY: u16 = 0x19;
    pub(super) const FIRST_FILE: u16 = 0x20;
    pub(super) const IRQ0_OVERRIDE: u16 = 0x8002;
}

/// Both ways in: the ports, and DMA.
const FEATURES: u32 = 0b11;
/// A file's name takes this much of the directory, with its NUL.
const NAME_SIZE: usize = 56;
/// As many files as there are keys for below the numbers with other meanings.
const MAX_FILES: usize = 0x1000;

/// Files that can't be offered.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ItemsError {
    /// The directory has no room for the name.
    #[error("the fw_cfg file name {name:?} is empty, has a NUL or more than 55 bytes")]
    Name {
        /// The name.
        name: String,
    },
    /// The directory has no room for the file, or its size can't be written down.
    #[error("fw_cfg can't take the file {name:?} of {size} bytes")]
    Full {
        /// The file's name.
        name: String,
        /// Its size in bytes.
        size: usize,
    },
}

/// What firmware asks about the boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Boot {
    /// Whether SeaBIOS offers its boot menu.
    pub menu: bool,
    /// How long SeaBIOS shows that it found nothing to boot before it restarts, in milliseconds;
    /// `None` for never.
    pub retry_after_ms: Option<u32>,
}

/// All items, by number.
#[derive(Debug, Clone)]
pub struct Items {
    numbered: BTreeMap<u16, Vec<u8>>,
    files: BTreeMap<String, Vec<u8>>,
    /// The directory and the files in its order; made again with each file.
    directory: Vec<u8>,
    keys: Vec<String>,
}

impl Items {
    /// What every machine tells: its memory, its `cpus` processors, its `uuid`, how it boots.
    pub fn new(layout: &Layout, cpus: u16, uuid: [u8; 16], boot: Boot) -> Self {
        let mut items = Self {
            numbered: BTreeMap::from([
                (key::SIGNATURE, b"QEMU".to_vec()),
                (key::FEATURES, FEATURES.to_le_bytes().to_vec()),
                (key::UUID, uuid.to_vec()),
                (key::RAM_SIZE, layout.memory().to_le_bytes().to_vec()),
                (key::NO_GRAPHIC, vec![0; 2]),
                (key::CPUS, cpus.to_le_bytes().to_vec()),
                (key::NUMA, vec![0; 8]),
                (key::BOOT_MENU, u16::from(boot.menu).to_le_bytes().to_vec()),
                (key::MAX_CPUS, cpus.to_le_bytes().to_vec()),
                (key::IRQ0_OVERRIDE, 1u32.to_le_bytes().to_vec()),
            ]),
            files: BTreeMap::new(),
            directory: vec![0; 4],
            keys: Vec::new(),
        };
        let wait = boot.retry_after_ms.unwrap_or(u32::MAX);
        let files = [
            ("etc/e820", e820(layout)),
            ("etc/boot-fail-wait", wait.to_le_bytes().to_vec()),
            (
                "etc/show-boot-menu",
                u16::from(boot.menu).to_le_bytes().to_vec(),
            ),
            // For S0 to S5: bit 7 tells that there is the state, the rest is its sleep type.
            ("etc/system-states", vec![0x80, 0, 0, 1, 2, 0x80]),
        ];
        items
            .files
            .extend(files.map(|(name, bytes)| (name.to_owned(), bytes)));
        items.index();
        items
    }

    /// Offers `bytes` as the file `name`, in place of one with that name.
    ///
    /// # Errors
    /// [`ItemsError`] if the name does not fit into the directory or the directory is full.
    pub fn add_file(&mut self, name: &str, bytes: Vec<u8>) -> Result<(), ItemsError> {
        if name.is_empty() || name.len() >= NAME_SIZE || name.bytes().any(|byte| byte == 0) {
            return Err(ItemsError::Name {
                name: name.to_owned(),
            });
        }
        let is_new = !self.files.contains_key(name);
        if is_new && self.files.len() >= MAX_FILES || u32::try_from(bytes.len()).is_err() {
            return Err(ItemsError::Full {
                name: name.to_owned(),
                size: bytes.len(),
            });
        }
        self.files.insert(name.to_owned(), bytes);
        self.index();
        Ok(())
    }

    /// The file `name`.
    pub fn file(&self, name: &str) -> Option<&[u8]> {
        self.files.get(name).map(Vec::as_slice)
    }

    /// The item under the number `key`.
    pub fn get(&self, key: u16) -> Option<&[u8]> {
        if key == key::DIRECTORY {
            return Some(&self.directory);
        }
        match key.checked_sub(key::FIRST_FILE) {
            Some(index) if usize::from(index) < self.keys.len() => {
                self.file(self.keys.get(usize::from(index))?)
            }
            _ => self.numbered.get(&key).map(Vec::as_slice),
        }
    }

    /// Makes the directory: a count, then size, key, 2 bytes of nothing and name of each file, big
    /// endian, sorted by name.
    fn index(&mut self) {
        self.keys = self.files.keys().cloned().collect();
        let count = u32::try_from(self.files.len()).unwrap_or(0);
        self.directory = count.to_be_bytes().to_vec();
        for (key, (name, bytes)) in (key::FIRST_FILE..).zip(&self.files) {
            let size = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
            self.directory.extend(size.to_be_bytes());
            self.directory.extend(key.to_be_bytes());
            self.directory.extend([0; 2]);
            self.directory.extend(name.as_bytes());
            self.directory
                .extend(std::iter::repeat_n(0, NAME_SIZE.saturating_sub(name.len())));
        }
    }
}

/// RAM and what is taken of it: address, size, kind, 20 bytes a line.
fn e820(layout: &Layout) -> Vec<u8> {
    let mut bytes = Vec::new();
    for entry in layout.e820_for_firmware() {
        bytes.extend(entry.range.start().to_le_bytes());
        bytes.extend(entry.range.size().to_le_bytes());
        bytes.extend((entry.kind as u32).to_le_bytes());
    }
    bytes
}

/// The name under which SeaBIOS and OVMF look for a PCI function's option ROM before its ROM BAR.
/// SeaBIOS then tells the ROM which function it belongs to, as a VGA BIOS needs.
pub fn option_rom(vendor: u16, device: u16) -> String {
    format!("pci{vendor:04x},{device:04x}.rom")
}

/// The Open Firmware path of a virtio-blk disk at `slot`.`function` of bus 0.
pub fn boot_disk(slot: u8, function: u8) -> String {
    match function {
        0 => format!("/pci@i0cf8/scsi@{slot:x}/disk@0,0"),
        function => format!("/pci@i0cf8/scsi@{slot:x},{function:x}/disk@0,0"),
    }
}

/// The file `bootorder`: such paths, the first to be tried first.
pub fn boot_order(paths: &[String]) -> Vec<u8> {
    let mut text = paths.join("\n").into_bytes();
    text.push(0);
    text
}
