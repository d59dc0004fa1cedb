//! Entry and state on a real `/dev/kvm`: the reset vector, PVH into 64-bit ring 3, save and reset.
//!
//! Where there is no `/dev/kvm` these tests say so and pass.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr)]

use std::arch::global_asm;
use std::io::Cursor;
use std::time::Duration;

use caraway_arch::boot::DirectBoot;
use caraway_arch::clocks::{Advance, ClockState};
use caraway_arch::cpuid::CpuTemplate;
use caraway_arch::layout::{KVM_IDENTITY_MAP, KVM_TSS, MIB};
use caraway_arch::memory::{Backing, create};
use caraway_arch::state::{ChipState, SaveContext, VcpuState};
use caraway_arch::{Entry, GuestMemory, Layout};
use kvm_bindings::{KVM_MEM_READONLY, kvm_userspace_memory_region};
use kvm_ioctls::{Kvm, VcpuExit, VcpuFd, VmFd};
use vm_memory::{GuestAddress, GuestMemoryBackend};

/// Where a guest says that it is done, with its verdict.
const EXIT_PORT: u16 = 0x501;

struct Machine {
    kvm: Kvm,
    vm: VmFd,
    vcpu: VcpuFd,
    memory: GuestMemory,
    layout: Layout,
}

impl Machine {
    fn new() -> Option<Self> {
        let Ok(kvm) = Kvm::new() else {
            eprintln!("skipped: no /dev/kvm");
            return None;
        };
        let template = CpuTemplate::from_host(&kvm, 1).unwrap();
        let layout = Layout::new(16 * MIB, template.physical_bits()).unwrap();
        let memory = create(&layout, Backing::Anonymous).unwrap();
        let vm = kvm.create_vm().unwrap();
        vm.set_identity_map_address(KVM_IDENTITY_MAP).unwrap();
        vm.set_tss_address(KVM_TSS as usize).unwrap();
        vm.create_irq_chip().unwrap();
        for (slot, range) in (0..).zip(layout.memory_slots()) {
            let host = memory
                .get_host_address(GuestAddress(range.start()))
                .unwrap();
            add_slot(&vm, slot, range.start(), range.size(), host as u64, 0);
        }
        let vcpu = vm.create_vcpu(0).unwrap();
        vcpu.set_cpuid2(&template.for_vcpu(0).unwrap()).unwrap();
        Some(Self {
            kvm,
            vm,
            vcpu,
            memory,
            layout,
        })
    }

    /// Runs to the verdict on [`EXIT_PORT`].
    fn run(&mut self) -> u8 {
        loop {
            match self.vcpu.run().unwrap() {
                VcpuExit::IoOut(EXIT_PORT, data) => return data[0],
                VcpuExit::IoOut(..) => {}
                exit => {
                    let exit = format!("{exit:?}");
                    panic!("{exit} at {:#x}", self.vcpu.get_regs().unwrap().rip)
                }
            }
        }
    }
}

fn add_slot(vm: &VmFd, slot: u32, start: u64, size: u64, host: u64, flags: u32) {
    let region = kvm_userspace_memory_region {
        slot,
        flags,
        guest_phys_addr: start,
        memory_size: size,
        userspace_addr: host,
    };
    // SAFETY: the mapping outlives the VM in every test.
    unsafe { vm.set_user_memory_region(region) }.unwrap();
}

// The PVH guest: from 32-bit protected mode to 64-bit ring 3 with I/O privilege. It is copied to
// BASE, so it names addresses only as distances from its start.
global_asm!(
    r#"
    .pushsection .rodata.pvh_guest, "a"
    .set BASE, 0x100000
    .set PML4, 0x200000
    .set PDPT, 0x201000
    .set PD, 0x202000
    .set TSS, 0x203000
    .set GDT_POINTER, BASE + (pvh_guest_gdt - pvh_guest_start)
    .set RING3, BASE + (pvh_guest_ring3 - pvh_guest_start)
    .globl pvh_guest_start
    .globl pvh_guest_end
    .code32
pvh_guest_start:
    cmp dword ptr [ebx], 0x336ec578
    jne 9f
    mov esp, 0x1ff000

    mov dword ptr [PML4], PDPT + 7
    mov dword ptr [PDPT], PD + 7
    mov edi, PD
    mov eax, 0x87
    mov ecx, 512
2:  mov [edi], eax
    mov dword ptr [edi + 4], 0
    add eax, 0x200000
    add edi, 8
    dec ecx
    jnz 2b

    mov eax, cr4
    or eax, 0x620
    mov cr4, eax
    mov eax, PML4
    mov cr3, eax
    mov ecx, 0xc0000080
    rdmsr
    or eax, 0x100
    wrmsr
    mov eax, cr0
    and eax, 0xfffffffb
    or eax, 0x80000003
    mov cr0, eax
    lgdt [GDT_POINTER]
    .byte 0xea
    .long BASE + (3f - pvh_guest_start)
    .word 0x08

9:  mov al, 0xee
    mov dx, 0x501
    out dx, al
    hlt

    .code64
3:  mov eax, 0x10
    mov ds, eax
    mov es, eax
    mov ss, eax
    mov rsp, 0x1ff000

    mov dword ptr [TSS + 4], 0x1ff000
    mov word ptr [TSS + 102], 104
    mov byte ptr [TSS + 104 + 8192], 0xff
    mov eax, 0x28
    ltr ax

    push 0x1b
    push 0x1fe000
    push 0x3002
    push 0x23
    mov eax, offset RING3
    push rax
    iretq

pvh_guest_ring3:
    movd xmm0, esp
    paddd xmm0, xmm0
    mov eax, 0xff
    popcnt eax, eax
    mov dx, 0x501
    out dx, al
    mov eax, 42
    out dx, al
5:  jmp 5b

    .balign 8
    # null, ring-0 code and data, ring-3 data and code, task state
11: .quad 0
    .quad 0x00af9b000000ffff
    .quad 0x00cf93000000ffff
    .quad 0x00cff3000000ffff
    .quad 0x00affb000000ffff
    # the task state: 104 bytes, then a bit for each port, all clear, and a byte that ends them
    .quad 0x0000892030002068
    .quad 0
pvh_guest_gdt:
    .word 55
    .long BASE + (11b - pvh_guest_start)
pvh_guest_end:
    .popsection
    "#
);

fn pvh_guest() -> &'static [u8] {
    unsafe extern "C" {
        static pvh_guest_start: u8;
        static pvh_guest_end: u8;
    }
    let (start, end) = (&raw const pvh_guest_start, &raw const pvh_guest_end);
    // SAFETY: both symbols bound the same section above.
    unsafe { std::slice::from_raw_parts(start, end.addr() - start.addr()) }
}

/// An ELF file with one segment at 1 MiB and the PVH note.
fn pvh_elf(code: &[u8]) -> Vec<u8> {
    let mut image = vec![0; 0x1000];
    let mut put = |offset: usize, bytes: &[u8]| {
        image[offset..offset + bytes.len()].copy_from_slice(bytes);
    };
    put(0, b"\x7fELF\x02\x01\x01");
    put(0x20, &0x40u64.to_le_bytes());
    put(0x36, &[0x38, 0, 2, 0]);
    put(0x40, &1u32.to_le_bytes());
    put(0x48, &0x1000u64.to_le_bytes());
    put(0x58, &MIB.to_le_bytes());
    put(0x60, &(code.len() as u64).to_le_bytes());
    put(0x68, &(code.len() as u64).to_le_bytes());
    put(0x78, &4u32.to_le_bytes());
    put(0x80, &0x120u64.to_le_bytes());
    put(0x98, &0x14u64.to_le_bytes());
    put(0x120, &[4, 0, 0, 0, 4, 0, 0, 0, 18, 0, 0, 0]);
    put(0x12c, b"Xen\0");
    put(0x130, &(MIB as u32).to_le_bytes());
    image.extend_from_slice(code);
    image
}

fn load(machine: &Machine) -> Entry {
    DirectBoot {
        kernel: &mut Cursor::new(pvh_elf(pvh_guest())),
        initrd: None,
        cmdline: "",
        rsdp: None,
    }
    .load(&machine.memory, &machine.layout)
    .unwrap()
}

#[test]
fn a_pvh_guest_gets_from_protected_mode_to_ring_3() {
    let Some(mut machine) = Machine::new() else {
        return;
    };
    let entry = load(&machine);
    entry.apply(&machine.vcpu, &machine.memory).unwrap();

    assert_eq!(machine.run(), 8, "popcnt of 0xff");
    assert_eq!(machine.run(), 42);
}

#[test]
fn firmware_starts_at_the_reset_vector() {
    let Some(mut machine) = Machine::new() else {
        return;
    };
    // One page that ends at 4 GiB; at the reset vector: mov al, 7; mov dx, 0x501; out dx, al.
    let rom = create(&Layout::new(2 * MIB, 48).unwrap(), Backing::Anonymous).unwrap();
    let code = [0xb0, 7, 0xba, 0x01, 0x05, 0xee, 0xf4];
    vm_memory::Bytes::write_slice(&rom, &code, GuestAddress(0xff0)).unwrap();
    let host = rom.get_host_address(GuestAddress(0)).unwrap() as u64;
    add_slot(&machine.vm, 9, 0xffff_f000, 0x1000, host, KVM_MEM_READONLY);

    Entry::Firmware
        .apply(&machine.vcpu, &machine.memory)
        .unwrap();

    assert_eq!(machine.run(), 7);
}

#[test]
fn a_reset_runs_the_guest_again_from_its_start() {
    let Some(mut machine) = Machine::new() else {
        return;
    };
    let context = SaveContext::probe(&machine.kvm, &machine.vm, &machine.vcpu).unwrap();
    let fresh = VcpuState::save(&machine.vcpu, &context).unwrap();
    let chips = ChipState::save(&machine.vm).unwrap();
    load(&machine)
        .apply(&machine.vcpu, &machine.memory)
        .unwrap();
    machine.run();

    fresh.reset(&machine.vcpu, &context).unwrap();
    chips.restore(&machine.vm).unwrap();
    assert_eq!(machine.vcpu.get_regs().unwrap().rip, 0xfff0);
    assert_eq!(machine.vcpu.get_sregs().unwrap().cs.base, 0xffff_0000);
    load(&machine)
        .apply(&machine.vcpu, &machine.memory)
        .unwrap();

    assert_eq!(machine.run(), 8);
}

#[test]
fn a_saved_processor_goes_on_in_another_machine() {
    let (Some(mut first), Some(mut second)) = (Machine::new(), Machine::new()) else {
        return;
    };
    let entry = load(&first);
    entry.apply(&first.vcpu, &first.memory).unwrap();
    assert_eq!(first.run(), 8);
    // KVM finishes the port write of the last exit only on the next entry.
    first.vcpu.set_kvm_immediate_exit(1);
    first.vcpu.run().unwrap_err();
    let context = SaveContext::probe(&first.kvm, &first.vm, &first.vcpu).unwrap();
    let state = VcpuState::save(&first.vcpu, &context).unwrap();
    let text = serde_json::to_string(&state).unwrap();

    let state: VcpuState = serde_json::from_str(&text).unwrap();
    let mut all = vec![0; 16 << 20];
    vm_memory::Bytes::read_slice(&first.memory, &mut all, GuestAddress(0)).unwrap();
    vm_memory::Bytes::write_slice(&second.memory, &all, GuestAddress(0)).unwrap();
    state.restore(&second.vcpu, &context).unwrap();

    assert_eq!(second.run(), 42);
}

/// The host's wall clock as `Advance` wants it.
fn wall() -> u64 {
    let now = std::time::SystemTime::now();
    now.duration_since(std::time::UNIX_EPOCH)
        .unwrap()
        .as_nanos() as u64
}

/// What kvmclock is ahead by, in milliseconds, after a pause of `pause` that moves it on by `by`.
fn kvmclock_after(machine: &Machine, pause: Duration, by: Duration) -> u64 {
    let before = machine.vm.get_clock().unwrap().clock;
    let saved = ClockState::save(&machine.vm, &machine.vcpu).unwrap();
    std::thread::sleep(pause);
    let advance = Advance {
        by: by.as_nanos() as u64,
        at: wall(),
    };
    saved.resume(&machine.vm, [&machine.vcpu], advance).unwrap();
    (machine.vm.get_clock().unwrap().clock - before) / 1_000_000
}

#[test]
fn kvmclock_goes_on_from_where_it_was_saved() {
    let Some(machine) = Machine::new() else {
        return;
    };

    let ahead = kvmclock_after(&machine, Duration::from_millis(500), Duration::ZERO);

    assert!(ahead < 400, "{ahead} ms");
}

#[test]
fn kvmclock_goes_on_from_as_much_later_as_is_wanted() {
    let Some(machine) = Machine::new() else {
        return;
    };

    let ahead = kvmclock_after(&machine, Duration::ZERO, Duration::from_secs(600));

    assert!((600_000..600_400).contains(&ahead), "{ahead} ms");
}

#[test]
fn a_guest_without_kvmclock_is_not_told_of_a_pause() {
    let Some(machine) = Machine::new() else {
        return;
    };

    caraway_arch::clocks::tell_stopped(&machine.vcpu).unwrap();
}
