// SPDX-License-Identifier: Apache-2.0
// Interrupts: shadows of STI and MOV SS, HLT, NMI blocking, priorities, and every source: local APIC timer in all
// modes, x2APIC, self IPIs, PIC, PIT, RTC, I/O APIC, kvmclock.
// beds: xlate kvm-amd kvm-intel (docs/BEDS.md)
#include "apic.h"
#include "pagetables.h"

static volatile unsigned got[256], order[8], norder;
static volatile word got_ip;
static bool take(struct frame *f) {
    got[f->vector]++;
    got_ip = f->ip;
    if (norder < 8)
        order[norder++] = (unsigned)f->vector;
    eoi();
    return true;
}
static bool take_pic(struct frame *f) {
    got[f->vector]++;
    got_ip = f->ip;
    outb(0xa0, 0x20);
    outb(0x20, 0x20);
    return true;
}
static void begin(void) {
    for (unsigned i = 0; i < 256; i++)
        got[i] = 0;
    norder = 0;
    for (unsigned v = 32; v < 256; v++)
        if (v != LEAVE)
            handlers[v] = take;
    apic_on();
}
static bool wait_for(unsigned vector, unsigned n) { // about two seconds at most
    u64 end = rdtsc() + 6000000000ull;

    while (got[vector] < n && rdtsc() < end)
        asm volatile("sti; nop; cli" ::: "memory");
    return got[vector] >= n;
}
static void self(unsigned vector) {
    ipi(0, ICR_SELF | ICR_ASSERT | vector);
}

// ---- when an interrupt is taken ----

TEST(self_ipi_is_taken_after_sti) {
    begin();
    self(0x60);
    EQ(got[0x60], 0);
    EQ(TRY0("sti; nop; 5: nop; cli"), NONE);
    EQ(got[0x60], 1);
}
#define AT(label) (word) trap.ax // RAX is set by the code to the address of its label
TEST(sti_shadow_is_one_instruction) {
    begin();
    self(0x60);
    EQ(TRY0("lea 5f(%%rip), %%rax; sti; nop; 5: nop; nop; cli"), NONE);
    EQ(got_ip, AT(5));
}
TEST(sti_cli_takes_nothing) {
    begin();
    self(0x60);
    EQ(TRY0("sti; cli; nop; nop"), NONE);
    EQ(got[0x60], 0);
    EQ(TRY0("sti; nop; nop; cli"), NONE);
    EQ(got[0x60], 1);
}
TEST(second_sti_opens_no_second_shadow) {
    begin();
    self(0x60);
    EQ(TRY0("lea 5f(%%rip), %%rax; sti; sti; 5: nop; nop; cli"), NONE);
    EQ(got_ip, AT(5));
}
TEST(mov_ss_shadow) {
    begin();
    EQ(TRY("mov %%ss, %%ecx; lea 5f(%%rip), %%rax; sti; nop; movl $0x44060, 0x300(%%rdi); mov %%ecx, %%ss; nop; 5: nop;"
           "nop; cli",
           0xfee00000, 0, 0),
       NONE);
    EQ(got[0x60], 1); // the ICR write may be served at once or behind the shadow, but not inside it
    CHECK(got_ip != AT(5) - 1);
}
TEST(popf_opens_without_a_shadow) {
    begin();
    self(0x60);
    EQ(TRY0("lea 5f(%%rip), %%rax; pushf; orl $0x200, (%%rsp); popf; 5: nop; nop; cli"), NONE);
    EQ(got_ip, AT(5));
}
TEST(iret_opens_without_a_shadow) {
    begin();
    self(0x60);
    EQ(TRY0("mov %%rsp, %%rcx; push $0x10; push %%rcx; pushf; orl $0x200, (%%rsp); push $8; lea 5f(%%rip), %%rax;"
            "push %%rax; iretq; 5: nop; nop; cli"),
       NONE);
    EQ(got_ip, AT(5));
}
TEST(pending_interrupt_before_a_fault) {
    begin();
    self(0x60);
    EQ(TRY0("lea 5f(%%rip), %%rax; sti; nop; 5: ud2"), UD);
    EQ(got[0x60], 1);
    EQ(got_ip, AT(5));
}
TEST(user_mode_is_interrupted) {
    BLOB(user_spin, 64, "1: cmpl $0, (%rdi); je 1b; int $0x80");
    begin();
    user_setup();
    *user_data = 0;
    apic_write(APIC_LVT_TIMER, 0x61);
    apic_write(APIC_INITIAL, 2000000);
    entry.flags = 2 | FL_IF;
    handlers[0x61] = 0; // ends the TRY
    EQ(user64(user_spin, USER_DATA, 0, 0), 0x61);
    EQ(trap.f.cs, UCS64);
    eoi();
}
TEST(higher_vector_first) {
    begin();
    self(0x50);
    self(0x90);
    self(0x70);
    EQ(TRY0("sti; nop; nop; nop; nop; cli"), NONE);
    EQ(order[0], 0x90);
    EQ(order[1], 0x70);
    EQ(order[2], 0x50);
}
TEST(tpr_holds_back_its_class) {
    begin();
    apic_write(APIC_TPR, 0x70);
    self(0x7f);
    self(0x80 + 1);
    EQ(TRY0("sti; nop; nop; cli"), NONE);
    EQ(got[0x81], 1);
    EQ(got[0x7f], 0);
    EQ(apic_read(APIC_IRR + 0x30) >> 31, 1);
    apic_write(APIC_TPR, 0);
    EQ(TRY0("sti; nop; nop; cli"), NONE);
    EQ(got[0x7f], 1);
}
TEST(cr8_is_the_tpr) {
    begin();
    asm volatile("mov %0, %%cr8" ::"r"(6ul));
    EQ(apic_read(APIC_TPR), 0x60);
    self(0x65);
    EQ(TRY0("sti; nop; nop; cli"), NONE);
    EQ(got[0x65], 0);
    EQ(TRY("sti; mov %%rdi, %%cr8; nop; cli", 0, 0, 0), NONE); // opens at once
    EQ(got[0x65], 1);
}
TEST(in_service_blocks_until_eoi) {
    begin();
    handlers[0x60] = 0;
    self(0x60);
    EQ(TRY0("sti; nop; nop; cli"), 0x60);
    EQ(apic_read(APIC_ISR + 0x30) & 1, 1);
    EQ(apic_read(APIC_PPR), 0x60);
    self(0x65);
    EQ(TRY0("sti; nop; nop; cli"), NONE); // same class
    EQ(got[0x65], 0);
    eoi();
    EQ(TRY0("sti; nop; nop; cli"), NONE);
    EQ(got[0x65], 1);
}
TEST(same_vector_twice_is_once) {
    begin();
    self(0x60);
    self(0x60);
    EQ(TRY0("sti; nop; nop; nop; cli"), NONE);
    EQ(got[0x60], 1);
}
TEST(illegal_vector_is_an_apic_error) {
    begin();
    apic_write(APIC_ESR, 0);
    self(5);
    apic_write(APIC_ESR, 0);
    EQ(apic_read(APIC_ESR) & 0x60, 0x20 | (apic_read(APIC_ESR) & 0x40));
}

// ---- NMI ----

static unsigned nmis;
static bool nested_nmi(struct frame *f) {
    if (++nmis == 1) {
        ipi(0, ICR_ASSERT | ICR_NMI); // waits: NMIs are blocked until IRET
        for (volatile unsigned i = 0; i < 1000; i++)
            ;
        CHECK(nmis == 1);
    }
    return true;
}
TEST(nmi_is_blocked_until_iret) {
    begin();
    nmis = 0;
    handlers[NMI] = nested_nmi;
    EQ(TRY("movl $0, 0x310(%%rdi); movl $0x4400, 0x300(%%rdi); nop; nop; nop; nop", 0xfee00000, 0, 0), NONE);
    for (volatile unsigned i = 0; i < 1000; i++)
        ;
    EQ(nmis, 2);
}
static bool faulting_nmi(struct frame *f) {
    if (++nmis == 1) {
        ipi(0, ICR_ASSERT | ICR_NMI);
        asm volatile("int3"); // its IRET opens NMIs again
        CHECK(nmis == 2);
    }
    return true;
}
static bool resume_nop(struct frame *f) {
    return true;
}
TEST(iret_of_any_handler_opens_nmis) {
    begin();
    nmis = 0;
    handlers[NMI] = faulting_nmi;
    handlers[BP] = resume_nop;
    idt_set(NMI, trap_entries + 16 * NMI, KCS, GATE_INT, 0, 0); // on the current stack: it nests
    ipi(0, ICR_ASSERT | ICR_NMI);
    for (volatile unsigned i = 0; i < 1000; i++)
        ;
    EQ(nmis, 2);
}
TEST(nmi_in_spite_of_if) {
    begin();
    nmis = 0;
    handlers[NMI] = nested_nmi;
    nmis = 1;
    cli();
    ipi(0, ICR_ASSERT | ICR_NMI);
    for (volatile unsigned i = 0; i < 1000; i++)
        ;
    EQ(nmis, 2);
}

// ---- HLT ----

TEST(hlt_wakes_up) {
    begin();
    apic_write(APIC_LVT_TIMER, 0x61);
    apic_write(APIC_INITIAL, 1000000); // 1 ms
    EQ(TRY0("lea 5f(%%rip), %%rax; sti; hlt; 5: cli"), NONE);
    EQ(got[0x61], 1);
    EQ(got_ip, AT(5));
}
TEST(hlt_with_an_interrupt_pending_goes_on) {
    begin();
    self(0x60);
    EQ(TRY0("lea 5f(%%rip), %%rax; sti; hlt; 5: cli"), NONE);
    EQ(got[0x60], 1);
    EQ(got_ip, AT(5));
}
TEST(hlt_wakes_by_nmi_with_interrupts_off) {
    begin();
    nmis = 1;
    handlers[NMI] = nested_nmi;
    apic_write(APIC_LVT_TIMER, 0x400); // delivery mode NMI is reserved for the timer: it sends vector 0 or nothing
    apic_write(APIC_LVT_TIMER, LVT_MASKED);
    apic_write(APIC_LVT_LINT1, 0x400);
    ioapic_route(8, 0x400); // RTC as NMI
    outb(0x70, 0x0a), outb(0x71, 0x2f);
    outb(0x70, 0x0b), outb(0x71, 0x42); // periodic
    outb(0x70, 0x0c), inb(0x71);
    u64 end = rdtsc() + 6000000000ull;
    asm volatile("hlt");
    CHECK(rdtsc() < end);
    CHECK(nmis > 1);
    outb(0x70, 0x0b), outb(0x71, 2);
    ioapic_route(8, LVT_MASKED);
    outb(0x70, 0x0c), inb(0x71);
}

// ---- local APIC timer ----

TEST(timer_one_shot_fires_once) {
    begin();
    apic_write(APIC_LVT_TIMER, 0x61);
    apic_write(APIC_INITIAL, 100000);
    CHECK(wait_for(0x61, 1));
    CHECK(!apic_read(APIC_CURRENT));
    u64 end = rdtsc() + 10000000;
    while (rdtsc() < end)
        asm volatile("sti; nop; cli");
    EQ(got[0x61], 1);
}
TEST(no_interrupt_is_lost) { // however it falls between STI and CLI
    begin();
    apic_write(APIC_LVT_TIMER, 0x61);
    for (unsigned i = 1; i <= 1000; i++) {
        apic_write(APIC_INITIAL, 1000 + 37 * i % 5000);
        if (!wait_for(0x61, i)) {
            check_failed("lost", i, 0, __LINE__);
            break;
        }
    }
}
TEST(timer_periodic_goes_on) {
    begin();
    apic_write(APIC_LVT_TIMER, TIMER_PERIODIC | 0x61);
    apic_write(APIC_INITIAL, 300000);
    CHECK(wait_for(0x61, 10));
    apic_write(APIC_INITIAL, 0); // stops it
    asm volatile("sti; nop; nop; cli");
    unsigned n = got[0x61];
    u64 end = rdtsc() + 10000000;
    while (rdtsc() < end)
        asm volatile("sti; nop; cli");
    CHECK(got[0x61] <= n + 1);
}
TEST(timer_counts_down) {
    begin();
    apic_write(APIC_LVT_TIMER, LVT_MASKED | 0x61);
    apic_write(APIC_INITIAL, 0xffffffff);
    u32 a = apic_read(APIC_CURRENT), b;
    for (volatile unsigned i = 0; i < 10000; i++)
        ;
    b = apic_read(APIC_CURRENT);
    CHECK(b < a);
    apic_write(APIC_INITIAL, 0);
    EQ(apic_read(APIC_CURRENT), 0);
}
TEST(timer_divider) {
    u32 slow, fast;

    begin();
    apic_write(APIC_LVT_TIMER, LVT_MASKED | 0x61);
    apic_write(APIC_DIVIDE, 0xb); // 1
    apic_write(APIC_INITIAL, 0xffffffff);
    u64 end = rdtsc() + 30000000;
    while (rdtsc() < end)
        ;
    fast = 0xffffffff - apic_read(APIC_CURRENT);
    apic_write(APIC_DIVIDE, 0xa); // 128
    apic_write(APIC_INITIAL, 0xffffffff);
    end = rdtsc() + 30000000;
    while (rdtsc() < end)
        ;
    slow = 0xffffffff - apic_read(APIC_CURRENT);
    CHECK(fast / (slow ? slow : 1) > 20); // the host may be busy: between 20 and 128 times
    CHECK(slow > 0);
    apic_write(APIC_INITIAL, 0);
}
// Arms the timer, and disarms it at once if asked; returns what its register then reads. A host that let the deadline
// pass meanwhile has decided nothing: what came of it is taken and the same is done again. got[0x61] begins at 0.
static u64 arm_deadline(u64 *when, bool disarm) {
    u64 reads = 0;

    for (int tries = 0; tries < 100; tries++) {
        got[0x61] = 0;
        *when = rdtsc() + 5000000;
        wrmsr(0x6e0, *when);
        if (disarm)
            wrmsr(0x6e0, 0);
        reads = rdmsr(0x6e0);
        if (rdtsc() < *when)
            break;
        wrmsr(0x6e0, 0);
        asm volatile("sti; nop; cli");
    }
    return reads;
}
TEST(timer_tsc_deadline) {
    if (!has(1, 2, 24)) {
        skip_test("no TSC deadline");
        return;
    }
    begin();
    apic_write(APIC_LVT_TIMER, TIMER_DEADLINE | 0x61);
    u64 when, armed = arm_deadline(&when, false);
    EQ(armed, when);
    CHECK(wait_for(0x61, 1));
    CHECK(rdtsc() >= when);
    EQ(rdmsr(0x6e0), 0); // disarmed
    wrmsr(0x6e0, 1);     // in the past: at once
    CHECK(wait_for(0x61, 2));
    EQ(arm_deadline(&when, true), 0); // disarmed before it fires
    u64 end = when + 3000000;
    while (rdtsc() < end)
        asm volatile("sti; nop; cli");
    EQ(got[0x61], 0);
}
TEST(deadline_msr_reads_0_in_another_mode) {
    begin();
    apic_write(APIC_LVT_TIMER, 0x61);
    if (!has(1, 2, 24)) {
        skip_test("no TSC deadline");
        return;
    }
    wrmsr(0x6e0, rdtsc() + 1000);
    EQ(rdmsr(0x6e0), 0);
}
TEST(masked_timer_stays_silent) {
    begin();
    apic_write(APIC_LVT_TIMER, LVT_MASKED | 0x61);
    apic_write(APIC_INITIAL, 10000);
    u64 end = rdtsc() + 10000000;
    while (rdtsc() < end)
        asm volatile("sti; nop; cli");
    EQ(got[0x61], 0);
}

// ---- x2APIC ----

TEST(x2apic) {
    if (!has(1, 2, 21)) {
        skip_test("no x2APIC");
        return;
    }
    begin();
    u64 base = rdmsr(0x1b);
    EQ(TRY("mov $0x802, %%ecx; rdmsr", 0, 0, 0), GP); // not in xAPIC mode
    wrmsr(0x1b, base | 0x400);
    EQ(rdmsr(0x802), 0);           // ID
    EQ(rdmsr(0x803) & 0xff, 0x14); // version
    wrmsr(0x83f, 0x62);            // self IPI

    EQ(rdmsr(0x813) & 1 << 2, 0);      // not in service yet
    EQ(rdmsr(0x823) & 1 << 2, 1 << 2); // but requested
    handlers[0x62] = 0;
    EQ(TRY0("sti; nop; nop; cli"), 0x62);
    wrmsr(0x80b, 0);                                                                        // EOI
    EQ(TRY("mov $0x80b, %%ecx; mov $1, %%eax; xor %%edx, %%edx; wrmsr", 0, 0, 0), GP);      // EOI takes 0 only
    EQ(TRY("mov $0x80b, %%ecx; rdmsr", 0, 0, 0), GP);                                       // write-only
    EQ(TRY("mov $0x802, %%ecx; wrmsr", 0, 0, 0), GP);                                       // read-only
    EQ(TRY("mov $0x80e, %%ecx; rdmsr", 0, 0, 0), GP);                                       // no DFR
    EQ(TRY("mov $0x1b, %%ecx; mov %%edi, %%eax; xor %%edx, %%edx; wrmsr", base, 0, 0), GP); // no way straight back
    wrmsr(0x1b, base & ~0x800ull);
    wrmsr(0x1b, base);
    CHECK(rdmsr(0x1b) == base);
}

// ---- PIC, PIT, RTC, I/O APIC ----

static void pit(u16 count, u8 mode) {
    outb(0x43, (u8)(0x30 | mode << 1));
    outb(0x40, (u8)count);
    outb(0x40, (u8)(count >> 8));
}
TEST(pit_through_the_pic) {
    begin();
    for (unsigned v = 0x20; v < 0x30; v++)
        handlers[v] = take_pic;
    pic_on(0x20, 0xfe, 0xff);
    apic_write(APIC_LVT_LINT0, 0x700); // ExtINT
    pit(1193, 2);
    CHECK(wait_for(0x20, 5));
    pic_off();
    apic_write(APIC_LVT_LINT0, LVT_MASKED);
}
TEST(pit_through_the_ioapic) {
    begin();
    ioapic_route(2, 0x63);
    pit(1193, 2);
    CHECK(wait_for(0x63, 5));
    ioapic_route(2, LVT_MASKED);
    pit(1193, 0);
}
TEST(pit_one_shot) {
    begin();
    ioapic_route(2, 0x63);
    pit(1193, 0);
    CHECK(wait_for(0x63, 1));
    u64 end = rdtsc() + 10000000;
    while (rdtsc() < end)
        asm volatile("sti; nop; cli");
    EQ(got[0x63], 1);
    ioapic_route(2, LVT_MASKED);
}
TEST(pit_channel_2_by_port_61) {
    outb(0x61, (inb(0x61) & ~2u) | 1);
    outb(0x43, 0xb0);
    outb(0x42, 0xff);
    outb(0x42, 0x03);
    EQ(inb(0x61) & 0x20, 0);
    u64 end = rdtsc() + 6000000000ull;
    while (!(inb(0x61) & 0x20) && rdtsc() < end)
        ;
    CHECK(inb(0x61) & 0x20);
}
TEST(pit_counter_latch) {
    pit(0xffff, 2);
    outb(0x43, 0);
    unsigned a = inb(0x40);
    a |= (unsigned)inb(0x40) << 8;
    for (volatile unsigned i = 0; i < 10000; i++)
        ;
    outb(0x43, 0);
    unsigned b = inb(0x40);
    b |= (unsigned)inb(0x40) << 8;
    CHECK(a != b);
}
TEST(rtc_periodic_through_the_slave_pic) {
    begin();
    for (unsigned v = 0x20; v < 0x30; v++)
        handlers[v] = take_pic;
    pic_on(0x20, 0xfb, 0xfe);
    apic_write(APIC_LVT_LINT0, 0x700);
    outb(0x70, 0x0a), outb(0x71, 0x26); // 1024 Hz
    outb(0x70, 0x0b), outb(0x71, 0x42);
    outb(0x70, 0x0c), inb(0x71);
    CHECK(wait_for(0x28, 1));
    unsigned n = got[0x28];
    EQ(wait_for(0x28, n + 3), 0); // silent until register C is read
    outb(0x70, 0x0c);
    CHECK(inb(0x71) & 0x40);
    CHECK(wait_for(0x28, n + 1));
    outb(0x70, 0x0b), outb(0x71, 2);
    outb(0x70, 0x0c), inb(0x71);
    pic_off();
    apic_write(APIC_LVT_LINT0, LVT_MASKED);
}
TEST(pic_mask_and_poll_registers) {
    pic_on(0x20, 0xaa, 0x55);
    EQ(inb(0x21), 0xaa);
    EQ(inb(0xa1), 0x55);
    pic_off();
}
TEST(ioapic_level_waits_for_eoi) {
    begin();
    ioapic_route(4, 0x8000 | 0x64); // COM1, level
    handlers[0x64] = 0;
    outb(0x3fc, 8);
    outb(0x3f9, 2); // transmitter empty
    EQ(TRY0("sti; mov $10000, %%ecx; 1: loop 1b; cli"), 0x64);
    EQ(ioapic_read(0x10 + 8) & 0x4000, 0x4000); // remote IRR
    outb(0x3f9, 0);
    eoi();
    EQ(ioapic_read(0x10 + 8) & 0x4000, 0);
    ioapic_route(4, LVT_MASKED);
    outb(0x3fc, 3);
}
TEST(ioapic_registers) {
    EQ(ioapic_read(1) & 0xff0000, 0x170000); // 24 pins
    ioapic_route(5, 0x0300000000018065ull | 0x1000);
    EQ(ioapic_read(0x10 + 10), 0x18065); // delivery status is read-only
    EQ(ioapic_read(0x10 + 11), 0x03000000);
    ioapic_route(5, LVT_MASKED);
}
TEST(spurious_vector_when_the_apic_is_off) {
    begin();
    apic_write(APIC_SVR, 0xff);
    self(0x60);
    EQ(TRY0("sti; nop; nop; cli"), NONE);
    EQ(got[0x60], 0);
    apic_on();
}

// ---- kvmclock ----

TEST(kvmclock) {
    u32 r[4];
    volatile struct {
        u32 version, pad;
        u64 tsc, ns;
        u32 mul;
        signed char shift;
        u8 flags, pad2[2];
    } *clock = page_alloc();

    cpuid(0x40000000, 0, r);
    if (r[1] != 0x4b4d564b) {
        skip_test("no KVM signature");
        return;
    }
    cpuid(0x40000001, 0, r);
    CHECK(r[0] & 8);       // clock source 2
    CHECK(r[0] & 1 << 24); // stable
    wrmsr(0x4b564d01, (word)clock | 1);
    CHECK(clock->version && !(clock->version & 1));
    CHECK(clock->mul);
    CHECK(clock->flags & 1);
    EQ(rdmsr(0x4b564d01), (word)clock | 1);
    EQ(TRY("mov $0x4b564d01, %%ecx; mov %%edi, %%eax; mov %%rdi, %%rdx; shr $32, %%rdx; wrmsr", 0x7fffffff00000001ull,
           0, 0) != NONE &&
           trap.vector != GP,
       0);
    wrmsr(0x4b564d01, 0);
}
