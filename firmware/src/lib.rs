//! What guest firmware, and a kernel booted without it, expects to find.
//!
//! - [`fw_cfg`]: the device through which firmware asks its monitor;
//! - [`acpi`]: tables, handed to firmware or placed in memory, from one builder;
//! - [`smbios`]: who made the machine;
//! - [`place`]: where a firmware image goes.

pub mod acpi;
pub mod fw_cfg;
pub mod place;
pub mod smbios;
