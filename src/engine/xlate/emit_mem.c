// SPDX-License-Identifier: Apache-2.0
// Guest memory operands: effective address, TLB check, and the discipline of the arithmetic flags around it.
#include "engine/xlate/tctx.h"

#include "engine/xlate/mmu.h"

void emit_stub(struct tctx *c, struct stub s) {
    if (c->nstubs == TB_MAX_STUBS) {
        c->e.overflow = true;
        return;
    }
    c->stubs[c->nstubs++] = s;
}

// ---- flags ----

void flags_need_mem(struct tctx *c) {
    if (c->flags == FL_HOST) {
        flags_save_mem(&c->e, S1);
        c->flags = FL_BOTH;
    }
}

void flags_before_check(struct tctx *c) {
    if (c->t->live_in)
        flags_need_mem(c);
    c->flags = FL_MEM;
}

void flags_need_host(struct tctx *c, bool scratch_free) {
    if (c->flags == FL_MEM) {
        flags_load_mem(&c->e, scratch_free ? S1 : NOREG);
        c->flags = FL_BOTH;
    }
}

// ---- effective address ----

// Host register that holds guest register `guest` for reading; displaced ones are loaded to scratch.
static int address_reg(struct tctx *c, int guest, int scratch) {
    int h = host_reg(guest);
    if (h != NOREG)
        return h;
    mov_load_gs(&c->e, scratch, XGPR(guest));
    return scratch;
}

void emit_ea(struct tctx *c, const struct tinsn *t) {
    struct emit *e = &c->e;
    bool w = !t->mem_a32;
    if (t->mem_base == NOREG && t->mem_index == NOREG) {
        mov_imm(e, S0, w ? (uint64_t)t->mem_disp : (uint32_t)t->mem_disp);
    } else if (t->mem_base == NOREG) {
        int index = address_reg(c, t->mem_index, S1);
        // no base: [index * scale + disp32] has its own form
        rex(e, w, S0, index, 0, false);
        put8(e, 0x8d);
        put8(e, 0x04 | (S0 & 7) << 3);
        put8(e, (unsigned)t->mem_scale << 6 | (index & 7) << 3 | 5);
        put32(e, (uint32_t)t->mem_disp);
    } else {
        int base = address_reg(c, t->mem_base, S0);
        int index = t->mem_index == NOREG ? NOREG : address_reg(c, t->mem_index, S1);
        if (index == NOREG && t->mem_disp == 0) {
            if (base != S0 || !w)
                mov_rr(e, w, S0, base);
        } else {
            lea(e, w, S0, base, index, t->mem_scale, (int32_t)t->mem_disp);
        }
    }
    if (t->mem_seg == X86_FS || t->mem_seg == X86_GS) {
        mov_load_gs(e, S1, XOFF(s.seg[0].base) + t->mem_seg * (uint32_t)sizeof(struct x86_segment));
        lea(e, c->is64, S0, S0, S1, 0, 0);
    }
}

// ---- check ----

static unsigned log2_ceil(unsigned n) {
    unsigned l = 0;
    while ((1u << l) < n)
        l++;
    return l;
}

void emit_check(struct tctx *c, unsigned size, bool write) {
    struct emit *e = &c->e;
    unsigned kind = (c->mode >> TBM_KIND_SHIFT) & 3;
    uint32_t tlb = (uint32_t)(offsetof(struct xcpu, tlb) + kind * sizeof(struct tlb_entry) * TLB_SIZE);
    uint32_t tag = tlb + (write ? offsetof(struct tlb_entry, wtag) : offsetof(struct tlb_entry, rtag));
    flags_before_check(c);
    rorx32(e, S1, S0, PAGE_SHIFT - 5);
    alu_imm(e, false, 4, S1, (TLB_SIZE - 1) << 5);
    op_gs_base(e, true, 0x33, S0, S1, tag);
    alu_imm(e, true, 7, S0, (uint32_t)(PAGE_SIZE - size));
    uint8_t *miss = jcc_forward(e, CC_A);
    op_gs_base(e, true, 0x8b, S1, S1, tlb + (uint32_t)offsetof(struct tlb_entry, host));
    emit_stub(c, (struct stub){.kind = STUB_MISS,
                               .jump = miss,
                               .back = e->p,
                               .tramp = c->tramps->miss[kind][log2_ceil(size)][write]});
}

void emit_stack_check(struct tctx *c, int32_t disp, unsigned size, bool write) {
    flags_before_check(c);
    lea(&c->e, c->is64, S0, HOST_RSP_HOME, NOREG, 0, disp);
    emit_check(c, size, write);
}
