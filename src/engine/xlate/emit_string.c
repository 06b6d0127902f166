// SPDX-License-Identifier: Apache-2.0
// MOVS and STOS in place, where each side lies in one page that the TLB has; the helper does the rest.
#include "engine/xlate/tctx.h"

#define SLOW_MAX 8

struct plain {
    struct tctx *c;
    unsigned elem; // bytes
    bool rep;
    uint8_t *slow[SLOW_MAX];
    unsigned nslow;
};

static void slow_on(struct plain *p, unsigned cc) {
    p->slow[p->nslow++] = jcc_forward(&p->c->e, cc);
}

// dst = reg + bytes to do
static void behind(const struct plain *p, int dst, int reg) {
    if (p->rep)
        lea(&p->c->e, true, dst, reg, X86_RCX, (unsigned)__builtin_ctz(p->elem), 0);
    else
        lea(&p->c->e, true, dst, reg, NOREG, 0, (int32_t)p->elem);
}

// S1 = host address of the guest's `reg`; S0 clobbered.
static void host_address(struct plain *p, int reg, bool write) {
    struct tctx *c = p->c;
    struct emit *e = &c->e;
    mov_rr(e, true, S0, reg);
    rorx32(e, S1, S0, PAGE_SHIFT - 5);
    alu_imm(e, false, 4, S1, (TLB_SIZE - 1) << 5);
    op_gs_base(e, true, 0x33, S0, S1, tag_offset(c, write));
    alu_imm(e, true, 7, S0, (uint32_t)PAGE_SIZE - 1);
    slow_on(p, CC_A);
    op_gs_base(e, true, 0x8b, S1, S1, host_offset(c));
    op_rr(e, true, 0x03, S1, S0); // add
    behind(p, S0, S0);
    alu_imm(e, true, 7, S0, (uint32_t)PAGE_SIZE);
    slow_on(p, CC_A);
}

static void string_op(const struct plain *p, unsigned opcode) {
    struct emit *e = &p->c->e;
    if (p->rep)
        put8(e, 0xf3);
    if (p->elem == 2)
        put8(e, 0x66);
    rex(e, p->elem == 8, 0, 0, 0, false);
    put8(e, p->elem == 1 ? opcode : opcode + 1);
}

// Registers are at their last values when they may be seen again: nothing in here faults.
static void stos(struct plain *p) {
    struct emit *e = &p->c->e;
    host_address(p, X86_RDI, true);
    behind(p, S0, X86_RDI);
    mov_rr(e, true, X86_RDI, S1);
    string_op(p, 0xaa);
    mov_rr(e, true, X86_RDI, S0);
}

static void movs(struct plain *p) {
    struct emit *e = &p->c->e;
    host_address(p, X86_RDI, true);
    mov_store_gs(e, XOFF(spill[1]), S1);
    host_address(p, X86_RSI, false);
    behind(p, S0, X86_RSI);
    mov_store_gs(e, XOFF(spill[2]), S0);
    behind(p, S0, X86_RDI);
    mov_rr(e, true, X86_RSI, S1);
    mov_load_gs(e, X86_RDI, XOFF(spill[1]));
    string_op(p, 0xa4);
    mov_rr(e, true, X86_RDI, S0);
    mov_load_gs(e, X86_RSI, XOFF(spill[2]));
}

// Bits of the helper's argument: tdecode_string.
static bool is_plain(const struct tctx *c, const struct tinsn *t) {
    unsigned arg = t->helper_arg, seg = arg >> 6 & 7;
    bool own = t->cls == T_HELPER && (t->helper == H_MOVS || t->helper == H_STOS);
    return own && (arg & 0x200) && seg != X86_FS && seg != X86_GS && !(c->mode & TBM_COUNT);
}

void emit_string(struct tctx *c, struct tinsn *t) {
    struct emit *e = &c->e;
    struct plain p = {.c = c, .elem = t->helper_arg & 15, .rep = t->helper_arg >> 4 & 3};
    if (!is_plain(c, t)) {
        emit_helper(c, t);
        return;
    }
    flags_before_check(c);
    s0_clobbered(c);
    put8(e, 0x65), put8(e, 0xf6), put8(e, 0x04), put8(e, 0x25); // test byte gs:[rflags + 1], DF
    put32(e, XOFF(s.rflags) + 1), put8(e, RFLAGS_DF >> 8);
    slow_on(&p, CC_NE);
    if (p.rep) {
        alu_imm(e, true, 7, X86_RCX, (uint32_t)PAGE_SIZE / p.elem);
        slow_on(&p, CC_A);
    }
    t->helper == H_MOVS ? movs(&p) : stos(&p);
    uint8_t *done = jmp_forward(e);
    for (unsigned i = 0; i < p.nslow; i++)
        patch_here(e, p.slow[i]);
    emit_helper(c, t);
    patch_here(e, done);
}
