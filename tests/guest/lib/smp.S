// SPDX-License-Identifier: Apache-2.0
// Start of another vCPU: real-mode code for the page that STARTUP names (copied to SMP_PAGE), which goes to long mode with
// the tables of the first vCPU and calls smp_main(index of its local APIC) on its own stack.
#define SMP_PAGE 0x8000
#define AT(label) (SMP_PAGE + label - smp_begin)
    .text
    .globl smp_begin, smp_end
    .code16
smp_begin:
    cli
    xor %ax, %ax
    mov %ax, %ds
    lgdtl AT(pointer)
    mov %cr0, %eax
    or $1, %al
    mov %eax, %cr0
    ljmpl $0x18, $AT(protected)
    .code32
protected:
    mov $0x10, %eax
    mov %eax, %ds
    mov %eax, %es
    mov %eax, %ss
    mov $pml4, %eax
    mov %eax, %cr3
    mov $0x20, %eax
    mov %eax, %cr4
    mov $0xc0000080, %ecx
    rdmsr
    or $0x900, %eax
    wrmsr
    mov $0x80010033, %eax
    mov %eax, %cr0
    ljmp $0x08, $long_mode_ap
    .balign 8
pointer:
    .word 0x3ff
    .long gdt
smp_end:

    .code64
long_mode_ap:
    mov $smp_stack_top, %rsp
    mov $1, %edi
    call smp_main
1:  cli
    hlt
    jmp 1b

    .weak smp_main
    .bss
    .balign 16
    .skip 16384
smp_stack_top:
    .section .note.GNU-stack, "", @progbits
