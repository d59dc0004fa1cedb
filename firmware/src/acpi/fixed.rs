//! The tables of fixed form. Field offsets are ACPI 6.5's.

use acpi_tables::sdt::Sdt;
use caraway_arch::layout::{IOAPIC_START, LAPIC_START};

use super::tables::Link;
use super::{Machine, PM_BASE, SCI};

pub(super) const OEM_ID: [u8; 6] = *b"CARAWY";
const OEM_TABLE_ID: [u8; 8] = *b"CARAWAY ";
const FACS_SIZE: u8 = 64;
const FADT_SIZE: usize = 276;

/// A table of `size` bytes, zeros after its header.
pub(super) fn table(signature: [u8; 4], size: usize, revision: u8) -> Sdt {
    let size = u32::try_from(size).unwrap_or(u32::MAX);
    Sdt::new(signature, size, revision, OEM_ID, OEM_TABLE_ID, 1)
}

/// Firmware ACPI control structure (5.2.10): only the lock and the waking vector are used.
pub(super) fn facs() -> Vec<u8> {
    let mut bytes = b"FACS".to_vec();
    bytes.push(FACS_SIZE);
    bytes.resize(usize::from(FACS_SIZE), 0);
    bytes
}

/// Offsets in the FADT (table 5.9).
mod field {
    pub(super) const FIRMWARE_CTRL: usize = 36;
    pub(super) const DSDT: usize = 40;
    pub(super) const SCI_INT: usize = 46;
    pub(super) const SMI_CMD: usize = 48;
    pub(super) const ACPI_ENABLE: usize = 52;
    pub(super) const ACPI_DISABLE: usize = 53;
    pub(super) const PM1A_EVT: usize = 56;
    pub(super) const PM1A_CNT: usize = 64;
    pub(super) const PM_TMR: usize = 76;
    pub(super) const GPE0: usize = 80;
    pub(super) const PM1_EVT_LEN: usize = 88;
    pub(super) const PM1_CNT_LEN: usize = 89;
    pub(super) const PM_TMR_LEN: usize = 91;
    pub(super) const GPE0_LEN: usize = 92;
    pub(super) const C2_LATENCY: usize = 96;
    pub(super) const C3_LATENCY: usize = 98;
    pub(super) const CENTURY: usize = 108;
    pub(super) const BOOT_ARCH: usize = 109;
    pub(super) const FLAGS: usize = 112;
    pub(super) const RESET_REG: usize = 116;
    pub(super) const RESET_VALUE: usize = 128;
    pub(super) const MINOR: usize = 131;
    pub(super) const X_DSDT: usize = 140;
    pub(super) const X_PM1A_EVT: usize = 148;
    pub(super) const X_PM1A_CNT: usize = 172;
    pub(super) const X_PM_TMR: usize = 208;
    pub(super) const X_GPE0: usize = 220;
}

/// WBINVD works.
const WBINVD: u32 = 1 << 0;
/// Every processor has C1.
const PROC_C1: u32 = 1 << 2;
/// There is no fixed sleep button; the power button is fixed, since its bit stays clear.
const NO_SLEEP_BUTTON: u32 = 1 << 5;
/// The reset register works.
const RESET_REG_SUP: u32 = 1 << 10;
/// Prefer the ACPI timer to the processors' counters of old systems.
const USE_PLATFORM_CLOCK: u32 = 1 << 15;
/// There are ISA devices, an i8042 among them.
const LEGACY_AND_8042: u16 = 0b11;
/// The CMOS byte with the century.
const CENTURY_BYTE: u8 = 0x32;
const RESET_PORT: u16 = 0xcf9;
/// Full reset of system and processors.
const RESET_ALL: u8 = 0x0f;

/// One block of power management ports: offset from the base, bytes, its two fields.
struct PmBlock {
    offset: u16,
    size: u8,
    field: usize,
    extended: usize,
    length: usize,
}

const PM_BLOCKS: [PmBlock; 4] = [
    PmBlock {
        offset: 0,
        size: 4,
        field: field::PM1A_EVT,
        extended: field::X_PM1A_EVT,
        length: field::PM1_EVT_LEN,
    },
    PmBlock {
        offset: 4,
        size: 2,
        field: field::PM1A_CNT,
        extended: field::X_PM1A_CNT,
        length: field::PM1_CNT_LEN,
    },
    PmBlock {
        offset: 8,
        size: 4,
        field: field::PM_TMR,
        extended: field::X_PM_TMR,
        length: field::PM_TMR_LEN,
    },
    PmBlock {
        offset: 0x20,
        size: 16,
        field: field::GPE0,
        extended: field::X_GPE0,
        length: field::GPE0_LEN,
    },
];

/// A generic address structure (5.2.3.2) of an I/O port.
fn port_address(port: u16, bits: u8) -> [u8; 12] {
    let mut address = [0; 12];
    let [low, high] = port.to_le_bytes();
    let width = match bits {
        8 => 1,
        16 => 2,
        32 => 3,
        _ => 0,
    };
    let head = [1, bits, 0, width, low, high];
    for (place, byte) in address.iter_mut().zip(head) {
        *place = byte;
    }
    address
}

/// Fixed ACPI description table (5.2.9).
pub(super) fn fadt() -> Sdt {
    let mut fadt = table(*b"FACP", FADT_SIZE, 6);
    fadt.write_u16(field::SCI_INT, SCI.into());
    fadt.write_u32(field::SMI_CMD, 0xb2);
    fadt.write_u8(field::ACPI_ENABLE, 2);
    fadt.write_u8(field::ACPI_DISABLE, 3);
    for block in PM_BLOCKS {
        let port = PM_BASE + block.offset;
        fadt.write_u32(block.field, port.into());
        fadt.write_u8(block.length, block.size);
        fadt.write_bytes(block.extended, &port_address(port, block.size * 8));
    }
    // More than 100 and 1000 microseconds: there is neither C2 nor C3.
    fadt.write_u16(field::C2_LATENCY, 0xfff);
    fadt.write_u16(field::C3_LATENCY, 0xfff);
    fadt.write_u8(field::CENTURY, CENTURY_BYTE);
    fadt.write_u16(field::BOOT_ARCH, LEGACY_AND_8042);
    fadt.write_u32(
        field::FLAGS,
        WBINVD | PROC_C1 | NO_SLEEP_BUTTON | RESET_REG_SUP | USE_PLATFORM_CLOCK,
    );
    fadt.write_bytes(field::RESET_REG, &port_address(RESET_PORT, 8));
    fadt.write_u8(field::RESET_VALUE, RESET_ALL);
    fadt.write_u8(field::MINOR, 5);
    fadt
}

pub(super) fn fadt_links(facs: usize, dsdt: usize) -> [Link; 3] {
    let link = |field, size, target| Link {
        field,
        size,
        target,
    };
    [
        link(field::FIRMWARE_CTRL, 4, facs),
        link(field::DSDT, 4, dsdt),
        link(field::X_DSDT, 8, dsdt),
    ]
}

/// Multiple APIC description table (5.2.12).
pub(super) fn madt(machine: &Machine<'_>) -> Sdt {
    const HEADER: usize = 36;
    const PIC_TOO: u32 = 1;
    const ENABLED: u32 = 1;
    /// Active high and level-triggered.
    const LEVEL_HIGH: u16 = 0x0d;
    const AS_THE_BUS: u16 = 0;

    let mut madt = table(*b"APIC", HEADER, 4);
    madt.append(low(LAPIC_START));
    madt.append(PIC_TOO);
    for id in 0..machine.cpus {
        madt.append_slice(&[0, 8, id, id]);
        madt.append(ENABLED);
    }
    madt.append_slice(&[1, 12, 0, 0]);
    madt.append(low(IOAPIC_START));
    madt.append(0u32);
    for (source, gsi, flags) in [(0, 2, AS_THE_BUS), (SCI, u32::from(SCI), LEVEL_HIGH)] {
        madt.append_slice(&[2, 10, 0, source]);
        madt.append(gsi);
        madt.append(flags);
    }
    // NMIs come to LINT1 of every processor.
    madt.append_slice(&[4, 6, 0xff, 0, 0, 1]);
    madt
}

/// Both controllers are below 4 GiB.
fn low(address: u64) -> u32 {
    u32::try_from(address).unwrap_or(u32::MAX)
}

/// PCI Express configuration space (PCI firmware specification 4.1.2).
pub(super) fn mcfg(machine: &Machine<'_>) -> Sdt {
    let mut mcfg = table(*b"MCFG", 44, 1);
    mcfg.append(machine.layout.ecam().start());
    mcfg.append(0u16); // segment
    mcfg.append_slice(&[0, 0xff, 0, 0, 0, 0]); // buses
    mcfg
}

/// Windows ACPI emulated devices table: the ACPI timer reads right at the first time.
pub(super) fn waet() -> Sdt {
    const PM_TIMER_GOOD: u32 = 1 << 1;
    let mut waet = table(*b"WAET", 36, 1);
    waet.append(PM_TIMER_GOOD);
    waet
}
