// SPDX-License-Identifier: Apache-2.0
// One entry of 16 bytes per vector, and what is common to them: save everything, trap_enter(frame), restore, IRET.
#ifdef __x86_64__
#define SAVE push %rax; push %rbx; push %rcx; push %rdx; push %rsi; push %rdi; push %rbp; \
    push %r8; push %r9; push %r10; push %r11; push %r12; push %r13; push %r14; push %r15
#define RESTORE pop %r15; pop %r14; pop %r13; pop %r12; pop %r11; pop %r10; pop %r9; pop %r8; \
    pop %rbp; pop %rdi; pop %rsi; pop %rdx; pop %rcx; pop %rbx; pop %rax
    .code64
#endif
    .text
    .globl trap_entries, trap_resume
    .align 16
trap_entries:
    vector = 0
    .rept 256
    .align 16
    .if !(vector == 8 || (vector >= 10 && vector <= 14) || vector == 17 || vector == 21)
    push $0
    .endif
    push $vector
    jmp common
    vector = vector + 1
    .endr

common:
#ifdef __x86_64__
    SAVE
    mov %rsp, %rdi
    cld
    call trap_enter
    RESTORE
    add $16, %rsp
    iretq
#else
    pusha
    // By way of EAX: PUSH of a selector may leave the upper half of the slot as it was (SDM vol. 2B PUSH).
    mov %ds, %eax
    push %eax
    mov %es, %eax
    push %eax
    mov %fs, %eax
    push %eax
    mov %gs, %eax
    push %eax
    mov $0x10, %eax
    mov %eax, %ds
    mov %eax, %es
    cld
    push %esp
    call trap_enter
    add $4, %esp
    pop %gs
    pop %fs
    pop %es
    pop %ds
    popa
    add $8, %esp
    iret

// Where a frame goes that returns to a TRY: the same level is kept by IRET, so the stack is switched by hand.
trap_resume:
    mov $0x10, %ecx
    mov %ecx, %ss
    mov %ecx, %ds
    mov %ecx, %es
    mov %ecx, %fs
    mov %ecx, %gs
    mov try_state + 4, %esp
    jmp *try_state
#endif
    .section .note.GNU-stack, "", @progbits
