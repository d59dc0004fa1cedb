//! Ports, rings, interrupts and monitors.

use caraway_devices::pci::PciFunction;
use caraway_spice::{ClientCapabilities, DisplaySource, HeadRequest, Size};

use crate::testing::*;

const WISH: HeadRequest = HeadRequest {
    width: 800,
    height: 600,
    x: 0,
    y: 0,
};

/// A drawable that does nothing.
fn nop(guest: &Guest) -> u64 {
    guest.drawable(0, 0, rect(0, 0, 1, 1), &[], Bytes::default())
}

#[test]
fn the_function_is_the_one_that_drivers_look_for() {
    let guest = Guest::new();
    let space = guest.qxl.config().lock();

    assert_eq!(space.u32_at(0), 0x0100_1b36);
    assert_eq!(space.u32_at(8), 0x0300_0005);
    assert_eq!(space.u32_at(0x2c), 0x1100_1af4);
    assert_eq!(space.u32_at(0x3c) & 0xff00, 0x0100);
}

#[test]
fn a_linux_driver_initialises_the_device() {
    let guest = Guest::new();
    let header = (8 << 20) - 8192;
    let wait = |what: &str| {
        guest.qxl.process();
        assert!(guest.line.level(), "no interrupt after {what}");
        assert_eq!(guest.take_interrupts() & INT_IO_CMD, INT_IO_CMD, "{what}");
        assert!(!guest.line.level());
    };
    guest.out(PORT_RESET, 0);
    guest.set_word(8, 0x27);
    guest.describe_slot(RAM_BASE, RAM_BASE + header);
    guest.out(PORT_MEMSLOT_ADD_ASYNC, 1);
    wait("slot 1");
    guest.describe_slot(VRAM_BASE, VRAM_BASE + (4 << 20));
    guest.out(PORT_MEMSLOT_ADD_ASYNC, 2);
    wait("slot 2");
    guest.describe_primary(320, 200, 1280, 1);
    guest.out(PORT_CREATE_PRIMARY_ASYNC, 0);
    wait("primary");
    let monitors = Bytes::default()
        .u16(1)
        .u16(1)
        .u32(0)
        .u32(0)
        .u32(320)
        .u32(200)
        .zeros(12);
    let monitors = guest.put(&monitors.0);
    guest.write_header(0x14dc, &monitors.to_le_bytes());
    guest.out(PORT_MONITORS_CONFIG_ASYNC, 0);
    wait("monitors");

    guest.fill(0, rect(0, 0, 320, 200), 0x33_6699);

    let layout = guest.qxl.layout();
    assert_eq!(layout.heads.len(), 1);
    assert_eq!(layout.heads[0].area, rect(0, 0, 320, 200));
    assert_eq!(guest.pixel(319, 199), 0x33_6699);
}

#[test]
fn every_command_is_given_back_once_and_in_order() {
    let guest = Guest::native(64, 48);
    let all: Vec<u64> = (0..100).map(|_| nop(&guest)).collect();

    for batch in all.chunks(20) {
        for id in batch {
            guest.push(CMD_DRAW, *id);
        }
        guest.qxl.process();
    }

    assert_eq!(guest.take_releases(|id| id), all);
}

#[test]
fn commands_are_kept_while_the_release_ring_is_full_and_come_when_it_is_not() {
    let guest = Guest::native(64, 48);
    let all: Vec<u64> = (0..20).map(|_| nop(&guest)).collect();
    for id in &all {
        guest.run(CMD_DRAW, *id);
    }

    let first = guest.take_releases(|id| id);
    guest.out(PORT_NOTIFY_OOM, 0);
    guest.qxl.process();
    let second = guest.take_releases(|id| id);

    // The last slot of the ring stays free.
    assert_eq!(first, all[..7]);
    assert_eq!(second, all[7..]);
}

#[test]
fn a_waiting_guest_is_interrupted_by_the_release_and_no_other() {
    let guest = Guest::native(64, 48);
    guest.set_word(0x1434 + 8, 2);

    guest.run(CMD_DRAW, nop(&guest));
    let first = guest.take_interrupts();
    guest.run(CMD_DRAW, nop(&guest));

    assert_eq!(first & INT_DISPLAY, 0);
    assert_eq!(guest.take_interrupts() & INT_DISPLAY, INT_DISPLAY);
}

#[test]
fn a_guest_that_asked_too_late_for_a_release_is_interrupted_by_the_next() {
    let guest = Guest::native(64, 48);
    guest.set_word(0x1434 + 8, 1000);
    guest.run(CMD_DRAW, nop(&guest));
    // It saw an empty ring before the release, and only now asks for what is there already.
    guest.set_word(0x1434 + 8, 1);
    let before = guest.take_interrupts();

    guest.run(CMD_DRAW, nop(&guest));

    assert_eq!(before & INT_DISPLAY, 0);
    assert_eq!(guest.take_interrupts() & INT_DISPLAY, INT_DISPLAY);
}

#[test]
fn a_guest_that_waits_for_room_in_the_ring_is_interrupted() {
    let guest = Guest::native(64, 48);
    guest.set_word(0x1434 + 8, 1000);
    guest.set_word(0x100c + 16, 1);

    guest.run(CMD_DRAW, nop(&guest));

    assert_eq!(guest.take_interrupts() & INT_DISPLAY, INT_DISPLAY);
}

#[test]
fn an_idle_device_asks_for_the_next_command() {
    let guest = Guest::native(64, 48);

    guest.run(CMD_DRAW, nop(&guest));

    assert_eq!(guest.word(0x100c + 8), 2);
    assert_eq!(guest.word(0x1220 + 8), 1);
}

#[test]
fn cursor_commands_are_found_whichever_port_says_so() {
    let guest = Guest::native(64, 48);
    let hide = guest.put(&Bytes::default().u64(9).u8(2).zeros(150).0);
    guest.push(CMD_CURSOR, hide);

    guest.out(PORT_NOTIFY_CMD, 0);
    guest.qxl.process();

    assert_eq!(guest.word(0x1220 + 12), 1);
}

#[test]
fn masked_interrupts_do_not_reach_the_line() {
    let guest = Guest::native(64, 48);
    guest.set_word(8, 0);

    guest.out(PORT_UPDATE_AREA_ASYNC, 0);
    guest.qxl.process();
    let masked = guest.line.level();
    guest.set_word(8, INT_IO_CMD);
    guest.out(PORT_UPDATE_IRQ, 0);

    assert!(!masked);
    assert!(guest.line.level());
}

#[test]
fn the_command_register_silences_the_line() {
    let guest = Guest::native(64, 48);
    guest.qxl.config().lock().write(4, &[7, 4]);
    guest.qxl.config_written(4, 2);

    guest.out(PORT_UPDATE_AREA_ASYNC, 0);
    guest.qxl.process();
    let silent = guest.line.level();
    guest.qxl.config().lock().write(4, &[7, 0]);
    guest.qxl.config_written(4, 2);

    assert!(!silent);
    assert!(guest.line.level());
}

#[test]
fn in_vga_mode_drawing_ports_do_nothing_but_complete() {
    let guest = Guest::new();
    guest.set_word(8, u32::MAX);

    guest.out(PORT_UPDATE_AREA, 0);
    let sync = guest.take_interrupts();
    guest.out(PORT_UPDATE_AREA_ASYNC, 0);

    assert_eq!((sync, guest.take_interrupts()), (0, INT_IO_CMD));
}

#[test]
fn a_second_asynchronous_port_before_the_first_is_done_is_a_bug() {
    let guest = Guest::native(64, 48);

    guest.out(PORT_UPDATE_AREA_ASYNC, 0);
    guest.out(PORT_UPDATE_AREA_ASYNC, 0);

    assert_eq!(guest.take_interrupts() & INT_ERROR, INT_ERROR);
}

#[test]
fn after_a_bug_only_a_reset_helps() {
    let guest = Guest::native(64, 48);
    guest.out(PORT_MEMSLOT_ADD, 200);
    guest.fill(0, rect(0, 0, 1, 1), 0xff);
    let after_bug = guest.pixel(0, 0);

    guest.go_native(64, 48);
    guest.fill(0, rect(0, 0, 1, 1), 0xff);

    assert_eq!((after_bug, guest.pixel(0, 0)), (0, 0xff));
}

#[test]
fn the_interrupt_of_a_bug_can_be_acknowledged() {
    let guest = Guest::native(64, 48);
    guest.set_word(8, u32::MAX);
    guest.out(PORT_MEMSLOT_ADD, 200);
    let before = guest.line.level();

    let pending = guest.take_interrupts();

    assert_eq!((before, pending & INT_ERROR), (true, INT_ERROR));
    assert!(!guest.line.level());
}

#[test]
fn a_primary_surface_larger_than_the_frame_buffer_is_a_bug() {
    let guest = Guest::native(64, 48);
    guest.describe_primary(1024, 1024, 4096, 0);

    guest.out(PORT_CREATE_PRIMARY, 0);

    assert_eq!(guest.take_interrupts() & INT_ERROR, INT_ERROR);
    let size = Size {
        width: 64,
        height: 48,
    };
    assert_eq!(guest.qxl.layout().primary, Some(size));
}

#[test]
fn without_a_primary_surface_there_is_nothing_to_see() {
    let guest = Guest::native(64, 48);
    let watcher = Watcher::of(&guest.qxl);
    let before = guest.qxl.layout().generation;

    guest.out(PORT_DESTROY_PRIMARY, 0);
    guest.qxl.process();

    let layout = guest.qxl.layout();
    assert_eq!((layout.primary, layout.heads.len()), (None, 0));
    assert!(layout.generation > before);
    assert_eq!(
        watcher.layouts.load(std::sync::atomic::Ordering::Relaxed),
        1
    );
}

#[test]
fn heads_are_parts_of_the_primary_surface() {
    let guest = Guest::native(200, 100);
    let head = |b: Bytes, id: u32, x: u32| b.u32(id).u32(0).u32(100).u32(100).u32(x).u32(0).u32(0);
    let monitors = head(head(Bytes::default().u16(2).u16(4), 0, 0), 1, 100);
    let monitors = guest.put(&monitors.0);
    guest.write_header(0x14dc, &monitors.to_le_bytes());

    guest.out(PORT_MONITORS_CONFIG_ASYNC, 0);
    guest.qxl.process();

    let heads = guest.qxl.layout().heads;
    assert_eq!(heads.len(), 2);
    assert_eq!(heads[1].area, rect(100, 0, 200, 100));
}

#[test]
fn a_guest_that_listens_is_told_the_hosts_wish_once() {
    let guest = Guest::native(64, 48);

    let told = guest.qxl.request_heads(&[WISH]);
    let first = guest.take_interrupts();
    guest.qxl.request_heads(&[WISH]);

    assert!(told);
    assert_eq!(first & INT_CLIENT_MONITORS, INT_CLIENT_MONITORS);
    assert_eq!(guest.take_interrupts() & INT_CLIENT_MONITORS, 0);
    assert_eq!(guest.read(2, 0x84, 2), [1, 0]);
    let right = guest.read(2, 0x88 + 12, 4);
    assert_eq!(right, 800_u32.to_le_bytes());
}

#[test]
fn a_guest_that_does_not_listen_is_not_told() {
    let guest = Guest::native(64, 48);

    let told = [0, 7, u32::MAX].map(|mask| {
        guest.set_word(8, mask);
        guest.qxl.request_heads(&[WISH])
    });

    assert_eq!(told, [false; 3]);
}

#[test]
fn the_rom_says_whether_clients_are_there() {
    let guest = Guest::native(64, 48);

    guest.qxl.clients_changed(ClientCapabilities {
        present: true,
        bits: 0x0a,
    });

    assert_eq!(guest.read(2, 0x45, 3), [1, 0x0a, 0]);
}

#[test]
fn the_rom_is_read_only() {
    let guest = Guest::new();

    guest.write(2, 0, &[0; 4]);

    assert_eq!(guest.read(2, 0, 4), b"QXRO");
    assert!(guest.qxl.bar_memory(2).unwrap().read_only);
}
