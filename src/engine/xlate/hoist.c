// SPDX-License-Identifier: Apache-2.0
// Analysis of loops, and the look-up of their pages; see hoist.h.
#include "engine/xlate/hoist.h"

#include "engine/xlate/cache.h"
#include "engine/xlate/debugger.h"
#include "engine/xlate/mmu.h"
#include "engine/xlate/stats.h"
#include "engine/xlate/tctx.h"

// ---- analysis ----

struct loop_state {
    struct hoist_plan *plan;
    struct hoist_value reg[16];
};

static void note_narrow(struct loop_state *s, const struct hoist_value *v) {
    struct hoist_plan *p = s->plan;
    if (v->root == NOREG)
        return;
    if (v->offset < p->narrow_min[v->root])
        p->narrow_min[v->root] = v->offset;
    if (v->offset > p->narrow_max[v->root])
        p->narrow_max[v->root] = v->offset;
    p->narrow |= (uint16_t)(1u << v->root);
}

static void registers(struct loop_state *s, const struct tinsn *t) {
    if (t->adjust != ADJ_NONE) {
        struct hoist_value v = s->reg[t->adjust_src];
        v.offset += t->adjust_imm;
        s->reg[t->adjust_reg] = v;
        if (t->adjust_narrow)
            note_narrow(s, &v);
        return;
    }
    for (int r = 0; r < 16; r++)
        if (t->gpr_write & (1u << r))
            s->reg[r].root = NOREG;
}

static bool operand(struct loop_state *s, const struct tinsn *t) {
    struct hoist_plan *p = s->plan;
    if (p->count == HOIST_ACCESSES || t->mem_a32 || !t->mem_size || t->mem_size > 32)
        return false;
    struct hoist_access *a = &p->access[p->count++];
    *a = (struct hoist_access){.base.root = NOREG,
                               .index.root = NOREG,
                               .reg = NOREG,
                               .scale = t->mem_scale,
                               .seg = t->mem_seg,
                               .has_seg = t->mem_seg == X86_FS || t->mem_seg == X86_GS,
                               .size = t->mem_size,
                               .write = t->mem_write,
                               .disp_access = t->mem_disp};
    if (t->mem_base != NOREG && (a->base = s->reg[t->mem_base]).root == NOREG)
        return false;
    return t->mem_index == NOREG || (a->index = s->reg[t->mem_index]).root != NOREG;
}

static bool insn(struct loop_state *s, const struct tinsn *t) {
    switch (t->cls) {
    case T_NOP:
    case T_JCC: return true;
    case T_MEM:
        if (!operand(s, t))
            return false;
        break;
    case T_COPY:
    case T_LEA: break;
    default: return false;
    }
    registers(s, t);
    return true;
}

// A root whose value at the end of a turn is not its own plus a constant has no step.
static bool steps(struct loop_state *s) {
    struct hoist_plan *p = s->plan;
    p->counter = NOREG;
    for (int r = 0; r < 16; r++) {
        p->step[r] = s->reg[r].root == r ? s->reg[r].offset : HOIST_NO_STEP;
        bool better = p->counter == NOREG || (host_reg(p->counter) == NOREG && host_reg(r) != NOREG);
        if (p->step[r] && p->step[r] != HOIST_NO_STEP && better)
            p->counter = (int8_t)r;
    }
    return p->counter != NOREG;
}

static bool part(const struct hoist_plan *p, const struct hoist_value *v, unsigned scale, bool *vary, int64_t *stride) {
    if (v->root == NOREG)
        return true;
    int64_t step = p->step[v->root];
    if (step == HOIST_NO_STEP || step > INT32_MAX || step < INT32_MIN)
        return false;
    *vary = step;
    *stride += step * (1 << scale);
    return true;
}

static bool strides(struct hoist_plan *p) {
    uint64_t sum = 0;
    for (unsigned i = 0; i < p->count; i++) {
        struct hoist_access *a = &p->access[i];
        if (!part(p, &a->base, 0, &a->vary_base, &a->stride) ||
            !part(p, &a->index, a->scale, &a->vary_index, &a->stride))
            return false;
        uint64_t distance = (uint64_t)(a->stride < 0 ? -a->stride : a->stride);
        sum += distance;
        a->inverse = distance > 1 ? (uint32_t)(((1ull << 32) + distance - 1) / distance) : UINT32_MAX;
        if (!a->vary_base && !a->vary_index) { // the address is constant: hoist_host has all of it
            a->disp = a->disp_access;
            a->disp_access = 0;
        }
    }
    return sum <= HOIST_STRIDES;
}

// ---- registers of the variant ----

static uint16_t bit(int r) {
    return r == NOREG ? 0 : (uint16_t)(1u << r);
}

// Registers that the loop uses for more than the base of an access, and all that it uses.
static void register_uses(const struct tctx *c, uint16_t *values, uint16_t *all) {
    *values = *all = bit(X86_RSP) | bit(13) | bit(14) | bit(15); // displaced ones have no host register
    for (unsigned i = 0; i < c->ninsns; i++) {
        const struct tinsn *t = &c->insns[i];
        uint16_t base = bit(t->mem_base), rest = t->gpr_used | t->gpr_write | bit(t->mem_index);
        *values |= rest | (t->cls == T_MEM ? 0 : base);
        *all |= rest | base;
    }
    *values |= bit(c->plan.counter);
    *all |= bit(c->plan.counter);
}

// A base that no turn changes is given the host's address for the time; other accesses get a register that the loop
// does not use, as long as there are some.
static void choose_registers(struct tctx *c) {
    struct hoist_plan *p = &c->plan;
    uint16_t values, all;
    register_uses(c, &values, &all);
    for (unsigned i = 0; i < p->count; i++) {
        struct hoist_access *a = &p->access[i];
        int8_t base = a->base.root;
        a->rebased = base != NOREG && !(values & bit(base)) && !a->has_seg && a->index.root != NOREG;
        if (a->rebased) {
            a->reg = base;
            a->disp_access += a->disp; // all but the base is the access's own business
            a->disp = 0;
            a->vary_index = true;
        } else {
            uint16_t free = (uint16_t)~all;
            if (!free)
                continue;
            a->reg = (int8_t)__builtin_ctz(free);
            all |= bit(a->reg);
        }
        p->taken |= bit(a->reg);
    }
}

// Most blocks are no loops: a look for the jump comes first.
static bool begin(const struct tctx *c) {
    unsigned i = 0;
    while (i < c->ninsns && (c->insns[i].cls != T_JCC || c->insns[i].target != c->insns[0].rip))
        i++;
    return i < c->ninsns && c->is64 && !(c->mode & TBM_COUNT) && !c->engine->opts.no_hoist &&
           !c->engine->opts.exact_flags;
}

bool hoist_analyse(struct tctx *c) {
    struct loop_state s = {.plan = &c->plan};
    if (!begin(c))
        return false;
    *s.plan = (struct hoist_plan){0};
    for (int8_t r = 0; r < 16; r++)
        s.reg[r].root = r;
    for (unsigned i = 0; i < c->ninsns; i++) {
        const struct tinsn *t = &c->insns[i];
        if (!insn(&s, t))
            return false;
        if (t->cls == T_JCC && t->target == c->insns[0].rip) {
            if (!s.plan->count || !steps(&s) || !strides(s.plan))
                return false;
            c->ninsns = i + 1;
            choose_registers(c);
            return true;
        }
    }
    return false;
}

// ---- code ----

void hoist_prologue(struct tctx *c) {
    for (unsigned i = 0; c->hoisted && i < c->plan.count; i++)
        if (c->plan.access[i].reg != NOREG)
            mov_load_gs(&c->e, c->plan.access[i].reg, XOFF(hoist_host) + 8 * i);
}

void hoist_restore(struct tctx *c) {
    for (unsigned left = c->hoisted ? c->plan.taken : 0; left; left &= left - 1)
        mov_load_gs(&c->e, __builtin_ctz(left), XGPR(__builtin_ctz(left)));
}

struct hmem hoist_operand(struct tctx *c, const struct tinsn *t) {
    unsigned i = c->next_hoist++;
    const struct hoist_access *a = &c->plan.access[i];
    struct hmem m = {.base = a->reg != NOREG ? a->reg : S1, .index = NOREG, .disp = (int32_t)a->disp_access};
    s0_clobbered(c);
    if (a->vary_base && a->vary_index) {
        int base = address_reg(c, t->mem_base, S0);
        lea(&c->e, true, S0, base, address_reg(c, t->mem_index, S1), t->mem_scale, 0);
        m.index = S0;
    } else if (a->vary_base) {
        m.index = address_reg(c, t->mem_base, S0);
    } else if (a->vary_index) {
        m.index = address_reg(c, t->mem_index, S0);
        m.scale = t->mem_scale;
    }
    if (a->reg == NOREG)
        mov_load_gs(&c->e, S1, XOFF(hoist_host) + 8 * i);
    return m;
}

// ---- look-up ----

static uint64_t value(const struct xcpu *x, const struct hoist_value *v) {
    return v->root == NOREG ? 0 : x->s.gpr[v->root] + (uint64_t)v->offset;
}

// The host's address minus the guest's; false where the TLB has not got the page.
static inline bool page_delta(const struct xcpu *x, uint64_t page, bool write, uint64_t *delta) {
    const struct tlb_entry *t = &x->tlb[x->tlb_kind][tlb_index(page)];
    uint64_t host = t->host;
    if (__atomic_load_n(write ? &t->wtag : &t->rtag, __ATOMIC_RELAXED) != page &&
        !tlb2_find(x, x->tlb_kind, page, write, &host))
        return false;
    *delta = host - page;
    return true;
}

// Turns of an access that is at lin now, until it leaves the pages that lie in the host as they do in the guest; more
// than `enough` need not be found. 0 where not even this one stays in its page.
static uint64_t turns_of(const struct xcpu *x, const struct hoist_access *a, uint64_t lin, uint64_t delta,
                         uint64_t enough) {
    uint64_t offset = lin & ~PAGE_MASK, page = lin & PAGE_MASK, other;
    bool down = a->stride < 0;
    uint64_t stride = (uint64_t)(down ? -a->stride : a->stride);
    if (offset + a->size > PAGE_SIZE)
        return 0;
    if (!stride)
        return enough;
    uint64_t bytes = down ? offset : PAGE_SIZE - a->size - offset;
    for (unsigned i = 0; i < HOIST_PAGES && bytes < enough * stride; i++, bytes += PAGE_SIZE) {
        page += down ? -PAGE_SIZE : PAGE_SIZE;
        if (!page_delta(x, page, a->write, &other) || other != delta)
            break;
    }
    return (bytes * a->inverse >> 32) + 1; // exact: bytes * stride is far below 2^32
}

// Accesses with the same base need the same host address for it.
static bool same_base(const struct xcpu *x, const struct hoist_plan *p, unsigned i) {
    for (unsigned k = 0; k < i; k++)
        if (p->access[k].reg == p->access[i].reg)
            return x->hoist_host[k] == x->hoist_host[i];
    return true;
}

// Fills hoist_host of one access. Returns the turns it allows; where the TLB misses, 0.
static uint64_t access_turns(struct xcpu *x, const struct hoist_plan *p, unsigned i, uint64_t enough) {
    const struct hoist_access *a = &p->access[i];
    uint64_t base = value(x, &a->base), index = value(x, &a->index) << a->scale, delta;
    uint64_t seg = a->has_seg ? x->s.seg[a->seg].base : 0;
    uint64_t lin = base + index + seg + (uint64_t)(a->disp + a->disp_access);
    if (!page_delta(x, lin & PAGE_MASK, a->write, &delta))
        return 0;
    x->hoist_host[i] = delta + seg + (uint64_t)a->disp + (a->vary_base ? 0 : base) + (a->vary_index ? 0 : index);
    if (a->rebased && !same_base(x, p, i))
        return 0;
    return turns_of(x, a, lin, delta, enough);
}

// Registers that are computed with 32 bits are what they would be with 64 only while nothing is carried out.
static uint64_t narrow_turns(const struct xcpu *x, const struct hoist_plan *p, unsigned r, uint64_t turns) {
    uint64_t v = x->s.gpr[r];
    int64_t step = p->step[r], low = (int64_t)v + p->narrow_min[r], high = (int64_t)v + p->narrow_max[r];
    if (v >> 32 || low < 0 || high > UINT32_MAX)
        return 0;
    if (step == HOIST_NO_STEP || !step)
        return turns;
    uint64_t room = step > 0 ? (uint64_t)(UINT32_MAX - high) : (uint64_t)low;
    uint64_t distance = (uint64_t)(step < 0 ? -step : step);
    return turns * distance <= room ? turns : room / distance;
}

// Turns that may run without checks. Where that are too few: *wait, after which all accesses that are about to leave
// their pages have left them.
static uint64_t plan_turns(struct xcpu *x, const struct hoist_plan *p, uint64_t *wait) {
    uint64_t turns = HOIST_TURNS_MAX;
    *wait = 0;
    for (unsigned i = 0; i < p->count && turns; i++) {
        uint64_t n = access_turns(x, p, i, turns < HOIST_TURNS_MIN ? HOIST_TURNS_MIN : turns);
        turns = n < turns ? n : turns;
        if (n < HOIST_TURNS_MIN && n > *wait)
            *wait = n;
    }
    for (unsigned left = p->narrow; left && turns; left &= left - 1)
        turns = narrow_turns(x, p, (unsigned)__builtin_ctz(left), turns);
    return turns;
}

const uint8_t *hoist_enter(struct xcpu *x, const struct tb *tb) {
    const struct hoist_plan *p = tb->plan;
    uint64_t wait = 0, turns = x->engine->debugger.watchpoints ? 0 : plan_turns(x, p, &wait);
    x->hoist_wait = HOIST_WAIT;
    if (turns < HOIST_TURNS_MIN) {
        x->hoist_wait = !turns ? HOIST_WAIT_MISS : wait ? (int32_t)wait : HOIST_WAIT;
        return NULL;
    }
    x->hoist_bound = x->s.gpr[p->counter] + turns * (uint64_t)p->step[p->counter];
    x->stat[XS_HOISTED]++;
    return tb->code;
}
