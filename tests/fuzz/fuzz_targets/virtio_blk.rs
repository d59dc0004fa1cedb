//! A virtio disk as a driver of no good will uses it: chains of descriptors, mostly sound.
//!
//! Checked: sound requests read and write what the disk's model says; the device writes to no guest
//! memory but its rings and what descriptors let it write; the image keeps its size; memory is
//! bounded.

#![no_main]

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::{Arc, LazyLock};

use caraway_devices::pci::PciFunction;
use caraway_devices::{FakeClock, FakeLine, FakeMsi, GuestMemory};
use caraway_fuzz::Dice;
use caraway_fuzz::memory::Gauge;
use caraway_virtio::block::{ImageConfig, ImageFormat};
use caraway_virtio::{Block, BlockConfig, NotifyRegistrar, VirtioPci};
use libfuzzer_sys::fuzz_target;
use vm_memory::{Bytes, GuestAddress};
use vmm_sys_util::eventfd::EventFd;

#[global_allocator]
static GAUGE: Gauge = Gauge::new();

/// Bytes of our side that a request may take.
const MOST_MEMORY: usize = 4 << 20;

const MEMORY: u64 = 256 << 10;
const SECTOR: usize = 512;
const SECTORS: usize = 64;
const QUEUE: u64 = 16;

/// Where the driver has its rings and requests.
const TABLE: u64 = 0x1000;
const AVAILABLE: u64 = 0x3000;
const USED: u64 = 0x5000;
const INDIRECT_TABLE: u64 = 0x6000;
const HEADER: u64 = 0x8000;
const STATUS: u64 = 0x9000;
const BUFFERS: u64 = 0x1_0000;

/// Registers of the common configuration (4.1.4.3) in BAR 4.
mod reg {
    pub const FEATURE_SELECT: u64 = 0x08;
    pub const FEATURE: u64 = 0x0c;
    pub const STATUS: u64 = 0x14;
    pub const QUEUE_SIZE: u64 = 0x18;
    pub const QUEUE_ENABLE: u64 = 0x1c;
    pub const QUEUE_DESC: u64 = 0x20;
    pub const QUEUE_DRIVER: u64 = 0x28;
    pub const QUEUE_DEVICE: u64 = 0x30;
}

const NEXT: u16 = 1;
const WRITE: u16 = 2;
const INDIRECT: u16 = 4;

const IN: u32 = 0;
const OUT: u32 = 1;
const OK: u8 = 0;

/// A bell that nobody hears.
struct Deaf;

impl NotifyRegistrar for Deaf {
    fn register(&self, _: u64, _: &EventFd) -> std::io::Result<()> {
        Ok(())
    }
    fn unregister(&self, _: u64, _: &EventFd) {}
}

static IMAGE: LazyLock<(PathBuf, File)> = LazyLock::new(|| {
    let path = PathBuf::from(format!("/tmp/caraway-fuzz-disk-{}", std::process::id()));
    let mut options = OpenOptions::new();
    let file = options.read(true).write(true).create(true).truncate(true);
    let file = file.open(&path).expect("a file can be made");
    file.set_len((SECTOR * SECTORS) as u64)
        .expect("the file grows");
    (path, file)
});

fuzz_target!(
    init: {
        LazyLock::force(&IMAGE);
    },
    |bytes: &[u8]| {
        let peak = GAUGE.peak_of(|| drive(Dice::new(bytes)));
        assert!(peak <= MOST_MEMORY, "{peak} bytes at a time");
    }
);

fn drive(mut dice: Dice<'_>) {
    let (path, file) = &*IMAGE;
    let mut model: Vec<u8> = (0..SECTOR * SECTORS)
        .map(|at| (at / SECTOR) as u8)
        .collect();
    file.write_all_at(&model, 0).expect("the image is ours");
    let mut driver = Driver::new(path.clone());
    while !dice.is_over() {
        let request = driver.request(&mut dice);
        let before = driver.snapshot();
        driver.pci.process_queue(0);
        driver.assert_untouched(&before);
        if let Some(Request {
            out,
            sector,
            buffers,
        }) = request
        {
            let end = (sector + buffers.iter().sum::<usize>() / SECTOR) * SECTOR;
            let disk = model.get_mut(sector * SECTOR..end);
            let expected = disk.as_ref().map_or(1, |_| OK);
            assert_eq!(
                driver.byte(STATUS),
                expected,
                "sector {sector}, {buffers:?}"
            );
            if let Some(disk) = disk {
                let data = driver.gather(&buffers);
                if out {
                    disk.copy_from_slice(&data);
                } else {
                    assert!(data == disk, "what was read is not what was written");
                }
            }
        } else {
            // Whatever that was, it may have been a write, or made the device give up.
            file.read_exact_at(&mut model, 0)
                .expect("the image keeps its size");
            driver.set_up();
        }
    }
    let mut disk = vec![0; model.len()];
    file.read_exact_at(&mut disk, 0)
        .expect("the image keeps its size");
    assert!(disk == model, "the disk is not what was written to it");
    let length = file.metadata().map_or(0, |data| data.len());
    assert_eq!(length, (SECTOR * SECTORS) as u64);
}

/// A sound read or write.
struct Request {
    out: bool,
    sector: usize,
    /// Bytes of each of its buffers, which are one after the other.
    buffers: Vec<usize>,
}

/// The driver's side.
struct Driver {
    pci: Arc<VirtioPci<Block>>,
    memory: GuestMemory,
    available: u16,
}

impl Driver {
    /// A driver that has set its device up.
    fn new(path: PathBuf) -> Self {
        let memory = GuestMemory::from_ranges(&[(GuestAddress(0), MEMORY as usize)])
            .expect("there is memory");
        let image = ImageConfig {
            path,
            format: ImageFormat::Raw,
        };
        let config = BlockConfig {
            synchronous: true,
            ..BlockConfig::new(image)
        };
        let block = Block::open(&config, FakeClock::new(0)).expect("the image is ours");
        let msi = FakeMsi::default();
        let pci = VirtioPci::new(
            Arc::new(block),
            memory.clone(),
            &msi,
            FakeLine::new(),
            Arc::new(Deaf),
        )
        .expect("a device can be made");
        let mut driver = Self {
            pci,
            memory,
            available: 0,
        };
        driver.set_up();
        driver
    }

    /// Sets the device up, which may have given up on its driver.
    fn set_up(&mut self) {
        self.available = 0;
        self.put(TABLE, &[0; (INDIRECT_TABLE - TABLE) as usize]);
        for status in [0u8, 1, 3] {
            self.set(reg::STATUS, &[status]);
        }
        // Version 1, indirect descriptors, flush, discard, write of zeroes.
        let features = [1 << 28 | 1 << 9 | 1 << 13 | 1 << 14, 1u32];
        for (half, bits) in (0u32..).zip(features) {
            self.set(reg::FEATURE_SELECT, &half.to_le_bytes());
            self.set(reg::FEATURE, &bits.to_le_bytes());
        }
        self.set(reg::STATUS, &[0xb]);
        self.set(reg::QUEUE_SIZE, &(QUEUE as u16).to_le_bytes());
        for (register, address) in [
            (reg::QUEUE_DESC, TABLE),
            (reg::QUEUE_DRIVER, AVAILABLE),
            (reg::QUEUE_DEVICE, USED),
        ] {
            self.set(register, &(address as u32).to_le_bytes());
            self.set(register + 4, &[0; 4]);
        }
        self.set(reg::QUEUE_ENABLE, &[1, 0]);
        self.set(reg::STATUS, &[0xf]);
    }

    fn set(&self, register: u64, value: &[u8]) {
        self.pci.bar_write(4, register, value);
    }

    fn put(&self, at: u64, bytes: &[u8]) {
        self.memory
            .write_slice(bytes, GuestAddress(at))
            .expect("the driver writes to its memory");
    }

    fn byte(&self, at: u64) -> u8 {
        self.memory.read_obj(GuestAddress(at)).expect("it is there")
    }

    fn snapshot(&self) -> Vec<u8> {
        let mut bytes = vec![0; MEMORY as usize];
        self.memory
            .read_slice(&mut bytes, GuestAddress(0))
            .expect("it is there");
        bytes
    }

    fn gather(&self, buffers: &[usize]) -> Vec<u8> {
        let mut bytes = vec![0; buffers.iter().sum()];
        self.memory
            .read_slice(&mut bytes, GuestAddress(BUFFERS))
            .expect("it is there");
        bytes
    }

    /// Makes a request available; what it is, if nothing is wrong with it.
    fn request(&mut self, dice: &mut Dice<'_>) -> Option<Request> {
        let mut is_sound = true;
        let mut mostly = |dice: &mut Dice<'_>, value: u64| {
            let got = dice.mostly(value);
            is_sound &= got == value;
            got
        };
        let kind = dice.pick(&[IN, OUT, IN, OUT, 4, 8, 11, 13]);
        let sector = dice.up_to(SECTORS + 1);
        let mut header = Vec::new();
        header.extend((mostly(dice, kind.into()) as u32).to_le_bytes());
        header.extend([0; 4]);
        header.extend(mostly(dice, sector as u64).to_le_bytes());
        self.put(HEADER, &header);
        self.put(STATUS, &[0xee]);

        let count = 1 + dice.up_to(3);
        let lengths: Vec<usize> = (0..count).map(|_| SECTOR * (1 + dice.up_to(2))).collect();
        if kind == OUT {
            self.put(BUFFERS, &dice.bytes(64).repeat(8));
        } else if kind == 11 || kind == 13 {
            let range = [dice.field().to_le_bytes(), dice.field().to_le_bytes()].concat();
            self.put(BUFFERS, &range);
        }
        // Reads and ids are written to by the device.
        let data_flags = if kind == IN || kind == 8 { WRITE } else { 0 };
        let mut chain = vec![(HEADER, 16, 0)];
        let mut at = BUFFERS;
        for &length in &lengths {
            let length = if kind == 11 || kind == 13 { 16 } else { length };
            chain.push((at, length as u32, data_flags));
            at += length as u64;
        }
        chain.push((STATUS, 1, WRITE));

        let indirect = dice.rarely();
        let table = if indirect { INDIRECT_TABLE } else { TABLE };
        let last = chain.len() - 1;
        for (index, (address, length, flags)) in chain.into_iter().enumerate() {
            let link = if index < last { NEXT } else { 0 };
            let mut desc = mostly(dice, address).to_le_bytes().to_vec();
            desc.extend((mostly(dice, length.into()) as u32).to_le_bytes());
            desc.extend((mostly(dice, (flags | link).into()) as u16).to_le_bytes());
            let next = if index < last { index as u64 + 1 } else { 0 };
            desc.extend((mostly(dice, next) as u16).to_le_bytes());
            self.put(table + 16 * index as u64, &desc);
        }
        if indirect {
            let mut desc = mostly(dice, INDIRECT_TABLE).to_le_bytes().to_vec();
            desc.extend((mostly(dice, 16 * (last as u64 + 1)) as u32).to_le_bytes());
            desc.extend((mostly(dice, INDIRECT.into()) as u16).to_le_bytes());
            desc.extend([0, 0]);
            self.put(TABLE, &desc);
        }
        let slot = AVAILABLE + 4 + 2 * (u64::from(self.available) % QUEUE);
        let head = mostly(dice, 0) as u16;
        self.put(slot, &head.to_le_bytes());
        let next = mostly(dice, u64::from(self.available.wrapping_add(1))) as u16;
        self.available = next;
        self.put(AVAILABLE + 2, &next.to_le_bytes());
        (is_sound && kind <= OUT).then_some(Request {
            out: kind == OUT,
            sector,
            buffers: lengths,
        })
    }

    /// Fails if memory changed that no descriptor and no ring gives to the device.
    fn assert_untouched(&self, before: &[u8]) {
        let mut after = self.snapshot();
        // What the device may write to counts as it was.
        let mut give = |start: u64, length: u64| {
            let end = start.saturating_add(length).min(MEMORY);
            if start < end {
                let range = start as usize..end as usize;
                after[range.clone()].copy_from_slice(&before[range]);
            }
        };
        give(USED, 6 + 8 * QUEUE);
        let mut tables = vec![(TABLE, QUEUE, true)];
        while let Some((table, count, may_refer)) = tables.pop() {
            for index in 0..count {
                let at = (table + 16 * index) as usize;
                let Some(desc) = before.get(at..at + 16) else {
                    break;
                };
                let word = |from: usize| u32::from_le_bytes([0, 1, 2, 3].map(|n| desc[from + n]));
                let address = u64::from(word(0)) | u64::from(word(4)) << 32;
                let (length, flags) = (u64::from(word(8)), word(12) as u16);
                if flags & WRITE != 0 {
                    give(address, length);
                }
                // One that refers to the table it stands in is followed once, like any other.
                if flags & INDIRECT != 0 && may_refer && address < MEMORY {
                    tables.push((address, (length / 16).min(MEMORY / 16), false));
                }
            }
        }
        assert!(before == after, "the device wrote where nothing is its own");
    }
}
