# The BIOS's count of timer ticks, at 0x46c, told on COM1.
#
# A 512-byte BIOS boot sector. At a tick it says "ticks from CLOCK CLOCK", and from then on every half
# second "ticks COUNT CLOCK": how many came since, and the time-stamp counter, as 0x and hexadecimal
# digits. In between it halts.

        .code16
        .text
        .globl  _start

        .set    COM1, 0x3f8
        .set    LINE_STATUS, COM1 + 5
        .set    ROOM, 0x20
        .set    BIOS_TICKS, 0x46c
        .set    BETWEEN, 9                      # ticks between two reports

_start: ljmp    $0, $1f                         # some firmware enters at 07c0:0000
1:      cli
        xorw    %ax, %ax
        movw    %ax, %ds
        movw    %ax, %es
        movw    %ax, %ss
        movw    $0x7c00, %sp
        sti
        cld

        movw    $uart, %si                      # pairs of register and value
        movw    $(uart_end - uart) / 2, %cx
2:      lodsw
        movw    $COM1, %dx
        addb    %al, %dl
        movb    %ah, %al
        outb    %al, %dx
        loop    2b

        movl    BIOS_TICKS, %ebx
3:      hlt
        cmpl    BIOS_TICKS, %ebx
        je      3b
        movl    BIOS_TICKS, %ebx                # the first
        movl    %ebx, %edi                      # the last told
        rdtsc
        movw    $from, %si
        call    text
        call    clock
        call    clock
        call    line

4:      hlt
        movl    BIOS_TICKS, %ecx
        movl    %ecx, %eax
        subl    %edi, %eax
        cmpl    $BETWEEN, %eax
        jb      4b
        movl    %ecx, %edi
        rdtsc
        movw    $ticks, %si
        call    text
        movw    $number, %si
        call    text
        subl    %ebx, %ecx
        call    hex
        call    clock
        call    line
        jmp     4b

# EDX:EAX after a blank.
clock:  movw    $number, %si
        call    text
        movl    %edx, %ecx
        call    hex
        movl    %eax, %ecx
        # falls through

# ECX as eight digits.
hex:    pushl   %eax
        movw    $8, %bp
5:      roll    $4, %ecx
        movb    %cl, %al
        andb    $15, %al
        addb    $'0', %al
        cmpb    $'9', %al
        jbe     6f
        addb    $'a' - '0' - 10, %al
6:      call    byte
        decw    %bp
        jnz     5b
        popl    %eax
        ret

line:   movw    $end, %si
# The text at SI, up to a zero.
text:   pushl   %eax
7:      lodsb
        testb   %al, %al
        jz      8f
        call    byte
        jmp     7b
8:      popl    %eax
        ret

byte:   pushw   %dx
        pushw   %ax
        movw    $LINE_STATUS, %dx
9:      inb     %dx, %al
        testb   $ROOM, %al
        jz      9b
        popw    %ax
        movw    $COM1, %dx
        outb    %al, %dx
        popw    %dx
        ret

uart:   .byte   1, 0, 3, 0x80, 0, 1, 1, 0, 3, 3, 2, 7, 4, 3
uart_end:
from:   .asciz  "ticks from"
ticks:  .asciz  "ticks"
number: .asciz  " 0x"
end:    .asciz  "\r\n"

        .org    510
        .word   0xaa55
