//! ACPI tables of the q35 machine (ACPI 6.5), from one builder for two ways of handing over:
//!
//! - [`Tables::files`]: firmware gets them through fw_cfg with a script of commands that places
//!   and links them (QEMU `docs/specs/acpi_*`, `hw/acpi/bios-linker-loader.c` has the format);
//! - [`Tables::place`]: without firmware they are written to guest memory ready to use.

mod dsdt;
mod fixed;
mod loader;
mod tables;

pub use loader::{LOADER_FILE, RSDP_FILE, TABLES_FILE};
pub use tables::{PlaceError, Tables};

use caraway_arch::Layout;

/// The first I/O port of power management, where the FADT says it is.
pub const PM_BASE: u16 = 0x600;
/// How many of them there are.
pub const PM_PORTS: u8 = 0x80;
/// The SCI: level-triggered and active high, by an override.
pub const SCI: u8 = 9;
/// The general-purpose event that says that the VM generation id is another one.
pub const VMGENID_GPE: u8 = 5;
/// GSI of PIRQ A; B to H follow.
pub const PIRQ_GSI: u32 = 16;

/// What the tables tell of one machine.
#[derive(Debug, Clone, Copy)]
pub struct Machine<'a> {
    /// Where memory and windows are.
    pub layout: &'a Layout,
    /// How many processors there are, with APIC ids from 0; 1 to 255.
    pub cpus: u8,
    /// The port of a pvpanic device, by which a guest tells that it panicked.
    pub pvpanic: Option<u16>,
    /// Guest-physical address of the VM generation id.
    pub vmgenid: Option<u64>,
}

/// Builds all tables.
pub fn build(machine: &Machine<'_>) -> Tables {
    let mut tables = Tables::new();
    let facs = tables.add_facs(&fixed::facs());
    let dsdt = tables.add(&dsdt::build(machine), &[]);
    let fadt = tables.add(&fixed::fadt(), &fixed::fadt_links(facs, dsdt));
    let madt = tables.add(&fixed::madt(machine), &[]);
    let mcfg = tables.add(&fixed::mcfg(machine), &[]);
    let waet = tables.add(&fixed::waet(), &[]);
    tables.finish(&[fadt, madt, mcfg, waet])
}

#[cfg(test)]
mod tests;
