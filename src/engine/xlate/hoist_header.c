// SPDX-License-Identifier: Apache-2.0
// What hoist_enter does, as code in front of a loop without checks: the pages of its accesses, the turns until one of
// them is left, the bound. It knows the first level of the TLB and one page of each access; where that does not do,
// C code has the word (xl_hoist).
//
// First every address is computed, from registers as they are when a turn begins; then RAX, RCX and RDX are put aside.
#include "engine/xlate/tctx.h"

#define TURNS  X86_RDX // as many as all accesses allow
#define OFFSET X86_RAX // of an access in its page
#define HOST   X86_RCX

struct header {
    struct tctx *c;
    uint8_t *fail[2 * HOIST_ACCESSES + 40];
    unsigned nfails;
};

static bool fits32(int64_t v) {
    return v == (int32_t)v;
}

static void fail_on(struct header *h, unsigned cc) {
    if (h->nfails == ARRAY_LEN(h->fail)) {
        h->c->e.overflow = true;
        return;
    }
    h->fail[h->nfails++] = jcc_forward(&h->c->e, cc);
}

// What an access adds to its varying registers, all in all and in the loop itself.
static int64_t constant_part(const struct hoist_access *a, bool varying) {
    int64_t k = a->disp_access + (varying ? 0 : a->disp);
    if (a->base.root != NOREG && (a->vary_base || !varying))
        k += a->base.offset;
    if (a->index.root != NOREG && (a->vary_index || !varying))
        k += a->index.offset * (1 << a->scale);
    return k;
}

// S0 = base + index << scale + k; S1 clobbered.
static void sum(struct tctx *c, int base, int index, unsigned scale, int64_t k) {
    struct emit *e = &c->e;
    if (base == NOREG && index == NOREG) {
        mov_imm(e, S0, (uint64_t)k);
    } else if (base == NOREG) {
        index = address_reg(c, index, S1);
        rex(e, true, S0, index, 0, false); // [index * scale + disp32]
        put8(e, 0x8d), put8(e, 0x04 | (S0 & 7) << 3), put8(e, scale << 6 | ((unsigned)index & 7) << 3 | 5);
        put32(e, (uint32_t)k);
    } else {
        base = address_reg(c, base, S0);
        if (index != NOREG)
            index = address_reg(c, index, S1);
        lea(e, true, S0, base, index, scale, (int32_t)k);
    }
}

// hoist_lin = the address; hoist_host = what the loop will add to what it finds there.
static void addresses(struct tctx *c, unsigned i) {
    const struct hoist_access *a = &c->plan.access[i];
    struct emit *e = &c->e;
    sum(c, a->base.root, a->index.root, a->scale, constant_part(a, false));
    if (a->has_seg) {
        mov_load_gs(e, S1, XOFF(s.seg[0].base) + a->seg * (uint32_t)sizeof(struct x86_segment));
        lea(e, true, S0, S0, S1, 0, 0);
    }
    mov_store_gs(e, XOFF(hoist_lin) + 8 * i, S0);
    sum(c, a->vary_base ? a->base.root : NOREG, a->vary_index ? a->index.root : NOREG, a->scale,
        constant_part(a, true));
    mov_store_gs(e, XOFF(hoist_host) + 8 * i, S0);
}

// TURNS = min(TURNS, turns of an access that is at OFFSET of its page)
static void count_turns(struct tctx *c, const struct hoist_access *a) {
    struct emit *e = &c->e;
    uint64_t distance = (uint64_t)(a->stride < 0 ? -a->stride : a->stride);
    if (!distance)
        return;
    if (a->stride < 0) {
        mov_rr(e, false, HOST, OFFSET);
    } else {
        mov_imm(e, HOST, (uint32_t)PAGE_SIZE - a->size);
        op_rr(e, false, 0x2b, HOST, OFFSET); // sub
    }
    if (distance & (distance - 1)) {
        mov_imm(e, OFFSET, a->inverse);
        put8(e, 0x48), put8(e, 0x0f), put8(e, 0xaf), put8(e, 0xc0 | HOST << 3 | OFFSET); // imul rcx, rax
        put8(e, 0x48), put8(e, 0xc1), put8(e, 0xe8 | HOST), put8(e, 32);                 // shr rcx, 32
    } else if (distance > 1) {
        put8(e, 0xc1), put8(e, 0xe8 | HOST), put8(e, (unsigned)__builtin_ctzll(distance)); // shr ecx
    }
    lea(e, false, HOST, HOST, NOREG, 0, 1);
    op_rr(e, false, 0x3b, TURNS, HOST);
    put8(e, 0x0f), put8(e, 0x40 | CC_A), put8(e, 0xc0 | TURNS << 3 | HOST); // cmova edx, ecx
}

static void look_up(struct header *h, unsigned i) {
    struct tctx *c = h->c;
    const struct hoist_access *a = &c->plan.access[i];
    struct emit *e = &c->e;
    mov_load_gs(e, S0, XOFF(hoist_lin) + 8 * i);
    rorx32(e, S1, S0, PAGE_SHIFT - 5);
    alu_imm(e, false, 4, S1, (TLB_SIZE - 1) << 5);
    mov_rr(e, true, OFFSET, S0);
    op_gs_base(e, true, 0x33, OFFSET, S1, tag_offset(c, a->write));
    alu_imm(e, true, 7, OFFSET, (uint32_t)PAGE_SIZE - a->size);
    fail_on(h, CC_A);
    op_gs_base(e, true, 0x8b, HOST, S1, host_offset(c));
    op_rr(e, true, 0x03, HOST, OFFSET); // add
    op_gs(e, true, 0x2b, HOST, XOFF(hoist_host) + 8 * i);
    mov_store_gs(e, XOFF(hoist_host) + 8 * i, HOST);
    for (unsigned k = 0; a->rebased && k < i; k++)
        if (c->plan.access[k].reg == a->reg) { // one register: all must want the same in it
            op_gs(e, true, 0x3b, HOST, XOFF(hoist_host) + 8 * k);
            fail_on(h, CC_NE);
            break;
        }
    count_turns(c, a);
}

// S0 = a guest register, whether put aside or not.
static void guest_value(struct tctx *c, int r) {
    if (r == X86_RAX || r == X86_RCX || r == X86_RDX)
        mov_load_gs(&c->e, S0, XOFF(spill[3]) + 8 * (uint32_t)r);
    else
        emit_read_gpr(c, S0, r, true);
}

// How far a register with 32 bits may get in HOIST_TURNS_MAX turns.
static void narrow_range(const struct hoist_plan *p, unsigned r, int64_t *low, int64_t *high) {
    int64_t step = p->step[r] == HOIST_NO_STEP ? 0 : p->step[r];
    *low = p->narrow_min[r] + (step < 0 ? step * (int64_t)HOIST_TURNS_MAX : 0);
    *high = p->narrow_max[r] + (step > 0 ? step * (int64_t)HOIST_TURNS_MAX : 0);
}

// Nothing must be carried out of 32 bits, see hoist.c.
static void check_narrow(struct header *h, unsigned r) {
    struct emit *e = &h->c->e;
    int64_t low, high;
    narrow_range(&h->c->plan, r, &low, &high);
    guest_value(h->c, (int)r);
    lea(e, true, S1, S0, NOREG, 0, (int32_t)high);
    op_rr(e, true, 0x0b, S1, S0);                             // or: the register itself has 32 bits, too
    put8(e, 0x49), put8(e, 0xc1), put8(e, 0xee), put8(e, 32); // shr r14 (S1), 32
    fail_on(h, CC_NE);
    if (low < 0) {
        alu_imm(e, true, 7, S0, (uint32_t)-low);
        fail_on(h, CC_B);
    }
}

static void set_bound(struct tctx *c) {
    struct emit *e = &c->e;
    guest_value(c, c->plan.counter);
    put8(e, 0x48), put8(e, 0x69), put8(e, 0xc0 | TURNS << 3 | TURNS); // imul rdx, rdx, imm32
    put32(e, (uint32_t)c->plan.step[c->plan.counter]);
    op_rr(e, true, 0x03, TURNS, S0);
    mov_store_gs(e, XOFF(hoist_bound), TURNS);
}

static void put_aside(struct tctx *c, bool back) {
    static const int regs[] = {X86_RAX, X86_RCX, X86_RDX};
    for (unsigned i = 0; i < ARRAY_LEN(regs); i++) {
        uint32_t slot = XOFF(spill[3]) + 8 * (uint32_t)regs[i];
        back ? mov_load_gs(&c->e, regs[i], slot) : mov_store_gs(&c->e, slot, regs[i]);
    }
}

static bool expressible(const struct hoist_plan *p) {
    for (unsigned i = 0; i < p->count; i++) {
        const struct hoist_access *a = &p->access[i];
        bool based = a->base.root != NOREG || a->index.root != NOREG;
        if (based && (!fits32(constant_part(a, false)) || !fits32(constant_part(a, true))))
            return false;
    }
    for (unsigned left = p->narrow; left; left &= left - 1) {
        int64_t low, high;
        narrow_range(p, (unsigned)__builtin_ctz(left), &low, &high);
        if (!fits32(low) || !fits32(-low) || high < 0 || !fits32(high))
            return false;
    }
    return fits32(p->step[p->counter] * (int64_t)HOIST_TURNS_MAX);
}

uint8_t *hoist_header(struct tctx *c, uint32_t itlb, uint32_t id) {
    struct header h = {.c = c};
    struct emit *e = &c->e;
    uint8_t *at = emit_xaddr(e), *early[2];
    if (!c->hoisted || !expressible(&c->plan))
        return NULL;
    cmp_gs_imm32(e, itlb, id);
    early[0] = jcc_forward(e, CC_NE);
    cmp_gs_imm8(e, XOFF(jump_mask), 0);
    early[1] = jcc_forward(e, CC_E);
    for (unsigned i = 0; i < c->plan.count; i++)
        addresses(c, i);
    put_aside(c, false);
    mov_imm(e, TURNS, HOIST_TURNS_MAX);
    for (unsigned i = 0; i < c->plan.count; i++)
        look_up(&h, i);
    for (unsigned left = c->plan.narrow; left; left &= left - 1)
        check_narrow(&h, (unsigned)__builtin_ctz(left));
    set_bound(c);
    put_aside(c, true);
    for (unsigned left = c->plan.taken; left; left &= left - 1)
        mov_store_gs(e, XGPR(__builtin_ctz(left)), __builtin_ctz(left));
    uint8_t *go = jmp_forward(e);
    for (unsigned i = 0; i < h.nfails; i++)
        patch_here(e, h.fail[i]);
    put_aside(c, true);
    patch_here(e, early[0]);
    patch_here(e, early[1]);
    mov_imm(e, S0, c->insns[0].rip);
    jmp_to(e, c->tramps->hoist);
    patch_here(e, go);
    return at;
}
