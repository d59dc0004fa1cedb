//! Model-specific registers at the moment of a direct boot.
//!
//! Firmware sets these up itself; a kernel that is entered directly expects them done.

use kvm_bindings::{Msrs, kvm_msr_entry};

/// `IA32_MISC_ENABLE`; bit 0 turns fast string operations on.
pub const MISC_ENABLE: u32 = 0x1a0;
/// `IA32_MTRR_DEF_TYPE`: bit 11 turns MTRRs on, bits 7:0 are the default type.
pub const MTRR_DEF_TYPE: u32 = 0x2ff;
/// `IA32_TIME_STAMP_COUNTER`.
pub const TSC: u32 = 0x10;
/// `IA32_TSC_DEADLINE`: can be set only once the local APIC's timer is in deadline mode.
pub const TSC_DEADLINE: u32 = 0x6e0;

const FAST_STRINGS: u64 = 1;
const MTRR_ON: u64 = 1 << 11;
const WRITE_BACK: u64 = 6;

/// What a kernel without firmware expects: all memory cached, fast strings on.
///
/// # Errors
/// None in practice: only more than 256 entries fail.
pub fn for_direct_boot() -> Result<Msrs, vmm_sys_util::fam::Error> {
    let entry = |index, data| kvm_msr_entry {
        index,
        data,
        ..Default::default()
    };
    Msrs::from_entries(&[
        entry(MISC_ENABLE, FAST_STRINGS),
        entry(MTRR_DEF_TYPE, MTRR_ON | WRITE_BACK),
    ])
}
