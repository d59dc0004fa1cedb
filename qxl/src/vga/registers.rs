//! The VGA registers (IBM VGA technical reference; register names as in the Linux `vga.h`).

use serde::{Deserialize, Serialize};

use crate::canvas::rgb;

/// Miscellaneous output: the CRTC answers at 0x3d4 and not at 0x3b4.
const MISC_COLOR: u8 = 1;
/// Input status 1: in vertical retrace, and not displaying.
const STATUS_RETRACE: u8 = 0x09;
/// CRTC 0x11: registers 0 to 7 are protected.
const CRTC_PROTECT: u8 = 0x80;
/// Attribute index: the palette is in use and not open to the CPU.
const ATTRIBUTE_VIDEO: u8 = 0x20;

/// Bits of each sequencer register that exist.
const SEQUENCER_BITS: [u8; 8] = [0x03, 0x3d, 0x0f, 0x3f, 0x0e, 0, 0, 0xff];
/// Bits of each graphics register that exist.
const GRAPHICS_BITS: [u8; 16] = [
    0x0f, 0x0f, 0x0f, 0x1f, 0x03, 0x7b, 0x0f, 0x0f, 0xff, 0, 0, 0, 0, 0, 0, 0,
];
/// CRTC registers, Bochs' extra ones not included.
const CRTC_COUNT: usize = 0x19;
const ATTRIBUTES: usize = 21;

/// Bits of each attribute register that exist.
const fn attribute_bits(index: usize) -> u8 {
    match index {
        0x10 => 0xef,
        0x11 => 0xff,
        0x13 | 0x14 => 0x0f,
        _ => 0x3f,
    }
}

/// The DAC: 256 colours, written and read a component at a time.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Dac {
    colors: Vec<[u8; 3]>,
    mask: u8,
    read_index: u8,
    write_index: u8,
    component: u8,
    cache: [u8; 3],
    reading: bool,
    eight_bits: bool,
}

/// Every VGA register.
#[derive(Debug, Clone)]
pub(crate) struct Registers {
    misc: u8,
    feature: u8,
    status: u8,
    sequencer_index: u8,
    sequencer: [u8; 8],
    graphics_index: u8,
    graphics: [u8; 16],
    crtc_index: u8,
    crtc: [u8; CRTC_COUNT],
    attribute_index: u8,
    attribute_is_data: bool,
    attributes: [u8; ATTRIBUTES],
    dac: Dac,
}

/// What a snapshot keeps of [`Registers`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RegistersState {
    misc: u8,
    feature: u8,
    status: u8,
    sequencer_index: u8,
    sequencer: Vec<u8>,
    graphics_index: u8,
    graphics: Vec<u8>,
    crtc_index: u8,
    crtc: Vec<u8>,
    attribute_index: u8,
    attribute_is_data: bool,
    attributes: Vec<u8>,
    dac: Vec<[u8; 3]>,
    dac_mask: u8,
    dac_read_index: u8,
    dac_write_index: u8,
    dac_component: u8,
    dac_cache: [u8; 3],
    dac_reading: bool,
}

/// Register `index`, or 0 where there is none.
fn at(registers: &[u8], index: u8) -> u8 {
    registers.get(usize::from(index)).copied().unwrap_or(0)
}

/// Sets register `index` to those bits of `value` that exist; nothing where there is none.
fn set(registers: &mut [u8], index: u8, value: u8) {
    if let Some(register) = registers.get_mut(usize::from(index)) {
        *register = value;
    }
}

impl Registers {
    /// All zero, as before any firmware ran.
    pub(crate) fn new() -> Self {
        Self {
            misc: 0,
            feature: 0,
            status: 0,
            sequencer_index: 0,
            sequencer: [0; 8],
            graphics_index: 0,
            graphics: [0; 16],
            crtc_index: 0,
            crtc: [0; CRTC_COUNT],
            attribute_index: 0,
            attribute_is_data: false,
            attributes: [0; ATTRIBUTES],
            dac: Dac {
                colors: vec![[0; 3]; 256],
                mask: 0xff,
                read_index: 0,
                write_index: 0,
                component: 0,
                cache: [0; 3],
                reading: false,
                eight_bits: false,
            },
        }
    }

    /// Whether `port` is one of the half that the colour bit switches off.
    fn is_hidden(&self, port: u16) -> bool {
        if self.misc & MISC_COLOR != 0 {
            (0x3b0..=0x3bf).contains(&port)
        } else {
            (0x3d0..=0x3df).contains(&port)
        }
    }

    pub(super) fn read(&mut self, port: u16) -> u8 {
        if self.is_hidden(port) {
            return 0xff;
        }
        match port {
            0x3c0 if self.attribute_is_data => 0,
            0x3c0 => self.attribute_index,
            0x3c1 => at(&self.attributes, self.attribute_index & 0x1f),
            0x3c4 => self.sequencer_index,
            0x3c5 => at(&self.sequencer, self.sequencer_index),
            0x3c6 => self.dac.mask,
            0x3c7 => 3 * u8::from(self.dac.reading),
            0x3c8 => self.dac.write_index,
            0x3c9 => self.dac.read(),
            0x3ca => self.feature,
            0x3cc => self.misc,
            0x3ce => self.graphics_index,
            0x3cf => at(&self.graphics, self.graphics_index),
            0x3b4 | 0x3d4 => self.crtc_index,
            0x3b5 | 0x3d5 => at(&self.crtc, self.crtc_index),
            0x3ba | 0x3da => {
                // Whoever waits for the beam sees it come and go.
                self.status ^= STATUS_RETRACE;
                self.attribute_is_data = false;
                self.status
            }
            _ => 0,
        }
    }

    pub(super) fn write(&mut self, port: u16, value: u8) {
        if self.is_hidden(port) {
            return;
        }
        match port {
            0x3c0 => {
                if self.attribute_is_data {
                    let index = self.attribute_index & 0x1f;
                    let value = value & attribute_bits(usize::from(index));
                    set(&mut self.attributes, index, value);
                } else {
                    self.attribute_index = value & 0x3f;
                }
                self.attribute_is_data = !self.attribute_is_data;
            }
            0x3c2 => self.misc = value & !0x10,
            0x3c4 => self.sequencer_index = value & 7,
            0x3c5 => {
                let bits = at(&SEQUENCER_BITS, self.sequencer_index);
                set(&mut self.sequencer, self.sequencer_index, value & bits);
            }
            0x3c6 => self.dac.mask = value,
            0x3c7 => self.dac.start(value, true),
            0x3c8 => self.dac.start(value, false),
            0x3c9 => self.dac.write(value),
            0x3ce => self.graphics_index = value & 0xf,
            0x3cf => {
                let bits = at(&GRAPHICS_BITS, self.graphics_index);
                set(&mut self.graphics, self.graphics_index, value & bits);
            }
            0x3b4 | 0x3d4 => self.crtc_index = value,
            0x3b5 | 0x3d5 => self.write_crtc(value),
            0x3ba | 0x3da => self.feature = value & 0x10,
            _ => {}
        }
    }

    fn write_crtc(&mut self, value: u8) {
        let index = self.crtc_index;
        if self.crtc(0x11) & CRTC_PROTECT == 0 || index > 7 {
            set(&mut self.crtc, index, value);
        } else if index == 7 {
            // Of the protected ones only the line compare's bit can be written.
            let value = self.crtc(7) & !0x10 | value & 0x10;
            set(&mut self.crtc, 7, value);
        }
    }

    pub(super) fn set_dac_8bit(&mut self, yes: bool) {
        self.dac.eight_bits = yes;
    }

    pub(super) fn sequencer(&self, index: u8) -> u8 {
        at(&self.sequencer, index)
    }

    pub(super) fn graphics(&self, index: u8) -> u8 {
        at(&self.graphics, index)
    }

    pub(super) fn crtc(&self, index: u8) -> u8 {
        at(&self.crtc, index)
    }

    pub(super) fn attribute(&self, index: u8) -> u8 {
        at(&self.attributes, index)
    }

    /// Whether the attribute controller shows anything.
    pub(super) fn is_video_on(&self) -> bool {
        self.attribute_index & ATTRIBUTE_VIDEO != 0
    }

    /// The pixels of the 256 colours of the DAC.
    pub(super) fn palette256(&self) -> Vec<u32> {
        (0..=255).map(|index| self.dac.color(index)).collect()
    }

    /// The pixels of the 16 colours that the attribute controller chooses from the DAC.
    pub(super) fn palette16(&self) -> [u32; 16] {
        let select = self.attribute(0x14);
        let mut colors = [0; 16];
        for (index, color) in (0..).zip(&mut colors) {
            let value = self.attribute(index);
            let value = if self.attribute(0x10) & 0x80 != 0 {
                (select & 0xf) << 4 | value & 0xf
            } else {
                (select & 0xc) << 4 | value & 0x3f
            };
            *color = self.dac.color(value);
        }
        colors
    }

    pub(super) fn save(&self) -> RegistersState {
        RegistersState {
            misc: self.misc,
            feature: self.feature,
            status: self.status,
            sequencer_index: self.sequencer_index,
            sequencer: self.sequencer.to_vec(),
            graphics_index: self.graphics_index,
            graphics: self.graphics.to_vec(),
            crtc_index: self.crtc_index,
            crtc: self.crtc.to_vec(),
            attribute_index: self.attribute_index,
            attribute_is_data: self.attribute_is_data,
            attributes: self.attributes.to_vec(),
            dac: self.dac.colors.clone(),
            dac_mask: self.dac.mask,
            dac_read_index: self.dac.read_index,
            dac_write_index: self.dac.write_index,
            dac_component: self.dac.component,
            dac_cache: self.dac.cache,
            dac_reading: self.dac.reading,
        }
    }

    /// The registers of a saved state; what it has too little of is zero.
    pub(super) fn restored(state: &RegistersState) -> Self {
        let mut new = Self::new();
        new.misc = state.misc & !0x10;
        new.feature = state.feature;
        new.status = state.status;
        new.sequencer_index = state.sequencer_index & 7;
        copy(&mut new.sequencer, &state.sequencer);
        new.graphics_index = state.graphics_index & 0xf;
        copy(&mut new.graphics, &state.graphics);
        new.crtc_index = state.crtc_index;
        copy(&mut new.crtc, &state.crtc);
        new.attribute_index = state.attribute_index & 0x3f;
        new.attribute_is_data = state.attribute_is_data;
        copy(&mut new.attributes, &state.attributes);
        copy(&mut new.dac.colors, &state.dac);
        new.dac.mask = state.dac_mask;
        new.dac.read_index = state.dac_read_index;
        new.dac.write_index = state.dac_write_index;
        new.dac.component = state.dac_component % 3;
        new.dac.cache = state.dac_cache;
        new.dac.reading = state.dac_reading;
        new
    }
}

fn copy<T: Copy>(to: &mut [T], from: &[T]) {
    for (to, from) in to.iter_mut().zip(from) {
        *to = *from;
    }
}

impl Dac {
    fn start(&mut self, index: u8, reading: bool) {
        if reading {
            self.read_index = index;
        } else {
            self.write_index = index;
        }
        self.component = 0;
        self.reading = reading;
    }

    fn read(&mut self) -> u8 {
        let color = self.colors.get(usize::from(self.read_index));
        let value = color.map_or(0, |color| at(color, self.component));
        self.component += 1;
        if self.component == 3 {
            self.component = 0;
            self.read_index = self.read_index.wrapping_add(1);
        }
        value
    }

    fn write(&mut self, value: u8) {
        set(&mut self.cache, self.component, value);
        self.component += 1;
        if self.component == 3 {
            self.component = 0;
            if let Some(color) = self.colors.get_mut(usize::from(self.write_index)) {
                *color = self.cache;
            }
            self.write_index = self.write_index.wrapping_add(1);
        }
    }

    /// The pixel of colour `index`.
    fn color(&self, index: u8) -> u32 {
        let index = usize::from(index & self.mask);
        let wide = |component: u8| {
            if self.eight_bits {
                component.into()
            } else {
                let six = u32::from(component & 0x3f);
                six << 2 | six >> 4
            }
        };
        let [red, green, blue] = self.colors.get(index).copied().unwrap_or_default();
        rgb(wide(red), wide(green), wide(blue))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn color() -> Registers {
        let mut registers = Registers::new();
        registers.write(0x3c2, MISC_COLOR);
        registers
    }

    #[test]
    fn the_beam_comes_and_goes() {
        let mut registers = color();

        let seen: Vec<u8> = (0..4).map(|_| registers.read(0x3da) & 8).collect();

        assert_eq!(seen, [8, 0, 8, 0]);
    }

    #[test]
    fn status_read_makes_the_next_attribute_write_an_index() {
        let mut registers = color();
        registers.write(0x3c0, 0x10);
        registers.read(0x3da);

        registers.write(0x3c0, 0x01);
        registers.write(0x3c0, 0x2a);

        assert_eq!(registers.attribute(1), 0x2a);
        assert_eq!(registers.attribute(0x10), 0);
    }

    #[test]
    fn protected_crtc_registers_keep_their_value() {
        let mut registers = color();
        let mut write = |index, value| {
            registers.write(0x3d4, index);
            registers.write(0x3d5, value);
        };
        write(0x01, 0x4f);
        write(0x11, CRTC_PROTECT);

        write(0x01, 0x27);
        write(0x07, 0xff);

        assert_eq!(registers.crtc(1), 0x4f);
        assert_eq!(registers.crtc(7), 0x10);
    }

    #[test]
    fn dac_components_follow_each_other() {
        let mut registers = color();
        registers.write(0x3c8, 5);
        for value in [0x3f, 0, 0x20, 1, 2, 3] {
            registers.write(0x3c9, value);
        }
        registers.write(0x3c7, 6);

        let read = [(); 3].map(|()| registers.read(0x3c9));

        assert_eq!(read, [1, 2, 3]);
        assert_eq!(registers.palette256()[5], 0xff0082);
    }

    #[test]
    fn monochrome_ports_are_hidden_in_colour() {
        let mut registers = color();
        registers.write(0x3b4, 0x0e);

        assert_eq!(registers.read(0x3d4), 0);
        assert_eq!(registers.read(0x3b4), 0xff);
    }
}
