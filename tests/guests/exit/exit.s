# The exit guest: what starting a machine costs, and nothing else.
#
# A PVH ELF that writes 0 to the debug-exit port 0x501 at its first instruction. With a command line
# that starts with `w` it halts instead, so that one can look at a machine that waits.
#
#   as -o exit.o exit.s
#   ld -n -Ttext 0x100000 -o exit exit.o

        .set    XEN_ELFNOTE_PHYS32_ENTRY, 18
        .set    CMDLINE_PADDR, 24               # in hvm_start_info, to which EBX points
        .set    DEBUG_EXIT, 0x501

        .section .note.pvh, "a", @note
        .align  4
        .long   4                               # size of the name
        .long   8                               # size of the entry's address
        .long   XEN_ELFNOTE_PHYS32_ENTRY
        .asciz  "Xen"
        .quad   _start

        .text
        .code32
        .globl  _start
_start: movl    CMDLINE_PADDR(%ebx), %ecx
        jecxz   1f
        cmpb    $'w', (%ecx)
        je      2f
1:      movw    $DEBUG_EXIT, %dx
        xorl    %eax, %eax
        outb    %al, %dx
2:      cli
        hlt
        jmp     2b
