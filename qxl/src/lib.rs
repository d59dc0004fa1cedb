//! The QXL paravirtual GPU and its VGA core.
//!
//! [`Qxl`] is a PCI function (1b36:0100 revision 5) whose BARs are host memory. A guest starts in
//! VGA mode, where the picture is found by looking at the registers and the frame buffer, and goes
//! on to native mode, where it draws by commands in a ring. Either way the picture ends up on a
//! canvas that is always current and that a SPICE server reads as a
//! [`DisplaySource`](caraway_spice::DisplaySource).
//!
//! | module | what lives there |
//! |---|---|
//! | `device` | the contract of the PCI device: ports, rings, memory slots, releases, interrupts |
//! | `command` | commands as the guest wrote them, checked and copied into types of our own |
//! | `canvas` | pixels, and drawing on them |
//! | `vga` | the VGA and Bochs VBE registers, their memory, and the pictures they make |
//! | `recorder` | writes down what a guest draws, to be given to a server again |
//! | `text` | the cells of a text screen as text |

mod canvas;
mod command;
mod config;
mod device;
mod memory;
mod recorder;
#[cfg(test)]
mod testing;
mod text;
mod vga;

pub use config::{QxlConfig, QxlError};
pub use device::{BarRegion, Qxl, Screenshot};
pub use text::TextScreen;
