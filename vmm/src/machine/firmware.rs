//! What firmware or a kernel finds of the machine: ACPI and SMBIOS tables, and fw_cfg.

use std::sync::Arc;

use caraway_arch::layout::VMGENID_START;
use caraway_arch::{GuestMemory, Layout};
use caraway_devices::debug::PVPANIC_PORT;
use caraway_devices::{BusDevice, Lifecycle, Payload, StateError};
use caraway_firmware::acpi;
use caraway_firmware::fw_cfg::{self, FwCfg, Items, boot_disk, boot_order, option_rom};
use caraway_firmware::smbios::{self, Identity, Smbios};
use parking_lot::Mutex;

use crate::config::MachineSpec;
use crate::config::vmgenid::VmGenId;
use crate::exit::{Exit, Failure};
use crate::vcpu::Buses;

/// QXL's ids, under which firmware looks for its option ROM.
const QXL: (u16, u16) = (0x1b36, 0x0100);

/// How the tables reach the guest.
pub enum Tables {
    /// Firmware asks for them.
    Asked(Arc<FwCfgPorts>),
    /// A kernel finds them in memory.
    Placed {
        /// Boxed, being much larger than the other variant.
        tables: Box<(acpi::Tables, Smbios)>,
        /// Where the ACPI root pointer is.
        rsdp: u64,
    },
}

impl Tables {
    /// Describes the machine of `spec`, on a port if it boots firmware, else in `memory`.
    ///
    /// # Errors
    /// A file can't be read, or the tables don't fit.
    pub fn new(
        spec: &MachineSpec,
        layout: &Layout,
        firmware: bool,
        buses: &Buses,
        memory: &GuestMemory,
    ) -> Result<Self, Failure> {
        let tables = acpi::build(&acpi::Machine {
            layout,
            cpus: spec.cpus,
            pvpanic: Some(PVPANIC_PORT),
            vmgenid: (spec.vmgenid != VmGenId::None).then_some(VMGENID_START),
        });
        let smbios = Smbios::new(&Identity {
            name: &spec.name,
            uuid: *spec.uuid.as_bytes(),
            cpus: spec.cpus.into(),
            layout,
        });
        let internal = |error: &dyn std::error::Error| {
            Failure::of(Exit::Internal, error).context("the machine can't be described")
        };
        if !firmware {
            let mut placed = Self::Placed {
                tables: Box::new((tables, smbios)),
                rsdp: 0,
            };
            placed.place(memory)?;
            return Ok(placed);
        }
        let cpus = spec.cpus.into();
        let mut items = Items::new(layout, cpus, *spec.uuid.as_bytes(), fw_cfg::Boot::default());
        for (name, bytes) in files(spec, &tables, smbios)? {
            items
                .add_file(&name, bytes)
                .map_err(|error| internal(&error))?;
        }
        let ports = Arc::new(FwCfgPorts {
            device: Mutex::new(FwCfg::new(items)),
            memory: memory.clone(),
        });
        buses
            .ports
            .insert(fw_cfg::PORT.into(), fw_cfg::PORTS.into(), ports.clone())
            .map_err(|error| internal(&error))?;
        Ok(Self::Asked(ports))
    }

    /// Writes the tables to memory, if that is how they reach the guest: at the start, and at a
    /// reset, for the guest may have overwritten them.
    ///
    /// # Errors
    /// They don't fit.
    pub fn place(&mut self, memory: &GuestMemory) -> Result<(), Failure> {
        let Self::Placed { tables, rsdp } = self else {
            return Ok(());
        };
        let failed = |error: &dyn std::error::Error| {
            Failure::of(Exit::Config, error)
                .context("memory")
                .hint("give the guest more memory")
        };
        let (acpi, smbios) = &**tables;
        *rsdp = acpi.place(memory).map_err(|error| failed(&error))?;
        smbios.place(memory).map_err(|error| failed(&error))
    }

    /// Where a kernel finds the ACPI root pointer.
    #[must_use]
    pub fn rsdp(&self) -> Option<u64> {
        match self {
            Self::Asked(_) => None,
            Self::Placed { rsdp, .. } => Some(*rsdp),
        }
    }

    /// What of it has state.
    #[must_use]
    pub fn lifecycle(&self) -> Option<Arc<dyn Lifecycle>> {
        match self {
            Self::Asked(ports) => Some(ports.clone() as Arc<dyn Lifecycle>),
            Self::Placed { .. } => None,
        }
    }
}

/// What fw_cfg offers beyond what every machine has.
fn files(
    spec: &MachineSpec,
    tables: &acpi::Tables,
    smbios: Smbios,
) -> Result<Vec<(String, Vec<u8>)>, Failure> {
    let mut files: Vec<(String, Vec<u8>)> = tables
        .files()
        .into_iter()
        .map(|(name, bytes)| (name.to_owned(), bytes))
        .collect();
    files.push((smbios::ANCHOR_FILE.to_owned(), smbios.anchor));
    files.push((smbios::TABLES_FILE.to_owned(), smbios.tables));
    let disks = spec
        .disks
        .iter()
        .map(|disk| boot_disk(disk.address.device(), disk.address.function()));
    let disks: Vec<String> = disks.collect();
    if !disks.is_empty() {
        files.push(("bootorder".to_owned(), boot_order(&disks)));
    }
    if let Some(rom) = spec
        .displays
        .first()
        .and_then(|display| display.option_rom.as_ref())
    {
        let bytes = std::fs::read(rom).map_err(|error| {
            Failure::of(Exit::Config, &error).context(format!(
                "can't read the display's option ROM {}",
                rom.display()
            ))
        })?;
        files.push((option_rom(QXL.0, QXL.1), bytes));
    }
    Ok(files)
}

/// The fw_cfg device on the bus.
pub struct FwCfgPorts {
    device: Mutex<FwCfg>,
    memory: GuestMemory,
}

impl BusDevice for FwCfgPorts {
    fn read(&self, offset: u64, data: &mut [u8]) {
        self.device.lock().read(offset as u16, data);
    }

    fn write(&self, offset: u64, data: &[u8]) {
        self.device.lock().write(offset as u16, data, &self.memory);
    }
}

impl Lifecycle for FwCfgPorts {
    fn kind(&self) -> &'static str {
        FwCfg::KIND
    }

    fn reset(&self) {
        self.device.lock().reset();
    }

    fn save(&self) -> Result<Payload, StateError> {
        let body = serde_json::to_value(self.device.lock().save()).map_err(|source| {
            StateError::Malformed {
                kind: FwCfg::KIND,
                source,
            }
        })?;
        Ok(Payload {
            kind: FwCfg::KIND.to_owned(),
            version: FwCfg::VERSION,
            body,
        })
    }

    fn restore(&self, payload: &Payload) -> Result<(), StateError> {
        let (kind, expected, found) = (FwCfg::KIND, FwCfg::VERSION, payload.version);
        if payload.kind != kind {
            return Err(StateError::Kind {
                expected: kind,
                found: payload.kind.clone(),
            });
        }
        if found != expected {
            return Err(StateError::Version {
                kind,
                expected,
                found,
            });
        }
        let state = serde_json::from_value(payload.body.clone())
            .map_err(|source| StateError::Malformed { kind, source })?;
        self.device.lock().restore(state);
        Ok(())
    }
}
