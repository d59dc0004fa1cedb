//! ELF kernels by PVH (`xen/docs/misc/pvh.pandoc`): a note names a 32-bit entry, and EBX points
//! to a start info with command line, modules, memory map and ACPI root pointer.

use linux_loader::elf::{ELFCLASS64, ELFDATA2LSB, Elf64_Ehdr, Elf64_Phdr, PT_LOAD, PT_NOTE};
use linux_loader::loader::elf::start_info::{
    hvm_memmap_table_entry, hvm_modlist_entry, hvm_start_info,
};
use vm_memory::ByteValued;

use super::{
    BootError, CMDLINE, CMDLINE_MAX, DirectBoot, Image, Part, START_INFO, check_extent, copy,
    place_cmdline, place_initrd, read_into, read_vec, size_of_image, write, zero,
};
use crate::layout::{HIGH_RAM_START, Layout};
use crate::memory::GuestMemory;
use crate::regs::Entry;

const MAGIC: u32 = 0x336e_c578;
const VERSION: u32 = 1;
const NOTE_NAME: &[u8] = b"Xen\0";
const NOTE_PHYS32_ENTRY: u32 = 18;
/// A kernel has a handful of segments; more than this is no kernel.
const MAX_SEGMENTS: u16 = 128;
/// Notes take some hundred bytes.
const MAX_NOTES: u64 = 1 << 20;

const MODULES: u64 = START_INFO + 0x40;
const MEMORY_MAP: u64 = START_INFO + 0x100;

/// Loads the ELF file that `boot` names.
///
/// # Errors
/// [`BootError`], as its variants say.
pub fn load<F: Image>(
    boot: &mut DirectBoot<'_, F>,
    memory: &GuestMemory,
    layout: &Layout,
) -> Result<Entry, BootError> {
    let size = size_of_image(boot.kernel, Part::Kernel)?;
    let segments = read_segments(boot.kernel, size)?;
    let eip = find_entry(boot.kernel, &segments, size)?;
    let end = load_segments(boot.kernel, &segments, size, memory, layout)?;

    place_cmdline(memory, boot.cmdline, CMDLINE_MAX)?;
    let mut info = hvm_start_info {
        magic: MAGIC,
        version: VERSION,
        cmdline_paddr: CMDLINE,
        rsdp_paddr: boot.rsdp.unwrap_or(0),
        memmap_paddr: MEMORY_MAP,
        ..Default::default()
    };
    if let Some(initrd) = boot.initrd.as_deref_mut() {
        let (paddr, size) = place_initrd(initrd, memory, end, layout.low_end())?;
        let module = hvm_modlist_entry {
            paddr,
            size,
            ..Default::default()
        };
        write(memory, MODULES, module.as_slice())?;
        info.nr_modules = 1;
        info.modlist_paddr = MODULES;
    }
    let mut address = MEMORY_MAP;
    for entry in layout.e820_for_kernel() {
        let line = hvm_memmap_table_entry {
            addr: entry.range.start(),
            size: entry.range.size(),
            type_: entry.kind as u32,
            reserved: 0,
        };
        write(memory, address, line.as_slice())?;
        address += size_of::<hvm_memmap_table_entry>() as u64;
        info.memmap_entries += 1;
    }
    write(memory, START_INFO, info.as_slice())?;

    Ok(Entry::Pvh {
        eip,
        start_info: START_INFO as u32,
    })
}

fn read_segments<F: Image>(kernel: &mut F, size: u64) -> Result<Vec<Elf64_Phdr>, BootError> {
    let mut header = Elf64_Ehdr::default();
    check_extent("ELF header", 0, size_of::<Elf64_Ehdr>() as u64, size)?;
    read_into(kernel, 0, header.as_mut_slice())?;
    let demand = |good, field, value: u64, allowed| {
        if good {
            Ok(())
        } else {
            Err(BootError::Field {
                field,
                value,
                allowed,
            })
        }
    };
    let [_, _, _, _, class, order, ..] = header.e_ident;
    demand(
        u32::from(class) == u32::from(ELFCLASS64),
        "ELF class",
        class.into(),
        "2, a 64-bit file",
    )?;
    demand(
        u32::from(order) == u32::from(ELFDATA2LSB),
        "ELF byte order",
        order.into(),
        "1, little endian",
    )?;
    let entry_size = size_of::<Elf64_Phdr>();
    demand(
        usize::from(header.e_phentsize) == entry_size,
        "size of program headers",
        header.e_phentsize.into(),
        "0x38",
    )?;
    demand(
        header.e_phnum > 0 && header.e_phnum <= MAX_SEGMENTS,
        "number of program headers",
        header.e_phnum.into(),
        "1 to 128",
    )?;
    let table_size = u64::from(header.e_phnum) * entry_size as u64;
    check_extent("program header table", header.e_phoff, table_size, size)?;

    let mut segments = vec![Elf64_Phdr::default(); usize::from(header.e_phnum)];
    for (offset, segment) in (header.e_phoff..).step_by(entry_size).zip(&mut segments) {
        read_into(kernel, offset, segment.as_mut_slice())?;
    }
    Ok(segments)
}

/// The entry that the first fitting note names.
fn find_entry<F: Image>(
    kernel: &mut F,
    segments: &[Elf64_Phdr],
    size: u64,
) -> Result<u32, BootError> {
    for segment in segments.iter().filter(|segment| segment.p_type == PT_NOTE) {
        check_extent("note segment", segment.p_offset, segment.p_filesz, size)?;
        if segment.p_filesz > MAX_NOTES {
            return Err(BootError::Field {
                field: "size of notes",
                value: segment.p_filesz,
                allowed: "at most 0x100000",
            });
        }
        let notes = read_vec(kernel, segment.p_offset, segment.p_filesz)?;
        let align = if segment.p_align == 8 { 8 } else { 4 };
        if let Some(entry) = phys32_entry(&notes, align) {
            return Ok(entry);
        }
    }
    Err(BootError::NoPvhEntry)
}

fn phys32_entry(mut notes: &[u8], align: usize) -> Option<u32> {
    let word = |bytes: &[u8], index: usize| {
        let bytes = bytes.get(index * 4..)?.first_chunk()?;
        Some(u32::from_le_bytes(*bytes))
    };
    let padded = |size: u32| usize::try_from(size).ok()?.checked_next_multiple_of(align);
    loop {
        let (name_size, desc_size, kind) = (word(notes, 0)?, word(notes, 1)?, word(notes, 2)?);
        let name_end = 12usize.checked_add(padded(name_size)?)?;
        let desc_end = name_end.checked_add(padded(desc_size)?)?;
        let name = notes.get(12..12usize.checked_add(usize::try_from(name_size).ok()?)?)?;
        if kind == NOTE_PHYS32_ENTRY && name == NOTE_NAME {
            // 4 bytes by the definition, 8 from 64-bit assemblers; the upper half is 0.
            return word(notes.get(name_end..)?, 0);
        }
        notes = notes.get(desc_end..)?;
    }
}

/// Copies every loaded segment and gives the first address after them.
fn load_segments<F: Image>(
    kernel: &mut F,
    segments: &[Elf64_Phdr],
    size: u64,
    memory: &GuestMemory,
    layout: &Layout,
) -> Result<u64, BootError> {
    let mut kernel_end = HIGH_RAM_START;
    for segment in segments.iter().filter(|segment| segment.p_type == PT_LOAD) {
        let (start, in_file, in_memory) = (segment.p_paddr, segment.p_filesz, segment.p_memsz);
        if in_memory == 0 {
            continue;
        }
        check_extent("segment", segment.p_offset, in_file, size)?;
        if in_memory < in_file {
            return Err(BootError::Field {
                field: "segment's size in memory",
                value: in_memory,
                allowed: "at least its size in the file",
            });
        }
        let end = start.saturating_add(in_memory);
        if start < HIGH_RAM_START || end > layout.low_end() {
            return Err(BootError::KernelPlace {
                start,
                end,
                low: "0x100000",
                high: layout.low_end(),
            });
        }
        copy(
            kernel,
            Part::Kernel,
            (segment.p_offset, in_file),
            memory,
            start,
        )?;
        zero(memory, start + in_file, in_memory - in_file)?;
        kernel_end = kernel_end.max(end);
    }
    Ok(kernel_end)
}
