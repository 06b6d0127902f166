// SPDX-License-Identifier: Apache-2.0
// guest: 32-bit
// Real mode: the guest drops out of protected mode, runs a snippet at 0:9000 and comes back (SDM vol. 3A 20.1).
// And 32-bit paging: two levels with 4 MiB pages, PAE.
// beds: xlate (docs/BEDS.md)
#include "guest.h"

// What the snippet left behind; at a fixed place that 16-bit code reaches.
struct real_result {
    u16 vector, ip, cs, flags; // of the interrupt that ended it; vector 0xffff: it returned
    u32 ax, bx, cx, dx, si, di, eflags;
    u16 ds, es, ss, sp;
};
#define RESULT ((volatile struct real_result *)0x7c00)

// At 0x8000: `real_enter` is called from 32-bit code with interrupts off.
extern char real_begin[], real_end[];
asm(".pushsection .blob, \"ax\"\n"
    "real_begin:\n"
    ".code32\n"
    "    pusha; mov %esp, 0x7d00; sgdtl 0x7d10; lidtl 0x8000 + real_idt - real_begin\n"
    "    ljmp $0x48, $0x8000 + real_16 - real_begin\n"
    ".code16\n"
    "real_16:\n"
    "    mov $0x50, %ax; mov %ax, %ds; mov %ax, %es; mov %ax, %ss; mov %ax, %fs; mov %ax, %gs\n"
    "    mov %cr0, %eax; and $0xfe, %al; mov %eax, %cr0\n"
    "    ljmp $0, $0x8000 + real_real - real_begin\n"
    "real_real:\n"
    "    xor %ax, %ax; mov %ax, %ds; mov %ax, %es; mov %ax, %fs; mov %ax, %gs; mov %ax, %ss; mov $0x7000, %esp\n"
    "    movw $0xffff, 0x7c00\n"
    "    xor %eax, %eax; xor %ebx, %ebx; xor %ecx, %ecx; xor %edx, %edx; xor %esi, %esi; xor %edi, %edi\n"
    "    mov $0x9000, %bp; call *%bp\n"
    "real_done:\n"
    "    pushfl\n"
    "    mov %ds, %cs:0x7c24; mov %es, %cs:0x7c26; mov %ss, %cs:0x7c28; mov %sp, %cs:0x7c2a\n"
    "    mov %eax, %cs:0x7c08; mov %ebx, %cs:0x7c0c; mov %ecx, %cs:0x7c10; mov %edx, %cs:0x7c14; mov %esi, %cs:0x7c18\n"
    "    mov %edi, %cs:0x7c1c; popl %cs:0x7c20\n"
    "    cli; cld; xor %ax, %ax; mov %ax, %ds; lgdtl 0x7d10; mov %cr0, %eax; or $1, %al; mov %eax, %cr0\n"
    "    ljmpl $8, $real_back\n"
    "real_trap:\n" // on the stack: vector, IP, CS, FLAGS
    "    popw %cs:0x7c00; popw %cs:0x7c02; popw %cs:0x7c04; popw %cs:0x7c06\n"
    "    jmp real_done\n"
    ".balign 8\n"
    "real_idt: .word 0x3ff; .long 0\n"
    "real_end:\n"
    ".code32\n"
    ".popsection\n"
    "real_back: mov $0x10, %eax; mov %eax, %ds; mov %eax, %es; mov %eax, %ss; mov %eax, %fs; mov %eax, %gs\n"
    "    mov 0x7d00, %esp; popa; ret\n");

// Interrupt vectors 0..255 go to PUSH vector; JMP real_trap at 0xa000.
extern char real_trap[];
static void vectors(void) {
    for (unsigned v = 0; v < 256; v++) {
        volatile u8 *stub = (volatile u8 *)(0xa000 + 8 * v);
        u16 to = (u16)(0x8000 + (real_trap - real_begin) - (0xa000 + 8 * v + 6));

        ((volatile u16 *)0)[2 * v] = (u16)(word)stub;
        ((volatile u16 *)0)[2 * v + 1] = 0;
        stub[0] = 0x68, stub[1] = (u8)v, stub[2] = 0;
        stub[3] = 0xe9, stub[4] = (u8)to, stub[5] = (u8)(to >> 8);
    }
    *(volatile u16 *)0xa004; // JMP rel16 is relative to its end: stub + 6
}
static void copy(word to, const char *from, const char *end) {
    for (; from < end; from++)
        *(volatile char *)to++ = *from;
}
static int real(const char *code, const char *end) {
    vectors();
    copy(0x8000, real_begin, real_end);
    copy(0x9000, code, end);
    void (*volatile enter)(void) = (void (*)(void))0x8000;
    enter();
    idt_load(sizeof(idt) - 1);
    return RESULT->vector == 0xffff ? NONE : RESULT->vector;
}
#define REAL(name, text)                                                                                               \
    BLOB(real_##name, 16, text "; real_end_" #name ":");                                                               \
    extern char real_end_##name[]
#define RUN(name) real(real_##name, real_end_##name)

// ---- real mode ----

REAL(returns, "mov $0x1234, %ax; mov $0x89abcdef, %ebx; ret");
TEST(real_mode_and_back) {
    EQ(RUN(returns), NONE);
    EQ(RESULT->ax, 0x1234);
    EQ(RESULT->bx, 0x89abcdef);
    CHECK(read_cr0() & CR0_PE);
}
REAL(segment_times_16,
     "mov $0x2345, %ax; mov %ax, %es; movw $0xbeef, %es:6; mov %es, %cx; xor %ax, %ax; mov %ax, %es; ret");
TEST(segment_is_base_over_16) {
    EQ(RUN(segment_times_16), NONE);
    EQ(*(volatile u16 *)(0x23450 + 6), 0xbeef);
    EQ(RESULT->cx, 0x2345);
}
REAL(flags, "pushf; pop %ax; sti; pushf; pop %bx; cli; push $0x7ed7; popf; pushf; pop %cx; push $2; popf; ret");
TEST(flags_are_free) {
    EQ(RUN(flags), NONE);
    EQ(RESULT->bx & FL_IF, FL_IF);
    EQ(RESULT->cx & 0x7000, 0x7000);
}
REAL(int_and_iret, "movw $0x9010, 0x91*4; int $0x91; inc %ax; ret; .org real_int_and_iret + 0x10;"
                   "mov $0x41, %ax; mov %sp, %bp; mov 2(%bp), %bx; mov 4(%bp), %cx; iret");
TEST(int_through_the_vector_table) {
    EQ(RUN(int_and_iret), NONE);
    EQ(RESULT->ax, 0x42);
    EQ(RESULT->bx, 0);
}
REAL(divide, "nop; xor %cx, %cx; div %cx; ret");
TEST(divide_error_points_at_the_instruction) {
    EQ(RUN(divide), DE);
    EQ(RESULT->ip, 0x9003);
}
REAL(undefined, "ud2");
TEST(undefined_in_real_mode) {
    EQ(RUN(undefined), UD);
    EQ(RESULT->ip, 0x9000);
}
REAL(int3, "int3");
TEST(int3_in_real_mode) {
    EQ(RUN(int3), BP);
    EQ(RESULT->ip, 0x9001);
}
#define REAL_CASE(name, text, vec)                                                                                     \
    REAL(case_##name, text "; ret");                                                                                   \
    TEST(name) {                                                                                                       \
        EQ(RUN(case_##name), vec);                                                                                     \
    }
REAL_CASE(lar_is_undefined_in_real_mode, "lar %ax, %bx", UD)
REAL_CASE(sldt_is_undefined_in_real_mode, "sldt %ax", UD)
REAL_CASE(ltr_is_undefined_in_real_mode, "ltr %ax", UD)
REAL_CASE(arpl_is_undefined_in_real_mode, ".byte 0x63, 0xc0", UD)
REAL_CASE(word_over_the_segment_end, "mov $0xffff, %bx; mov (%bx), %ax", GP)
REAL_CASE(offset_beyond_64_kib, "mov $0x10000, %ebx; mov (%ebx), %al", GP)
REAL_CASE(stack_word_at_ffff, "mov %sp, %cx; mov $0xffff, %sp; pop %ax; mov %cx, %sp", SS)
REAL_CASE(bound_in_real_mode, "movw $5, 0x7e00; movw $7, 0x7e02; mov $9, %ax; bound %ax, 0x7e00", BR)
REAL_CASE(into_in_real_mode, "mov $0x7fff, %ax; inc %ax; into", OF)
REAL_CASE(lock_in_real_mode, ".byte 0xf0, 0x90", UD)
REAL_CASE(cpl_is_0, "mov %cr0, %eax; mov %eax, %cr0; mov %dr7, %eax; in $0x80, %al; out %al, $0x80; lgdtl 0x7d10", NONE)
REAL(sp_wrap, "mov %sp, %cx; xor %sp, %sp; push $0x1357; mov %sp, %bx; pop %ax; mov %cx, %sp; ret");
TEST(stack_wraps_at_64_kib) {
    EQ(RUN(sp_wrap), NONE);
    EQ(RESULT->ax, 0x1357);
    EQ(RESULT->bx, 0xfffe);
    EQ(*(volatile u16 *)0xfffe, 0x1357);
}
REAL(far_call,
     "lcall $0x100, $0x8010; ret; .org real_far_call + 0x10; pop %ax; pop %bx; push %bx; push %ax; mov %cs, %cx; lret");
TEST(far_call_in_real_mode) { // 0100:8010 is 0:9010
    EQ(RUN(far_call), NONE);
    EQ(RESULT->ax, 0x9005);
    EQ(RESULT->bx, 0);
    EQ(RESULT->cx, 0x100);
}
REAL(a20, "mov $0xffff, %ax; mov %ax, %es; movb $0x5c, %es:0x10; mov %es:0x10, %bl; mov 0, %bh; xor %ax, %ax; mov %ax, "
          "%es; ret");
TEST(megabyte_line_is_open) {
    u8 old = *(volatile u8 *)0x100000;

    EQ(RUN(a20), NONE);
    EQ(RESULT->bx & 0xff, 0x5c);
    EQ(*(volatile u8 *)0x100000, 0x5c);
    *(volatile u8 *)0x100000 = old;
}
REAL(strings, "mov $0x7e00, %di; mov $0x55aa, %ax; mov $8, %cx; cld; rep stosw; mov $0x7e00, %si; mov $0x7e80, %di;"
              "mov $16, %cx; rep movsb; mov 0x7e8e, %bx; ret");
TEST(string_instructions_of_16_bits) {
    EQ(RUN(strings), NONE);
    EQ(RESULT->bx, 0x55aa);
    EQ(RESULT->cx, 0);
    EQ(RESULT->di, 0x7e90);
}
REAL(loops, "mov $0x10003, %ecx; 1: inc %ax; loop 1b; mov %ecx, %edx; xor %ecx, %ecx; jcxz 2f; ud2; 2: ret");
TEST(loop_counts_cx) {
    EQ(RUN(loops), NONE);
    EQ(RESULT->ax, 3);
    EQ(RESULT->dx, 0x10000);
}
REAL(modrm,
     "mov $0x7e00, %bx; mov $0x10, %si; mov $0x20, %di; movb $1, (%bx, %si); movb $2, (%bx, %di); mov $0x7e00, %bp;"
     "movb $3, 0x30(%bp); movb $4, 0x40(%bp, %si); lea 0x100(%bx, %di), %ax; ret");
TEST(addresses_of_16_bits) {
    EQ(RUN(modrm), NONE);
    EQ(*(volatile u8 *)0x7e10, 1);
    EQ(*(volatile u8 *)0x7e20, 2);
    EQ(*(volatile u8 *)0x7e30, 3);
    EQ(*(volatile u8 *)0x7e50, 4);
    EQ(RESULT->ax, 0x7f20);
}
REAL(idt_limit, "lidtl %cs:0x9020; int $0x91; ret; .org real_idt_limit + 0x20; .word 0x91 * 4 + 2; .long 0");
TEST(vector_beyond_the_idt_limit) {
    EQ(RUN(idt_limit), GP);
}
REAL(tf, "pushf; orw $0x100, (%esp); popf; nop; nop; ret");
TEST(single_step_in_real_mode) {
    EQ(RUN(tf), DB);
    EQ(RESULT->ip, 0x9000 + 9);
    EQ(RESULT->flags & FL_TF, FL_TF);
}
// Big real mode: a segment keeps the limit of protected mode.
REAL(unreal,
     "cli; mov %cr0, %eax; or $1, %al; mov %eax, %cr0; mov $0x10, %bx; mov %bx, %es; and $0xfe, %al; mov %eax, %cr0;"
     "xor %bx, %bx; mov %bx, %es; mov $0x1800000, %edi; movl $0x600dcafe, %es:(%edi); mov %es:(%edi), %ecx; ret");
TEST(unreal_mode) {
    EQ(RUN(unreal), NONE);
    EQ(RESULT->cx, 0x600dcafe);
    EQ(*(volatile u32 *)0x1800000, 0x600dcafe);
}
REAL(hlt, "movw $0x9020, 0x20*4; mov $0x36, %al; out %al, $0x43; mov $0x10, %al; out %al, $0x40; out %al, $0x40;"
          "sti; hlt; cli; ret; .org real_hlt + 0x20; mov $0x20, %al; out %al, $0x20; inc %bx; iret");
TEST(pic_interrupt_wakes_from_hlt) {
    outb(0x20, 0x11), outb(0x21, 0x20), outb(0x21, 4), outb(0x21, 1);
    outb(0x21, 0xfe);
    EQ(RUN(hlt), NONE);
    outb(0x21, 0xff);
    EQ(RESULT->bx, 1);
}

// ---- 32-bit paging ----

enum { P = 1, RW = 2, US = 4, A = 32, D = 64, PS = 128, G = 256 };
static u32 *directory, *table;
#define WINDOW 0x40000000u

static void paging_on(word cr4) {
    if (!directory) {
        directory = page_alloc();
        table = page_alloc();
    }
    for (unsigned i = 0; i < 1024; i++)
        directory[i] = table[i] = 0;
    for (unsigned i = 0; i < 16; i++)
        directory[i] = i << 22 | PS | RW | US | P;
    directory[WINDOW >> 22] = (word)table | P | RW | US;
    write_cr4(CR4_PSE | cr4);
    write_cr3((word)directory);
    write_cr0(read_cr0() | CR0_PG | CR0_WP);
}
static void paging_off(void) {
    write_cr0(read_cr0() & ~(CR0_PG | CR0_WP));
    write_cr4(0);
}
TEST(paging_4k) {
    u32 *page = page_alloc();

    paging_on(0);
    table[3] = (word)page | P | RW;
    *(volatile u32 *)(WINDOW + 0x3004) = 0x1357;
    EQ(page[1], 0x1357);
    EQ(table[3] & (A | D), A | D);
    EQ(directory[WINDOW >> 22] & A, A);
    paging_off();
}
TEST(paging_4m) {
    paging_on(0);
    directory[0x80000000u >> 22] = 0x1800000 | P | RW | PS;
    *(volatile u32 *)0x803ffffc = 0x2468;
    EQ(*(volatile u32 *)(0x1800000 + 0x3ffffc), 0x2468);
    EQ(directory[0x80000000u >> 22] & (A | D), A | D);
    paging_off();
}
TEST(ps_is_ignored_without_pse) {
    u32 *t = page_alloc(), *page = page_alloc();

    paging_on(0);
    // The image has to be mapped without PSE as well: by tables.
    for (unsigned i = 0; i < 16; i++) {
        u32 *low = page_alloc();

        for (unsigned k = 0; k < 1024; k++)
            low[k] = i << 22 | k << 12 | P | RW;
        directory[i] = (word)low | P | RW;
    }
    t[0] = (word)page | P | RW;
    directory[0x80000000u >> 22] = (word)t | P | RW | PS;
    write_cr4(0);
    write_cr3((word)directory);
    *(volatile u32 *)0x80000000u = 0x99;
    EQ(page[0], 0x99);
    paging_off();
}
TEST(faults_of_two_levels) {
    paging_on(0);
    EQ(TRY("mov (%%edi), %%al", WINDOW + 0x5000, 0, 0), PF);
    EQ(trap.error, 0);
    EQ(trap.cr2, WINDOW + 0x5000);
    EQ(TRY("mov %%al, (%%edi)", 0x90000000, 0, 0), PF);
    EQ(trap.error, PF_W);
    table[5] = (word)page_alloc() | P;
    EQ(TRY("mov %%al, (%%edi)", WINDOW + 0x5000, 0, 0), PF);
    EQ(trap.error, PF_W | PF_P);
    EQ(TRY("jmp *%%edi", 0x90000000, 0, 0), PF);
    EQ(trap.error, 0); // no I bit without NX and SMEP
    paging_off();
}
TEST(reserved_bits_of_a_4m_page) {
    paging_on(0);
    directory[0x80000000u >> 22] = 0x1800000 | P | RW | PS | 1 << 21;
    EQ(TRY("mov (%%edi), %%al", 0x80000000, 0, 0), PF);
    EQ(trap.error, PF_P | PF_RSVD);
    paging_off();
}
TEST(write_protect) {
    paging_on(0);
    table[6] = (word)page_alloc() | P;
    write_cr0(read_cr0() & ~(word)CR0_WP);
    EQ(TRY("mov %%al, (%%edi)", WINDOW + 0x6000, 0, 0), NONE);
    write_cr0(read_cr0() | CR0_WP);
    EQ(TRY("mov %%al, (%%edi)", WINDOW + 0x6000, 0, 0), PF);
    paging_off();
}
TEST(global_page_survives_mov_cr3) { // it may: what must hold is that INVLPG drops it
    u8 *a = page_alloc(), *b = page_alloc();

    *a = 1;
    *b = 2;
    paging_on(CR4_PGE);
    table[7] = (word)a | P | RW | G;
    EQ(*(volatile u8 *)(WINDOW + 0x7000), 1);
    table[7] = (word)b | P | RW | G;
    invlpg(WINDOW + 0x7000);
    EQ(*(volatile u8 *)(WINDOW + 0x7000), 2);
    paging_off();
}
BLOB(user_read, 32, "mov (%edi), %eax; int $0x80");
TEST(user_and_supervisor_pages) {
    static u8 stack[512] __attribute__((aligned(16)));

    paging_on(0);
    table[8] = (word)page_alloc() | P | RW;
    entry.ip = (word)user_read;
    entry.cs = UCS32;
    entry.sp = (word)stack + sizeof(stack);
    EQ(ENTER(WINDOW + 0x8000, 0, 0), PF);
    EQ(trap.error, PF_P | PF_U);
    table[8] |= US;
    entry.ip = (word)user_read;
    EQ(ENTER(WINDOW + 0x8000, 0, 0), LEAVE);
    paging_off();
}

// ---- PAE ----

static u64 pointers[4] __attribute__((aligned(32))), *pae_dir, *pae_high;
static void pae_on(void) {
    if (!pae_dir) {
        pae_dir = page_alloc();
        pae_high = page_alloc();
    }
    for (unsigned i = 0; i < 512; i++) {
        pae_dir[i] = (u64)i << 21 | PS | P | RW;
        pae_high[i] = 0;
    }
    pointers[0] = (word)pae_dir | P;
    pointers[1] = (word)pae_high | P;
    pointers[2] = pointers[3] = 0;
    write_cr4(CR4_PAE);
    write_cr3((word)pointers);
    write_cr0(read_cr0() | CR0_PG | CR0_WP);
}
TEST(pae_pages) {
    u64 *t = page_alloc();
    u32 *page = page_alloc();

    pae_on();
    t[2] = (word)page | P | RW;
    pae_high[0] = (word)t | P | RW;
    *(volatile u32 *)(WINDOW + 0x2008) = 77;
    EQ(page[2], 77);
    EQ(t[2] & (A | D), A | D);
    pae_high[1] = 0x1800000 | PS | P | RW;
    *(volatile u32 *)(WINDOW + 0x200000) = 88;
    EQ(*(volatile u32 *)0x1800000, 88);
    paging_off();
}
TEST(pae_pointers_are_read_with_cr3) {
    u32 *page = page_alloc();
    u64 *t = page_alloc(), *other = page_alloc();

    pae_on();
    t[0] = (word)page | P | RW;
    other[0] = (word)t | P | RW;
    pointers[1] = (word)other | P; // not seen yet
    EQ(TRY("mov (%%edi), %%al", WINDOW, 0, 0), PF);
    write_cr3((word)pointers);
    EQ(TRY("mov (%%edi), %%al", WINDOW, 0, 0), NONE);
    paging_off();
}
TEST(pae_reserved_pointer_bits) {
    pae_on();
    pointers[2] = (word)pae_high | P | RW; // RW is reserved there
    EQ(TRY("mov %%edi, %%cr3", pointers, 0, 0), GP);
    EQ(trap.error, 0);
    pointers[2] = 0;
    paging_off();
}
TEST(pae_nx) {
    u64 *t = page_alloc();
    u8 *page = page_alloc();

    page[0] = 0xc3;
    pae_on();
    t[0] = (word)page | P | RW | 1ull << 63;
    pae_high[0] = (word)t | P | RW;
    EQ(TRY("mov (%%edi), %%al", WINDOW, 0, 0), PF); // reserved without NXE
    EQ(trap.error, PF_P | PF_RSVD);
    wrmsr(0xc0000080, 0x800);
    EQ(TRY("mov (%%edi), %%al", WINDOW, 0, 0), NONE);
    EQ(TRY("call *%%edi", WINDOW, 0, 0), PF);
    EQ(trap.error, PF_P | PF_I);
    t[0] &= ~(1ull << 63);
    invlpg(WINDOW);
    EQ(TRY("call *%%edi", WINDOW, 0, 0), NONE);
    wrmsr(0xc0000080, 0);
    paging_off();
}
TEST(long_mode_needs_pae) {
    paging_on(0);
    paging_off();
    wrmsr(0xc0000080, 0x100);
    write_cr3((word)directory);
    EQ(TRY("mov %%cr0, %%eax; or %%edi, %%eax; mov %%eax, %%cr0", CR0_PG, 0, 0), GP);
    wrmsr(0xc0000080, 0);
}
