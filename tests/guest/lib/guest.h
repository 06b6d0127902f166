// SPDX-License-Identifier: Apache-2.0
// What a test guest is written with. Freestanding, without FPU, both for long mode (x86-64) and for 32-bit protected
// mode (-m32). A test is a function in TEST(name) {...}; it asserts with CHECK and EQ; each ends as one line
// "ok name" or "FAIL name" on COM1. The guest then leaves through the debug-exit port: 0 all passed, 1 some failed,
// 2 an exception that nobody expected.
#ifndef GUEST_H
#define GUEST_H

#include <stdbool.h>
#include <stdint.h>

typedef uint8_t u8;
typedef uint16_t u16;
typedef uint32_t u32;
typedef uint64_t u64;
typedef unsigned long word; // a register

#define NONE (-1) // no exception

enum { DE, DB, NMI, BP, OF, BR, UD, NM, DF, TS = 10, NP, SS, GP, PF, MF = 16, AC, MC, XM };
enum { LEAVE = 0x80 }; // INT of user code that is done; gate with DPL 3

enum {
    KCS = 0x08,
    KDS = 0x10,
    KCS32 = 0x18,
    UCS32 = 0x23,
    UDS = 0x2b,
    UCS64 = 0x33,
    SEL_TSS = 0x38,
    CS16 = 0x48,
    DS16 = 0x50,
    SEL_FREE = 0x58, // first GDT entry that belongs to the test
};

#ifdef __x86_64__
struct frame {
    word r15, r14, r13, r12, r11, r10, r9, r8, bp, di, si, dx, cx, bx, ax;
    word vector, error, ip, cs, flags, sp, ss;
};
#else
struct frame {
    word gs, fs, es, ds, di, si, bp, unused_sp, bx, dx, cx, ax;
    word vector, error, ip, cs, flags, sp, ss, v_es, v_ds, v_fs, v_gs; // from sp on: only from an outer level
};
#endif

// What the last TRY ended with. vector is NONE where no exception came.
struct trap {
    long vector;
    word error, cr2, off; // off: offset of the reported RIP in the code of TRY, for code elsewhere see f.ip
    word ax;              // RAX at the end, with or without an exception
    unsigned count;       // exceptions that no handler took
    struct frame f;       // the whole frame, only with an exception
};
extern struct trap trap;
struct try_state {
    word ip, sp, bp, start;
};
extern struct try_state try_state;

// Runs code (a string, %% for %, inputs in RDI, RSI, RDX; may destroy every register) until its end or its first
// exception or interrupt without handler, and gives the vector or NONE.
#ifdef __x86_64__
#define TRY(code, a, b, c)                                                                                             \
    ({                                                                                                                 \
        word a_ = (word)(a), b_ = (word)(b), c_ = (word)(c), ax_;                                                      \
        asm volatile("lea 77f(%%rip), %%rax; mov %%rax, try_state; mov %%rsp, try_state + 8; mov %%rbp, try_state+16;" \
                     "lea 76f(%%rip), %%rax; mov %%rax, try_state + 24; movq $-1, trap; xor %%eax, %%eax\n"            \
                     "76: " code "\n"                                                                                  \
                     "77: mov try_state + 8, %%rsp; mov try_state + 16, %%rbp; movq $0, try_state"                     \
                     : "=&a"(ax_), "+D"(a_), "+S"(b_), "+d"(c_)                                                        \
                     :                                                                                                 \
                     : "rbx", "rcx", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15", "memory", "cc");            \
        trap.ax = ax_;                                                                                                 \
        trap.vector;                                                                                                   \
    })
#else
#define TRY(code, a, b, c)                                                                                             \
    ({                                                                                                                 \
        word a_ = (word)(a), b_ = (word)(b), c_ = (word)(c), ax_;                                                      \
        asm volatile("movl $77f, try_state; mov %%esp, try_state + 4; mov %%ebp, try_state + 8;"                       \
                     "movl $76f, try_state + 12; movl $-1, trap; xor %%eax, %%eax\n"                                   \
                     "76: " code "\n"                                                                                  \
                     "77: mov try_state + 4, %%esp; mov try_state + 8, %%ebp; movl $0, try_state"                      \
                     : "=&a"(ax_), "+D"(a_), "+S"(b_), "+d"(c_)                                                        \
                     :                                                                                                 \
                     : "ebx", "ecx", "memory", "cc");                                                                  \
        trap.ax = ax_;                                                                                                 \
        trap.vector;                                                                                                   \
    })
#endif
#define TRY0(code) TRY(code, 0, 0, 0)

// Code for another mode or privilege: position-independent, in the section .blob. `mode` is 16, 32 or 64.
#ifdef __x86_64__
#define BLOB_END ".code64"
#else
#define BLOB_END ".code32"
#endif
#define BLOB(name, mode, text)                                                                                         \
    extern char name[];                                                                                                \
    asm(".pushsection .blob, \"ax\"\n.balign 16\n.globl " #name "\n.code" #mode "\n" #name ": " text "\n" BLOB_END     \
        "\n.popsection")
extern char blob_begin[], blob_end[], image_end[];

// Enters code by IRET: user code leaves by INT 0x80 or an exception. Gives the vector.
struct entry {
    word ip, cs, flags, sp, ss, es, ds, fs, gs; // from es on: only for IRET to virtual-8086 mode
    word data_sel;                              // loaded into DS and ES before
};
extern struct entry entry;
#ifdef __x86_64__
#define ENTER(a, b, c) TRY("mov entry + 72, %%eax; mov %%eax, %%ds; mov %%eax, %%es; mov $entry, %%rsp; iretq", a, b, c)
#else
#define ENTER(a, b, c) TRY("mov entry + 36, %%eax; mov %%eax, %%es; mov %%eax, %%ds; mov $entry, %%esp; iret", a, b, c)
#endif

// ---- checks ----
struct test {
    const char *name;
    void (*run)(void);
};
#define TEST(name)                                                                                                     \
    static void test_##name(void);                                                                                     \
    static const struct test entry_##name                                                                              \
        __attribute__((section(".tests"), used, aligned(sizeof(word)))) = {#name, test_##name};                        \
    static void test_##name(void)
void check_failed(const char *what, u64 got, u64 want, int line);
void report(const char *name, bool ok); // for tables of cases: a line of its own
void skip_test(const char *why);        // the feature is not there: "skip name", not counted
#define CHECK(cond) ((cond) ? (void)0 : check_failed(#cond, 0, 1, __LINE__))
#define EQ(got, want)                                                                                                  \
    ({                                                                                                                 \
        u64 got_ = (u64)(got), want_ = (u64)(want);                                                                    \
        if (got_ != want_)                                                                                             \
            check_failed(#got, got_, want_, __LINE__);                                                                 \
    })

// ---- the rest ----
typedef bool trap_handler(struct frame *f); // true: go on where the frame says; false: it ends the TRY
extern trap_handler *handlers[256];
extern u64 gdt[];
extern char trap_entries[];

struct gate {
    u64 low;
#ifdef __x86_64__
    u64 high;
#endif
};
extern struct gate idt[256];
enum { GATE_TASK = 5, GATE_INT16 = 6, GATE_TRAP16 = 7, GATE_INT = 14, GATE_TRAP = 15 };
void idt_set(unsigned vector, const void *target, u16 sel, unsigned type, unsigned dpl, unsigned ist);
void idt_restore(void); // all vectors to trap_entries
void idt_load(u16 limit);

#ifdef __x86_64__
struct tss {
    u32 reserved0;
    u64 rsp[3];
    u64 ist[8]; // [0] is reserved
    u64 reserved1;
    u16 reserved2, iomap;
    u8 bitmap[8193];
} __attribute__((packed));
#else
struct tss {
    u32 link, esp0, ss0, esp1, ss1, esp2, ss2, cr3, eip, eflags, eax, ecx, edx, ebx, esp, ebp, esi, edi;
    u32 es, cs, ss, ds, fs, gs, ldt;
    u16 trap, iomap;
    u8 bitmap[8193];
} __attribute__((packed));
#endif
extern struct tss tss;
void cpu_setup(void); // TSS, IDT and control registers as every test finds them

void print(const char *s);
void print_hex(u64 v);
void print_dec(unsigned v);
void guest_exit(unsigned code) __attribute__((noreturn));
bool option(const char *text); // is it in the command line?
void *page_alloc(void);        // zeroed, above the image

static inline void outb(u16 port, u8 v) {
    asm volatile("outb %0, %1" ::"a"(v), "Nd"(port));
}
static inline void outw(u16 port, u16 v) {
    asm volatile("outw %0, %1" ::"a"(v), "Nd"(port));
}
static inline void outl(u16 port, u32 v) {
    asm volatile("outl %0, %1" ::"a"(v), "Nd"(port));
}
static inline u8 inb(u16 port) {
    u8 v;
    asm volatile("inb %1, %0" : "=a"(v) : "Nd"(port));
    return v;
}
static inline u16 inw(u16 port) {
    u16 v;
    asm volatile("inw %1, %0" : "=a"(v) : "Nd"(port));
    return v;
}
static inline u32 inl(u16 port) {
    u32 v;
    asm volatile("inl %1, %0" : "=a"(v) : "Nd"(port));
    return v;
}
static inline u64 rdtsc(void) {
    u32 lo, hi;
    asm volatile("rdtsc" : "=a"(lo), "=d"(hi));
    return (u64)hi << 32 | lo;
}
static inline u64 rdmsr(u32 msr) {
    u32 lo, hi;
    asm volatile("rdmsr" : "=a"(lo), "=d"(hi) : "c"(msr));
    return (u64)hi << 32 | lo;
}
static inline void wrmsr(u32 msr, u64 v) {
    asm volatile("wrmsr" ::"a"((u32)v), "d"((u32)(v >> 32)), "c"(msr) : "memory");
}
static inline void cpuid(u32 fn, u32 index, u32 r[4]) {
    asm volatile("cpuid" : "=a"(r[0]), "=b"(r[1]), "=c"(r[2]), "=d"(r[3]) : "a"(fn), "c"(index));
}
#define CR_ACCESS(n)                                                                                                   \
    static inline word read_cr##n(void) {                                                                              \
        word v;                                                                                                        \
        asm volatile("mov %%cr" #n ", %0" : "=r"(v)::"memory");                                                        \
        return v;                                                                                                      \
    }                                                                                                                  \
    static inline void write_cr##n(word v) {                                                                           \
        asm volatile("mov %0, %%cr" #n ::"r"(v) : "memory");                                                           \
    }
CR_ACCESS(0)
CR_ACCESS(2)
CR_ACCESS(3)
CR_ACCESS(4)
#define DR_ACCESS(n)                                                                                                   \
    static inline word read_dr##n(void) {                                                                              \
        word v;                                                                                                        \
        asm volatile("mov %%dr" #n ", %0" : "=r"(v));                                                                  \
        return v;                                                                                                      \
    }                                                                                                                  \
    static inline void write_dr##n(word v) {                                                                           \
        asm volatile("mov %0, %%dr" #n ::"r"(v) : "memory");                                                           \
    }
DR_ACCESS(0)
DR_ACCESS(1)
DR_ACCESS(2)
DR_ACCESS(3)
DR_ACCESS(6)
DR_ACCESS(7)
static inline word read_flags(void) {
    word v;
    asm volatile("pushf; pop %0" : "=r"(v));
    return v;
}
static inline void invlpg(word a) {
    asm volatile("invlpg (%0)" ::"r"(a) : "memory");
}
static inline void cli(void) {
    asm volatile("cli" ::: "memory");
}
static inline void sti(void) {
    asm volatile("sti" ::: "memory");
}
static inline void hlt(void) {
    asm volatile("hlt" ::: "memory");
}
static inline void sti_hlt(void) {
    asm volatile("sti; hlt; cli" ::: "memory");
}

// CPUID bits: leaf, register 0..3, bit.
static inline bool has(u32 leaf, unsigned reg, unsigned bit) {
    u32 r[4];
    cpuid(leaf, 0, r);
    return r[reg] >> bit & 1;
}
#define HAS_PCID has(1, 2, 17)
#define HAS_SMEP has(7, 1, 7)
#define HAS_SMAP has(7, 1, 20)
#define HAS_UMIP has(7, 2, 2)
#define HAS_1G   has(0x80000001, 3, 26)

enum {
    FL_CF = 1,
    FL_TF = 0x100,
    FL_IF = 0x200,
    FL_DF = 0x400,
    FL_OF = 0x800,
    FL_IOPL = 0x3000,
    FL_NT = 0x4000,
    FL_RF = 0x10000,
    FL_VM = 0x20000,
    FL_AC = 0x40000,
    FL_VIF = 0x80000,
    FL_ID = 0x200000,
};
enum { CR0_PE = 1, CR0_MP = 2, CR0_EM = 4, CR0_TS = 8, CR0_WP = 1 << 16, CR0_AM = 1 << 18 };
#define CR0_PG (1ul << 31)
enum {
    CR4_VME = 1,
    CR4_PVI = 2,
    CR4_TSD = 4,
    CR4_DE = 8,
    CR4_PSE = 0x10,
    CR4_PAE = 0x20,
    CR4_PGE = 0x80,
    CR4_OSFXSR = 0x200,
    CR4_UMIP = 0x800,
    CR4_FSGSBASE = 0x10000,
    CR4_PCIDE = 0x20000,
    CR4_OSXSAVE = 0x40000,
    CR4_SMEP = 0x100000,
    CR4_SMAP = 0x200000,
};
enum { PF_P = 1, PF_W = 2, PF_U = 4, PF_RSVD = 8, PF_I = 16 };

#endif
