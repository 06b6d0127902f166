// SPDX-License-Identifier: Apache-2.0
// Check elimination: accesses of a block that are known to lie near each other share one TLB check.
//
// Each register has a version and an offset: `add rsp, 8` moves the offset, anything else starts a new version. Two
// accesses with the same versions of base and index (and scale, segment, address size) differ by a known distance. They
// form a group: its first access checks the whole range once and parks the host address of its start in
// xcpu.group_host; the others use that address without a check.
//
// A range check may fail where the single accesses would not: the range crosses a page, or one access writes to a page
// that may only be read, or whose D bit must not be set yet. Then the block is left for a variant of it without groups
// (xl_ungrouped), from the first access on.
//
// A group ends where a parked address may go stale: at calls of helpers, which are safe points for smc.c.
#include "engine/xlate/tctx.h"

#define MAX_RANGE 256 // bytes; the chance to cross a page is range / 4096

struct value { // of a register
    uint16_t version;
    int64_t offset;
};

struct key {
    uint16_t base, index; // versions, 0: none
    uint8_t scale, seg;
    bool a32;
};

struct analysis {
    struct tctx *c;
    struct value reg[16];
    uint16_t next_version;
    struct key keys[TB_GROUPS];
    bool open[TB_GROUPS];
};

static bool same_key(const struct key *a, const struct key *b) {
    return a->base == b->base && a->index == b->index && a->scale == b->scale && a->seg == b->seg && a->a32 == b->a32;
}

static void close_groups(struct analysis *a) {
    for (unsigned i = 0; i < TB_GROUPS; i++)
        a->open[i] = false;
}

static void new_version(struct analysis *a, int reg) {
    a->reg[reg] = (struct value){.version = ++a->next_version};
}

static bool fits(const struct group *g, const struct key *k, int64_t at, unsigned size) {
    int64_t lo = at < g->start ? at : g->start, hi = at + size > g->end ? at + (int64_t)size : g->end;
    if (!k->base && !k->index && !k->seg) // constant addresses: never over the end of a page
        return ((lo ^ (hi - 1)) & (int64_t)PAGE_MASK) == 0;
    return hi - lo <= MAX_RANGE;
}

static void join(struct analysis *a, struct taccess *acc, const struct key *k, int64_t at, unsigned size, bool write) {
    struct tctx *c = a->c;
    for (unsigned i = 0; i < c->ngroups; i++) {
        struct group *g = &c->groups[i];
        if (!a->open[i] || !same_key(&a->keys[i], k) || !fits(g, k, at, size))
            continue;
        g->start = at < g->start ? at : g->start;
        g->end = at + size > g->end ? at + (int64_t)size : g->end;
        g->write |= write;
        g->members++;
        acc->group = (int8_t)i;
        acc->at = at;
        return;
    }
    if (c->ngroups == TB_GROUPS)
        return;
    unsigned n = c->ngroups++;
    c->groups[n] = (struct group){.start = at, .end = at + size, .write = write, .first_writes = write, .members = 1};
    a->keys[n] = *k;
    a->open[n] = true;
    acc->group = (int8_t)n;
    acc->leader = true;
    acc->at = at;
}

static void stack_access(struct analysis *a, struct tinsn *t, int reg, int64_t disp, bool write) {
    unsigned size = a->c->is64 ? 8 : 4;
    struct key k = {.base = a->reg[reg].version, .a32 = !a->c->is64};
    join(a, &t->access[1], &k, a->reg[reg].offset + disp, size, write);
}

static void operand_access(struct analysis *a, struct tinsn *t) {
    struct key k = {.a32 = t->mem_a32, .scale = t->mem_scale};
    int64_t at = t->mem_disp;
    bool based = t->mem_seg == X86_FS || t->mem_seg == X86_GS;
    if (based && t->mem_a32 && a->c->is64)
        return; // the offset wraps at 4 GiB, the address does not
    if ((t->mem_base != NOREG || t->mem_index != NOREG) && at < INT32_MIN + MAX_RANGE)
        return; // the start of the group's range may be out of a displacement's reach
    if (t->mem_base != NOREG) {
        k.base = a->reg[t->mem_base].version;
        at += a->reg[t->mem_base].offset;
    }
    if (t->mem_index != NOREG) {
        k.index = a->reg[t->mem_index].version;
        at += a->reg[t->mem_index].offset * (1 << t->mem_scale);
    } else {
        k.scale = 0;
    }
    if (based)
        k.seg = t->mem_seg;
    join(a, &t->access[0], &k, at, t->mem_size, t->mem_write);
}

static void accesses(struct analysis *a, struct tinsn *t) {
    int64_t n = a->c->is64 ? 8 : 4;
    switch (t->cls) {
    case T_MEM:
    case T_MOFFS: operand_access(a, t); break;
    case T_PUSH:
    case T_PUSHF: stack_access(a, t, X86_RSP, -n, true); break;
    case T_CALL: stack_access(a, t, X86_RSP, -n, true); break;
    case T_PUSH_MEM:
        operand_access(a, t);
        stack_access(a, t, X86_RSP, -n, true);
        break;
    case T_CALL_IND:
        if (t->mem_size)
            operand_access(a, t);
        stack_access(a, t, X86_RSP, -n, true);
        break;
    case T_JMP_IND:
        if (t->mem_size)
            operand_access(a, t);
        break;
    case T_POP:
    case T_RET: stack_access(a, t, X86_RSP, 0, false); break;
    case T_LEAVE: stack_access(a, t, X86_RBP, 0, false); break;
    default: break;
    }
}

static void registers(struct analysis *a, const struct tinsn *t) {
    int64_t n = a->c->is64 ? 8 : 4;
    struct value v;
    switch (t->cls) {
    case T_PUSH:
    case T_PUSH_MEM:
    case T_PUSHF: a->reg[X86_RSP].offset -= n; return;
    case T_POP:
        a->reg[X86_RSP].offset += n;
        new_version(a, t->r_opc.num);
        return;
    case T_LEAVE:
        a->reg[X86_RSP] = a->reg[X86_RBP];
        a->reg[X86_RSP].offset += n;
        new_version(a, X86_RBP);
        return;
    case T_HELPER:
    case T_HELPER_END:
    case T_WRITE_BASE:
        close_groups(a);
        for (int r = 0; r < 16; r++)
            new_version(a, r);
        return;
    case T_SWAPGS: // addresses with GS mean something else now
        close_groups(a);
        return;
    default: break;
    }
    if (t->adjust != ADJ_NONE && !t->adjust_narrow) {
        v = a->reg[t->adjust_src];
        v.offset += t->adjust_imm;
        a->reg[t->adjust_reg] = v;
        return;
    }
    for (unsigned left = t->gpr_write; left; left &= left - 1)
        new_version(a, __builtin_ctz(left));
}

// Groups of one are no groups; the rest get their distances.
static void settle(struct tctx *c, struct taccess *acc) {
    if (acc->group == NOGROUP)
        return;
    const struct group *g = &c->groups[acc->group];
    if (g->members < 2) {
        acc->group = NOGROUP;
        acc->leader = false;
    } else {
        acc->delta = (int32_t)(acc->at - g->start);
    }
}

void find_groups(struct tctx *c) {
    struct analysis a = {.c = c};
    c->ngroups = 0;
    if (c->ungrouped)
        return;
    for (int r = 0; r < 16; r++)
        new_version(&a, r);
    for (unsigned i = 0; i < c->ninsns; i++) {
        accesses(&a, &c->insns[i]);
        registers(&a, &c->insns[i]);
    }
    for (unsigned i = 0; i < c->ninsns; i++)
        for (unsigned k = 0; k < 2; k++)
            settle(c, &c->insns[i].access[k]);
}
