# The colours guest: the smallest thing worth looking at through a remote display.
#
# A 512-byte BIOS boot sector. It fills the text screen with one of eight colours, says which one on
# the screen and, as the line "colour N name", on COM1 (115200 8n1), and moves on to the next at each
# key, for ever. Between keys it halts. The cursor is hidden, so a screen that was drawn stays the same to the pixel.
#
#   as --32 -o colours.o colours.s
#   ld -m elf_i386 -Ttext 0x7c00 --oformat binary -o colours.bin colours.o

        .code16
        .text
        .globl  _start

        .set    COM1, 0x3f8
        .set    COLUMNS, 80
        .set    ROWS, 25
        .set    WHITE_INK, 0x0f

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

        movw    $0x0003, %ax                    # 80 x 25 text
        int     $0x10
        movb    $0x01, %ah                      # a cursor that starts below its end is off
        movw    $0x2000, %cx
        int     $0x10

        xorw    %di, %di                        # the number of the colour
show:   movw    %di, %bx
        incw    %bx                             # colour 0 is blue, and black comes last
        andb    $7, %bl
        movb    %bl, %bh
        shlb    $4, %bh
        orb     $WHITE_INK, %bh
        movw    $0x0600, %ax                    # clear the window to the attribute in BH
        xorw    %cx, %cx
        movw    $((ROWS - 1) << 8) | (COLUMNS - 1), %dx
        int     $0x10

        movw    $(11 << 8) | 33, %dx
        call    move
        movw    $colour, %si
        call    both
        movw    %di, %ax
        addb    $'0', %al
        call    screen
        call    serial
        movb    $' ', %al
        call    screen
        call    serial
        movw    %di, %cx                        # skip that many names
        movw    $names, %si
        jcxz    4f
3:      lodsb
        testb   %al, %al
        jnz     3b
        loop    3b
4:      call    both
        movb    $'\r', %al
        call    serial
        movb    $'\n', %al
        call    serial

        movw    $(13 << 8) | 33, %dx
        call    move
        movw    $prompt, %si
5:      lodsb
        testb   %al, %al
        jz      wait
        call    screen
        jmp     5b

wait:   movb    $0x01, %ah                      # is a key waiting?
        int     $0x16
        jnz     6f
        sti
        hlt
        jmp     wait
6:      xorb    %ah, %ah                        # take it
        int     $0x16
        incw    %di
        andw    $7, %di
        jmp     show

# The cursor to row DH, column DL.
move:   movb    $0x02, %ah
        xorb    %bh, %bh
        int     $0x10
        ret

# The text at SI, up to its zero byte, to the screen and the serial port; SI ends after it.
both:   lodsb
        testb   %al, %al
        jz      7f
        call    screen
        call    serial
        jmp     both
7:      ret

# The character in AL to the screen; AL survives.
screen: movb    $0x0e, %ah
        movw    $0x0007, %bx
        pushw   %ax
        int     $0x10
        popw    %ax
        ret

# The character in AL to COM1. A port that nobody decodes reads as all ones, so this never hangs for lack of one.
serial: pushw   %ax
        movw    $COM1 + 5, %dx                  # line status
8:      inb     %dx, %al
        testb   $0x20, %al                      # room for a character
        jz      8b
        popw    %ax
        movw    $COM1, %dx
        outb    %al, %dx
        ret

uart:   .byte   1, 0x00                         # no interrupts: this guest polls
        .byte   3, 0x80                         # divisor latch open
        .byte   0, 1                            # 115200 / 1
        .byte   1, 0
        .byte   3, 0x03                         # 8 bits, no parity, one stop bit
        .byte   2, 0x07                         # FIFOs on and empty
        .byte   4, 0x03                         # DTR and RTS
uart_end:

colour: .asciz  "colour "
prompt: .asciz  "press any key"
names:  .asciz  "blue"
        .asciz  "green"
        .asciz  "cyan"
        .asciz  "red"
        .asciz  "magenta"
        .asciz  "brown"
        .asciz  "grey"
        .asciz  "black"

        .org    510
        .word   0xaa55
