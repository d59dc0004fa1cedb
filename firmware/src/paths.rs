//! Where distributions keep firmware.

use std::path::{Path, PathBuf};

/// Firmware that a config may name by a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Known {
    /// SeaBIOS: `bios-256k.bin`.
    SeaBios,
    /// The VGA BIOS for QXL: `vgabios-qxl.bin`.
    QxlVgaBios,
    /// OVMF, code and variables in one image.
    Ovmf,
}

impl Known {
    /// Where it may be, the likeliest first.
    pub const fn candidates(self) -> &'static [&'static str] {
        match self {
            Self::SeaBios => &[
                "/usr/share/seabios/bios-256k.bin",
                "/usr/share/qemu/bios-256k.bin",
                "/usr/share/qemu-kvm/bios-256k.bin",
                "/usr/local/share/qemu/bios-256k.bin",
            ],
            Self::QxlVgaBios => &[
                "/usr/share/seabios/vgabios-qxl.bin",
                "/usr/share/seavgabios/vgabios-qxl.bin",
                "/usr/share/qemu/vgabios-qxl.bin",
                "/usr/share/qemu-kvm/vgabios-qxl.bin",
                "/usr/local/share/qemu/vgabios-qxl.bin",
            ],
            Self::Ovmf => &[
                "/usr/share/ovmf/OVMF.fd",
                "/usr/share/qemu/OVMF.fd",
                "/usr/share/edk2/x64/OVMF.4m.fd",
                "/usr/share/edk2-ovmf/x64/OVMF.fd",
                "/usr/share/edk2/ovmf/OVMF.inteltdx.fd",
                "/usr/share/qemu/ovmf-x86_64.bin",
            ],
        }
    }

    /// What to install where it is missing, for a message.
    pub const fn remedy(self) -> &'static str {
        match self {
            Self::SeaBios | Self::QxlVgaBios => {
                "install SeaBIOS (Debian and Ubuntu: apt install seabios; Fedora: dnf install \
                 seabios-bin seavgabios-bin) or give its path"
            }
            Self::Ovmf => {
                "install OVMF (Debian and Ubuntu: apt install ovmf; Fedora: dnf install \
                 edk2-ovmf) or give its path"
            }
        }
    }

    /// The first candidate that is a file.
    pub fn find(self) -> Option<PathBuf> {
        self.find_under(Path::new("/"))
    }

    fn find_under(self, root: &Path) -> Option<PathBuf> {
        self.candidates()
            .iter()
            .map(|path| root.join(path.trim_start_matches('/')))
            .find(|path| path.is_file())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_found_where_there_is_nothing() {
        let missing = Path::new("/nonexistent");
        assert_eq!(Known::SeaBios.find_under(missing), None);
    }

    #[test]
    fn every_candidate_is_an_absolute_path() {
        for known in [Known::SeaBios, Known::QxlVgaBios, Known::Ovmf] {
            assert!(known.candidates().iter().all(|path| path.starts_with('/')));
        }
    }
}
