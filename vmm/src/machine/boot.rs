//! What the first vCPU runs, put in place at the start and again at every reset.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use caraway_arch::boot::DirectBoot;
use caraway_arch::{Entry, GuestMemory, Layout};
use caraway_firmware::place::Firmware;

use crate::config::BootSpec;
use crate::exit::{Exit, Failure};

/// What is placed in guest memory before the first instruction.
pub enum Boot {
    /// A firmware image; the rest it does itself.
    Firmware(Firmware),
    /// A kernel with what it needs.
    Kernel {
        /// Where the kernel was read.
        path: PathBuf,
        /// The kernel, kept open so that a reset starts the same one.
        kernel: File,
        /// Its initial RAM disk.
        initrd: Option<File>,
        /// Its command line.
        cmdline: String,
    },
}

impl Boot {
    /// Opens the files that `spec` names.
    ///
    /// # Errors
    /// A file that is not there, or no firmware.
    pub fn open(spec: &BootSpec) -> Result<Self, Failure> {
        match spec {
            BootSpec::Firmware { path, .. } => {
                let image = std::fs::read(path).map_err(|error| unreadable(path, &error))?;
                let firmware = Firmware::new(image).map_err(|error| {
                    Failure::of(Exit::Config, &error)
                        .context(format!("boot.firmware: {}", path.display()))
                })?;
                Ok(Self::Firmware(firmware))
            }
            BootSpec::Kernel {
                path,
                initrd,
                cmdline,
            } => {
                let open = |path: &Path| File::open(path).map_err(|error| unreadable(path, &error));
                Ok(Self::Kernel {
                    kernel: open(path)?,
                    initrd: initrd.as_deref().map(open).transpose()?,
                    path: path.clone(),
                    cmdline: cmdline.clone(),
                })
            }
        }
    }

    /// Puts it in place; `rsdp` is where a kernel finds its ACPI tables.
    ///
    /// # Errors
    /// The kernel is none, is cut short or does not fit.
    pub fn place(
        &mut self,
        memory: &GuestMemory,
        layout: &Layout,
        rsdp: Option<u64>,
    ) -> Result<Entry, Failure> {
        match self {
            Self::Firmware(firmware) => {
                firmware
                    .shadow(memory)
                    .map_err(|error| Failure::of(Exit::Config, &error))?;
                Ok(Entry::Firmware)
            }
            Self::Kernel {
                path,
                kernel,
                initrd,
                cmdline,
            } => {
                let mut boot = DirectBoot {
                    kernel,
                    initrd: initrd.as_mut(),
                    cmdline,
                    rsdp,
                };
                boot.load(memory, layout).map_err(|error| {
                    Failure::of(Exit::Config, &error)
                        .context(format!("boot.kernel: {} can't be started", path.display()))
                        .hint("give a bzImage (such as /boot/vmlinuz-*) or an ELF file with a PVH note")
                })
            }
        }
    }
}

fn unreadable(path: &Path, error: &io::Error) -> Failure {
    Failure::of(Exit::Config, error)
        .context(format!("can't read {}", path.display()))
        .hint("check the path in the config; relative paths start at the config's folder")
}
