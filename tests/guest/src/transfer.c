// SPDX-License-Identifier: Apache-2.0
// Control transfers in long mode: SYSCALL, SYSRET, SYSENTER, SYSEXIT, IRET, far branches, call gates, compatibility
// mode with its segment limits.
// beds: xlate kvm-amd kvm-intel (docs/BEDS.md)
#include "pagetables.h"

#define NON_CANONICAL 0x0000900000000000ull

enum { MSR_SYSENTER_CS = 0x174, MSR_SYSENTER_ESP, MSR_SYSENTER_EIP };
enum { MSR_EFER = 0xc0000080u, MSR_STAR, MSR_LSTAR, MSR_CSTAR, MSR_FMASK };
enum { EFER_SCE = 1 };

// Entries of the supervisor: each says by a vector of its own how it was reached.
extern char entry_syscall[], entry_cstar[], entry_sysenter[], entry_gate[];
asm("entry_syscall: int $0x92\n"
    "entry_cstar: int $0x93\n"
    "entry_sysenter: int $0x94\n"
    "entry_gate: int $0x95\n");

static void syscall_on(u64 fmask) {
    wrmsr(MSR_EFER, rdmsr(MSR_EFER) | EFER_SCE);
    wrmsr(MSR_STAR, (u64)0x20 << 48 | (u64)KCS << 32);
    wrmsr(MSR_LSTAR, (word)entry_syscall);
    wrmsr(MSR_CSTAR, (word)entry_cstar);
    wrmsr(MSR_FMASK, fmask);
}

// ---- SYSCALL ----

BLOB(do_syscall, 64, "std; syscall; nop; int $0x80");
TEST(syscall_state) {
    syscall_on(FL_DF | FL_IF);
    EQ(user64(do_syscall, 1, 2, 3), 0x92);
    EQ(trap.f.cs, KCS);
    EQ(trap.f.ss, KDS);
    EQ(trap.f.sp, USER_STACK);
    EQ(trap.f.cx, user_address(do_syscall) + 3);
    EQ(trap.f.r11, 2 | FL_DF);
    EQ(trap.f.flags, 2);
    EQ(trap.f.di, 1);
}
TEST(syscall_keeps_flags_that_fmask_leaves) {
    syscall_on(0);
    EQ(user64(do_syscall, 0, 0, 0), 0x92);
    EQ(trap.f.flags & FL_DF, FL_DF);
}
TEST(syscall_without_sce) {
    wrmsr(MSR_EFER, rdmsr(MSR_EFER) & ~(u64)EFER_SCE);
    EQ(user64(do_syscall, 0, 0, 0), UD);
    EQ(TRY0("sysretq"), UD);
}
TEST(syscall_from_the_supervisor) {
    syscall_on(0);
    EQ(TRY0("syscall"), 0x92);
}
BLOB(stepped_syscall, 64, "pushf; orl $0x100, (%rsp); popf; syscall; nop; int $0x80");
TEST(syscall_with_tf_masked_does_not_step_the_supervisor) {
    syscall_on(FL_TF);
    EQ(user64(stepped_syscall, 0, 0, 0), 0x92);
    EQ(trap.f.r11 & FL_TF, FL_TF);
    EQ(trap.f.flags & FL_TF, 0);
}
TEST(syscall_with_tf_left_steps_the_supervisor) {
    syscall_on(0);
    EQ(user64(stepped_syscall, 0, 0, 0), DB);
    CHECK(trap.f.ip == (word)entry_syscall);
    EQ(read_dr6() & 0x4000, 0x4000);
}
BLOB(compat_syscall, 32, "syscall; int $0x80");
TEST(syscall_in_compatibility_mode) { // Intel: undefined; AMD: CSTAR
    u32 r[4];

    cpuid(0, 0, r);
    syscall_on(0);
    EQ(user32(compat_syscall, 0, 0, 0), r[1] == 0x756e6547 ? UD : 0x93);
}
TEST(lstar_must_be_canonical) {
    EQ(TRY("mov $0xc0000082, %%ecx; mov %%edi, %%eax; mov %%rdi, %%rdx; shr $32, %%rdx; wrmsr", NON_CANONICAL, 0, 0),
       GP);
}

// ---- SYSRET ----

BLOB(after_sysret, 64, "int $0x80");
BLOB(after_sysret32, 32, "int $0x80");
#define SYSRET(kind, ip, flags) TRY("mov %%rdi, %%rcx; mov %%rsi, %%r11; " kind, ip, flags, 0)
TEST(sysretq_state) {
    syscall_on(0);
    user_setup();
    EQ(SYSRET("mov $0x40200000, %%esp; sysretq", user_address(after_sysret), FL_CF | FL_RF | FL_VM | FL_DF | FL_AC),
       LEAVE);
    EQ(trap.f.cs, UCS64);
    EQ(trap.f.ss, UDS);
    EQ(trap.f.flags & ~(word)2, FL_CF | FL_DF | FL_AC);
}
TEST(sysretl_goes_to_compatibility_mode) {
    syscall_on(0);
    EQ(SYSRET("mov $0x40200000, %%esp; sysretl", user_address(after_sysret32), 0), LEAVE);
    EQ(trap.f.cs, UCS32);
    EQ(trap.f.ss, UDS);
}
TEST(sysretq_to_a_non_canonical_address) { // Intel: #GP of the supervisor; AMD: of the user
    u32 r[4];

    cpuid(0, 0, r);
    syscall_on(0);
    tss.ist[3] = tss.rsp[0];
    idt_set(GP, trap_entries + 16 * GP, KCS, GATE_INT, 0, 3);
    EQ(SYSRET("sysretq", NON_CANONICAL, 0), GP);
    EQ(trap.error, 0);
    EQ(trap.f.cs, r[1] == 0x756e6547 ? KCS : UCS64);
}
BLOB(user_sysret, 64, "sysretq");
TEST(sysret_at_cpl3) {
    syscall_on(0);
    EQ(user64(user_sysret, 0, 0, 0), GP);
    EQ(trap.error, 0);
}
TEST(sysretq_with_if_opens_interrupts_and_tf_steps) {
    syscall_on(0);
    EQ(SYSRET("mov $0x40200000, %%esp; sysretq", user_address(after_sysret), FL_TF), DB);
    // TF takes effect after SYSRET (the trap comes at its target) or after the instruction behind.
    CHECK(trap.f.ip == user_address(after_sysret));
}

// ---- SYSENTER, SYSEXIT ----

BLOB(do_sysenter, 64, "sti; 1: sysenter; int $0x80");
BLOB(compat_sysenter, 32, "sysenter; int $0x80");
static word sysenter_stack[64];
static bool sysenter_missing(void) { // AMD's processors have neither in long mode (APM vol. 3)
    u32 r[4];

    cpuid(0, 0, r);
    if (r[1] == 0x756e6547)
        return false;
    skip_test("no SYSENTER and SYSEXIT in long mode");
    return true;
}
static void sysenter_on(void) {
    wrmsr(MSR_SYSENTER_CS, KCS);
    wrmsr(MSR_SYSENTER_ESP, (word)&sysenter_stack[60]);
    wrmsr(MSR_SYSENTER_EIP, (word)entry_sysenter);
}
TEST(sysenter_state) {
    if (sysenter_missing())
        return;
    sysenter_on();
    entry.flags = 2 | FL_IOPL;
    EQ(user64(do_sysenter, 0, 0, 0), 0x94);
    EQ(trap.f.cs, KCS);
    EQ(trap.f.ss, KDS);
    EQ(trap.f.sp, (word)&sysenter_stack[60]);
    EQ(trap.f.flags & FL_IF, 0);
}
TEST(sysenter_from_compatibility_mode) {
    if (sysenter_missing())
        return;
    sysenter_on();
    EQ(user32(compat_sysenter, 0, 0, 0), 0x94);
    EQ(trap.f.cs, KCS);
}
TEST(sysenter_with_null_cs) {
    if (sysenter_missing())
        return;
    wrmsr(MSR_SYSENTER_CS, 0);
    EQ(user32(compat_sysenter, 0, 0, 0), GP);
    EQ(trap.error, 0);
    EQ(trap.f.ip, user_address(compat_sysenter));
}
TEST(sysexit_64) {
    if (sysenter_missing())
        return;
    wrmsr(MSR_SYSENTER_CS, KCS); // CS = base + 32 = 0x28, SS = base + 40 = 0x30: not what the GDT holds, and not read
    EQ(TRY("mov %%rdi, %%rdx; mov %%rsi, %%rcx; sysexitq", user_address(after_sysret), USER_STACK, 0), LEAVE);
    EQ(trap.f.cs, 0x2b);
    EQ(trap.f.ss, 0x33);
    EQ(trap.f.sp, USER_STACK);
}
TEST(sysexit_32) {
    if (sysenter_missing())
        return;
    wrmsr(MSR_SYSENTER_CS, KCS);
    EQ(TRY("mov %%rdi, %%rdx; mov %%rsi, %%rcx; sysexit", user_address(after_sysret32), USER_STACK, 0), LEAVE);
    EQ(trap.f.cs, 0x1b);
    EQ(trap.f.ss, 0x23);
}
TEST(sysexit_non_canonical) {
    if (sysenter_missing())
        return;
    wrmsr(MSR_SYSENTER_CS, KCS);
    EQ(TRY("mov %%rdi, %%rdx; mov %%rsi, %%rcx; sysexitq", NON_CANONICAL, USER_STACK, 0), GP);
    EQ(trap.f.cs, KCS);
}
BLOB(user_sysexit, 64, "sysexitq");
TEST(sysexit_at_cpl3) {
    if (sysenter_missing())
        return;
    EQ(user64(user_sysexit, 0, 0, 0), GP);
}

// ---- IRET ----

static int iret_to(u64 ip, u16 cs, u64 flags, u64 sp, u16 ss) {
    entry.ip = ip;
    entry.cs = cs;
    entry.flags = flags;
    entry.sp = sp;
    entry.ss = ss;
    tss.ist[3] = tss.rsp[0];
    idt_set(GP, trap_entries + 16 * GP, KCS, GATE_INT, 0, 3);
    idt_set(SS, trap_entries + 16 * SS, KCS, GATE_INT, 0, 3);
    idt_set(NP, trap_entries + 16 * NP, KCS, GATE_INT, 0, 3);
    return (int)ENTER(0, 0, 0);
}
#define IRET_CASE(name, to_ip, to_cs, fl, to_sp, to_ss, vec, err)                                                      \
    TEST(name) {                                                                                                       \
        EQ(iret_to(to_ip, to_cs, fl, to_sp, to_ss), vec);                                                              \
        EQ(trap.error, err);                                                                                           \
        EQ(trap.f.cs, KCS);                                                                                            \
    }
#define UCODE user_address(after_sysret)
IRET_CASE(iret_to_a_non_canonical_address, NON_CANONICAL, UCS64, 2, USER_STACK, UDS, GP, 0)
IRET_CASE(iret_to_the_null_selector, UCODE, 0, 2, USER_STACK, UDS, GP, 0)
IRET_CASE(iret_to_data, UCODE, UDS, 2, USER_STACK, UDS, GP, UDS & ~3)
IRET_CASE(iret_beyond_the_gdt, UCODE, 0x7fb, 2, USER_STACK, UDS, GP, 0x7f8)
IRET_CASE(iret_to_code_of_another_dpl, UCODE, KCS | 3, 2, USER_STACK, UDS, GP, KCS)
IRET_CASE(iret_to_user_with_null_stack, UCODE, UCS64, 2, USER_STACK, 0, GP, 0)
IRET_CASE(iret_to_user_with_supervisor_stack, UCODE, UCS64, 2, USER_STACK, KDS, GP, KDS)
IRET_CASE(iret_to_user_with_code_as_stack, UCODE, UCS64, 2, USER_STACK, UCS64, GP, UCS64 & ~3)
TEST(iret_to_missing_segments) {
    gdt[SEL_FREE / 8] = gdt[UCS64 / 8] & ~(1ull << 47);
    EQ(iret_to(UCODE, SEL_FREE | 3, 2, USER_STACK, UDS), NP);
    EQ(trap.error, SEL_FREE);
    gdt[SEL_FREE / 8] = gdt[UDS / 8] & ~(1ull << 47);
    EQ(iret_to(UCODE, UCS64, 2, USER_STACK, SEL_FREE | 3), SS);
    EQ(trap.error, SEL_FREE);
}
TEST(iret_with_nt) {
    tss.ist[3] = tss.rsp[0];
    idt_set(GP, trap_entries + 16 * GP, KCS, GATE_INT, 0, 3);
    EQ(TRY("pushf; orl $0x4000, (%%rsp); popf; iretq", 0, 0, 0), GP);
    EQ(trap.error, 0);
    asm volatile("pushf; andl $~0x4000, (%%rsp); popf" ::: "memory", "cc");
}
TEST(iret_flags_for_the_user) {
    EQ(iret_to(UCODE, UCS64, 2 | FL_CF | FL_DF | FL_AC | FL_ID | FL_IOPL | FL_NT, USER_STACK, UDS), LEAVE);
    EQ(trap.f.flags, 2 | FL_CF | FL_DF | FL_AC | FL_ID | FL_IOPL | FL_NT);
}
BLOB(user_iret, 64,
     "pushq $0x2b; pushq $0x40200000; pushq $0x3202; pushq $0x33; lea 1f(%rip), %rax; push %rax; iretq;"
     "1: int $0x80");
TEST(iret_at_cpl3_changes_neither_iopl_nor_if) {
    EQ(user64(user_iret, 0, 0, 0), LEAVE);
    EQ(trap.f.flags & (FL_IOPL | FL_IF), 0);
}
BLOB(user_iret_inwards, 64, "pushq $0x10; push %rsp; pushq $2; pushq $8; lea 1f(%rip), %rax; push %rax; 1: iretq");
TEST(iret_cannot_go_inwards) {
    EQ(user64(user_iret_inwards, 0, 0, 0), GP);
    EQ(trap.error, KCS);
}
TEST(iret_pops_the_stack_in_the_same_level) {
    EQ(TRY("mov %%rsp, %%rbx; push $0x10; push %%rdi; pushf; push $8; lea 1f(%%rip), %%rax; push %%rax; iretq;"
           "1: mov %%rsp, %%rax",
           (word)&sysenter_stack[32], 0, 0),
       NONE);
    EQ(trap.ax, (word)&sysenter_stack[32]);
}
TEST(iret_with_32_bit_operands) {
    EQ(TRY("mov %%rsp, %%rbx; sub $20, %%rsp; movl $1f, (%%rsp); movl $8, 4(%%rsp); movl $2, 8(%%rsp);"
           "mov %%ebx, 12(%%rsp); movl $0x10, 16(%%rsp); iretl; ud2; 1: mov $5, %%eax",
           0, 0, 0),
       NONE);
    EQ(trap.ax, 5);
}
TEST(iret_nulls_segments_that_the_user_may_not_have) {
    entry.data_sel = KDS;
    EQ(iret_to(user_address(after_sysret), UCS64, 2, USER_STACK, UDS), LEAVE);
    u16 ds;
    asm volatile("mov %%ds, %0" : "=r"(ds));
    EQ(ds, 0);
}

// ---- far branches ----

#pragma pack(1)
struct far64 {
    u64 ip;
    u16 cs;
};
struct far32 {
    u32 ip;
    u16 cs;
};
#pragma pack()
TEST(far_jump_and_return) {
    EQ(TRY("push $8; lea 1f(%%rip), %%rax; push %%rax; lretq; ud2; 1: mov $3, %%eax", 0, 0, 0), NONE);
    EQ(trap.ax, 3);
    struct far32 to = {0, KCS};
    EQ(TRY("lea 1f(%%rip), %%rax; mov %%eax, (%%rdi); ljmp *(%%rdi); ud2; 1: mov $4, %%eax", &to, 0, 0), NONE);
    EQ(trap.ax, 4);
}
TEST(far_call_pushes_cs_and_rip) {
    struct far64 to = {0, KCS};
    EQ(TRY("mov %%rsp, %%rbx; lea 1f(%%rip), %%rax; mov %%rax, (%%rdi); rex.W lcall *(%%rdi); 2: ud2;"
           "1: pop %%rax; lea 2b(%%rip), %%rcx; sub %%rcx, %%rax; pop %%rcx; shl $8, %%rcx; or %%rcx, %%rax;"
           "sub %%rsp, %%rbx; or %%rbx, %%rax",
           &to, 0, 0),
       NONE);
    EQ(trap.ax, KCS << 8);
}
TEST(far_jump_to_compatibility_code_and_back) {
    EQ(TRY("push $0x18; lea 1f(%%rip), %%rax; push %%rax; lretq; .code32; 1: mov $-1, %%eax; inc %%eax; .byte 0x40;"
           "ljmp $8, $2f; .code64; 2:",
           0, 0, 0),
       NONE);
    EQ(trap.ax, 1); // 0x40 was INC EAX, not a prefix
}
TEST(far_jump_to_a_non_canonical_address) {
    struct far64 to = {NON_CANONICAL, KCS};
    EQ(TRY("rex.W ljmp *(%%rdi)", &to, 0, 0), GP);
    EQ(trap.off, 0);
}
TEST(far_jump_to_user_code) {
    struct far32 to = {0, UCS64};
    EQ(TRY("ljmp *(%%rdi)", &to, 0, 0), GP);
    EQ(trap.error, UCS64 & ~3);
}
TEST(far_return_to_the_user) {
    EQ(TRY("push $0x2b; push %%rsi; push $0x33; push %%rdi; lretq", user_address(after_sysret), USER_STACK, 0), LEAVE);
    EQ(trap.f.cs, UCS64);
    EQ(trap.f.sp, USER_STACK);
}
TEST(far_return_releases_bytes_of_both_stacks) {
    EQ(TRY("push $0x2b; push %%rsi; push $0; push $0; push $0x33; push %%rdi; lretq $16", user_address(after_sysret),
           USER_STACK - 64, 0),
       LEAVE);
    EQ(trap.f.sp, USER_STACK - 48);
}

// ---- call gates ----

static void call_gate(unsigned dpl, u16 sel, const void *target, bool present) {
    u64 to = (word)target;

    gdt[SEL_FREE / 8] =
        (to & 0xffff) | (u64)sel << 16 | (u64)((present ? 0x80 : 0) | dpl << 5 | 12) << 40 | (to >> 16 & 0xffff) << 48;
    gdt[SEL_FREE / 8 + 1] = to >> 32;
}
BLOB(call_through_gate, 64, "lea 1f(%rip), %rax; lcall *(%rax); int $0x80; 1: .long 0; .word 0x5b");
BLOB(jump_through_gate, 64, "lea 1f(%rip), %rax; ljmp *(%rax); int $0x80; 1: .long 0; .word 0x5b");
BLOB(compat_call_gate, 32, "lcall $0x5b, $0; int $0x80");
TEST(call_gate_to_the_supervisor) {
    call_gate(3, KCS, entry_gate, true);
    EQ(user64(call_through_gate, 0, 0, 0), 0x95);
    EQ(trap.f.cs, KCS);
    EQ(trap.f.ss, 0); // null SS of the new level
    EQ(trap.f.sp, tss.rsp[0] - 32);
    u64 *stack = (u64 *)trap.f.sp;
    EQ(stack[0], user_address(call_through_gate) + 9);
    EQ(stack[1], UCS64);
    EQ(stack[2], USER_STACK);
    EQ(stack[3], UDS);
}
TEST(call_gate_from_compatibility_mode) {
    call_gate(3, KCS, entry_gate, true);
    EQ(user32(compat_call_gate, 0, 0, 0), 0x95);
    EQ(((u64 *)trap.f.sp)[0], user_address(compat_call_gate) + 7);
}
extern char gate_returns[];
asm("gate_returns: mov $0x1234, %edx; lretq");
TEST(call_gate_and_far_return) {
    call_gate(3, KCS, gate_returns, true);
    EQ(user64(call_through_gate, 0, 0, 0), LEAVE);
    EQ(trap.f.dx, 0x1234);
    EQ(trap.f.cs, UCS64);
    EQ(trap.f.sp, USER_STACK);
}
TEST(call_gate_refuses) {
    call_gate(0, KCS, entry_gate, true);
    EQ(user64(call_through_gate, 0, 0, 0), GP);
    EQ(trap.error, SEL_FREE);
    call_gate(3, KCS, entry_gate, false);
    EQ(user64(call_through_gate, 0, 0, 0), NP);
    EQ(trap.error, SEL_FREE);
    call_gate(3, KCS32, entry_gate, true);
    EQ(user64(call_through_gate, 0, 0, 0), GP);
    EQ(trap.error, KCS32);
    call_gate(3, 0, entry_gate, true);
    EQ(user64(call_through_gate, 0, 0, 0), GP);
    EQ(trap.error, 0);
    call_gate(3, KCS, entry_gate, true);
    EQ(user64(jump_through_gate, 0, 0, 0), GP); // a jump cannot change the level
    EQ(trap.error, KCS);
}
TEST(call_gate_with_a_bad_upper_half) {
    call_gate(3, KCS, entry_gate, true);
    gdt[SEL_FREE / 8 + 1] |= 1ull << 40; // its type must be 0
    EQ(user64(call_through_gate, 0, 0, 0), GP);
    EQ(trap.error, SEL_FREE);
}

// ---- compatibility mode: segments have bases and limits ----

static u64 data_desc(u32 base, u32 limit, unsigned type) { // byte granular, DPL 3, 32-bit
    return (limit & 0xffff) | (u64)(base & 0xffffff) << 16 | (u64)(0xf0 | type) << 40 |
           (u64)(0x40 | (limit >> 16 & 15)) << 48 | (u64)(base >> 24) << 56;
}
BLOB(ds_load, 32, "mov %edx, %ds; mov (%edi), %eax; int $0x80");
BLOB(ds_store, 32, "mov %edx, %ds; mov %esi, (%edi); int $0x80");
BLOB(ds_load_64, 64, "mov %edx, %ds; mov (%rdi), %eax; int $0x80");
BLOB(cs_load, 32, "mov %cs:(%edi), %eax; int $0x80");
BLOB(cs_store, 32, "mov %eax, %cs:(%edi); int $0x80");
BLOB(ss_load, 32, "mov %edx, %ss; mov (%esp), %eax; int $0x80");
BLOB(null_load, 32, "xor %eax, %eax; mov %eax, %es; mov %es:(%edi), %eax; int $0x80");
TEST(compat_segment_base) {
    gdt[SEL_FREE / 8] = data_desc(USER_DATA, 0xff, 3);
    user_setup();
    user_data[1] = 0xabcdef;
    EQ(user32(ds_load, 8, 0, SEL_FREE | 3), LEAVE);
    EQ(trap.f.ax, 0xabcdef);
    EQ(user64(ds_load_64, USER_DATA + 8, 0, SEL_FREE | 3), LEAVE); // no base in 64-bit mode
    EQ(trap.f.ax, 0xabcdef);
}
TEST(compat_segment_limit) {
    gdt[SEL_FREE / 8] = data_desc(USER_DATA, 0xff, 3);
    EQ(user32(ds_load, 0xfc, 0, SEL_FREE | 3), LEAVE);
    EQ(user32(ds_load, 0xfd, 0, SEL_FREE | 3), GP);
    EQ(trap.error, 0);
    EQ(user32(ds_store, 0xfd, 0, SEL_FREE | 3), GP);
    EQ(user64(ds_load_64, USER_DATA + 0x800, 0, SEL_FREE | 3), LEAVE);
}
TEST(compat_expand_down) {
    gdt[SEL_FREE / 8] = data_desc(USER_DATA, 0xff, 7);
    EQ(user32(ds_load, 0xff, 0, SEL_FREE | 3), GP);
    EQ(user32(ds_load, 0x100, 0, SEL_FREE | 3), LEAVE);
}
TEST(compat_read_only_data) {
    gdt[SEL_FREE / 8] = data_desc(USER_DATA, 0xff, 1);
    EQ(user32(ds_load, 0, 0, SEL_FREE | 3), LEAVE);
    EQ(user32(ds_store, 0, 0, SEL_FREE | 3), GP);
    EQ(user32(cs_load, USER_DATA, 0, 0), LEAVE);
    EQ(user32(cs_store, USER_DATA, 0, 0), GP);
}
TEST(compat_stack_limit_is_ss) {
    gdt[SEL_FREE / 8] = data_desc(USER_DATA, 0xff, 3);
    EQ(user32(ss_load, 0, 0, SEL_FREE | 3), SS);
    EQ(trap.error, 0);
}
TEST(compat_null_selector) {
    EQ(user32(null_load, USER_DATA, 0, 0), GP);
    EQ(trap.error, 0);
}
BLOB(compat_wrap, 32, "mov $0xffffffff, %eax; mov (%edi, %eax), %al; int $0x80");
TEST(compat_addresses_wrap_at_4_gib) {
    EQ(user32(compat_wrap, (u32)USER_DATA + 1, 0, 0), LEAVE);
}
BLOB(compat_regs, 32, "mov $-1, %eax; int $0x80");
TEST(compat_writes_clear_upper_halves) {
    EQ(user32(compat_regs, 0, 0, 0), LEAVE);
    EQ(trap.f.ax, 0xffffffff);
}
BLOB(compat_16, 16, "mov $0x1234, %ax; push %ax; pop %bx; inc %bx; int $0x80");
TEST(compat_16_bit_code) {
    gdt[SEL_FREE / 8] = data_desc(USER, 0xffff, 11) & ~(0x40ull << 48);
    entry.cs = SEL_FREE | 3;
    entry.ip = (u64)(compat_16 - blob_begin);
    entry.sp = USER_STACK;
    EQ(ENTER(0, 0, 0), LEAVE);
    EQ(trap.f.bx & 0xffff, 0x1235);
    EQ(trap.f.sp, USER_STACK);
}
BLOB(far_32, 32, "mov %esp, %ebp; lcall $0x23, $0");
TEST(compat_code_limit) {
    gdt[SEL_FREE / 8] = data_desc(USER, 0x10, 11);
    entry.cs = SEL_FREE | 3;
    entry.ip = 0x20;
    entry.sp = USER_STACK;
    EQ(ENTER(0, 0, 0), GP);
    EQ(trap.error, 0);
}
