//! The PS/2 controller with its keyboard and its mouse (IBM PS/2 Hardware Interface Technical
//! Reference, "Keyboard and Auxiliary Device Controller").
//!
//! Ports 0x60 (data) and 0x64 (status and commands). The keyboard interrupts on GSI 1, the mouse
//! on GSI 12, by a rising edge for each byte that waits at port 0x60.

mod controller;
mod keyboard;
mod mouse;
mod queue;
mod scancode;

pub use controller::{I8042, I8042Port, I8042State, LedHook};
pub use keyboard::{KeyboardState, Leds};
pub use mouse::{MouseButtons, MouseState};

/// The data port.
pub const DATA_PORT: u16 = 0x60;
/// The status and command port.
pub const COMMAND_PORT: u16 = 0x64;
/// The keyboard's interrupt.
pub const KEYBOARD_GSI: u32 = 1;
/// The mouse's interrupt.
pub const MOUSE_GSI: u32 = 12;
