// SPDX-License-Identifier: Apache-2.0
// Code that changes: by stores of every kind, through other mappings, over page ends, while it runs.
// beds: xlate kvm-amd kvm-intel (docs/BEDS.md)
#include "pagetables.h"

// A page of code at FREE, its physical page also at FREE + 64 KiB (alias).
static u8 *code, *code2;
#define ALIAS (FREE + 0x10000)
static void setup(void) {
    if (!code) {
        code = page_alloc();
        code2 = page_alloc();
        map(FREE, (word)code, P | RW);
        map(FREE + 4096, (word)code2, P | RW);
        map(ALIAS, (word)code, P | RW);
        map(ALIAS + 4096, (word)code2, P | RW);
    }
    for (unsigned i = 0; i < 4096; i++)
        code[i] = code2[i] = 0xc3;
}

// mov $v, %eax; ret
static void put_mov(u64 at, u32 v) {
    *(volatile u8 *)at = 0xb8;
    *(volatile u32 *)(at + 1) = v;
    *(volatile u8 *)(at + 5) = 0xc3;
}
static u64 call(u64 at) {
    (void)TRY("call *%%rdi", at, 0, 0);
    return trap.vector == NONE ? (u32)trap.ax : 0xbad;
}

TEST(rewritten_between_calls) {
    setup();
    for (u32 i = 0; i < 100; i++) {
        put_mov(FREE, i);
        EQ(call(FREE), i);
    }
}
TEST(only_the_immediate_changes) {
    setup();
    put_mov(FREE, 0);
    for (u32 i = 0; i < 100; i++) {
        *(volatile u8 *)(FREE + 2) = (u8)i;
        EQ(call(FREE), i << 8);
    }
}
TEST(rewritten_through_an_alias) {
    setup();
    put_mov(FREE, 1);
    EQ(call(FREE), 1);
    put_mov(ALIAS, 2);
    EQ(call(FREE), 2);
    put_mov((word)code, 3); // and through the identity mapping
    EQ(call(FREE), 3);
    EQ(call(ALIAS), 3);
}
TEST(stored_data_beside_code_does_not_disturb) {
    setup();
    put_mov(FREE, 5);
    for (u32 i = 0; i < 1000; i++) {
        *(volatile u32 *)(FREE + 2048 + 4 * (i & 63)) = i;
        if (i % 100 == 0)
            EQ(call(FREE), 5);
    }
    EQ(*(volatile u32 *)(FREE + 2048 + 4 * (999 & 63)), 999);
}
// A block that changes its own next instruction: mov $v: movb $0x77, 1(%rip) hits the immediate that follows.
TEST(next_instruction_in_the_same_block) {
    static const u8 text[] = {0xc6, 0x05, 0x01, 0, 0, 0, 0x77, // movb $0x77, 1(%rip): the immediate of what follows
                              0xb8, 0x11, 0,    0, 0,          // mov $0x11, %eax
                              0xc3};
    for (unsigned round = 0; round < 3; round++) {
        setup();
        for (unsigned i = 0; i < sizeof(text); i++)
            code[i] = text[i];
        EQ(call(FREE), 0x77);
        EQ(call(FREE), 0x77);
    }
}
TEST(later_instruction_in_the_same_block) {
    static const u8 text[] = {0x31, 0xc0,                         // xor %eax, %eax
                              0xc6, 0x05, 0x04, 0,    0, 0, 0xc3, // movb $0xc3, 4(%rip)
                              0xff, 0xc0, 0xff, 0xc0,             // inc %eax twice
                              0xff, 0xc0, 0xc3};                  // here a RET appears
    setup();
    for (unsigned i = 0; i < sizeof(text); i++)
        code[i] = text[i];
    EQ(call(FREE), 2);
}
TEST(own_instruction_by_rep_stos) {
    // rep stosb over itself and behind: its first iteration makes it a RET, which the processor sees before the second
    // (SDM vol. 3A 11.6; so do processors).
    setup();
    code[0] = 0xf3; // rep stosb
    code[1] = 0xaa;
    for (unsigned i = 2; i < 64; i++)
        code[i] = 0x90;
    code[64] = 0xc3;
    EQ(TRY("mov $0xc3, %%eax; mov $32, %%ecx; call *%%rsi; mov %%ecx, %%eax", FREE, FREE, 0), NONE);
    EQ(trap.ax, 31);
    EQ(code[0], 0xc3);
    EQ(code[1], 0xaa);
}
TEST(rep_stos_up_to_itself) {
    setup();
    for (unsigned i = 0; i < 64; i++)
        code[i] = 0xc3;
    code[32] = 0xf3; // rep stosb
    code[33] = 0xaa;
    EQ(TRY("mov $0x90, %%eax; mov $40, %%ecx; lea 32(%%rsi), %%rax; mov %%rax, %%rdx; mov $0x90, %%eax; call *%%rdx;"
           "mov %%ecx, %%eax",
           FREE, FREE, 0),
       NONE);
    EQ(trap.ax, 7); // 0x90 0xaa is NOP and STOSB without its prefix
    EQ(code[31], 0x90);
    EQ(code[33], 0x90); // by that STOSB
    EQ(code[34], 0xc3);
}
TEST(loop_changes_its_own_body) {
    // 1: add $1, %eax; incb 1b+2; dec %ecx; jnz 1b; ret: adds 1 + 2 + ... + n
    static const u8 text[] = {0x83, 0xc0, 0x01, 0xfe, 0x05, 0xf9, 0xff, 0xff, 0xff, 0xff, 0xc9, 0x75, 0xf3, 0xc3};
    setup();
    for (unsigned i = 0; i < sizeof(text); i++)
        code[i] = text[i];
    EQ(TRY("mov $20, %%ecx; call *%%rdi", FREE, 0, 0), NONE);
    EQ(trap.ax, 210);
}
TEST(code_over_a_page_end) {
    setup();
    for (u32 i = 0; i < 50; i++) {
        put_mov(FREE + 4096 - 3, 0x01020304 * (i & 1 ? 1 : 2));
        EQ(call(FREE + 4096 - 3), 0x01020304 * (i & 1 ? 1 : 2));
    }
}
TEST(second_page_of_an_instruction_changes) {
    setup();
    put_mov(FREE + 4096 - 2, 0);
    for (u32 i = 0; i < 50; i++) {
        *(volatile u8 *)(FREE + 4096 + 1) = (u8)i;
        EQ(call(FREE + 4096 - 2), i << 16);
    }
}
TEST(second_page_of_an_instruction_is_remapped) {
    u8 *other = page_alloc();

    setup();
    put_mov(FREE + 4096 - 2, 0x11223344);
    EQ(call(FREE + 4096 - 2), 0x11223344);
    other[0] = 0x55;
    other[1] = 0x66;
    other[2] = 0x77;
    other[3] = 0xc3;
    map(FREE + 4096, (word)other, P | RW);
    EQ(call(FREE + 4096 - 2), 0x77665544);
    map(FREE + 4096, (word)code2, P | RW);
    EQ(call(FREE + 4096 - 2), 0x11223344);
    map(FREE + 4096, 0, 0);
    EQ(call(FREE + 4096 - 2), 0xbad);
    EQ(trap.vector, PF);
    EQ(trap.cr2, FREE + 4096);
    map(FREE + 4096, (word)code2, P | RW);
}
TEST(compatibility_code_runs_on_at_0) { // SDM vol. 1 3.3.7.1: effective addresses have 32 bits
    static struct {
        u32 ip;
        u16 cs;
    } __attribute__((packed)) target = {0xffffffff - 2, KCS32};
    volatile u8 *low = (volatile u8 *)0;
    u8 *high = page_alloc();

    u64 *large = pte_of(0xffe00000, 2), old = *large; // its identity mapping

    asm("" : "+r"(low));
    *large = 0;
    map(0xfffff000, (word)high, P | RW);
    for (unsigned i = 0; i < 3; i++) {
        high[4093] = 0xb8; // mov $..., %eax, with two bytes of four on the last page
        high[4094] = 0x44;
        high[4095] = (u8)(0x33 + i);
        low[0] = 0x22;
        low[1] = 0x11;
        low[2] = 0xcb; // lret
        EQ(TRY("lcall *(%%rdi)", &target, 0, 0), NONE);
        EQ(trap.ax, 0x11223344 + (i << 8));
    }
    *large = old;
    invlpg(0xfffff000);
}
TEST(page_loses_execution) {
    setup();
    put_mov(FREE, 7);
    EQ(call(FREE), 7);
    map(FREE, (word)code, P | RW | NX);
    EQ(call(FREE), 0xbad);
    EQ(trap.vector, PF);
    EQ(trap.error, PF_P | PF_I);
    map(FREE, (word)code, P | RW);
    EQ(call(FREE), 7);
}
TEST(jump_into_the_middle_of_an_instruction) {
    setup();
    put_mov(FREE, 0xc3585050); // mov $.., %eax; from +1: push, push, pop, ret
    code[1] = 0x6a;            // push $5; pop %rax; ret
    code[2] = 5;
    code[3] = 0x58;
    code[4] = 0xc3;
    EQ(call(FREE), 0xc358056a);
    EQ(call(FREE + 1), 5);
    EQ(call(FREE), 0xc358056a);
}

// Every kind of store.
#define STORE_CASE(name, text)                                                                                         \
    TEST(name) {                                                                                                       \
        u8 from[64] __attribute__((aligned(64)));                                                                      \
        setup();                                                                                                       \
        write_cr4(read_cr4() | CR4_OSFXSR);                                                                            \
        put_mov(FREE, 1);                                                                                              \
        EQ(call(FREE), 1);                                                                                             \
        for (unsigned i = 0; i < 64; i++)                                                                              \
            from[i] = 0xc3;                                                                                            \
        from[0] = 0xb8;                                                                                                \
        from[1] = 0x44, from[2] = 0x33, from[3] = 0x22, from[4] = 0x11;                                                \
        EQ(TRY(text, FREE, from, 0), NONE);                                                                            \
        EQ(call(FREE), 0x11223344);                                                                                    \
    }
STORE_CASE(stored_by_mov, "mov (%%rsi), %%rax; mov %%rax, (%%rdi)")
STORE_CASE(stored_by_movups, "movups (%%rsi), %%xmm0; movups %%xmm0, (%%rdi)")
STORE_CASE(stored_by_movnti, "mov (%%rsi), %%rax; movnti %%rax, (%%rdi)")
STORE_CASE(stored_by_rep_movs, "mov $16, %%ecx; rep movsb")
STORE_CASE(stored_by_movsq, "movsq")
STORE_CASE(stored_by_xchg, "mov (%%rsi), %%rax; xchg %%rax, (%%rdi)")
STORE_CASE(stored_by_cmpxchg, "mov (%%rdi), %%rax; mov (%%rsi), %%rcx; lock cmpxchg %%rcx, (%%rdi)")
STORE_CASE(stored_by_xadd, "mov (%%rsi), %%rax; sub (%%rdi), %%rax; lock xadd %%rax, (%%rdi)")
STORE_CASE(stored_by_cmpxchg16b, "mov (%%rdi), %%rax; mov 8(%%rdi), %%rdx; mov (%%rsi), %%rbx; mov 8(%%rsi), %%rcx;"
                                 "lock cmpxchg16b (%%rdi)")
STORE_CASE(stored_by_push, "mov (%%rsi), %%rax; mov %%rsp, %%rbx; lea 8(%%rdi), %%rsp; push %%rax; mov %%rbx, %%rsp")
STORE_CASE(stored_by_call_frame, "mov (%%rsi), %%rax; mov %%rax, (%%rdi); mov %%rsp, %%rbx; lea 0x80(%%rdi), %%rsp;"
                                 "call 1f; 1: mov %%rbx, %%rsp")
STORE_CASE(stored_by_bts, "mov (%%rsi), %%rax; mov %%rax, (%%rdi); lock btcl $31, 1(%%rdi); lock btcl $31, 1(%%rdi)")
STORE_CASE(stored_by_pop_memory, "push (%%rsi); pop (%%rdi)")
STORE_CASE(stored_by_fistp, "fninit; fildll (%%rsi); fistpll (%%rdi)")

TEST(stored_by_port_input) {
    // The RTC's second counter register is as good as any byte: a known one is written to CMOS RAM, then read by INS.
    setup();
    put_mov(FREE, 0x100);
    EQ(call(FREE), 0x100);
    outb(0x70, 0x40);
    outb(0x71, 0x5a);
    outb(0x70, 0x40);
    EQ(TRY("add $1, %%rdi; mov $0x71, %%edx; insb", FREE, 0, 0), NONE);
    EQ(call(FREE), 0x15a);
}
TEST(page_tables_write_accessed_bits_into_code) {
    // A code page that is also a page table: the walk sets A in an entry, which is an immediate.
    u64 *table;
    u64 va = FREE + (1ull << 30);

    setup();
    table = (u64 *)code;
    *pte_of(va, 2) = (word)code | P | RW;
    table[0] = ((word)page_alloc() | P | RW) & ~0xffull; // entry 0 is code: built below
    put_mov(FREE, 0);
    // b8 imm32 c3: as an entry P = 0; entry 1 is the page, entry 0 the instruction that reads it.
    table[1] = (word)code2 | P | RW;
    static const u8 text[] = {0x48, 0x8b, 0x05, 0x01, 0, 0, 0, 0xc3}; // mov 1(%rip), %rax; ret: reads entry 1
    for (unsigned i = 0; i < 8; i++)
        code[i] = text[i];
    EQ(call(FREE) & A, 0);
    *(volatile u8 *)(va + 4096);
    EQ(table[1] & A, A);
    *pte_of(va, 2) = 0;
}
TEST(instruction_page_copied_again_and_again) {
    // What a JIT does: emit, call, overwrite.
    setup();
    for (u32 i = 0; i < 2000; i++) {
        put_mov(FREE + 64 * (i % 60), i);
        if (call(FREE + 64 * (i % 60)) != i)
            check_failed("jit", i, 0, __LINE__);
    }
}
TEST(compat_code_at_the_same_place) {
    // 0x40: INC EAX in 32-bit code, a REX prefix in 64-bit code; the same bytes in both modes.
    static const u8 text[] = {0x31, 0xc0, 0x40, 0x90, 0xcd, 0x80};
    u8 *page = page_alloc();

    user_setup();
    map(FREE_LOW, (word)page, P | RW | US);
    for (unsigned i = 0; i < sizeof(text); i++)
        page[i] = text[i];
    for (unsigned i = 0; i < 6; i++) {
        entry.ip = FREE_LOW;
        entry.sp = USER_STACK;
        entry.cs = i & 1 ? UCS32 : UCS64;
        EQ(ENTER(0, 0, 0), LEAVE);
        EQ(trap.f.ax, i & 1);
    }
}
