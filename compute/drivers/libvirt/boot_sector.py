"""A guest of 512 bytes that shows whether a virtual CPU is good for an operating system.

It goes from real mode into long mode with paging, takes an exception through its IDT, counts to twenty million in
memory and only then writes `MICA` to the serial port and ends QEMU through `isa-debug-exit` at port 0xf4. A KVM that
interprets guest code instead of running it opens and starts, but does not get through the count in time.
Intel SDM vol. 3, 10.8.5 (entering long mode) and 7.14 (64-bit interrupt gates).
"""

GREETING = b"MICA"
EXIT_PORT = 0xF4

# Loaded by the BIOS at 0x7c00. Page tables at 0x1000-0x3fff (one 2 MiB page), IDT at 0x4000, stack below 0x7000.
_LISTING = """
fa                        # 7c00 cli
31 c0                     #      xor ax, ax
8e d8                     #      mov ds, ax
8e c0                     #      mov es, ax
8e d0                     #      mov ss, ax
bc 00 70                  #      mov sp, 0x7000
fc                        #      cld
66 bf 00 10 00 00         #      mov edi, 0x1000
0f 22 df                  #      mov cr3, edi
66 31 c0                  #      xor eax, eax
66 b9 00 10 00 00         #      mov ecx, 0x1000
66 f3 ab                  #      rep stosd                    ; empty tables
66 c7 06 00 10 03 20 00 00 #     mov dword [0x1000], 0x2003   ; PML4 -> PDPT
66 c7 06 00 20 03 30 00 00 #     mov dword [0x2000], 0x3003   ; PDPT -> PD
66 c7 06 00 30 83 00 00 00 #     mov dword [0x3000], 0x83     ; PD -> the first 2 MiB
66 b8 20 00 00 00         #      mov eax, 0x20
0f 22 e0                  #      mov cr4, eax                 ; PAE
66 b9 80 00 00 c0         #      mov ecx, 0xc0000080
0f 32                     #      rdmsr
80 cc 01                  #      or ah, 1
0f 30                     #      wrmsr                        ; EFER.LME
0f 01 16 d8 7c            #      lgdt [0x7cd8]
0f 20 c0                  #      mov eax, cr0
66 0d 01 00 00 80         #      or eax, 0x80000001
0f 22 c0                  #      mov cr0, eax                 ; protection and paging
ea 69 7c 08 00            #      jmp 8:0x7c69
b8 10 00 00 00            # 7c69 mov eax, 0x10                ; 64-bit code from here
8e d0                     #      mov ss, ax
66 c7 04 25 60 40 00 00 98 7c #  mov word [0x4060], 0x7c98    ; gate 6, invalid opcode
66 c7 04 25 62 40 00 00 08 00 #  mov word [0x4062], 8
66 c7 04 25 64 40 00 00 00 8e #  mov word [0x4064], 0x8e00
0f 01 1c 25 de 7c 00 00   #      lidt [0x7cde]
0f 0b                     #      ud2
b9 00 2d 31 01            # 7c98 mov ecx, 20000000
48 01 0c 25 00 50 00 00   # 7c9d add [0x5000], rcx
e2 f6                     #      loop 0x7c9d
be e8 7c 00 00            #      mov esi, 0x7ce8
66 ba f8 03               #      mov dx, 0x3f8
b9 04 00 00 00            #      mov ecx, 4
f3 6e                     #      rep outsb
b0 00                     #      mov al, 0
e6 f4                     #      out 0xf4, al
f4                        # 7cbb hlt
eb fd                     #      jmp 0x7cbb
66 90                     #
00 00 00 00 00 00 00 00   # 7cc0 GDT: null
00 00 00 00 00 9a 20 00   #      64-bit code
00 00 00 00 00 92 00 00   #      data
17 00 c0 7c 00 00         # 7cd8 its register
6f 00 00 40 00 00 00 00 00 00 # 7cde the IDT's register
4d 49 43 41               # 7ce8 "MICA"
"""


def image() -> bytes:
    """The disk: one sector with the boot signature at its end."""
    code = b"".join(bytes.fromhex(line.partition("#")[0]) for line in _LISTING.splitlines())
    return code.ljust(510, b"\0") + b"\x55\xaa"
