// SPDX-License-Identifier: Apache-2.0
// The 17 instructions of x86 that are sensitive but unprivileged (Robin and Irvine, 2000): at CPL 3 they do not trap,
// yet they read or depend on state that a virtual machine must have for itself. Each is run at CPL 3 and gets the
// guest's own answer; a line says what plain trap-and-emulate, which runs the guest deprivileged on the bare processor,
// would have made of it, and whether UMIP turns it into a trap.
// beds: xlate kvm-amd kvm-intel (docs/BEDS.md)
#include "pagetables.h"

static void wrong(const char *text) {
    print("  ");
    print(text);
    print("\n");
}

// 64-bit unless it says 32; the result is in EAX/RAX, other results in the memory at RDI.
#define SENSITIVE(name, mode, text, trap_and_emulate)                                                                  \
    BLOB(code_##name, mode, text "; int $0x80");                                                                       \
    static void check_##name(void);                                                                                    \
    TEST(name) {                                                                                                       \
        entry.flags = 2;                                                                                               \
        wrong(#name ": trap-and-emulate: " trap_and_emulate);                                                          \
        check_##name();                                                                                                \
    }                                                                                                                  \
    static void check_##name(void)
#define RUN64(name, di, si, dx) EQ(user64(code_##name, di, si, dx), LEAVE)
#define RUN32(name, di, si, dx) EQ(user32(code_##name, di, si, dx), LEAVE)

// UMIP: with it #GP(0), which a monitor can take.
static void umip(const void *code, u64 di) {
    if (!HAS_UMIP)
        return;
    write_cr4(read_cr4() | CR4_UMIP);
    EQ(user64(code, di, 0, 0), GP);
    EQ(trap.error, 0);
    wrong("    with UMIP: traps (#GP), so a monitor can answer");
}
static void no_umip(void) {
    wrong("    with UMIP: no change");
}

SENSITIVE(sgdt, 64, "sgdt (%rdi)", "stores the base and limit of the host's GDT") {
    RUN64(sgdt, USER_DATA, 0, 0);
    EQ((u16)user_data[0], 0x3ff);
    EQ(user_data[0] >> 16 | user_data[1] << 48, (word)gdt);
    umip(code_sgdt, USER_DATA);
}
SENSITIVE(sidt, 64, "sidt (%rdi)", "stores the base and limit of the host's IDT (the 'red pill')") {
    RUN64(sidt, USER_DATA, 0, 0);
    EQ((u16)user_data[0], sizeof(idt) - 1);
    EQ(user_data[0] >> 16 | user_data[1] << 48, (word)idt);
    umip(code_sidt, USER_DATA);
}
SENSITIVE(sldt, 64, "mov $-1, %rax; sldt %rax", "gives the host's LDT selector") {
    gdt[SEL_FREE / 8] = 0x0000820000000007ull;
    asm volatile("lldt %w0" ::"r"(SEL_FREE));
    RUN64(sldt, 0, 0, 0);
    EQ(trap.f.ax, SEL_FREE);
    umip(code_sldt, 0);
}
SENSITIVE(smsw, 64, "smsw %rax", "gives the host's CR0 (PE, MP, TS and NE as the host set them)") {
    write_cr0(read_cr0() | CR0_TS);
    RUN64(smsw, 0, 0, 0);
    EQ(trap.f.ax & 0xffff, read_cr0() & 0xffff);
    CHECK(trap.f.ax & CR0_TS);
    umip(code_smsw, 0);
}
SENSITIVE(str, 64, "mov $-1, %rax; str %rax", "gives the host's task register") {
    RUN64(str, 0, 0, 0);
    EQ(trap.f.ax, SEL_TSS);
    umip(code_str, 0);
}
SENSITIVE(pushf, 64, "pushf; pop %rax", "a deprivileged kernel sees IF = 1 and IOPL = 0 of the host, not its own") {
    entry.flags = 2 | FL_IOPL | FL_CF;
    RUN64(pushf, 0, 0, 0);
    EQ(trap.f.ax, 2 | FL_IOPL | FL_CF); // IF is 0, as the guest's kernel has it
    EQ(TRY0("pushf; pop %%rax; sti; pushf; pop %%rcx; cli; and $0x200, %%ecx; or %%rcx, %%rax"), NONE);
    EQ(trap.ax & FL_IF, FL_IF); // and at CPL 0 it follows STI
    no_umip();
}
SENSITIVE(popf, 64, "push $0x202; popf; pushf; pop %rax",
          "at CPL 3 a change of IF is ignored without a trap, so a deprivileged kernel's POPF does nothing") {
    RUN64(popf, 0, 0, 0);
    EQ(trap.f.ax & FL_IF, 0); // rightly ignored here: this is the guest's user mode
    EQ(TRY0("pushf; orl $0x200, (%%rsp); popf; pushf; pop %%rax; cli"), NONE);
    EQ(trap.ax & FL_IF, FL_IF); // and rightly done here
    no_umip();
}
SENSITIVE(lar, 64, "xor %eax, %eax; lar %edx, %eax; setz %cl",
          "reads the host's GDT, and DPL checks use the true CPL") {
    gdt[SEL_FREE / 8] = 0x004cf50000001234; // a conforming-like odd descriptor that no host has
    RUN64(lar, 0, 0, SEL_FREE | 3);
    EQ(trap.f.cx & 1, 1);
    EQ(trap.f.ax & 0xf0ff00, 0x40f500);
    RUN64(lar, 0, 0, KDS); // supervisor segment: not visible at CPL 3
    EQ(trap.f.cx & 1, 0);
    no_umip();
}
SENSITIVE(lsl, 64, "xor %eax, %eax; lsl %edx, %eax; setz %cl", "reads the host's GDT") {
    gdt[SEL_FREE / 8] = 0x0040f30000004321;
    RUN64(lsl, 0, 0, SEL_FREE | 3);
    EQ(trap.f.cx & 1, 1);
    EQ(trap.f.ax, 0x4321);
    no_umip();
}
SENSITIVE(verr_verw, 64, "xor %eax, %eax; verr %dx; setz %al; verw %dx; setz %ah", "reads the host's GDT") {
    gdt[SEL_FREE / 8] = 0x00cff1000000ffff; // user data, read-only
    RUN64(verr_verw, 0, 0, SEL_FREE | 3);
    EQ(trap.f.ax, 1);
    RUN64(verr_verw, 0, 0, UDS);
    EQ(trap.f.ax, 0x101);
    RUN64(verr_verw, 0, 0, KDS);
    EQ(trap.f.ax, 0);
    no_umip();
}
SENSITIVE(pop_segment, 32, "pushl %edx; popl %es; movl %es:(%edi), %eax; mov %es, %ecx",
          "loads from the host's GDT and checks against the true CPL") {
    gdt[SEL_FREE / 8] = 0x0000f3000000ffff | (USER_DATA & 0xffffff) << 16 | (USER_DATA >> 24) << 56;
    user_setup();
    user_data[2] = 0x77777777;
    RUN32(pop_segment, 16, 0, SEL_FREE | 3);
    EQ(trap.f.ax, 0x77777777);
    EQ(trap.f.cx & 0xffff, SEL_FREE | 3);
    EQ(user32(code_pop_segment, 0, 0, KDS), GP);
    EQ(trap.error, KDS);
    no_umip();
}
SENSITIVE(push_segment, 32, "push %cs; pop %eax",
          "shows the RPL of a deprivileged kernel's CS (1 or 3 where the kernel expects 0)") {
    RUN32(push_segment, 0, 0, 0);
    EQ(trap.f.ax, UCS32);
    EQ(TRY0("push $0x18; lea 1f(%%rip), %%rax; push %%rax; lretq; .code32; 1: push %%cs; pop %%eax; ljmp $8, $2f;"
            ".code64; 2:"),
       NONE);
    EQ(trap.ax, KCS32);
    no_umip();
}
extern char sensitive_gate[];
asm("sensitive_gate: mov $0x5e5e, %ebx; lretq");
SENSITIVE(call_far, 64, "lea 1f(%rip), %rax; lcall *(%rax); jmp 2f; 1: .long 0; .word 0x5b; 2:",
          "goes through the host's call gates, or faults where the guest has one") {
    u64 to = (word)sensitive_gate;

    gdt[SEL_FREE / 8] = (to & 0xffff) | (u64)KCS << 16 | 0xecull << 40 | (to >> 16 & 0xffff) << 48;
    RUN64(call_far, 0, 0, 0);
    EQ(trap.f.bx, 0x5e5e);
    EQ(trap.f.cs, UCS64);
    no_umip();
}
SENSITIVE(jmp_far, 32, "ljmp $0x5b, $0; 1:", "jumps by the host's descriptors") {
    // The guest's own code descriptor: user code whose base makes offset 0 the blob's LEAVE.
    extern char code_leave[];
    u64 base = user_address(code_leave);

    user_setup();

    gdt[SEL_FREE / 8] = 0x00cffb000000ffff | (base & 0xffffff) << 16 | (base >> 24) << 56;
    RUN32(jmp_far, 0, 0, 0);
    EQ(trap.f.cs, SEL_FREE | 3);
    EQ(trap.f.ip, 2);
    no_umip();
}
BLOB(code_leave, 32, "int $0x80");
SENSITIVE(int_n, 64, "int $0x91", "enters the host's kernel by its IDT, or checks the DPL of the host's gate") {
    EQ(user64(code_int_n, 0, 0, 0), GP);
    EQ(trap.error, 0x91 * 8 + 2);
    idt_set(0x91, trap_entries + 16 * 0x91, KCS, GATE_INT, 3, 0);
    EQ(user64(code_int_n, 0, 0, 0), 0x91);
    no_umip();
}
SENSITIVE(ret_far, 64,
          "pushq $0x23; lea 1f(%rip), %rax; push %rax; lretq; .code32; 1: mov %cs, %eax; int $0x80; .code64",
          "loads the host's descriptors and checks the true CPL") {
    RUN64(ret_far, 0, 0, 0);
    EQ(trap.f.ax, UCS32);
    EQ(trap.f.cs, UCS32);
    no_umip();
}
SENSITIVE(mov_segment, 64, "mov %ss, %eax; mov %cs, %ecx; mov %edx, %ds; mov %ds, %ebx",
          "shows and loads the host's selectors, with the RPL of a deprivileged kernel") {
    RUN64(mov_segment, 0, 0, UDS);
    EQ(trap.f.ax, UDS);
    EQ(trap.f.cx, UCS64);
    EQ(trap.f.bx, UDS);
    EQ(user64(code_mov_segment, 0, 0, KDS), GP);
    EQ(trap.error, KDS);
    no_umip();
}
