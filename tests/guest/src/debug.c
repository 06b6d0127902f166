// SPDX-License-Identifier: Apache-2.0
// Debug registers, single step, INT1 (SDM vol. 3B chapter 18), in long mode.
// beds: xlate kvm-amd kvm-intel (docs/BEDS.md)
#include "pagetables.h"

enum { BS = 1 << 14, BD = 1 << 13 };
enum { EXEC = 0, WRITE = 1, IO = 2, ACCESS = 3 };
static word dr7(unsigned i, unsigned kind, unsigned len) {
    static const u8 code[9] = {0, 0, 1, 0, 3, 0, 0, 0, 2};

    return 0x400 | 2u << 2 * i | (kind | code[len] << 2) << (16 + 4 * i);
}

// ---- single step ----

#define TF_ON "pushf; orl $0x100, (%%rsp); popf;"
TEST(step_traps_after_the_next_instruction) { // POPF itself does not trap
    EQ(TRY0(TF_ON "5: nop; nop"), DB);
    EQ(trap.off, 10);
    EQ(read_dr6() & BS, BS);
    EQ(trap.f.flags & FL_TF, FL_TF);
}
static unsigned steps;
static word last_step;
static bool count_step(struct frame *f) {
    steps++;
    last_step = f->ip;
    return true;
}
#define TF_OFF "pushf; andl $~0x100, (%%rsp); popf"
static unsigned count(void) {
    unsigned n = steps;
    steps = 0;
    return n - 3; // TF_OFF
}
TEST(step_counts_instructions) {
    handlers[DB] = count_step;
    EQ(TRY0(TF_ON "nop; mov $1, %%eax; add %%eax, %%eax; jmp 1f; 1:" TF_OFF), NONE);
    EQ(count(), 4);
}
TEST(step_goes_into_calls) {
    handlers[DB] = count_step;
    EQ(TRY0(TF_ON "call 1f; jmp 2f; 1: ret; 2:" TF_OFF), NONE);
    EQ(count(), 3);
}
TEST(step_sees_each_iteration_of_rep) {
    static u8 buf[16];

    handlers[DB] = count_step;
    EQ(TRY(TF_ON "mov $5, %%ecx; rep stosb;" TF_OFF, buf, 0, 0), NONE);
    EQ(count(), 6);
}
TEST(step_skips_mov_ss_and_its_successor) {
    handlers[DB] = count_step;
    EQ(TRY0("mov %%ss, %%ecx;" TF_ON "mov %%ecx, %%ss; nop; nop;" TF_OFF), NONE);
    EQ(count(), 2); // one trap behind the pair, one behind the other NOP
}
TEST(step_traps_after_int_n_at_its_return) {
    handlers[DB] = count_step;
    handlers[0x91] = count_step; // counts one itself
    EQ(TRY0(TF_ON "int $0x91; nop;" TF_OFF), NONE);
    EQ(count(), 2);
}
TEST(fault_has_priority_over_step) {
    EQ(TRY0(TF_ON "ud2"), UD);
    EQ(read_dr6() & BS, 0);
}
TEST(step_over_hlt_and_sti) {
    handlers[DB] = count_step;
    EQ(TRY0(TF_ON "sti; cli;" TF_OFF), NONE);
    EQ(count(), 2);
}
BLOB(user_step, 64, "pushf; orl $0x100, (%rsp); popf; nop; int $0x80");
TEST(step_in_user_mode) {
    EQ(user64(user_step, 0, 0, 0), DB);
    EQ(trap.f.cs, UCS64);
    EQ(trap.f.ip, user_address(user_step) + 10);
}
TEST(iret_that_sets_tf_traps_after_its_target) {
    user_setup();
    entry.flags = 2 | FL_TF;
    EQ(user64(user_step, 0, 0, 0), DB);
    EQ(trap.f.ip, user_address(user_step) + 1);
}

// ---- instruction breakpoints ----

TEST(breakpoint_is_a_fault) {
    EQ(TRY("lea 5f(%%rip), %%rax; mov %%rax, %%dr0; mov %%rdi, %%dr7; nop; 5: nop; ud2", dr7(0, EXEC, 1), 0, 0), DB);
    CHECK(trap.f.ip == read_dr0());
    EQ(read_dr6() & 0xf, 1);
    EQ(trap.f.flags & FL_RF, 0);
    CHECK(!(read_dr6() & BS));
}
TEST(breakpoint_3_reports_its_own_bit) {
    EQ(TRY("lea 5f(%%rip), %%rax; mov %%rax, %%dr3; mov %%rdi, %%dr7; nop; 5: nop; ud2", dr7(3, EXEC, 1), 0, 0), DB);
    EQ(read_dr6() & 0xf, 8);
}
TEST(disabled_breakpoint_does_nothing) {
    EQ(TRY("lea 5f(%%rip), %%rax; mov %%rax, %%dr0; mov %%rdi, %%dr7; nop; 5: nop; ud2", dr7(0, EXEC, 1) & ~(word)3, 0,
           0),
       UD);
}
TEST(breakpoint_at_the_second_byte_does_not_hit) {
    EQ(TRY("lea 5f+1(%%rip), %%rax; mov %%rax, %%dr0; mov %%rdi, %%dr7; nop; 5: mov $1, %%eax; ud2", dr7(0, EXEC, 1), 0,
           0),
       UD);
}
static bool resume(struct frame *f) {
    steps++;
    f->flags |= FL_RF;
    return true;
}
TEST(rf_in_the_frame_passes_the_breakpoint_once) {
    steps = 0;
    handlers[DB] = resume;
    EQ(TRY("lea 5f(%%rip), %%rax; mov %%rax, %%dr1; mov %%rdi, %%dr7; mov $3, %%ecx; 5: dec %%ecx; jnz 5b",
           dr7(1, EXEC, 1), 0, 0),
       NONE);
    EQ(steps, 3);
}
TEST(breakpoint_on_hot_code_that_was_translated_before) {
    handlers[DB] = resume;
    for (unsigned round = 0; round < 4; round++) {
        steps = 0;
        EQ(TRY("lea 5f(%%rip), %%rax; mov %%rax, %%dr1; mov %%rdi, %%dr7; mov $100, %%ecx; 5: dec %%ecx; jnz 5b",
               round & 1 ? dr7(1, EXEC, 1) : 0x400, 0, 0),
           NONE);
        EQ(steps, round & 1 ? 100 : 0);
    }
}
BLOB(user_nops, 64, "nop; nop; nop; int $0x80");
TEST(breakpoint_in_user_code) {
    user_setup();
    write_dr2(user_address(user_nops) + 2);
    write_dr7(dr7(2, EXEC, 1));
    EQ(user64(user_nops, 0, 0, 0), DB);
    EQ(trap.f.ip, user_address(user_nops) + 2);
    EQ(trap.f.cs, UCS64);
    entry.flags = 2 | FL_RF; // IRET with RF passes one at its own target only
    EQ(user64(user_nops, 0, 0, 0), DB);
    entry.flags = 2 | FL_RF;
    entry.ip = user_address(user_nops) + 2;
    EQ(ENTER(0, 0, 0), LEAVE);
}
TEST(breakpoint_after_mov_ss_is_suppressed) {
    EQ(TRY("mov %%ss, %%ecx; lea 5f(%%rip), %%rax; mov %%rax, %%dr0; mov %%rdi, %%dr7; mov %%ecx, %%ss; 5: nop; ud2",
           dr7(0, EXEC, 1), 0, 0),
       UD);
}

// ---- data breakpoints ----

static u64 watched[4] __attribute__((aligned(64)));
#define WATCH(kind, len, at, code)                                                                                     \
    (write_dr0((word)watched + (at)), write_dr6(0xffff0ff0),                                                           \
     TRY("mov %%rdi, %%dr7; " code "; 6: nop; mov $0x400, %%ecx; mov %%rcx, %%dr7", dr7(0, kind, len), watched, 7))
#define WATCH_CASE(name, kind, len, at, code, hits)                                                                    \
    TEST(name) {                                                                                                       \
        EQ(WATCH(kind, len, at, code), (hits) ? DB : NONE);                                                            \
        EQ(read_dr6() & 0xf, (hits) ? 1 : 0);                                                                          \
        write_dr7(0x400);                                                                                              \
    }
WATCH_CASE(watch_write_hits, WRITE, 4, 0, "movl $1, (%%rsi)", true)
WATCH_CASE(watch_write_ignores_reads, WRITE, 4, 0, "mov (%%rsi), %%eax", false)
WATCH_CASE(watch_access_hits_reads, ACCESS, 4, 0, "mov (%%rsi), %%eax", true)
WATCH_CASE(watch_access_hits_writes, ACCESS, 4, 0, "movb $1, 3(%%rsi)", true)
WATCH_CASE(watch_ignores_fetches, ACCESS, 4, 0, "nop", false)
WATCH_CASE(watch_byte, WRITE, 1, 3, "movb $1, 3(%%rsi)", true)
WATCH_CASE(watch_byte_ignores_the_next, WRITE, 1, 3, "movb $1, 4(%%rsi)", false)
WATCH_CASE(watch_byte_inside_a_wider_store, WRITE, 1, 3, "movq $1, (%%rsi)", true)
WATCH_CASE(watch_quadword, WRITE, 8, 8, "movb $1, 15(%%rsi)", true)
WATCH_CASE(watch_aligns_down, WRITE, 4, 2, "movb $1, (%%rsi)", true)
WATCH_CASE(watch_store_that_begins_before, WRITE, 4, 8, "movq $1, 4(%%rsi)", true)
WATCH_CASE(watch_read_modify_write, WRITE, 4, 0, "addl $1, (%%rsi)", true)
WATCH_CASE(watch_locked, WRITE, 4, 0, "lock incl (%%rsi)", true)
WATCH_CASE(watch_string_store, WRITE, 4, 8, "mov %%rsi, %%rdi; mov $16, %%ecx; rep stosb", true)
WATCH_CASE(watch_push, WRITE, 8, 0, "mov %%rsp, %%rbx; lea 8(%%rsi), %%rsp; push %%rax; mov %%rbx, %%rsp", true)
WATCH_CASE(watch_stack_read, ACCESS, 8, 0, "mov %%rsp, %%rbx; mov %%rsi, %%rsp; pop %%rax; mov %%rbx, %%rsp", true)

TEST(watch_is_a_trap) {
    EQ(WATCH(WRITE, 4, 0, "5: movl $0x99, (%%rsi)"), DB);
    EQ((u32)watched[0], 0x99); // done
    EQ(trap.off, 9);           // 3 + 6
    write_dr7(0x400);
}
TEST(watch_after_mov_ss_waits_for_the_next_instruction) {
    write_dr0((word)watched);
    EQ(TRY("mov %%ss, %%ecx; mov %%ecx, 0(%%rsi); mov %%rdi, %%dr7; mov (%%rsi), %%ss; mov $1, %%eax; mov $2, %%eax",
           dr7(0, ACCESS, 2), watched, 0),
       DB);
    EQ(trap.ax, 1);
    write_dr7(0x400);
}
TEST(two_watchpoints_at_once) {
    write_dr0((word)watched);
    write_dr1((word)watched + 4);
    EQ(TRY("mov %%rdi, %%dr7; movq $1, (%%rsi)", dr7(0, WRITE, 4) | dr7(1, WRITE, 4), watched, 0), DB);
    EQ(read_dr6() & 0xf, 3);
    write_dr7(0x400);
}
TEST(io_breakpoint) {
    write_dr0(0x80);
    EQ(TRY("mov %%rdi, %%dr7; out %%al, $0x80; nop", dr7(0, IO, 1), 0, 0), NONE); // CR4.DE is off
    write_cr4(read_cr4() | CR4_DE);
    EQ(TRY("mov %%rdi, %%dr7; out %%al, $0x80; nop", dr7(0, IO, 1), 0, 0), DB);
    EQ(trap.off, 5);
    write_dr7(0x400);
    write_cr4(read_cr4() & ~(word)CR4_DE);
}
TEST(watch_in_translated_loop) {
    steps = 0;
    handlers[DB] = count_step;
    write_dr0((word)&watched[2]);
    EQ(TRY("mov %%rdi, %%dr7; mov $50, %%ecx; 1: mov %%rcx, 16(%%rsi); mov %%rcx, 24(%%rsi); dec %%ecx; jnz 1b",
           dr7(0, WRITE, 8), watched, 0),
       NONE);
    EQ(steps, 50);
    write_dr7(0x400);
}

// ---- the registers themselves, INT1, general detect ----

TEST(int1_is_a_trap_that_leaves_dr6) {
    EQ(TRY0("nop; .byte 0xf1"), DB);
    EQ(trap.off, 2);
    EQ(read_dr6() & (0xf | BS | BD), 0);
}
BLOB(user_int1, 64, ".byte 0xf1; int $0x80");
TEST(int1_needs_no_dpl) {
    EQ(user64(user_int1, 0, 0, 0), DB);
}
BLOB(user_int_1, 64, "int $1; int $0x80");
TEST(int_1_needs_the_dpl) {
    EQ(user64(user_int_1, 0, 0, 0), GP);
}
TEST(general_detect) {
    EQ(TRY("mov %%rdi, %%dr7; nop; mov %%dr0, %%rax", 0x2400, 0, 0), DB);
    EQ(trap.off, 4);
    EQ(read_dr6() & BD, BD);
    EQ(read_dr7() & 0x2000, 0);
}
TEST(dr4_and_dr5_are_aliases_without_de) {
    write_dr6(0xffff0ff0);
    EQ(TRY0(".byte 0x0f, 0x21, 0xe0"), NONE); // mov %dr4, %rax
    EQ(trap.ax, read_dr6());
    write_cr4(read_cr4() | CR4_DE);
    EQ(TRY0(".byte 0x0f, 0x21, 0xe0"), UD);
    EQ(TRY0(".byte 0x0f, 0x21, 0xe8"), UD);
}
TEST(upper_halves_of_dr6_and_dr7) {
    EQ(TRY("mov %%rdi, %%dr7", 1ull << 32, 0, 0), GP);
    EQ(TRY("mov %%rdi, %%dr6", 1ull << 32, 0, 0), GP);
    EQ(TRY("mov %%rdi, %%dr0; mov %%dr0, %%rax", 0x1234567890abcdef, 0, 0), NONE);
    EQ(trap.ax, 0x1234567890abcdef);
}
TEST(fixed_bits_of_dr6_and_dr7) {
    write_dr6(0);
    EQ(read_dr6() & 0xfffe1ff0, 0xfffe0ff0);
    write_dr7(0);
    EQ(read_dr7(), 0x400);
    write_dr6(0xffff0ff0);
}
TEST(dr6_bits_stay_until_cleared) {
    EQ(TRY0(TF_ON "nop; nop"), DB);
    EQ(read_dr6() & BS, BS);
    EQ(TRY0("int3"), BP);
    EQ(read_dr6() & BS, BS);
    write_dr6(0xffff0ff0);
    EQ(read_dr6() & BS, 0);
}
