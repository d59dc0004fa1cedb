//! The processor that the guest sees: the host's, as far as KVM can give it, with the guest's own
//! topology of one socket with one thread a core.
//!
//! Left out are features whose state a snapshot could not keep or which the guest can't use:
//! nested virtualisation (VMX, SVM), SGX, and the invariant TSC, without which a guest takes
//! kvmclock and so keeps its time over a pause or a move to another host.
//!
//! Sources: Intel SDM volume 2 "CPUID", AMD APM volume 3 appendix E, Linux
//! `Documentation/virt/kvm/x86/cpuid.rst`; leaf 0x40000010 is VMware's, which other hypervisors and
//! guests took over (VMware knowledge base, "Mechanisms to determine if software is running in a VMware
//! virtual machine").

use kvm_bindings::{CpuId, KVM_MAX_CPUID_ENTRIES, kvm_cpuid_entry2};
use kvm_ioctls::{Cap, Kvm};

const SIGNIFICANT_INDEX: u32 = kvm_bindings::KVM_CPUID_FLAG_SIGNIFCANT_INDEX;

/// As many processors as xAPIC ids can name, 255 being the broadcast.
pub const MAX_CPUS: u32 = 255;

mod leaf {
    pub(super) const FEATURES: u32 = 0x1;
    pub(super) const CACHES: u32 = 0x4;
    pub(super) const EXTENDED_FEATURES: u32 = 0x7;
    pub(super) const TOPOLOGY: u32 = 0xb;
    pub(super) const SGX: u32 = 0x12;
    pub(super) const TSC: u32 = 0x15;
    pub(super) const TOPOLOGY_V2: u32 = 0x1f;
    pub(super) const MAXIMUM: u32 = 0;
    pub(super) const HYPERVISOR: u32 = 0x4000_0000;
    pub(super) const TIMING: u32 = 0x4000_0010;
    pub(super) const AMD_FEATURES: u32 = 0x8000_0001;
    pub(super) const POWER: u32 = 0x8000_0007;
    pub(super) const SIZES: u32 = 0x8000_0008;
    pub(super) const SVM: u32 = 0x8000_000a;
    pub(super) const AMD_CACHES: u32 = 0x8000_001d;
    pub(super) const AMD_TOPOLOGY: u32 = 0x8000_001e;
    pub(super) const AMD_SEV: u32 = 0x8000_001f;
    pub(super) const AMD_TOPOLOGY_V2: u32 = 0x8000_0026;
}

/// The frequency of the APIC timer that KVM emulates (`APIC_BUS_CYCLE_NS` of 1).
const APIC_TIMER_HZ: u32 = 1_000_000_000;

/// A processor description that could not be made.
#[derive(Debug, thiserror::Error)]
pub enum CpuidError {
    /// A number of processors that can't be.
    #[error("{asked} processors asked for; 1 to {MAX_CPUS} are possible")]
    Count {
        /// How many were asked for.
        asked: u32,
    },
    /// KVM does not tell what it supports.
    #[error("KVM does not say which CPUID leaves it supports")]
    Supported(#[source] kvm_ioctls::Error),
    /// More leaves than KVM takes.
    #[error("{count} CPUID leaves are more than KVM takes")]
    Leaves {
        /// How many there are.
        count: usize,
    },
}

/// The processors of one guest, as far as they are the same.
#[derive(Debug, Clone)]
pub struct CpuTemplate {
    entries: Vec<kvm_cpuid_entry2>,
    topology: Topology,
}

#[derive(Debug, Clone, Copy)]
struct Topology {
    cpus: u32,
    /// Bits of the APIC id that tell the cores of the socket apart.
    core_bits: u32,
}

impl CpuTemplate {
    /// The host's processor for a guest with `cpus` of it.
    ///
    /// # Errors
    /// [`CpuidError::Count`] unless `cpus` is in 1..=[`MAX_CPUS`]; [`CpuidError::Supported`] if KVM
    /// refuses to say what it has.
    pub fn from_host(kvm: &Kvm, cpus: u32) -> Result<Self, CpuidError> {
        let supported = kvm
            .get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)
            .map_err(CpuidError::Supported)?;
        let deadline_timer = kvm.check_extension(Cap::TscDeadlineTimer);
        Self::new(supported.as_slice(), cpus, deadline_timer)
    }

    fn new(
        supported: &[kvm_cpuid_entry2],
        cpus: u32,
        deadline_timer: bool,
    ) -> Result<Self, CpuidError> {
        if !(1..=MAX_CPUS).contains(&cpus) {
            return Err(CpuidError::Count { asked: cpus });
        }
        let topology = Topology {
            cpus,
            core_bits: cpus.next_power_of_two().trailing_zeros(),
        };
        let mut entries = supported.to_vec();
        entries.retain(|entry| !is_left_out(entry.function));
        entries.extend(topology.leaves(&entries));
        for entry in &mut entries {
            filter(entry, deadline_timer);
            topology.describe(entry);
        }
        Ok(Self { entries, topology })
    }

    /// What processor `index`, counted from 0, says of itself. Its APIC id is its index.
    ///
    /// # Errors
    /// [`CpuidError::Count`] if there is no such processor; [`CpuidError::Leaves`] if KVM supports
    /// more leaves than it takes, which would be its bug.
    pub fn for_vcpu(&self, index: u32) -> Result<CpuId, CpuidError> {
        if index >= self.topology.cpus {
            return Err(CpuidError::Count { asked: index });
        }
        let mut entries = self.entries.clone();
        for entry in &mut entries {
            set_apic_id(entry, index);
        }
        let count = entries.len();
        CpuId::from_entries(&entries).map_err(|_| CpuidError::Leaves { count })
    }

    /// The same processors, which also say how fast their time-stamp counter runs: `khz`, in
    /// leaf 0x40000010 and, where the processor has that many leaves, in leaf 0x15. A guest then
    /// need not measure it against a timer whose interrupts the host may hold up.
    #[must_use]
    pub fn with_tsc_khz(mut self, khz: u32) -> Self {
        let set = |entries: &mut Vec<kvm_cpuid_entry2>, leaf: kvm_cpuid_entry2| {
            entries.retain(|entry| entry.function != leaf.function);
            entries.push(leaf);
        };
        if self.maximum(leaf::MAXIMUM) >= leaf::TSC {
            // Ticks of the counter to those of the crystal, and the crystal's frequency. A guest
            // takes that for its APIC timer's, so the crystal is KVM's APIC clock.
            let ratio = kvm_cpuid_entry2 {
                function: leaf::TSC,
                eax: APIC_TIMER_HZ / 1000,
                ebx: khz,
                ecx: APIC_TIMER_HZ,
                ..Default::default()
            };
            set(&mut self.entries, ratio);
        }
        if self.maximum(leaf::HYPERVISOR) >= leaf::HYPERVISOR {
            let timing = kvm_cpuid_entry2 {
                function: leaf::TIMING,
                eax: khz,
                ebx: APIC_TIMER_HZ / 1000,
                ..Default::default()
            };
            set(&mut self.entries, timing);
            let first = |entry: &&mut kvm_cpuid_entry2| entry.function == leaf::HYPERVISOR;
            if let Some(first) = self.entries.iter_mut().find(first) {
                first.eax = first.eax.max(leaf::TIMING);
            }
        }
        self
    }

    /// The last leaf of the range that begins at `first`; 0 if there is no such range.
    fn maximum(&self, first: u32) -> u32 {
        let entry = self.entries.iter().find(|entry| entry.function == first);
        entry.map_or(0, |entry| entry.eax)
    }

    /// Physical address bits, for [`crate::Layout::new`].
    pub fn physical_bits(&self) -> u8 {
        self.entries
            .iter()
            .find(|entry| entry.function == leaf::SIZES)
            .map_or(36, |entry| entry.eax.to_le_bytes()[0])
    }
}

/// Leaves that this module writes itself, or that no guest gets.
fn is_left_out(function: u32) -> bool {
    matches!(
        function,
        leaf::TOPOLOGY
            | leaf::TOPOLOGY_V2
            | leaf::SGX
            | leaf::SVM
            | leaf::AMD_SEV
            | leaf::AMD_TOPOLOGY_V2
    )
}

fn set(value: &mut u32, bit: u32, on: bool) {
    *value = *value & !(1 << bit) | u32::from(on) << bit;
}

fn set_field(value: &mut u32, low: u32, bits: u32, field: u32) {
    let mask = ((1 << bits) - 1) << low;
    *value = *value & !mask | (field << low) & mask;
}

fn filter(entry: &mut kvm_cpuid_entry2, deadline_timer: bool) {
    match (entry.function, entry.index) {
        (leaf::FEATURES, _) => {
            set(&mut entry.ecx, 5, false); // VMX
            set(&mut entry.ecx, 21, true); // x2APIC, always there with an in-kernel APIC
            set(&mut entry.ecx, 24, deadline_timer);
            set(&mut entry.ecx, 27, false); // OSXSAVE, which KVM keeps after CR4
            set(&mut entry.ecx, 31, true); // a hypervisor is there
        }
        (leaf::EXTENDED_FEATURES, 0) => {
            set(&mut entry.ebx, 2, false); // SGX
            set(&mut entry.ecx, 30, false); // SGX launch control
        }
        (leaf::AMD_FEATURES, _) => set(&mut entry.ecx, 2, false), // SVM
        (leaf::POWER, _) => set(&mut entry.edx, 8, false),        // invariant TSC
        _ => {}
    }
}

impl Topology {
    /// Leaf 0xb, and 0x1f where the processor goes that far: threads, then cores, then the end.
    fn leaves(self, supported: &[kvm_cpuid_entry2]) -> Vec<kvm_cpuid_entry2> {
        let maximum = supported
            .iter()
            .find(|entry| entry.function == leaf::MAXIMUM)
            .map_or(0, |entry| entry.eax);
        // (shift to the next level's id, processors at this level, type of level)
        let levels = [(0, 1, 1), (self.core_bits, self.cpus, 2), (0, 0, 0)];
        let mut leaves = Vec::new();
        for function in [leaf::TOPOLOGY, leaf::TOPOLOGY_V2] {
            if function > maximum {
                continue;
            }
            for (index, (shift, count, kind)) in (0u32..).zip(levels) {
                leaves.push(kvm_cpuid_entry2 {
                    function,
                    index,
                    flags: SIGNIFICANT_INDEX,
                    eax: shift,
                    ebx: count,
                    ecx: kind << 8 | index,
                    ..Default::default()
                });
            }
        }
        leaves
    }

    /// The number of processors, wherever else a leaf has it.
    fn describe(self, entry: &mut kvm_cpuid_entry2) {
        let ids = 1 << self.core_bits;
        match entry.function {
            leaf::FEATURES => {
                set_field(&mut entry.ebx, 16, 8, if ids > 255 { 255 } else { ids });
                set(&mut entry.edx, 28, self.cpus > 1); // HTT: the field above is valid
            }
            leaf::CACHES | leaf::AMD_CACHES => {
                let level = entry.eax >> 5 & 7;
                let sharing = if level >= 3 { ids - 1 } else { 0 };
                set_field(&mut entry.eax, 14, 12, sharing);
                if entry.function == leaf::CACHES && entry.eax & 0x1f != 0 {
                    set_field(&mut entry.eax, 26, 6, ids - 1);
                }
            }
            leaf::AMD_FEATURES => set(&mut entry.ecx, 1, self.cpus > 1), // CmpLegacy
            leaf::SIZES => {
                set_field(&mut entry.ecx, 0, 8, self.cpus - 1);
                set_field(&mut entry.ecx, 12, 4, self.core_bits);
            }
            _ => {}
        }
    }
}

fn set_apic_id(entry: &mut kvm_cpuid_entry2, id: u32) {
    match entry.function {
        leaf::FEATURES => set_field(&mut entry.ebx, 24, 8, id),
        leaf::TOPOLOGY | leaf::TOPOLOGY_V2 => entry.edx = id,
        leaf::AMD_TOPOLOGY => {
            entry.eax = id;
            entry.ebx = id & 0xff; // core id; one thread a core
            entry.ecx = 0; // one node
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn supported() -> Vec<kvm_cpuid_entry2> {
        let entry = |function, eax, ecx| kvm_cpuid_entry2 {
            function,
            eax,
            ecx,
            ..Default::default()
        };
        vec![
            entry(leaf::MAXIMUM, 0x1f, 0),
            entry(leaf::FEATURES, 0, 1 << 5 | 1 << 27),
            entry(leaf::CACHES, 3 << 5 | 3, 0),
            entry(leaf::TOPOLOGY, 99, 99),
            entry(leaf::AMD_FEATURES, 0, 1 << 2),
            entry(leaf::SIZES, 0x3030, 0),
            entry(leaf::AMD_TOPOLOGY, 77, 77),
            entry(leaf::HYPERVISOR, 0x4000_0001, 0),
        ]
    }

    fn find(cpuid: &CpuId, function: u32, index: u32) -> kvm_cpuid_entry2 {
        *cpuid
            .as_slice()
            .iter()
            .find(|entry| entry.function == function && entry.index == index)
            .unwrap()
    }

    #[test]
    fn each_processor_has_its_own_apic_id() {
        let template = CpuTemplate::new(&supported(), 4, true).unwrap();
        let cpuid = template.for_vcpu(3).unwrap();
        assert_eq!(find(&cpuid, leaf::FEATURES, 0).ebx >> 24, 3);
        assert_eq!(find(&cpuid, leaf::TOPOLOGY, 0).edx, 3);
        assert_eq!(find(&cpuid, leaf::AMD_TOPOLOGY, 0).eax, 3);
    }

    #[test]
    fn three_cores_take_two_bits_of_the_id() {
        let template = CpuTemplate::new(&supported(), 3, true).unwrap();
        let cores = find(&template.for_vcpu(0).unwrap(), leaf::TOPOLOGY, 1);
        assert_eq!((cores.eax, cores.ebx, cores.ecx), (2, 3, 0x201));
    }

    #[test]
    fn nested_virtualisation_is_left_out() {
        let template = CpuTemplate::new(&supported(), 1, true).unwrap();
        let cpuid = template.for_vcpu(0).unwrap();
        assert_eq!(find(&cpuid, leaf::FEATURES, 0).ecx & 1 << 5, 0);
        assert_eq!(find(&cpuid, leaf::AMD_FEATURES, 0).ecx & 1 << 2, 0);
    }

    #[test]
    fn the_deadline_timer_is_there_only_if_kvm_has_it() {
        for there in [false, true] {
            let template = CpuTemplate::new(&supported(), 1, there).unwrap();
            let features = find(&template.for_vcpu(0).unwrap(), leaf::FEATURES, 0);
            assert_eq!(features.ecx & 1 << 24 != 0, there);
        }
    }

    #[test]
    fn the_last_cache_is_shared_by_all_cores() {
        let template = CpuTemplate::new(&supported(), 2, true).unwrap();
        let cache = find(&template.for_vcpu(0).unwrap(), leaf::CACHES, 0);
        assert_eq!((cache.eax >> 14 & 0xfff, cache.eax >> 26), (1, 1));
    }

    #[test]
    fn physical_bits_come_from_the_processor() {
        let template = CpuTemplate::new(&supported(), 1, true).unwrap();
        assert_eq!(template.physical_bits(), 48);
    }

    #[test]
    fn the_speed_of_the_time_stamp_counter_is_told() {
        let template = CpuTemplate::new(&supported(), 1, true).unwrap();
        let cpuid = template.with_tsc_khz(2_400_000).for_vcpu(0).unwrap();

        let (tsc, timing) = (find(&cpuid, leaf::TSC, 0), find(&cpuid, leaf::TIMING, 0));
        let hz = u64::from(tsc.ecx) * u64::from(tsc.ebx) / u64::from(tsc.eax);
        assert_eq!(hz, 2_400_000_000);
        assert_eq!(timing.eax, 2_400_000);
        assert!(find(&cpuid, leaf::HYPERVISOR, 0).eax >= leaf::TIMING);
    }

    #[test]
    fn a_processor_of_few_leaves_gets_no_more() {
        let mut leaves = supported();
        leaves[0].eax = 0xd;
        let template = CpuTemplate::new(&leaves, 1, true).unwrap();
        let cpuid = template.with_tsc_khz(2_400_000).for_vcpu(0).unwrap();

        let has = |function| cpuid.as_slice().iter().any(|e| e.function == function);
        assert!(!has(leaf::TSC) && has(leaf::TIMING));
    }

    #[test]
    fn no_processor_and_too_many_are_refused() {
        for asked in [0, 256] {
            let error = CpuTemplate::new(&supported(), asked, true).unwrap_err();
            assert!(matches!(error, CpuidError::Count { asked: told } if told == asked));
        }
    }
}
