use std::io::Cursor;

use linux_loader::loader::elf::start_info::hvm_start_info;
use proptest::prelude::*;
use vm_memory::ByteValued;

use super::*;
use crate::layout::MIB;
use crate::memory::{Backing, create};

const MEMORY: u64 = 32 * MIB;

fn machine() -> (GuestMemory, Layout) {
    let layout = Layout::new(MEMORY, 48).unwrap();
    (create(&layout, Backing::Anonymous).unwrap(), layout)
}

/// A bzImage of two setup sectors and 4 KiB of kernel.
fn bzimage() -> Vec<u8> {
    let mut image = vec![0; 1024 + 4096];
    let mut put = |offset: usize, bytes: &[u8]| {
        image[offset..offset + bytes.len()].copy_from_slice(bytes);
    };
    put(0x1f1, &[1]); // setup_sects
    put(0x1f4, &256u32.to_le_bytes()); // syssize
    put(0x1fe, &[0x55, 0xaa, 0xeb, 0x6a]); // boot_flag, jump
    put(0x202, b"HdrS");
    put(0x206, &0x20fu16.to_le_bytes()); // version
    put(0x211, &[1]); // loadflags
    put(0x22c, &0x7fff_ffffu32.to_le_bytes()); // initrd_addr_max
    put(0x236, &1u16.to_le_bytes()); // xloadflags
    put(0x238, &2047u32.to_le_bytes()); // cmdline_size
    put(0x258, &(16 * MIB).to_le_bytes()); // pref_address
    put(0x260, &(2 * MIB as u32).to_le_bytes()); // init_size
    put(1024, b"kernel");
    image
}

/// An ELF file of one segment at 1 MiB and one note.
fn elf() -> Vec<u8> {
    let mut image = vec![0; 0x200];
    let mut put = |offset: usize, bytes: &[u8]| {
        image[offset..offset + bytes.len()].copy_from_slice(bytes);
    };
    put(0, b"\x7fELF\x02\x01\x01");
    put(0x20, &0x40u64.to_le_bytes()); // e_phoff
    put(0x36, &[0x38, 0, 2, 0]); // e_phentsize, e_phnum
    put(0x40, &1u32.to_le_bytes()); // PT_LOAD
    put(0x48, &0x100u64.to_le_bytes()); // p_offset
    put(0x58, &MIB.to_le_bytes()); // p_paddr
    put(0x60, &0x10u64.to_le_bytes()); // p_filesz
    put(0x68, &0x2000u64.to_le_bytes()); // p_memsz
    put(0x78, &4u32.to_le_bytes()); // PT_NOTE
    put(0x80, &0x120u64.to_le_bytes()); // p_offset
    put(0x98, &0x18u64.to_le_bytes()); // p_filesz
    put(0x100, b"kernel");
    put(0x120, &[4, 0, 0, 0, 8, 0, 0, 0, 18, 0, 0, 0]);
    put(0x12c, b"Xen\0");
    put(0x130, &(MIB + 4).to_le_bytes());
    image
}

fn boot(
    kernel: Vec<u8>,
    initrd: Option<Vec<u8>>,
    cmdline: &str,
) -> (GuestMemory, Result<Entry, BootError>) {
    let (memory, layout) = machine();
    let mut initrd = initrd.map(Cursor::new);
    let entry = DirectBoot {
        kernel: &mut Cursor::new(kernel),
        initrd: initrd.as_mut(),
        cmdline,
        rsdp: Some(0xe_0000),
    }
    .load(&memory, &layout);
    (memory, entry)
}

fn text(memory: &GuestMemory, address: u64, size: usize) -> Vec<u8> {
    let mut bytes = vec![0; size];
    memory
        .read_slice(&mut bytes, GuestAddress(address))
        .unwrap();
    bytes
}

#[test]
fn a_bzimage_is_entered_in_long_mode_with_its_boot_parameters() {
    let (memory, entry) = boot(bzimage(), None, "quiet");
    let expected = Entry::Linux64 {
        rip: MIB + 0x200,
        boot_params: BOOT_PARAMS,
    };
    assert_eq!(entry.unwrap(), expected);
    assert_eq!(text(&memory, MIB, 6), b"kernel");
    assert_eq!(text(&memory, CMDLINE, 6), b"quiet\0");
    let rsdp: u64 = memory.read_obj(GuestAddress(BOOT_PARAMS + 0x70)).unwrap();
    assert_eq!(rsdp, 0xe_0000);
    let entries: u8 = memory.read_obj(GuestAddress(BOOT_PARAMS + 0x1e8)).unwrap();
    assert_eq!(entries, 7);
}

#[test]
fn an_initrd_goes_to_the_top_of_low_memory() {
    let (memory, entry) = boot(bzimage(), Some(vec![7; 5000]), "");
    entry.unwrap();
    let address: u32 = memory.read_obj(GuestAddress(BOOT_PARAMS + 0x218)).unwrap();
    assert_eq!(u64::from(address), MEMORY - 8192);
    assert_eq!(text(&memory, address.into(), 5000), vec![7; 5000]);
}

#[test]
fn an_elf_file_is_entered_where_its_note_says() {
    let (memory, entry) = boot(elf(), Some(vec![9; 10]), "x=1");
    let expected = Entry::Pvh {
        eip: MIB as u32 + 4,
        start_info: START_INFO as u32,
    };
    assert_eq!(entry.unwrap(), expected);
    assert_eq!(text(&memory, MIB, 6), b"kernel");
    let mut info = hvm_start_info::default();
    memory
        .read_slice(info.as_mut_slice(), GuestAddress(START_INFO))
        .unwrap();
    assert_eq!(
        (info.magic, info.nr_modules, info.memmap_entries),
        (0x336e_c578, 1, 7)
    );
    assert_eq!(text(&memory, info.cmdline_paddr, 4), b"x=1\0");
    let module: u64 = memory.read_obj(GuestAddress(info.modlist_paddr)).unwrap();
    assert_eq!(text(&memory, module, 10), [9; 10]);
}

#[test]
fn memory_that_the_file_does_not_fill_is_zeroed_again_on_a_reset() {
    let (memory, layout) = machine();
    write(&memory, MIB + 0x1000, &[0xff]).unwrap();
    let mut kernel = Cursor::new(elf());
    let mut boot = DirectBoot {
        kernel: &mut kernel,
        initrd: None,
        cmdline: "",
        rsdp: None,
    };
    boot.load(&memory, &layout).unwrap();
    assert_eq!(text(&memory, MIB + 0x1000, 1), [0]);
}

#[test]
fn a_truncated_bzimage_is_told_from_a_whole_one() {
    for length in [0x202, 0x220, 1024, 4000] {
        let mut image = bzimage();
        image.truncate(length);
        let error = boot(image, None, "").1.unwrap_err();
        let told = matches!(error, BootError::Truncated { size, .. } if size == length as u64);
        assert!(told, "{length}: {error}");
    }
}

#[test]
fn what_is_no_kernel_is_named_by_its_first_bytes() {
    let error = boot(b"#!/bin/sh\n".to_vec(), None, "").1.unwrap_err();
    assert!(matches!(error, BootError::NotAKernel { start } if start == b"#!/b"));
}

#[test]
fn an_elf_file_without_the_note_is_told_so() {
    let mut image = elf();
    image[0x12c] = b'Y';
    let error = boot(image, None, "").1.unwrap_err();
    assert!(matches!(error, BootError::NoPvhEntry));
}

#[test]
fn an_initrd_that_reaches_the_kernel_is_refused_with_both_sizes() {
    let error = boot(bzimage(), Some(vec![0; 15 * MIB as usize]), "")
        .1
        .unwrap_err();
    let expected = (15 * MIB, 14 * MIB);
    assert!(
        matches!(error, BootError::InitrdTooBig { size, room } if (size, room) == expected),
        "{error}"
    );
}

#[test]
fn a_command_line_longer_than_the_kernel_takes_is_refused() {
    let error = boot(bzimage(), None, &"x".repeat(2048)).1.unwrap_err();
    let expected = (2048, 2047);
    assert!(matches!(error, BootError::CmdlineTooLong { size, most } if (size, most) == expected));
}

#[test]
fn a_kernel_larger_than_memory_is_refused() {
    let mut image = bzimage();
    image[0x260..0x264].copy_from_slice(&(64 * MIB as u32).to_le_bytes());
    let error = boot(image, None, "").1.unwrap_err();
    assert!(matches!(error, BootError::KernelPlace { end, .. } if end == 80 * MIB));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn arbitrary_files_never_panic(image in proptest::collection::vec(any::<u8>(), 0..2048)) {
        let _ = boot(image, None, "");
    }

    #[test]
    fn mutated_headers_never_panic(
        which in any::<bool>(),
        edits in proptest::collection::vec((0usize..0x270, any::<u8>()), 1..12),
    ) {
        let mut image = if which { bzimage() } else { elf() };
        for (offset, byte) in edits {
            if let Some(place) = image.get_mut(offset) {
                *place = byte;
            }
        }
        let _ = boot(image, Some(vec![0; 100]), "a");
    }

    #[test]
    fn wild_words_in_elf_headers_never_panic(
        offset in (0usize..0x28).prop_map(|word| word * 8 + 0x20),
        value in prop_oneof![Just(u64::MAX), Just(1 << 63), Just(1 << 32), any::<u64>()],
    ) {
        let mut image = elf();
        image[offset..offset + 8].copy_from_slice(&value.to_le_bytes());
        let _ = boot(image, None, "");
    }
}
