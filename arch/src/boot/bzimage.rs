//! Linux bzImage by the 64-bit boot protocol (`Documentation/arch/x86/boot.rst`, section
//! "64-bit BOOT PROTOCOL"; offsets from `zero-page.rst`).

use linux_loader::loader::bootparam::{
    CAN_USE_HEAP, KEEP_SEGMENTS, LOADED_HIGH, XLF_KERNEL_64, boot_e820_entry, boot_params,
    setup_header,
};
use vm_memory::ByteValued;

use super::{
    BOOT_PARAMS, BootError, CMDLINE, DirectBoot, Image, Part, check_extent, copy, place_cmdline,
    place_initrd, read_into, read_vec, size_of_image, write,
};
use crate::layout::{HIGH_RAM_START, Layout};
use crate::memory::GuestMemory;
use crate::regs::Entry;

/// Where the setup header starts in the file and in the boot parameters.
pub const HEADER_OFFSET: u64 = 0x1f1;
/// The protocol that has 64-bit entries: 2.12, of Linux 3.8.
const VERSION_64: u16 = 0x20c;
/// The 64-bit entry from the start of the protected-mode kernel.
const ENTRY_64: u64 = 0x200;
const SECTOR: u64 = 512;
/// "undefined boot loader", for those without a number of their own.
const LOADER: u8 = 0xff;

/// Loads the bzImage that `boot` names.
///
/// # Errors
/// [`BootError`], as its variants say.
pub fn load<F: Image>(
    boot: &mut DirectBoot<'_, F>,
    memory: &GuestMemory,
    layout: &Layout,
) -> Result<Entry, BootError> {
    let size = size_of_image(boot.kernel, Part::Kernel)?;
    let mut header = read_header(boot.kernel, size)?;

    let sectors = match header.setup_sects {
        0 => 4,
        sectors => u64::from(sectors),
    };
    let setup_size = (sectors + 1) * SECTOR;
    let payload = u64::from(header.syssize) * 16;
    // Signers append to the file, so it may be longer than the kernel, but not shorter.
    check_extent("protected-mode kernel", setup_size, payload, size)?;
    if payload <= ENTRY_64 {
        return Err(BootError::Field {
            field: "syssize (in 16 bytes)",
            value: header.syssize.into(),
            allowed: "more than 0x20, where the 64-bit entry is",
        });
    }

    // A kernel loaded below the address it prefers moves itself there and unpacks itself.
    let start = HIGH_RAM_START;
    let unpacked = header
        .pref_address
        .max(start)
        .saturating_add(header.init_size.into());
    let end = unpacked.max(start.saturating_add(payload));
    if end > layout.low_end() {
        return Err(BootError::KernelPlace {
            start,
            end,
            low: "0x100000",
            high: layout.low_end(),
        });
    }
    copy(
        boot.kernel,
        Part::Kernel,
        (setup_size, payload),
        memory,
        start,
    )?;
    place_cmdline(memory, boot.cmdline, header.cmdline_size.into())?;

    header.type_of_loader = LOADER;
    header.loadflags = header.loadflags & !(CAN_USE_HEAP | KEEP_SEGMENTS) | LOADED_HIGH;
    header.code32_start = low(start);
    header.cmd_line_ptr = low(CMDLINE);
    header.setup_data = 0;
    header.ramdisk_image = 0;
    header.ramdisk_size = 0;
    if let Some(initrd) = boot.initrd.as_deref_mut() {
        let limit = layout.low_end().min(u64::from(header.initrd_addr_max) + 1);
        let (address, size) = place_initrd(initrd, memory, end, limit)?;
        header.ramdisk_image = low(address);
        header.ramdisk_size = low(size);
    }
    let mut params = boot_params {
        hdr: header,
        acpi_rsdp_addr: boot.rsdp.unwrap_or(0),
        ..Default::default()
    };
    fill_e820(&mut params, layout);
    write(memory, BOOT_PARAMS, params.as_slice())?;

    Ok(Entry::Linux64 {
        rip: start + ENTRY_64,
        boot_params: BOOT_PARAMS,
    })
}

/// Addresses and sizes below the end of low RAM, which is below 4 GiB.
fn low(address: u64) -> u32 {
    u32::try_from(address).unwrap_or(u32::MAX)
}

fn read_header<F: Image>(kernel: &mut F, size: u64) -> Result<setup_header, BootError> {
    check_extent("setup header", HEADER_OFFSET, 0x206 - HEADER_OFFSET, size)?;
    // The header ends where the jump at its start goes: older kernels have a shorter one.
    let jump = read_vec(kernel, 0x201, 1)?;
    let length = 0x202 + u64::from(jump.first().copied().unwrap_or(0)) - HEADER_OFFSET;
    check_extent("setup header", HEADER_OFFSET, length, size)?;
    let mut header = setup_header::default();
    let bytes = header.as_mut_slice();
    let known = usize::try_from(length).unwrap_or(0).min(bytes.len());
    if let Some(bytes) = bytes.get_mut(..known) {
        read_into(kernel, HEADER_OFFSET, bytes)?;
    }

    let version = header.version;
    if version < VERSION_64 {
        return Err(BootError::Field {
            field: "boot protocol version",
            value: version.into(),
            allowed: "0x20c or later (Linux 3.8)",
        });
    }
    let flags = header.xloadflags;
    if flags & XLF_KERNEL_64 == 0 {
        return Err(BootError::Field {
            field: "xloadflags",
            value: flags.into(),
            allowed: "with bit 0 set: a 64-bit kernel",
        });
    }
    let flags = header.loadflags;
    if flags & LOADED_HIGH == 0 {
        return Err(BootError::Field {
            field: "loadflags",
            value: flags.into(),
            allowed: "with bit 0 set: a bzImage, not a zImage",
        });
    }
    Ok(header)
}

fn fill_e820(params: &mut boot_params, layout: &Layout) {
    let map = layout.e820_for_kernel();
    params.e820_entries = u8::try_from(map.len()).unwrap_or(u8::MAX);
    let mut table = params.e820_table;
    for (slot, entry) in table.iter_mut().zip(map) {
        *slot = boot_e820_entry {
            addr: entry.range.start(),
            size: entry.range.size(),
            r#type: entry.kind as u32,
        };
    }
    params.e820_table = table;
}
