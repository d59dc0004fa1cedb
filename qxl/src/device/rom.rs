//! The ROM of BAR 2 (`QXLRom`, `QXLModes`): what the device tells a driver about itself, and the
//! host's wishes for its monitors.

use caraway_spice::HeadRequest;
use serde::{Deserialize, Serialize};
use zerocopy::IntoBytes;
use zerocopy::little_endian::{U16, U32, U64};

use super::memslots::SLOTS;
use super::ram::RAM_HEADER_LEN;
use crate::command::wire::wire;
use crate::config::QxlConfig;
use crate::memory::Memory;

/// Bytes of BAR 2.
pub(crate) const ROM_LEN: u64 = 8192;

const MAGIC: u32 = u32::from_le_bytes(*b"QXRO");
const PAGE: u64 = 4096;
/// Heads that the host's wishes have room for.
const MAX_HEADS: usize = 64;

const UPDATE_ID: u64 = 0x08;
const MODE: u64 = 0x14;
const CLIENT_PRESENT: u64 = 0x45;
const CLIENT_CAPABILITIES: u64 = 0x46;
const MONITORS_CRC: u64 = 0x80;
const MONITORS: u64 = 0x84;
/// Who is looking, and what all of them can do.
type ClientPart = [u8; (MONITORS_CRC - CLIENT_PRESENT) as usize];
/// The modes come after the header.
const MODES: u64 = 1160;

wire! {
    /// The header up to what the host changes.
    struct Header {
        magic: U32,
        id: U32,
        update_id: U32,
        compression_level: U32,
        log_level: U32,
        mode: U32,
        modes_offset: U32,
        num_pages: U32,
        pages_offset: U32,
        draw_area_offset: U32,
        surface0_area_size: U32,
        ram_header_offset: U32,
        mm_clock: U32,
        n_surfaces: U32,
        flags: U64,
        slots_start: u8,
        slots_end: u8,
        slot_gen_bits: u8,
        slot_id_bits: u8,
        slot_generation: u8,
    }

    /// A video mode.
    struct Mode {
        id: U32,
        x_res: U32,
        y_res: U32,
        bits: U32,
        stride: U32,
        x_mili: U32,
        y_mili: U32,
        orientation: U32,
    }

    /// A rectangle, in the order of the ROM.
    struct HeadArea { top: U32, left: U32, bottom: U32, right: U32 }

    /// What monitors the host wishes for.
    struct ClientMonitors { count: U16, padding: U16, heads: [HeadArea; MAX_HEADS] }
}

const _: () = {
    assert!(size_of::<Header>() == CLIENT_PRESENT as usize);
    assert!(size_of::<ClientMonitors>() as u64 == MODES - MONITORS);
};

/// Resolutions, each offered at 16 and 32 bits, upright and turned.
const RESOLUTIONS: [(u32, u32); 37] = [
    (640, 480),
    (800, 480),
    (800, 600),
    (832, 624),
    (960, 640),
    (1024, 600),
    (1024, 768),
    (1152, 864),
    (1152, 870),
    (1280, 720),
    (1280, 760),
    (1280, 768),
    (1280, 800),
    (1280, 960),
    (1280, 1024),
    (1360, 768),
    (1366, 768),
    (1400, 1050),
    (1440, 900),
    (1600, 900),
    (1600, 1200),
    (1680, 1050),
    (1920, 1080),
    (1920, 1200),
    (1920, 1440),
    (2000, 2000),
    (2048, 1536),
    (2048, 2048),
    (2560, 1440),
    (2560, 1600),
    (2560, 2048),
    (2800, 2100),
    (3200, 2400),
    (3840, 2160),
    (4096, 2160),
    (7680, 4320),
    (8192, 4320),
];

/// The modes that fit into a frame buffer of `size` bytes. A mode's id is its place among all.
fn modes(size: u64) -> Vec<Mode> {
    let forms = [(16, 0), (32, 0), (16, 1), (32, 1)];
    let all = RESOLUTIONS
        .iter()
        .flat_map(|&(x, y)| forms.map(|(bits, orientation)| (x, y, bits, orientation)));
    let mode = |(id, (x, y, bits, orientation)): (u32, (u32, u32, u32, u32))| {
        let stride = x * bits / 8;
        // Thousandths of a millimetre at a usual pixel's size.
        let mili = |pixels: u32| (f64::from(pixels) * 0.293_687_5) as u32;
        let mode = Mode {
            id: id.into(),
            x_res: x.into(),
            y_res: y.into(),
            bits: bits.into(),
            stride: stride.into(),
            x_mili: mili(x).into(),
            y_mili: mili(y).into(),
            orientation: orientation.into(),
        };
        (u64::from(stride) * u64::from(y) <= size).then_some(mode)
    };
    (0..).zip(all).filter_map(mode).collect()
}

/// What the device tells the oldest drivers in its ROM.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct OldAnswers {
    mode: u32,
    update_id: u32,
}

/// The ROM: nothing in it changes but what its `set` methods say.
pub(crate) struct Rom {
    memory: Memory,
    config: QxlConfig,
}

impl Rom {
    pub(crate) fn new(memory: Memory, config: QxlConfig) -> Self {
        let rom = Self { memory, config };
        rom.reset();
        rom
    }

    /// As it was when the device was made, but for who is looking: a guest that is reset hears of
    /// clients only when others come.
    pub(crate) fn reset(&self) {
        let clients: ClientPart = self.memory.get(CLIENT_PRESENT).unwrap_or([0; _]);
        let config = &self.config;
        let word = |value: u64| U32::from(value as u32);
        let commands = config.ram - RAM_HEADER_LEN - config.vgamem;
        let header = Header {
            magic: MAGIC.into(),
            id: config.channel.into(),
            update_id: U32::ZERO,
            compression_level: U32::ZERO,
            log_level: U32::ZERO,
            mode: U32::ZERO,
            modes_offset: word(MODES),
            num_pages: word(commands / PAGE),
            pages_offset: word(config.vgamem),
            draw_area_offset: U32::ZERO,
            surface0_area_size: word(config.vgamem),
            ram_header_offset: word(config.ram - RAM_HEADER_LEN),
            mm_clock: U32::ZERO,
            n_surfaces: config.surfaces.into(),
            flags: U64::ZERO,
            slots_start: 1,
            slots_end: (SLOTS - 1) as u8,
            slot_gen_bits: 8,
            slot_id_bits: 8,
            slot_generation: 0,
        };
        let modes = modes(config.vgamem);
        let mut bytes = vec![0; ROM_LEN as usize];
        let parts = [
            (0, header.as_bytes()),
            (MODES, &(modes.len() as u32).to_le_bytes()),
            (MODES + 4, modes.as_bytes()),
            (CLIENT_PRESENT, &clients),
        ];
        for (at, part) in parts {
            if let Some(place) = bytes.get_mut(at as usize..at as usize + part.len()) {
                place.copy_from_slice(part);
            }
        }
        self.put(0, &bytes);
    }

    /// The ROM is as large as its contents.
    fn put(&self, at: u64, bytes: &[u8]) {
        let _ = self.memory.write(at, bytes);
    }

    /// Width and height in pixels and bits a pixel of the mode in this place of the list.
    pub(crate) fn mode(&self, place: u8) -> Option<(u32, u32, u32)> {
        let modes = modes(self.config.vgamem);
        let mode = modes.get(usize::from(place))?;
        Some((mode.x_res.get(), mode.y_res.get(), mode.bits.get()))
    }

    /// Says which compatibility mode there is.
    pub(crate) fn set_mode(&self, place: u8) {
        self.put(MODE, &u32::from(place).to_le_bytes());
    }

    /// Says that update command `id` is done.
    pub(crate) fn set_update_id(&self, id: u32) {
        self.put(UPDATE_ID, &id.to_le_bytes());
    }

    /// What the oldest drivers look at: the mode and the latest update.
    pub(crate) fn old_answers(&self) -> OldAnswers {
        let word = |at| self.memory.get::<U32>(at).unwrap_or_default().get();
        OldAnswers {
            mode: word(MODE),
            update_id: word(UPDATE_ID),
        }
    }

    /// Takes saved answers on.
    pub(crate) fn restore_old_answers(&self, answers: &OldAnswers) {
        self.put(MODE, &answers.mode.to_le_bytes());
        self.put(UPDATE_ID, &answers.update_id.to_le_bytes());
    }

    /// Says whether clients are there and what all of them can do; whether that is news.
    pub(crate) fn set_clients(&self, present: bool, capabilities: u32) -> bool {
        let mut new = [0; 5];
        let [first, rest @ ..] = &mut new;
        *first = present.into();
        *rest = capabilities.to_le_bytes();
        let mut old = [0; 5];
        let _ = self.memory.read(CLIENT_PRESENT, &mut old);
        self.put(CLIENT_PRESENT, &new);
        debug_assert_eq!(CLIENT_CAPABILITIES, CLIENT_PRESENT + 1);
        old != new
    }

    /// Says which monitors the host wishes for, no more than the device may have; whether that is
    /// news.
    pub(crate) fn set_monitors(&self, heads: &[HeadRequest]) -> bool {
        let area = |head: &HeadRequest| {
            let (left, top) = (head.x.max(0) as u32, head.y.max(0) as u32);
            HeadArea {
                left: left.into(),
                top: top.into(),
                right: left.saturating_add(head.width).into(),
                bottom: top.saturating_add(head.height).into(),
            }
        };
        let zero = U32::ZERO;
        let none = HeadArea {
            top: zero,
            left: zero,
            bottom: zero,
            right: zero,
        };
        let count = heads.len().min(MAX_HEADS).min(self.config.heads as usize);
        let mut new = ClientMonitors {
            count: (count as u16).into(),
            padding: U16::ZERO,
            heads: [none; MAX_HEADS],
        };
        for (place, head) in new.heads.iter_mut().zip(heads).take(count) {
            *place = area(head);
        }
        let old: Option<ClientMonitors> = self.memory.get(MONITORS).ok();
        if old.is_some_and(|old| old.as_bytes() == new.as_bytes()) {
            return false;
        }
        // A guest that reads in between sees that the sum is wrong and reads again.
        self.put(MONITORS, new.as_bytes());
        self.put(MONITORS_CRC, &crc32(new.as_bytes()).to_le_bytes());
        true
    }

    /// What the host changed, for a snapshot.
    pub(crate) fn save(&self) -> Vec<u8> {
        let mut bytes = vec![0; (MODES - CLIENT_PRESENT) as usize];
        let _ = self.memory.read(CLIENT_PRESENT, &mut bytes);
        bytes
    }

    /// Takes a saved state on; whether others are looking now than then, which is news for the guest.
    pub(crate) fn restore(&self, bytes: &[u8]) -> bool {
        self.reset();
        let clients: ClientPart = self.memory.get(CLIENT_PRESENT).unwrap_or([0; _]);
        let (then, wishes) = bytes
            .split_at_checked(clients.len())
            .unwrap_or((&clients, &[]));
        let len = wishes.len().min((MODES - MONITORS_CRC) as usize);
        self.put(MONITORS_CRC, &wishes[..len]);
        then != clients
    }
}

/// CRC-32 with the reflected polynomial of Ethernet, from 0 and without inversion at the end.
pub(crate) fn crc32(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc: u32, _| {
            crc >> 1 ^ if crc & 1 == 0 { 0 } else { 0xedb8_8320 }
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rom(config: QxlConfig) -> Rom {
        Rom::new(Memory::new("rom", ROM_LEN).unwrap(), config)
    }

    #[test]
    fn the_header_describes_the_ram() {
        let rom = rom(QxlConfig::default());

        let header: Header = rom.memory.get(0).unwrap();

        // The numbers that a Linux guest prints when it finds the default device.
        assert_eq!(header.num_pages, 12286);
        assert_eq!(header.pages_offset, 0x0100_0000);
        assert_eq!(header.surface0_area_size, 16_777_216);
        assert_eq!(header.ram_header_offset, 0x03ff_e000);
        assert_eq!(header.modes_offset, 0x488);
        assert_eq!(rom.memory.get::<U32>(MODES).unwrap(), 128);
    }

    #[test]
    fn modes_keep_the_ids_of_the_whole_table() {
        let modes = modes(1 << 20);

        let ids: Vec<u32> = modes.iter().map(|mode| mode.id.get()).collect();

        // 640x480 and 800x480 at 16 bits, 800x600 at 16 bits; 832x624 needs 1,038,336 bytes.
        assert_eq!(ids, [0, 2, 4, 6, 8, 10, 12, 14]);
    }

    #[test]
    fn monitors_are_summed_as_linux_does() {
        let rom = rom(QxlConfig::default());
        let wish = HeadRequest {
            width: 1024,
            height: 768,
            x: 0,
            y: 0,
        };

        let news = [rom.set_monitors(&[wish]), rom.set_monitors(&[wish])];

        let monitors: ClientMonitors = rom.memory.get(MONITORS).unwrap();
        let sum: U32 = rom.memory.get(MONITORS_CRC).unwrap();
        assert_eq!(news, [true, false]);
        assert_eq!(monitors.count, 1);
        assert_eq!(monitors.heads[0].right, 1024);
        assert_eq!(monitors.heads[0].bottom, 768);
        assert_eq!(sum, crc32(monitors.as_bytes()));
    }

    #[test]
    fn the_sum_is_the_usual_one_without_inversions() {
        // CRC-32("123456789") is 0xcbf43926 with all-ones before and after; from zero it is this.
        assert_eq!(crc32(b"123456789"), 0x2dfd_2d88);
    }
}
