//! Buses, the PCI Express root, interrupt lines, clocks and platform devices.
//!
//! A device here is a struct with methods. It takes what it needs (guest memory, an
//! [`InterruptLine`], a [`Clock`], a [`Timer`], a sink for its output), starts no thread and opens
//! no file, so that a test can build it, turn its clock by hand and look at it.

pub mod bus;
pub mod clock;
pub mod interrupt;
pub mod pci;
pub mod state;

pub use bus::{Bus, BusDevice, BusError, Registers};
pub use clock::{Clock, FakeClock, FakeTimer, Nanos, RealClock, Timer};
pub use interrupt::{
    FakeLine, FakeMsi, InterruptLine, MsiError, MsiMessage, MsiProvider, MsiVector, SharedLine,
};
pub use state::{Lifecycle, Payload, StateError, Stateful};

/// Guest memory as every device sees it.
pub type GuestMemory = vm_memory::GuestMemoryMmap<()>;
