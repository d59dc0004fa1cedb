# From the 32-bit PVH entry to Rust in 64-bit ring 3, and back to ring 0 for what only it can do.
#
# Where KVM runs without hardware help, ring 0 is interpreted and knows integer instructions only, so
# the guest lives in ring 3, where it runs at native speed. Its port I/O is allowed by the TSS's
# bitmap as well as by IOPL, which not every such KVM keeps.

        .set    CODE32, 0x08
        .set    DATA0, 0x10
        .set    CODE64, 0x18
        .set    DATA3, 0x20 | 3
        .set    CODE3, 0x28 | 3
        .set    TSS, 0x30                       # one a processor, 16 bytes each

        .set    CPUS, 4
        .set    STACK, 0x8000
        .set    STACK0, 0x1000
        .set    TSS_IO_MAP, 104
        .set    TSS_LAST, TSS_IO_MAP + 8192     # the byte of ones that ends the map
        .set    TSS_STRIDE, 8448

        .set    FLAGS, 0x3202                   # interrupts on, IOPL 3
        .set    LAPIC_EOI, 0xfee000b0
        .set    IOAPIC_RTC, 0x58                # vectors of timer.rs: the base is the controller, the
        .set    PIC_BASE, 0x60                  # low bits are the IRQ
        .set    PIC_RTC, PIC_BASE + 8
        .set    UD, 6

        .section .note.pvh, "a", @note
        .align  4
        .long   4, 8, 18                        # sizes of name and value, XEN_ELFNOTE_PHYS32_ENTRY
        .asciz  "Xen"
        .quad   pvh_entry

        .text
        .code32
        .globl  pvh_entry
pvh_entry:
        movl    %ebx, start_info
        jmp     enter_long_mode

# A further processor comes here from the trampoline below.
ap_protected:
        movw    $DATA0, %ax
        movw    %ax, %ds
        movw    %ax, %es
        movw    %ax, %ss

enter_long_mode:
        movl    %cr4, %eax
        orl     $0x620, %eax                    # PAE, OSFXSR, OSXMMEXCPT
        movl    %eax, %cr4
        movl    $pml4, %eax
        movl    %eax, %cr3
        movl    $0xc0000080, %ecx               # EFER.LME
        rdmsr
        orl     $0x100, %eax
        wrmsr
        movl    %cr0, %eax
        andl    $~4, %eax                       # no EM: there is an FPU
        orl     $0x80000003, %eax               # PG, MP, PE
        movl    %eax, %cr0
        lgdt    gdt_pointer
        ljmp    $CODE64, $long_mode

        .code64
long_mode:
        movw    $DATA0, %ax
        movw    %ax, %ds
        movw    %ax, %es
        movw    %ax, %ss
        movl    $1, %eax                        # the APIC's id numbers the processors
        cpuid
        shrl    $24, %ebx
        cmpl    $CPUS, %ebx
        jae     park
        movl    %ebx, %r12d

        leal    1(%r12), %eax
        imull   $STACK0, %eax, %eax
        leaq    stacks0(%rax), %rsp
        imull   $TSS_STRIDE, %r12d, %eax
        leaq    tss(%rax), %rdi
        movq    %rsp, 4(%rdi)
        movw    $TSS_IO_MAP, 102(%rdi)
        movb    $0xff, TSS_LAST(%rdi)

        movl    %r12d, %ebx                     # its descriptor
        shll    $4, %ebx
        movl    %edi, %eax
        shll    $16, %eax
        orl     $TSS_LAST, %eax
        movl    %eax, gdt + TSS(%rbx)
        movl    %edi, %eax
        shrl    $16, %eax
        movl    %eax, %edx
        andl    $0xff, %eax
        andl    $0xff00, %edx
        shll    $16, %edx
        orl     %edx, %eax
        orl     $0x8900, %eax
        movl    %eax, gdt + TSS + 4(%rbx)
        leal    TSS(%rbx), %eax
        ltr     %ax

        movq    $ap_main, %r14
        testl   %r12d, %r12d
        jnz     2f
        movq    $main, %r14
        movb    $0xff, %al                      # both PICs silent: no vector of theirs is ours
        outb    %al, $0x21
        outb    %al, $0xa1
        movl    $stubs, %eax                    # fill the IDT
        movl    $idt, %edi
        movl    $256, %ecx
1:      movl    %eax, %edx
        andl    $0xffff, %edx
        orl     $CODE64 << 16, %edx
        movl    %edx, (%rdi)
        movl    %eax, %edx
        andl    $0xffff0000, %edx
        orl     $0x8e00, %edx                   # present, interrupt gate
        movl    %edx, 4(%rdi)
        addl    $16, %eax
        addl    $16, %edi
        decl    %ecx
        jnz     1b

2:      lidt    idt_pointer
        leal    1(%r12), %eax
        imull   $STACK, %eax, %eax
        leaq    stacks - 8(%rax), %rax          # as after a call
        pushq   $DATA3
        pushq   %rax
        pushq   $FLAGS
        pushq   $CODE3
        pushq   %r14
        movl    %r12d, %esi
        movl    start_info, %edi
        iretq

park:   cli
        hlt
        jmp     park

# Every vector's way in: push an error code if the processor did not, then the vector.
        .balign 16
stubs:
        .set    vector, 0
        .rept   256
        .balign 16
        .if     !(vector == 8 || (vector >= 10 && vector <= 14) || vector == 17 || vector == 21)
        pushq   $0
        .endif
        pushq   $vector
        jmp     trap
        .set    vector, vector + 1
        .endr

# Stack: vector, error code, RIP, CS, RFLAGS, RSP, SS.
trap:   pushq   %rax
        movq    8(%rsp), %rax
        cmpl    $32, %eax
        jae     interrupt
        cmpl    $UD, %eax
        je      service

# An exception nobody asked for goes to Rust, which tells of it and ends the machine.
fault:  movl    %eax, %edi
        movq    16(%rsp), %rsi
        movq    24(%rsp), %rdx
        movq    %cr2, %rcx
        addq    $24, %rsp
        movq    $on_fault, (%rsp)
        movq    $CODE3, 8(%rsp)
        movq    $0x3002, 16(%rsp)
        movq    $stacks + STACK - 8, 24(%rsp)
        movq    $DATA3, 32(%rsp)
        iretq

interrupt:
        lock incl interrupt_counts(,%rax,4)
        cmpl    $IOAPIC_RTC, %eax
        je      5f
        cmpl    $PIC_RTC, %eax
        jne     6f
5:      movb    $0x0c, %al                      # register C ends the RTC's interrupt at the RTC
        outb    %al, $0x70
        inb     $0x71, %al
6:      movq    8(%rsp), %rax
        andl    $0xf0, %eax
        cmpl    $PIC_BASE, %eax
        je      7f
        movl    $LAPIC_EOI, %eax
        movl    $0, (%rax)
        jmp     9f
7:      movb    $0x20, %al                      # end of interrupt
        testb   $8, 8(%rsp)
        jz      8f
        outb    %al, $0xa0
8:      outb    %al, $0x20
9:      popq    %rax
        addq    $16, %rsp
        iretq

# ud2 with one of these in RAX is ring 3 asking for something.
        .set    SERVICE_HALT, 0x5e100
        .set    SERVICE_NO_IDT, 0x5e101
service:
        cmpq    $SERVICE_HALT, (%rsp)
        je      3f
        cmpq    $SERVICE_NO_IDT, (%rsp)
        jne     fault
        lidt    no_idt
        jmp     4f
3:      sti
        hlt
        cli
4:      popq    %rax
        addq    $16, %rsp
        addq    $2, (%rsp)                      # past the ud2
        iretq

# Copied to 0x8000, where a start-up IPI wakes a further processor in real mode.
        .section .rodata
        .set    TRAMPOLINE, 0x8000
        .globl  ap_trampoline, ap_trampoline_end
        .code16
ap_trampoline:
        cli
        xorw    %ax, %ax
        movw    %ax, %ds
        lgdtl   TRAMPOLINE + (ap_gdt_pointer - ap_trampoline)
        movl    %cr0, %eax
        orl     $1, %eax
        movl    %eax, %cr0
        ljmpl   $CODE32, $ap_protected
        .balign 4
ap_gdt_pointer:
        .word   gdt_end - gdt - 1
        .long   gdt
ap_trampoline_end:

        .data
        .balign 8
gdt:    .quad   0
        .quad   0x00cf9b000000ffff              # CODE32
        .quad   0x00cf93000000ffff              # DATA0
        .quad   0x00af9b000000ffff              # CODE64
        .quad   0x00cff3000000ffff              # DATA3
        .quad   0x00affb000000ffff              # CODE3
        .fill   2 * CPUS, 8, 0
gdt_end:
        .balign 4
        .word   0
gdt_pointer:
        .word   gdt_end - gdt - 1
        .quad   gdt
idt_pointer:
        .word   256 * 16 - 1
        .quad   idt
no_idt: .word   0
        .quad   0
        .globl  start_info
start_info:
        .long   0

# The first 16 GiB, one to one, 2 MiB a page, all of it for ring 3.
        .balign 4096
pml4:   .quad   pdpt + 7
        .fill   511, 8, 0
pdpt:   .set    i, 0
        .rept   16
        .quad   pages + i * 4096 + 7
        .set    i, i + 1
        .endr
        .fill   496, 8, 0
pages:  .set    i, 0
        .rept   16 * 512
        .quad   i * 0x200000 + 0x87
        .set    i, i + 1
        .endr

        .bss
        .balign 4096
stacks: .skip   CPUS * STACK
stacks0: .skip  CPUS * STACK0
idt:    .skip   256 * 16
tss:    .skip   CPUS * TSS_STRIDE
        .globl  interrupt_counts
interrupt_counts:
        .skip   256 * 4
