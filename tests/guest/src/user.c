// SPDX-License-Identifier: Apache-2.0
// What user mode may not do, in long mode: privileged instructions, I/O permission, flags, UMIP, TSD; and what may be
// asked about selectors (LAR, LSL, VERR, VERW); control registers and MSRs from the supervisor.
// beds: xlate kvm-amd kvm-intel dev (docs/BEDS.md)
#include "pagetables.h"

// ---- privileged instructions at CPL 3: #GP(0) at the instruction ----

#define PRIVILEGED(name, text)                                                                                         \
    BLOB(code_##name, 64, "nop; " text "; int $0x80");                                                                 \
    TEST(privileged_##name) {                                                                                          \
        EQ(user64(code_##name, USER_DATA, 0, 0), GP);                                                                  \
        EQ(trap.error, 0);                                                                                             \
        EQ(trap.f.ip, user_address(code_##name) + 1);                                                                  \
        EQ(user32(code_##name, USER_DATA, 0, 0), GP);                                                                  \
    }
PRIVILEGED(hlt, "hlt")
PRIVILEGED(cli, "cli")
PRIVILEGED(sti, "sti")
PRIVILEGED(in, "in $0x71, %al")
PRIVILEGED(out, "out %al, $0x80")
PRIVILEGED(ins, ".byte 0x6c")
PRIVILEGED(rep_outs, ".byte 0xf3, 0x6e")
PRIVILEGED(mov_from_cr0, ".byte 0x0f, 0x20, 0xc0")
PRIVILEGED(mov_to_cr3, ".byte 0x0f, 0x22, 0xd8")
PRIVILEGED(mov_from_cr4, ".byte 0x0f, 0x20, 0xe0")
PRIVILEGED(mov_from_dr7, ".byte 0x0f, 0x21, 0xf8")
PRIVILEGED(mov_to_dr0, ".byte 0x0f, 0x23, 0xc0")
PRIVILEGED(lgdt, ".byte 0x0f, 0x01, 0x17")
PRIVILEGED(lidt, ".byte 0x0f, 0x01, 0x1f")
PRIVILEGED(lldt, ".byte 0x0f, 0x00, 0xd0")
PRIVILEGED(ltr, ".byte 0x0f, 0x00, 0xd8")
PRIVILEGED(lmsw, ".byte 0x0f, 0x01, 0xf0")
PRIVILEGED(clts, "clts")
PRIVILEGED(invd, "invd")
PRIVILEGED(wbinvd, "wbinvd")
PRIVILEGED(invlpg, ".byte 0x0f, 0x01, 0x3f")
PRIVILEGED(rdmsr, "rdmsr")
PRIVILEGED(wrmsr, "wrmsr")
PRIVILEGED(rdpmc, "rdpmc")
BLOB(code_swapgs, 64, "swapgs; int $0x80");
TEST(privileged_swapgs) {
    EQ(user64(code_swapgs, 0, 0, 0), GP);
}
BLOB(code_xsetbv, 64, "xor %ecx, %ecx; mov $3, %eax; xor %edx, %edx; xsetbv; int $0x80");
TEST(privileged_xsetbv) {
    if (!has(1, 2, 26)) {
        skip_test("no XSAVE");
        return;
    }
    write_cr4(read_cr4() | CR4_OSXSAVE);
    EQ(user64(code_xsetbv, 0, 0, 0), GP);
}
BLOB(code_cr8, 64, "mov %cr8, %rax; int $0x80");
TEST(privileged_mov_from_cr8) {
    EQ(user64(code_cr8, 0, 0, 0), GP);
}
BLOB(code_monitor, 64, "mov %rsp, %rax; xor %ecx, %ecx; xor %edx, %edx; monitor; int $0x80");
TEST(monitor_at_cpl3_is_undefined) {
    EQ(user64(code_monitor, 0, 0, 0), UD);
}

// ---- I/O permission ----

BLOB(in_byte, 64, "in %dx, %al; int $0x80");
BLOB(in_word, 64, "in %dx, %ax; int $0x80");
BLOB(in_dword, 64, "in %dx, %eax; int $0x80");
static void port(unsigned p, bool allowed) {
    tss.bitmap[p / 8] = (u8)(allowed ? tss.bitmap[p / 8] & ~(1u << p % 8) : tss.bitmap[p / 8] | 1u << p % 8);
}
TEST(iopl_3_opens_all_ports) {
    entry.flags = 2 | FL_IOPL;
    EQ(user64(in_byte, 0, 0, 0x80), LEAVE);
}
TEST(iopl_2_does_not) {
    entry.flags = 2 | 0x2000;
    EQ(user64(in_byte, 0, 0, 0x80), GP);
}
TEST(bitmap_opens_one_port) {
    port(0x80, true);
    EQ(user64(in_byte, 0, 0, 0x80), LEAVE);
    EQ(user64(in_byte, 0, 0, 0x81), GP);
    EQ(user64(in_word, 0, 0, 0x80), GP);
}
TEST(bitmap_wants_every_port_of_an_access) {
    port(0x87, true);
    port(0x88, true);
    EQ(user64(in_word, 0, 0, 0x87), LEAVE); // over a byte of the bitmap
    EQ(user64(in_dword, 0, 0, 0x87), GP);
    port(0x89, true);
    port(0x8a, true);
    EQ(user64(in_dword, 0, 0, 0x87), LEAVE);
}
TEST(bitmap_ends_at_the_tss_limit) {
    for (unsigned i = 0; i < sizeof(tss.bitmap); i++)
        tss.bitmap[i] = 0;
    gdt[SEL_TSS / 8] = (gdt[SEL_TSS / 8] & ~0xffffull & ~(15ull << 48) & ~(2ull << 40)) | (104 + 17);
    asm volatile("ltr %w0" ::"r"(SEL_TSS));
    EQ(user64(in_byte, 0, 0, 0x80), LEAVE); // bytes 16 and 17 are there
    EQ(user64(in_byte, 0, 0, 0x88), GP);    // byte 18 is not, and two are always read
}
TEST(bitmap_beyond_the_limit_means_none) {
    tss.iomap = 0xffff;
    EQ(user64(in_byte, 0, 0, 0x80), GP);
}

// ---- flags ----

BLOB(popf_all, 64, "push $0x47fd7 - 0x100; popf; int $0x80");
TEST(popf_at_cpl3_changes_neither_if_nor_iopl) {
    EQ(user64(popf_all, 0, 0, 0), LEAVE);
    EQ(trap.f.flags, (0x47fd7 - 0x100) & ~(FL_IF | FL_IOPL));
}
TEST(popf_with_iopl_3_changes_if) {
    entry.flags = 2 | FL_IOPL;
    EQ(user64(popf_all, 0, 0, 0), LEAVE);
    EQ(trap.f.flags & (FL_IF | FL_IOPL), FL_IF | FL_IOPL);
}
BLOB(cli_sti, 64, "sti; cli; int $0x80");
TEST(cli_and_sti_with_iopl_3) {
    entry.flags = 2 | FL_IOPL;
    EQ(user64(cli_sti, 0, 0, 0), LEAVE);
}
TEST(popf_at_cpl0_changes_iopl) {
    EQ(TRY("pushf; pop %%rbx; push %%rdi; popf; pushf; pop %%rax; push %%rbx; popf", 2 | FL_IOPL | FL_NT, 0, 0), NONE);
    EQ(trap.ax, 2 | FL_IOPL | FL_NT);
}
TEST(popf_ignores_vm_and_clears_rf) {
    EQ(TRY("pushf; pop %%rbx; push %%rdi; popf; pushf; pop %%rax; push %%rbx; popf", 2 | FL_VM | FL_RF, 0, 0), NONE);
    EQ(trap.ax, 2);
}
TEST(popf_of_16_bits_keeps_the_rest) {
    EQ(TRY("pushf; orl $0x240000, (%%rsp); popf; pushw $1; popfw; pushf; pop %%rax; push $2; popf", 0, 0, 0), NONE);
    EQ(trap.ax & (FL_AC | FL_ID | FL_CF), FL_AC | FL_ID | FL_CF);
}
TEST(sahf_and_lahf) {
    EQ(TRY("mov $0xff00, %%eax; sahf; xor %%eax, %%eax", 0, 0, 0), NONE);
    EQ(TRY("mov $0xff00, %%eax; sahf; lahf", 0, 0, 0), NONE);
    EQ(trap.ax & 0xff00, 0xd700);
}

// ---- UMIP, TSD, PCE, FSGSBASE ----

#define UMIP_CASE(name, text)                                                                                          \
    BLOB(umip_##name, 64, text "; int $0x80");                                                                         \
    TEST(umip_##name##_traps) {                                                                                        \
        EQ(user64(umip_##name, USER_DATA, 0, 0), LEAVE);                                                               \
        if (!HAS_UMIP) {                                                                                               \
            skip_test("no UMIP");                                                                                      \
            return;                                                                                                    \
        }                                                                                                              \
        write_cr4(read_cr4() | CR4_UMIP);                                                                              \
        EQ(user64(umip_##name, USER_DATA, 0, 0), GP);                                                                  \
        EQ(trap.error, 0);                                                                                             \
        EQ(trap.f.ip, user_address(umip_##name));                                                                      \
    }
UMIP_CASE(sgdt, "sgdt (%rdi)")
UMIP_CASE(sidt, "sidt (%rdi)")
UMIP_CASE(sldt, "sldt %eax")
UMIP_CASE(str, "str %eax")
UMIP_CASE(smsw, "smsw %eax")
TEST(umip_leaves_the_supervisor_alone) {
    if (HAS_UMIP)
        write_cr4(read_cr4() | CR4_UMIP);
    EQ(TRY("sgdt (%%rdi); sidt (%%rdi); sldt %%eax; str %%eax", page_alloc(), 0, 0), NONE);
    EQ(trap.ax, SEL_TSS);
}
BLOB(user_rdtsc, 64, "rdtsc; int $0x80");
BLOB(user_rdtscp, 64, "rdtscp; int $0x80");
TEST(tsd_guards_rdtsc) {
    EQ(user64(user_rdtsc, 0, 0, 0), LEAVE);
    write_cr4(read_cr4() | CR4_TSD);
    EQ(user64(user_rdtsc, 0, 0, 0), GP);
    if (has(0x80000001, 3, 27))
        EQ(user64(user_rdtscp, 0, 0, 0), GP);
    EQ(TRY0("rdtsc"), NONE);
}
TEST(rdtscp_gives_tsc_aux) {
    if (!has(0x80000001, 3, 27)) {
        skip_test("no RDTSCP");
        return;
    }
    wrmsr(0xc0000103, 0x42);
    EQ(TRY0("rdtscp; mov %%ecx, %%eax"), NONE);
    EQ(trap.ax, 0x42);
}
TEST(fsgsbase_needs_its_bit) {
    EQ(TRY0("rdfsbase %%rax"), UD);
    if (!has(7, 1, 0)) {
        skip_test("no FSGSBASE");
        return;
    }
    write_cr4(read_cr4() | CR4_FSGSBASE);
    EQ(TRY("wrfsbase %%rdi; rdfsbase %%rax", 0x123456789, 0, 0), NONE);
    EQ(trap.ax, 0x123456789);
    EQ(rdmsr(0xc0000100), 0x123456789);
    EQ(TRY("wrgsbase %%rdi", 0x900000000000, 0, 0), GP);
    EQ(TRY("wrfsbase %%edi; rdfsbase %%rax", 0xffffffff12345678, 0, 0), NONE);
    EQ(trap.ax, 0x12345678);
    wrmsr(0xc0000100, 0);
}
TEST(fs_base_is_used) {
    u64 *page = page_alloc();

    page[3] = 99;
    wrmsr(0xc0000100, (word)page);
    EQ(TRY0("mov %%fs:24, %%rax"), NONE);
    EQ(trap.ax, 99);
    EQ(TRY("mov $0x10, %%eax; mov %%eax, %%fs; mov %%fs:(%%rdi), %%rax", &page[3], 0, 0), NONE);
    EQ(trap.ax, 99);
    EQ(rdmsr(0xc0000100), 0);
}

// ---- LAR, LSL, VERR, VERW ----

// RAX: the result, bit 63: ZF.
#define ASK(insn, sel) (TRY(insn "; setz %%cl; movzx %%cl, %%ecx; shl $63, %%rcx; or %%rcx, %%rax", 0, 0, sel), trap.ax)
#define ZF             (1ull << 63)
TEST(lar_gives_access_rights) {
    EQ(ASK("xor %%eax, %%eax; lar %%edx, %%eax", KDS) & ~0xf0000ull, ZF | 0xc09300); // bits 19:16 are undefined
    EQ(ASK("xor %%eax, %%eax; lar %%edx, %%eax", UCS64) & ~0xf0000ull, ZF | 0xa0fb00);
    EQ(ASK("xor %%eax, %%eax; lar %%dx, %%ax", KDS), ZF | 0x9300);
    EQ(ASK("mov $7, %%eax; lar %%edx, %%eax", 0), 7);
    EQ(ASK("mov $7, %%eax; lar %%edx, %%eax", 0x7f8), 7);
    EQ(ASK("mov $7, %%eax; lar %%edx, %%eax", SEL_TSS) & ~0xf0000ull, ZF | 0x8b00);
}
TEST(lar_of_gates) {
    gdt[SEL_FREE / 8] = 0x00008c0000080000;
    EQ(ASK("mov $7, %%eax; lar %%edx, %%eax", SEL_FREE) >> 8 & 0xff, 0x8c); // call gate: yes
    gdt[SEL_FREE / 8] = 0x00008e0000080000;
    EQ(ASK("mov $7, %%eax; lar %%edx, %%eax", SEL_FREE), 7); // interrupt gate: no
}
TEST(lsl_gives_the_limit) {
    EQ(ASK("xor %%eax, %%eax; lsl %%edx, %%eax", KDS), ZF | 0xffffffff);
    EQ(ASK("xor %%eax, %%eax; lsl %%edx, %%eax", DS16), ZF | 0xffff);
    EQ(ASK("xor %%eax, %%eax; lsl %%edx, %%eax", SEL_TSS), ZF | (sizeof(tss) - 1));
    EQ(ASK("mov $7, %%eax; lsl %%edx, %%eax", 0), 7);
    gdt[SEL_FREE / 8] = 0x00008c0000080000;
    EQ(ASK("mov $7, %%eax; lsl %%edx, %%eax", SEL_FREE), 7);
}
TEST(verr_and_verw) {
    EQ(ASK("xor %%eax, %%eax; verr %%dx", KDS), ZF);
    EQ(ASK("xor %%eax, %%eax; verw %%dx", KDS), ZF);
    EQ(ASK("xor %%eax, %%eax; verr %%dx", KCS), ZF);
    EQ(ASK("xor %%eax, %%eax; verw %%dx", KCS), 0);
    EQ(ASK("xor %%eax, %%eax; verr %%dx", SEL_TSS), 0);
    EQ(ASK("xor %%eax, %%eax; verr %%dx", 0), 0);
    EQ(ASK("xor %%eax, %%eax; verr %%dx", KDS | 3), 0); // RPL counts
}
BLOB(user_verr, 64,
     "xor %eax, %eax; verr %dx; setz %al; lar %edx, %ecx; setz %ah; lsl %edx, %ecx; setz %bl; int $0x80");
TEST(selector_checks_at_cpl3) {
    EQ(user64(user_verr, 0, 0, KDS), LEAVE);
    EQ(trap.f.ax, 0);
    EQ(trap.f.bx & 0xff, 0);
    EQ(user64(user_verr, 0, 0, UDS), LEAVE);
    EQ(trap.f.ax, 0x101);
    EQ(trap.f.bx & 0xff, 1);
}
BLOB(user_arpl, 32, "mov $0x10, %eax; mov $3, %ecx; arpl %cx, %ax; setz %cl; int $0x80");
TEST(arpl_in_compatibility_mode) {
    EQ(user32(user_arpl, 0, 0, 0), LEAVE);
    EQ(trap.f.ax, 0x13);
    EQ(trap.f.cx & 0xff, 1);
}

// ---- control registers ----

#define CR_CASE(name, cr, value)                                                                                       \
    TEST(name) {                                                                                                       \
        word before = read_##cr();                                                                                     \
        EQ(TRY("nop; mov %%rdi, %%" #cr, value, 0, 0), GP);                                                            \
        EQ(trap.error, 0);                                                                                             \
        EQ(trap.off, 1);                                                                                               \
        EQ(read_##cr(), before);                                                                                       \
    }
CR_CASE(cr0_pg_without_pe, cr0, 0x80010032)
CR_CASE(cr0_nw_without_cd, cr0, 0xa0010033)
CR_CASE(cr0_upper_half, cr0, 0x180010033)
CR_CASE(cr4_reserved_bit, cr4, CR4_PAE | 1 << 15)
CR_CASE(cr4_upper_half, cr4, CR4_PAE | 1ull << 32)
CR_CASE(cr4_pae_cannot_go_in_long_mode, cr4, 0)
CR_CASE(cr4_vmxe_is_not_offered, cr4, CR4_PAE | 1 << 13)
TEST(cr8_takes_four_bits) {
    EQ(TRY("mov %%rdi, %%cr8", 16, 0, 0), GP);
    EQ(TRY("mov %%rdi, %%cr8; mov %%cr8, %%rax", 9, 0, 0), NONE);
    EQ(trap.ax, 9);
    EQ(TRY("mov %%rdi, %%cr8", 0, 0, 0), NONE);
}
TEST(cr0_et_is_always_set_and_reserved_bits_of_the_lower_half_ignored) {
    EQ(TRY("mov %%rdi, %%cr0; mov %%cr0, %%rax", 0x80010023, 0, 0), NONE);
    EQ(trap.ax, 0x80010033);
}
TEST(lmsw_sets_but_never_clears_pe) {
    EQ(TRY("lmsw %%di; mov %%cr0, %%rax", 0x3a, 0, 0), NONE);
    EQ(trap.ax & 0xf, 0xb);
    EQ(TRY0("smsw %%rax; clts"), NONE);
    EQ(trap.ax & 0xffff, 0x3b);
}
TEST(mov_cr_ignores_mod) { // MOD is taken as 3
    EQ(TRY0(".byte 0x0f, 0x20, 0x00"), NONE);
    EQ(trap.ax, read_cr0());
}

// ---- model-specific registers ----

#define WRMSR(msr, v) TRY("mov %%edi, %%ecx; mov %%esi, %%eax; mov %%rsi, %%rdx; shr $32, %%rdx; wrmsr", msr, v, 0)
#define RDMSR(msr)    TRY("mov %%edi, %%ecx; rdmsr", msr, 0, 0)
TEST(unknown_msr) {
    EQ(RDMSR(0x12345678), GP);
    EQ(trap.error, 0);
    EQ(WRMSR(0x12345678, 0), GP);
}
TEST(efer_checks) {
    EQ(WRMSR(0xc0000080, rdmsr(0xc0000080) | 2), GP);
    EQ(WRMSR(0xc0000080, rdmsr(0xc0000080) & ~0x100ull), GP); // LME while paging is on
    EQ(rdmsr(0xc0000080) & 0xd00, 0xd00);
}
TEST(base_msrs_must_be_canonical) {
    EQ(WRMSR(0xc0000100, 0x900000000000), GP);
    EQ(WRMSR(0xc0000101, 0x900000000000), GP);
    EQ(WRMSR(0xc0000102, 0x900000000000), GP);
    EQ(WRMSR(0x175, 0x900000000000), GP);
    EQ(WRMSR(0x176, 0x900000000000), GP);
}
TEST(pat_checks_types) {
    u64 pat = rdmsr(0x277);

    EQ(WRMSR(0x277, 0x0007040600070402), GP);
    EQ(WRMSR(0x277, 0x0007040600070408), GP);
    EQ(WRMSR(0x277, 0x0007050600070406), NONE);
    EQ(rdmsr(0x277), 0x0007050600070406);
    wrmsr(0x277, pat);
}
TEST(mtrr_cap_is_read_only) {
    EQ(WRMSR(0xfe, 0), GP);
}
TEST(apic_base_reserved_bits) {
    EQ(WRMSR(0x1b, rdmsr(0x1b) | 1), GP);
}
TEST(tsc_can_be_written) {
    wrmsr(0x10, 0x100000000000);
    CHECK(rdtsc() >= 0x100000000000 && rdtsc() < 0x101000000000);
    CHECK(rdmsr(0x10) >= 0x100000000000);
}
TEST(cpuid_clears_upper_halves) {
    EQ(TRY0("mov $-1, %%rax; mov %%rax, %%rbx; mov %%rax, %%rcx; xor %%eax, %%eax; dec %%rax; mov $0, %%eax; cpuid;"
            "shr $32, %%rbx; mov %%rbx, %%rax"),
       NONE);
    EQ(trap.ax, 0);
}
TEST(xsetbv_checks) {
    if (!has(1, 2, 26)) {
        skip_test("no XSAVE");
        return;
    }
    write_cr4(read_cr4() | CR4_OSXSAVE);
    EQ(TRY("xor %%ecx, %%ecx; xor %%edx, %%edx; mov %%edi, %%eax; xsetbv", 2, 0, 0), GP); // without x87
    EQ(TRY("xor %%ecx, %%ecx; xor %%edx, %%edx; mov %%edi, %%eax; xsetbv", 5, 0, 0), GP); // AVX without SSE
    EQ(TRY("mov $1, %%ecx; xor %%edx, %%edx; mov %%edi, %%eax; xsetbv", 3, 0, 0), GP);    // no XCR1
    EQ(TRY("xor %%ecx, %%ecx; xor %%edx, %%edx; mov %%edi, %%eax; xsetbv; xgetbv", 3, 0, 0), NONE);
    EQ(trap.ax, 3);
}
TEST(avx_needs_xcr0) {
    if (!has(1, 2, 28)) {
        skip_test("no AVX");
        return;
    }
    write_cr4(read_cr4() | CR4_OSXSAVE | CR4_OSFXSR);
    EQ(TRY0("xor %%ecx, %%ecx; xor %%edx, %%edx; mov $3, %%eax; xsetbv; vpxor %%ymm0, %%ymm0, %%ymm0"), UD);
    EQ(TRY0("xor %%ecx, %%ecx; xor %%edx, %%edx; mov $7, %%eax; xsetbv; vpxor %%ymm0, %%ymm0, %%ymm0"), NONE);
    write_cr4(read_cr4() & ~(word)CR4_OSXSAVE);
    EQ(TRY0("vpxor %%ymm0, %%ymm0, %%ymm0"), UD);
}
