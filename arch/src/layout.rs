//! The one table of the guest's physical address space, as a q35 machine has it.
//!
//! ```text
//! 0x0000_0000  RAM, up to the hole: all of it below 2.75 GiB, or else 2 GiB
//!              (0xa0000..0xc0000 is the VGA window, 0xc0000..0x10_0000 shadows ROMs)
//! 0xb000_0000  ECAM, 256 MiB
//! 0xc000_0000  PCI windows, 32-bit (and from the end of RAM to ECAM)
//! 0xfec0_0000  IOAPIC
//! 0xfee0_0000  LAPIC
//! 0xfeff_b000  the VM generation id (1 page)
//! 0xfeff_c000  KVM's identity map and task state (4 pages)
//! ...          firmware, ending at 4 GiB
//! 4 GiB        the rest of RAM
//! then         PCI window, 64-bit, up to the processor's physical limit
//! ```
//!
//! All sizes and addresses are bytes.

/// One kibibyte.
pub const KIB: u64 = 1 << 10;
/// One mebibyte.
pub const MIB: u64 = 1 << 20;
/// One gibibyte.
pub const GIB: u64 = 1 << 30;

/// Where the VGA window starts: an access goes to the VGA core, not to RAM.
pub const VGA_START: u64 = 0xa_0000;
/// The VGA window's size, up to the option ROMs at 0xc0000.
pub const VGA_SIZE: u64 = 128 * KIB;
/// The end of conventional RAM that a direct boot hands over: above it an EBDA could be.
pub const EBDA_START: u64 = 0x9_fc00;
/// The end of the first mebibyte, where extended RAM starts.
pub const HIGH_RAM_START: u64 = MIB;
/// Where [`crate::boot`]'s callers put ACPI tables when no firmware does it.
pub const ACPI_START: u64 = 0xe_0000;
/// Room for those tables, up to [`SMBIOS_START`].
pub const ACPI_SIZE: u64 = 64 * KIB;
/// Where SMBIOS goes when no firmware does it: guests search 0xf0000..0x100000.
pub const SMBIOS_START: u64 = 0xf_0000;
/// Room for SMBIOS.
pub const SMBIOS_SIZE: u64 = 64 * KIB;
/// PCI Express configuration space, 1 MiB for each of 256 buses.
pub const ECAM_START: u64 = 0xb000_0000;
/// The size of [`ECAM_START`]'s window.
pub const ECAM_SIZE: u64 = 256 * MIB;
/// RAM of this size or more leaves room for the 32-bit windows by ending at [`LOW_RAM_SPLIT`].
pub const LOW_RAM_MAX: u64 = ECAM_START;
/// Where low RAM ends when the guest has more than fits below ECAM.
pub const LOW_RAM_SPLIT: u64 = 2 * GIB;
/// The main 32-bit PCI window starts where ECAM ends; SeaBIOS places BARs from here on q35.
pub const PCI32_START: u64 = ECAM_START + ECAM_SIZE;
/// The 32-bit PCI windows end here, where the interrupt controllers start.
pub const PCI32_END: u64 = IOAPIC_START;
/// The IOAPIC's registers.
pub const IOAPIC_START: u64 = 0xfec0_0000;
/// The page of the IOAPIC.
pub const IOAPIC_SIZE: u64 = 4 * KIB;
/// Each processor's local APIC, and the target of its MSIs.
pub const LAPIC_START: u64 = 0xfee0_0000;
/// The window of MSI addresses.
pub const LAPIC_SIZE: u64 = MIB;
/// The page with the VM generation id, which only the monitor writes.
pub const VMGENID_START: u64 = 0xfeff_b000;
/// The size of that page.
pub const VMGENID_SIZE: u64 = 4 * KIB;
/// `KVM_SET_IDENTITY_MAP_ADDR`: one page that KVM needs to run real mode on Intel processors.
pub const KVM_IDENTITY_MAP: u64 = 0xfeff_c000;
/// `KVM_SET_TSS_ADDR`: three pages, for the same reason.
pub const KVM_TSS: u64 = 0xfeff_d000;
/// Those four pages together; no guest may take them.
pub const KVM_PRIVATE_SIZE: u64 = 16 * KIB;
/// Firmware may start here at the lowest and ends at 4 GiB.
pub const FIRMWARE_START: u64 = 0xff00_0000;
/// The end of the 32-bit address space, where RAM goes on.
pub const FOUR_GIB: u64 = 4 * GIB;

/// The smallest guest: enough for the first mebibyte's furniture and a boot sector.
pub const MEMORY_MIN: u64 = 2 * MIB;
/// Memory comes in multiples of this.
pub const MEMORY_STEP: u64 = MIB;

/// A piece of the guest's physical address space, never empty, never past 2^64.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AddressRange {
    start: u64,
    size: u64,
}

impl AddressRange {
    /// `size` bytes from `start`, or nothing if that is empty or would wrap.
    pub const fn new(start: u64, size: u64) -> Option<Self> {
        if size == 0 || start.checked_add(size).is_none() {
            return None;
        }
        Some(Self { start, size })
    }

    /// For the constants of this table, which are in order by construction.
    const fn between(start: u64, end: u64) -> Self {
        Self {
            start,
            size: end.saturating_sub(start),
        }
    }

    /// The first byte.
    pub const fn start(&self) -> u64 {
        self.start
    }

    /// How many bytes.
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// The first byte after it.
    pub const fn end(&self) -> u64 {
        self.start + self.size
    }

    /// The last byte in it.
    pub const fn last(&self) -> u64 {
        self.end() - 1
    }

    /// Whether `address` is in it.
    pub const fn contains(&self, address: u64) -> bool {
        address >= self.start && address < self.end()
    }
}

/// What an entry of the memory map is, by its number in ACPI 6.5 table 15.2.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum E820Kind {
    /// RAM, the guest's to use.
    Ram = 1,
    /// Nothing that a guest may use.
    Reserved = 2,
    /// ACPI tables that the guest must leave alone, the FACS among them.
    AcpiNvs = 4,
}

/// One line of the memory map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct E820Entry {
    /// Where.
    pub range: AddressRange,
    /// What.
    pub kind: E820Kind,
}

/// A layout that can't be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LayoutError {
    /// Too little to boot anything.
    #[error("a guest needs at least {MEMORY_MIN} bytes of memory, not {asked}")]
    TooSmall {
        /// Bytes asked for.
        asked: u64,
    },
    /// Not a whole number of mebibytes.
    #[error("guest memory comes in multiples of {MEMORY_STEP} bytes, and {asked} is not one")]
    Unaligned {
        /// Bytes asked for.
        asked: u64,
    },
    /// RAM and a 64-bit PCI window don't fit into what the processor can address.
    #[error(
        "{asked} bytes of memory need more than the {bits} physical address bits of this host; \
         at most {most} fit"
    )]
    TooBig {
        /// Bytes asked for.
        asked: u64,
        /// The processor's physical address bits.
        bits: u8,
        /// Bytes that would fit.
        most: u64,
    },
}

/// Where everything is in one guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    low_end: u64,
    high_size: u64,
    physical_bits: u8,
}

impl Layout {
    /// The layout for `memory` bytes on a processor with `physical_bits` address bits (CPUID
    /// 0x8000_0008, EAX 7:0; see [`crate::cpuid::CpuTemplate::physical_bits`]).
    ///
    /// # Errors
    /// [`LayoutError`], if `memory` is too small, not a multiple of 1 MiB, or too much.
    pub fn new(memory: u64, physical_bits: u8) -> Result<Self, LayoutError> {
        if memory < MEMORY_MIN {
            return Err(LayoutError::TooSmall { asked: memory });
        }
        if !memory.is_multiple_of(MEMORY_STEP) {
            return Err(LayoutError::Unaligned { asked: memory });
        }
        // 52 is the architecture's limit; fewer than 36 no 64-bit processor has.
        let physical_bits = physical_bits.clamp(36, 52);
        let most = (1u64 << physical_bits) - FOUR_GIB - GIB + LOW_RAM_SPLIT;
        if memory > most {
            return Err(LayoutError::TooBig {
                asked: memory,
                bits: physical_bits,
                most,
            });
        }
        let low_end = if memory < LOW_RAM_MAX {
            memory
        } else {
            LOW_RAM_SPLIT
        };
        Ok(Self {
            low_end,
            high_size: memory - low_end,
            physical_bits,
        })
    }

    /// All RAM of the guest.
    pub fn memory(&self) -> u64 {
        self.low_end + self.high_size
    }

    /// Where RAM below 4 GiB ends.
    pub fn low_end(&self) -> u64 {
        self.low_end
    }

    /// RAM from 4 GiB on; 0 if there is none.
    pub fn high_size(&self) -> u64 {
        self.high_size
    }

    /// The address bits this layout was made for.
    pub fn physical_bits(&self) -> u8 {
        self.physical_bits
    }

    /// RAM as [`crate::memory`] maps it: below 4 GiB, and above if there is any.
    pub fn ram(&self) -> Vec<AddressRange> {
        let mut ranges = vec![AddressRange::between(0, self.low_end)];
        ranges.extend(AddressRange::new(FOUR_GIB, self.high_size));
        ranges
    }

    /// RAM as KVM gets it, in memory slots: without the VGA window, whose accesses must exit.
    pub fn memory_slots(&self) -> Vec<AddressRange> {
        let mut ranges = vec![
            AddressRange::between(0, VGA_START),
            AddressRange::between(VGA_START + VGA_SIZE, self.low_end),
        ];
        ranges.extend(AddressRange::new(FOUR_GIB, self.high_size));
        ranges
    }

    /// PCI Express configuration space where firmware and tables expect it.
    pub fn ecam(&self) -> AddressRange {
        AddressRange::between(ECAM_START, ECAM_START + ECAM_SIZE)
    }

    /// The windows for 32-bit BARs: the main one first, then what is free between RAM and ECAM.
    pub fn pci32(&self) -> Vec<AddressRange> {
        let mut ranges = vec![AddressRange::between(PCI32_START, PCI32_END)];
        ranges.extend(AddressRange::new(self.low_end, ECAM_START - self.low_end));
        ranges
    }

    /// The window for 64-bit BARs, from the gibibyte after RAM to the processor's limit.
    pub fn pci64(&self) -> AddressRange {
        let start = (FOUR_GIB + self.high_size).next_multiple_of(GIB);
        AddressRange::between(start, 1 << self.physical_bits)
    }

    /// The memory map as firmware gets it: RAM, and what it could not know to be taken.
    pub fn e820_for_firmware(&self) -> Vec<E820Entry> {
        let mut map: Vec<_> = self
            .ram()
            .into_iter()
            .map(|range| E820Entry {
                range,
                kind: E820Kind::Ram,
            })
            .collect();
        map.push(private());
        map
    }

    /// The memory map as a kernel gets it that boots without firmware.
    pub fn e820_for_kernel(&self) -> Vec<E820Entry> {
        let entry = |start, end, kind| E820Entry {
            range: AddressRange::between(start, end),
            kind,
        };
        let mut map = vec![
            entry(0, EBDA_START, E820Kind::Ram),
            entry(EBDA_START, VGA_START, E820Kind::Reserved),
            entry(ACPI_START, ACPI_START + ACPI_SIZE, E820Kind::AcpiNvs),
            entry(SMBIOS_START, HIGH_RAM_START, E820Kind::Reserved),
            entry(HIGH_RAM_START, self.low_end, E820Kind::Ram),
            E820Entry {
                range: self.ecam(),
                kind: E820Kind::Reserved,
            },
            private(),
        ];
        map.extend(
            AddressRange::new(FOUR_GIB, self.high_size).map(|range| E820Entry {
                range,
                kind: E820Kind::Ram,
            }),
        );
        map
    }
}

/// The generation id and KVM's pages, which follow on each other.
fn private() -> E820Entry {
    E820Entry {
        range: AddressRange::between(VMGENID_START, KVM_IDENTITY_MAP + KVM_PRIVATE_SIZE),
        kind: E820Kind::Reserved,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(memory: u64) -> Layout {
        Layout::new(memory, 48).unwrap()
    }

    #[test]
    fn memory_below_the_hole_stays_low() {
        for memory in [128 * MIB, 2 * GIB, 2 * GIB + 512 * MIB] {
            let layout = layout(memory);
            assert_eq!((layout.low_end(), layout.high_size()), (memory, 0));
        }
    }

    #[test]
    fn memory_past_the_hole_goes_on_above_four_gibibytes() {
        for memory in [2816 * MIB, 3 * GIB, 4 * GIB, 6 * GIB] {
            let layout = layout(memory);
            let ram = layout.ram();
            assert_eq!(ram[0].end(), LOW_RAM_SPLIT);
            assert_eq!(ram[1].start(), FOUR_GIB);
            assert_eq!(ram.iter().map(AddressRange::size).sum::<u64>(), memory);
        }
    }

    #[test]
    fn no_two_ranges_overlap() {
        for memory in [128 * MIB, 2 * GIB, 3 * GIB, 4 * GIB, 6 * GIB] {
            let layout = layout(memory);
            let mut all = layout.memory_slots();
            all.push(layout.ecam());
            all.extend(layout.pci32());
            all.push(layout.pci64());
            all.push(AddressRange::between(
                IOAPIC_START,
                IOAPIC_START + IOAPIC_SIZE,
            ));
            all.push(AddressRange::between(LAPIC_START, LAPIC_START + LAPIC_SIZE));
            all.push(private().range);
            all.push(AddressRange::between(FIRMWARE_START, FOUR_GIB));
            all.sort_by_key(AddressRange::start);
            for pair in all.windows(2) {
                assert!(pair[0].end() <= pair[1].start(), "{memory:#x}: {pair:x?}");
            }
        }
    }

    #[test]
    fn slots_leave_the_vga_window_out() {
        let slots = layout(128 * MIB).memory_slots();
        assert!(slots.iter().all(|slot| !slot.contains(VGA_START)));
        assert!(
            slots
                .iter()
                .all(|slot| !slot.contains(VGA_START + VGA_SIZE - 1))
        );
        assert!(slots.iter().any(|slot| slot.contains(VGA_START + VGA_SIZE)));
    }

    #[test]
    fn the_firmware_map_shows_all_of_six_gibibytes() {
        let ram: u64 = layout(6 * GIB)
            .e820_for_firmware()
            .iter()
            .filter(|entry| entry.kind == E820Kind::Ram)
            .map(|entry| entry.range.size())
            .sum();
        assert_eq!(ram, 6 * GIB);
    }

    #[test]
    fn the_kernel_map_is_sorted_and_keeps_tables_out_of_ram() {
        let map = layout(6 * GIB).e820_for_kernel();
        for pair in map.windows(2) {
            assert!(pair[0].range.end() <= pair[1].range.start());
        }
        let tables = map.iter().find(|entry| entry.range.contains(ACPI_START));
        assert_eq!(tables.unwrap().kind, E820Kind::AcpiNvs);
    }

    #[test]
    fn the_wide_pci_window_starts_after_ram_and_ends_at_the_limit() {
        let window = Layout::new(6 * GIB, 40).unwrap().pci64();
        assert_eq!((window.start(), window.end()), (8 * GIB, 1 << 40));
    }

    #[test]
    fn impossible_sizes_are_refused_with_their_numbers() {
        assert_eq!(
            Layout::new(MIB, 48),
            Err(LayoutError::TooSmall { asked: MIB })
        );
        let asked = 3 * MIB + 1;
        assert_eq!(
            Layout::new(asked, 48),
            Err(LayoutError::Unaligned { asked })
        );
        assert!(matches!(
            Layout::new(1 << 40, 39),
            Err(LayoutError::TooBig { bits: 39, .. })
        ));
    }
}
