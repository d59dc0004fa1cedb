//! The VGA core: registers, the window at 0xa0000, Bochs VBE, and the picture that they make.
//!
//! VGA memory is the start of the frame buffer BAR, so that window, banks and linear frame buffer
//! are the same memory. Byte `n` of plane `p` is byte `4 * n + p` there.

mod picture;
mod registers;
mod render;
mod vbe;
mod window;

pub(crate) use picture::{Picture, TextMode};
pub(crate) use registers::{Registers, RegistersState};
pub(crate) use render::View;
pub(crate) use window::WINDOW_LEN;

use serde::{Deserialize, Serialize};

use crate::memory::Memory;
use vbe::{Vbe, VbeState};

/// First port of [`Vga::read_port`].
pub(crate) const PORT_BASE: u16 = 0x3b0;
/// First port of Bochs VBE.
pub(crate) const VBE_BASE: u16 = 0x1ce;

/// Registers and latch of the VGA core, and the memory they are about.
pub(crate) struct Vga {
    registers: Registers,
    vbe: Vbe,
    /// What the last read of planar memory fetched, a byte a plane.
    latch: u32,
    memory: Memory,
}

/// What a snapshot keeps of a [`Vga`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct VgaState {
    registers: RegistersState,
    vbe: VbeState,
    latch: u32,
}

impl Vga {
    /// As after power-on; the first `size` bytes of `memory` are the frame buffer.
    pub(crate) fn new(memory: Memory, size: u64) -> Self {
        Self {
            registers: Registers::new(),
            vbe: Vbe::new(size),
            latch: 0,
            memory,
        }
    }

    /// As after power-on; memory stays as it is.
    pub(crate) fn reset(&mut self) {
        self.registers = Registers::new();
        self.vbe.reset();
        self.latch = 0;
    }

    /// What the guest reads at `port`, 0x3b0 to 0x3df.
    pub(crate) fn read_port(&mut self, port: u16) -> u8 {
        self.registers.read(port)
    }

    /// The guest writes `value` at `port`, 0x3b0 to 0x3df.
    pub(crate) fn write_port(&mut self, port: u16, value: u8) {
        self.registers.write(port, value);
    }

    /// What the guest reads at the VBE port `offset` ports after 0x1ce.
    pub(crate) fn read_vbe(&self, offset: u64) -> u16 {
        if offset == 0 {
            self.vbe.index()
        } else {
            self.vbe.read()
        }
    }

    /// The guest writes `value` at the VBE port `offset` ports after 0x1ce.
    pub(crate) fn write_vbe(&mut self, offset: u64, value: u16) {
        if offset == 0 {
            self.vbe.select(value);
            return;
        }
        if let Some(clear) = self.vbe.write(value) {
            self.memory.zero(0, clear);
        }
        self.registers.set_dac_8bit(self.vbe.is_dac_8bit());
    }

    /// What the registers say is to be seen.
    pub(crate) fn picture(&self) -> Picture {
        Picture::of(&self.registers, &self.vbe)
    }

    /// The text mode that is set, whether the screen is on or not.
    pub(crate) fn text_mode(&self) -> Option<TextMode> {
        TextMode::current(&self.registers, &self.vbe)
    }

    pub(crate) fn save(&self) -> VgaState {
        VgaState {
            registers: self.registers.save(),
            vbe: self.vbe.save(),
            latch: self.latch,
        }
    }

    /// Takes a saved state on; values out of range are brought into it, as a write would.
    pub(crate) fn restore(&mut self, state: &VgaState) {
        self.registers = Registers::restored(&state.registers);
        self.vbe.restore(&state.vbe);
        self.latch = state.latch;
        self.registers.set_dac_8bit(self.vbe.is_dac_8bit());
    }
}
