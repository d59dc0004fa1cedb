//! `display` and `displays`: the graphics cards and their option ROM.

use std::path::PathBuf;

use super::Checker;
use crate::config::Config;
use crate::config::boot::Firmware;
use crate::config::display::{Display, DisplayDevice};
use crate::config::path::{JsonPath, at};
use crate::config::slots::DISPLAY;
use crate::config::spec::DisplaySpec;
use crate::config::units::{GIB, MIB, Size};

/// The most graphics cards.
const MOST: usize = 4;
const DEFAULT_VRAM: u64 = 64 * MIB;

impl Checker<'_> {
    /// All graphics cards: those that are wished for, or one for the SPICE server to show.
    pub(super) fn displays(&mut self, config: &Config) -> Vec<DisplaySpec> {
        let wanted = Display::default();
        let one = match (&config.display, config.displays.as_slice(), &config.spice) {
            (Some(_), [_, ..], _) => {
                let message = "a display is named here and in `display`".to_owned();
                self.bad(at!("displays"), message, "move it here");
                return Vec::new();
            }
            (Some(display), [], _) => display,
            (None, [], Some(_)) => &wanted,
            (None, [], None) => return Vec::new(),
            (None, all, _) => return self.several(all, config),
        };
        let spec = self.display(one, 0, &at!("display"), config);
        spec.into_iter().collect()
    }

    fn several(&mut self, all: &[Display], config: &Config) -> Vec<DisplaySpec> {
        if all.len() > MOST {
            let message = format!("a machine can't have {} displays", all.len());
            self.bad(at!("displays"), message, format!("use 1 to {MOST}"));
            return Vec::new();
        }
        let specs = all
            .iter()
            .enumerate()
            .map(|(index, display)| self.display(display, index, &at!("displays", index), config));
        specs.flatten().collect()
    }

    fn display(
        &mut self,
        display: &Display,
        index: usize,
        path: &JsonPath,
        config: &Config,
    ) -> Option<DisplaySpec> {
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
        let first = index == 0;
        let option_rom = if first { self.option_rom(config) } else { None };
        Some(DisplaySpec {
            id: self.id(&display.id, "display", "display", path),
            address: self.address(display.address, first.then_some(DISPLAY), path)?,
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
