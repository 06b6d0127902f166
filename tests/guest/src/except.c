// SPDX-License-Identifier: Apache-2.0
// Exceptions in long mode: vector, error code, reported RIP, CR2, priorities, double fault (SDM vol. 3A chapter 6).
// beds: xlate kvm-amd kvm-intel (docs/BEDS.md)
#include "pagetables.h"

#define NON_CANONICAL 0x0000900000000000ull
#define UNMAPPED      0x0000700000001000ull

// ---- faults and traps of instructions ----

// name, code (inputs RDI, RSI, RDX), vector, error, offset of the reported RIP
#define CASE(name, code, vec, err, at)                                                                                 \
    TEST(name) {                                                                                                       \
        EQ(TRY(code, NON_CANONICAL, UNMAPPED, 0), vec);                                                                \
        EQ(trap.error, err);                                                                                           \
        EQ(trap.off, at);                                                                                              \
    }
CASE(divide_by_zero, "nop; xor %%ecx, %%ecx; div %%ecx", DE, 0, 3)
CASE(divide_overflow, "mov $1, %%edx; xor %%eax, %%eax; mov $1, %%ecx; div %%ecx", DE, 0, 12)
CASE(divide_most_negative, "mov $0x80000000, %%eax; cltd; mov $-1, %%ecx; idiv %%ecx", DE, 0, 11)
CASE(int3_is_a_trap, "nop; int3", BP, 0, 2)
CASE(int_3_in_two_bytes, "nop; .byte 0xcd, 3", BP, 0, 3)
CASE(int_n_is_a_trap, "int $0x91", 0x91, 0, 2)
CASE(ud2, "ud2", UD, 0, 0)
CASE(ud0, ".byte 0x0f, 0xff, 0xc0", UD, 0, 0)
CASE(into_is_undefined, ".byte 0xce", UD, 0, 0)
CASE(push_es_is_undefined, ".byte 0x06", UD, 0, 0)
CASE(aaa_is_undefined, ".byte 0x37", UD, 0, 0)
CASE(far_call_immediate_is_undefined, ".byte 0x9a, 0,0,0,0,0,0", UD, 0, 0)
CASE(mov_to_cs_is_undefined, ".byte 0x8e, 0xc8", UD, 0, 0)
CASE(mov_to_segment_6_is_undefined, ".byte 0x8e, 0xf0", UD, 0, 0)
CASE(lock_on_a_register, ".byte 0xf0, 0x01, 0xc0", UD, 0, 0)
CASE(lock_on_a_load, ".byte 0xf0, 0x8b, 0x04, 0x24", UD, 0, 0)
CASE(lock_on_cmp, ".byte 0xf0, 0x39, 0x04, 0x24", UD, 0, 0)
CASE(lea_of_a_register, ".byte 0x8d, 0xc0", UD, 0, 0)
CASE(fifteen_bytes, ".fill 14, 1, 0x66; nop; ud2", UD, 0, 15)
CASE(sixteen_bytes, ".fill 15, 1, 0x66; nop", GP, 0, 0)
CASE(non_canonical_load, "nop; mov (%%rdi), %%rax", GP, 0, 1)
CASE(non_canonical_store, "nop; mov %%rax, (%%rdi)", GP, 0, 1)
CASE(non_canonical_by_rbp_is_ss, "mov %%rdi, %%rbp; mov (%%rbp), %%rax", SS, 0, 3)
CASE(movaps_misaligned, "mov %%cr4, %%rax; or $0x200, %%rax; mov %%rax, %%cr4; movaps 1(%%rsp), %%xmm0", GP, 0, 12)
CASE(cmpxchg16b_misaligned, "and $-16, %%rsp; cmpxchg16b -56(%%rsp)", GP, 0, 4)
CASE(fxsave_misaligned, "and $-16, %%rsp; fxsave -1016(%%rsp)", GP, 0, 4)
CASE(sse_without_osfxsr, "movaps %%xmm0, %%xmm1", UD, 0, 0)
CASE(xgetbv_without_osxsave, "xgetbv", UD, 0, 0)
CASE(mov_to_cr1, ".byte 0x0f, 0x22, 0xc8", UD, 0, 0)
CASE(mov_from_cr5, ".byte 0x0f, 0x20, 0xe8", UD, 0, 0)
CASE(monitor_or_nothing_with_rcx, "mov %%rsp, %%rax; mov $1, %%ecx; monitor", has(1, 2, 3) ? GP : UD, 0, 8)
CASE(non_canonical_before_page_fault, "mov (%%rdi), %%rax; mov (%%rsi), %%rax", GP, 0, 0)
CASE(undefined_before_page_fault, ".byte 0xf0, 0x8b, 0x06", UD, 0, 0)
CASE(lldt_null_is_legal, "xor %%eax, %%eax; lldt %%ax; ud2", UD, 0, 5)
CASE(ltr_null, "xor %%eax, %%eax; ltr %%ax", GP, 0, 2)
CASE(ltr_busy, "mov $0x38, %%eax; ltr %%ax", GP, 0x38, 5)
CASE(ltr_of_code, "mov $0x08, %%eax; ltr %%ax", GP, 0x08, 5)
CASE(ltr_in_the_ldt, "mov $0x3c, %%eax; ltr %%ax", GP, 0x3c, 5)
CASE(lldt_of_data, "mov $0x10, %%eax; lldt %%ax", GP, 0x10, 5)
CASE(load_ds_beyond_gdt, "mov $0x7f8, %%eax; mov %%eax, %%ds", GP, 0x7f8, 5)
CASE(load_ds_from_empty_ldt, "mov $0x14, %%eax; mov %%eax, %%ds", GP, 0x14, 5)
CASE(load_ds_of_a_system_descriptor, "mov $0x38, %%eax; mov %%eax, %%ds", GP, 0x38, 5)
CASE(load_ss_null_at_cpl0_is_legal, "xor %%eax, %%eax; mov %%eax, %%ss; nop; ud2", UD, 0, 5)
CASE(load_ss_null_with_rpl3, "mov $3, %%eax; mov %%eax, %%ss", GP, 0, 5)
CASE(load_ss_of_user_data, "mov $0x2b, %%eax; mov %%eax, %%ss", GP, 0x28, 5)
CASE(load_ss_of_code, "mov $0x08, %%eax; mov %%eax, %%ss", GP, 0x08, 5)

// Intel reports the branch, AMD its target; translated code does as AMD, emulated code as Intel.
#define BRANCH_CASE(name, code, at)                                                                                    \
    TEST(name) {                                                                                                       \
        EQ(TRY(code, NON_CANONICAL, 0, 0), GP);                                                                        \
        EQ(trap.error, 0);                                                                                             \
        CHECK(trap.off == (at) || trap.f.ip == NON_CANONICAL);                                                         \
    }
BRANCH_CASE(non_canonical_jump, "jmp *%%rdi", 0)
BRANCH_CASE(non_canonical_call, "call *%%rdi", 0)
BRANCH_CASE(non_canonical_ret, "push %%rdi; ret", 1)

// Addresses that a translator might take for an empty entry of its jump cache.
TEST(jump_to_odd_addresses) {
    static const u64 odd[] = {1ull << 63, 1ull << 63 | 1, ~0ull >> 1, 1ull << 63 | 0xfff, 0x0000800000000000ull};

    for (unsigned i = 0; i < sizeof(odd) / sizeof(odd[0]); i++) {
        EQ(TRY("jmp *%%rdi", odd[i], 0, 0), GP);
        EQ(TRY("push %%rdi; ret", odd[i], 0, 0), GP);
    }
}

static char ss_stack[512] __attribute__((aligned(16)));
TEST(non_canonical_by_rsp_is_ss) {
    tss.ist[3] = (word)ss_stack + sizeof(ss_stack);
    idt_set(SS, trap_entries + 16 * SS, KCS, GATE_INT, 0, 3);
    EQ(TRY("mov %%rdi, %%rsp; mov (%%rsp), %%rax", NON_CANONICAL, 0, 0), SS);
    EQ(trap.off, 3);
    EQ(TRY("mov %%rdi, %%rsp; push %%rax", NON_CANONICAL, 0, 0), SS);
    EQ(trap.f.sp, NON_CANONICAL);
    EQ(TRY("mov %%rdi, %%rsp; call 1f; 1:", NON_CANONICAL, 0, 0), SS);
    EQ(TRY("mov %%rdi, %%rsp; pop %%rax", NON_CANONICAL, 0, 0), SS);
}
TEST(non_canonical_stack_is_a_double_fault) { // #SS, and its delivery on the same stack
    EQ(TRY("mov %%rdi, %%rsp; push %%rax", NON_CANONICAL, 0, 0), DF);
    EQ(trap.error, 0);
}

TEST(swapgs_exchanges) {
    wrmsr(0xc0000101, 0x1111);
    wrmsr(0xc0000102, 0x2222);
    asm volatile("swapgs");
    EQ(rdmsr(0xc0000101), 0x2222);
    EQ(rdmsr(0xc0000102), 0x1111);
    wrmsr(0xc0000101, 0);
}

TEST(segment_not_present) {
    gdt[SEL_FREE / 8] = 0x00cf13000000ffff;
    EQ(TRY("mov %%edi, %%ds", SEL_FREE, 0, 0), NP);
    EQ(trap.error, SEL_FREE);
    EQ(TRY("mov %%edi, %%ss", SEL_FREE, 0, 0), SS);
    EQ(trap.error, SEL_FREE);
}

TEST(accessed_bit_of_a_descriptor) {
    gdt[SEL_FREE / 8] = 0x00cf92000000ffff;
    EQ(TRY("mov %%edi, %%ds", SEL_FREE, 0, 0), NONE);
    EQ(gdt[SEL_FREE / 8], 0x00cf93000000ffff);
}

// ---- floating point not available ----

TEST(x87_with_ts) {
    write_cr0(read_cr0() | CR0_TS);
    EQ(TRY0("nop; fnop"), NM);
    EQ(trap.off, 1);
    EQ(TRY0("clts; fnop"), NONE);
}
TEST(x87_with_em) {
    write_cr0(read_cr0() | CR0_EM);
    EQ(TRY0("fnop"), NM);
}
TEST(wait_needs_mp_and_ts) {
    write_cr0((read_cr0() | CR0_TS) & ~(word)CR0_MP);
    EQ(TRY0("fwait"), NONE);
    write_cr0(read_cr0() | CR0_MP);
    EQ(TRY0("fwait"), NM);
}
TEST(sse_with_em_is_undefined) {
    write_cr4(read_cr4() | CR4_OSFXSR);
    write_cr0(read_cr0() | CR0_EM);
    EQ(TRY0("movaps %%xmm0, %%xmm1"), UD);
}
TEST(sse_with_ts) {
    write_cr4(read_cr4() | CR4_OSFXSR);
    write_cr0(read_cr0() | CR0_TS);
    EQ(TRY0("movaps %%xmm0, %%xmm1"), NM);
}
TEST(undefined_has_priority_over_ts) {
    write_cr0(read_cr0() | CR0_TS | CR0_EM);
    EQ(TRY0(".byte 0xf0, 0xd9, 0xd0"), UD); // LOCK FNOP
}
TEST(x87_error_is_reported_at_the_next_instruction) {
    u16 cw = 0x37b; // zero divide unmasked

    EQ(TRY("fninit; fldcw (%%rdi); fld1; fldz; fdivrp; nop; fnop", &cw, 0, 0), MF);
    EQ(trap.off, 11);
    asm volatile("fninit");
}
TEST(simd_exception) {
    u32 mxcsr = 0x1f80 & ~0x200u; // zero divide unmasked

    write_cr4(read_cr4() | CR4_OSFXSR | 0x400);
    EQ(TRY("ldmxcsr (%%rdi); mov $0x3f800000, %%eax; movd %%eax, %%xmm0; xorps %%xmm1, %%xmm1; divss %%xmm1, %%xmm0",
           &mxcsr, 0, 0),
       XM);
    write_cr4(read_cr4() & ~(word)0x400); // without OSXMMEXCPT it is #UD
    EQ(TRY("ldmxcsr (%%rdi); mov $0x3f800000, %%eax; movd %%eax, %%xmm0; xorps %%xmm1, %%xmm1; divss %%xmm1, %%xmm0",
           &mxcsr, 0, 0),
       UD);
    mxcsr = 0x1f80;
    asm volatile("ldmxcsr %0" ::"m"(mxcsr));
}

// ---- alignment check ----

BLOB(misaligned_load, 64, "mov %rdi, %rax; mov 1(%rax), %ecx; int $0x80");
BLOB(misaligned_store, 64, "mov %rdi, %rax; mov %cx, 1(%rax); int $0x80");
BLOB(misaligned_byte, 64, "mov %rdi, %rax; mov 1(%rax), %cl; int $0x80");
TEST(alignment_check_at_cpl3) {
    write_cr0(read_cr0() | CR0_AM);
    entry.flags = 2 | FL_AC;
    EQ(user64(misaligned_load, USER_DATA, 0, 0), AC);
    EQ(trap.error, 0);
    EQ(trap.f.ip, user_address(misaligned_load) + 3);
    EQ(user64(misaligned_store, USER_DATA, 0, 0), AC);
    EQ(user64(misaligned_byte, USER_DATA, 0, 0), LEAVE);
}
TEST(no_alignment_check_without_am) {
    entry.flags = 2 | FL_AC;
    EQ(user64(misaligned_load, USER_DATA, 0, 0), LEAVE);
}
TEST(no_alignment_check_without_ac) {
    write_cr0(read_cr0() | CR0_AM);
    EQ(user64(misaligned_load, USER_DATA, 0, 0), LEAVE);
}
TEST(no_alignment_check_at_cpl0) {
    write_cr0(read_cr0() | CR0_AM);
    EQ(TRY("pushf; orl $0x40000, (%%rsp); popf; mov 1(%%rsp), %%eax; pushf; andl $~0x40000, (%%rsp); popf", 0, 0, 0),
       NONE);
}

// ---- page faults and what they leave ----

TEST(page_fault_address_and_error) {
    EQ(TRY("nop; mov 5(%%rdi), %%al", UNMAPPED, 0, 0), PF);
    EQ(trap.error, 0);
    EQ(trap.cr2, UNMAPPED + 5);
    EQ(trap.off, 1);
    EQ(TRY("mov %%al, 6(%%rdi)", UNMAPPED, 0, 0), PF);
    EQ(trap.error, PF_W);
    EQ(trap.cr2, UNMAPPED + 6);
}
TEST(read_modify_write_faults_as_a_write) {
    EQ(TRY("add %%eax, (%%rdi)", UNMAPPED, 0, 0), PF);
    EQ(trap.error, PF_W);
    EQ(TRY("lock xadd %%eax, (%%rdi)", UNMAPPED, 0, 0), PF);
    EQ(trap.error, PF_W);
}
TEST(failed_cmpxchg_needs_a_writable_page) {
    u64 *page = page_alloc();

    map(FREE, (word)page, P);
    *page = 5;
    EQ(TRY("mov $1, %%eax; cmpxchg %%ecx, (%%rdi)", FREE, 0, 0), PF);
    EQ(trap.error, PF_P | PF_W);
    EQ(trap.ax, 1);
}
TEST(fetch_fault_has_the_target_as_rip) {
    EQ(TRY("call *%%rdi", UNMAPPED, 0, 0), PF);
    EQ(trap.cr2, UNMAPPED);
    EQ(trap.f.ip, UNMAPPED);
    EQ(trap.error, PF_I); // NXE is on
}
TEST(store_across_pages_is_all_or_nothing) {
    u8 *page = page_alloc();

    map(FREE, (word)page, P | RW);
    map(FREE + 4096, 0, 0);
    EQ(TRY("mov $-1, %%rax; mov %%rax, 4092(%%rdi)", FREE, 0, 0), PF);
    EQ(trap.cr2, FREE + 4096);
    EQ(trap.error, PF_W);
    EQ(*(u32 *)(page + 4092), 0);
}
TEST(load_across_pages_reports_the_second) {
    map(FREE, (word)page_alloc(), P | RW);
    map(FREE + 4096, 0, 0);
    EQ(TRY("mov 4090(%%rdi), %%rax", FREE, 0, 0), PF);
    EQ(trap.cr2, FREE + 4096);
}
TEST(push_that_faults_keeps_rsp) {
    EQ(TRY("mov %%rdi, %%rsp; push %%rax", UNMAPPED, 0, 0), DF); // no stack to deliver the page fault on
    EQ(trap.f.sp, UNMAPPED);
    EQ(trap.off, 3);
}
TEST(pop_to_bad_memory_keeps_rsp) {
    EQ(TRY("push $1; mov %%rsp, %%rbx; pop (%%rdi)", UNMAPPED, 0, 0), PF);
    EQ(trap.f.sp, trap.f.bx);
}
TEST(rep_movs_stops_exactly_at_the_fault) {
    u8 *page = page_alloc();

    map(FREE, (word)page, P | RW);
    map(FREE + 4096, 0, 0);
    EQ(TRY("mov $100, %%ecx; add $4060, %%rdi; rep movsb", FREE, (word)&tss, 0), PF);
    EQ(trap.f.cx, 64);
    EQ(trap.f.di, FREE + 4096);
    EQ(trap.f.si, (word)&tss + 36);
    EQ(trap.cr2, FREE + 4096);
    EQ(trap.off, 12);
}
TEST(rep_stos_downwards_stops_at_the_fault) {
    map(FREE, 0, 0);
    map(FREE + 4096, (word)page_alloc(), P | RW);
    EQ(TRY("mov $20, %%ecx; add $4096+32, %%rdi; std; rep stosq; cld", FREE, 0, 0), PF);
    EQ(trap.f.cx, 15);
    EQ(trap.f.di, FREE + 4096 - 8);
    EQ(trap.f.flags & FL_DF, FL_DF);
}
TEST(instruction_across_pages_reports_the_second) {
    u8 *page = page_alloc();

    map(FREE, (word)page, P | RW);
    map(FREE + 4096, 0, 0);
    page[4095] = 0x48; // the REX of an instruction
    EQ(TRY("add $4095, %%rdi; jmp *%%rdi", FREE, 0, 0), PF);
    EQ(trap.cr2, FREE + 4096);
    EQ(trap.f.ip, FREE + 4095);
    EQ(trap.error, PF_I);
}
TEST(prefixes_that_fit_do_not_touch_the_next_page) {
    u8 *page = page_alloc();

    map(FREE, (word)page, P | RW);
    map(FREE + 4096, 0, 0);
    page[4094] = 0x0f; // UD2
    page[4095] = 0x0b;
    EQ(TRY("add $4094, %%rdi; jmp *%%rdi", FREE, 0, 0), UD);
    EQ(trap.f.ip, FREE + 4094);
}
TEST(xchg_with_bad_memory_keeps_the_register) {
    EQ(TRY("mov $7, %%eax; xchg %%eax, (%%rdi)", UNMAPPED, 0, 0), PF);
    EQ(trap.f.ax, 7);
}
TEST(flags_of_a_faulting_add_are_kept) {
    EQ(TRY("stc; adc %%eax, (%%rdi)", UNMAPPED, 0, 0), PF);
    EQ(trap.f.flags & FL_CF, FL_CF);
}
TEST(rf_is_set_by_faults_and_not_by_traps) {
    EQ(TRY0("ud2"), UD);
    EQ(trap.f.flags & FL_RF, FL_RF);
    EQ(TRY0("int3"), BP);
    EQ(trap.f.flags & FL_RF, 0);
    EQ(TRY0("int $0x91"), 0x91);
    EQ(trap.f.flags & FL_RF, 0);
}

// ---- delivery ----

TEST(gate_not_present) {
    idt[0x91].low &= ~(0x80ull << 40);
    EQ(TRY0("nop; int $0x91"), NP);
    EQ(trap.error, 0x91 * 8 + 2);
    EQ(trap.off, 1);
}
TEST(gate_not_present_for_an_exception_sets_ext) {
    idt[UD].low &= ~(0x80ull << 40);
    EQ(TRY0("nop; ud2"), NP);
    EQ(trap.error, UD * 8 + 3);
    EQ(trap.off, 1);
}
TEST(vector_beyond_the_idt) {
    idt_load(0x91 * 16 + 14);
    EQ(TRY0("int $0x91"), GP);
    EQ(trap.error, 0x91 * 8 + 2);
}
TEST(task_gate_is_no_gate_in_long_mode) {
    idt_set(0x91, trap_entries, SEL_TSS, GATE_TASK, 3, 0);
    EQ(TRY0("int $0x91"), GP);
    EQ(trap.error, 0x91 * 8 + 2);
}
TEST(gate_to_the_null_selector) {
    idt_set(0x91, trap_entries, 0, GATE_INT, 3, 0);
    EQ(TRY0("int $0x91"), GP);
    EQ(trap.error, 0);
    idt_set(UD, trap_entries, 0, GATE_INT, 3, 0);
    EQ(TRY0("ud2"), GP);
    EQ(trap.error, 1);
}
TEST(gate_to_data) {
    idt_set(0x91, trap_entries, KDS, GATE_INT, 3, 0);
    EQ(TRY0("int $0x91"), GP);
    EQ(trap.error, KDS);
}
TEST(gate_to_32_bit_code) {
    idt_set(0x91, trap_entries, KCS32, GATE_INT, 3, 0);
    EQ(TRY0("int $0x91"), GP);
    EQ(trap.error, KCS32);
}
TEST(gate_to_user_code_from_the_supervisor) {
    idt_set(0x91, trap_entries, UCS64, GATE_INT, 3, 0);
    EQ(TRY0("int $0x91"), GP);
    EQ(trap.error, UCS64 & ~3);
}
TEST(gate_to_a_non_canonical_handler) {
    idt_set(0x91, (void *)NON_CANONICAL, KCS, GATE_INT, 3, 0);
    EQ(TRY0("int $0x91"), GP);
    EQ(trap.error, 0);
}
BLOB(user_int91, 64, "nop; int $0x91; int $0x80");
TEST(gate_dpl_of_a_software_interrupt) {
    EQ(user64(user_int91, 0, 0, 0), GP);
    EQ(trap.error, 0x91 * 8 + 2);
    EQ(trap.f.ip, user_address(user_int91) + 1);
    idt_set(0x91, trap_entries + 16 * 0x91, KCS, GATE_INT, 3, 0);
    EQ(user64(user_int91, 0, 0, 0), 0x91);
    EQ(trap.f.ip, user_address(user_int91) + 3);
    EQ(trap.f.cs, UCS64);
    EQ(trap.f.ss, UDS);
    EQ(trap.f.sp, USER_STACK);
}
static word seen_flags, seen_sp;
static bool note_flags(struct frame *f) {
    seen_flags = read_flags();
    seen_sp = (word)f;
    return true;
}
TEST(interrupt_gate_clears_if_and_trap_gate_does_not) {
    handlers[0x91] = note_flags;
    EQ(TRY0("sti; int $0x91; cli"), NONE);
    EQ(seen_flags & FL_IF, 0);
    idt_set(0x91, trap_entries + 16 * 0x91, KCS, GATE_TRAP, 0, 0);
    EQ(TRY0("sti; int $0x91; cli"), NONE);
    EQ(seen_flags & FL_IF, FL_IF);
}
TEST(delivery_clears_tf_nt_and_keeps_df) {
    handlers[0x91] = note_flags;
    EQ(TRY0("pushf; orl $0x4400, (%%rsp); popf; int $0x91; cld; pushf; andl $~0x4000, (%%rsp); popf"), NONE);
    EQ(seen_flags & FL_NT, 0);
}
TEST(stack_is_aligned_to_16) {
    handlers[0x91] = note_flags;
    EQ(TRY0("sub $3, %%rsp; int $0x91; add $3, %%rsp"), NONE);
    EQ((seen_sp + sizeof(struct frame)) & 15, 0);
}
static char ist_stack[512] __attribute__((aligned(16)));
TEST(ist_switches_the_stack) {
    tss.ist[3] = (word)ist_stack + sizeof(ist_stack);
    idt_set(0x91, trap_entries + 16 * 0x91, KCS, GATE_INT, 0, 3);
    handlers[0x91] = note_flags;
    EQ(TRY0("int $0x91"), NONE);
    EQ(seen_sp, (word)ist_stack + sizeof(ist_stack) - sizeof(struct frame));
}
TEST(ist_non_canonical_is_ss_or_double_fault) {
    tss.ist[3] = NON_CANONICAL;
    idt_set(0x91, trap_entries + 16 * 0x91, KCS, GATE_INT, 0, 3);
    EQ(TRY0("int $0x91"), SS);
    EQ(trap.error, 0);
}
TEST(user_exception_uses_rsp0) {
    handlers[0x91] = note_flags;
    idt_set(0x91, trap_entries + 16 * 0x91, KCS, GATE_INT, 3, 0);
    EQ(user64(user_int91, 0, 0, 0), LEAVE);
    EQ(seen_sp, tss.rsp[0] - sizeof(struct frame));
}
TEST(double_fault_of_two_contributory) {
    idt[DE].low &= ~(0x80ull << 40);
    EQ(TRY0("xor %%ecx, %%ecx; div %%ecx"), DF);
    EQ(trap.error, 0);
    EQ(trap.off, 2);
}
TEST(double_fault_of_page_fault_and_contributory) {
    idt[PF].low &= ~(0x80ull << 40);
    EQ(TRY("mov (%%rdi), %%eax", UNMAPPED, 0, 0), DF);
    EQ(trap.cr2, UNMAPPED);
}
TEST(double_fault_of_two_page_faults) {
    tss.ist[3] = UNMAPPED + 4096;
    idt_set(PF, trap_entries + 16 * PF, KCS, GATE_INT, 0, 3);
    EQ(TRY("mov (%%rdi), %%eax", UNMAPPED + 8192, 0, 0), DF);
    CHECK(trap.cr2 >= UNMAPPED && trap.cr2 < UNMAPPED + 4096);
}
TEST(page_fault_in_delivery_of_contributory_is_served) {
    tss.ist[3] = UNMAPPED + 4096;
    idt_set(GP, trap_entries + 16 * GP, KCS, GATE_INT, 0, 3);
    EQ(TRY("mov (%%rdi), %%eax", NON_CANONICAL, 0, 0), PF);
    EQ(trap.error, PF_W);
}
TEST(gate_not_present_for_a_benign_exception_is_no_double_fault) {
    idt[BP].low &= ~(0x80ull << 40);
    EQ(TRY0("nop; int3"), NP);
    EQ(trap.error, BP * 8 + 2);
    EQ(trap.off, 1);
}
