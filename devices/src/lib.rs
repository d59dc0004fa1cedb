//! Buses, the PCI Express root, interrupt lines, clocks and platform devices.
//!
//! A device here is a struct with methods. It takes what it needs (guest memory, an
//! [`InterruptLine`], a [`Clock`], a [`Timer`], a sink for its output), starts no thread and opens
//! no file, so that a test can build it, turn its clock by hand and look at it.

pub mod acpi_pm;
#[cfg(test)]
mod any_access;
pub mod bus;
pub mod clock;
pub mod debug;
pub mod debug_exit;
pub mod i8042;
pub mod interrupt;
pub mod pci;
pub mod pit;
pub mod rate;
pub mod real_clock;
pub mod rtc;
pub mod serial;
pub mod state;
pub mod system;
pub mod ticks;

pub use acpi_pm::{AcpiPm, ApmPorts};
pub use bus::{Bus, BusDevice, BusError, Registers};
pub use clock::{Clock, FakeClock, FakeTimer, Nanos, Timeline, Timer, TimerClient};
pub use debug::{DebugPort, PostPort, PvPanic};
pub use debug_exit::DebugExit;
pub use i8042::{I8042, I8042Port};
pub use interrupt::{
    Delivery, FakeLine, FakeMsi, InterruptLine, MsiError, MsiMessage, MsiProvider, MsiVector,
    SharedLine, TickLine, Unwatched, Wire,
};
pub use pit::{ControlPortB, Pit};
pub use rate::{Rate, RateLimit};
pub use real_clock::{AfterPause, Pause, RealClock};
pub use rtc::{ClockChanged, ClockSink, Rtc};
pub use serial::SerialPort;
pub use state::{Lifecycle, Payload, StateError, Stateful};
pub use system::{FakeSystem, Port92, ResetRegister, SystemControl, SystemEvent};
pub use ticks::{TickCounters, TickPolicy};

/// Guest memory as every device sees it.
pub type GuestMemory = vm_memory::GuestMemoryMmap<()>;
