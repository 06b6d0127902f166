// SPDX-License-Identifier: Apache-2.0
// Stacks that a control transfer pushes to or pops from before it commits: the current one, or one of another
// privilege level out of the TSS (SDM vol. 3A 5.8.5, 6.12.1, 6.14.4).
#include "engine/xlate/sys.h"

void xstack_current(const struct xcpu *x, struct xstack *st) {
    const struct x86_segment *ss = &x->s.seg[X86_SS];

    *st = (struct xstack){
        .base = cpu_64bit(x) ? 0 : ss->base,
        .mask = x->stack_bits == 64   ? ~0ull
                : x->stack_bits == 32 ? 0xffffffffull
                                      : 0xffffull,
        .limit = ss->limit,
        .attr = ss->attr,
        .flat64 = cpu_64bit(x),
    };
    st->sp = x->s.gpr[X86_RSP] & st->mask;
}

void xstack_from_desc(struct xstack *st, uint64_t ss_desc, uint64_t sp, unsigned cpl) {
    *st = (struct xstack){
        .base = desc_base(ss_desc),
        .mask = desc_db(ss_desc) ? 0xffffffffull : 0xffffull,
        .limit = desc_limit(ss_desc),
        .attr = desc_attr(ss_desc),
        .flags = cpl < 3 ? MMU_SYSTEM : 0,
    };
    st->sp = sp & st->mask;
}

static bool within(const struct xstack *st, uint64_t off, unsigned size) {
    uint64_t last = off + size - 1;

    if (st->flat64)
        return is_canonical(off) && is_canonical(last);
    if ((st->attr & 0x1c) == 0x14) // expand-down: valid above the limit
        return off > st->limit && last <= (st->attr & SEG_DB ? 0xffffffffull : 0xffffull);
    return last <= st->limit;
}

static uint64_t linear(const struct xstack *st, uint64_t off) {
    return st->flat64 ? off : (uint32_t)(st->base + off);
}

enum xres xstack_push(struct xcpu *x, struct xstack *st, uint64_t val, unsigned size) {
    uint64_t sp = (st->sp - size) & st->mask;

    if (!within(st, sp, size))
        return fault_raise_err(x, X86_SS_FAULT, st->error);
    TRY(mmu_write(x, linear(st, sp), &val, size, MMU_WRITE | st->flags));
    st->sp = sp;
    return X_OK;
}

enum xres xstack_pop(struct xcpu *x, struct xstack *st, uint64_t *val, unsigned size) {
    *val = 0;
    if (!within(st, st->sp, size))
        return fault_raise_err(x, X86_SS_FAULT, st->error);
    TRY(mmu_read(x, linear(st, st->sp), val, size, MMU_READ | st->flags));
    st->sp = (st->sp + size) & st->mask;
    return X_OK;
}

void xstack_commit(struct xcpu *x, const struct xstack *st) {
    uint64_t *rsp = &x->s.gpr[X86_RSP];

    *rsp = st->mask == 0xffff ? (*rsp & ~0xffffull) | st->sp : st->sp;
}

enum xres tss_stack_legacy(struct xcpu *x, unsigned cpl, uint32_t ext, uint16_t *ss, uint32_t *esp) {
    const struct x86_segment *tr = &x->s.seg[X86_TR];
    bool wide = SEG_TYPE(tr->attr) & 8;
    unsigned size = wide ? 4 : 2;
    uint32_t off = size + cpl * 2 * size; // ESP0 at 4 (SP0 at 2), then SS0, ESP1, ...

    *esp = 0;
    if (off + size + 1 > tr->limit)
        return fault_raise_err(x, X86_TS, (tr->sel & ~3u) | ext);
    TRY(mmu_read(x, tr->base + off, esp, size, MMU_SYSTEM));
    return mmu_read(x, tr->base + off + size, ss, 2, MMU_SYSTEM);
}

enum xres tss_stack_long(struct xcpu *x, unsigned cpl, unsigned ist, uint32_t ext, uint64_t *rsp) {
    const struct x86_segment *tr = &x->s.seg[X86_TR];
    uint32_t off = ist ? 28 + 8 * ist : 4 + 8 * cpl; // SDM vol. 3A figure 8-11

    if (off + 7 > tr->limit)
        return fault_raise_err(x, X86_TS, (tr->sel & ~3u) | ext);
    TRY(mmu_read(x, tr->base + off, rsp, 8, MMU_SYSTEM));
    if (!is_canonical(*rsp))
        return fault_raise_err(x, X86_SS_FAULT, ext);
    return X_OK;
}
