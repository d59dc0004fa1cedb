//! What a processor and the in-kernel devices keep across a snapshot.
//!
//! A [`VcpuState`] saved before the first instruction is also what a reset puts back.

use kvm_bindings::{
    KVM_IRQCHIP_IOAPIC, KVM_IRQCHIP_PIC_MASTER, KVM_IRQCHIP_PIC_SLAVE, Msrs, Xsave, kvm_debugregs,
    kvm_irqchip, kvm_lapic_state, kvm_mp_state, kvm_msr_entry, kvm_regs, kvm_sregs,
    kvm_vcpu_events, kvm_xcrs, kvm_xsave, kvm_xsave2,
};
use kvm_ioctls::{Cap, Kvm, VcpuFd, VmFd};
use serde::{Deserialize, Serialize};
use vmm_sys_util::fam::FamStruct;

use crate::msr;

/// The version of [`VcpuState`] and [`ChipState`] that this build reads and writes.
pub const VERSION: u32 = 1;

/// KVM reads and writes this many model-specific registers at once, at most.
const MSRS_AT_ONCE: usize = 256;
const XSAVE: &str = "extended processor state";

/// State that could not be saved or restored.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// KVM refused.
    #[error("KVM refuses to {verb} the {what}")]
    Kvm {
        /// "get" or "set".
        verb: &'static str,
        /// Which part of the state.
        what: &'static str,
        /// Why.
        #[source]
        source: kvm_ioctls::Error,
    },
    /// The state was written under another version.
    #[error("the processor state has version {found}; this build reads version {VERSION}")]
    Version {
        /// The version it was written under.
        found: u32,
    },
    /// This host does not take a register that the saved processor had.
    #[error("this host does not take model-specific register {index:#x} with value {value:#x}")]
    Msr {
        /// The register.
        index: u32,
        /// Its saved value.
        value: u64,
    },
    /// The saved extended state is not as long as this host's, or no list fits.
    #[error("the saved {what} has {size} bytes, which this host can't take")]
    Size {
        /// Which part of the state.
        what: &'static str,
        /// Its size in bytes.
        size: usize,
    },
}

pub(crate) fn get(what: &'static str) -> impl FnOnce(kvm_ioctls::Error) -> StateError {
    move |source| StateError::Kvm {
        verb: "get",
        what,
        source,
    }
}

pub(crate) fn put(what: &'static str) -> impl FnOnce(kvm_ioctls::Error) -> StateError {
    move |source| StateError::Kvm {
        verb: "set",
        what,
        source,
    }
}

/// What saving takes that is the same for every processor of a VM; made once.
#[derive(Debug, Clone)]
pub struct SaveContext {
    msrs: Vec<u32>,
    xsave_size: usize,
}

impl SaveContext {
    /// Finds out which model-specific registers `vcpu` has; set its CPUID first, since KVM hides
    /// registers of features that the guest does not have.
    ///
    /// # Errors
    /// [`StateError::Kvm`] if KVM does not list them.
    pub fn probe(kvm: &Kvm, vm: &VmFd, vcpu: &VcpuFd) -> Result<Self, StateError> {
        let listed = kvm
            .get_msr_index_list()
            .map_err(get("list of model-specific registers"))?;
        // KVM leaves the memory types out of its list.
        let memory_types = (0x200..=0x20f)
            .chain([0x250, 0x258, 0x259])
            .chain(0x268..=0x26f)
            .chain([0x277, msr::MTRR_DEF_TYPE]);
        let mut msrs: Vec<u32> = listed
            .as_slice()
            .iter()
            .copied()
            .chain(memory_types)
            .collect();
        msrs.sort_unstable();
        msrs.dedup();
        let msrs = readable_msrs(vcpu, &msrs)?;
        let xsave_size = usize::try_from(vm.check_extension_int(Cap::Xsave2)).unwrap_or(0);
        Ok(Self { msrs, xsave_size })
    }

    fn xsave_words(&self) -> usize {
        self.xsave_size
            .saturating_sub(size_of::<kvm_xsave>())
            .div_ceil(size_of::<<kvm_xsave2 as FamStruct>::Entry>())
    }
}

/// Everything of one processor that is not in guest memory.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VcpuState {
    /// Under which version it was written.
    pub version: u32,
    /// Running, halted, or waiting for its start.
    pub mp_state: kvm_mp_state,
    /// General registers.
    pub regs: kvm_regs,
    /// Segments and control registers.
    pub sregs: kvm_sregs,
    /// Floating point and vectors, in the processor's own XSAVE form, as little-endian words.
    pub xsave: Vec<u32>,
    /// Which of those are on.
    pub xcrs: kvm_xcrs,
    /// Break points.
    pub debug: kvm_debugregs,
    /// The local APIC.
    pub lapic: kvm_lapic_state,
    /// Model-specific registers.
    pub msrs: Vec<kvm_msr_entry>,
    /// Exceptions and interrupts on their way.
    pub events: kvm_vcpu_events,
}

impl VcpuState {
    /// Saves `vcpu`, which must not be running.
    ///
    /// # Errors
    /// [`StateError::Kvm`] if KVM refuses a part.
    pub fn save(vcpu: &VcpuFd, context: &SaveContext) -> Result<Self, StateError> {
        // The run state first: reading it makes KVM finish what hangs in the local APIC.
        let mp_state = vcpu.get_mp_state().map_err(get("run state"))?;
        Ok(Self {
            version: VERSION,
            mp_state,
            regs: vcpu.get_regs().map_err(get("registers"))?,
            sregs: vcpu.get_sregs().map_err(get("segments"))?,
            xsave: save_xsave(vcpu, context)?,
            xcrs: vcpu.get_xcrs().map_err(get("extended control registers"))?,
            debug: vcpu.get_debug_regs().map_err(get("debug registers"))?,
            lapic: vcpu.get_lapic().map_err(get("local APIC"))?,
            msrs: read_msrs(vcpu, &context.msrs)?,
            events: vcpu.get_vcpu_events().map_err(get("pending events"))?,
        })
    }

    /// Puts the state back. The processor's CPUID must be set already.
    ///
    /// # Errors
    /// [`StateError`]; the processor may then be half restored and must not run.
    pub fn restore(&self, vcpu: &VcpuFd, context: &SaveContext) -> Result<(), StateError> {
        if self.version != VERSION {
            return Err(StateError::Version {
                found: self.version,
            });
        }
        vcpu.set_mp_state(self.mp_state).map_err(put("run state"))?;
        vcpu.set_regs(&self.regs).map_err(put("registers"))?;
        vcpu.set_sregs(&self.sregs).map_err(put("segments"))?;
        restore_xsave(vcpu, context, &self.xsave)?;
        vcpu.set_xcrs(&self.xcrs)
            .map_err(put("extended control registers"))?;
        vcpu.set_debug_regs(&self.debug)
            .map_err(put("debug registers"))?;
        vcpu.set_lapic(&self.lapic).map_err(put("local APIC"))?;
        // The deadline counts only once the timer of the local APIC is in that mode.
        let (deadline, rest): (Vec<_>, Vec<_>) = self
            .msrs
            .iter()
            .partition(|entry| entry.index == msr::TSC_DEADLINE);
        write_msrs(vcpu, &rest)?;
        write_msrs(vcpu, &deadline)?;
        vcpu.set_vcpu_events(&self.events)
            .map_err(put("pending events"))?;
        Ok(())
    }

    /// Puts `vcpu` back to this state as a reset does: all of it, except that the time-stamp
    /// counter goes on as the VM's other counters do (KVM takes a 0 as "in step with them").
    ///
    /// # Errors
    /// As [`VcpuState::restore`].
    pub fn reset(&self, vcpu: &VcpuFd, context: &SaveContext) -> Result<(), StateError> {
        let mut state = self.clone();
        for entry in &mut state.msrs {
            if entry.index == msr::TSC {
                entry.data = 0;
            }
        }
        state.restore(vcpu, context)
    }
}

fn save_xsave(vcpu: &VcpuFd, context: &SaveContext) -> Result<Vec<u32>, StateError> {
    if context.xsave_size == 0 {
        // Before Linux 5.17 there is only the fixed form.
        let fixed = vcpu.get_xsave().map_err(get("extended state"))?;
        return Ok(fixed.region.to_vec());
    }
    let mut xsave = empty_xsave(context.xsave_words())?;
    // SAFETY: there is room for as many bytes as KVM_CAP_XSAVE2 asked for.
    unsafe { vcpu.get_xsave2(&mut xsave) }.map_err(get("extended state"))?;
    let mut words = xsave.as_fam_struct_ref().xsave.region.to_vec();
    words.extend(xsave.as_slice());
    Ok(words)
}

fn restore_xsave(vcpu: &VcpuFd, context: &SaveContext, words: &[u32]) -> Result<(), StateError> {
    let wrong_size = || StateError::Size {
        what: XSAVE,
        size: size_of_val(words),
    };
    let (region, extra) = words.split_first_chunk().ok_or_else(wrong_size)?;
    if extra.len() != context.xsave_words() {
        return Err(wrong_size());
    }
    let mut xsave = empty_xsave(extra.len())?;
    // SAFETY: only the fixed part is written, and the length stays as it is.
    unsafe { xsave.as_mut_fam_struct() }.xsave.region = *region;
    xsave.as_mut_slice().copy_from_slice(extra);
    // SAFETY: the state is as long as KVM reads for this VM.
    unsafe { vcpu.set_xsave2(&xsave) }.map_err(put("extended state"))
}

fn empty_xsave(extra_words: usize) -> Result<Xsave, StateError> {
    Xsave::new(extra_words).map_err(|_| StateError::Size {
        what: XSAVE,
        size: size_of::<kvm_xsave>() + extra_words * size_of::<u32>(),
    })
}

/// Reads registers; those that KVM does not know end the list they are in.
/// Those of `indexes` that KVM reads: it stops at the first one that it does not have, so each call
/// gives a run of readable ones and the one to leave out.
fn readable_msrs(vcpu: &VcpuFd, indexes: &[u32]) -> Result<Vec<u32>, StateError> {
    let mut readable = Vec::with_capacity(indexes.len());
    let mut rest = indexes;
    while !rest.is_empty() {
        let chunk = &rest[..rest.len().min(MSRS_AT_ONCE)];
        let count = read_msrs(vcpu, chunk)?.len();
        readable.extend(&chunk[..count]);
        rest = &rest[(count + usize::from(count < chunk.len()))..];
    }
    Ok(readable)
}

fn read_msrs(vcpu: &VcpuFd, indexes: &[u32]) -> Result<Vec<kvm_msr_entry>, StateError> {
    let mut read = Vec::with_capacity(indexes.len());
    for chunk in indexes.chunks(MSRS_AT_ONCE) {
        let wanted: Vec<_> = chunk
            .iter()
            .map(|&index| kvm_msr_entry {
                index,
                ..Default::default()
            })
            .collect();
        let mut msrs = msr_list(&wanted)?;
        let count = vcpu
            .get_msrs(&mut msrs)
            .map_err(get("model-specific registers"))?;
        read.extend(msrs.as_slice().iter().take(count));
    }
    Ok(read)
}

fn write_msrs(vcpu: &VcpuFd, entries: &[kvm_msr_entry]) -> Result<(), StateError> {
    for chunk in entries.chunks(MSRS_AT_ONCE) {
        let mut rest = chunk;
        while let Some(first) = rest.first() {
            let taken = vcpu
                .set_msrs(&msr_list(rest)?)
                .map_err(put("model-specific registers"))?;
            rest = rest.get(taken..).unwrap_or_default();
            // KVM stops at a register that it does not take. One that is 0 needs no taking: some
            // can be read and not written, and are 0 wherever the feature is off.
            match rest.split_first() {
                Some((refused, after)) if refused.data == 0 => rest = after,
                Some((refused, _)) => {
                    return Err(StateError::Msr {
                        index: refused.index,
                        value: refused.data,
                    });
                }
                None if taken == 0 => {
                    return Err(StateError::Msr {
                        index: first.index,
                        value: first.data,
                    });
                }
                None => {}
            }
        }
    }
    Ok(())
}

fn msr_list(entries: &[kvm_msr_entry]) -> Result<Msrs, StateError> {
    Msrs::from_entries(entries).map_err(|_| StateError::Size {
        what: "list of model-specific registers",
        size: size_of_val(entries),
    })
}

/// The interrupt controllers and the clock of a VM.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChipState {
    /// Under which version it was written.
    pub version: u32,
    /// PIC master, PIC slave, IOAPIC.
    pub chips: [kvm_irqchip; 3],
}

impl ChipState {
    /// Saves the controllers of `vm`, which must have an in-kernel irqchip.
    ///
    /// # Errors
    /// [`StateError::Kvm`] if KVM refuses.
    pub fn save(vm: &VmFd) -> Result<Self, StateError> {
        let chip = |chip_id| {
            let mut chip = kvm_irqchip {
                chip_id,
                ..Default::default()
            };
            vm.get_irqchip(&mut chip)
                .map_err(get("interrupt controllers"))?;
            Ok(chip)
        };
        Ok(Self {
            version: VERSION,
            chips: [
                chip(KVM_IRQCHIP_PIC_MASTER)?,
                chip(KVM_IRQCHIP_PIC_SLAVE)?,
                chip(KVM_IRQCHIP_IOAPIC)?,
            ],
        })
    }

    /// Puts the controllers back, after a snapshot or for a reset.
    ///
    /// # Errors
    /// [`StateError`] if the version or KVM says no.
    pub fn restore(&self, vm: &VmFd) -> Result<(), StateError> {
        if self.version != VERSION {
            return Err(StateError::Version {
                found: self.version,
            });
        }
        for chip in &self.chips {
            vm.set_irqchip(chip).map_err(put("interrupt controllers"))?;
        }
        Ok(())
    }
}
