//! Every port that works on a request, at once and by an interrupt, and the monitors.

use caraway_devices::Lifecycle;
use caraway_devices::pci::PciFunction;
use caraway_spice::{ClientCapabilities, DisplaySource, HeadRequest};

use super::lifecycle::copy_regions;
use crate::QxlConfig;
use crate::testing::*;

const INT_CLIENT: u32 = 16;
const SURFACE: u32 = 5;

/// Off-screen surface 5 of 16x16 pixels, at the start of slot 2, filled.
fn with_surface() -> Guest {
    let guest = Guest::native(64, 48);
    let create = Bytes::default()
        .u64(77)
        .u32(SURFACE)
        .u8(0)
        .u32(0)
        .u32(96)
        .u32(16)
        .u32(16)
        .u32(64)
        .u64(2 << 56);
    guest.run(CMD_SURFACE, guest.put(&create.0));
    guest.fill(SURFACE, rect(0, 0, 16, 16), 0x11_2233);
    guest.fill(0, rect(0, 0, 64, 48), 0x44_5566);
    guest
}

/// Whether surface 5 is still there: it can be drawn on the screen.
fn has_surface(guest: &Guest) -> bool {
    let image = Bytes::default().u64(0).u8(104).u8(0).zeros(8).u32(SURFACE);
    let body = Guest::copy_body(guest.put(&image.0), rect(0, 0, 1, 1));
    let draw = guest.drawable(3, 0, rect(0, 0, 1, 1), &[], body);
    guest.run(CMD_DRAW, draw);
    guest.pixel(0, 0) == 0x11_2233
}

fn area_of(guest: &Guest, surface: u32) {
    let area = Bytes::default().rect(rect(0, 0, 16, 16)).u32(surface);
    guest.write_header(0x1488, &area.0);
}

/// A request, what is prepared for it, and whether it was done.
struct Case {
    name: &'static str,
    ports: (Option<u64>, u64),
    value: u8,
    prepare: fn(&Guest),
    done: fn(&Guest) -> bool,
}

const CASES: &[Case] = &[
    Case {
        name: "update of the screen's memory",
        ports: (Some(2), 16),
        value: 0,
        prepare: |guest| area_of(guest, 0),
        done: |guest| guest.read(0, 0, 4) == [0x66, 0x55, 0x44, 0],
    },
    Case {
        name: "update of a surface's memory",
        ports: (Some(2), 16),
        value: 0,
        prepare: |guest| area_of(guest, SURFACE),
        done: |guest| guest.read(1, 0, 3) == [0x33, 0x22, 0x11],
    },
    Case {
        name: "memory slot",
        ports: (Some(8), 17),
        value: 3,
        prepare: |guest| guest.describe_slot(RAM_BASE, RAM_BASE + 4096),
        done: |guest| guest.qxl.core.lock().slots.active()[3].is_some(),
    },
    Case {
        name: "primary surface",
        ports: (Some(12), 18),
        value: 0,
        prepare: |guest| guest.describe_primary(32, 24, 128, 0),
        done: |guest| {
            guest
                .qxl
                .layout()
                .primary
                .is_some_and(|size| size.width == 32)
        },
    },
    Case {
        name: "no primary surface",
        ports: (Some(13), 19),
        value: 0,
        prepare: |_| (),
        done: |guest| guest.qxl.layout().primary.is_none(),
    },
    Case {
        name: "no surface",
        ports: (Some(14), 20),
        value: SURFACE as u8,
        prepare: |_| (),
        done: |guest| !has_surface(guest),
    },
    Case {
        name: "no surfaces at all",
        ports: (Some(15), 21),
        value: 0,
        prepare: |_| (),
        done: |guest| guest.qxl.core.lock().surfaces.all().count() == 0,
    },
    Case {
        name: "all surfaces to memory",
        ports: (None, 22),
        value: 0,
        prepare: |_| (),
        done: |guest| {
            guest.read(1, 0, 3) == [0x33, 0x22, 0x11] && guest.read(0, 0, 3) == [0x66, 0x55, 0x44]
        },
    },
    Case {
        name: "monitors",
        ports: (None, 24),
        value: 0,
        prepare: |guest| describe_heads(guest, 2),
        done: |guest| guest.qxl.layout().heads.len() == 2,
    },
];

/// Heads of 16 columns side by side.
fn describe_heads(guest: &Guest, count: u16) {
    let heads = Bytes::default().u16(count).u16(count);
    let heads = (0..u32::from(count)).fold(heads, |heads, id| {
        heads.u32(id).u32(0).u32(16).u32(48).u32(16 * id).zeros(8)
    });
    let heads = guest.put(&heads.0);
    guest.write_header(0x14dc, &heads.to_le_bytes());
}

#[test]
fn a_synchronous_port_is_done_when_the_guest_goes_on() {
    for case in CASES {
        let Some(port) = case.ports.0 else { continue };
        let guest = with_surface();
        (case.prepare)(&guest);
        guest.take_interrupts();

        guest.out(port, case.value);

        let interrupts = guest.take_interrupts();
        assert_eq!(interrupts & (INT_IO_CMD | INT_ERROR), 0, "{}", case.name);
        assert!((case.done)(&guest), "{}", case.name);
    }
}

#[test]
fn an_asynchronous_port_is_done_when_its_interrupt_comes() {
    for case in CASES {
        let guest = with_surface();
        (case.prepare)(&guest);
        guest.take_interrupts();

        guest.out(case.ports.1, case.value);
        let early = guest.take_interrupts() & INT_IO_CMD;
        guest.qxl.process();

        let interrupts = guest.take_interrupts() & (INT_IO_CMD | INT_ERROR);
        assert_eq!((early, interrupts), (0, INT_IO_CMD), "{}", case.name);
        assert!((case.done)(&guest), "{}", case.name);
    }
}

#[test]
fn a_deleted_slot_can_be_made_again_and_its_addresses_lead_nowhere_meanwhile() {
    let guest = with_surface();
    guest.out(9, 2);
    let gone = guest.qxl.core.lock().slots.active()[2].is_none();
    guest.describe_slot(VRAM_BASE, VRAM_BASE + (4 << 20));

    guest.out(PORT_MEMSLOT_ADD, 2);

    assert!(gone);
    assert!(guest.qxl.core.lock().slots.active()[2].is_some());
    assert_eq!(guest.take_interrupts() & INT_ERROR, 0);
}

/// Something that a driver does.
type Deed = fn(&Guest);

#[test]
fn what_harms_nobody_is_forgiven() {
    let deeds: [(&str, Deed); 7] = [
        ("a slot that is not there is deleted", |guest| {
            guest.out(9, 5)
        }),
        ("more is asked for than the screen has", |guest| {
            let area = Bytes::default().rect(rect(10, 10, 640, 480)).u32(0);
            guest.write_header(0x1488, &area.0);
            guest.out(PORT_UPDATE_AREA, 0);
        }),
        ("a surface that is gone is asked for", |guest| {
            area_of(guest, 9);
            guest.out(PORT_UPDATE_AREA, 0);
        }),
        ("nothing is asked for", |guest| {
            let area = Bytes::default().rect(rect(10, 10, 10, 20)).u32(0);
            guest.write_header(0x1488, &area.0);
            guest.out(PORT_UPDATE_AREA, 0);
        }),
        ("monitors are nowhere", |guest| {
            guest.write_header(0x14dc, &[0; 8]);
            guest.out(PORT_MONITORS_CONFIG_ASYNC, 0);
        }),
        ("there are more monitors than may be", |guest| {
            let heads = Bytes::default().u16(3).u16(2).zeros(3 * 28);
            guest.write_header(0x14dc, &guest.put(&heads.0).to_le_bytes());
            guest.out(PORT_MONITORS_CONFIG_ASYNC, 0);
        }),
        ("there are no monitors", |guest| {
            describe_heads(guest, 0);
            guest.out(PORT_MONITORS_CONFIG_ASYNC, 0);
        }),
    ];
    for (name, deed) in deeds {
        let guest = with_surface();
        describe_heads(&guest, 2);
        guest.out(PORT_MONITORS_CONFIG_ASYNC, 0);
        guest.qxl.process();
        guest.take_interrupts();

        deed(&guest);
        guest.qxl.process();

        assert_eq!(guest.take_interrupts() & INT_ERROR, 0, "{name}");
        assert_eq!(guest.qxl.layout().heads.len(), 2, "{name}");
        guest.fill(0, rect(1, 1, 2, 2), 0x11_1111);
        assert_eq!(guest.pixel(1, 1), 0x11_1111, "{name}");
    }
}

#[test]
fn what_is_beyond_the_screen_is_not_written_back() {
    let guest = with_surface();
    let area = Bytes::default().rect(rect(60, 46, 640, 480)).u32(0);
    guest.write_header(0x1488, &area.0);

    guest.out(PORT_UPDATE_AREA, 0);

    // Four pixels of each of the last two rows, and nothing after them.
    let row = |y: u64| guest.read(0, y * 256 + 60 * 4, 16);
    assert_eq!(row(46), [0x66, 0x55, 0x44, 0].repeat(4));
    assert_eq!(row(47), row(46));
    assert_eq!(row(45), [0; 16]);
    assert_eq!(guest.read(0, 48 * 256, 256), [0; 256]);
}

#[test]
fn an_asynchronous_port_that_is_refused_is_over() {
    let guest = with_surface();
    guest.take_interrupts();

    guest.out(PORT_CREATE_PRIMARY_ASYNC, 1);

    let both = INT_IO_CMD | INT_ERROR;
    assert_eq!(guest.take_interrupts() & both, both);
}

#[test]
fn commands_are_taken_while_there_is_no_primary_surface() {
    let guest = with_surface();
    guest.out(PORT_DESTROY_PRIMARY, 0);
    guest.qxl.process();

    guest.fill(SURFACE, rect(0, 0, 16, 16), 0x77_8899);
    area_of(&guest, SURFACE);
    guest.out(PORT_UPDATE_AREA, 0);

    assert_eq!(guest.read(1, 0, 3), [0x99, 0x88, 0x77]);
}

#[test]
fn a_guest_that_is_reset_still_knows_who_is_looking() {
    let guest = Guest::native(64, 48);
    guest.qxl.clients_changed(ClientCapabilities {
        present: true,
        bits: 0x0a,
    });

    guest.out(PORT_RESET, 0);

    assert_eq!(guest.read(2, 0x45, 3), [1, 0x0a, 0]);
}

#[test]
fn a_guest_that_is_restored_learns_who_is_looking_now() {
    let guest = Guest::native(64, 48);
    guest.qxl.clients_changed(ClientCapabilities {
        present: true,
        bits: 0x0a,
    });
    guest.take_interrupts();
    let saved = Lifecycle::save(&*guest.qxl).unwrap();
    let other = Guest::new();
    copy_regions(&guest.qxl.regions(), &other.qxl.regions());

    Lifecycle::restore(&*other.qxl, &saved).unwrap();

    assert_eq!(other.read(2, 0x45, 3), [0, 0, 0]);
    assert_eq!(other.take_interrupts() & INT_CLIENT, INT_CLIENT);
}

#[test]
fn a_command_of_another_generation_is_a_bug() {
    let guest = Guest::native(64, 48);
    let nop = guest.drawable(0, 0, rect(0, 0, 1, 1), &[], Bytes::default());

    guest.run(CMD_DRAW, nop | 1 << 48);

    assert_eq!(guest.take_interrupts() & INT_ERROR, INT_ERROR);
}

#[test]
fn four_heads_are_four_monitors() {
    let guest = Guest::native(64, 48);
    describe_heads(&guest, 4);

    guest.out(PORT_MONITORS_CONFIG_ASYNC, 0);
    guest.qxl.process();

    let heads = guest.qxl.layout().heads;
    let areas: Vec<_> = heads.iter().map(|head| (head.id, head.area)).collect();
    let expected = (0..4).map(|id| (id, rect(16 * id as i32, 0, 16 * id as i32 + 16, 48)));
    assert_eq!(areas, expected.collect::<Vec<_>>());
}

#[test]
fn the_guest_is_asked_for_as_many_heads_as_the_device_has() {
    let guest = Guest::with(QxlConfig {
        ram: 8 << 20,
        vram: 4 << 20,
        vgamem: 1 << 20,
        heads: 4,
        ..QxlConfig::default()
    });
    guest.go_native(64, 48);
    let wish = |x| HeadRequest {
        width: 640,
        height: 480,
        x,
        y: 0,
    };

    guest
        .qxl
        .request_heads(&[0, 640, 1280, 1920, 2560].map(wish));

    // Left, top, right, bottom of each, in the order of the ROM: top comes second to left.
    let count = guest.read(2, 0x84, 2);
    let last = guest.read(2, 0x88 + 3 * 16, 16);
    let words: Vec<u32> = last
        .as_chunks()
        .0
        .iter()
        .map(|w| u32::from_le_bytes(*w))
        .collect();
    assert_eq!(count, [4, 0]);
    assert_eq!(
        (words.iter().min(), words.iter().max()),
        (Some(&0), Some(&2560))
    );
    assert!(words.contains(&1920) && words.contains(&480));
    assert_eq!(
        guest.take_interrupts() & INT_CLIENT_MONITORS,
        INT_CLIENT_MONITORS
    );
}

#[test]
fn the_guest_is_interrupted_when_other_clients_come_and_only_then() {
    let guest = Guest::native(64, 48);
    let clients = ClientCapabilities {
        present: true,
        bits: 0x0a,
    };

    guest.qxl.clients_changed(clients);
    let first = guest.take_interrupts() & INT_CLIENT;
    guest.qxl.clients_changed(clients);
    let again = guest.take_interrupts() & INT_CLIENT;
    guest.qxl.clients_changed(ClientCapabilities::default());
    let gone = guest.take_interrupts() & INT_CLIENT;

    assert_eq!([first, again, gone], [INT_CLIENT, 0, INT_CLIENT]);
}

#[test]
fn surfaces_heads_slots_wishes_and_what_is_pending_survive_a_snapshot() {
    let guest = with_surface();
    describe_heads(&guest, 3);
    guest.out(PORT_MONITORS_CONFIG_ASYNC, 0);
    guest.qxl.process();
    guest.describe_slot(RAM_BASE, RAM_BASE + 4096);
    guest.out(PORT_MEMSLOT_ADD, 6);
    guest.qxl.request_heads(&[HeadRequest {
        width: 800,
        height: 600,
        x: 0,
        y: 0,
    }]);
    guest.take_interrupts();
    area_of(&guest, SURFACE);
    guest.out(PORT_UPDATE_AREA_ASYNC, 0);

    let saved = Lifecycle::save(&*guest.qxl).unwrap();
    let other = Guest::new();
    copy_regions(&guest.qxl.regions(), &other.qxl.regions());
    Lifecycle::restore(&*other.qxl, &saved).unwrap();
    other.qxl.process();

    assert_eq!(other.take_interrupts() & INT_IO_CMD, INT_IO_CMD);
    assert_eq!(other.qxl.layout().heads, guest.qxl.layout().heads);
    assert_eq!(other.qxl.layout().heads.len(), 3);
    assert!(other.qxl.core.lock().slots.active()[6].is_some());
    assert_eq!(other.read(2, 0x80, 1032), guest.read(2, 0x80, 1032));
    // The other guest's heap begins anew, over what the first one had there.
    assert!(has_surface(&other));
}

#[test]
fn a_surface_whose_memory_is_gone_survives_a_snapshot() {
    let guest = with_surface();
    guest.out(9, 2);

    let saved = Lifecycle::save(&*guest.qxl).unwrap();
    let restored = Lifecycle::restore(&*guest.qxl, &saved);

    assert!(restored.is_ok(), "{restored:?}");
    assert_eq!(guest.qxl.core.lock().surfaces.all().count(), 1);
}

#[test]
fn a_device_without_vga_shows_nothing_before_its_driver_does_and_after_a_reset() {
    let guest = Guest::with(QxlConfig {
        ram: 8 << 20,
        vram: 4 << 20,
        vgamem: 1 << 20,
        vga: false,
        channel: 3,
        ..QxlConfig::default()
    });
    let before = guest.qxl.layout().primary;
    guest.go_native(64, 48);
    guest.fill(0, rect(0, 0, 64, 48), 0x12_3456);
    let pixel = guest.pixel(5, 5);

    guest.out(PORT_RESET, 0);

    let space = guest.qxl.config().lock();
    assert_eq!(space.u32_at(8), 0x0380_0005);
    assert_eq!(guest.read(2, 4, 4), [3, 0, 0, 0]);
    assert_eq!((before, pixel), (None, 0x12_3456));
    assert_eq!(guest.qxl.layout().primary, None);
}
