// SPDX-License-Identifier: Apache-2.0
// Console, checks, descriptor tables and the main loop of a test guest.
#include "guest.h"

// ---- console ----

static void putc(char c) {
    while (!(inb(0x3fd) & 0x20)) // transmitter empty
        ;
    outb(0x3f8, (u8)c);
}

void print(const char *s) {
    for (; *s; s++)
        putc(*s);
}

void print_hex(u64 v) {
    int shift = 60;

    while (shift && !(v >> shift))
        shift -= 4;
    print("0x");
    for (; shift >= 0; shift -= 4)
        putc("0123456789abcdef"[v >> shift & 15]);
}

void print_dec(unsigned v) {
    if (v >= 10)
        print_dec(v / 10);
    putc((char)('0' + v % 10));
}

void guest_exit(unsigned code) {
    outb(0xf4, (u8)code);
    for (;;)
        asm volatile("cli; hlt");
}

// ---- what the loader told ----

extern u32 boot_info;

static const char *command_line(void) {
    return (const char *)(word)((const u32 *)(word)boot_info)[4];
}

static unsigned common_prefix(const char *a, const char *b) {
    unsigned n = 0;

    while (b[n] && a[n] == b[n])
        n++;
    return n;
}

bool option(const char *text) {
    for (const char *line = command_line(); *line; line++)
        if (!text[common_prefix(line, text)])
            return true;
    return false;
}

// Test -NAME in the command line is left out: a bed that it would bring down can run the others.
static bool left_out(const char *name) {
    for (const char *line = command_line(); *line; line++) {
        unsigned n = *line == '-' ? common_prefix(line + 1, name) : 0;

        if (n && !name[n] && (!line[n + 1] || line[n + 1] == ' '))
            return true;
    }
    return false;
}

// ---- checks ----

static struct {
    bool failed, skipped;
    unsigned passed_total, failed_total, skipped_total;
} state;

void check_failed(const char *what, u64 got, u64 want, int line) {
    if (!state.failed) {
        print("  line ");
        print_dec((unsigned)line);
        print(": ");
        print(what);
        print(" = ");
        print_hex(got);
        print(", wanted ");
        print_hex(want);
        print("; last exception ");
        print_hex((u64)trap.vector & 0xff);
        print(" error ");
        print_hex(trap.error);
        print(" at ");
        print_hex(trap.f.ip);
        print("\n");
    }
    state.failed = true;
}

void report(const char *name, bool ok) {
    print(ok ? "ok " : "FAIL ");
    print(name);
    print("\n");
    if (ok)
        state.passed_total++;
    else
        state.failed_total++;
}

void skip_test(const char *why) {
    print("skip: ");
    print(why);
    print("\n");
    state.skipped = true;
}

// ---- traps ----

struct trap trap;
struct try_state try_state;
trap_handler *handlers[256];
struct gate idt[256] __attribute__((aligned(16)));
struct tss tss __attribute__((aligned(4096))); // its first 104 bytes within a page
static char kernel_stack[8192], df_stack[4096], nmi_stack[4096];
extern char trap_resume[];

static void panic(struct frame *f) {
    print("PANIC: exception ");
    print_hex(f->vector);
    print(" error ");
    print_hex(f->error);
    print(" at ");
    print_hex(f->cs);
    print(":");
    print_hex(f->ip);
    print(" CR2 ");
    print_hex(read_cr2());
    print("\n");
    guest_exit(2);
}

void trap_enter(struct frame *f);
void trap_enter(struct frame *f) {
    if (handlers[f->vector] && handlers[f->vector](f))
        return;
    if (!try_state.ip)
        panic(f);
    trap.vector = (long)f->vector;
    trap.error = f->error;
    trap.cr2 = read_cr2();
    trap.off = f->ip - try_state.start;
    trap.count++;
    trap.f = *f;
    f->cs = KCS;
    f->flags = 2;
#ifdef __x86_64__
    f->ip = try_state.ip;
    f->sp = try_state.sp;
    f->ss = KDS;
#else
    // The frame is rebuilt where the stack pointer is now: no level change, and no return to virtual-8086 mode.
    f->ip = (word)trap_resume;
    f->ds = f->es = f->fs = f->gs = KDS;
#endif
}

// ---- descriptor tables ----

void idt_set(unsigned vector, const void *target, u16 sel, unsigned type, unsigned dpl, unsigned ist) {
    u64 to = (word)target;

    idt[vector].low = (to & 0xffff) | (u64)sel << 16 | (u64)ist << 32 | (u64)(0x80 | dpl << 5 | type) << 40 |
                      (to >> 16 & 0xffff) << 48;
#ifdef __x86_64__
    idt[vector].high = to >> 32;
#endif
}

void idt_restore(void) {
    for (unsigned v = 0; v < 256; v++)
        idt_set(v, trap_entries + 16 * v, KCS, GATE_INT, v == LEAVE || v == BP || v == OF ? 3 : 0, 0);
#ifdef __x86_64__
    idt_set(DF, trap_entries + 16 * DF, KCS, GATE_INT, 0, 1);
    idt_set(NMI, trap_entries + 16 * NMI, KCS, GATE_INT, 0, 2);
#endif
}

void idt_load(u16 limit) {
    struct {
        u16 limit;
        word base;
    } __attribute__((packed)) pointer = {limit, (word)idt};

    asm volatile("lidt %0" ::"m"(pointer));
}

static void tss_setup(void) {
    word base = (word)&tss;
    u32 limit = sizeof(tss) - 1;

    tss.iomap = sizeof(tss) - sizeof(tss.bitmap);
    for (unsigned i = 0; i < sizeof(tss.bitmap); i++)
        tss.bitmap[i] = 0xff;
#ifdef __x86_64__
    tss.rsp[0] = (word)kernel_stack + sizeof(kernel_stack);
    tss.ist[1] = (word)df_stack + sizeof(df_stack);
    tss.ist[2] = (word)nmi_stack + sizeof(nmi_stack);
    gdt[SEL_TSS / 8 + 1] = (u64)base >> 32;
#else
    (void)df_stack, (void)nmi_stack;
    tss.esp0 = (word)kernel_stack + sizeof(kernel_stack);
    tss.ss0 = KDS;
#endif
    gdt[SEL_TSS / 8] = limit | (u64)(base & 0xffffff) << 16 | 0x89ull << 40 | (u64)(base >> 24 & 0xff) << 56;
    asm volatile("ltr %w0" ::"r"(SEL_TSS));
}

void cpu_setup(void) {
    cli();
    for (unsigned i = 0; i < 256; i++)
        handlers[i] = 0;
    for (unsigned i = SEL_FREE / 8; i < 128; i++)
        gdt[i] = 0;
    idt_restore();
    idt_load(sizeof(idt) - 1);
    tss_setup();
    write_dr7(0x400);
    write_dr6(0xffff0ff0);
    asm volatile("lldt %w0" ::"r"(0));
#ifdef __x86_64__
    write_cr4(CR4_PAE);
    write_cr0(0x80010033);
#else
    write_cr0(0x31);
    write_cr4(0);
#endif
    entry = (struct entry){.data_sel = UDS, .flags = 2, .ss = UDS};
    trap.count = 0;
}

// ---- what the compiler calls ----

void *memset(void *to, int c, unsigned long n);
void *memset(void *to, int c, unsigned long n) {
    void *p = to;

    asm volatile("rep stosb" : "+D"(p), "+c"(n) : "a"(c) : "memory");
    return to;
}

// ---- pages ----

static word next_page = 0x1000000;

void *page_alloc(void) {
    word *p = (word *)next_page;

    next_page += 4096;
    for (unsigned i = 0; i < 4096 / sizeof(word); i++)
        p[i] = 0;
    return p;
}

// ---- main ----

extern const struct test tests_begin[], tests_end[];
void guest_main(void);
void guest_main(void) {
    outb(0x21, 0xff); // no interrupt from the PIC but to whom asks for it
    outb(0xa1, 0xff);
    for (const struct test *t = tests_begin; t < tests_end; t++) {
        state.failed = state.skipped = false;
        cpu_setup();
        if (left_out(t->name))
            skip_test("left out");
        else
            t->run();
        cli();
        if (state.skipped) {
            print("skip ");
            print(t->name);
            print("\n");
            state.skipped_total++;
        } else {
            report(t->name, !state.failed);
        }
    }
    print_dec(state.passed_total);
    print(" ok, ");
    print_dec(state.failed_total);
    print(" failed, ");
    print_dec(state.skipped_total);
    print(" skipped\n");
    guest_exit(state.failed_total ? 1 : 0);
}
