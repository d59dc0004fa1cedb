//! Saving, restoring and resetting the whole device.

use caraway_devices::pci::PciFunction;
use caraway_devices::{Lifecycle, state_tests};
use caraway_spice::DisplaySource;

use crate::testing::*;
use crate::{BarRegion, Qxl};

/// A device that lives as long as the test does.
fn fresh() -> &'static Qxl {
    let guest = Box::leak(Box::new(Guest::new()));
    // As after power-on: no BAR is placed.
    Lifecycle::reset(&*guest.qxl);
    &guest.qxl
}

fn use_it(device: &mut &'static Qxl) {
    device.config().lock().write(0x04, &[7, 4]);
    device.vga.lock().write_port(0x3c2, 0x67);
}

state_tests!(state, fresh(), use_it);

/// Gives another device the same memory.
pub(super) fn copy_regions(from: &[BarRegion], to: &[BarRegion]) {
    use vm_memory::VolatileMemory;
    for (from, to) in from.iter().zip(to) {
        assert_eq!(from.bar, to.bar);
        let slice = to.region.get_slice(0, to.region.size()).unwrap();
        let source = from.region.get_slice(0, from.region.size()).unwrap();
        source.copy_to_volatile_slice(slice);
    }
}

#[test]
fn pictures_and_commands_survive_a_snapshot() {
    let guest = Guest::native(64, 48);
    guest.fill(0, rect(3, 3, 20, 20), 0x12_3456);
    let later = guest.drawable(1, 0, rect(0, 0, 2, 2), &[], Guest::fill_body(0xff));
    guest.push(CMD_DRAW, later);
    let saved = Lifecycle::save(&*guest.qxl).unwrap();
    let other = Guest::new();
    copy_regions(&guest.qxl.regions(), &other.qxl.regions());

    Lifecycle::restore(&*other.qxl, &saved).unwrap();
    other.qxl.process();

    let whole = rect(0, 0, 64, 48);
    guest.qxl.process();
    assert_eq!(other.pixels(whole), guest.pixels(whole));
    assert_eq!(other.pixel(0, 0), 0xff);
    assert_eq!(other.qxl.layout().heads, guest.qxl.layout().heads);
}

#[test]
fn an_impossible_snapshot_changes_nothing() {
    let guest = Guest::native(64, 48);
    let mut saved = Lifecycle::save(&*guest.qxl).unwrap();
    saved.body["primary"]["width"] = 1_000_000.into();

    let result = Lifecycle::restore(&*guest.qxl, &saved);

    assert!(result.is_err());
    assert_eq!(guest.pixel(0, 0), 0);
}

#[test]
fn a_reset_leads_back_to_vga() {
    let guest = Guest::native(64, 48);

    Lifecycle::reset(&*guest.qxl);

    assert_eq!(guest.word(0x100c + 4), 0);
    assert_ne!(guest.qxl.layout().primary.unwrap().width, 64);
}
