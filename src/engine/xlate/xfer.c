// SPDX-License-Identifier: Apache-2.0
// Far JMP and CALL: direct, through call gates, task gates and TSS selectors (SDM vol. 2 JMP, CALL; vol. 3A 5.8).
#include "engine/xlate/sys.h"

static enum xres far_real(struct xcpu *x, uint16_t sel, uint64_t off, bool call, unsigned op_size, uint64_t next_rip) {
    struct xstack st;

    if (off > x->s.seg[X86_CS].limit)
        return gp0(x);
    if (call) {
        xstack_current(x, &st);
        TRY(xstack_push(x, &st, x->s.seg[X86_CS].sel, op_size));
        TRY(xstack_push(x, &st, next_rip, op_size));
        xstack_commit(x, &st);
    }
    seg_set_real(x, X86_CS, sel);
    x->s.rip = off;
    mode_update(x);
    return X_OK;
}

static enum xres check_offset(struct xcpu *x, uint64_t cs, uint64_t off) {
    bool ok = x->long_mode && desc_long(cs) ? is_canonical(off) : off <= desc_limit(cs);

    return ok ? X_OK : gp0(x);
}

// Enters a checked code segment at the current CPL, after pushing the return address for a call.
static enum xres enter_same(struct xcpu *x, uint16_t sel, uint64_t d, uint64_t off, bool call, unsigned size,
                            uint64_t next_rip) {
    struct xstack st;

    TRY(check_offset(x, d, off));
    TRY(desc_set_accessed(x, sel, &d));
    if (call) {
        xstack_current(x, &st);
        TRY(xstack_push(x, &st, x->s.seg[X86_CS].sel, size));
        TRY(xstack_push(x, &st, next_rip, size));
        xstack_commit(x, &st);
    }
    seg_set(x, X86_CS, (uint16_t)((sel & ~3u) | x->cpl), d);
    x->s.rip = off;
    mode_update(x);
    return X_OK;
}

// ---- call gates ----

static enum xres read_gate(struct xcpu *x, uint16_t sel, uint64_t d, struct gate *g) {
    uint64_t high = 0;

    if (x->long_mode)
        TRY(desc_read_high(x, sel, 0, &high));
    *g = gate_parse(d, high, x->long_mode);
    if (g->dpl < x->cpl || g->dpl < (sel & 3u))
        return fault_raise_err(x, X86_GP, sel & ~3u);
    if (!g->present)
        return fault_raise_err(x, X86_NP, sel & ~3u);
    return X_OK;
}

static enum xres read_gate_cs(struct xcpu *x, const struct gate *g, bool call, uint64_t *d) {
    uint32_t error = g->sel & ~3u;

    if (!error)
        return gp0(x);
    TRY(desc_read(x, g->sel, 0, X86_GP, d));
    if (!desc_is_segment(*d) || !desc_is_code(*d) || desc_dpl(*d) > x->cpl)
        return fault_raise_err(x, X86_GP, error);
    if (!call && !desc_conforming(*d) && desc_dpl(*d) != x->cpl)
        return fault_raise_err(x, X86_GP, error);
    if (x->long_mode && (!desc_long(*d) || desc_db(*d)))
        return fault_raise_err(x, X86_GP, error);
    if (!desc_present(*d))
        return fault_raise_err(x, X86_NP, error);
    return X_OK;
}

static enum xres call_inner_long(struct xcpu *x, const struct gate *g, uint64_t cs, uint64_t next_rip) {
    unsigned cpl = desc_dpl(cs);
    uint64_t rsp, frame[4] = {next_rip, x->s.seg[X86_CS].sel, x->s.gpr[X86_RSP], x->s.seg[X86_SS].sel};

    TRY(tss_stack_long(x, cpl, 0, 0, &rsp));
    rsp -= sizeof(frame);
    if (!is_canonical(rsp) || !is_canonical(rsp + sizeof(frame) - 1))
        return fault_raise_err(x, X86_SS_FAULT, 0);
    TRY(check_offset(x, cs, g->offset));
    TRY(desc_set_accessed(x, g->sel, &cs));
    TRY(mmu_write(x, rsp, frame, sizeof(frame), MMU_WRITE | MMU_SYSTEM));
    seg_set(x, X86_CS, (uint16_t)((g->sel & ~3u) | cpl), cs);
    seg_set_null_ss(x, (uint16_t)cpl, cpl);
    x->s.gpr[X86_RSP] = rsp;
    x->s.rip = g->offset;
    mode_update(x);
    return X_OK;
}

// Parameters are copied in the order in which they lie on the outer stack.
static enum xres copy_params(struct xcpu *x, struct xstack *to, unsigned count, unsigned size) {
    struct xstack from;
    uint64_t base, val;

    xstack_current(x, &from);
    base = from.sp;
    for (unsigned i = count; i-- > 0;) {
        from.sp = (base + i * size) & from.mask;
        TRY(xstack_pop(x, &from, &val, size));
        TRY(xstack_push(x, to, val, size));
    }
    return X_OK;
}

static enum xres call_inner_legacy(struct xcpu *x, const struct gate *g, uint64_t cs, uint64_t next_rip) {
    unsigned cpl = desc_dpl(cs), size = g->type & 8 ? 4 : 2;
    struct xstack st;
    uint64_t ss;
    uint16_t ss_sel;
    uint32_t esp;

    TRY(tss_stack_legacy(x, cpl, 0, &ss_sel, &esp));
    TRY(seg_check_ss(x, ss_sel, cpl, 0, X86_TS, &ss));
    xstack_from_desc(&st, ss, esp, cpl);
    st.error = ss_sel & ~3u;
    TRY(xstack_push(x, &st, x->s.seg[X86_SS].sel, size));
    TRY(xstack_push(x, &st, x->s.gpr[X86_RSP], size));
    TRY(copy_params(x, &st, g->params, size));
    TRY(xstack_push(x, &st, x->s.seg[X86_CS].sel, size));
    TRY(xstack_push(x, &st, next_rip, size));
    TRY(check_offset(x, cs, g->offset));
    TRY(desc_set_accessed(x, ss_sel, &ss));
    TRY(desc_set_accessed(x, g->sel, &cs));
    seg_set(x, X86_CS, (uint16_t)((g->sel & ~3u) | cpl), cs);
    seg_set(x, X86_SS, ss_sel, ss);
    xstack_commit(x, &st);
    x->s.rip = g->offset;
    mode_update(x);
    return X_OK;
}

static enum xres far_gate(struct xcpu *x, uint16_t sel, uint64_t d, bool call, uint64_t next_rip) {
    struct gate g = {0};
    uint64_t cs;

    TRY(read_gate(x, sel, d, &g));
    TRY(read_gate_cs(x, &g, call, &cs));
    if (call && !desc_conforming(cs) && desc_dpl(cs) < x->cpl)
        return x->long_mode ? call_inner_long(x, &g, cs, next_rip) : call_inner_legacy(x, &g, cs, next_rip);
    return enter_same(x, g.sel, cs, g.offset, call, x->long_mode ? 8 : g.type & 8 ? 4 : 2, next_rip);
}

// ---- tasks ----

static enum xres far_task(struct xcpu *x, uint16_t sel, uint64_t d, bool call, uint64_t next_rip) {
    enum task_reason reason = call ? TASK_CALL : TASK_JMP;
    uint16_t task = x->s.seg[X86_TR].sel;
    enum xres res;

    if (desc_dpl(d) < x->cpl || desc_dpl(d) < (sel & 3u))
        return fault_raise_err(x, X86_GP, sel & ~3u);
    if (!desc_present(d))
        return fault_raise_err(x, X86_NP, sel & ~3u);
    if (desc_type(d) == DESC_TYPE_TASK_GATE)
        sel = gate_parse(d, 0, false).sel;
    res = task_switch(x, sel, reason, next_rip, false, 0, 0);
    return res == X_FAULT ? task_fault(x, task) : res;
}

static enum xres far_system(struct xcpu *x, uint16_t sel, uint64_t d, bool call, uint64_t next_rip) {
    switch (desc_type(d)) {
    case DESC_TYPE_CALL32: return far_gate(x, sel, d, call, next_rip);
    case DESC_TYPE_CALL16:
        if (!x->long_mode)
            return far_gate(x, sel, d, call, next_rip);
        break;
    case DESC_TYPE_TASK_GATE:
    case DESC_TYPE_TSS16:
    case DESC_TYPE_TSS32:
        if (!x->long_mode)
            return far_task(x, sel, d, call, next_rip);
        break;
    default: break;
    }
    return fault_raise_err(x, X86_GP, sel & ~3u);
}

// op_size in bytes: of the pushed return address and of the offset.
enum xres seg_load_far_code(struct xcpu *x, uint16_t sel, uint64_t off, bool call, unsigned op_size,
                            uint64_t next_rip) {
    uint64_t d;

    if (!cpu_protected(x) || cpu_vm86(x))
        return far_real(x, sel, off, call, op_size, next_rip);
    if (!(sel & ~3u))
        return gp0(x);
    TRY(desc_read(x, sel, 0, X86_GP, &d));
    if (!desc_is_segment(d))
        return far_system(x, sel, d, call, next_rip);
    if (!desc_is_code(d))
        return fault_raise_err(x, X86_GP, sel & ~3u);
    TRY(seg_check_cs_direct(x, sel, d));
    return enter_same(x, sel, d, off, call, op_size, next_rip);
}

// ---- the instructions ----

static enum xres far_target(struct xcpu *x, struct insn *in, unsigned size, uint16_t *sel, uint64_t *off) {
    const ZydisDecodedOperand *op = &in->op[0];
    uint8_t buf[10] = {0};

    if (op->type == ZYDIS_OPERAND_TYPE_POINTER) {
        *sel = op->ptr.segment;
        *off = op->ptr.offset;
        return X_OK;
    }
    if (op->type != ZYDIS_OPERAND_TYPE_MEMORY)
        return ud(x);
    TRY(seg_read(x, insn_seg(op), insn_ea(x, in, op), buf, size + 2, MMU_READ));
    __builtin_memcpy(off, buf, 8);
    if (size < 8)
        *off &= (1ull << (8 * size)) - 1;
    *sel = (uint16_t)(buf[size] | buf[size + 1] << 8);
    return X_OK;
}

enum xres sys_insn_far_branch(struct xcpu *x, struct insn *in) {
    unsigned size = in->z.operand_width / 8u;
    uint16_t sel = 0;
    uint64_t off = 0;

    if (in->z.mnemonic == ZYDIS_MNEMONIC_RET) {
        bool has_imm = in->z.operand_count_visible > 0 && in->op[0].type == ZYDIS_OPERAND_TYPE_IMMEDIATE;

        return xfer_ret_far(x, size, has_imm ? (uint16_t)in->op[0].imm.value.u : 0);
    }
    TRY(far_target(x, in, size, &sel, &off));
    return seg_load_far_code(x, sel, off, in->z.mnemonic == ZYDIS_MNEMONIC_CALL, size, in->next_rip);
}

enum xres insn_int(struct xcpu *x, struct insn *in) {
    return intr_software(x, (uint8_t)in->op[0].imm.value.u, in->next_rip, false);
}

enum xres insn_int3(struct xcpu *x, struct insn *in) {
    return intr_software(x, X86_BP, in->next_rip, true);
}
enum xres insn_int1(struct xcpu *x, struct insn *in) {
    return intr_icebp(x, in->next_rip);
}

enum xres insn_into(struct xcpu *x, struct insn *in) {
    return x->s.rflags & RFLAGS_OF ? intr_software(x, X86_OF, in->next_rip, true) : X_OK;
}
