//! The x86-64 machine: where things are in the guest's physical memory, what its processors say
//! of themselves, and how a guest is entered.
//!
//! - [`layout`]: the one table of the physical address space, for q35;
//! - [`memory`]: guest memory after that table;
//! - [`cpuid`]: the processor that the guest sees;
//! - [`regs`] and [`msr`]: registers at the moment of entry;
//! - [`boot`]: kernels without firmware, by the Linux 64-bit and the PVH protocols;
//! - [`clocks`]: the clocks that KVM keeps for the guest, over a pause;
//! - [`state`]: what a processor and the interrupt controllers keep across a snapshot.

pub mod boot;
pub mod clocks;
pub mod cpuid;
pub mod layout;
pub mod memory;
pub mod msr;
pub mod regs;
pub mod state;

pub use layout::{AddressRange, E820Entry, E820Kind, Layout, LayoutError};
pub use memory::{Backing, GuestMemory, MemoryError};
pub use regs::{Entry, EntryError};
