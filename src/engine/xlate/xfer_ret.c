// SPDX-License-Identifier: Apache-2.0
// Far RET and IRET in all modes (SDM vol. 2 RET, IRET; vol. 3A 6.14.3).
#include "engine/xlate/sys.h"

struct far_return {
    uint64_t rip, rflags, rsp;
    uint64_t cs, ss; // selectors
    uint64_t cs_desc, ss_desc;
};

// The code segment that a return names, at any outer or the same level.
static enum xres check_cs(struct xcpu *x, struct far_return *r) {
    uint16_t sel = (uint16_t)r->cs;
    unsigned rpl = sel & 3u;
    uint32_t error = sel & ~3u;
    uint64_t d;

    if (!error)
        return gp0(x);
    TRY(desc_read(x, sel, 0, X86_GP, &d));
    if (!desc_is_segment(d) || !desc_is_code(d) || rpl < x->cpl)
        return fault_raise_err(x, X86_GP, error);
    if (desc_conforming(d) ? desc_dpl(d) > rpl : desc_dpl(d) != rpl)
        return fault_raise_err(x, X86_GP, error);
    if (x->long_mode && desc_long(d) && desc_db(d))
        return fault_raise_err(x, X86_GP, error);
    if (!desc_present(d))
        return fault_raise_err(x, X86_NP, error);
    if (x->long_mode && desc_long(d) ? !is_canonical(r->rip) : r->rip > desc_limit(d))
        return gp0(x);
    r->cs_desc = d;
    return desc_set_accessed(x, sel, &r->cs_desc);
}

// SS of the level returned to. Null is good only for 64-bit code inside CPL 3; then ss_desc stays 0.
static enum xres check_ss(struct xcpu *x, struct far_return *r) {
    uint16_t sel = (uint16_t)r->ss;
    unsigned cpl = r->cs & 3u;

    r->ss_desc = 0;
    if (!(sel & ~3u)) {
        bool null_ok = x->long_mode && desc_long(r->cs_desc) && cpl != 3 && (sel & 3u) == cpl;

        return null_ok ? X_OK : gp0(x);
    }
    TRY(seg_check_ss(x, sel, cpl, 0, X86_GP, &r->ss_desc));
    return desc_set_accessed(x, sel, &r->ss_desc);
}

static void set_ss(struct xcpu *x, const struct far_return *r) {
    if (r->ss_desc)
        seg_set(x, X86_SS, (uint16_t)r->ss, r->ss_desc);
    else
        seg_set_null_ss(x, (uint16_t)r->ss, r->cs & 3u);
}

// RSP of the outer stack: 64-bit code gets all of it, others what their stack size holds.
static void set_rsp(struct xcpu *x, const struct far_return *r, uint64_t rsp, unsigned op_size) {
    if (op_size == 8 || (x->long_mode && desc_long(r->cs_desc)) || desc_db(r->ss_desc))
        x->s.gpr[X86_RSP] = rsp;
    else
        x->s.gpr[X86_RSP] = (x->s.gpr[X86_RSP] & ~0xffffull) | (rsp & 0xffff);
}

// ---- far RET ----

static enum xres ret_real(struct xcpu *x, unsigned op_size, uint16_t imm) {
    uint64_t rip, cs;
    struct xstack st;

    xstack_current(x, &st);
    TRY(xstack_pop(x, &st, &rip, op_size));
    TRY(xstack_pop(x, &st, &cs, op_size));
    if (rip > x->s.seg[X86_CS].limit)
        return gp0(x);
    st.sp = (st.sp + imm) & st.mask;
    xstack_commit(x, &st);
    seg_set_real(x, X86_CS, (uint16_t)cs);
    x->s.rip = rip;
    mode_update(x);
    return X_OK;
}

enum xres xfer_ret_far(struct xcpu *x, unsigned op_size, uint16_t imm) {
    struct far_return r = {0};
    struct xstack st;
    unsigned cpl;

    if (!cpu_protected(x) || cpu_vm86(x))
        return ret_real(x, op_size, imm);
    xstack_current(x, &st);
    TRY(xstack_pop(x, &st, &r.rip, op_size));
    TRY(xstack_pop(x, &st, &r.cs, op_size));
    TRY(check_cs(x, &r));
    cpl = r.cs & 3u;
    st.sp = (st.sp + imm) & st.mask;
    if (cpl > x->cpl) {
        TRY(xstack_pop(x, &st, &r.rsp, op_size));
        TRY(xstack_pop(x, &st, &r.ss, op_size));
        TRY(check_ss(x, &r));
        set_ss(x, &r);
        set_rsp(x, &r, r.rsp + imm, op_size);
        seg_drop_inner(x, cpl);
    } else {
        xstack_commit(x, &st);
    }
    seg_set(x, X86_CS, (uint16_t)r.cs, r.cs_desc);
    x->s.rip = r.rip;
    mode_update(x);
    return X_OK;
}

// ---- IRET ----

// Flags that IRET may change (SDM vol. 2 IRET): by operand size, CPL and IOPL before the return.
static uint64_t iret_flags_mask(const struct xcpu *x, unsigned op_size) {
    uint64_t mask = RFLAGS_ARITH | RFLAGS_TF | RFLAGS_DF | RFLAGS_NT;

    if (op_size > 2)
        mask |= RFLAGS_RF | RFLAGS_AC | RFLAGS_ID;
    if (x->cpl <= (x->s.rflags & RFLAGS_IOPL) >> 12)
        mask |= RFLAGS_IF;
    if (x->cpl == 0)
        mask |= RFLAGS_IOPL | (op_size > 2 ? RFLAGS_VIF | RFLAGS_VIP : 0);
    return mask;
}

static inline uint64_t merge(uint64_t old, uint64_t image, uint64_t mask) {
    return (old & ~mask) | (image & mask) | RFLAGS_FIXED1;
}

static enum xres pop3(struct xcpu *x, struct xstack *st, struct far_return *r, unsigned op_size) {
    TRY(xstack_pop(x, st, &r->rip, op_size));
    TRY(xstack_pop(x, st, &r->cs, op_size));
    return xstack_pop(x, st, &r->rflags, op_size);
}

static enum xres iret_real(struct xcpu *x, unsigned op_size) {
    uint64_t mask = iret_flags_mask(x, op_size) & ~(RFLAGS_VIF | RFLAGS_VIP);
    struct far_return r = {0};
    struct xstack st;

    xstack_current(x, &st);
    TRY(pop3(x, &st, &r, op_size));
    if (r.rip > x->s.seg[X86_CS].limit)
        return gp0(x);
    xstack_commit(x, &st);
    seg_set_real(x, X86_CS, (uint16_t)r.cs);
    x->s.rip = r.rip;
    x->s.rflags = merge(x->s.rflags, r.rflags, mask);
    mode_update(x);
    return X_OK;
}

// IOPL 3: like real mode without IOPL. Below: only with VME and 16-bit operands, where IF means VIF (SDM 20.3.2).
static enum xres iret_vm86(struct xcpu *x, unsigned op_size) {
    bool virtual_if = (x->s.rflags & RFLAGS_IOPL) != RFLAGS_IOPL;
    uint64_t mask = RFLAGS_ARITH | RFLAGS_TF | RFLAGS_DF | RFLAGS_NT;
    struct far_return r = {0};
    struct xstack st;

    if (virtual_if && !((x->s.cr4 & CR4_VME) && op_size == 2))
        return gp0(x);
    xstack_current(x, &st);
    TRY(pop3(x, &st, &r, op_size));
    if (r.rip > x->s.seg[X86_CS].limit)
        return gp0(x);
    if (virtual_if) {
        if ((r.rflags & RFLAGS_TF) || ((r.rflags & RFLAGS_IF) && (x->s.rflags & RFLAGS_VIP)))
            return gp0(x);
        mask |= RFLAGS_VIF;
        r.rflags = (r.rflags & ~RFLAGS_VIF) | (r.rflags & RFLAGS_IF ? RFLAGS_VIF : 0);
    } else {
        mask |= RFLAGS_IF | (op_size > 2 ? RFLAGS_RF | RFLAGS_AC | RFLAGS_ID : 0);
    }
    xstack_commit(x, &st);
    seg_set_real(x, X86_CS, (uint16_t)r.cs);
    x->s.rip = r.rip;
    x->s.rflags = merge(x->s.rflags, r.rflags, mask);
    mode_update(x);
    return X_OK;
}

static enum xres iret_to_vm86(struct xcpu *x, struct xstack *st, struct far_return *r) {
    static const enum x86_seg order[] = {X86_ES, X86_DS, X86_FS, X86_GS};
    uint64_t sel[4];

    TRY(xstack_pop(x, st, &r->rsp, 4));
    TRY(xstack_pop(x, st, &r->ss, 4));
    for (unsigned i = 0; i < 4; i++)
        TRY(xstack_pop(x, st, &sel[i], 4));
    if (r->rip > 0xffff)
        return gp0(x);
    x->s.rflags = (r->rflags & 0x3f7fd7ull) | RFLAGS_FIXED1; // CPL 0: all defined flags, VM among them
    seg_set_real(x, X86_CS, (uint16_t)r->cs);
    seg_set_real(x, X86_SS, (uint16_t)r->ss);
    for (unsigned i = 0; i < 4; i++)
        seg_set_real(x, order[i], (uint16_t)sel[i]);
    x->s.gpr[X86_RSP] = (uint32_t)r->rsp;
    x->s.rip = r->rip;
    mode_update(x);
    return X_OK;
}

static bool iret_is_task_return(const struct xcpu *x) {
    return (x->s.rflags & RFLAGS_NT) && cpu_protected(x) && !cpu_vm86(x) && !x->long_mode;
}

static enum xres iret_task(struct xcpu *x, uint64_t next_rip) {
    uint16_t link, task = x->s.seg[X86_TR].sel;
    enum xres res;

    TRY(mmu_read(x, x->s.seg[X86_TR].base, &link, 2, MMU_SYSTEM));
    res = task_switch(x, link, TASK_IRET, next_rip, false, 0, 0);
    return res == X_FAULT ? task_fault(x, task) : res;
}

static void iret_commit(struct xcpu *x, const struct far_return *r, unsigned op_size, bool has_stack) {
    unsigned cpl = r->cs & 3u;
    uint64_t rflags = merge(x->s.rflags, r->rflags, iret_flags_mask(x, op_size));
    // The mode is a function of these; between two places of one kernel none of them changes.
    bool changed = cpl != x->cpl || x->s.seg[X86_CS].attr != desc_attr(r->cs_desc) || !cpu_64bit(x) ||
                   ((rflags ^ x->s.rflags) & MODE_FLAGS);

    if (has_stack) {
        set_ss(x, r);
        set_rsp(x, r, r->rsp, op_size);
    }
    if (cpl > x->cpl)
        seg_drop_inner(x, cpl);
    seg_set(x, X86_CS, (uint16_t)r->cs, r->cs_desc);
    x->s.rip = r->rip;
    x->s.rflags = rflags;
    if (changed)
        mode_update(x);
}

// 64-bit code always pops SS:RSP, here in one read.
static enum xres iretq(struct xcpu *x) {
    uint64_t frame[5], rsp = x->s.gpr[X86_RSP];
    struct far_return r = {0};

    if (!is_canonical(rsp) || !is_canonical(rsp + sizeof(frame) - 1))
        return fault_raise_err(x, X86_SS_FAULT, 0);
    TRY(mmu_read(x, rsp, frame, sizeof(frame), MMU_READ));
    r.rip = frame[0];
    r.cs = frame[1];
    r.rflags = frame[2];
    r.rsp = frame[3];
    r.ss = frame[4];
    TRY(check_cs(x, &r));
    TRY(check_ss(x, &r));
    iret_commit(x, &r, 8, true);
    return X_OK;
}

static enum xres iret_protected(struct xcpu *x, unsigned op_size) {
    struct far_return r = {0};
    struct xstack st;
    bool has_stack;

    xstack_current(x, &st);
    TRY(pop3(x, &st, &r, op_size));
    if ((r.rflags & RFLAGS_VM) && op_size == 4 && x->cpl == 0 && !x->long_mode)
        return iret_to_vm86(x, &st, &r);
    TRY(check_cs(x, &r));
    has_stack = cpu_64bit(x) || (r.cs & 3u) > x->cpl;
    if (has_stack) {
        TRY(xstack_pop(x, &st, &r.rsp, op_size));
        TRY(xstack_pop(x, &st, &r.ss, op_size));
        TRY(check_ss(x, &r));
    } else {
        xstack_commit(x, &st);
    }
    iret_commit(x, &r, op_size, has_stack);
    return X_OK;
}

static enum xres iret_any(struct xcpu *x, unsigned op_size) {
    if (__builtin_expect(cpu_64bit(x), 1)) {
        if (x->s.rflags & RFLAGS_NT)
            return gp0(x);
        return op_size == 8 ? iretq(x) : iret_protected(x, op_size);
    }
    if (!cpu_protected(x))
        return iret_real(x, op_size);
    if (cpu_vm86(x))
        return iret_vm86(x, op_size);
    if (iret_is_task_return(x)) // translated code: an operand size prefix is one byte more
        return iret_task(x, x->s.rip + (op_size == x->code_bits / 8u ? 1 : 2));
    if (x->s.rflags & RFLAGS_NT)
        return gp0(x);
    return iret_protected(x, op_size);
}

// op_size in bytes. NMIs are open again even when IRET faults (SDM vol. 3A 6.7.1).
enum xres sys_iret(struct xcpu *x, unsigned op_size) {
    bool window = x->s.nmi_blocked || !(x->s.rflags & RFLAGS_IF);

    x->s.nmi_blocked = 0;
    TRY(iret_any(x, op_size));
    if (window && (x->s.nmi_pending || (x->s.rflags & RFLAGS_IF)))
        intr_window(x);
    return X_OK;
}

enum xres insn_iret(struct xcpu *x, struct insn *in) {
    if (iret_is_task_return(x)) {
        x->s.nmi_blocked = 0;
        return iret_task(x, in->next_rip);
    }
    return sys_iret(x, in->z.operand_width / 8u);
}
