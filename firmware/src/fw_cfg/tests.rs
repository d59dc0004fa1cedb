use caraway_arch::layout::{GIB, MIB};
use caraway_arch::{Backing, Layout, memory};
use proptest::prelude::*;
use vm_memory::{Bytes, GuestAddress};

use super::*;

fn layout() -> Layout {
    Layout::new(16 * MIB, 48).unwrap()
}

fn guest_memory() -> GuestMemory {
    memory::create(&layout(), Backing::Anonymous).unwrap()
}

fn device() -> FwCfg {
    let mut items = Items::new(&layout(), 2, [7; 16], Boot::default());
    items.add_file("opt/hello", b"hello".to_vec()).unwrap();
    FwCfg::new(items)
}

fn select(device: &mut FwCfg, key: u16) {
    device.write(0, &key.to_le_bytes(), &guest_memory());
}

fn read(device: &mut FwCfg, size: usize) -> Vec<u8> {
    let mut bytes = vec![0; size];
    for byte in bytes.chunks_mut(1) {
        device.read(1, byte);
    }
    bytes
}

/// Key and size of a file, found in the directory as firmware does it.
fn find(device: &mut FwCfg, name: &str) -> (u16, u32) {
    select(device, 0x19);
    let count = u32::from_be_bytes(read(device, 4).try_into().unwrap());
    for _ in 0..count {
        let entry = read(device, 64);
        let end = entry[8..].iter().position(|&byte| byte == 0).unwrap();
        if &entry[8..8 + end] == name.as_bytes() {
            let size = u32::from_be_bytes(entry[..4].try_into().unwrap());
            return (u16::from_be_bytes([entry[4], entry[5]]), size);
        }
    }
    panic!("no file {name}");
}

fn run_dma(
    device: &mut FwCfg,
    memory: &GuestMemory,
    control: u32,
    length: u32,
    address: u64,
) -> u32 {
    let at = GuestAddress(0x1000);
    memory.write_obj(control.to_be(), at).unwrap();
    memory
        .write_obj(length.to_be(), GuestAddress(0x1004))
        .unwrap();
    memory
        .write_obj(address.to_be(), GuestAddress(0x1008))
        .unwrap();
    device.write(4, &0u32.to_be_bytes(), memory);
    device.write(8, &0x1000u32.to_be_bytes(), memory);
    u32::from_be(memory.read_obj(at).unwrap())
}

#[test]
fn the_signature_and_the_features_read_as_firmware_wants_them() {
    let mut device = device();
    select(&mut device, 0);
    assert_eq!(read(&mut device, 4), b"QEMU");
    select(&mut device, 1);
    assert_eq!(read(&mut device, 4), [3, 0, 0, 0]);
}

#[test]
fn the_dma_register_reads_as_its_signature() {
    let mut halves = [[0; 4]; 2];
    let mut device = device();
    device.read(4, &mut halves[0]);
    device.read(8, &mut halves[1]);
    assert_eq!(halves, [*b"QEMU", *b" CFG"]);
}

#[test]
fn a_file_is_found_by_the_directory_and_read_by_the_port() {
    let mut device = device();
    let (key, size) = find(&mut device, "opt/hello");
    select(&mut device, key);
    assert_eq!(size, 5);
    assert_eq!(read(&mut device, 7), b"hello\0\0");
}

#[test]
fn the_directory_is_sorted_by_name() {
    let device = device();
    let directory = device.items().get(0x19).unwrap();
    let names: Vec<_> = directory[4..].chunks(64).map(|entry| &entry[8..]).collect();
    assert!(names.is_sorted());
}

#[test]
fn the_memory_map_shows_all_ram() {
    let layout = Layout::new(6 * GIB, 48).unwrap();
    let items = Items::new(&layout, 1, [0; 16], Boot::default());
    let map = items.file("etc/e820").unwrap();
    let ram: u64 = map
        .chunks(20)
        .filter(|line| line[16] == 1)
        .map(|line| u64::from_le_bytes(line[8..16].try_into().unwrap()))
        .sum();
    assert_eq!((map.len() % 20, ram), (0, 6 * GIB));
}

#[test]
fn dma_selects_and_reads_at_once_and_fills_up_with_zeros() {
    let (mut device, memory) = (device(), guest_memory());
    let (key, _) = find(&mut device, "opt/hello");
    memory
        .write_slice(&[0xff; 9], GuestAddress(0x2000))
        .unwrap();
    let outcome = run_dma(
        &mut device,
        &memory,
        u32::from(key) << 16 | 0b1010,
        8,
        0x2000,
    );
    let mut bytes = [0; 9];
    memory.read_slice(&mut bytes, GuestAddress(0x2000)).unwrap();
    assert_eq!((outcome, &bytes), (0, b"hello\0\0\0\xff"));
}

#[test]
fn dma_goes_on_where_the_last_command_ended() {
    let (mut device, memory) = (device(), guest_memory());
    let (key, _) = find(&mut device, "opt/hello");
    run_dma(&mut device, &memory, u32::from(key) << 16 | 0b1100, 2, 0);
    run_dma(&mut device, &memory, 0b0010, 3, 0x2000);
    let mut bytes = [0; 3];
    memory.read_slice(&mut bytes, GuestAddress(0x2000)).unwrap();
    assert_eq!(&bytes, b"llo");
}

#[test]
fn dma_out_of_memory_or_into_an_item_is_an_error() {
    let (mut device, memory) = (device(), guest_memory());
    assert_eq!(run_dma(&mut device, &memory, 0b0010, 1 << 30, 0x2000), 1);
    assert_eq!(run_dma(&mut device, &memory, 0b0010, 4, u64::MAX - 1), 1);
    assert_eq!(run_dma(&mut device, &memory, 0b10000, 4, 0x2000), 1);
}

#[test]
fn the_state_survives_a_round_trip() {
    let mut first = device();
    let (key, _) = find(&mut first, "opt/hello");
    select(&mut first, key);
    read(&mut first, 2);
    let text = serde_json::to_string(&first.save()).unwrap();
    let mut second = device();
    second.restore(serde_json::from_str(&text).unwrap());
    assert_eq!(read(&mut second, 3), b"llo");
}

#[test]
fn names_that_do_not_fit_are_refused() {
    let mut items = Items::new(&layout(), 1, [0; 16], Boot::default());
    for name in ["", "a\0b", &"x".repeat(56)] {
        let error = items.add_file(name, Vec::new()).unwrap_err();
        assert!(matches!(error, ItemsError::Name { .. }));
    }
}

#[test]
fn the_boot_order_names_disks_as_seabios_builds_their_paths() {
    let order = boot_order(&[boot_disk(0x1a, 0), boot_disk(3, 1)]);
    let expected = b"/pci@i0cf8/scsi@1a/disk@0,0\n/pci@i0cf8/scsi@3,1/disk@0,0\0";
    assert_eq!(order, expected);
}

proptest! {
    #[test]
    fn no_sequence_of_accesses_panics(
        accesses in proptest::collection::vec(
            (any::<bool>(), 0u16..16, proptest::collection::vec(any::<u8>(), 1..9)),
            0..40,
        ),
    ) {
        let (mut device, memory) = (device(), guest_memory());
        for (is_write, offset, mut data) in accesses {
            if is_write {
                device.write(offset, &data, &memory);
            } else {
                device.read(offset, &mut data);
            }
        }
    }
}
