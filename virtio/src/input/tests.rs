use caraway_devices::{Lifecycle, StateError, state_tests};
use parking_lot::Mutex as PlainMutex;

use super::event::{EV_ABS, EV_KEY, EV_LED, EV_REL, EV_SYN};
use super::*;
use crate::testing::*;
use crate::transport::VirtioPci;

/// Gives the device `count` buffers for events.
fn give_buffers<M: Model>(machine: &mut Machine<Input<M>>, count: u16) {
    for _ in 0..count {
        let at = BUFFERS + 8 * u64::from(machine.queues[0].next_avail);
        machine.submit(0, &[writable(at, 8)]);
    }
    machine.notify(0);
}

/// The events that came since the last call, as type, code and value.
fn events<M: Model>(machine: &mut Machine<Input<M>>) -> Vec<(u16, u16, i32)> {
    machine
        .used(0)
        .into_iter()
        .map(|(head, len)| {
            assert_eq!(len, 8);
            let event = Event::from_bytes(machine.get(BUFFERS + 8 * u64::from(head)));
            (event.kind, event.code, event.value)
        })
        .collect()
}

fn tablet(buffers: u16) -> Machine<Tablet> {
    let mut machine = Machine::ready(Tablet::new());
    give_buffers(&mut machine, buffers);
    machine
}

fn keyboard(buffers: u16) -> Machine<Keyboard> {
    let mut machine = Machine::ready(Keyboard::new(|_| {}));
    give_buffers(&mut machine, buffers);
    machine
}

/// The answer of the device's configuration.
fn query<M: Model>(machine: &Machine<Input<M>>, select: u8, subsel: u8) -> Vec<u8> {
    machine.write8(reg::DEVICE, select);
    machine.write8(reg::DEVICE + 1, subsel);
    let size = machine.read8(reg::DEVICE + 2);
    (0..u64::from(size))
        .map(|at| machine.read8(reg::DEVICE + 8 + at))
        .collect()
}

const SYN: (u16, u16, i32) = (EV_SYN, 0, 0);

state_tests!(
    state,
    Arc::into_inner(Machine::new(Tablet::new()).pci).unwrap(),
    |pci: &mut VirtioPci<Tablet>| {
        use caraway_devices::pci::PciFunction;
        pci.bar_write(4, reg::DEVICE, &[0x11]);
    }
);

#[test]
fn a_tablet_says_what_it_is() {
    let machine = Machine::new(Tablet::new());

    assert_eq!(query(&machine, 0x01, 0), b"Caraway Virtio Tablet");
    assert_eq!(query(&machine, 0x03, 0), [6, 0, 0x27, 6, 3, 0, 1, 0]);
    assert_eq!(query(&machine, 0x11, 3), [0b11]);
    assert_eq!(query(&machine, 0x11, 2), [0, 1]);
    let mut range = vec![0; 20];
    range[4..6].copy_from_slice(&[0xff, 0x7f]);
    assert_eq!(query(&machine, 0x12, 1), range);
}

#[test]
fn a_tablet_has_five_buttons() {
    let machine = Machine::new(Tablet::new());

    let buttons = query(&machine, 0x11, 1);

    assert_eq!(buttons.len(), 0x110 / 8 + 1);
    assert_eq!(buttons.last(), Some(&0x1f));
}

#[test]
fn what_is_not_there_has_no_size() {
    let machine = Machine::new(Tablet::new());

    for (select, subsel) in [(0, 0), (0x10, 0), (0x11, 0x11), (0x12, 2), (0xff, 0xff)] {
        assert!(
            query(&machine, select, subsel).is_empty(),
            "{select:#x} {subsel}"
        );
    }
}

#[test]
fn a_keyboard_has_letters_arrows_lights_and_repeats() {
    let machine = Machine::new(Keyboard::new(|_| {}));

    let keys = query(&machine, 0x11, 1);
    let has = |key: usize| {
        keys.get(key / 8)
            .is_some_and(|byte| byte & 1 << (key % 8) != 0)
    };

    assert!(has(30) && has(103) && has(1));
    assert!(!has(0x110));
    assert_eq!(query(&machine, 0x11, 0x11), [0b111]);
    assert_eq!(query(&machine, 0x11, 0x14), [0b11]);
}

#[test]
fn a_position_is_two_axes_and_a_report() {
    let mut machine = tablet(8);

    machine.device().position(100, 40000);

    let expected = [(EV_ABS, 0, 100), (EV_ABS, 1, 32767), SYN];
    assert_eq!(events(&mut machine), expected);
}

#[test]
fn a_batch_interrupts_once() {
    let machine = tablet(8);
    machine.enable_msix();

    machine.device().position(1, 2);

    assert_eq!(machine.messages(1), 1);
}

#[test]
fn buttons_report_only_what_changes() {
    let mut machine = tablet(16);

    machine.device().buttons(&[Button::Left]);
    machine.device().buttons(&[Button::Left, Button::Extra]);
    machine.device().buttons(&[Button::Extra]);

    let expected = [
        (EV_KEY, 0x110, 1),
        SYN,
        (EV_KEY, 0x114, 1),
        SYN,
        (EV_KEY, 0x110, 0),
        SYN,
    ];
    assert_eq!(events(&mut machine), expected);
}

#[test]
fn the_wheel_turns_both_ways() {
    let mut machine = tablet(8);

    machine.device().wheel(1);
    machine.device().wheel(-2);

    assert_eq!(
        events(&mut machine),
        [(EV_REL, 8, 1), SYN, (EV_REL, 8, -2), SYN]
    );
}

#[test]
fn a_batch_waits_until_there_are_buffers_for_all_of_it() {
    let mut machine = tablet(2);

    machine.device().position(1, 2);
    let before = events(&mut machine);
    give_buffers(&mut machine, 1);

    assert_eq!(before, []);
    assert_eq!(events(&mut machine).len(), 3);
}

#[test]
fn waiting_positions_give_way_to_the_newest() {
    let mut machine = tablet(0);
    machine.device().position(1, 1);
    machine.device().position(2, 2);

    give_buffers(&mut machine, 8);

    let expected = [(EV_ABS, 0, 2), (EV_ABS, 1, 2), SYN];
    assert_eq!(events(&mut machine), expected);
}

#[test]
fn a_full_queue_loses_presses_but_no_release() {
    let machine = keyboard(0);
    machine.device().key(0x1e, false, true);
    for _ in 0..MAX_PENDING {
        machine.device().key(0x30, false, true);
        machine.device().key(0x30, false, false);
    }
    machine.device().key(0x1e, false, false);
    let pending = machine.device().save().pending;

    assert!(pending.len() <= MAX_PENDING + 2);
    let last = pending.last().unwrap();
    assert_eq!(last, &[Event::new(EV_KEY, 30, 0)]);
}

#[test]
fn nothing_waits_for_a_guest_without_a_driver() {
    let machine = Machine::new(Tablet::new());

    machine.device().position(1, 2);

    assert!(machine.device().save().pending.is_empty());
}

#[test]
fn a_device_is_active_once_its_driver_is_set_up() {
    let without_driver = Machine::new(Tablet::new());
    let without_buffers = tablet(0);

    assert!(!without_driver.device().is_active());
    assert!(without_buffers.device().is_active());
}

#[test]
fn keys_are_sent_once_per_change() {
    let mut machine = keyboard(16);

    machine.device().key(0x48, true, true);
    machine.device().key(0x48, true, true);
    machine.device().key(0x48, true, false);
    machine.device().key(0x48, true, false);

    let expected = [(EV_KEY, 103, 1), SYN, (EV_KEY, 103, 0), SYN];
    assert_eq!(events(&mut machine), expected);
}

#[test]
fn all_keys_are_released_together() {
    let mut machine = keyboard(16);
    machine.device().key(0x1e, false, true);
    machine.device().key(0x1d, true, true);
    events(&mut machine);

    machine.device().release_all();

    let expected = [(EV_KEY, 30, 0), SYN, (EV_KEY, 97, 0), SYN];
    assert_eq!(events(&mut machine), expected);
}

#[test]
fn lights_come_back_and_go_out_at_reset() {
    let seen = Arc::new(PlainMutex::new(Vec::new()));
    let sink = Arc::clone(&seen);
    let mut machine = Machine::ready(Keyboard::new(move |leds| sink.lock().push(leds)));
    for (n, code) in [(0u64, 1u16), (1, 0)] {
        let at = BUFFERS + 8 * n;
        machine.put(at, &Event::new(EV_LED, code, 1).to_bytes());
        machine.submit(1, &[readable(at, 8)]);
    }

    machine.notify(1);

    let lights = Leds {
        num: true,
        caps: true,
        scroll: false,
    };
    assert_eq!(*seen.lock(), [lights]);
    assert_eq!(machine.device().leds(), lights);
    assert_eq!(machine.used(1).len(), 2);
    machine.write8(reg::STATUS, 0);
    assert_eq!(seen.lock().last(), Some(&Leds::default()));
}

#[test]
fn a_buffer_that_is_too_small_breaks_the_device() {
    let mut machine = Machine::ready(Tablet::new());
    for _ in 0..3 {
        machine.submit(0, &[writable(BUFFERS, 7)]);
    }
    machine.notify(0);

    machine.device().position(1, 2);

    assert_eq!(machine.read8(reg::STATUS) & 0x40, 0x40);
}

#[test]
fn a_saved_state_with_endless_batches_is_refused() {
    let machine = tablet(0);
    machine.device().wheel(1);
    let mut saved = Lifecycle::save(&*machine.pci).unwrap();
    let batch = &mut saved.body["device"]["pending"][0];
    let event = batch[0].clone();
    *batch = vec![event; MAX_BATCH + 1].into();

    let restored = Lifecycle::restore(&*machine.pci, &saved);

    assert!(matches!(restored, Err(StateError::Invalid { .. })));
}

#[test]
fn a_restored_keyboard_knows_what_is_down() {
    let machine = keyboard(16);
    machine.device().key(0x1e, false, true);
    let saved = machine.device().save();
    let mut other = keyboard(16);

    other.device().restore(saved).unwrap();
    other.device().release_all();

    assert_eq!(events(&mut other), [(EV_KEY, 30, 0), SYN]);
}
