// SPDX-License-Identifier: Apache-2.0
// The emulator against the bare CPU: random instructions run once through emul_decode/emul_exec, once natively, on the
// same registers and the same memory (the fake mmu maps linear addresses to themselves). Everything is compared:
// registers, all arithmetic flags, vector registers, memory, and whether there was a fault.
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <cmocka.h>

#include "engine/xlate/emul_int.h"

// ---- the world below the emulator ----

static struct cpuid_policy policy;
static struct irqchip_cpu no_irqchip;
static uint64_t bad_page = 1; // accesses to this page fault
static unsigned pio_count;
static bool force_slow; // no host pointers

// The guest's vector registers may be live: not libc's memcpy.
static void copy(void *d, const void *s, size_t n) {
    __asm__ volatile("rep movsb" : "+D"(d), "+S"(s), "+c"(n)::"memory");
}
static bool bad(uint64_t lin, unsigned size) {
    return (lin & PAGE_MASK) == bad_page || ((lin + size - 1) & PAGE_MASK) == bad_page;
}
enum xres mmu_read(struct xcpu *x, uint64_t lin, void *buf, unsigned size, unsigned flags) {
    if (bad(lin, size))
        return fault_page(x, lin, 0);
    copy(buf, (void *)lin, size);
    return X_OK;
}
enum xres mmu_write(struct xcpu *x, uint64_t lin, const void *buf, unsigned size, unsigned flags) {
    if (bad(lin, size))
        return fault_page(x, lin, 2);
    copy((void *)lin, buf, size);
    return X_OK;
}
enum xres mmu_probe(struct xcpu *x, uint64_t lin, unsigned size, unsigned flags) {
    return bad(lin, size) ? fault_page(x, lin, 0) : X_OK;
}
enum xres mmu_rmw_host(struct xcpu *x, uint64_t lin, unsigned size, void **host) {
    *host = force_slow ? NULL : (void *)lin;
    return bad(lin, size) ? fault_page(x, lin, 2) : X_OK;
}
uint8_t *mmu_page_ptr(struct xcpu *x, uint64_t lin, unsigned flags) {
    return force_slow || bad(lin, 1) ? NULL : (uint8_t *)lin;
}
enum xres mmu_fetch(struct xcpu *x, uint64_t lin, uint8_t *buf, unsigned max, unsigned *got) {
    copy(buf, (void *)lin, max);
    *got = max;
    return X_OK;
}
enum xres mmu_fetch_fault(struct xcpu *x, uint64_t lin) {
    return fault_page(x, lin, 16);
}
uint32_t host_pio_read(struct xcpu *x, uint16_t port, unsigned size) {
    return 0x11u * ++pio_count;
}
void host_pio_write(struct xcpu *x, uint16_t port, unsigned size, uint32_t val) {
    pio_count++;
}
const struct mem_slot *mem_slots(const struct mem *m, unsigned *count) {
    *count = 0;
    return NULL;
}
bool cache_guest_pc(struct xcpu *c, uint64_t pc, uint64_t *rip) {
    return false;
}
const struct cpuid_policy *xcpu_policy(const struct xcpu *x) {
    return &policy;
}
void emul_lock(struct xcpu *x) {}
void emul_unlock(struct xcpu *x) {}
enum xres io_check(struct xcpu *x, uint16_t port, unsigned size) {
    return X_OK;
}
enum xres intr_deliver_fault(struct xcpu *x) {
    return X_OK;
}
enum xres sys_insn_mov_seg(struct xcpu *x, struct insn *in) {
    return X_EXIT;
}
enum xres sys_insn_mov_crdr(struct xcpu *x, struct insn *in) {
    return X_EXIT;
}
enum xres sys_insn_push_seg(struct xcpu *x, struct insn *in) {
    return X_EXIT;
}
enum xres sys_insn_pop_seg(struct xcpu *x, struct insn *in) {
    return X_EXIT;
}
enum xres sys_insn_far_branch(struct xcpu *x, struct insn *in) {
    return X_EXIT;
}
const struct emul_entry emul_sys_entries[] = {{ZYDIS_MNEMONIC_INVALID, NULL}};
const unsigned emul_sys_entry_count = 1;

// ---- low memory, reached by absolute addresses ----

struct low {
    uint64_t gpr[16], rflags, host_rsp;
    uint8_t vec[16][32] __attribute__((aligned(32)));
    uint8_t code[256], runner[2048];
    uint8_t data[4 * 4096] __attribute__((aligned(4096)));
};
static struct low *low;
static struct engine engine = {.ncpus = 1};
static struct xcpu *x;
static bool host_avx;

static uint64_t rnd(void) {
    static uint64_t s = 0x9e3779b97f4a7c15;
    s ^= s << 13, s ^= s >> 7, s ^= s << 17;
    switch (s >> 60) { // values at the edges more often than chance would have them
    case 0: return 0;
    case 1: return ~0ull;
    case 2: return 0x8000000000000000ull;
    case 3: return 0x80;
    case 4: return s & 0xff;
    case 5: return s | 0xffffffff00000000;
    default: return s * 0x2545f4914f6cdd1d;
    }
}

// ---- the bare CPU ----

static uint8_t *rp;
static void r8(unsigned v) {
    *rp++ = (uint8_t)v;
}
static void r32(uint64_t v) {
    uint32_t w = (uint32_t)v;
    memcpy(rp, &w, 4), rp += 4;
}
static void r_gpr(unsigned opcode, unsigned reg, const void *at) { // mov reg, [abs32] or back
    r8(0x48 | reg >> 3 << 2), r8(opcode), r8(4 | (reg & 7) << 3), r8(0x25), r32((uint64_t)at);
}
static void r_vec(bool load, unsigned reg) { // vmovups ymm or movups xmm
    if (host_avx)
        r8(0xc5), r8(0x7c | (reg < 8 ? 0x80 : 0));
    else {
        if (reg >= 8)
            r8(0x44);
        r8(0x0f);
    }
    r8(load ? 0x10 : 0x11), r8(4 | (reg & 7) << 3), r8(0x25), r32((uint64_t)low->vec[reg]);
}

static sigjmp_buf escape;
static void on_fault(int sig) {
    siglongjmp(escape, sig);
}

// 0, or the signal. Registers come from low and go back there.
static int host_run(const uint8_t *insn, unsigned len) {
    static const uint8_t saved[] = {3, 5, 12, 13, 14, 15};
    rp = low->runner;
    for (unsigned i = 0; i < 6; i++) {
        if (saved[i] >= 8)
            r8(0x41);
        r8(0x50 | (saved[i] & 7));
    }
    r_gpr(0x89, 4, &low->host_rsp);
    for (unsigned i = 0; i < 16; i++)
        r_vec(true, i);
    r8(0xff), r8(0x34), r8(0x25), r32((uint64_t)&low->rflags), r8(0x9d); // push, popfq
    for (unsigned i = 0; i < 16; i++)
        r_gpr(0x8b, i, &low->gpr[i]);
    memcpy(rp, insn, len), rp += len;
    for (unsigned i = 0; i < 16; i++)
        r_gpr(0x89, i, &low->gpr[i]);
    r_gpr(0x8b, 4, &low->host_rsp);
    r8(0x9c), r8(0x8f), r8(0x04), r8(0x25), r32((uint64_t)&low->rflags); // pushfq, pop
    for (unsigned i = 0; i < 16; i++)
        r_vec(false, i);
    r8(0xfc); // cld
    for (unsigned i = 6; i-- > 0;) {
        if (saved[i] >= 8)
            r8(0x41);
        r8(0x58 | (saved[i] & 7));
    }
    r8(0xc3);
    int sig = sigsetjmp(escape, 1);
    if (!sig)
        ((void (*)(void))low->runner)();
    return sig;
}

// ---- one comparison ----

static void on_host_signal(int sig, siginfo_t *info, void *uc) {
    if (native_handle_sigfpe(x, uc))
        return;
    on_fault(sig);
}

// cmocka installs its own handlers before each test.
static void signals_install(void) {
    struct sigaction sa = {.sa_sigaction = on_host_signal, .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER};

    sigaction(SIGFPE, &sa, NULL);
    sigaction(SIGSEGV, &sa, NULL);
    sigaction(SIGILL, &sa, NULL);
}

static void mode64(void) {
    signals_install();
    memset(&x->s, 0, offsetof(struct cpu_state, xsave));
    x->s.cr0 = CR0_PE | CR0_PG | CR0_NE;
    x->s.cr4 = CR4_OSFXSR | CR4_OSXMMEXCPT | CR4_OSXSAVE;
    x->s.xcr0 = 7;
    x->engine = &engine;
    x->code_bits = x->stack_bits = 64;
    x->long_mode = true;
}

static void vec_to_state(void) {
    for (unsigned i = 0; i < 16; i++) {
        memcpy(x->s.xsave + XS_XMM + 16 * i, low->vec[i], 16);
        memcpy(x->s.xsave + XS_YMMH + 16 * i, low->vec[i] + 16, 16);
    }
    fp_touched(x, 6);
}

static char text[128];
static const char *describe(const uint8_t *b, unsigned n) {
    ZydisDecoder d;
    ZydisDecodedInstruction z;
    ZydisDecodedOperand op[ZYDIS_MAX_OPERAND_COUNT];
    ZydisFormatter f;
    ZydisDecoderInit(&d, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
    ZydisFormatterInit(&f, ZYDIS_FORMATTER_STYLE_INTEL);
    if (ZYAN_SUCCESS(ZydisDecoderDecodeFull(&d, b, n, &z, op)))
        ZydisFormatterFormatInstruction(&f, &z, op, z.operand_count_visible, text, sizeof(text), 0, NULL);
    return text;
}

static enum xres emulate(const uint8_t *insn, unsigned len, unsigned *used) {
    struct insn *in;
    memset(low->code, 0x90, sizeof(low->code));
    memcpy(low->code, insn, len);
    x->s.rip = (uint64_t)low->code;
    enum xres r = emul_decode_ref(x, &in);
    if (r != X_OK)
        return X_EXIT; // not an instruction: nothing to compare
    *used = in->z.length;
    r = emul_exec(x, in);
    fpu_save(x);
    return r;
}

static uint64_t st64(unsigned off) {
    return *(uint64_t *)(x->s.xsave + off);
}

static uint8_t data_before[4096], data_emul[4096];

static bool compare(const uint8_t *insn, unsigned len) {
    unsigned used = len;
    uint64_t gpr[16], rflags;
    uint8_t vec[16][32];
    memcpy(data_before, low->data, 4096);
    memcpy(x->s.gpr, low->gpr, sizeof(low->gpr));
    x->s.rflags = low->rflags;
    vec_to_state();
    enum xres r = emulate(insn, len, &used);
    if (r == X_EXIT)
        return false;
    memcpy(data_emul, low->data, 4096);
    memcpy(low->data, data_before, 4096);
    memcpy(gpr, low->gpr, sizeof(gpr));
    rflags = low->rflags;
    memcpy(vec, low->vec, sizeof(vec));
    int sig = host_run(low->code, used);
    if ((r == X_FAULT) != (sig != 0))
        fail_msg("%s: emulator %s vector %u, host signal %d", describe(insn, used), r == X_FAULT ? "faults" : "goes on",
                 x->fault.vector, sig);
    if (sig) {
        memcpy(low->gpr, gpr, sizeof(gpr));
        low->rflags = rflags;
        memcpy(low->vec, vec, sizeof(vec));
        return true;
    }
    assert_int_equal(x->s.rip, (uint64_t)low->code + used);
    for (unsigned i = 0; i < 16; i++)
        if (x->s.gpr[i] != low->gpr[i])
            fail_msg("%s: gpr %u is %lx, host has %lx (was %lx)", describe(insn, used), i, x->s.gpr[i], low->gpr[i],
                     gpr[i]);
    if ((x->s.rflags ^ low->rflags) & RFLAGS_ARITH)
        fail_msg("%s: flags %lx, host has %lx", describe(insn, used), x->s.rflags & RFLAGS_ARITH,
                 low->rflags & RFLAGS_ARITH);
    if (memcmp(data_emul, low->data, 4096))
        fail_msg("%s: memory differs", describe(insn, used));
    for (unsigned i = 0; i < 16; i++)
        if (memcmp(x->s.xsave + XS_XMM + 16 * i, low->vec[i], 16) ||
            (host_avx && memcmp(x->s.xsave + XS_YMMH + 16 * i, low->vec[i] + 16, 16)))
            fail_msg("%s: vector register %u is %016lx%016lx%016lx%016lx, host has %016lx%016lx%016lx%016lx",
                     describe(insn, used), i, st64(XS_YMMH + 16 * i + 8), st64(XS_YMMH + 16 * i),
                     st64(XS_XMM + 16 * i + 8), st64(XS_XMM + 16 * i), ((uint64_t *)low->vec[i])[3],
                     ((uint64_t *)low->vec[i])[2], ((uint64_t *)low->vec[i])[1], ((uint64_t *)low->vec[i])[0]);
    return true;
}

static void randomise(void) {
    for (unsigned i = 0; i < 16; i++)
        low->gpr[i] = rnd();
    low->gpr[X86_RBX] = (uint64_t)low->data + 256;
    low->gpr[X86_RSP] = (uint64_t)low->data + 2048;
    low->rflags = (rnd() & RFLAGS_ARITH) | RFLAGS_FIXED1;
    for (unsigned i = 0; i < 512 / 8; i++)
        ((uint64_t *)low->vec)[i] = rnd();
    for (unsigned i = 0; i < 512; i++)
        low->data[i] = (uint8_t)rnd();
}

// ---- random instructions ----

struct form {
    const char *prefix;    // mandatory bytes before REX
    uint8_t map, op, last; // map: 0 one-byte, 1 0f, 2 0f38, 3 0f3a; opcodes op..last
    uint8_t imm;           // 0, 1: imm8, 4: imm16/32 by operand size
    int8_t reg;            // /r fixed, -1 free
    bool reg_only;
};

static const struct form integer_forms[] = {
    {"", 0, 0x00, 0x03, 0, -1, 0},     {"", 0, 0x08, 0x0b, 0, -1, 0},     {"", 0, 0x10, 0x13, 0, -1, 0},
    {"", 0, 0x18, 0x1b, 0, -1, 0},     {"", 0, 0x20, 0x23, 0, -1, 0},     {"", 0, 0x28, 0x2b, 0, -1, 0},
    {"", 0, 0x30, 0x33, 0, -1, 0},     {"", 0, 0x38, 0x3b, 0, -1, 0},     {"", 0, 0x63, 0x63, 0, -1, 0},
    {"", 0, 0x69, 0x69, 4, -1, 0},     {"", 0, 0x6b, 0x6b, 1, -1, 0},     {"", 0, 0x80, 0x80, 1, -1, 0},
    {"", 0, 0x81, 0x81, 4, -1, 0},     {"", 0, 0x83, 0x83, 1, -1, 0},     {"", 0, 0x84, 0x8b, 0, -1, 0},
    {"", 0, 0xc0, 0xc1, 1, -1, 0},     {"", 0, 0xd0, 0xd3, 0, -1, 0},     {"", 0, 0xf6, 0xf6, 1, 0, 0},
    {"", 0, 0xf6, 0xf7, 0, 2, 0},      {"", 0, 0xf6, 0xf7, 0, 3, 0},      {"", 0, 0xf6, 0xf7, 0, 4, 0},
    {"", 0, 0xf6, 0xf7, 0, 5, 0},      {"", 0, 0xf6, 0xf7, 0, 6, 0},      {"", 0, 0xf6, 0xf7, 0, 7, 0},
    {"", 0, 0xfe, 0xff, 0, 0, 0},      {"", 0, 0xfe, 0xff, 0, 1, 0},      {"", 0, 0xff, 0xff, 0, 6, 0},
    {"", 0, 0x8f, 0x8f, 0, 0, 0},      {"", 1, 0x40, 0x4f, 0, -1, 0},     {"", 1, 0x90, 0x9f, 0, -1, 0},
    {"", 1, 0xa3, 0xa3, 0, -1, 1},     {"", 1, 0xab, 0xab, 0, -1, 1},     {"", 1, 0xb3, 0xb3, 0, -1, 1},
    {"", 1, 0xbb, 0xbb, 0, -1, 1},     {"", 1, 0xba, 0xba, 1, 5, 0},      {"", 1, 0xba, 0xba, 1, 7, 0},
    {"", 1, 0xa4, 0xa4, 1, -1, 0},     {"", 1, 0xa5, 0xa5, 0, -1, 0},     {"", 1, 0xac, 0xac, 1, -1, 0},
    {"", 1, 0xad, 0xad, 0, -1, 0},     {"", 1, 0xaf, 0xb1, 0, -1, 0},     {"", 1, 0xb6, 0xb7, 0, -1, 0},
    {"", 1, 0xbc, 0xbf, 0, -1, 0},     {"", 1, 0xc0, 0xc1, 0, -1, 0},     {"\xf3", 1, 0xb8, 0xb8, 0, -1, 0},
    {"\xf3", 1, 0xbc, 0xbd, 0, -1, 0}, {"", 1, 0xc7, 0xc7, 0, 1, 0},      {"\xf2", 2, 0xf0, 0xf1, 0, -1, 0},
    {"", 2, 0xf0, 0xf1, 0, -1, 0},     {"\x66", 2, 0xf6, 0xf6, 0, -1, 0}, {"\xf3", 2, 0xf6, 0xf6, 0, -1, 0},
    {"", 1, 0xc3, 0xc3, 0, -1, 0},
};

static const struct form vector_forms[] = {
    {"", 1, 0x10, 0x17, 0, -1, 0},     {"\x66", 1, 0x10, 0x17, 0, -1, 0}, {"\xf3", 1, 0x10, 0x12, 0, -1, 0},
    {"\xf2", 1, 0x10, 0x12, 0, -1, 0}, {"", 1, 0x28, 0x29, 0, -1, 0},     {"\x66", 1, 0x28, 0x29, 0, -1, 0},
    {"\xf2", 1, 0x2a, 0x2a, 0, -1, 0}, {"\xf3", 1, 0x2a, 0x2a, 0, -1, 0}, {"\xf2", 1, 0x2c, 0x2d, 0, -1, 0},
    {"", 1, 0x2e, 0x2f, 0, -1, 0},     {"\x66", 1, 0x2e, 0x2f, 0, -1, 0}, {"", 1, 0x50, 0x50, 0, -1, 1},
    {"", 1, 0x51, 0x5f, 0, -1, 0},     {"\x66", 1, 0x51, 0x5f, 0, -1, 0}, {"\xf2", 1, 0x51, 0x5a, 0, -1, 0},
    {"\x66", 1, 0x60, 0x6f, 0, -1, 0}, {"\xf3", 1, 0x6f, 0x70, 1, -1, 0}, {"\x66", 1, 0x70, 0x70, 1, -1, 0},
    {"\x66", 1, 0x74, 0x76, 0, -1, 0}, {"\x66", 1, 0x7e, 0x7f, 0, -1, 0}, {"\x66", 1, 0xc4, 0xc6, 1, -1, 0},
    {"\x66", 1, 0xd1, 0xd7, 0, -1, 0}, {"\x66", 1, 0xd8, 0xe6, 0, -1, 0}, {"\x66", 1, 0xe7, 0xef, 0, -1, 0},
    {"\x66", 1, 0xf1, 0xf6, 0, -1, 0}, {"\x66", 1, 0xf8, 0xfe, 0, -1, 0}, {"\x66", 2, 0x00, 0x0b, 0, -1, 0},
    {"\x66", 2, 0x1c, 0x25, 0, -1, 0}, {"\x66", 2, 0x28, 0x41, 0, -1, 0}, {"\x66", 2, 0xdb, 0xdf, 0, -1, 0},
    {"\x66", 3, 0x08, 0x0f, 1, -1, 0}, {"\x66", 3, 0x14, 0x17, 1, -1, 0}, {"\x66", 3, 0x20, 0x22, 1, -1, 0},
    {"\x66", 3, 0x44, 0x44, 1, -1, 0}, {"\x66", 3, 0x60, 0x63, 1, -1, 0}, {"", 2, 0xc8, 0xcd, 0, -1, 0},
};

// mod: memory [rbx+disp8] or a register; RBX stays the base, so writes to it are fine after the access.
static unsigned modrm_bytes(uint8_t *p, const struct form *f, bool mem) {
    unsigned reg = f->reg >= 0 ? (unsigned)f->reg : rnd() & 7;
    if (!mem) {
        p[0] = (uint8_t)(0xc0 | reg << 3 | (rnd() >> 8 & 7));
        return 1;
    }
    p[0] = (uint8_t)(0x40 | reg << 3 | X86_RBX);
    p[1] = (uint8_t)(rnd() >> 16 & 0x70) & (uint8_t)((rnd() >> 20 & 7) ? 0xf0 : 0xff);
    return 2;
}

static unsigned build_legacy(uint8_t *b, const struct form *f) {
    unsigned n = 0;
    bool o16 = !*f->prefix && !f->map && (rnd() >> 9 & 3) == 0;
    bool mem = !f->reg_only && (rnd() >> 10 & 1), rex_w = rnd() >> 11 & 1;
    if (o16)
        b[n++] = 0x66;
    for (const char *c = f->prefix; *c; c++)
        b[n++] = (uint8_t)*c;
    if (rnd() >> 12 & 1 || rex_w)
        b[n++] = (uint8_t)(0x40 | rex_w << 3 | (rnd() >> 13 & 1) << 2 | (mem ? 0 : rnd() >> 14 & 1));
    if (f->map)
        b[n++] = 0x0f;
    if (f->map >= 2)
        b[n++] = f->map == 2 ? 0x38 : 0x3a;
    b[n++] = (uint8_t)(f->op + rnd() % (f->last - f->op + 1u));
    n += modrm_bytes(b + n, f, mem);
    for (unsigned i = 0; i < (f->imm == 4 ? (o16 ? 2 : 4) : f->imm); i++)
        b[n++] = (uint8_t)rnd();
    return n;
}

static unsigned build_vex(uint8_t *b, const struct form *f) {
    unsigned pp = *f->prefix == 0x66 ? 1 : (uint8_t)*f->prefix == 0xf3 ? 2 : (uint8_t)*f->prefix == 0xf2 ? 3 : 0, n = 0;
    bool mem = !f->reg_only && (rnd() >> 10 & 1);
    b[n++] = 0xc4;
    b[n++] = (uint8_t)((rnd() >> 8 & 0x80) | 0x40 | (mem ? 0x20 : rnd() >> 9 & 0x20) | f->map);
    b[n++] = (uint8_t)((rnd() >> 10 & 0x80) | (rnd() >> 12 & 0x78) | (rnd() >> 14 & 4) | pp);
    b[n++] = (uint8_t)(f->op + rnd() % (f->last - f->op + 1u));
    n += modrm_bytes(b + n, f, mem);
    if (f->imm)
        b[n++] = (uint8_t)rnd();
    return n;
}

static void run_forms(const struct form *forms, unsigned count, unsigned rounds, bool vex) {
    unsigned compared = 0;
    for (unsigned i = 0; i < rounds * count; i++) {
        uint8_t b[15] = {0};
        randomise();
        unsigned n = vex ? build_vex(b, &forms[i % count]) : build_legacy(b, &forms[i % count]);
        compared += compare(b, n);
    }
    assert_true(compared > rounds * count / 3);
}

static void test_integer(void **state) {
    mode64();
    run_forms(integer_forms, ARRAY_LEN(integer_forms), 400, false);
    force_slow = true;
    run_forms(integer_forms, ARRAY_LEN(integer_forms), 50, false);
    force_slow = false;
}

static void test_vector(void **state) {
    mode64();
    run_forms(vector_forms, ARRAY_LEN(vector_forms), 100, false);
}

static void test_vex(void **state) {
    static const struct form bmi[] = {
        {"", 2, 0xf2, 0xf3, 0, -1, 0},     {"", 2, 0xf5, 0xf7, 0, -1, 0},     {"\xf2", 2, 0xf5, 0xf7, 0, -1, 0},
        {"\xf3", 2, 0xf5, 0xf7, 0, -1, 0}, {"\x66", 2, 0xf7, 0xf7, 0, -1, 0}, {"\xf2", 3, 0xf0, 0xf0, 1, -1, 0},
        {"\x66", 2, 0x96, 0x9f, 0, -1, 0}, {"\x66", 2, 0x2c, 0x2f, 0, -1, 0}, {"\x66", 2, 0x8c, 0x8e, 0, -1, 0},
        {"\x66", 3, 0x4a, 0x4c, 1, -1, 0},
    };
    if (!host_avx)
        skip();
    mode64();
    run_forms(vector_forms, ARRAY_LEN(vector_forms), 60, true);
    unsigned compared = 0;
    for (unsigned i = 0; i < 4000; i++) {
        uint8_t b[15] = {0};
        randomise();
        compared += compare(b, build_vex(b, &bmi[i % ARRAY_LEN(bmi)]));
    }
    assert_true(compared > 800);
}

static void expect(const char *bytes, unsigned n) {
    assert_true(compare((const uint8_t *)bytes, n));
}

static void test_locked_and_strings(void **state) {
    mode64();
    for (unsigned i = 0; i < 200; i++) {
        force_slow = i & 1;
        randomise();
        low->gpr[X86_RAX] = *(uint64_t *)(low->data + 256), low->gpr[X86_RDX] = *(uint64_t *)(low->data + 264);
        if (i & 2)
            low->gpr[X86_RAX] ^= 1;
        expect("\xf0\x48\x0f\xb1\x0b", 5); // lock cmpxchg [rbx], rcx
        expect("\xf0\x48\x0f\xc7\x0b", 5); // lock cmpxchg16b [rbx] -- RBX is also data
        randomise();
        expect("\xf0\x0f\xc1\x43\x03", 5); // lock xadd [rbx+3], eax
        expect("\x48\x87\x4b\x08", 4);     // xchg [rbx+8], rcx
        low->gpr[X86_RCX] = rnd() & 511;   // lock bts [rbx], rcx: bit string
        expect("\xf0\x48\x0f\xab\x0b", 5);
        low->gpr[X86_RCX] = (uint64_t) - (int64_t)(rnd() & 511);
        expect("\x48\x0f\xbb\x0b", 4); // btc [rbx], rcx: before it
        for (unsigned k = 0; k < 14; k++) {
            static const char *const op[] = {"\xf3\xa4", "\xf3\x48\xa5", "\xf3\xaa",     "\xf3\xab", "\xf3\xa6",
                                             "\xf2\xa6", "\xf3\xae",     "\xf2\xaf",     "\xf3\xac", "\xa5",
                                             "\xae",     "\xf3\x66\xa5", "\xf2\x48\xa7", "\xa7"};
            randomise();
            memset(low->data + 300, (int)rnd(), 40);
            low->gpr[X86_RCX] = rnd() & 31;
            low->gpr[X86_RSI] = (uint64_t)low->data + 300 + (rnd() & 15);
            low->gpr[X86_RDI] = (uint64_t)low->data + 300 + (rnd() & 31);
            if (rnd() >> 30 & 1)
                low->rflags |= RFLAGS_DF;
            expect(op[k], (unsigned)strlen(op[k]));
        }
    }
    force_slow = false;
}

static void test_masked(void **state) {
    if (!host_avx)
        skip();
    mode64();
    for (unsigned i = 0; i < 300; i++) {
        randomise();
        low->gpr[X86_RDI] = (uint64_t)low->data + 64 + (rnd() & 63);
        expect("\x66\x0f\xf7\xca", 4); // maskmovdqu xmm1, xmm2
        for (unsigned k = 0; k < 32; k++)
            ((uint32_t *)low->vec[3])[k & 7] = (uint32_t)(rnd() & 127); // indices
        expect("\xc4\xe2\x6d\x90\x0c\x1b", 6);                          // vpgatherdd ymm1, [rbx+ymm3], ymm2
        randomise();
        for (unsigned k = 0; k < 4; k++)
            ((uint64_t *)low->vec[3])[k] = rnd() & 127;
        expect("\xc4\xe2\xed\x91\x0c\x1b", 6); // vpgatherqq
        expect("\xc4\xe2\x6d\x93\x0c\x1b", 6); // vgatherqps xmm1, [rbx+ymm3], xmm2
    }
}

// Accesses that a mask turns off must not fault; those that are on must, with nothing changed.
static void test_masked_faults(void **state) {
    unsigned used;
    mode64();
    randomise();
    vec_to_state();
    bad_page = (uint64_t)low->data + 4096;
    x->s.gpr[X86_RBX] = bad_page - 16;
    for (unsigned i = 0; i < 8; i++)
        ((uint32_t *)(x->s.xsave + XS_XMM + 32))[i] = i < 4 ? 0x80000000 : 0;
    memset(x->s.xsave + XS_YMMH + 32, 0, 16);
    assert_int_equal(emulate((const uint8_t *)"\xc4\xe2\x6d\x2e\x0b", 5, &used), X_OK); // vmaskmovps [rbx], ymm2, ymm1
    fp_to_memory(x);
    x->s.xsave[XS_YMMH + 32 + 3] = 0x80;
    assert_int_equal(emulate((const uint8_t *)"\xc4\xe2\x6d\x2e\x0b", 5, &used), X_FAULT);
    assert_int_equal(x->fault.vector, X86_PF);
    assert_int_equal(x->fault.cr2, bad_page);
    // REP MOVSB into the page: stops exactly at its border.
    x->s.gpr[X86_RSI] = (uint64_t)low->data, x->s.gpr[X86_RDI] = bad_page - 100, x->s.gpr[X86_RCX] = 500;
    assert_int_equal(emulate((const uint8_t *)"\xf3\xa4", 2, &used), X_FAULT);
    assert_int_equal(x->s.gpr[X86_RCX], 400);
    assert_int_equal(x->s.gpr[X86_RDI], bad_page);
    assert_int_equal(x->s.gpr[X86_RSI], (uint64_t)low->data + 100);
    assert_int_equal(x->s.rip, (uint64_t)low->code);
    // INS must not read the port when the store cannot be done.
    pio_count = 0;
    assert_int_equal(emulate((const uint8_t *)"\x6c", 1, &used), X_FAULT);
    assert_int_equal(pio_count, 0);
    bad_page = 1;
}

static void test_flow(void **state) {
    unsigned used;
    mode64();
    uint64_t code = (uint64_t)low->code, sp = (uint64_t)low->data + 1024;
    assert_int_equal(emulate((const uint8_t *)"\xeb\xfe", 2, &used), X_OK); // jmp $
    assert_int_equal(x->s.rip, code);
    x->s.gpr[X86_RSP] = sp;
    assert_int_equal(emulate((const uint8_t *)"\xe8\x10\0\0\0", 5, &used), X_OK); // call
    assert_int_equal(x->s.rip, code + 0x15);
    assert_int_equal(*(uint64_t *)(sp - 8), code + 5);
    assert_int_equal(x->s.gpr[X86_RSP], sp - 8);
    assert_int_equal(emulate((const uint8_t *)"\xc2\x10\0", 3, &used), X_OK); // ret 16
    assert_int_equal(x->s.rip, code + 5);
    assert_int_equal(x->s.gpr[X86_RSP], sp + 16);
    x->s.gpr[X86_RAX] = 0x800000000000; // not canonical
    assert_int_equal(emulate((const uint8_t *)"\xff\xe0", 2, &used), X_FAULT);
    assert_int_equal(x->fault.vector, X86_GP);
    assert_int_equal(x->s.rip, code);
    x->s.gpr[X86_RCX] = 1;
    assert_int_equal(emulate((const uint8_t *)"\xe2\x10", 2, &used), X_OK); // loop
    assert_int_equal(x->s.rip, code + 2);
    assert_int_equal(x->s.gpr[X86_RCX], 0);
    assert_int_equal(emulate((const uint8_t *)"\xe3\x10", 2, &used), X_OK); // jrcxz
    assert_int_equal(x->s.rip, code + 18);
    x->s.gpr[X86_RBP] = 0x1111, x->s.gpr[X86_RSP] = sp;
    assert_int_equal(emulate((const uint8_t *)"\xc8\x20\0\0", 4, &used), X_OK); // enter 32, 0
    assert_int_equal(x->s.gpr[X86_RBP], sp - 8);
    assert_int_equal(x->s.gpr[X86_RSP], sp - 40);
    assert_int_equal(emulate((const uint8_t *)"\xc9", 1, &used), X_OK); // leave
    assert_int_equal(x->s.gpr[X86_RBP], 0x1111);
    assert_int_equal(x->s.gpr[X86_RSP], sp);
    assert_int_equal(emulate((const uint8_t *)"\x6a\xfe", 2, &used), X_OK); // push -2
    assert_int_equal(*(uint64_t *)(sp - 8), ~1ull);
    assert_int_equal(emulate((const uint8_t *)"\x5c", 1, &used), X_OK); // pop rsp
    assert_int_equal(x->s.gpr[X86_RSP], ~1ull);
}

// ---- 16-bit code: segments, wrap-around, limits, decimal adjustment ----

static void mode_real(void) {
    mode64();
    x->s.cr0 = CR0_ET;
    x->code_bits = x->stack_bits = 16;
    x->long_mode = false;
    for (unsigned i = 0; i < 6; i++)
        x->s.seg[i] = (struct x86_segment){.base = (uint64_t)low->data, .limit = 0xffff, .attr = 0x93};
    x->s.seg[X86_CS].base = (uint64_t)low->code;
}

static enum xres real(const char *b, unsigned n) {
    struct insn *in;
    memcpy(low->code, b, n);
    x->s.rip = 0;
    enum xres r = emul_decode_ref(x, &in);
    return r == X_OK ? emul_exec(x, in) : r;
}

static void test_real(void **state) {
    mode_real();
    x->s.gpr[X86_RSP] = 0xabcd0100, x->s.gpr[X86_RAX] = 0x11223344;
    assert_int_equal(real("\x50", 1), X_OK); // push ax
    assert_int_equal(x->s.gpr[X86_RSP], 0xabcd00fe);
    assert_int_equal(*(uint16_t *)(low->data + 0xfe), 0x3344);
    assert_int_equal(real("\x66\x50", 2), X_OK); // push eax
    assert_int_equal(x->s.gpr[X86_RSP], 0xabcd00fa);
    x->s.gpr[X86_RBX] = 0xffff, x->s.gpr[X86_RSI] = 3, low->data[2] = 0x5a;
    assert_int_equal(real("\x8a\x00", 2), X_OK); // mov al, [bx+si]: wraps to 2
    assert_int_equal(x->s.gpr[X86_RAX] & 0xff, 0x5a);
    assert_int_equal(real("\x8b\x07", 2), X_FAULT); // mov ax, [bx]: over the limit
    assert_int_equal(x->fault.vector, X86_GP);
    x->s.gpr[X86_RDI] = 0x10, x->s.gpr[X86_RCX] = 0x70004, x->s.gpr[X86_RAX] = 0x77;
    assert_int_equal(real("\xf3\xaa", 2), X_OK); // rep stosb uses CX
    assert_int_equal(x->s.gpr[X86_RCX], 0x70000);
    assert_int_equal(*(uint32_t *)(low->data + 0x10), 0x77777777);
    x->s.gpr[X86_RAX] = 0x0f9a, x->s.rflags = 2;
    assert_int_equal(real("\x27", 1), X_OK); // daa: 9a -> 00, carry
    assert_int_equal(x->s.gpr[X86_RAX], 0x0f00);
    assert_int_equal(x->s.rflags & (RFLAGS_CF | RFLAGS_ZF | RFLAGS_AF), RFLAGS_CF | RFLAGS_ZF | RFLAGS_AF);
    x->s.gpr[X86_RAX] = 0x003f;
    assert_int_equal(real("\xd4\x0a", 2), X_OK); // aam: 63 -> 6, 3
    assert_int_equal(x->s.gpr[X86_RAX], 0x0603);
    assert_int_equal(real("\xd5\x0a", 2), X_OK); // aad
    assert_int_equal(x->s.gpr[X86_RAX], 63);
    assert_int_equal(real("\xd4\x00", 2), X_FAULT);
    assert_int_equal(x->fault.vector, X86_DE);
    assert_int_equal(real("\xf0\x90", 2), X_FAULT); // lock nop
    assert_int_equal(x->fault.vector, X86_UD);
    x->s.seg[X86_CS].limit = 1;
    assert_int_equal(real("\xb8\x11\x22", 3), X_FAULT); // mov ax, imm16 does not fit the code segment
    assert_int_equal(x->fault.vector, X86_GP);
}

// ---- FPU ----

static void test_fp_gates(void **state) {
    unsigned used;
    mode64();
    x->s.cr0 |= CR0_TS;
    assert_int_equal(emulate((const uint8_t *)"\xd9\xe8", 2, &used), X_FAULT); // fld1
    assert_int_equal(x->fault.vector, X86_NM);
    x->s.cr0 ^= CR0_TS | CR0_EM;
    assert_int_equal(emulate((const uint8_t *)"\x0f\x58\xc1", 3, &used), X_FAULT); // addps
    assert_int_equal(x->fault.vector, X86_UD);
    x->s.cr0 ^= CR0_EM;
    x->s.xcr0 = 3;
    assert_int_equal(emulate((const uint8_t *)"\xc5\xf0\x58\xc2", 4, &used), X_FAULT); // vaddps
    assert_int_equal(x->fault.vector, X86_UD);
    x->s.xcr0 = 7;
    x->s.gpr[X86_RBX] = (uint64_t)low->data + 1;
    assert_int_equal(emulate((const uint8_t *)"\x0f\x28\x03", 3, &used), X_FAULT); // movaps xmm0, [rbx+1]
    assert_int_equal(x->fault.vector, X86_GP);
    // LDMXCSR of a reserved bit; unmasked division by zero: #XM, or #UD without OSXMMEXCPT.
    x->s.gpr[X86_RBX] = (uint64_t)low->data;
    *(uint32_t *)low->data = 0x10000;
    assert_int_equal(emulate((const uint8_t *)"\x0f\xae\x13", 3, &used), X_FAULT);
    assert_int_equal(x->fault.vector, X86_GP);
    *(uint32_t *)low->data = MXCSR_INIT & ~0x200u;
    assert_int_equal(emulate((const uint8_t *)"\x0f\xae\x13", 3, &used), X_OK);
    fp_to_memory(x);
    ((float *)(x->s.xsave + XS_XMM))[0] = 1.0f;
    memset(x->s.xsave + XS_XMM + 16, 0, 16);
    fp_touched(x, 2);
    assert_int_equal(emulate((const uint8_t *)"\xf3\x0f\x5e\xc1", 4, &used), X_FAULT); // divss xmm0, xmm1
    assert_int_equal(x->fault.vector, X86_XM);
    assert_true(((float *)(x->s.xsave + XS_XMM))[0] == 1.0f);
    assert_int_equal(fp_get32(x, XS_MXCSR) & 4, 4);
    x->s.cr4 &= ~CR4_OSXMMEXCPT;
    assert_int_equal(emulate((const uint8_t *)"\xf3\x0f\x5e\xc1", 4, &used), X_FAULT);
    assert_int_equal(x->fault.vector, X86_UD);
    fp_set32(x, XS_MXCSR, MXCSR_INIT);
}

static enum xres fp(const char *b, unsigned n) {
    unsigned used;
    return emulate((const uint8_t *)b, n, &used);
}

static void test_x87(void **state) {
    mode64();
    x->s.gpr[X86_RBX] = (uint64_t)low->data;
    assert_int_equal(fp("\xdb\xe3", 2), X_OK); // fninit
    assert_int_equal(fp("\xd9\xe8", 2), X_OK); // fld1
    assert_int_equal(fp("\xd9\xeb", 2), X_OK); // fldpi
    assert_int_equal(*(uint64_t *)(x->s.xsave + XS_FIP), (uint64_t)low->code);
    assert_int_equal(fp("\xd9\x33", 2), X_OK);               // fnstenv [rbx]
    assert_int_equal(*(uint16_t *)(low->data + 8) >> 12, 0); // ST0, ST1 are physical 6 and 7, both valid
    assert_int_equal(*(uint16_t *)(low->data + 8) & 0xfff, 0xfff);
    assert_int_equal(*(uint32_t *)(low->data + 12), (uint32_t)(uint64_t)low->code);
    assert_int_equal(fp("\xdd\x33", 2), X_OK); // fnsave [rbx]
    assert_int_equal(x->s.xsave[XS_FTW], 0);
    assert_int_equal(fp("\xdd\x23", 2), X_OK); // frstor [rbx]
    assert_int_equal(fp("\xde\xc9", 2), X_OK); // fmulp
    assert_int_equal(fp("\xdd\x1b", 2), X_OK); // fstp qword [rbx]
    assert_true(*(double *)low->data > 3.14159 && *(double *)low->data < 3.1416);
    // Unmasked stack underflow: FSTP leaves memory alone, the next instruction faults.
    *(uint16_t *)low->data = 0x37e;
    assert_int_equal(fp("\xd9\x2b", 2), X_OK); // fldcw
    *(uint64_t *)low->data = 0x1234;
    assert_int_equal(fp("\xdd\x1b", 2), X_OK);
    assert_int_equal(*(uint64_t *)low->data, 0x1234);
    assert_int_equal(fp("\xd9\xe8", 2), X_FAULT);
    assert_int_equal(x->fault.vector, X86_MF);
    assert_int_equal(fp("\xdf\xe0", 2), X_OK); // fnstsw ax
    assert_int_equal(x->s.gpr[X86_RAX] & 0xc1, 0xc1);
    assert_int_equal(fp("\xdb\xe3", 2), X_OK);
}

static void test_xsave(void **state) {
    uint8_t vec[16][16];
    mode64();
    randomise();
    vec_to_state();
    memcpy(vec, x->s.xsave + XS_XMM, 256);
    memset(low->data, 0xee, 1024);
    memset(low->data + 512, 0, 64);
    x->s.gpr[X86_RBX] = (uint64_t)low->data, x->s.gpr[X86_RAX] = 7, x->s.gpr[X86_RDX] = 0;
    for (unsigned i = 0; i < 2; i++) {
        assert_int_equal(fp(i ? "\x0f\xc7\x63\x00" : "\x48\x0f\xae\x23", 4), X_OK); // xsavec, xsave64 [rbx]
        assert_int_equal(*(uint64_t *)(low->data + 512) & 6, 6);
        assert_int_equal(*(uint64_t *)(low->data + 520), i ? 7 | 1ull << 63 : 0);
        fp_to_memory(x);
        memset(x->s.xsave + XS_XMM, 0, 256);
        fp_touched(x, 2);
        assert_int_equal(fp("\x0f\xae\x2b", 3), X_OK); // xrstor [rbx]
        fp_to_memory(x);
        assert_memory_equal(x->s.xsave + XS_XMM, vec, 256);
    }
    // XSTATE_BV 0: everything goes to its initial state; only what is asked for.
    memset(low->data + 512, 0, 64);
    x->s.gpr[X86_RAX] = 4;
    assert_int_equal(fp("\x0f\xae\x2b", 3), X_OK);
    fp_to_memory(x);
    assert_memory_equal(x->s.xsave + XS_XMM, vec, 256);
    for (unsigned i = 0; i < 256; i++)
        assert_int_equal(x->s.xsave[XS_YMMH + i], 0);
    low->data[512] = 8; // a component that does not exist
    assert_int_equal(fp("\x0f\xae\x2b", 3), X_FAULT);
    assert_int_equal(x->fault.vector, X86_GP);
    low->data[512] = 0;
    x->s.gpr[X86_RBX]++;
    assert_int_equal(fp("\x0f\xae\x2b", 3), X_FAULT);
    assert_int_equal(x->fault.vector, X86_GP);
}

// ---- set-up ----

static int setup(void **state) {
    static uint8_t altstack[65536];
    stack_t ss = {.ss_sp = altstack, .ss_size = sizeof(altstack)};
    host_avx = __builtin_cpu_supports("avx2");
    low = mmap(NULL, sizeof(*low), PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
    x = aligned_alloc(4096, (sizeof(*x) + 4095) & ~(size_t)4095);
    if (low == MAP_FAILED || !x)
        return -1;
    memset(x, 0, sizeof(*x));
    x->irqchip = &no_irqchip;
    fp_set16(x, XS_FCW, FCW_INIT);
    fp_set32(x, XS_MXCSR, MXCSR_INIT);
    // Everything that the host has, except what the host lacks.
    policy.leaf[0] = (struct cpuid_leaf){1, 0xffffffff, 0, 0, ~0u, ~0u};
    policy.leaf[1] = (struct cpuid_leaf){7, 0, 0, host_avx ? ~0u : 0, 0, 0};
    policy.leaf[2] = (struct cpuid_leaf){13, 1, 7, 0, 0, 0};
    policy.leaf[3] = (struct cpuid_leaf){0x80000001, 0xffffffff, 0, 0, 0x20, ~0u};
    policy.count = 4;
    sigaltstack(&ss, NULL);
    x->emul_cache = emul_cache_create();
    return x->emul_cache && native_init(x) == 0 ? 0 : -1;
}

static int teardown(void **state) {
    native_destroy(x);
    emul_cache_destroy(x->emul_cache);
    free(x);
    return munmap(low, sizeof(*low));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_integer),  cmocka_unit_test(test_vector),
        cmocka_unit_test(test_vex),      cmocka_unit_test(test_locked_and_strings),
        cmocka_unit_test(test_masked),   cmocka_unit_test(test_masked_faults),
        cmocka_unit_test(test_flow),     cmocka_unit_test(test_real),
        cmocka_unit_test(test_fp_gates), cmocka_unit_test(test_x87),
        cmocka_unit_test(test_xsave),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
