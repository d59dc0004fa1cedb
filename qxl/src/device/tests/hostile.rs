//! Whatever a guest does, the device neither panics nor hangs.

use caraway_devices::pci::PciFunction;
use caraway_spice::DisplaySource;
use proptest::prelude::*;

use crate::testing::*;

/// Something a guest can do.
#[derive(Debug, Clone)]
enum Deed {
    Out(u64, u8),
    Header(u64, u32),
    Ram(u64, Vec<u8>),
    Push(u32, u64),
    Vga(u64, Vec<u8>),
    Vbe(u64, u16),
    Window(u64, u8),
    Process,
}

fn deed() -> impl Strategy<Value = Deed> {
    let value = || prop_oneof![0..64_u32, any::<u32>()];
    let address = (0..4_u64, 0..0x10_0000_u64).prop_map(|(slot, at)| (slot << 56) + 0x10_0000 + at);
    prop_oneof![
        (0..32_u64, 0..9_u8).prop_map(|(port, value)| Deed::Out(port, value)),
        (0..0x14e4_u64, value()).prop_map(|(at, value)| Deed::Header(at & !3, value)),
        (0..0x10_0000_u64, prop::collection::vec(0..32_u8, 0..256))
            .prop_map(|(at, bytes)| Deed::Ram(0x10_0000 + at, bytes)),
        (0..7_u32, address).prop_map(|(kind, address)| Deed::Push(kind, address)),
        (0..0x30_u64, prop::collection::vec(any::<u8>(), 1..4))
            .prop_map(|(port, bytes)| Deed::Vga(port, bytes)),
        (0..4_u64, prop_oneof![0..11_u16, any::<u16>()])
            .prop_map(|(port, value)| Deed::Vbe(port, value)),
        (0..0x2_0000_u64, any::<u8>()).prop_map(|(at, value)| Deed::Window(at, value)),
        Just(Deed::Process),
    ]
}

fn act(guest: &Guest, deed: Deed) {
    let [(_, _, ports), (_, _, vbe)] = guest.qxl.vga_ports();
    let (_, _, window) = guest.qxl.vga_window();
    match deed {
        Deed::Out(port, value) => guest.out(port, value),
        Deed::Header(at, value) => guest.set_word(at, value),
        Deed::Ram(at, bytes) => guest.write(0, at, &bytes),
        Deed::Push(kind, address) => guest.push(kind, address),
        Deed::Vga(port, bytes) => {
            ports.write(port, &bytes);
            ports.read(port, &mut [0; 2]);
        }
        Deed::Vbe(port, value) => {
            vbe.write(port, &value.to_le_bytes());
            vbe.read(port, &mut [0; 2]);
        }
        Deed::Window(at, value) => {
            window.write(at, &[value]);
            window.read(at, &mut [0]);
        }
        Deed::Process => {
            guest.qxl.process();
            guest.qxl.refresh();
            let _ = guest.qxl.text();
            let _ = guest.qxl.screenshot(0);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_sequence_of_accesses_is_survived(
        native in any::<bool>(),
        deeds in prop::collection::vec(deed(), 1..200)
    ) {
        let guest = Guest::new();
        if native {
            guest.go_native(64, 48);
        }

        for deed in deeds {
            act(&guest, deed);
        }

        act(&guest, Deed::Process);
        guest.out(PORT_RESET, 0);
        guest.place_bars();
        guest.go_native(64, 48);
        prop_assert!(guest.qxl.layout().primary.is_some());
    }

    #[test]
    fn a_drawable_of_any_bytes_is_survived_and_given_back(
        kind in 0..6_u32,
        mut bytes in prop::collection::vec(any::<u8>(), 256),
        pointers in prop::collection::vec((0..230_usize, 0..4_u64, 0..512_u64), 0..6),
    ) {
        let guest = Guest::native(64, 48);
        let at = guest.put(&[0; 1024]);
        for (place, slot, offset) in pointers {
            let pointer = (slot << 56) + (at & 0xffff_ffff) + offset;
            bytes[place..place + 8].copy_from_slice(&pointer.to_le_bytes());
        }
        bytes[..8].copy_from_slice(&at.to_le_bytes());
        guest.write(0, at & 0xffff_ffff, &bytes);

        guest.run(kind, at);

        let drawn = [1, 2, 3, 4, 5].contains(&kind);
        let ring = if kind == CMD_CURSOR { 0x1220 } else { 0x100c };
        prop_assert_eq!(guest.word(ring + 12), 1);
        if drawn {
            prop_assert_eq!(guest.take_releases(|id| id), vec![at]);
        }
    }

    #[test]
    fn a_valid_drawable_with_one_changed_byte_is_survived(
        place in 0..191_usize, value in any::<u8>(), image_place in 0..48_u64,
        image_value in any::<u8>(),
    ) {
        let guest = Guest::native(64, 48);
        let form = Form { format: 8, top_down: true, stride: 40, chunk: Some(17) };
        let rows = vec![vec![7; 40]; 6];
        let image = guest.image(10, &rows, form, 0);
        guest.write(0, (image & 0xffff_ffff) + image_place, &[image_value]);
        let body = Guest::copy_body(image, rect(0, 0, 10, 6));
        let clip = [rect(0, 0, 5, 5), rect(2, 2, 9, 9)];
        let draw = guest.drawable(3, 0, rect(0, 0, 10, 6), &clip, body);
        if place >= 8 {
            guest.write(0, (draw & 0xffff_ffff) + place as u64, &[value]);
        }

        guest.run(CMD_DRAW, draw);

        prop_assert_eq!(guest.take_releases(|id| id), vec![draw]);
    }
}

#[test]
fn a_chain_of_chunks_that_bites_its_tail_ends() {
    let guest = Guest::native(64, 48);
    let chunk = guest.put(&[0; 32]);
    let tail = Bytes::default().u32(0).u64(0).u64(chunk);
    guest.write(0, chunk & 0xffff_ffff, &tail.0);
    let image = Bytes::default()
        .zeros(10)
        .u32(8)
        .u32(8)
        .u8(8)
        .u8(4)
        .u32(8)
        .u32(8)
        .u32(32)
        .u64(0)
        .u64(chunk);
    let image = guest.put(&image.0);
    let body = Guest::copy_body(image, rect(0, 0, 8, 8));
    let draw = guest.drawable(3, 0, rect(0, 0, 8, 8), &[], body);

    guest.run(CMD_DRAW, draw);

    assert_eq!(guest.take_releases(|id| id), [draw]);
}

#[test]
fn a_ring_with_impossible_indices_is_a_bug() {
    let guest = Guest::native(64, 48);
    guest.set_word(0x100c + 4, 1000);

    guest.out(PORT_NOTIFY_CMD, 0);
    guest.qxl.process();

    assert_eq!(guest.take_interrupts() & INT_ERROR, INT_ERROR);
}

#[test]
fn accesses_of_any_width_past_the_end_of_a_bar_are_survived() {
    let guest = Guest::new();

    for bar in 0..6 {
        for at in [0, 31, 8191, (8 << 20) - 1, u64::MAX] {
            guest.qxl.bar_write(bar, at, &[1, 2, 3, 4, 5, 6, 7, 8]);
            guest.qxl.bar_read(bar, at, &mut [0; 8]);
        }
    }
}
