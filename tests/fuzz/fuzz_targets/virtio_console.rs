//! The console's ports between a driver of no good will and programs that come and go.
//!
//! Checked: every byte reaches its own port's other end, once and in order, either way, over snapshots
//! too, and all that was sent arrives once there is room for it; what the driver is told is a known
//! message of a port that there is; memory is bounded.

#![no_main]

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use caraway_devices::Lifecycle;
use caraway_fuzz::Dice;
use caraway_fuzz::memory::Gauge;
use caraway_fuzz::virtio::{BUFFERS, Driver, SIZE};
use caraway_virtio::Console;
use caraway_virtio::console::{PortConfig, PortEnd};
use libfuzzer_sys::fuzz_target;

#[global_allocator]
static GAUGE: Gauge = Gauge::new();

const MOST_MEMORY: usize = 1 << 20;

/// Names of the ports, which count from 1.
const NAMES: [&str; 2] = ["com.example.0", "com.example.1"];
const TO_DRIVER: u16 = 2;
const FROM_DRIVER: u16 = 3;

/// Events of control messages (5.3.6.2).
const DEVICE_READY: u64 = 0;
const DEVICE_ADD: u64 = 1;
const PORT_READY: u64 = 3;
const PORT_OPEN: u64 = 6;
const PORT_NAME: u64 = 7;

/// Bytes of a buffer for a control message, of which there are as many as entries of a ring.
const CONTROL_ROOM: u64 = 64;
/// Where what the driver says is.
const SAID: u64 = BUFFERS + CONTROL_ROOM * SIZE as u64;
/// Bytes of each other buffer, and where they begin: a ring's for each port and way.
const ROOM: u64 = 1024;
const DATA: u64 = BUFFERS + 0x1000;

/// What is sent through a port, byte for byte, the same both ways.
fn byte_at(port: usize, position: u64) -> u8 {
    (position.wrapping_mul(0x9e37) >> 5) as u8 ^ port as u8
}

/// The host's end of a port.
struct End {
    port: usize,
    inside: Mutex<Inside>,
    /// The guest damaged a chain, so its bytes may be any.
    is_wild: Arc<AtomicBool>,
}

#[derive(Default)]
struct Inside {
    open: bool,
    guest_open: bool,
    room: usize,
    stock: usize,
    taken: u64,
    given: u64,
}

impl End {
    fn with<T>(&self, act: impl FnOnce(&mut Inside) -> T) -> T {
        act(&mut self.inside.lock().expect("no panic"))
    }
}

impl PortEnd for End {
    fn is_open(&self) -> bool {
        self.with(|inside| inside.open)
    }

    fn guest_opened(&self, open: bool) {
        let before = self.with(|inside| std::mem::replace(&mut inside.guest_open, open));
        assert_ne!(before, open, "told what it knew");
    }

    fn take(&self, bytes: &[u8]) -> usize {
        self.with(|inside| {
            let count = bytes.len().min(inside.room);
            inside.room -= count;
            for (position, byte) in (inside.taken..).zip(&bytes[..count]) {
                let wanted = byte_at(self.port, position);
                let is_wild = self.is_wild.load(Ordering::Relaxed);
                assert!(is_wild || *byte == wanted, "byte {position} from the guest");
            }
            inside.taken += count as u64;
            count
        })
    }

    fn give(&self, buffer: &mut [u8]) -> usize {
        self.with(|inside| {
            let count = buffer.len().min(inside.stock);
            inside.stock -= count;
            for (position, byte) in (inside.given..).zip(&mut buffer[..count]) {
                *byte = byte_at(self.port, position);
            }
            inside.given += count as u64;
            count
        })
    }
}

/// The guest's end of a port.
#[derive(Default, Clone, Copy)]
struct Counts {
    sent: u64,
    got: u64,
    chains_sent: u64,
    chains_given: u64,
}

struct Guest {
    driver: Driver<Console>,
    device: Arc<Console>,
    ends: Vec<Arc<End>>,
    is_wild: Arc<AtomicBool>,
    counts: [Counts; NAMES.len()],
}

fuzz_target!(|bytes: &[u8]| {
    let peak = GAUGE.peak_of(|| drive(Dice::new(bytes)));
    assert!(peak <= MOST_MEMORY, "{peak} bytes at a time");
});

fn drive(mut dice: Dice<'_>) {
    let is_wild = Arc::<AtomicBool>::default();
    let end = |port| {
        let (inside, is_wild) = (Mutex::default(), Arc::clone(&is_wild));
        Arc::new(End {
            port,
            inside,
            is_wild,
        })
    };
    let ends: Vec<_> = (0..NAMES.len()).map(end).collect();
    let config = |(end, name): (&Arc<End>, &&str)| PortConfig {
        name: (*name).to_owned(),
        end: end.clone(),
    };
    let console = Console::new(ends.iter().zip(&NAMES).map(config).collect());
    let device = Arc::new(console.expect("there is an eventfd"));
    let mut guest = Guest {
        // `VIRTIO_CONSOLE_F_MULTIPORT`.
        driver: Driver::new(Arc::clone(&device), 1 << 1),
        device,
        ends,
        is_wild,
        counts: Default::default(),
    };
    while !dice.is_over() {
        let port = dice.up_to(NAMES.len() - 1);
        match dice.up_to(7) {
            0 => guest.say(&mut dice),
            1 => guest.hear(&mut dice),
            2 | 3 => guest.send(&mut dice, port),
            4 | 5 => guest.receive(&mut dice, port),
            6 => guest.stir(&mut dice, port),
            _ if dice.rarely() => guest.save_and_restore(),
            _ if dice.rarely() => guest.restart(port, dice.flip()),
            _ => guest.begin_well(&mut dice),
        }
        if guest.driver.recover() {
            guest.forget();
        }
    }
    guest.finish();
}

/// Where a buffer of a port is: the driver's own come after those that it wants filled.
fn place(port: usize, outward: bool, chain: u64) -> u64 {
    let ring = 2 * port as u64 + u64::from(outward);
    DATA + ROOM * (ring * u64::from(SIZE) + chain % u64::from(SIZE))
}

/// The queue that the driver wants filled, and the one that it fills.
fn queues(port: usize) -> (u16, u16) {
    let first = 4 + 2 * port as u16;
    (first, first + 1)
}

impl Guest {
    /// Makes a chain available and rings; `false` if it was damaged, and the device was set up anew.
    fn submit(&mut self, dice: &mut Dice<'_>, queue: u16, segments: &[(u64, u32, bool)]) -> bool {
        let is_sound = self.driver.submit(dice, queue, segments);
        self.is_wild.store(!is_sound, Ordering::Relaxed);
        self.driver.pci.process_queue(queue);
        if !is_sound {
            self.driver.set_up();
            self.forget();
        }
        is_sound
    }

    /// The device was set up anew: both ends of each port begin again.
    fn forget(&mut self) {
        self.is_wild.store(false, Ordering::Relaxed);
        self.counts = Default::default();
        for end in &self.ends {
            end.with(|inside| (inside.taken, inside.given) = (0, 0));
        }
    }

    /// Sends a control message.
    fn say(&mut self, dice: &mut Dice<'_>) {
        let event = dice.pick(&[
            PORT_OPEN,
            PORT_READY,
            DEVICE_READY,
            DEVICE_ADD,
            PORT_NAME,
            5,
        ]);
        let port = dice.up_to(NAMES.len() + 1) as u64;
        let value = u64::from(dice.byte() & 1 == 0);
        self.say_this(dice, port, event, value);
    }

    /// What a driver says first.
    fn begin_well(&mut self, dice: &mut Dice<'_>) {
        self.hear(dice);
        self.say_this(dice, 0, DEVICE_READY, 1);
        for port in 1..=NAMES.len() as u64 {
            self.say_this(dice, port, PORT_READY, 1);
            self.say_this(dice, port, PORT_OPEN, 1);
        }
    }

    fn say_this(&mut self, dice: &mut Dice<'_>, port: u64, event: u64, value: u64) {
        let (port, event) = (dice.mostly(port) as u32, dice.mostly(event) as u16);
        let mut message = port.to_le_bytes().to_vec();
        message.extend(event.to_le_bytes());
        message.extend((value as u16).to_le_bytes());
        self.driver.put(SAID, &message);
        let length = dice.mostly(8).min(32) as u32;
        if self.submit(dice, FROM_DRIVER, &[(SAID, length, false)]) {
            while self.driver.used(FROM_DRIVER).is_some() {}
        }
    }

    /// Gives buffers for control messages, and reads those that came.
    fn hear(&mut self, dice: &mut Dice<'_>) {
        while let Some((head, length)) = self.driver.used(TO_DRIVER) {
            let at = BUFFERS + CONTROL_ROOM * u64::from(head);
            let message = self.driver.get(at, length as usize);
            let port = u32::from_le_bytes([0, 1, 2, 3].map(|n| message[n])) as usize;
            let event = u64::from(u16::from_le_bytes([message[4], message[5]]));
            assert!((1..=NAMES.len()).contains(&port), "port {port}");
            match event {
                PORT_NAME => assert_eq!(&message[8..], NAMES[port - 1].as_bytes()),
                _ => assert!([DEVICE_ADD, PORT_OPEN].contains(&event), "event {event}"),
            }
        }
        for _ in 0..dice.up_to(8) {
            if self.driver.under_way(TO_DRIVER) < SIZE {
                let head = self.driver.next_head(TO_DRIVER);
                let at = BUFFERS + CONTROL_ROOM * u64::from(head);
                if !self.submit(dice, TO_DRIVER, &[(at, CONTROL_ROOM as u32, true)]) {
                    return;
                }
            }
        }
    }

    fn send(&mut self, dice: &mut Dice<'_>, port: usize) {
        let queue = queues(port).1;
        while self.driver.used(queue).is_some() {}
        // Each chain takes two entries.
        if self.driver.under_way(queue) >= SIZE / 2 {
            return;
        }
        let counts = &mut self.counts[port];
        let length = dice.up_to(ROOM as usize) as u64;
        let bytes = (counts.sent..counts.sent + length).map(|position| byte_at(port, position));
        let at = place(port, true, counts.chains_sent);
        self.driver.put(at, &bytes.collect::<Vec<_>>());
        counts.sent += length;
        counts.chains_sent += 1;
        let split = dice.up_to(length as usize) as u64;
        let rest = (at + split, (length - split) as u32, false);
        self.submit(dice, queue, &[(at, split as u32, false), rest]);
    }

    fn receive(&mut self, dice: &mut Dice<'_>, port: usize) {
        let queue = queues(port).0;
        for _ in 0..dice.up_to(4) {
            if self.driver.under_way(queue) < SIZE {
                let counts = &mut self.counts[port];
                let at = place(port, false, counts.chains_given);
                counts.chains_given += 1;
                let length = 1 + dice.up_to(ROOM as usize - 1) as u32;
                if !self.submit(dice, queue, &[(at, length, true)]) {
                    return;
                }
            }
        }
        self.read(port);
    }

    fn read(&mut self, port: usize) {
        while let Some((head, length)) = self.driver.used(queues(port).0) {
            let counts = &mut self.counts[port];
            let bytes = self
                .driver
                .get(place(port, false, head.into()), length as usize);
            for (position, byte) in (counts.got..).zip(&bytes) {
                let wanted = byte_at(port, position);
                assert_eq!(*byte, wanted, "byte {position} to the guest");
            }
            counts.got += u64::from(length);
        }
    }

    /// Has the host's end do something.
    fn stir(&mut self, dice: &mut Dice<'_>, port: usize) {
        self.ends[port].with(|inside| {
            inside.room = inside.room.saturating_add(dice.up_to(4000));
            inside.stock += dice.up_to(4000);
            inside.open = dice.byte() < 0xc0;
        });
        self.device.serve_ends();
    }

    /// Resets one of a port's queues: what is under way in it is lost, and nothing else.
    fn restart(&mut self, port: usize, outward: bool) {
        self.read(port);
        let (inward_queue, outward_queue) = queues(port);
        let counts = &mut self.counts[port];
        if outward {
            self.driver.restart_queue(outward_queue);
            (counts.sent, counts.chains_sent) = (self.ends[port].with(|inside| inside.taken), 0);
        } else {
            self.driver.restart_queue(inward_queue);
            counts.chains_given = 0;
        }
    }

    fn save_and_restore(&mut self) {
        let saved = Lifecycle::save(&*self.driver.pci).expect("it can be saved");
        Lifecycle::restore(&*self.driver.pci, &saved).expect("its own state is sound");
        for queue in 2..4 + 2 * NAMES.len() as u16 {
            self.driver.pci.process_queue(queue);
        }
    }

    /// Now that there is room for all, and a well-behaved driver, nothing is left on the way.
    fn finish(&mut self) {
        let dice = &mut Dice::new(&[]);
        for end in &self.ends {
            end.with(|inside| (inside.open, inside.room) = (true, usize::MAX));
        }
        self.say_this(dice, 0, DEVICE_READY, 1);
        self.device.serve_ends();
        for (port, end) in self.ends.clone().iter().enumerate() {
            let taken = end.with(|inside| inside.taken);
            assert_eq!(taken, self.counts[port].sent, "bytes from the guest");
            self.read(port);
            let given = end.with(|inside| inside.given);
            assert_eq!(given, self.counts[port].got, "bytes to the guest");
        }
    }
}
