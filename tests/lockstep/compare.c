// SPDX-License-Identifier: Apache-2.0
// What must be equal on both sides. What need not be, and why, is in this file alone.
#include <stdio.h>
#include <string.h>

#include "tests/lockstep/lockstep.h"

static char text[200];

static const char *differ(const char *what, uint64_t a, uint64_t b) {
    snprintf(text, sizeof(text), "%s is %#lx and %#lx", what, a, b);
    return text;
}

// ---- registers ----

struct field {
    const char *name;
    size_t offset, size;
    uint64_t mask;
};
#define FIELD(f)                                                                                                       \
    { #f, offsetof(struct cpu_state, f), sizeof(((struct cpu_state *)0)->f), ~0ull }
#define MASKED(f, m)                                                                                                   \
    { #f, offsetof(struct cpu_state, f), sizeof(((struct cpu_state *)0)->f), m }
#define REG(name, index)                                                                                               \
    { name, offsetof(struct cpu_state, gpr) + 8 * (index), 8, ~0ull }

static const struct field general[] = {FIELD(rip),     REG("rax", 0),  REG("rcx", 1),  REG("rdx", 2),  REG("rbx", 3),
                                       REG("rsp", 4),  REG("rbp", 5),  REG("rsi", 6),  REG("rdi", 7),  REG("r8", 8),
                                       REG("r9", 9),   REG("r10", 10), REG("r11", 11), REG("r12", 12), REG("r13", 13),
                                       REG("r14", 14), REG("r15", 15)};

// Left out: TSC and kvmclock (time), IA32_SPEC_CTRL, MTRRs and MISC_ENABLE (each KVM has its own), events that each
// engine keeps in its own way between two instructions. SYSENTER_ESP and _EIP have 32 bits for an AMD guest of KVM.
static const struct field others[] = {
    FIELD(rflags),
    FIELD(gdtr.base),
    FIELD(gdtr.limit),
    FIELD(idtr.base),
    FIELD(idtr.limit),
    FIELD(cr0),
    FIELD(cr2),
    FIELD(cr3),
    FIELD(cr4),
    FIELD(efer),
    FIELD(dr[0]),
    FIELD(dr[1]),
    FIELD(dr[2]),
    FIELD(dr[3]),
    FIELD(dr6),
    FIELD(dr7),
    FIELD(xcr0),
    FIELD(star),
    FIELD(lstar),
    FIELD(cstar),
    MASKED(fmask, 0xffffffff),
    FIELD(kernel_gs_base),
    FIELD(sysenter_cs),
    MASKED(sysenter_esp, 0xffffffff),
    MASKED(sysenter_eip, 0xffffffff),
    FIELD(pat),
    FIELD(tsc_aux),
    FIELD(activity),
    FIELD(nmi_blocked),
};

static uint64_t value_of(const struct cpu_state *s, const struct field *f) {
    uint64_t v = 0;

    memcpy(&v, (const uint8_t *)s + f->offset, f->size);
    return v & f->mask;
}

static const char *fields_difference(const struct cpu_state *a, const struct cpu_state *b, const struct field *f,
                                     size_t n) {
    for (; n; n--, f++)
        if (value_of(a, f) != value_of(b, f))
            return differ(f->name, value_of(a, f), value_of(b, f));
    return NULL;
}

bool registers_equal(const struct cpu_state *a, const struct cpu_state *b) {
    return !fields_difference(a, b, general, ARRAY_LEN(general));
}

// ---- segments ----

static const char *const segment_names[X86_SEG_COUNT] = {"ES", "CS", "SS", "DS", "FS", "GS", "LDTR", "TR"};

// In 64-bit mode the bases of FS and GS count, and of the others nothing but CS's attributes (SDM vol. 3A 3.4.4). What
// a null selector leaves in the hidden part is the processor's own (APM vol. 2 4.5.3 keeps the base, Intel's clear it).
// The privilege level of SS is the CPL on both.
static bool hidden_part_counts(const struct cpu_state *s, unsigned i) {
    bool is64 = (s->efer & EFER_LMA) && (s->seg[X86_CS].attr & SEG_L);

    if (i == X86_CS || i == X86_TR)
        return true;
    return !is64 && i != X86_LDTR && (s->seg[i].sel & ~3u) && !(s->seg[i].attr & SEG_UNUSABLE);
}

static const char *segment_difference(const struct cpu_state *a, const struct cpu_state *b, unsigned i) {
    const struct x86_segment *x = &a->seg[i], *y = &b->seg[i];
    bool is64 = (a->efer & EFER_LMA) && (a->seg[X86_CS].attr & SEG_L);
    bool base = (i == X86_FS || i == X86_GS) && is64;

    if (x->sel != y->sel)
        return differ(segment_names[i], x->sel, y->sel);
    if ((base || hidden_part_counts(a, i)) && x->base != y->base)
        return differ(segment_names[i], x->base, y->base);
    if (!hidden_part_counts(a, i))
        return NULL;
    if (x->limit != y->limit)
        return differ(segment_names[i], x->limit, y->limit);
    // AVL and what lies above it has no meaning to the processor.
    return (x->attr ^ y->attr) & 0xe0ff ? differ(segment_names[i], x->attr, y->attr) : NULL;
}

// ---- x87, SSE, AVX ----

// A component whose bit in XSTATE_BV is clear has its initial value (SDM vol. 1 13.6); areas are compared as the
// registers they stand for. The x87 pointers are not compared: each engine's own (docs/XLATE.md).
static void xsave_registers(const struct cpu_state *s, uint8_t *out) {
    uint64_t bv;

    memcpy(&bv, s->xsave + 512, 8);
    memset(out, 0, X86_XSAVE_SIZE);
    if (bv & XCR0_X87) {
        memcpy(out, s->xsave, 6);
        memcpy(out + 32, s->xsave + 32, 128);
    } else {
        memcpy(out, &(uint16_t){0x37f}, 2);
    }
    if (bv & XCR0_SSE)
        memcpy(out + 160, s->xsave + 160, 256);
    if (bv & XCR0_AVX)
        memcpy(out + 576, s->xsave + 576, 256);
    memcpy(out + 24, s->xsave + 24, 4); // MXCSR has no bit of its own
    for (unsigned i = 0; i < 8; i++)    // 80 bits each
        memset(out + 32 + 16 * i + 10, 0, 6);
}

static const char *xsave_difference(const struct cpu_state *a, const struct cpu_state *b) {
    uint8_t x[X86_XSAVE_SIZE], y[X86_XSAVE_SIZE];

    xsave_registers(a, x);
    xsave_registers(b, y);
    for (unsigned i = 0; i < X86_XSAVE_SIZE; i++)
        if (x[i] != y[i]) {
            snprintf(text, sizeof(text), "byte %u of the XSAVE area is %#x and %#x", i, x[i], y[i]);
            return text;
        }
    return NULL;
}

const char *state_difference(const struct cpu_state *a, const struct cpu_state *b) {
    const char *d = fields_difference(a, b, general, ARRAY_LEN(general));

    if (!d)
        d = fields_difference(a, b, others, ARRAY_LEN(others));
    for (unsigned i = 0; !d && i < X86_SEG_COUNT; i++)
        d = segment_difference(a, b, i);
    return d ? d : xsave_difference(a, b);
}

// ---- memory ----

// The image of RFLAGS that PUSHF, an exception or SYSCALL makes while KVM single-steps holds TF, because KVM steps by
// it. Anything that looks like flags and differs in TF alone is that; the second side gets what the first has.
static bool is_trace_flag(const uint8_t *a, const uint8_t *b) {
    uint16_t x, y;

    memcpy(&x, a, 2);
    memcpy(&y, b, 2);
    return (x ^ y) == RFLAGS_TF && !(x & RFLAGS_TF) && (x & RFLAGS_FIXED1) && !(x & 0x8028);
}

// RF in the image of an exception: set for faults but those of breakpoints, clear for traps (SDM vol. 3A 6.8.3), which
// QEMU TCG, the processor of the bed kvm-amd, has otherwise. `a` is the third byte of the image.
static bool is_resume_flag(const uint8_t *a, const uint8_t *b) {
    uint32_t x, y;

    memcpy(&x, a - 2, 4);
    memcpy(&y, b - 2, 4);
    return (x ^ y) == RFLAGS_RF && (x & RFLAGS_FIXED1) && !(x & 0xffc08028);
}

// The processor may set accessed bits early (SDM vol. 3A 4.8); entries of tables are 4 or 8 bytes and present.
static bool is_accessed_bit(const uint8_t *a, const uint8_t *b) {
    return (*a ^ *b) == 0x20 && (*a & 1) && ((uintptr_t)a & 3) == 0;
}

static const char *page_difference(struct pair *p, uint64_t gpa) {
    uint8_t *a = p->side[FIRST].ram + gpa, *b = p->side[SECOND].ram + gpa;

    if (!memcmp(a, b, PAGE_SIZE))
        return NULL;
    for (unsigned i = 0; i < PAGE_SIZE; i++) {
        if (a[i] == b[i])
            continue;
        if (is_accessed_bit(a + i, b + i)) {
            p->accessed++;
        } else if ((i & 1) && p->side[SECOND].steps && is_trace_flag(a + i - 1, b + i - 1)) {
            p->trace_flags++;
            mem_write(p->side[SECOND].mem, GPA(gpa + i), a + i, 1);
        } else if ((i & 3) == 2 && is_resume_flag(a + i, b + i)) {
            p->resume_flags++;
            mem_write(p->side[SECOND].mem, GPA(gpa + i), a + i, 1);
        } else {
            snprintf(text, sizeof(text), "memory at %#lx is %#x and %#x", gpa + i, a[i], b[i]);
            return text;
        }
    }
    return NULL;
}

static void fetch_dirty(struct pair *p, bool all) {
    for (unsigned i = 0; i < 2; i++) {
        struct side *s = &p->side[i];
        unsigned count;

        if (s->ops->dirty_sync)
            s->ops->dirty_sync(s->engine);
        mem_dirty_fetch(s->mem, mem_slots(s->mem, &count), p->dirty[i]);
        if (all)
            memset(p->dirty[i], 0xff, RAM_BYTES / PAGE_SIZE / 8);
    }
}

const char *memory_difference(struct pair *p, bool all) {
    const char *d = NULL;

    fetch_dirty(p, all);
    for (uint64_t page = 0; !d && page < RAM_BYTES / PAGE_SIZE; page++)
        if (((p->dirty[0][page / 64] | p->dirty[1][page / 64]) >> page % 64) & 1)
            d = page_difference(p, page * PAGE_SIZE);
    return d;
}
