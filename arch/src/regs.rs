//! Registers at the moment a guest is entered.
//!
//! Firmware needs nothing here: KVM's own reset state is the processor's, real mode at
//! 0xffff_fff0. The other two are the Linux 64-bit boot protocol (`Documentation/arch/x86/boot.rst`)
//! and PVH (`xen/docs/misc/pvh.pandoc`).

use kvm_bindings::{kvm_regs, kvm_segment};
use kvm_ioctls::VcpuFd;
use vm_memory::{Bytes, GuestAddress};

use crate::memory::GuestMemory;
use crate::msr;

/// Where the boot GDT of four entries is.
pub const GDT_START: u64 = 0x500;
/// Page tables that map the first 4 GiB onto themselves: six pages.
pub const PAGE_TABLES_START: u64 = 0x9000;
/// A few hundred bytes of stack below the page tables, for kernels that trust there is one.
pub const STACK_TOP: u64 = 0x8ff0;

/// How the first processor starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entry {
    /// At the reset vector, as every processor does after power-on.
    Firmware,
    /// In long mode at `rip`, with RSI at the boot parameters.
    Linux64 {
        /// The kernel's 64-bit entry.
        rip: u64,
        /// Guest address of `struct boot_params`.
        boot_params: u64,
    },
    /// In 32-bit protected mode at `eip` without paging, with EBX at the start info.
    Pvh {
        /// The kernel's `XEN_ELFNOTE_PHYS32_ENTRY`.
        eip: u32,
        /// Guest address of `struct hvm_start_info`.
        start_info: u32,
    },
}

/// A processor that can't be set up for its entry.
#[derive(Debug, thiserror::Error)]
pub enum EntryError {
    /// KVM refused a set of registers.
    #[error("KVM refuses to {verb} the {what} of the first processor")]
    Registers {
        /// "get" or "set".
        verb: &'static str,
        /// Which registers.
        what: &'static str,
        /// Why.
        #[source]
        source: kvm_ioctls::Error,
    },
    /// The model-specific registers could not be listed or were not all taken.
    #[error("KVM did not take the model-specific registers of a direct boot")]
    Msrs,
    /// The tables for long mode have no place in guest memory.
    #[error("guest memory at {address:#x} can't take the tables of a direct boot")]
    Tables {
        /// The first table's guest address.
        address: u64,
    },
}

impl Entry {
    /// Sets the first processor, fresh from its reset state, to this entry. The others stay as
    /// they are and wait for the guest to start them.
    ///
    /// # Errors
    /// [`EntryError`] if KVM or guest memory refuses.
    pub fn apply(&self, vcpu: &VcpuFd, memory: &GuestMemory) -> Result<(), EntryError> {
        match *self {
            Self::Firmware => Ok(()),
            Self::Linux64 { rip, boot_params } => {
                let regs = kvm_regs {
                    rip,
                    rsi: boot_params,
                    rsp: STACK_TOP,
                    rbp: STACK_TOP,
                    rflags: RFLAGS_RESERVED,
                    ..Default::default()
                };
                write_page_tables(memory)?;
                direct(vcpu, memory, &regs, Mode::Long)
            }
            Self::Pvh { eip, start_info } => {
                let regs = kvm_regs {
                    rip: eip.into(),
                    rbx: start_info.into(),
                    rflags: RFLAGS_RESERVED,
                    ..Default::default()
                };
                direct(vcpu, memory, &regs, Mode::Protected)
            }
        }
    }
}

const RFLAGS_RESERVED: u64 = 1 << 1;
const CR0_PE: u64 = 1;
const CR0_ET: u64 = 1 << 4;
const CR0_PG: u64 = 1 << 31;
const CR4_PAE: u64 = 1 << 5;
const EFER_LME: u64 = 1 << 8;
const EFER_LMA: u64 = 1 << 10;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Protected,
    Long,
}

/// One flat segment: what the registers cache and what the GDT says.
fn flat(selector: u16, kind: u8, long: bool) -> kvm_segment {
    kvm_segment {
        base: 0,
        limit: u32::MAX,
        selector,
        type_: kind,
        present: 1,
        dpl: 0,
        db: u8::from(!long),
        s: 1,
        l: u8::from(long),
        g: 1,
        ..Default::default()
    }
}

const CODE: u8 = 0xb; // execute, read, accessed
const DATA: u8 = 0x3; // read, write, accessed
const BUSY_TSS: u8 = 0xb;

/// The segment as a descriptor (Intel SDM volume 3, figure 3-8), limits in pages.
fn descriptor(segment: &kvm_segment) -> u64 {
    let limit = u64::from(if segment.g == 1 {
        segment.limit >> 12
    } else {
        segment.limit
    });
    let access = u64::from(segment.type_)
        | u64::from(segment.s) << 4
        | u64::from(segment.dpl) << 5
        | u64::from(segment.present) << 7;
    let flags = u64::from(segment.l) << 1 | u64::from(segment.db) << 2 | u64::from(segment.g) << 3;
    limit & 0xffff | access << 40 | (limit >> 16 & 0xf) << 48 | flags << 52
}

fn direct(
    vcpu: &VcpuFd,
    memory: &GuestMemory,
    regs: &kvm_regs,
    mode: Mode,
) -> Result<(), EntryError> {
    let refused = |verb, what| move |source| EntryError::Registers { verb, what, source };
    let code = flat(0x10, CODE, mode == Mode::Long);
    let data = flat(0x18, DATA, false);
    let tss = kvm_segment {
        limit: 0x67,
        type_: BUSY_TSS,
        present: 1,
        selector: 0x20,
        ..Default::default()
    };
    let gdt = [0, 0, descriptor(&code), descriptor(&data), descriptor(&tss)];
    for (address, entry) in (GDT_START..).step_by(8).zip(gdt) {
        memory
            .write_obj(entry, GuestAddress(address))
            .map_err(|_| EntryError::Tables { address: GDT_START })?;
    }

    let mut sregs = vcpu.get_sregs().map_err(refused("get", "segments"))?;
    sregs.cs = code;
    for segment in [
        &mut sregs.ds,
        &mut sregs.es,
        &mut sregs.fs,
        &mut sregs.gs,
        &mut sregs.ss,
    ] {
        *segment = data;
    }
    sregs.tr = tss;
    sregs.gdt.base = GDT_START;
    sregs.gdt.limit = 8 * 5 - 1;
    sregs.idt.base = 0;
    sregs.idt.limit = 0;
    sregs.cr0 = CR0_PE | CR0_ET;
    sregs.cr4 = 0;
    sregs.efer = 0;
    if mode == Mode::Long {
        sregs.cr3 = PAGE_TABLES_START;
        sregs.cr4 = CR4_PAE;
        sregs.cr0 |= CR0_PG;
        sregs.efer = EFER_LME | EFER_LMA;
    }
    vcpu.set_sregs(&sregs).map_err(refused("set", "segments"))?;
    vcpu.set_regs(regs).map_err(refused("set", "registers"))?;

    let msrs = msr::for_direct_boot().map_err(|_| EntryError::Msrs)?;
    let taken = vcpu
        .set_msrs(&msrs)
        .map_err(refused("set", "model-specific registers"))?;
    if taken != msrs.as_slice().len() {
        return Err(EntryError::Msrs);
    }
    Ok(())
}

/// Maps the first 4 GiB onto themselves in pages of 2 MiB: one root, one table of four gibibytes,
/// four directories.
fn write_page_tables(memory: &GuestMemory) -> Result<(), EntryError> {
    const PAGE: u64 = 0x1000;
    const PRESENT_WRITABLE: u64 = 0b11;
    const HUGE: u64 = 1 << 7;
    let address = PAGE_TABLES_START;
    let write = |entry: u64, at: u64| {
        memory
            .write_obj(entry, GuestAddress(at))
            .map_err(|_| EntryError::Tables { address })
    };
    let pointers = address + PAGE;
    write(pointers | PRESENT_WRITABLE, address)?;
    for gibibyte in 0..4 {
        let directory = pointers + PAGE + gibibyte * PAGE;
        write(directory | PRESENT_WRITABLE, pointers + gibibyte * 8)?;
        for page in 0..512 {
            let target = gibibyte << 30 | page << 21;
            write(target | HUGE | PRESENT_WRITABLE, directory + page * 8)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_of_flat_segments_are_the_well_known_ones() {
        assert_eq!(descriptor(&flat(0x10, CODE, true)), 0x00af_9b00_0000_ffff);
        assert_eq!(descriptor(&flat(0x10, CODE, false)), 0x00cf_9b00_0000_ffff);
        assert_eq!(descriptor(&flat(0x18, DATA, false)), 0x00cf_9300_0000_ffff);
    }

    #[test]
    fn page_tables_map_addresses_onto_themselves() {
        let memory = GuestMemory::from_ranges(&[(GuestAddress(0), 1 << 20)]).unwrap();
        write_page_tables(&memory).unwrap();
        let last = GuestAddress(PAGE_TABLES_START + 6 * 0x1000 - 8);
        assert_eq!(memory.read_obj::<u64>(last).unwrap(), 0xffe0_0083);
    }
}
