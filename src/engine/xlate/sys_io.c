// SPDX-License-Identifier: Apache-2.0
// IN and OUT, and the permission check of all port accesses (SDM vol. 1 19.5).
#include "engine/xlate/debug.h"
#include "engine/xlate/sys.h"

#define TSS_IO_BASE 102 // offset of the 16-bit field in a 32- or 64-bit TSS

static enum xres bitmap_check(struct xcpu *x, uint16_t port, unsigned size) {
    const struct x86_segment *tr = &x->s.seg[X86_TR];
    uint16_t io_base, bits;

    if (!(SEG_TYPE(tr->attr) & 8) || tr->limit < TSS_IO_BASE + 1)
        return gp0(x);
    TRY(mmu_read(x, tr->base + TSS_IO_BASE, &io_base, 2, MMU_SYSTEM));
    if (io_base + port / 8u + 1 > tr->limit) // two bytes are read, whatever the size
        return gp0(x);
    TRY(mmu_read(x, tr->base + io_base + port / 8u, &bits, 2, MMU_SYSTEM));
    return bits >> (port & 7) & ((1u << size) - 1) ? gp0(x) : X_OK;
}

enum xres io_check(struct xcpu *x, uint16_t port, unsigned size) {
    bool by_iopl = x->cpl <= (x->s.rflags >> 12 & 3) && !cpu_vm86(x);

    if (cpu_protected(x) && !by_iopl)
        TRY(bitmap_check(x, port, size));
    if (__builtin_expect(x->s.dr7 & DR7_ENABLE_MASK, 0))
        debug_io_access(x, port, size);
    return X_OK;
}

static uint16_t port_of(struct xcpu *x, const ZydisDecodedOperand *op) {
    return op->type == ZYDIS_OPERAND_TYPE_IMMEDIATE ? (uint8_t)op->imm.value.u : (uint16_t)x->s.gpr[X86_RDX];
}

// Ports take at most 32 bits; REX.W changes nothing.
enum xres insn_in(struct xcpu *x, struct insn *in) {
    uint16_t port = port_of(x, &in->op[1]);
    unsigned size = in->op[0].size / 8u;

    TRY(io_check(x, port, size));
    reg_write(x, in->op[0].reg.value, host_pio_read(x, port, size));
    return X_OK;
}

enum xres insn_out(struct xcpu *x, struct insn *in) {
    uint16_t port = port_of(x, &in->op[0]);
    unsigned size = in->op[1].size / 8u;

    TRY(io_check(x, port, size));
    host_pio_write(x, port, size, (uint32_t)reg_read(x, in->op[1].reg.value));
    return X_OK;
}
