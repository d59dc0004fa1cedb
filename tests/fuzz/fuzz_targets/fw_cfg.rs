//! The fw_cfg device under firmware of any kind: the port, and DMA commands, mostly sound.
//!
//! Checked: what is read by DMA is what is read by the port; a command writes to no guest memory but
//! itself and what it names; memory is bounded.

#![no_main]

use caraway_arch::layout::MIB;
use caraway_arch::{Backing, GuestMemory, Layout, memory};
use caraway_firmware::fw_cfg::{Boot, FwCfg, Items};
use caraway_fuzz::Dice;
use caraway_fuzz::memory::Gauge;
use libfuzzer_sys::fuzz_target;
use vm_memory::{Bytes, GuestAddress};

#[global_allocator]
static GAUGE: Gauge = Gauge::new();

const MOST_MEMORY: usize = 4 << 20;
/// Where commands are, and what is looked at of guest memory.
const COMMAND: u64 = 0x1000;
const LOOKED_AT: usize = 0x1_0000;
const ITEM: u64 = 0x2000;

const ERROR: u32 = 1;
const READ: u32 = 2;
const SELECT: u32 = 8;

fuzz_target!(|bytes: &[u8]| {
    let peak = GAUGE.peak_of(|| firmware(Dice::new(bytes)));
    assert!(peak <= MOST_MEMORY, "{peak} bytes at a time");
});

fn firmware(mut dice: Dice<'_>) {
    let layout = Layout::new(16 * MIB, 48).expect("the size is possible");
    let memory = memory::create(&layout, Backing::Anonymous).expect("there is memory");
    let mut items = Items::new(&layout, 2, [7; 16], Boot::default());
    items
        .add_file("opt/hello", b"hello".to_vec())
        .expect("the name is new");
    let mut device = FwCfg::new(items);
    while !dice.is_over() {
        match dice.byte() {
            ..0x80 => dma(&mut dice, &mut device, &memory),
            0x80..0xb0 => {
                let offset = dice.up_to(15) as u16;
                let value = dice.field().to_le_bytes();
                let width = dice.pick(&[1, 2, 4]);
                device.write(offset, &value[..width], &memory);
            }
            0xb0..0xf0 => {
                let width = dice.pick(&[1, 2, 4]);
                device.read(dice.up_to(15) as u16, &mut [0; 4][..width]);
            }
            0xf0..0xf8 => {
                let state = device.save();
                device.reset();
                device.restore(state);
                assert_eq!(device.save(), state);
            }
            _ => device.reset(),
        }
    }
}

/// A DMA command.
fn dma(dice: &mut Dice<'_>, device: &mut FwCfg, memory: &GuestMemory) {
    let key = match dice.byte() {
        ..0x40 => dice.up_to(0x20) as u16,
        0x40..0xe0 => 0x20 + dice.up_to(12) as u16,
        _ => dice.field() as u16,
    };
    let sound = u32::from(key) << 16 | SELECT | READ;
    let control = dice.mostly(sound.into()) as u32;
    let length = dice.pick(&[0, 1, 4, 64, 300, 4096]);
    let length = dice.mostly(length) as u32;
    let address = dice.mostly(ITEM);
    let at = dice.mostly(COMMAND);
    let mut command = control.to_be_bytes().to_vec();
    command.extend(length.to_be_bytes());
    command.extend(address.to_be_bytes());
    // A command outside of memory is the point, too.
    let _ = memory.write_slice(&command, GuestAddress(at));

    let before = look(memory);
    device.write(4, &((at >> 32) as u32).to_be_bytes(), memory);
    device.write(8, &(at as u32).to_be_bytes(), memory);
    let after = look(memory);

    // The command and what it names may have changed.
    let mut rest = after.clone();
    for (start, length) in [(at, 4), (address, u64::from(length))] {
        let last = LOOKED_AT as u64;
        let range = start.min(last) as usize..start.saturating_add(length).min(last) as usize;
        rest[range.clone()].copy_from_slice(&before[range]);
    }
    assert!(rest == before, "what no command names has changed");

    let is_sound =
        control == sound && at == COMMAND && address == ITEM && length as usize <= LOOKED_AT / 2;
    if is_sound {
        let outcome: u32 = memory.read_obj(GuestAddress(at)).expect("it is there");
        assert_eq!(u32::from_be(outcome) & ERROR, 0);
        device.write(0, &key.to_le_bytes(), memory);
        let mut read = vec![0; length as usize];
        for byte in read.chunks_mut(1) {
            device.read(1, byte);
        }
        let place = ITEM as usize;
        assert!(
            after[place..place + read.len()] == read,
            "port and DMA differ at {key:#x}"
        );
    }
}

fn look(memory: &GuestMemory) -> Vec<u8> {
    let mut bytes = vec![0; LOOKED_AT];
    memory
        .read_slice(&mut bytes, GuestAddress(0))
        .expect("it is there");
    bytes
}
