// SPDX-License-Identifier: Apache-2.0
// Control flow, the stack, and calls of helpers.
#include "engine/xlate/tctx.h"

// ---- leaving the block ----

// A page that the block's own entry has compared.
static bool same_page(const struct tctx *c, uint64_t target) {
    return (target & PAGE_MASK) == c->page || (c->page2 && (target & PAGE_MASK) == c->page2->va_page);
}

// Keeps a rel32 that will be patched inside one cache line, so that the patch is atomic.
static void align_rel32(struct emit *e, unsigned opcode_bytes) {
    while (((uintptr_t)e->p + opcode_bytes) % 64 > 60)
        put8(e, 0x90);
}

// `mem`: the flags at the exit are in flags_mem, or nobody wants them.
static enum exit_kind exit_kind(const struct tctx *c, uint64_t target, uint64_t from, bool mem) {
    if (!same_page(c, target) || c->t->cls == T_AC) // STAC, CLAC: another mode
        return EXIT_GUARDED;
    if (target <= from)
        return mem ? EXIT_POLL_MEM : EXIT_POLL_HOST;
    return mem ? EXIT_DIRECT_MEM : EXIT_DIRECT_HOST;
}

void emit_exit(struct tctx *c, uint64_t target, uint64_t from) {
    enum exit_kind kind = exit_kind(c, target, from, c->flags != FL_HOST || !c->t->live_out);
    if (kind == EXIT_GUARDED && c->t->live_out)
        flags_need_mem(c);
    align_rel32(&c->e, 1);
    uint8_t *j = jmp_forward(&c->e);
    emit_stub(c, (struct stub){.kind = STUB_EXIT, .jump = j, .target = target, .exit = kind});
}

// The rel32 of a conditional way out, taken with the flags as they are now.
static void exit_stub(struct tctx *c, const struct tinsn *t, uint8_t *rel32) {
    enum exit_kind kind = exit_kind(c, t->target, t->rip, c->flags != FL_HOST || !t->live_taken);
    emit_stub(c, (struct stub){.kind = STUB_EXIT,
                               .jump = rel32,
                               .target = t->target,
                               .exit = kind,
                               .save_flags = kind == EXIT_GUARDED && c->flags == FL_HOST && t->live_taken});
}

void emit_indirect(struct tctx *c) {
    struct emit *e = &c->e;
    unsigned slot = jcache_slot(c->is64, (c->mode >> TBM_KIND_SHIFT) & 3);
    uint32_t table = (uint32_t)(offsetof(struct xcpu, jcache) + slot * sizeof(struct jcache));
    if (c->t->live_out)
        flags_need_mem(c);
    rorx32(e, S1, S0, JCACHE_FOLD);
    op_rr(e, false, 0x33, S1, S0);
    op_gs(e, false, 0x23, S1, XOFF(jump_mask)); // and
    op_gs_index8(e, true, 0x3b, S0, S1, table + (uint32_t)offsetof(struct jcache, key));
    put8(e, 0x0f), put8(e, 0x80 | CC_NE), rel32_to(e, c->tramps->indirect_miss);
    op_gs_index8(e, false, 0xff, 4, S1, table + (uint32_t)offsetof(struct jcache, code)); // jmp [..]
}

// The end of a turn of a loop that hoist.c knows; the flags are dead at the loop's start.
static void emit_turn(struct tctx *c, const struct tinsn *t) {
    struct emit *e = &c->e;
    flags_need_host(c, true);
    uint8_t *out = jcc_forward(e, t->cc ^ 1);
    if (c->hoisted) {
        int counter = address_reg(c, c->plan.counter, S0);
        s0_clobbered(c);
        op_gs(e, !(c->plan.narrow & 1u << c->plan.counter), 0x3b, counter, XOFF(hoist_bound));
        put8(e, 0x0f), put8(e, 0x80 | CC_NE), rel32_to(e, (uint64_t)c->body);
        hoist_restore(c);
        if (c->header)
            jmp_to(e, (uint64_t)c->header);
        else
            emit_stub(c, (struct stub){.kind = STUB_HOIST, .jump = jmp_forward(e), .target = t->target});
    } else {
        put8(e, 0x65), put8(e, 0x83), put8(e, 0x2c), put8(e, 0x25), put32(e, XOFF(hoist_wait)), put8(e, 1); // sub, 1
        align_rel32(e, 2);
        emit_stub(
            c, (struct stub){.kind = STUB_EXIT, .jump = jcc_forward(e, CC_S), .target = t->target, .exit = EXIT_HOIST});
        align_rel32(e, 1);
        emit_stub(c,
                  (struct stub){.kind = STUB_EXIT, .jump = jmp_forward(e), .target = t->target, .exit = EXIT_POLL_MEM});
    }
    patch_here(e, out);
    hoist_restore(c);
    store_imm_gs(e, XOFF(hoist_wait), HOIST_WAIT);
}

static void emit_jcc(struct tctx *c, const struct tinsn *t) {
    if (c->loop && t == &c->insns[c->ninsns - 1]) {
        emit_turn(c, t);
        return;
    }
    flags_need_host(c, true);
    if (c->hoisted && c->plan.taken) {
        uint8_t *on = jcc_forward(&c->e, t->cc ^ 1);
        hoist_restore(c);
        align_rel32(&c->e, 1);
        exit_stub(c, t, jmp_forward(&c->e));
        patch_here(&c->e, on);
        return;
    }
    align_rel32(&c->e, 2);
    exit_stub(c, t, jcc_forward(&c->e, t->cc));
}

static void emit_loop(struct tctx *c, const struct tinsn *t) {
    struct emit *e = &c->e;
    if (t->flags_read)
        flags_need_host(c, true);
    if (t->mem_a32)
        put8(e, 0x67);
    put8(e, t->bytes[t->len - 2]);
    put8(e, 2); // taken: over the short jump
    put8(e, 0xeb);
    uint8_t *skip = e->p;
    put8(e, 0);
    align_rel32(e, 1);
    exit_stub(c, t, jmp_forward(e));
    if (!e->overflow)
        *skip = (uint8_t)(e->p - (skip + 1));
}

// ---- stack ----

static unsigned stack_size(const struct tctx *c) {
    return c->is64 ? 8 : 4;
}

static void move_rsp(struct tctx *c, int32_t by) {
    lea(&c->e, c->is64, HOST_RSP_HOME, HOST_RSP_HOME, NOREG, 0, by);
}

// mov [m], imm32 (sign-extended)
static void store_imm32(struct tctx *c, uint32_t imm, struct hmem m) {
    op_hmem(c, c->is64, 0xc7, 0, m);
    put32(&c->e, imm);
}

// Stores what is in a GS-relative slot, for values that no register holds.
static void store_from_slot(struct tctx *c, uint32_t slot, struct hmem m) {
    m = hmem_free_s1(c, m);
    mov_load_gs(&c->e, S1, slot);
    op_hmem(c, c->is64, 0x89, S1, m);
}

static void emit_push(struct tctx *c, struct tinsn *t) {
    unsigned n = stack_size(c);
    struct hmem m = emit_stack_access(c, t, X86_RSP, -(int32_t)n, true);
    if (t->r_opc.num == NOREG)
        store_imm32(c, (uint32_t)t->imm, m);
    else if (host_reg(t->r_opc.num) != NOREG)
        op_hmem(c, c->is64, 0x89, host_reg(t->r_opc.num), m);
    else
        store_from_slot(c, XGPR(t->r_opc.num), m);
    move_rsp(c, -(int32_t)n);
}

static void load_operand(struct tctx *c, struct tinsn *t) { // S0 = memory operand
    struct hmem m = emit_operand_access(c, t);
    op_hmem(c, c->is64, 0x8b, S0, m);
    s0_clobbered(c);
}

static void emit_push_mem(struct tctx *c, struct tinsn *t) {
    unsigned n = stack_size(c);
    load_operand(c, t);
    mov_store_gs(&c->e, XOFF(spill[1]), S0);
    store_from_slot(c, XOFF(spill[1]), emit_stack_access(c, t, X86_RSP, -(int32_t)n, true));
    move_rsp(c, -(int32_t)n);
}

static void emit_pop(struct tctx *c, struct tinsn *t) {
    unsigned n = stack_size(c);
    int r = t->r_opc.num, h = host_reg(r);
    struct hmem m = emit_stack_access(c, t, X86_RSP, 0, false);
    op_hmem(c, c->is64, 0x8b, h != NOREG ? h : S1, m);
    if (r == X86_RSP)
        return;
    if (h == NOREG)
        mov_store_gs(&c->e, XGPR(r), S1);
    move_rsp(c, (int32_t)n);
}

static void emit_leave(struct tctx *c, struct tinsn *t) {
    unsigned n = stack_size(c);
    struct hmem m = emit_stack_access(c, t, X86_RBP, 0, false);
    op_hmem(c, c->is64, 0x8b, S1, m);
    lea(&c->e, c->is64, HOST_RSP_HOME, X86_RBP, NOREG, 0, (int32_t)n);
    mov_rr(&c->e, c->is64, X86_RBP, S1);
}

static void push_return(struct tctx *c, struct tinsn *t) {
    unsigned n = stack_size(c);
    uint64_t next = t->rip + t->len;
    struct hmem m = emit_stack_access(c, t, X86_RSP, -(int32_t)n, true);
    if (!c->is64 || (uint64_t)(int64_t)(int32_t)next == next) {
        store_imm32(c, (uint32_t)next, m);
    } else {
        m = hmem_free_s1(c, m);
        mov_imm(&c->e, S1, next);
        op_hmem(c, true, 0x89, S1, m);
    }
    move_rsp(c, -(int32_t)n);
}

static void target_operand(struct tctx *c, struct tinsn *t) { // S0 = target of an indirect branch
    s0_clobbered(c);
    if (t->mem_size)
        load_operand(c, t);
    else
        emit_read_gpr(c, S0, t->r_rm.num, c->is64);
}

static void emit_call_indirect(struct tctx *c, struct tinsn *t) {
    target_operand(c, t);
    mov_store_gs(&c->e, XOFF(spill[1]), S0);
    push_return(c, t);
    mov_load_gs(&c->e, S0, XOFF(spill[1]));
    emit_indirect(c);
}

static void emit_ret(struct tctx *c, struct tinsn *t) {
    unsigned n = stack_size(c);
    op_hmem(c, c->is64, 0x8b, S0, emit_stack_access(c, t, X86_RSP, 0, false));
    s0_clobbered(c);
    move_rsp(c, (int32_t)n + (int32_t)t->imm);
    emit_indirect(c);
}

// ---- helpers ----

void emit_helper(struct tctx *c, struct tinsn *t) {
    struct emit *e = &c->e;
    if (t->live_in)
        flags_need_mem(c);
    c->flags = FL_MEM;
    s0_clobbered(c);
    mov_imm(e, S0, (uint32_t)t->helper | (uint32_t)t->len << 8 | (uint32_t)t->helper_arg << 16);
    mov_imm(e, S1, t->rip);
    call_to(e, c->tramps->helper);
}

void emit_flow(struct tctx *c, struct tinsn *t) {
    switch (t->cls) {
    case T_PUSH: emit_push(c, t); break;
    case T_PUSH_MEM: emit_push_mem(c, t); break;
    case T_POP: emit_pop(c, t); break;
    case T_LEAVE: emit_leave(c, t); break;
    case T_CALL:
        push_return(c, t);
        emit_exit(c, t->target, t->rip);
        break;
    case T_CALL_IND: emit_call_indirect(c, t); break;
    case T_JMP: emit_exit(c, t->target, t->rip); break;
    case T_JMP_IND:
        target_operand(c, t);
        emit_indirect(c);
        break;
    case T_RET: emit_ret(c, t); break;
    case T_JCC: emit_jcc(c, t); break;
    case T_LOOP: emit_loop(c, t); break;
    case T_HELPER:
    case T_HELPER_END: emit_string(c, t); break;
    default: emit_system(c, t); break;
    }
}
