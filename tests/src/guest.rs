//! The guests, as `build.rs` built them from `tests/guests/`.

/// A boot sector: eight colours, the next at each key, each announced on COM1.
pub const COLOURS: &str = env!("COLOURS_GUEST");

/// A boot sector that tells the BIOS's count of timer ticks on COM1.
pub const BIOS_TICKS: &str = env!("BIOS_TICKS_GUEST");

/// A PVH ELF that ends the machine at its first instruction, or waits if its command line says so.
pub const EXIT: &str = env!("EXIT_GUEST");

/// A PVH ELF that runs the device tests named on its command line.
pub const BARE: &str = env!("BARE_GUEST");

/// The port that ends a machine with the value written to it.
pub const DEBUG_EXIT: u16 = 0x501;
