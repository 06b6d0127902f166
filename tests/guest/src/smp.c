// SPDX-License-Identifier: Apache-2.0
// Two vCPUs: INIT and STARTUP, IPIs of all kinds, atomic operations, memory order, TLB shootdown, code and page tables
// that the other vCPU changes. Needs --cpus 2.
// beds: xlate (docs/BEDS.md)
#include "apic.h"
#include "pagetables.h"

extern char smp_begin[], smp_end[];

// ---- the other vCPU: does what `order` says ----

enum order { IDLE, RUN, HALT_FOREVER };
static volatile enum order order;
static void (*volatile job)(void);
static volatile unsigned started, done;
static volatile unsigned taken[2][256];

static unsigned self(void) {
    return apic_read(APIC_ID) >> 24;
}
static bool take(struct frame *f) {
    taken[self()][f->vector]++;
    if (f->vector != NMI)
        eoi();
    return true;
}

void smp_main(unsigned index);
void smp_main(unsigned index) {
    struct {
        u16 limit;
        word base;
    } __attribute__((packed)) pointer = {sizeof(idt) - 1, (word)idt};

    asm volatile("lidt %0" ::"m"(pointer));
    apic_on();
    started++;
    for (;;) {
        while (order == IDLE)
            asm volatile("pause");
        if (order == HALT_FOREVER)
            for (;;)
                asm volatile("sti; hlt");
        job();
        order = IDLE;
        done++;
    }
}

static bool wait_until(volatile unsigned *v, unsigned n) {
    u64 end = rdtsc() + 40000000000ull;

    while (*v < n && rdtsc() < end)
        asm volatile("pause");
    return *v >= n;
}
static void start_other(void) {
    for (char *c = smp_begin; c < smp_end; c++)
        ((volatile char *)0x8000)[c - smp_begin] = *c;
    order = IDLE;
    unsigned n = started;
    ipi(1, ICR_INIT | ICR_ASSERT | ICR_LEVEL);
    ipi(1, ICR_INIT | ICR_LEVEL);
    ipi(1, ICR_STARTUP | ICR_ASSERT | 8);
    ipi(1, ICR_STARTUP | ICR_ASSERT | 8); // the second is ignored
    CHECK(wait_until(&started, n + 1));
}
static void run_other(void (*f)(void)) {
    job = f;
    order = RUN;
}
static void join(unsigned before) {
    CHECK(wait_until(&done, before + 1));
}
static void begin(void) {
    for (unsigned c = 0; c < 2; c++)
        for (unsigned v = 0; v < 256; v++)
            taken[c][v] = 0;
    handlers[NMI] = take;
    idt_set(NMI, trap_entries + 16 * NMI, KCS, GATE_INT, 0, 0); // the other has no TSS, so no IST
    for (unsigned v = 32; v < 256; v++)
        if (v != LEAVE)
            handlers[v] = take;
    apic_on();
    if (!started)
        start_other();
}

// ---- starting ----

TEST(init_and_startup) {
    begin();
    EQ(started, 1);
    EQ(self(), 0);
}
TEST(startup_again_after_init) {
    begin();
    start_other();
    EQ(started, 2);
}
TEST(startup_without_init_is_ignored) {
    begin();
    ipi(1, ICR_STARTUP | ICR_ASSERT | 8);
    for (volatile unsigned i = 0; i < 100000; i++)
        ;
    EQ(started, 2);
}
TEST(only_the_first_is_the_bsp) {
    static volatile u64 base;
    void read_base(void) {
        base = rdmsr(0x1b);
    }
    unsigned n = done;

    begin();
    CHECK(rdmsr(0x1b) & 0x100);
    run_other(read_base);
    join(n);
    EQ(base & 0x100, 0);
}

// ---- IPIs ----

static void open_interrupts(void) {
    u64 end = rdtsc() + 20000000000ull; // the other may have to wait for the host's processor

    sti();
    while (!taken[1][0x70] && rdtsc() < end)
        asm volatile("pause");
    cli();
}
TEST(fixed_ipi) {
    unsigned n = done;

    begin();
    run_other(open_interrupts);
    ipi(1, ICR_ASSERT | 0x70);
    join(n);
    EQ(taken[1][0x70], 1);
    EQ(taken[0][0x70], 0);
}
TEST(broadcast_to_others) {
    unsigned n = done;

    begin();
    run_other(open_interrupts);
    ipi(0, ICR_OTHERS | ICR_ASSERT | 0x70);
    join(n);
    EQ(taken[1][0x70], 1);
    EQ(taken[0][0x70], 0);
}
TEST(broadcast_to_all) {
    unsigned n = done;

    begin();
    run_other(open_interrupts);
    ipi(0, ICR_ALL | ICR_ASSERT | 0x70);
    asm volatile("sti; nop; nop; cli");
    join(n);
    EQ(taken[1][0x70], 1);
    EQ(taken[0][0x70], 1);
}
TEST(logical_destination) {
    unsigned n = done;
    static volatile unsigned ready;
    void logical_id(void) {
        apic_write(APIC_DFR, 0xffffffff);
        apic_write(APIC_LDR, 2u << 24);
        ready++;
        open_interrupts();
    }

    begin();
    apic_write(APIC_DFR, 0xffffffff);
    apic_write(APIC_LDR, 1u << 24);
    run_other(logical_id);
    CHECK(wait_until(&ready, 1));
    ipi(2, ICR_ASSERT | 0x800 | 0x70);
    join(n);
    EQ(taken[1][0x70], 1);
    EQ(taken[0][0x70], 0);
}
static void wait_nmi(void) {
    u64 end = rdtsc() + 20000000000ull;

    while (!taken[1][NMI] && rdtsc() < end)
        asm volatile("pause");
}
TEST(nmi_to_the_other) { // which has its interrupts off
    unsigned n = done;

    begin();
    run_other(wait_nmi);
    ipi(1, ICR_NMI | ICR_ASSERT);
    join(n);
    EQ(taken[1][NMI], 1);
}
static void halt_once(void) {
    asm volatile("sti; hlt; cli");
}
TEST(ipi_wakes_from_hlt) {
    begin();
    for (unsigned i = 0; i < 100; i++) {
        unsigned n = done;

        run_other(halt_once);
        ipi(1, ICR_ASSERT | 0x71);
        join(n);
    }
    EQ(taken[1][0x71], 100);
}
TEST(init_stops_a_spinning_vcpu) {
    void spin(void) {
        for (;;)
            asm volatile("cli");
    }

    begin();
    run_other(spin);
    start_other();
    EQ(started, 3);
}
TEST(init_stops_a_halted_vcpu) {
    begin();
    order = HALT_FOREVER;
    for (volatile unsigned i = 0; i < 100000; i++)
        ;
    start_other();
    EQ(started, 4);
}

// ---- memory ----

static volatile u64 counter, counter16[2] __attribute__((aligned(16)));
static u8 across[8192] __attribute__((aligned(4096)));
#define ROUNDS 20000
#define ATOMIC_TEST(name, code, address, want)                                                                         \
    static void job_##name(void) {                                                                                     \
        for (unsigned i = 0; i < ROUNDS; i++)                                                                          \
            asm volatile(code ::"r"(address) : "rax", "rbx", "rcx", "rdx", "memory", "cc");                            \
    }                                                                                                                  \
    TEST(name) {                                                                                                       \
        unsigned n = done;                                                                                             \
        begin();                                                                                                       \
        counter = counter16[0] = counter16[1] = 0;                                                                     \
        *(volatile u64 *)(across + 4092) = 0;                                                                          \
        *(volatile u64 *)(across + 60) = 0;                                                                            \
        run_other(job_##name);                                                                                         \
        job_##name();                                                                                                  \
        join(n);                                                                                                       \
        EQ(want, 2 * ROUNDS);                                                                                          \
    }
ATOMIC_TEST(lock_inc, "lock incq (%0)", &counter, counter)
ATOMIC_TEST(lock_xadd, "mov $1, %%eax; lock xadd %%rax, (%0)", &counter, counter)
ATOMIC_TEST(lock_cmpxchg, "mov (%0), %%rax; 1: lea 1(%%rax), %%rcx; lock cmpxchg %%rcx, (%0); jne 1b", &counter,
            counter)
ATOMIC_TEST(
    lock_cmpxchg16b,
    "mov (%0), %%rax; mov 8(%0), %%rdx; 1: lea 1(%%rax), %%rbx; lea 1(%%rdx), %%rcx; lock cmpxchg16b (%0); jne 1b",
    counter16, counter16[1])
ATOMIC_TEST(lock_inc_across_lines, "lock incq (%0)", across + 60, *(volatile u64 *)(across + 60))
ATOMIC_TEST(lock_add_across_pages, "lock addq $1, (%0)", across + 4092, *(volatile u64 *)(across + 4092))
ATOMIC_TEST(xchg_as_a_lock,
            "1: mov $1, %%eax; xchg %%eax, 8(%0); test %%eax, %%eax; jz 2f; pause; jmp 1b; 2: incq (%0);"
            "movl $0, 8(%0)",
            counter16, counter16[0])

static volatile u64 sent, answered;
static void echo(void) {
    for (u64 i = 1; i <= 1000; i++) {
        while (sent != i)
            asm volatile("pause");
        answered = i;
    }
}
TEST(stores_are_seen_in_order) {
    unsigned n = done;

    begin();
    sent = answered = 0;
    run_other(echo);
    for (u64 i = 1; i <= 1000; i++) {
        sent = i;
        while (answered != i)
            asm volatile("pause");
    }
    join(n);
}

// ---- translations that the other vCPU changes ----

static volatile unsigned shot;
static bool shootdown(struct frame *f) {
    invlpg(FREE);
    shot++;
    eoi();
    return true;
}
static volatile bool stop;
static volatile u64 seen, wrong;
static u64 *page_a, *page_b;
static void reader(void) {
    sti();
    while (!stop)
        seen = *(volatile u64 *)FREE;
    cli();
}
TEST(tlb_shootdown) {
    unsigned n = done;

    begin();
    handlers[0x72] = shootdown;
    page_a = page_alloc();
    page_b = page_alloc();
    *page_a = 'a';
    *page_b = 'b';
    map(FREE, (word)page_a, P | RW);
    stop = false;
    shot = 0;
    run_other(reader);
    for (unsigned i = 1; i <= 100; i++) {
        *pte_of(FREE, 1) = (word)(i & 1 ? page_b : page_a) | P | RW;
        ipi(1, ICR_ASSERT | 0x72);
        CHECK(wait_until(&shot, i));
        u64 end = rdtsc() + 20000000000ull;
        while (seen != (i & 1 ? 'b' : 'a') && rdtsc() < end)
            asm volatile("pause");
        EQ(seen, i & 1 ? 'b' : 'a');
    }
    stop = true;
    join(n);
}
// Accessed and dirty bits are set by locked operations: the other vCPU changes another bit of the same entry meanwhile.
static void toggle(void) {
    u64 *e = pte_of(FREE, 1);

    while (!stop)
        asm volatile("lock btcq $9, %0" : "+m"(*e)::"cc");
}
TEST(dirty_bit_beside_changes_of_the_other) {
    unsigned n = done;

    begin();
    map(FREE, (word)page_alloc(), P | RW);
    u64 *e = pte_of(FREE, 1);
    stop = false;
    run_other(toggle);
    for (unsigned i = 0; i < 3000; i++) {
        asm volatile("lock andq %1, %0" : "+m"(*e) : "r"(~(u64)(A | D)) : "cc");
        invlpg(FREE);
        *(volatile u8 *)FREE = 1;
        if ((*(volatile u64 *)e & (A | D)) != (A | D))
            check_failed("A and D", *e & (A | D), A | D, __LINE__);
    }
    stop = true;
    join(n);
}

// ---- code that the other vCPU changes ----

static u8 *code_page;
static volatile u64 version;
static void caller(void) {
    while (!stop) {
        u64 before = version, v;

        asm volatile("call *%1" : "=a"(v) : "r"((u64)code_page) : "memory", "cc");
        if (v < before || v > version + 1)
            wrong++;
        seen = v;
    }
}
TEST(code_changed_by_the_other) {
    unsigned n = done;

    begin();
    code_page = page_alloc();
    version = 0;
    code_page[3] = 0xb8; // mov $version, %eax, its immediate aligned to 4; ret
    code_page[0] = code_page[1] = code_page[2] = 0x90;
    *(volatile u32 *)(code_page + 4) = 0;
    code_page[8] = 0xc3;
    stop = false;
    wrong = 0;
    run_other(caller);
    for (u32 i = 1; i <= 300; i++) {
        *(volatile u32 *)(code_page + 4) = i;
        version = i;
        u64 end = rdtsc() + 20000000000ull;
        while (seen != i && rdtsc() < end)
            asm volatile("pause");
        if (seen != i)
            check_failed("seen", seen, i, __LINE__);
    }
    stop = true;
    join(n);
    EQ(wrong, 0);
}
static void data_beside_code(void) {
    while (!stop)
        for (unsigned i = 0; i < 64; i++)
            ((volatile u32 *)(code_page + 2048))[i]++;
}
TEST(data_beside_code_of_the_other) {
    unsigned n = done;
    u64 v;

    begin();
    stop = false;
    run_other(data_beside_code);
    for (u32 i = 1; i <= 300; i++) {
        *(volatile u32 *)(code_page + 4) = i;
        asm volatile("call *%1" : "=a"(v) : "r"((u64)code_page) : "memory", "cc");
        if (v != i)
            check_failed("v", v, i, __LINE__);
    }
    stop = true;
    join(n);
    EQ(((volatile u32 *)(code_page + 2048))[0] - ((volatile u32 *)(code_page + 2048))[63], 0);
}
static void rewrite_data_page(void) { // both write the same page: no increment may be lost
    for (unsigned i = 0; i < ROUNDS; i++)
        asm volatile("lock incl %0" : "+m"(*(volatile u32 *)(code_page + 3000)));
}
TEST(locked_counter_in_a_code_page) {
    unsigned n = done;

    begin();
    *(volatile u32 *)(code_page + 3000) = 0;
    run_other(rewrite_data_page);
    for (unsigned i = 0; i < ROUNDS; i++) {
        u64 v;

        if (i % 100 == 0)
            asm volatile("call *%1" : "=a"(v) : "r"((u64)code_page) : "memory", "cc");
        asm volatile("lock incl %0" : "+m"(*(volatile u32 *)(code_page + 3000)));
    }
    join(n);
    EQ(*(volatile u32 *)(code_page + 3000), 2 * ROUNDS);
}
TEST(tsc_is_the_same_on_both) {
    static volatile u64 there;
    void read_tsc(void) {
        there = rdtsc();
    }
    unsigned n = done;
    u64 before, after;

    begin();
    before = rdtsc();
    run_other(read_tsc);
    join(n);
    after = rdtsc();
    CHECK(before <= there && there <= after);
}
