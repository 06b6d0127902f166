// SPDX-License-Identifier: Apache-2.0
// Entry of a test guest by multiboot 1 (32-bit protected mode, paging off). Built for x86-64 it goes on to long mode:
// 0 to 1 GiB and 3 to 4 GiB (devices) one to one in 2 MiB pages for the supervisor; the rest belongs to the tests.
    .section .multiboot, "a"
    .align 4
    .long 0x1badb002, 0, -0x1badb002

    .text
    .code32
    .globl start
start:
    cli
    cld
    mov $boot_stack_top, %esp
    mov %ebx, boot_info
    lgdt gdt_pointer
#ifdef __x86_64__
    mov $pml4, %edi
    movl $pdpt + 3, (%edi)
    movl $pd0 + 3, pdpt
    movl $pd3 + 3, pdpt + 24
    mov $pd0, %edi
    mov $0x83, %eax
    call fill_directory
    mov $pd3, %edi
    mov $0xc0000083, %eax
    call fill_directory
    mov $pml4, %eax
    mov %eax, %cr3
    mov $0x20, %eax             // PAE
    mov %eax, %cr4
    mov $0xc0000080, %ecx       // EFER: LME, NXE
    rdmsr
    or $0x900, %eax
    wrmsr
    mov $0x80010033, %eax       // PG WP NE ET MP PE
    mov %eax, %cr0
    ljmp $0x08, $long_mode

fill_directory:                 // 512 entries of 2 MiB from %eax at %edi
    mov $512, %ecx
1:  mov %eax, (%edi)
    movl $0, 4(%edi)
    add $0x200000, %eax
    add $8, %edi
    loop 1b
    ret

    .code64
long_mode:
    mov $0x10, %eax
    mov %eax, %ds
    mov %eax, %es
    mov %eax, %ss
    xor %eax, %eax
    mov %eax, %fs
    mov %eax, %gs
    mov $boot_stack_top, %rsp
    call guest_main
1:  hlt
    jmp 1b
#else
    ljmp $0x08, $1f
1:  mov $0x10, %eax
    mov %eax, %ds
    mov %eax, %es
    mov %eax, %ss
    mov %eax, %fs
    mov %eax, %gs
    mov $0x31, %eax             // NE ET PE
    mov %eax, %cr0
    call guest_main
1:  hlt
    jmp 1b
#endif

    .data
    .align 16
    .globl gdt, gdt_pointer, boot_info
boot_info:                      // physical address of the multiboot information
    .long 0
    .align 16
gdt:
    .quad 0
#ifdef __x86_64__
    .quad 0x00af9b000000ffff    // 0x08 supervisor code of the guest's own width
#else
    .quad 0x00cf9b000000ffff
#endif
    .quad 0x00cf93000000ffff    // 0x10 supervisor data
    .quad 0x00cf9b000000ffff    // 0x18 supervisor code, 32-bit
    .quad 0x00cffb000000ffff    // 0x20 user code, 32-bit
    .quad 0x00cff3000000ffff    // 0x28 user data
    .quad 0x00affb000000ffff    // 0x30 user code, 64-bit
    .quad 0, 0                  // 0x38 TSS
    .quad 0x00009b000000ffff    // 0x48 supervisor code, 16-bit
    .quad 0x000093000000ffff    // 0x50 supervisor data, 16-bit, 64 KiB
    .fill 117, 8, 0             // 0x58 .. of the tests
gdt_end:
gdt_pointer:
    .word gdt_end - gdt - 1
    .long gdt, 0

    .bss
    .align 4096
    .globl pml4, pdpt, pd0
pml4: .skip 4096
pdpt: .skip 4096
pd0:  .skip 4096
pd3:  .skip 4096
    .skip 16384
boot_stack_top:
    .skip 4096                  // IRET pops from `entry`: where it faults, its handler uses what lies below
    .globl entry
entry:
    .skip 128
    .section .note.GNU-stack, "", @progbits
