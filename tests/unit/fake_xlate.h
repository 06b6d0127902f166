// SPDX-License-Identifier: Apache-2.0
// A vCPU without MMU, translator or machine: linear memory is one flat buffer with a hole that faults. For tests of the
// system half of the emulator, which is linked with these definitions in place of the engine's.
#ifndef CICADA_TESTS_FAKE_XLATE_H
#define CICADA_TESTS_FAKE_XLATE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "engine/xlate/debug.h"
#include "engine/xlate/engine.h"
#include "engine/xlate/sys.h"

#define MEM_SIZE 0x100000u
#define HOLE     0x80000u // [HOLE, HOLE + 64 KiB) is not mapped
#define GDT      0x1000u
#define IDT      0x2000u
#define TSS      0x4000u
#define STACK0   0x20000u // tops of stacks
#define STACK3   0x30000u
#define IST1     0x40000u

#define SEL_CODE0    0x08u
#define SEL_DATA0    0x10u
#define SEL_CODE3_32 0x1bu
#define SEL_DATA3    0x23u
#define SEL_CODE3    0x2bu
#define SEL_TSS      0x30u
#define SEL_FREE     0x40u

static uint8_t mem[MEM_SIZE];
static struct cpuid_policy policy;
static unsigned mode_updates;
static int irq_vector = -1;
static uint32_t chip_events;
static uint64_t fake_tsc = 1000000;

// ---- the engine's functions ----

static enum xres fake_check(struct xcpu *x, uint64_t lin, unsigned size, unsigned flags) {
    uint32_t error = (flags & MMU_WRITE ? 2 : 0) | (x->cpl == 3 && !(flags & MMU_SYSTEM) ? 4 : 0);

    if (lin + size > MEM_SIZE || lin + size < lin || (lin + size > HOLE && lin < HOLE + 0x10000))
        return fault_page(x, lin, error);
    return X_OK;
}

enum xres mmu_read(struct xcpu *x, uint64_t lin, void *buf, unsigned size, unsigned flags) {
    TRY(fake_check(x, lin, size, flags));
    memcpy(buf, mem + lin, size);
    return X_OK;
}

enum xres mmu_write(struct xcpu *x, uint64_t lin, const void *buf, unsigned size, unsigned flags) {
    TRY(fake_check(x, lin, size, flags | MMU_WRITE));
    memcpy(mem + lin, buf, size);
    return X_OK;
}

enum xres mmu_probe(struct xcpu *x, uint64_t lin, unsigned size, unsigned flags) {
    return fake_check(x, lin, size, flags);
}

void mmu_flush_all(struct xcpu *x) {}
void mmu_flush_page(struct xcpu *x, uint64_t lin) {}
void mmu_invpcid(struct xcpu *x, unsigned type, uint64_t pcid, uint64_t lin) {}
enum xres mmu_set_cr3(struct xcpu *x, uint64_t cr3) {
    x->s.cr3 = cr3;
    return X_OK;
}
void fpu_save(struct xcpu *x) {}
uint32_t host_pio_read(struct xcpu *x, uint16_t port, unsigned size) {
    return 0xa5a5a5a5;
}
void host_pio_write(struct xcpu *x, uint16_t port, unsigned size, uint32_t val) {}
uint64_t host_tsc(struct xcpu *x) {
    return fake_tsc + x->s.tsc_offset;
}
void host_random(struct xcpu *x, void *buf, size_t len) {
    memset(buf, 0x5a, len);
}
const struct cpuid_policy *xcpu_policy(const struct xcpu *x) {
    return &policy;
}

void mode_update(struct xcpu *x) {
    const struct x86_segment *cs = &x->s.seg[X86_CS], *ss = &x->s.seg[X86_SS];
    bool vm86 = cpu_protected(x) && cpu_vm86(x);

    mode_updates++;
    x->long_mode = x->s.efer & EFER_LMA;
    x->cpl = !cpu_protected(x) ? 0 : vm86 ? 3 : (uint8_t)SEG_DPL(ss->attr);
    x->code_bits = x->stack_bits = 64;
    if (!x->long_mode || !(cs->attr & SEG_L)) {
        x->code_bits = !vm86 && (cs->attr & SEG_DB) ? 32 : 16;
        x->stack_bits = !vm86 && (ss->attr & SEG_DB) ? 32 : 16;
    }
}

// Of the emulator's other half.
enum x86_seg insn_seg(const ZydisDecodedOperand *op) {
    return X86_DS;
}
uint64_t insn_ea(struct xcpu *x, struct insn *in, const ZydisDecodedOperand *op) {
    return (uint64_t)op->mem.disp.value;
}
enum xres seg_linear(struct xcpu *x, enum x86_seg seg, uint64_t off, unsigned size, unsigned flags, uint64_t *lin) {
    *lin = off;
    return X_OK;
}
enum xres seg_read(struct xcpu *x, enum x86_seg seg, uint64_t off, void *buf, unsigned size, unsigned flags) {
    return mmu_read(x, off, buf, size, flags);
}
enum xres seg_write(struct xcpu *x, enum x86_seg seg, uint64_t off, const void *buf, unsigned size, unsigned flags) {
    return mmu_write(x, off, buf, size, flags);
}
static unsigned fake_reg(ZydisRegister reg) {
    return reg >= ZYDIS_REGISTER_RAX ? (unsigned)(reg - ZYDIS_REGISTER_RAX) : (unsigned)(reg - ZYDIS_REGISTER_EAX);
}
uint64_t reg_read(struct xcpu *x, ZydisRegister reg) {
    return x->s.gpr[fake_reg(reg) & 15];
}
void reg_write(struct xcpu *x, ZydisRegister reg, uint64_t val) {
    x->s.gpr[fake_reg(reg) & 15] = val;
}
enum xres op_read(struct xcpu *x, struct insn *in, unsigned i, uint64_t *val) {
    *val = reg_read(x, in->op[i].reg.value);
    return X_OK;
}
enum xres op_write(struct xcpu *x, struct insn *in, unsigned i, uint64_t val) {
    reg_write(x, in->op[i].reg.value, val);
    return X_OK;
}
enum xres stack_push(struct xcpu *x, uint64_t val, unsigned size) {
    struct xstack st;

    xstack_current(x, &st);
    TRY(xstack_push(x, &st, val, size));
    xstack_commit(x, &st);
    return X_OK;
}
enum xres stack_pop(struct xcpu *x, uint64_t *val, unsigned size) {
    struct xstack st;

    xstack_current(x, &st);
    TRY(xstack_pop(x, &st, val, size));
    xstack_commit(x, &st);
    return X_OK;
}

// ---- the interrupt controller ----

static int chip_pending(void *ctx) {
    return irq_vector;
}
static int chip_ack(void *ctx) {
    int v = irq_vector;

    irq_vector = -1;
    return v;
}
static uint32_t chip_take_events(void *ctx) {
    uint32_t e = chip_events;

    chip_events = 0;
    return e;
}
static uint8_t chip_tpr_get(void *ctx) {
    return 0x50;
}
static void chip_tpr_set(void *ctx, uint8_t tpr) {}
static int chip_reg_read(void *ctx, uint32_t reg, uint64_t *val) {
    *val = 0xfee00900;
    return reg == 0x1b ? 0 : -1;
}
static int chip_reg_write(void *ctx, uint32_t reg, uint64_t val) {
    return reg == 0x1b ? 0 : -1;
}
static void chip_eoi(void *ctx, uint8_t vector) {}
static void chip_reset(void *ctx, bool init) {}

static const struct irqchip_cpu_ops chip_ops = {chip_pending,   chip_ack,     chip_take_events,
                                                chip_tpr_get,   chip_tpr_set, chip_reg_read,
                                                chip_reg_write, chip_eoi,     chip_reset};
static const struct irqchip_cpu chip = {.ops = &chip_ops};

// ---- building machines ----

static inline uint64_t make_desc(uint32_t base, uint32_t limit, unsigned access, unsigned flags) {
    return (limit & 0xffff) | (uint64_t)(base & 0xffffff) << 16 | (uint64_t)access << 40 |
           (uint64_t)(limit >> 16 & 15) << 48 | (uint64_t)flags << 52 | (uint64_t)(base >> 24) << 56;
}

static inline void put64(uint32_t at, uint64_t v) {
    memcpy(mem + at, &v, 8);
}
static inline void put32(uint32_t at, uint32_t v) {
    memcpy(mem + at, &v, 4);
}
static inline void put16(uint32_t at, uint16_t v) {
    memcpy(mem + at, &v, 2);
}
static inline uint64_t get64(uint64_t at) {
    uint64_t v;

    memcpy(&v, mem + at, 8);
    return v;
}
static inline uint32_t get32(uint64_t at) {
    return (uint32_t)get64(at);
}
static inline uint16_t get16(uint64_t at) {
    return (uint16_t)get64(at);
}

static inline void gdt_put(unsigned sel, uint64_t d) {
    put64(GDT + (sel & ~7u), d);
}

// An IDT gate of 16 bytes (long mode) or 8.
static inline void idt_put(const struct xcpu *x, unsigned vec, uint16_t sel, uint64_t off, unsigned access,
                           unsigned ist) {
    uint64_t low = (off & 0xffff) | (uint64_t)sel << 16 | (uint64_t)ist << 32 | (uint64_t)access << 40 |
                   (off >> 16 & 0xffff) << 48;

    if (x->long_mode) {
        put64(IDT + vec * 16, low);
        put64(IDT + vec * 16 + 8, off >> 32);
    } else {
        put64(IDT + vec * 8, low);
    }
}

static inline void load_flat(struct xcpu *x, unsigned code_sel, unsigned data_sel, uint64_t rsp) {
    uint64_t cs = get64(GDT + (code_sel & ~7u)), ss = get64(GDT + (data_sel & ~7u));

    seg_set(x, X86_CS, (uint16_t)code_sel, cs);
    for (int s = X86_ES; s <= X86_GS; s++)
        if (s != X86_CS)
            seg_set(x, (enum x86_seg)s, (uint16_t)data_sel, ss);
    x->s.gpr[X86_RSP] = rsp;
    mode_update(x);
}

static inline void user_mode(struct xcpu *x) {
    load_flat(x, x->long_mode ? SEL_CODE3 : SEL_CODE3_32, SEL_DATA3, STACK3);
}
static inline void kernel_mode(struct xcpu *x) {
    load_flat(x, SEL_CODE0, SEL_DATA0, STACK0 - 0x1000);
}

static inline void fill_gdt(bool long_mode) {
    gdt_put(SEL_CODE0, make_desc(0, 0xfffff, 0x9b, long_mode ? 0xa : 0xc));
    gdt_put(SEL_DATA0, make_desc(0, 0xfffff, 0x93, 0xc));
    gdt_put(SEL_CODE3_32, make_desc(0, 0xfffff, 0xfb, 0xc));
    gdt_put(SEL_DATA3, make_desc(0, 0xfffff, 0xf3, 0xc));
    gdt_put(SEL_CODE3, make_desc(0, 0xfffff, 0xfb, 0xa));
    gdt_put(SEL_TSS, make_desc(TSS, 0x67, 0x8b, 0));
}

static inline struct xcpu *fake_cpu(bool long_mode) {
    static struct mem *no_mem;
    static struct engine_host host;
    static struct engine engine;
    struct xcpu *x = aligned_alloc(4096, (sizeof(*x) + 4095) & ~4095ul);

    memset(x, 0, sizeof(*x));
    memset(mem, 0, sizeof(mem));
    host.mem = no_mem;
    engine.host = &host;
    x->engine = &engine;
    x->irqchip = &chip;
    x->jump_mask = JUMP_MASK;
    irq_vector = -1;
    chip_events = 0;
    policy = (struct cpuid_policy){.phys_bits = 40, .count = 1, .has_smap = true, .has_rdtscp = true, .vcpus = 1};
    policy.leaf[0].ebx = 0x756e6547;
    x86_state_reset(&x->s, true, false);
    fill_gdt(long_mode);
    x->s.cr0 = CR0_PE | CR0_ET | (long_mode ? CR0_PG : 0);
    x->s.cr4 = long_mode ? CR4_PAE : 0;
    x->s.efer = long_mode ? EFER_LMA | EFER_LME | EFER_SCE : 0;
    x->s.gdtr = (struct x86_table){.base = GDT, .limit = 0x7f};
    x->s.idtr = (struct x86_table){.base = IDT, .limit = long_mode ? 0xfff : 0x7ff};
    seg_set(x, X86_TR, SEL_TSS, get64(GDT + SEL_TSS));
    seg_set_null(x, X86_LDTR, 0);
    if (long_mode) {
        put64(TSS + 4, STACK0);
        put64(TSS + 36, IST1);
    } else {
        put32(TSS + 4, STACK0);
        put16(TSS + 8, SEL_DATA0);
    }
    put16(TSS + 102, 0x68); // no I/O bitmap
    x->s.rip = 0x7000;
    x->s.rflags = RFLAGS_FIXED1 | RFLAGS_IF;
    kernel_mode(x);
    return x;
}

#define assert_fault(x, res, vec, err)                                                                                 \
    do {                                                                                                               \
        assert_int_equal(res, X_FAULT);                                                                                \
        assert_int_equal((x)->fault.vector, vec);                                                                      \
        assert_int_equal((x)->fault.error, err);                                                                       \
    } while (0)

#endif
