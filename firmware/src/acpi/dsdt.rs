//! The DSDT: what a guest can't find out by looking, in AML.

use acpi_tables::Aml;
use acpi_tables::aml::{
    AddressSpace, AddressSpaceCacheable, And, Arg, CreateDWordField, Device, EISAName, Else, Equal,
    IO, If, Interrupt, Memory32Fixed, Method, Name, NotEqual, Notify, Or, Package, PackageBuilder,
    Path, ResourceTemplate, Return, Scope, Store, Uuid,
};
use acpi_tables::sdt::Sdt;
use caraway_arch::AddressRange;
use caraway_arch::layout::{VGA_SIZE, VGA_START};

use super::{Machine, PIRQ_GSI, PM_BASE, PM_PORTS, VMGENID_GPE, fixed};
use crate::fw_cfg;

/// The configuration ports 0xcf8..0xd00 are the bridge's own; the windows are around them.
const CONFIG_PORTS: u16 = 0xcf8;

/// Differentiated system description table (5.2.11.1).
pub(super) fn build(machine: &Machine<'_>) -> Sdt {
    let mut dsdt = fixed::table(*b"DSDT", 36, 2);
    let mut aml = Vec::new();
    // The sleep type of S5; SLP_TYPb is not there.
    let off = Package::new(vec![&0u8, &0u8, &0u8, &0u8]);
    Name::new("_S5_".into(), &off).to_aml_bytes(&mut aml);
    pci_root(machine, &mut aml);
    isa_devices(machine, &mut aml);
    system(machine, &mut aml);
    processors(machine.cpus, &mut aml);
    if let Some(address) = machine.vmgenid {
        generation(address, &mut aml);
    }
    dsdt.append_slice(&aml);
    dsdt
}

fn eisa_id(name: &str) -> Name {
    Name::new("_HID".into(), &EISAName::new(name))
}

/// A 32-bit window: those of the layout all end below 4 GiB.
fn window32(range: &AddressRange) -> Option<AddressSpace<u32>> {
    let (first, last) = (
        range.start().try_into().ok()?,
        range.last().try_into().ok()?,
    );
    let cacheable = AddressSpaceCacheable::NotCacheable;
    Some(AddressSpace::new_memory(cacheable, true, first, last, None))
}

fn pci_root(machine: &Machine<'_>, aml: &mut Vec<u8>) {
    let config = IO::new(CONFIG_PORTS, CONFIG_PORTS, 1, 8);
    let buses = AddressSpace::new_bus_number(0u16, 0xff);
    let ports_below = AddressSpace::new_io(0u16, CONFIG_PORTS - 1, None);
    let ports_above = AddressSpace::new_io(CONFIG_PORTS + 8, 0xffff, None);
    let vga = AddressRange::new(VGA_START, VGA_SIZE);
    let windows: Vec<_> = vga
        .iter()
        .chain(&machine.layout.pci32())
        .filter_map(window32)
        .collect();
    let high = machine.layout.pci64();
    let window64 = AddressSpace::new_memory(
        AddressSpaceCacheable::Cacheable,
        true,
        high.start(),
        high.last(),
        None,
    );
    let mut resources: Vec<&dyn Aml> = vec![&buses, &config, &ports_below, &ports_above];
    resources.extend(windows.iter().map(|window| window as &dyn Aml));
    resources.push(&window64);

    let osc = Osc::new();
    Scope::new(
        "_SB_".into(),
        vec![&Device::new(
            "PCI0".into(),
            vec![
                &eisa_id("PNP0A08"),
                &Name::new("_CID".into(), &EISAName::new("PNP0A03")),
                &Name::new("_UID".into(), &0u8),
                &Name::new("_CRS".into(), &ResourceTemplate::new(resources)),
                &Name::new("_PRT".into(), &routes()),
                &osc,
            ],
        )],
    )
    .to_aml_bytes(aml);
}

/// Where INTA to INTD of each device go: on devices 0 to 24 to PIRQ E to H in turn, on 25 to 31
/// to PIRQ A to D.
fn routes() -> PackageBuilder {
    let mut routes = PackageBuilder::new();
    for device in 0..32u32 {
        for pin in 0..4u32 {
            let pirq = if device < 25 {
                4 + (device + pin) % 4
            } else {
                pin
            };
            let any_function = device << 16 | 0xffff;
            let gsi = PIRQ_GSI + pirq;
            let route = Package::new(vec![&any_function, &pin, &0u8, &gsi]);
            routes.add_element(&route);
        }
    }
    routes
}

/// `_OSC` of the PCI root (6.2.11): the guest may run native hot-plug, PME and capabilities itself.
struct Osc {
    granted: u32,
}

impl Osc {
    const fn new() -> Self {
        /// Native hot-plug, standard hot-plug, PME, and PCI Express capabilities; no AER.
        const GRANTED: u32 = 0b1_0111;
        Self { granted: GRANTED }
    }
}

impl Aml for Osc {
    fn to_aml_bytes(&self, sink: &mut dyn acpi_tables::AmlSink) {
        const UNKNOWN_REVISION: u8 = 1 << 3;
        const UNKNOWN_UUID: u8 = 1 << 2;
        let [status, control] = ["CDW1", "CDW3"].map(Path::new);
        let pci = Uuid::new("33DB4D5B-1FF7-401C-9657-7441C03DD766");
        Method::new(
            "_OSC".into(),
            4,
            true,
            vec![
                &CreateDWordField::new(&status, &Arg(3), &0u8),
                &If::new(
                    &Equal::new(&Arg(0), &pci),
                    vec![
                        &CreateDWordField::new(&control, &Arg(3), &8u8),
                        &Store::new(&control, &And::new(&0u8, &control, &self.granted)),
                        &If::new(
                            &NotEqual::new(&Arg(1), &1u8),
                            vec![&Or::new(&status, &status, &UNKNOWN_REVISION)],
                        ),
                    ],
                ),
                &Else::new(vec![&Or::new(&status, &status, &UNKNOWN_UUID)]),
                &Return::new(&Arg(3)),
            ],
        )
        .to_aml_bytes(sink);
    }
}

/// An ISA device: its name, its id, its ports as (first, how many), its interrupt.
struct IsaDevice {
    name: &'static str,
    id: &'static str,
    ports: &'static [(u16, u8)],
    irq: Option<u8>,
}

const ISA_DEVICES: [IsaDevice; 6] = [
    IsaDevice {
        name: "COM1",
        id: "PNP0501",
        ports: &[(0x3f8, 8)],
        irq: Some(4),
    },
    IsaDevice {
        name: "KBD_",
        id: "PNP0303",
        ports: &[(0x60, 1), (0x64, 1)],
        irq: Some(1),
    },
    IsaDevice {
        name: "MOU_",
        id: "PNP0F13",
        ports: &[],
        irq: Some(12),
    },
    IsaDevice {
        name: "RTC_",
        id: "PNP0B00",
        ports: &[(0x70, 2)],
        irq: Some(8),
    },
    IsaDevice {
        name: "PIT_",
        id: "PNP0100",
        ports: &[(0x40, 4)],
        irq: Some(0),
    },
    IsaDevice {
        name: "SPKR",
        id: "PNP0800",
        ports: &[(0x61, 1)],
        irq: None,
    },
];

impl Aml for IsaDevice {
    fn to_aml_bytes(&self, sink: &mut dyn acpi_tables::AmlSink) {
        let ports: Vec<_> = self
            .ports
            .iter()
            .map(|&(port, count)| IO::new(port, port, 1, count))
            .collect();
        let irq = self
            .irq
            .map(|irq| Interrupt::new(true, true, false, false, irq.into()));
        let mut resources: Vec<&dyn Aml> = ports.iter().map(|port| port as &dyn Aml).collect();
        resources.extend(irq.as_ref().map(|irq| irq as &dyn Aml));
        Device::new(
            self.name.into(),
            vec![
                &eisa_id(self.id),
                &Name::new("_UID".into(), &0u8),
                &Name::new("_CRS".into(), &ResourceTemplate::new(resources)),
            ],
        )
        .to_aml_bytes(sink);
    }
}

/// What is behind the LPC bridge, 00:1f.0, and a way to tell of a panic if there is one.
fn isa_devices(machine: &Machine<'_>, aml: &mut Vec<u8>) {
    let address = Name::new("_ADR".into(), &0x1f_0000u32);
    let mut children: Vec<&dyn Aml> = vec![&address];
    children.extend(ISA_DEVICES.iter().map(|device| device as &dyn Aml));
    let pvpanic = machine.pvpanic.map(|port| PortDevice {
        name: "PEVT",
        id: "QEMU0001",
        port,
        count: 1,
    });
    children.extend(pvpanic.as_ref().map(|device| device as &dyn Aml));
    Scope::new(
        "_SB_.PCI0".into(),
        vec![&Device::new("LPC_".into(), children)],
    )
    .to_aml_bytes(aml);
}

/// A device of the monitor's that is nothing but ports, hidden from the device manager.
struct PortDevice {
    name: &'static str,
    id: &'static str,
    port: u16,
    count: u8,
}

impl Aml for PortDevice {
    fn to_aml_bytes(&self, sink: &mut dyn acpi_tables::AmlSink) {
        const PRESENT_HIDDEN: u8 = 0x0b;
        Device::new(
            self.name.into(),
            vec![
                &Name::new("_HID".into(), &self.id),
                &Name::new("_STA".into(), &PRESENT_HIDDEN),
                &Name::new(
                    "_CRS".into(),
                    &ResourceTemplate::new(vec![&IO::new(self.port, self.port, 1, self.count)]),
                ),
            ],
        )
        .to_aml_bytes(sink);
    }
}

/// What no driver may take: ECAM and the ports of power management; and fw_cfg.
fn system(machine: &Machine<'_>, aml: &mut Vec<u8>) {
    let ecam = machine.layout.ecam();
    let (base, size) = (ecam.start(), ecam.size());
    let ecam = Memory32Fixed::new(
        true,
        u32::try_from(base).unwrap_or(u32::MAX),
        u32::try_from(size).unwrap_or(0),
    );
    let fw_cfg = PortDevice {
        name: "FWCF",
        id: "QEMU0002",
        port: fw_cfg::PORT,
        count: 12,
    };
    Scope::new(
        "_SB_".into(),
        vec![
            &Device::new(
                "SYSR".into(),
                vec![
                    &eisa_id("PNP0C02"),
                    &Name::new("_UID".into(), &0u8),
                    &Name::new(
                        "_CRS".into(),
                        &ResourceTemplate::new(vec![
                            &ecam,
                            &IO::new(PM_BASE, PM_BASE, 1, PM_PORTS),
                        ]),
                    ),
                ],
            ),
            &fw_cfg,
        ],
    )
    .to_aml_bytes(aml);
}

/// One device a processor; `_UID` is what the MADT calls it.
fn processors(cpus: u8, aml: &mut Vec<u8>) {
    for cpu in 0..cpus {
        Scope::new(
            "_SB_".into(),
            vec![&Device::new(
                format!("C{cpu:03X}").as_str().into(),
                vec![
                    &Name::new("_HID".into(), &"ACPI0007"),
                    &Name::new("_UID".into(), &cpu),
                ],
            )],
        )
        .to_aml_bytes(aml);
    }
}

/// The VM generation id at `address`, and the event that says that it changed.
fn generation(address: u64, aml: &mut Vec<u8>) {
    /// "The contents of the buffer have changed."
    const CHANGED: u8 = 0x80;
    const NAME: &str = "VM_Gen_Counter";
    let (low, high) = (address as u32, (address >> 32) as u32);
    Scope::new(
        "_SB_".into(),
        vec![&Device::new(
            "VGEN".into(),
            vec![
                &Name::new("_HID".into(), &"CRWY0001"),
                &Name::new("_CID".into(), &NAME),
                &Name::new("_DDN".into(), &NAME),
                &Name::new("ADDR".into(), &Package::new(vec![&low, &high])),
            ],
        )],
    )
    .to_aml_bytes(aml);
    // `_Exx`: an edge, which the guest clears before it looks.
    let event = format!("_E{VMGENID_GPE:02X}");
    let device = Path::new("\\_SB_.VGEN");
    Scope::new(
        "_GPE".into(),
        vec![&Method::new(
            event.as_str().into(),
            0,
            false,
            vec![&Notify::new(&device, &CHANGED)],
        )],
    )
    .to_aml_bytes(aml);
}
