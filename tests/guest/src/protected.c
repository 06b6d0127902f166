// SPDX-License-Identifier: Apache-2.0
// guest: 32-bit
// 32-bit protected mode without paging: segments, gates, stack switches, call gates, task switches, 16-bit code, and
// virtual-8086 mode (SDM vol. 3A chapters 5 to 8, 20).
// beds: xlate kvm-amd kvm-intel (docs/BEDS.md)
#include "guest.h"

static u8 user_stack[4096] __attribute__((aligned(16)));
#define USER_TOP ((word)user_stack + sizeof(user_stack))

static int user(const void *code, word a, word b, word c) {
    entry.ip = (word)code;
    entry.cs = UCS32;
    entry.sp = USER_TOP;
    entry.ss = UDS;
    return (int)ENTER(a, b, c);
}

// access: P DPL S type; flags: G D/B L AVL.
static u64 desc(u32 base, u32 limit, unsigned access, unsigned flags) {
    return (limit & 0xffff) | (u64)(base & 0xffffff) << 16 | (u64)access << 40 | (u64)(limit >> 16 & 15) << 48 |
           (u64)flags << 52 | (u64)(base >> 24) << 56;
}
static void set(u16 sel, u64 d) {
    gdt[sel / 8] = d;
}
static u64 gate(u16 sel, u32 target, unsigned access, unsigned params) {
    return (target & 0xffff) | (u64)sel << 16 | (u64)params << 32 | (u64)access << 40 | (u64)(target >> 16) << 48;
}
static u32 data[256] __attribute__((aligned(16)));
enum { F1 = SEL_FREE, F2 = SEL_FREE + 8, F3 = SEL_FREE + 16 };

// ---- segments ----

#define DS_CASE(name, d, code, at, vec)                                                                                \
    TEST(name) {                                                                                                       \
        set(F1, d);                                                                                                    \
        EQ(TRY("mov %%edi, %%es; " code "; mov $0x10, %%eax; mov %%eax, %%es", F1, at, 0), vec);                       \
        if ((vec) != NONE)                                                                                             \
            EQ(trap.error, 0);                                                                                         \
    }
DS_CASE(limit_last_byte, desc((word)data, 0xff, 0x93, 4), "mov %%es:(%%esi), %%al", 0xff, NONE)
DS_CASE(limit_beyond, desc((word)data, 0xff, 0x93, 4), "mov %%es:(%%esi), %%al", 0x100, GP)
DS_CASE(limit_straddled, desc((word)data, 0xff, 0x93, 4), "mov %%es:(%%esi), %%eax", 0xfd, GP)
DS_CASE(limit_of_pages, desc((word)data & ~0xfffu, 1, 0x93, 12), "mov %%es:(%%esi), %%al", 0x1fff, NONE)
DS_CASE(limit_of_pages_beyond, desc((word)data & ~0xfffu, 1, 0x93, 12), "mov %%es:(%%esi), %%al", 0x2000, GP)
DS_CASE(expand_down_below, desc((word)data, 0x0f, 0x97, 4), "mov %%es:(%%esi), %%al", 0x0f, GP)
DS_CASE(expand_down_above, desc((word)data, 0x0f, 0x97, 4), "mov %%es:(%%esi), %%al", 0x10, NONE)
DS_CASE(expand_down_16_top, desc((word)data, 0x0f, 0x97, 0), "mov %%es:(%%esi), %%al", 0xffff, NONE)
DS_CASE(expand_down_16_beyond, desc((word)data, 0x0f, 0x97, 0), "mov %%es:(%%esi), %%al", 0x10000, GP)
DS_CASE(read_only_store, desc((word)data, 0xff, 0x91, 4), "mov %%al, %%es:(%%esi)", 0, GP)
DS_CASE(read_only_load, desc((word)data, 0xff, 0x91, 4), "mov %%es:(%%esi), %%al", 0, NONE)
DS_CASE(readable_code_load, desc((word)data, 0xff, 0x9b, 4), "mov %%es:(%%esi), %%al", 0, NONE)
DS_CASE(code_store, desc((word)data, 0xff, 0x9b, 4), "mov %%al, %%es:(%%esi)", 0, GP)
DS_CASE(base_wraps, desc(0xfffffff0, 0xffff, 0x93, 4), "mov %%es:(%%esi), %%al", 0x20, NONE)
DS_CASE(string_beyond_limit, desc((word)data, 0xff, 0x93, 4),
        "mov $0xfe, %%edi; mov $4, %%ecx; mov $0, %%eax; rep stosb", 0, GP)

TEST(rep_counts_up_to_the_limit) {
    set(F1, desc((word)data, 0xff, 0x93, 4));
    EQ(TRY("mov %%edi, %%es; mov $0xf0, %%edi; mov $100, %%ecx; rep stosb", F1, 0, 0), GP);
    EQ(trap.f.cx, 84);
    EQ(trap.f.di, 0x100);
}
#define LOAD_CASE(name, d, sel, vec, err)                                                                              \
    TEST(name) {                                                                                                       \
        set(F1, d);                                                                                                    \
        EQ(TRY("mov %%edi, %%es; mov $0x10, %%eax; mov %%eax, %%es", sel, 0, 0), vec);                                 \
        if ((vec) != NONE)                                                                                             \
            EQ(trap.error, err);                                                                                       \
    }
LOAD_CASE(load_execute_only, desc(0, 0xff, 0x99, 4), F1, GP, F1)
LOAD_CASE(load_system, desc(0, 0xff, 0x82, 4), F1, GP, F1)
LOAD_CASE(load_absent, desc(0, 0xff, 0x13, 4), F1, NP, F1)
LOAD_CASE(load_rpl_above_dpl, desc(0, 0xff, 0x93, 4), F1 | 3, GP, F1)
LOAD_CASE(load_conforming_ignores_rpl, desc(0, 0xff, 0x9f, 4), F1 | 3, NONE, 0)
LOAD_CASE(load_null, 0, 0, NONE, 0)
LOAD_CASE(load_null_with_rpl, 0, 3, NONE, 0)
LOAD_CASE(load_beyond_the_table, 0, 0x7f8, GP, 0x7f8)
LOAD_CASE(load_from_no_ldt, 0, 0x0c, GP, 0x0c)
TEST(null_segment_faults_when_used) {
    EQ(TRY("xor %%eax, %%eax; mov %%eax, %%es; nop; mov %%es:(%%edi), %%al", data, 0, 0), GP);
    EQ(trap.error, 0);
    EQ(trap.off, 5);
}
TEST(stack_segment_loads) {
    EQ(TRY0("xor %%eax, %%eax; mov %%eax, %%ss"), GP);
    EQ(trap.error, 0);
    set(F1, desc(0, 0xffff, 0x91, 4));
    EQ(TRY("mov %%edi, %%ss", F1, 0, 0), GP); // read-only
    EQ(trap.error, F1);
    set(F1, desc(0, 0xffff, 0x13, 4));
    EQ(TRY("mov %%edi, %%ss", F1, 0, 0), SS); // absent
    EQ(trap.error, F1);
    EQ(TRY("mov %%edi, %%ss", UDS, 0, 0), GP);
    EQ(trap.error, UDS & ~3);
}
TEST(stack_limit) {
    entry.ss = UDS;
    set(F1, desc((word)user_stack, 0xff, 0xf3, 4));
    BLOB(pop_at_limit, 32, "mov %edx, %ss; mov %edi, %esp; pop %eax; int $0x80");
    EQ(user(pop_at_limit, 0xfc, 0, F1 | 3), LEAVE);
    EQ(user(pop_at_limit, 0xfd, 0, F1 | 3), SS);
    EQ(trap.error, 0);
    EQ(trap.f.sp, 0xfd);
    BLOB(push_at_zero, 32, "mov %edx, %ss; mov %edi, %esp; push %eax; int $0x80");
    EQ(user(push_at_zero, 0, 0, F1 | 3), SS); // would be at 0xfffffffc
    EQ(user(push_at_zero, 0x100, 0, F1 | 3), LEAVE);
    EQ(trap.f.sp, 0xfc);
}
TEST(stack_of_16_bits_wraps) {
    set(F1, desc((word)user_stack & ~0xffffu, 0xffff, 0xf3, 0));
    BLOB(push_16, 32, "mov %edx, %ss; mov %edi, %esp; push %eax; int $0x80");
    word low = USER_TOP & 0xffff;
    EQ(user(push_16, 0x12340000 | low, 0, F1 | 3), LEAVE);
    EQ(trap.f.sp, 0x12340000 | (low - 4)); // only SP moves
}
TEST(ldt) {
    static u64 ldt[4];

    ldt[1] = desc((word)data, 0xff, 0x93, 4);
    set(F1, desc((word)ldt, 15, 0x82, 0));
    data[1] = 0x4711;
    EQ(TRY("lldt %%di; mov $0xc, %%eax; mov %%eax, %%es; mov %%es:4, %%eax", F1, 0, 0), NONE);
    EQ(trap.ax, 0x4711);
    EQ(TRY("mov $0x14, %%eax; mov %%eax, %%es", 0, 0, 0), GP);
    EQ(trap.error, 0x14);
    EQ(TRY0("xor %%eax, %%eax; lldt %%ax; mov $0xc, %%eax; mov %%eax, %%fs"), GP);
}
TEST(les_and_lss) {
    struct {
        u32 off;
        u16 sel;
    } __attribute__((packed)) p = {0x1234, KDS};
    EQ(TRY("les (%%edi), %%eax", &p, 0, 0), NONE);
    EQ(trap.ax, 0x1234);
    p.sel = 0x7f8;
    EQ(TRY("mov $7, %%eax; les (%%edi), %%eax", &p, 0, 0), GP);
    EQ(trap.f.ax, 7);
}
TEST(bound) {

    int32_t range[2] = {-5, 10};
    EQ(TRY("mov $3, %%eax; bound %%eax, (%%edi)", range, 0, 0), NONE);
    EQ(TRY("mov $11, %%eax; bound %%eax, (%%edi)", range, 0, 0), BR);
    EQ(trap.off, 5);
    EQ(TRY("mov $-6, %%eax; bound %%eax, (%%edi)", range, 0, 0), BR);
}
TEST(into) {
    EQ(TRY0("xor %%eax, %%eax; into"), NONE);
    EQ(TRY0("mov $0x7fffffff, %%eax; inc %%eax; into"), OF);
    EQ(trap.off, 7);
}
TEST(arpl) {
    EQ(TRY0("mov $0x10, %%eax; mov $3, %%ecx; arpl %%cx, %%ax"), NONE);
    EQ(trap.ax, 0x13);
}

// ---- code segments and far transfers ----

struct far {
    u32 ip;
    u16 cs;
} __attribute__((packed));
#define JUMP_CASE(name, d, sel, vec, err)                                                                              \
    TEST(name) {                                                                                                       \
        struct far to = {0, sel};                                                                                      \
        set(F1, d);                                                                                                    \
        EQ(TRY("movl $5f, (%%edi); ljmp *(%%edi); 5: ljmp $8, $6f; 6:", &to, 0, 0), vec);                              \
        if ((vec) != NONE)                                                                                             \
            EQ(trap.error, err);                                                                                       \
    }
JUMP_CASE(jump_conforming, desc(0, 0xfffff, 0x9f, 12), F1, NONE, 0)
JUMP_CASE(jump_absent, desc(0, 0xfffff, 0x1b, 12), F1, NP, F1)
JUMP_CASE(jump_to_data, desc(0, 0xfffff, 0x93, 12), F1, GP, F1)
JUMP_CASE(jump_to_user_code, desc(0, 0xfffff, 0xfb, 12), F1, GP, F1)
JUMP_CASE(jump_with_rpl_3, desc(0, 0xfffff, 0x9b, 12), F1 | 3, GP, F1)
JUMP_CASE(jump_beyond_the_limit, desc(0, 0xff, 0x9b, 4), F1, GP, 0)
JUMP_CASE(jump_null, 0, 0, GP, 0)
TEST(far_call_and_return) {
    EQ(TRY("mov %%esp, %%ebx; lcall $8, $5f; 6: jmp 7f; 5: mov (%%esp), %%eax; sub $6b, %%eax; lret; 7: sub %%esp, "
           "%%ebx;"
           "or %%ebx, %%eax",
           0, 0, 0),
       NONE);
    EQ(trap.ax, 0);
}
TEST(code_with_a_base) {
    BLOB(at_base, 32, "call 1f; 1: pop %eax; lret");
    struct far to = {0, F1};
    set(F1, desc((word)at_base, 0xff, 0x9b, 4));
    EQ(TRY("lcall *(%%edi)", &to, 0, 0), NONE);
    EQ(trap.ax, 5); // offset in the segment
}
TEST(code_of_16_bits) {
    BLOB(code_16, 16, "mov $0xffff, %ax; inc %ax; mov $0x12345678, %ecx; push %cx; pop %bx; data32 lret");
    struct far to = {0, F1};
    set(F1, desc((word)code_16, 0xffff, 0x9b, 0));
    EQ(TRY("mov $0x11110000, %%eax; lcall *(%%edi); rol $16, %%ecx; mov %%bx, %%cx; mov %%ecx, %%eax", &to, 0, 0),
       NONE);
    EQ(trap.ax, 0x56785678);
}
TEST(operand_and_address_size_prefixes) {
    EQ(TRY0("mov $-1, %%eax; data16 xor %%eax, %%eax"), NONE);
    EQ(trap.ax, 0xffff0000);
    EQ(TRY("mov $0x12340000, %%ebx; lea 1(%%ebx), %%eax; .byte 0x67, 0x8d, 0x47, 0x01", 0, 0, 0), NONE); // lea 1(%bx)
    EQ(trap.ax, 1);
}
BLOB(conforming_user, 32, "lcall $0x58, $1f; 1: nop; mov %cs, %eax; int $0x80");
TEST(conforming_code_keeps_the_level) {
    set(F1, desc(0, 0xfffff, 0x9f, 12));
    struct far to = {(word)conforming_user + 7, F1};
    BLOB(user_far_jump, 32, "ljmp *(%edi)");
    EQ(user(user_far_jump, (word)&to, 0, 0), LEAVE);
    EQ(trap.f.ax, F1 | 3);
}

// ---- interrupts and stack switches ----

BLOB(user_leave, 32, "int $0x80");
BLOB(user_91, 32, "int $0x91; int $0x80");
TEST(frame_of_an_outer_level) {
    entry.flags = 2 | FL_IOPL | FL_CF;
    EQ(user(user_leave, 1, 2, 3), LEAVE);
    EQ(trap.f.cs, UCS32);
    EQ(trap.f.ss, UDS);
    EQ(trap.f.sp, USER_TOP);
    EQ(trap.f.flags, 2 | FL_IOPL | FL_CF);
    EQ(trap.f.ip, (word)user_leave + 2);
}
#define BAD_SS0(name, sel, d, vec, err)                                                                                \
    TEST(name) {                                                                                                       \
        u16 old = (u16)tss.ss0;                                                                                        \
        set(F1, d);                                                                                                    \
        set(F2, desc(0, 0xfffff, 0x93, 12));                                                                           \
        /* #TS and #SS come while no stack can be switched to: taken by a task of their own. */                        \
        task_for_fault(vec);                                                                                           \
        tss.ss0 = sel;                                                                                                 \
        entry.flags = 2;                                                                                               \
        user_in_task();                                                                                                \
        tss.ss0 = old;                                                                                                 \
        EQ(task_error, err);                                                                                           \
        EQ(task_hits, 1);                                                                                              \
    }
static struct tss other_tss;
static u8 other_stack[4096] __attribute__((aligned(16)));
static volatile u32 task_error, task_hits, resume_esp, resume_ebp;
static volatile word resume_ip;
extern char task_fault_entry[];
asm("task_fault_entry: popl task_error; incl task_hits; movl $0, try_state; movl resume_esp, %esp; movl resume_ebp, "
    "%ebp;"
    "clts; jmp *resume_ip");
// Runs code until it faults into the task.
#define UNTIL_TASK(code)                                                                                               \
    asm volatile("movl $77f, resume_ip; movl %%esp, resume_esp; movl %%ebp, resume_ebp;" code                          \
                 "; 77: pushf; andl $~0x4000, (%%esp); popf" ::                                                        \
                     : "eax", "ebx", "ecx", "edx", "esi", "edi", "memory", "cc")
static void task_for_fault(unsigned vector) {
    other_tss = (struct tss){.cr3 = 0,
                             .eip = (word)task_fault_entry,
                             .eflags = 2,
                             .esp = (word)other_stack + 4096,
                             .cs = KCS,
                             .ds = KDS,
                             .es = KDS,
                             .ss = KDS,
                             .fs = KDS,
                             .gs = KDS,
                             .iomap = 104};
    set(F3, desc((word)&other_tss, 103, 0x89, 0));
    idt_set(vector, 0, F3, GATE_TASK, 0, 0);
    task_hits = 0;
    task_error = ~0u;
}
static void user_in_task(void) {
    entry.ip = (word)user_leave;
    entry.cs = UCS32;
    entry.sp = USER_TOP;
    entry.ss = UDS;
    UNTIL_TASK("mov $0x2b, %%eax; mov %%eax, %%ds; mov %%eax, %%es; mov $entry, %%esp; iret");
    gdt[SEL_TSS / 8] &= ~(2ull << 40); // the first task is abandoned
    gdt[F3 / 8] &= ~(2ull << 40);
    asm volatile("ltr %w0" ::"r"(SEL_TSS));
    idt_restore();
}
BAD_SS0(ss0_null, 0, 0, TS, 0)
BAD_SS0(ss0_of_another_dpl, UDS & ~3, 0, TS, UDS & ~3)
BAD_SS0(ss0_beyond, 0x7f8, 0, TS, 0x7f8)
BAD_SS0(ss0_read_only, F1, desc(0, 0xfffff, 0x91, 12), TS, F1)
BAD_SS0(ss0_absent, F1, desc(0, 0xfffff, 0x13, 12), SS, F1)
BAD_SS0(ss0_too_small, F1, desc(0, 0x10, 0x93, 4), SS, F1)

extern char int16_entry[], int16_end[];
asm("int16_entry: pop %ax; pop %cx; pop %bx; ljmp $8, $int16_back; int16_end:");
TEST(interrupt_gate_of_16_bits) { // its offset has 16 bits
    for (char *c = int16_entry; c < int16_end; c++)
        ((volatile char *)0x9000)[c - int16_entry] = *c;
    idt_set(0x91, (void *)0x9000, KCS, GATE_INT16, 0, 0);
    // IP, CS, FLAGS of 16 bits each are on the stack of 32-bit code, which pops them as words.
    EQ(TRY0("mov %%esp, %%edx; stc; int $0x91; 5: ud2; .globl int16_back; int16_back: sub %%esp, %%edx; shl $16, %%edx;"
            "mov %%cx, %%dx; mov %%edx, %%eax"),
       NONE);
    EQ(trap.ax, KCS); // six bytes were pushed, six popped
}
TEST(trap_gate_keeps_if) {
    static word flags;
    bool note(struct frame * f) {
        flags = read_flags();
        return true;
    }
    handlers[0x91] = note;
    idt_set(0x91, trap_entries + 16 * 0x91, KCS, GATE_TRAP, 0, 0);
    EQ(TRY0("sti; int $0x91; cli"), NONE);
    EQ(flags & FL_IF, FL_IF);
    idt_set(0x91, trap_entries + 16 * 0x91, KCS, GATE_INT, 0, 0);
    EQ(TRY0("sti; int $0x91; cli"), NONE);
    EQ(flags & FL_IF, 0);
}
TEST(software_interrupt_dpl_and_presence) {
    EQ(user(user_91, 0, 0, 0), GP);
    EQ(trap.error, 0x91 * 8 + 2);
    idt_set(0x91, trap_entries + 16 * 0x91, KCS, GATE_INT, 3, 0);
    EQ(user(user_91, 0, 0, 0), 0x91);
    idt[0x91].low &= ~(0x80ull << 40);
    EQ(user(user_91, 0, 0, 0), NP);
    EQ(trap.error, 0x91 * 8 + 2);
    idt_load(0x91 * 8 + 6);
    EQ(user(user_91, 0, 0, 0), GP);
}
BLOB(user_iret_in, 32, "pushl $2; pushl $8; pushl $0; iret");
BLOB(user_iret_same, 32, "pushl $0x3202; pushl $0x23; call 1f; 1: addl $2f-1b, (%esp); iret; 2: int $0x80");
TEST(iret_rules) {
    EQ(user(user_iret_in, 0, 0, 0), GP);
    EQ(trap.error, 8);
    EQ(user(user_iret_same, 0, 0, 0), LEAVE);
    EQ(trap.f.flags & (FL_IF | FL_IOPL), 0);
}

// ---- call gates ----

BLOB(user_call_gate, 32, "push $0x333; push $0x222; push $0x111; lcall $0x5b, $0; int $0x80");
extern char gate_entry[], gate_back[];
asm("gate_entry: mov 8(%esp), %eax; mov 16(%esp), %ebx; mov %cs, %ecx; mov %esp, %edx; int $0x95\n"
    "gate_back: lret $12");
TEST(call_gate_copies_parameters) {
    set(F1, gate(KCS, (word)gate_entry, 0xec, 3));
    EQ(user(user_call_gate, 0, 0, 0), 0x95);
    EQ(trap.f.ax, 0x111);
    EQ(trap.f.bx, 0x333);
    EQ(trap.f.cx, KCS);
    u32 *stack = (u32 *)trap.f.dx;
    EQ(stack[0], (word)user_call_gate + 22);
    EQ(stack[1], UCS32);
    EQ(stack[5], USER_TOP - 12);
    EQ(stack[6], UDS);
    EQ((word)(stack + 7), tss.esp0);
}
TEST(call_gate_return_releases_parameters) {
    set(F1, gate(KCS, (word)gate_back, 0xec, 3));
    EQ(user(user_call_gate, 0, 0, 0), LEAVE);
    EQ(trap.f.sp, USER_TOP);
}
TEST(call_gate_refuses) {
    set(F1, gate(KCS, (word)gate_entry, 0x8c, 0));
    EQ(user(user_call_gate, 0, 0, 0), GP); // DPL 0
    EQ(trap.error, F1);
    set(F1, gate(KCS, (word)gate_entry, 0x6c, 0));
    EQ(user(user_call_gate, 0, 0, 0), NP);
    EQ(trap.error, F1);
    set(F1, gate(KDS, (word)gate_entry, 0xec, 0));
    EQ(user(user_call_gate, 0, 0, 0), GP);
    EQ(trap.error, KDS);
}

// ---- tasks ----

extern char task_entry[], task_iret[];
asm("task_entry: mov $0x7a5c, %eax; pushf; pop %ebx; str %cx; int $0x95\n"
    "task_iret: incl task_hits; iret; jmp task_iret");
static void task_make(const void *ip) {
    other_tss = (struct tss){.eip = (word)ip,
                             .eflags = 2,
                             .esp = (word)other_stack + 4096,
                             .esi = 0x51,
                             .cs = KCS,
                             .ds = KDS,
                             .es = KDS,
                             .ss = KDS,
                             .fs = KDS,
                             .gs = KDS,
                             .iomap = 104};
    set(F3, desc((word)&other_tss, 103, 0x89, 0));
    task_hits = 0;
}
static void task_home(void) { // TR back to the first TSS
    gdt[SEL_TSS / 8] &= ~(2ull << 40);
    asm volatile("ltr %w0; clts" ::"r"(SEL_TSS));
}
TEST(jump_to_a_task) {
    task_make(task_entry);
    EQ(TRY("ljmp $0x68, $0", 0, 0, 0), 0x95);
    EQ(trap.f.ax, 0x7a5c);
    EQ(trap.f.si, 0x51);
    EQ(trap.f.cx & 0xffff, F3);
    EQ(trap.f.bx & FL_NT, 0);
    CHECK(read_cr0() & CR0_TS);
    EQ(gdt[F3 / 8] >> 40 & 0xf, 11);     // busy
    EQ(gdt[SEL_TSS / 8] >> 40 & 0xf, 9); // no longer
    task_home();
}
TEST(call_of_a_task_and_iret) {
    task_make(task_iret);
    EQ(TRY("lcall $0x68, $0; lcall $0x68, $0; mov $5, %%eax", 0, 0, 0), NONE);
    EQ(trap.ax, 5);
    EQ(task_hits, 2);
    EQ(other_tss.link, SEL_TSS);
    EQ(gdt[F3 / 8] >> 40 & 0xf, 9);
    EQ(gdt[SEL_TSS / 8] >> 40 & 0xf, 11);
    EQ(read_flags() & FL_NT, 0);
    asm volatile("clts");
}
TEST(call_sets_nt_and_saves_state) {
    task_make(task_entry);
    EQ(TRY("mov $0x1357, %%ebx; lcall $0x68, $0", 0, 0, 0), 0x95);
    EQ(trap.f.bx & FL_NT, FL_NT);
    EQ(tss.ebx, 0x1357);
    EQ(tss.cs, KCS);
    task_home();
}
TEST(task_gate_in_the_gdt) {
    task_make(task_iret);
    set(F1, gate(F3, 0, 0x85, 0));
    EQ(TRY("lcall $0x58, $0", 0, 0, 0), NONE);
    EQ(task_hits, 1);
    asm volatile("clts");
}
TEST(task_gate_of_an_interrupt) {
    task_make(task_iret);
    idt_set(0x91, 0, F3, GATE_TASK, 0, 0);
    EQ(TRY("int $0x91; int $0x91; mov $6, %%eax", 0, 0, 0), NONE);
    EQ(trap.ax, 6);
    EQ(task_hits, 2);
    asm volatile("clts");
}
TEST(task_refuses) {
    task_make(task_entry);
    gdt[F3 / 8] |= 2ull << 40;
    EQ(TRY("ljmp $0x68, $0", 0, 0, 0), GP); // busy
    EQ(trap.error, F3);
    task_make(task_entry);
    gdt[F3 / 8] &= ~(0x80ull << 40);
    EQ(TRY("ljmp $0x68, $0", 0, 0, 0), NP);
    EQ(trap.error, F3);
    task_make(task_entry);
    set(F3, desc((word)&other_tss, 102, 0x89, 0));
    EQ(TRY("ljmp $0x68, $0", 0, 0, 0), TS); // too small
    EQ(trap.error, F3);
}
TEST(task_with_the_t_flag_traps) {
    task_make(task_entry);
    other_tss.trap = 1;
    EQ(TRY("ljmp $0x68, $0", 0, 0, 0), DB);
    EQ(trap.f.ip, (word)task_entry);
    EQ(read_dr6() & 0x8000, 0x8000);
    task_home();
}
TEST(double_fault_by_a_task) {
    task_for_fault(DF);
    idt[GP].low = 0;
    idt[NP].low = 0;
    UNTIL_TASK("mov $0x7f8, %%eax; mov %%eax, %%es");
    EQ(task_hits, 1);
    EQ(task_error, 0);
    task_home();
}

// ---- virtual-8086 mode ----

#define VM_BASE 0x20000u
static int vm86(const char *code, const char *end, word flags) {
    for (const char *c = code; c < end; c++)
        ((volatile char *)VM_BASE)[c - code] = *c;
    entry = (struct entry){.ip = 0,
                           .cs = VM_BASE >> 4,
                           .flags = 2 | FL_VM | flags,
                           .sp = 0xfff0,
                           .ss = 0x3000,
                           .es = 0x2100,
                           .ds = 0x2200,
                           .fs = 0x2300,
                           .gs = 0x2400,
                           .data_sel = KDS};
    return (int)ENTER(0, 0, 0);
}
#define VM86(name, text)                                                                                               \
    BLOB(vm_##name, 16, text "; vm_end_" #name ":");                                                                   \
    extern char vm_end_##name[]
#define RUN_VM86(name, flags) vm86(vm_##name, vm_end_##name, flags)
VM86(leave, "mov $0x1234, %ax; mov %ds, %bx; mov %cs, %cx; int $0x80");
TEST(vm86_runs_and_leaves) {
    EQ(RUN_VM86(leave, FL_IOPL), LEAVE);
    EQ(trap.f.ax & 0xffff, 0x1234);
    EQ(trap.f.bx & 0xffff, 0x2200);
    EQ(trap.f.cx & 0xffff, VM_BASE >> 4);
    EQ(trap.f.flags & FL_VM, FL_VM);
    EQ(trap.f.v_ds, 0x2200);
    EQ(trap.f.v_es, 0x2100);
    EQ(trap.f.v_fs, 0x2300);
    EQ(trap.f.v_gs, 0x2400);
    EQ(trap.f.ss, 0x3000);
    EQ(trap.f.ds & 0xffff, 0); // the handler found null selectors
}
VM86(segments, "mov $0x2345, %ax; mov %ax, %es; movw $0x9876, %es:4; mov $0xffff, %ax; mov %ax, %ds; mov 0x10, %bl;"
               "int $0x80");
TEST(vm86_segments) {
    EQ(RUN_VM86(segments, FL_IOPL), LEAVE);
    EQ(*(volatile u16 *)0x23454, 0x9876);
    EQ(trap.f.v_es, 0x2345);
    EQ(trap.f.bx & 0xff, *(volatile u8 *)0x100000); // FFFF:0010, A20 open
}
#define VM86_CASE(name, text, fl, vec)                                                                                 \
    VM86(name, text);                                                                                                  \
    TEST(vm86_##name) {                                                                                                \
        EQ(RUN_VM86(name, fl), vec);                                                                                   \
        if ((vec) == GP)                                                                                               \
            EQ(trap.error, 0);                                                                                         \
        EQ(trap.f.flags &FL_VM, FL_VM);                                                                                \
    }
VM86_CASE(cli_needs_iopl, "cli", 0, GP)
VM86_CASE(sti_needs_iopl, "sti", 0, GP)
VM86_CASE(pushf_needs_iopl, "pushf", 0, GP)
VM86_CASE(popf_needs_iopl, "popf", 0, GP)
VM86_CASE(iret_needs_iopl, "iret", 0, GP)
VM86_CASE(int_n_needs_iopl, "int $0x80", 0, GP)
VM86_CASE(int3_does_not, "int3", 0, BP)
VM86_CASE(hlt_faults, "hlt", FL_IOPL, GP)
VM86_CASE(mov_cr_faults, "mov %cr0, %eax", FL_IOPL, GP)
VM86_CASE(lgdt_faults, "lgdtl 0", FL_IOPL, GP)
VM86_CASE(lar_is_undefined, "lar %ax, %bx", FL_IOPL, UD)
VM86_CASE(sldt_is_undefined, "sldt %ax", FL_IOPL, UD)
VM86_CASE(arpl_is_undefined, ".byte 0x63, 0xc0", FL_IOPL, UD)
VM86_CASE(port_goes_by_the_bitmap, "in $0x80, %al", FL_IOPL, GP)
VM86_CASE(segment_end, "mov $0xffff, %bx; mov (%bx), %ax", FL_IOPL, GP)
VM86_CASE(divide, "xor %cx, %cx; div %cx", FL_IOPL, DE)
VM86_CASE(undefined, "ud2", FL_IOPL, UD)
VM86(flags_at_iopl_3, "sti; pushf; pop %ax; cli; pushf; pop %bx; pushl $0x23202; popfl; pushfl; pop %ecx; int $0x80");
TEST(vm86_flags_at_iopl_3) {
    EQ(RUN_VM86(flags_at_iopl_3, FL_IOPL), LEAVE);
    EQ(trap.f.ax & FL_IF, FL_IF);
    EQ(trap.f.bx & FL_IF, 0);
    EQ(trap.f.cx & (FL_VM | FL_IOPL), FL_IOPL); // the image has VM = 0, RF = 0
}
VM86(port_open, "in $0x80, %al; int $0x80");
TEST(vm86_port_open_in_the_bitmap) {
    tss.bitmap[0x80 / 8] &= 0xfe;
    EQ(RUN_VM86(port_open, FL_IOPL), LEAVE);
}
TEST(vm86_gate_to_conforming_or_user_code) {
    // From virtual-8086 mode the handler must run at level 0.
    idt_set(0x91, trap_entries + 16 * 0x91, UCS32, GATE_INT, 3, 0);
    VM86(int_91, "int $0x91; int $0x80");
    EQ(RUN_VM86(int_91, FL_IOPL), GP);
    EQ(trap.error, UCS32 & ~3);
}
TEST(vm86_vme_redirects) {
    if (!has(1, 3, 1)) {
        skip_test("no VME");
        return;
    }
    write_cr4(read_cr4() | CR4_VME);
    for (unsigned i = 0; i < 32; i++) // the redirection bitmap lies in front of the I/O bitmap
        ((u8 *)&tss)[104 + i] = 0;
    tss.iomap = 104 + 32;
    *(volatile u16 *)(0x91 * 4) = 0x0040; // the real-mode vector: VM_BASE:0040
    *(volatile u16 *)(0x91 * 4 + 2) = VM_BASE >> 4;
    VM86(vme, "int $0x91; int3; .org vm_vme + 0x40; mov $0x77, %dx; iret");
    EQ(RUN_VM86(vme, 0), BP);
    EQ(trap.f.dx & 0xffff, 0x77);
    tss.iomap = 104;
}
