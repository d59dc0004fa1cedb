//! `display`: the graphics card and its option ROM.

use std::path::PathBuf;

use super::Checker;
use crate::config::Config;
use crate::config::boot::Firmware;
use crate::config::display::{Display, DisplayDevice};
use crate::config::path::at;
use crate::config::slots::DISPLAY;
use crate::config::spec::DisplaySpec;
use crate::config::units::{GIB, MIB, Size};

const DEFAULT_VRAM: u64 = 64 * MIB;

impl Checker<'_> {
    pub(super) fn display(&mut self, config: &Config) -> Option<DisplaySpec> {
        let wanted = Display::default();
        let display = match (&config.display, &config.spice) {
            (Some(display), _) => display,
            (None, Some(_)) => &wanted,
            (None, None) => return None,
        };
        let path = at!("display");
        let heads = display.heads.unwrap_or(1);
        if !(1..=16).contains(&heads) {
            let message = format!("a display can't have {heads} heads");
            self.bad(path.then("heads"), message, "use 1 to 16");
        }
        let vram = display.vram.map_or(DEFAULT_VRAM, Size::bytes);
        if !vram.is_power_of_two() || !(16 * MIB..=GIB / 2).contains(&vram) {
            let near = vram.clamp(16 * MIB, GIB / 2).next_power_of_two();
            let message = format!("{} of video memory can't be mapped", Size(vram));
            let hint = format!(
                "use a power of two from 16M to 512M, such as {}",
                Size(near)
            );
            self.bad(path.then("vram"), message, hint);
        }
        let option_rom = self.option_rom(config);
        Some(DisplaySpec {
            id: self.id(&display.id, "display", "display", &path),
            address: self.address(display.address, Some(DISPLAY), &path)?,
            device: display.device.unwrap_or(DisplayDevice::Qxl),
            heads,
            vram,
            option_rom,
        })
    }

    /// The display's own firmware: a must with SeaBIOS, which can't show anything without.
    fn option_rom(&mut self, config: &Config) -> Option<PathBuf> {
        const FILE: &str = "vgabios-qxl.bin";
        let found = self.host.find_firmware(FILE);
        if found.is_none() && config.boot.firmware == Some(Firmware::SeaBios) {
            self.no_firmware(at!("display"), FILE);
        }
        found
    }
}
