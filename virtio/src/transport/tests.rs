use std::ops::ControlFlow;
use std::sync::atomic::{AtomicU8, Ordering};

use caraway_devices::{StateError, state_tests};
use proptest::prelude::*;
use serde::{Deserialize, Serialize};
use vm_memory::{Bytes, GuestAddress};

use super::*;
use crate::device::DeviceType;
use crate::testing::*;

/// Gives every chain back at once, with all of its writable part written to; has one register.
#[derive(Default)]
struct Echo {
    queues: Mutex<[Option<Arc<Virtqueue>>; 2]>,
    register: AtomicU8,
}

#[derive(Serialize, Deserialize)]
struct EchoState {
    register: u8,
}

impl VirtioDevice for Echo {
    type State = EchoState;
    const KIND: &'static str = "virtio-echo";
    const VERSION: u32 = 1;
    const TYPE: DeviceType = DeviceType {
        id: 42,
        pci_class: 0xff_00_00,
    };

    fn features(&self) -> u64 {
        1 << 3
    }

    fn queue_sizes(&self) -> &[u16] {
        &[16, 8]
    }

    fn read_config(&self, _offset: u64, data: &mut [u8]) {
        data.fill(self.register.load(Ordering::Relaxed));
    }

    fn write_config(&self, _offset: u64, data: &[u8]) {
        self.register.store(data[0], Ordering::Relaxed);
    }

    fn start_queue(&self, queue: Arc<Virtqueue>) {
        let index = usize::from(queue.index());
        self.queues.lock()[index] = Some(queue);
    }

    fn stop_queue(&self, index: u16) {
        self.queues.lock()[usize::from(index)] = None;
    }

    fn process_queue(&self, index: u16) {
        let Some(queue) = self.queues.lock()[usize::from(index)].clone() else {
            return;
        };
        queue.serve(|chain| {
            let len = chain.writable.iter().map(|segment| segment.len).sum();
            queue.complete(chain.head, len);
            ControlFlow::Continue(())
        });
        queue.interrupt();
    }

    fn reset(&self) {
        self.register.store(0, Ordering::Relaxed);
    }

    fn save(&self) -> EchoState {
        let register = self.register.load(Ordering::Relaxed);
        EchoState { register }
    }

    fn restore(&self, state: EchoState) -> Result<(), StateError> {
        self.register.store(state.register, Ordering::Relaxed);
        Ok(())
    }
}

fn ready() -> Machine<Echo> {
    Machine::ready(Echo::default())
}

const NO_EVENT_IDX: u64 = !status::EVENT_IDX;

state_tests!(
    state,
    Arc::into_inner(Machine::new(Echo::default()).pci).unwrap(),
    |pci: &mut VirtioPci<Echo>| {
        pci.bar_write(4, reg::STATUS, &[1]);
        pci.bar_write(4, reg::STATUS, &[3]);
        pci.bar_write(4, reg::DEVICE, &[7]);
        pci.bar_write(4, reg::QUEUE_SELECT, &[1, 0]);
        pci.bar_write(4, reg::QUEUE_SIZE, &[4, 0]);
        pci.bar_write(4, reg::QUEUE_DESC, &0x1000u64.to_le_bytes());
    }
);

#[test]
fn the_function_is_a_modern_virtio_device() {
    let machine = Machine::new(Echo::default());

    let ids: [u8; 12] = machine.config_read(0);

    assert_eq!(ids[..4], [0xf4, 0x1a, 0x6a, 0x10]);
    assert_eq!(ids[8..], [1, 0x00, 0x00, 0xff]);
}

#[test]
fn every_region_has_its_capability() {
    let machine = Machine::new(Echo::default());

    let vendor: Vec<(u8, u8, u32)> = machine
        .capabilities()
        .iter()
        .filter(|(_, id)| *id == 9)
        .map(|&(at, _)| {
            let [kind, bar] = machine.config_read(at + 3);
            (kind, bar, u32::from_le_bytes(machine.config_read(at + 8)))
        })
        .collect();

    let expected = [
        (1, 4, 0),
        (3, 4, 0x1000),
        (4, 4, 0x2000),
        (2, 4, 0x3000),
        (5, 0, 0),
    ];
    assert_eq!(vendor, expected);
}

#[test]
fn a_driver_that_probes_as_linux_does_gets_ready() {
    let mut machine = Machine::new(Echo::default());

    machine.probe(u64::MAX);

    assert_eq!(machine.read8(reg::STATUS), 0x0f);
    assert_eq!(machine.read16(reg::NUM_QUEUES), 2);
    machine.write16(reg::QUEUE_SELECT, 1);
    assert_eq!(machine.read16(reg::QUEUE_ENABLE), 1);
    assert_eq!(machine.read16(reg::QUEUE_NOTIFY_OFF), 1);
    assert_eq!(machine.read16(reg::QUEUE_VECTOR), 2);
}

#[test]
fn the_offer_is_the_devices_and_the_transports() {
    let machine = Machine::new(Echo::default());

    let offered = machine.offered();

    assert_eq!(offered, 1 << 3 | status::TRANSPORT_FEATURES);
    assert_eq!(offered & (1 << 33), 0, "ACCESS_PLATFORM");
}

#[test]
fn features_not_offered_are_not_agreed_on() {
    let machine = Machine::new(Echo::default());
    machine.write8(reg::STATUS, 0x03);
    machine.accept(status::VERSION_1 | 1 << 33);

    machine.write8(reg::STATUS, 0x0b);

    assert_eq!(machine.read8(reg::STATUS), 0x03);
}

#[test]
fn a_legacy_driver_is_not_agreed_with() {
    let machine = Machine::new(Echo::default());
    machine.write8(reg::STATUS, 0x03);
    machine.accept(1 << 3);

    machine.write8(reg::STATUS, 0x0b);

    assert_eq!(machine.read8(reg::STATUS), 0x03);
}

#[test]
fn agreed_features_stay_as_they_are() {
    let mut machine = Machine::new(Echo::default());
    machine.negotiate(u64::MAX);

    machine.accept(0);

    machine.write32(reg::DRIVER_FEATURE_SELECT, 1);
    assert_ne!(machine.read32(reg::DRIVER_FEATURE), 0);
}

#[test]
fn driver_ok_before_features_ok_breaks_the_device() {
    let machine = Machine::new(Echo::default());

    machine.write8(reg::STATUS, 0x07);

    assert_eq!(machine.read8(reg::STATUS) & 0x44, 0x40);
}

#[test]
fn a_queue_that_does_not_exist_has_no_size() {
    let machine = Machine::new(Echo::default());

    machine.write16(reg::QUEUE_SELECT, 2);

    assert_eq!(machine.read16(reg::QUEUE_SIZE), 0);
}

#[test]
fn queue_sizes_out_of_range_are_ignored() {
    let machine = Machine::new(Echo::default());

    for size in [0, 3, 32] {
        machine.write16(reg::QUEUE_SIZE, size);
    }

    assert_eq!(machine.read16(reg::QUEUE_SIZE), 16);
}

#[test]
fn a_queue_outside_of_ram_breaks_the_device() {
    let mut machine = Machine::new(Echo::default());
    machine.negotiate(u64::MAX);
    machine.write64(reg::QUEUE_DESC, 0x1_0000);
    machine.write64(reg::QUEUE_DRIVER, 0x2_0000);
    machine.write64(reg::QUEUE_DEVICE, MEMORY as u64);

    machine.write16(reg::QUEUE_ENABLE, 1);

    assert_eq!(machine.read8(reg::STATUS) & 0x40, 0x40);
    assert_eq!(machine.read16(reg::QUEUE_ENABLE), 0);
}

#[test]
fn a_queue_without_an_available_ring_breaks_the_device() {
    let mut machine = Machine::new(Echo::default());
    machine.negotiate(u64::MAX);
    machine.write64(reg::QUEUE_DESC, 0x1_0000);
    machine.write64(reg::QUEUE_DEVICE, 0x3_0000);

    machine.write16(reg::QUEUE_ENABLE, 1);

    assert_eq!(machine.read8(reg::STATUS) & 0x40, 0x40);
    assert_eq!(machine.read16(reg::QUEUE_ENABLE), 0);
}

#[test]
fn a_misaligned_queue_breaks_the_device() {
    let mut machine = Machine::new(Echo::default());
    machine.negotiate(u64::MAX);
    machine.write64(reg::QUEUE_DESC, 0x1_0001);

    machine.write16(reg::QUEUE_ENABLE, 1);

    assert_eq!(machine.read8(reg::STATUS) & 0x40, 0x40);
}

#[test]
fn chains_come_back_used() {
    let mut machine = ready();

    let head = machine.submit(0, &[readable(BUFFERS, 4), writable(BUFFERS, 12)]);
    machine.notify(0);

    assert_eq!(machine.used(0), [(u32::from(head), 12)]);
}

#[test]
fn without_msix_the_isr_drives_the_pin_until_it_is_read() {
    let mut machine = ready();
    machine.submit(0, &[writable(BUFFERS, 1)]);

    machine.notify(0);
    let high = machine.line.level();
    let isr = machine.read8(reg::ISR);

    assert!(high);
    assert_eq!(isr, 1);
    assert!(!machine.line.level());
    assert_eq!(machine.read8(reg::ISR), 0);
}

#[test]
fn intx_disable_keeps_the_pin_low() {
    let mut machine = ready();
    machine.config_write(0x04, &0x0406u16.to_le_bytes());
    machine.submit(0, &[writable(BUFFERS, 1)]);

    machine.notify(0);

    assert!(!machine.line.level());
}

#[test]
fn with_msix_the_queues_vector_is_sent() {
    let mut machine = ready();
    machine.enable_msix();
    machine.submit(1, &[writable(BUFFERS, 1)]);

    machine.notify(1);

    let sent: Vec<usize> = (0..3).map(|vector| machine.messages(vector)).collect();
    assert_eq!(sent, [0, 0, 1]);
    assert!(!machine.line.level());
}

#[test]
fn a_vector_that_does_not_exist_reads_back_as_none() {
    let machine = Machine::new(Echo::default());

    machine.write16(reg::CONFIG_VECTOR, 3);

    assert_eq!(machine.read16(reg::CONFIG_VECTOR), 0xffff);
}

#[test]
fn used_event_suppresses_interrupts() {
    let mut machine = ready();
    machine.set_used_event(0, 1);
    machine.submit(0, &[writable(BUFFERS, 1)]);
    machine.notify(0);
    let after_one = machine.line.level();

    machine.submit(0, &[writable(BUFFERS, 1)]);
    machine.notify(0);

    assert!(!after_one);
    assert!(machine.line.level());
}

#[test]
fn the_no_interrupt_flag_suppresses_interrupts() {
    let mut machine = Machine::new(Echo::default());
    machine.probe(NO_EVENT_IDX);
    machine.put(avail_ring(0), &[1, 0]);
    machine.submit(0, &[writable(BUFFERS, 1)]);

    machine.notify(0);

    assert_eq!(machine.used(0).len(), 1);
    assert!(!machine.line.level());
}

#[test]
fn avail_event_asks_for_the_next_chain() {
    let mut machine = ready();
    machine.submit(0, &[writable(BUFFERS, 1)]);

    machine.notify(0);

    let avail_event: [u8; 2] = machine.get(used_ring(0) + 4 + 8 * 16);
    assert_eq!(avail_event, [1, 0]);
}

#[test]
fn chains_made_available_before_driver_ok_are_served() {
    let mut machine = Machine::new(Echo::default());
    machine.negotiate(u64::MAX);
    machine.enable_queue(0);
    machine.submit(0, &[writable(BUFFERS, 1)]);

    machine.write8(reg::STATUS, 0x0f);

    assert_eq!(machine.pci.queue_events()[0].read().unwrap(), 1);
}

#[test]
fn indirect_tables_are_followed() {
    let mut machine = ready();
    let table = BUFFERS + 0x1000;
    let entry = |address, flags, next| Desc {
        address,
        len: 8,
        flags,
        next,
    };
    machine.write_table(table, &[entry(BUFFERS, NEXT, 1), entry(BUFFERS, WRITE, 0)]);
    machine.write_desc(
        0,
        0,
        Desc {
            address: table,
            len: 32,
            flags: INDIRECT,
            next: 0,
        },
    );
    machine.make_available(0, 0);

    machine.notify(0);

    assert_eq!(machine.used(0), [(0, 8)]);
}

/// Whether a chain of these descriptors breaks the device.
fn breaks(descs: &[Desc]) -> bool {
    let mut machine = ready();
    for (index, desc) in descs.iter().enumerate() {
        machine.write_desc(0, index as u16, *desc);
    }
    machine.make_available(0, 0);
    machine.notify(0);
    machine.read8(reg::STATUS) & 0x40 != 0
}

fn desc(address: u64, flags: u16, next: u16) -> Desc {
    Desc {
        address,
        len: 16,
        flags,
        next,
    }
}

#[test]
fn a_loop_breaks_the_device() {
    assert!(breaks(&[desc(BUFFERS, NEXT, 1), desc(BUFFERS, NEXT, 0)]));
}

#[test]
fn a_next_outside_of_the_table_breaks_the_device() {
    assert!(breaks(&[desc(BUFFERS, NEXT, 16)]));
}

#[test]
fn a_buffer_outside_of_ram_breaks_the_device() {
    assert!(breaks(&[desc(MEMORY as u64 - 8, 0, 0)]));
    assert!(breaks(&[desc(u64::MAX - 8, 0, 0)]));
}

#[test]
fn a_readable_buffer_after_a_writable_one_breaks_the_device() {
    assert!(breaks(&[
        desc(BUFFERS, WRITE | NEXT, 1),
        desc(BUFFERS, 0, 0)
    ]));
}

#[test]
fn an_indirect_table_of_a_wrong_length_breaks_the_device() {
    let table = Desc {
        len: 17,
        ..desc(BUFFERS, INDIRECT, 0)
    };

    assert!(breaks(&[table]));
}

#[test]
fn an_indirect_table_in_an_indirect_table_breaks_the_device() {
    let mut machine = ready();
    machine.write_table(BUFFERS, &[desc(BUFFERS, INDIRECT, 0)]);
    machine.write_desc(0, 0, desc(BUFFERS, INDIRECT, 0));
    machine.make_available(0, 0);

    machine.notify(0);

    assert_eq!(machine.read8(reg::STATUS) & 0x40, 0x40);
}

#[test]
fn an_available_index_that_runs_away_breaks_the_device() {
    let mut machine = ready();
    machine.put(avail_ring(0) + 2, &17u16.to_le_bytes());

    machine.notify(0);

    assert_eq!(machine.read8(reg::STATUS) & 0x40, 0x40);
    assert_eq!(machine.used(0), []);
}

#[test]
fn a_broken_device_says_so_by_a_configuration_interrupt() {
    let mut machine = ready();
    machine.enable_msix();
    machine.write_desc(0, 0, desc(u64::MAX - 8, 0, 0));
    machine.make_available(0, 0);

    machine.notify(0);

    assert_eq!(machine.messages(0), 1);
    assert_eq!(machine.read8(reg::GENERATION), 1);
}

#[test]
fn a_broken_device_serves_nothing_until_it_is_reset() {
    let mut machine = ready();
    machine.write_desc(0, 0, desc(u64::MAX - 8, 0, 0));
    machine.make_available(0, 0);
    machine.notify(0);
    machine.submit(1, &[writable(BUFFERS, 1)]);
    machine.notify(1);
    let while_broken = machine.used(1);

    machine.probe(u64::MAX);
    machine.submit(1, &[writable(BUFFERS, 1)]);
    machine.notify(1);

    assert_eq!(while_broken, []);
    assert_eq!(machine.used(1).len(), 1);
}

#[test]
fn a_reset_forgets_all() {
    let machine = ready();
    machine.write8(reg::DEVICE, 9);

    machine.write8(reg::STATUS, 0);

    assert_eq!(machine.read8(reg::STATUS), 0);
    assert_eq!(machine.read16(reg::QUEUE_ENABLE), 0);
    assert_eq!(machine.read32(reg::QUEUE_DESC), 0);
    assert_eq!(machine.read16(reg::CONFIG_VECTOR), 0xffff);
    assert_eq!(machine.read8(reg::DEVICE), 0);
}

#[test]
fn a_queue_can_be_reset_alone_and_used_again() {
    let mut machine = ready();
    machine.submit(1, &[writable(BUFFERS, 1)]);
    machine.notify(1);
    machine.used(1);
    machine.write16(reg::QUEUE_SELECT, 1);

    machine.write16(reg::QUEUE_RESET, 1);
    let (reset, enabled) = (
        machine.read16(reg::QUEUE_RESET),
        machine.read16(reg::QUEUE_ENABLE),
    );
    machine.enable_queue(1);
    let head = machine.submit(1, &[writable(BUFFERS, 3)]);
    machine.notify(1);

    assert_eq!((reset, enabled), (0, 0));
    assert_eq!(machine.used(1), [(u32::from(head), 3)]);
    assert_eq!(machine.read8(reg::STATUS), 0x0f);
}

#[test]
fn queue_reset_needs_its_feature() {
    let mut machine = Machine::new(Echo::default());
    machine.probe(!status::RING_RESET);
    machine.write16(reg::QUEUE_SELECT, 0);

    machine.write16(reg::QUEUE_RESET, 1);

    assert_eq!(machine.read16(reg::QUEUE_ENABLE), 1);
}

#[test]
fn doorbells_move_with_the_bar() {
    let machine = Machine::new(Echo::default());

    machine.pci.bar_moved(4, Some(0x1_0000_0000));
    let first = machine.registrar.addresses.lock().clone();
    machine.pci.bar_moved(4, None);
    machine.pci.bar_moved(4, Some(0xc000_0000));

    assert_eq!(first, [0x1_0000_3000, 0x1_0000_3004]);
    let now = machine.registrar.addresses.lock().clone();
    assert_eq!(now, [0xc000_3000, 0xc000_3004]);
}

#[test]
fn doorbells_that_can_not_be_registered_are_trapped() {
    let refusing = FakeRegistrar {
        refuses: true,
        ..FakeRegistrar::default()
    };
    let machine = Machine::with_registrar(Echo::default(), refusing);
    machine.pci.bar_moved(4, Some(0xc000_0000));

    machine.write16(reg::NOTIFY + 4, 1);

    assert_eq!(machine.pci.queue_events()[1].read().unwrap(), 1);
}

/// Points the configuration window at `len` bytes at `offset` of BAR 4; gives its data's offset.
fn open_window(machine: &Machine<Echo>, offset: u32, len: u32) -> u16 {
    let capabilities = machine.capabilities();
    let is_window = |at: u16| machine.config_read(at + 3) == [5];
    let (at, _) = *capabilities
        .iter()
        .find(|(at, id)| *id == 9 && is_window(*at))
        .unwrap();
    machine.config_write(at + 4, &[4]);
    machine.config_write(at + 8, &offset.to_le_bytes());
    machine.config_write(at + 12, &len.to_le_bytes());
    at + 16
}

#[test]
fn the_configuration_window_reads_the_bar() {
    let machine = ready();

    let data = open_window(&machine, reg::NUM_QUEUES as u32, 2);

    assert_eq!(machine.config_read(data), [2, 0]);
}

#[test]
fn the_configuration_window_writes_the_bar() {
    let machine = Machine::new(Echo::default());
    let data = open_window(&machine, reg::STATUS as u32, 1);

    machine.config_write(data, &[1]);

    assert_eq!(machine.read8(reg::STATUS), 1);
}

#[test]
fn a_restored_device_goes_on_where_the_saved_one_was() {
    let mut machine = ready();
    machine.submit(0, &[writable(BUFFERS, 1)]);
    machine.notify(0);
    let saved = caraway_devices::Lifecycle::save(&*machine.pci).unwrap();
    let mut other = Machine::new(Echo::default());
    for at in (0..MEMORY as u64).step_by(4096) {
        let page: [u8; 4096] = machine.get(at);
        other.put(at, &page);
    }
    other.queues = machine.queues.clone();
    other.used(0);

    caraway_devices::Lifecycle::restore(&*other.pci, &saved).unwrap();
    let head = other.submit(0, &[writable(BUFFERS, 5)]);
    other.notify(0);

    assert_eq!(other.used(0), [(u32::from(head), 5)]);
    assert_eq!(other.read8(reg::STATUS), 0x0f);
}

#[test]
fn a_saved_queue_outside_of_ram_is_refused() {
    let machine = ready();
    let mut saved = caraway_devices::Lifecycle::save(&*machine.pci).unwrap();
    saved.body["queues"][0]["setup"]["desc"] = (MEMORY as u64).into();
    let other = Machine::new(Echo::default());

    let restored = caraway_devices::Lifecycle::restore(&*other.pci, &saved);

    assert!(matches!(restored, Err(StateError::Invalid { .. })));
    assert_eq!(other.read8(reg::STATUS), 0);
}

fn hostile_desc() -> impl Strategy<Value = Desc> {
    let address = prop_oneof![
        Just(BUFFERS),
        Just(desc_table(0)),
        Just(used_ring(0)),
        0..2 * MEMORY as u64,
        any::<u64>()
    ];
    let len = prop_oneof![Just(16u32), 0u32..512, any::<u32>()];
    (address, len, 0u16..8, 0u16..20).prop_map(|(address, len, flags, next)| Desc {
        address,
        len,
        flags,
        next,
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn no_chain_of_a_hostile_driver_does_more_than_break_the_device(
        descs in proptest::collection::vec(hostile_desc(), 16),
        heads in proptest::collection::vec(0u16..20, 1..16),
    ) {
        let mut machine = ready();
        for (index, desc) in descs.iter().enumerate() {
            machine.write_desc(0, index as u16, *desc);
        }
        for &head in &heads {
            machine.make_available(0, head);
        }

        machine.notify(0);

        let newest: u16 = machine.memory.read_obj(GuestAddress(used_ring(0) + 2)).unwrap();
        prop_assert!(usize::from(newest) <= heads.len());
    }

    #[test]
    fn no_sequence_of_register_writes_panics(
        writes in proptest::collection::vec(
            (0u64..0x3010, prop_oneof![Just(1usize), Just(2), Just(4), Just(8)], any::<u64>()),
            0..200,
        ),
    ) {
        let machine = ready();

        for (offset, len, value) in writes {
            machine.pci.bar_write(4, offset, &value.to_le_bytes()[..len]);
            machine.pci.process_queue(0);
            machine.pci.bar_read(4, offset, &mut [0; 8][..len]);
        }
    }
}
