// SPDX-License-Identifier: Apache-2.0
// System instructions that are frequent and simple enough to be done in place, without a call of C.
#include "engine/xlate/tctx.h"

static void flag_op(struct tctx *c, unsigned ext, uint32_t imm) { // 1 or, 4 and: dword gs:[rflags], imm32
    struct emit *e = &c->e;
    flags_before_check(c);
    put8(e, 0x65), put8(e, 0x81), put8(e, 0x04 | ext << 3), put8(e, 0x25);
    put32(e, XOFF(s.rflags));
    put32(e, imm);
}

// The shadow of STI is kept by the block itself: one more instruction follows, then it ends and looks for events.
static void emit_sti(struct tctx *c) {
    struct emit *e = &c->e;
    flag_op(c, 1, (uint32_t)RFLAGS_IF);
    cmp_gs_imm8(e, XOFF(irq_maybe), 0);
    uint8_t *nothing = jcc_forward(e, CC_E);
    store_imm_gs(e, XOFF(jump_mask), 0); // no read-modify-write: it would lose the request of another thread
    patch_here(e, nothing);
}

static void emit_swapgs(struct tctx *c) {
    struct emit *e = &c->e;
    s0_clobbered(c);
    mov_load_gs(e, S0, XOFF(s.seg[X86_GS].base));
    mov_load_gs(e, S1, XOFF(s.kernel_gs_base));
    mov_store_gs(e, XOFF(s.seg[X86_GS].base), S1);
    mov_store_gs(e, XOFF(s.kernel_gs_base), S0);
}

static void emit_from_cr(struct tctx *c, const struct tinsn *t) {
    uint32_t off[] = {[0] = XOFF(s.cr0), [2] = XOFF(s.cr2), [3] = XOFF(s.cr3), [4] = XOFF(s.cr4)};
    int h = host_reg(t->r_rm.num);
    mov_load_gs(&c->e, h != NOREG ? h : S1, off[t->imm]);
    if (h == NOREG)
        mov_store_gs(&c->e, XGPR(t->r_rm.num), S1);
}

static uint32_t base_offset(const struct tinsn *t) {
    return XOFF(s.seg[0].base) + t->mem_seg * (uint32_t)sizeof(struct x86_segment);
}

static void emit_read_base(struct tctx *c, const struct tinsn *t) {
    int h = host_reg(t->r_rm.num);
    op_gs(&c->e, t->r_rm.bits == 64, 0x8b, h != NOREG ? h : S1, base_offset(t));
    if (h == NOREG)
        mov_store_gs(&c->e, XGPR(t->r_rm.num), S1);
}

// #GP for an address that is not canonical is the emulator's.
static void emit_write_base(struct tctx *c, struct tinsn *t) {
    struct emit *e = &c->e;
    bool wide = t->r_rm.bits == 64;
    if (t->live_in)
        flags_need_mem(c);
    c->flags = FL_MEM;
    s0_clobbered(c);
    emit_read_gpr(c, S0, t->r_rm.num, wide);
    uint8_t *bad = NULL;
    if (wide) {
        mov_rr(e, true, S1, S0);
        put8(e, 0x49), put8(e, 0xc1), put8(e, 0xe6), put8(e, 16); // shl r14 (S1), 16
        put8(e, 0x49), put8(e, 0xc1), put8(e, 0xfe), put8(e, 16); // sar r14, 16
        op_rr(e, true, 0x3b, S1, S0);                             // cmp
        bad = jcc_forward(e, CC_NE);
    }
    mov_store_gs(e, base_offset(t), S0);
    if (!wide)
        return;
    uint8_t *done = jmp_forward(e);
    patch_here(e, bad);
    emit_helper(c, t);
    patch_here(e, done);
}

// PUSHFQ: the host's arithmetic flags beside the guest's others. VM and RF are pushed as zero (SDM vol. 2B PUSHF).
static void emit_pushf(struct tctx *c, struct tinsn *t) {
    struct emit *e = &c->e;
    struct hmem m = hmem_free_s1(c, emit_stack_access(c, t, X86_RSP, -8, true));
    flags_need_mem(c);
    flags_need_host(c, true);
    put8(e, 0x9c);                // pushfq
    put8(e, 0x41), put8(e, 0x5e); // pop r14 (S1)
    alu_imm(e, false, 4, S1, (uint32_t)RFLAGS_ARITH);
    op_gs(e, true, 0x0b, S1, XOFF(s.rflags)); // or
    alu_imm(e, false, 4, S1, (uint32_t) ~(RFLAGS_VM | RFLAGS_RF));
    op_hmem(c, true, 0x89, S1, m);
    lea(e, true, HOST_RSP_HOME, HOST_RSP_HOME, NOREG, 0, -8);
    c->flags = FL_MEM;
}

// RDTSCP waits for what came before it (SDM vol. 2B).
static void emit_rdtsc(struct tctx *c, bool with_aux) {
    struct emit *e = &c->e;
    flags_before_check(c);
    if (with_aux)
        put8(e, 0x0f), put8(e, 0xae), put8(e, 0xe8); // lfence
    put8(e, 0x0f), put8(e, 0x31);
    put8(e, 0x48), put8(e, 0xc1), put8(e, 0xe2), put8(e, 32); // shl rdx, 32
    op_rr(e, true, 0x0b, X86_RAX, X86_RDX);                   // or rax, rdx
    op_gs(e, true, 0x03, X86_RAX, XOFF(s.tsc_offset));        // add
    mov_rr(e, true, X86_RDX, X86_RAX);
    put8(e, 0x48), put8(e, 0xc1), put8(e, 0xea), put8(e, 32); // shr rdx, 32
    mov_rr(e, false, X86_RAX, X86_RAX);
    if (with_aux)
        op_gs(e, false, 0x8b, X86_RCX, XOFF(s.tsc_aux));
}

// STAC and CLAC with SMAP: from here on user pages may (may not) be touched, which is another TLB, and so another mode.
static void emit_ac(struct tctx *c, const struct tinsn *t) {
    bool set = t->imm;
    uint32_t kind = set ? TLB_KERNEL_AC : TLB_KERNEL;
    uint32_t mode = (c->mode & ~(3u << TBM_KIND_SHIFT)) | kind << TBM_KIND_SHIFT;
    flag_op(c, set ? 1 : 4, set ? (uint32_t)RFLAGS_AC : ~(uint32_t)RFLAGS_AC);
    if (!(c->mode & TBM_SMAP) || mode == c->mode)
        return;
    store_imm_gs(&c->e, XOFF(tlb_kind), kind);
    store_imm_gs(&c->e, XOFF(tb_mode), mode);
}

void emit_system(struct tctx *c, struct tinsn *t) {
    switch (t->cls) {
    case T_FLAG_SET: flag_op(c, 1, (uint32_t)t->imm); break;
    case T_FLAG_CLEAR: flag_op(c, 4, ~(uint32_t)t->imm); break;
    case T_STI: emit_sti(c); break;
    case T_SWAPGS: emit_swapgs(c); break;
    case T_FROM_CR: emit_from_cr(c, t); break;
    case T_READ_BASE: emit_read_base(c, t); break;
    case T_WRITE_BASE: emit_write_base(c, t); break;
    case T_PUSHF: emit_pushf(c, t); break;
    case T_RDTSC: emit_rdtsc(c, t->helper_arg); break;
    case T_AC: emit_ac(c, t); break;
    default: c->e.overflow = true; break;
    }
}
