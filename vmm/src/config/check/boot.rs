//! `boot`: firmware, or a kernel.

use super::Checker;
use crate::config::boot::{Boot, Firmware};
use crate::config::path::{JsonPath, at};
use crate::config::problem::{Kind, Problem};
use crate::config::spec::BootSpec;
use crate::config::units::MIB;

/// What a flat firmware image may measure.
const FIRMWARE_SIZES: std::ops::RangeInclusive<u64> = 4096..=16 * MIB;

impl Checker<'_> {
    pub(super) fn boot(&mut self, boot: &Boot) -> Option<BootSpec> {
        match (&boot.firmware, &boot.kernel) {
            (Some(firmware), None) => {
                for (given, key) in [
                    (boot.initrd.is_some(), "initrd"),
                    (boot.cmdline.is_some(), "cmdline"),
                ] {
                    if given {
                        let message = format!("`{key}` needs a `kernel`");
                        self.bad(at!("boot", key), message, "remove it, or boot a kernel");
                    }
                }
                self.firmware(firmware)
            }
            (None, Some(kernel)) => Some(BootSpec::Kernel {
                path: self.file(kernel, at!("boot", "kernel"), "kernel"),
                initrd: boot
                    .initrd
                    .as_ref()
                    .map(|path| self.file(path, at!("boot", "initrd"), "initrd")),
                cmdline: self.cmdline(boot.cmdline.as_deref().unwrap_or("")),
            }),
            (both, _) => {
                let message = match both {
                    Some(_) => "has both a `firmware` and a `kernel`",
                    None => "has neither a `firmware` nor a `kernel`",
                };
                let hint = "give one: {\"firmware\": \"seabios\"} or {\"kernel\": \"vmlinuz\"}";
                self.bad(at!("boot"), message, hint);
                None
            }
        }
    }

    fn cmdline(&mut self, cmdline: &str) -> String {
        // The x86 kernel's own limit is COMMAND_LINE_SIZE, 2048 with the final zero.
        if cmdline.len() > 2047 || cmdline.contains('\0') {
            let message = format!("a command line of {} bytes", cmdline.len());
            self.bad(
                at!("boot", "cmdline"),
                message,
                "use at most 2047 bytes, none of them zero",
            );
        }
        cmdline.to_owned()
    }

    fn firmware(&mut self, firmware: &Firmware) -> Option<BootSpec> {
        let place = at!("boot", "firmware");
        let path = match firmware {
            Firmware::SeaBios => match self.host.find_firmware("bios-256k.bin") {
                Some(path) => path,
                None => {
                    self.no_firmware(place, "bios-256k.bin");
                    return None;
                }
            },
            Firmware::Ovmf => {
                self.unsupported(place, "OVMF");
                return None;
            }
            Firmware::Path(path) => self.file(path, place.clone(), "firmware"),
        };
        let size = std::fs::metadata(&path).map_or(0, |about| about.len());
        let fits = FIRMWARE_SIZES.contains(&size) && size.is_multiple_of(4096);
        if !fits && self.problems.is_empty() {
            let message = format!(
                "\"{}\" has {size} bytes, which is no flat firmware image",
                path.display()
            );
            self.bad(
                place,
                message,
                "use \"seabios\", or an image of whole 4K pages up to 16M",
            );
        }
        Some(BootSpec::Firmware {
            name: firmware.clone(),
            path,
        })
    }

    pub(super) fn no_firmware(&mut self, place: JsonPath, file: &str) {
        let folders: Vec<String> = self
            .host
            .firmware
            .iter()
            .map(|folder| folder.display().to_string())
            .collect();
        let message = format!(
            "SeaBIOS is not installed: no {file} in {}",
            folders.join(", ")
        );
        let hint = "apt install seabios; or name a folder that has it in CARAWAY_FIRMWARE";
        self.note(Problem::new(Kind::MissingFile, place, message).hint(hint));
    }
}
