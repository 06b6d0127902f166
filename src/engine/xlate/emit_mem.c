// SPDX-License-Identifier: Apache-2.0
// Guest memory operands: effective address, TLB check, and the discipline of the arithmetic flags around it.
#include "engine/xlate/tctx.h"

#include "engine/xlate/mmu.h"

void emit_stub(struct tctx *c, struct stub s) {
    if (c->nstubs == TB_MAX_STUBS) {
        c->e.overflow = true;
        return;
    }
    s.insn = c->t ? (uint8_t)(c->t - c->insns) : 0;
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

int address_reg(struct tctx *c, int guest, int scratch) {
    int h = host_reg(guest);
    if (h != NOREG)
        return h;
    mov_load_gs(&c->e, scratch, XGPR(guest));
    return scratch;
}

static uint32_t seg_base_offset(const struct tinsn *t) {
    return XOFF(s.seg[0].base) + t->mem_seg * (uint32_t)sizeof(struct x86_segment);
}

void emit_ea(struct tctx *c, const struct tinsn *t) {
    struct emit *e = &c->e;
    s0_clobbered(c);
    bool w = !t->mem_a32, based = t->mem_seg == X86_FS || t->mem_seg == X86_GS;
    if (t->mem_base == NOREG && t->mem_index == NOREG) {
        if (based && w && c->is64 && t->mem_disp == (int32_t)t->mem_disp) {
            mov_load_gs(e, S0, seg_base_offset(t));
            lea(e, true, S0, S0, NOREG, 0, (int32_t)t->mem_disp);
            return;
        }
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
    if (based) {
        mov_load_gs(e, S1, seg_base_offset(t));
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

uint32_t tag_offset(const struct tctx *c, bool write) {
    unsigned kind = (c->mode >> TBM_KIND_SHIFT) & 3;
    uint32_t tlb = (uint32_t)(offsetof(struct xcpu, tlb) + kind * sizeof(struct tlb_entry) * TLB_SIZE);
    return tlb + (uint32_t)(write ? offsetof(struct tlb_entry, wtag) : offsetof(struct tlb_entry, rtag));
}

uint32_t host_offset(const struct tctx *c) {
    return tag_offset(c, false) - (uint32_t)offsetof(struct tlb_entry, rtag) +
           (uint32_t)offsetof(struct tlb_entry, host);
}

// The comparison alone: "above" means a miss.
static void emit_tlb_check(struct tctx *c, unsigned size, uint32_t tag) {
    struct emit *e = &c->e;
    rorx32(e, S1, S0, PAGE_SHIFT - 5);
    alu_imm(e, false, 4, S1, (TLB_SIZE - 1) << 5);
    op_gs_base(e, true, 0x33, S0, S1, tag);
    alu_imm(e, true, 7, S0, (uint32_t)(PAGE_SIZE - size));
}

// The site of an access, NO_SITE where it has none. Places share sites; one that reads and one that writes must not, or
// the write would go by a read's tag. Some have fixed ones.
#define NO_SITE UINT32_MAX
static uint32_t choose_site(struct tctx *c, bool write, enum place place) {
    unsigned kind = (c->mode >> TBM_KIND_SHIFT) & 3;
    if (c->hoisted || c->engine->opts.no_sites || kind == TLB_KERNEL_AC)
        return NO_SITE;
    if (place != PLACE_ANY)
        return 2 * (uint32_t)place + write;
    if (!c->sites)
        return NO_SITE;
    return SITES_FIXED + (c->next_site++ % ((SITE_COUNT - SITES_FIXED) / 2) * 2 + write);
}

static enum place stack_place(const struct tctx *c) {
    return c->mode & TBM_USER ? PLACE_USER_STACK : PLACE_KERNEL_STACK;
}

// Threads' and processors' own data, at constant distances from a segment base: a page or two that is in use all the
// time. The processors' data has more pages; where they lie in the segment tells them apart.
static enum place place_of(const struct tctx *c, const struct tinsn *t) {
    bool based = t->mem_seg == X86_FS || t->mem_seg == X86_GS;
    if (t->mem_index != NOREG)
        return PLACE_ANY;
    if (!based)
        return t->mem_base == X86_RSP ? stack_place(c) : PLACE_ANY;
    if (t->mem_base != NOREG || t->mem_a32)
        return PLACE_ANY;
    if (c->mode & TBM_USER)
        return t->mem_disp < 0 ? PLACE_THREAD_BELOW : PLACE_THREAD;
    return t->mem_seg == X86_GS ? PLACE_CPU + (t->mem_disp >> PAGE_SHIFT & 3) : PLACE_ANY;
}

static void site_check(struct tctx *c, unsigned size, bool write, uint32_t site, struct stub stub) {
    struct emit *e = &c->e;
    unsigned kind = (c->mode >> TBM_KIND_SHIFT) & 3;
    c->any_site = true;
    stub.site = XOFF(sites) + (uint32_t)sizeof(struct site) * site;
    stub.loop_site = site >= SITES_FIXED;
    stub.limit = (uint32_t)PAGE_SIZE - size;
    stub.tramp = stub.in_group ? c->tramps->site_group[kind][write] : c->tramps->site[kind][log2_ceil(size)][write];
    op_gs(e, true, 0x33, S0, stub.site + (uint32_t)offsetof(struct site, tag));
    alu_imm(e, true, 7, S0, (uint32_t)(PAGE_SIZE - size));
    stub.jump = jcc_forward(e, CC_A);
    op_gs(e, true, 0x8b, S1, stub.site + (uint32_t)offsetof(struct site, host));
    stub.back = e->p;
    emit_stub(c, stub);
}

// S0 = linear address -> S1 = host page, S0 = offset. `size` bytes from there must lie in one page.
static void check(struct tctx *c, unsigned size, bool write, enum place place, struct stub stub) {
    struct emit *e = &c->e;
    uint32_t site = choose_site(c, write, place);
    s0_clobbered(c);
    if (site != NO_SITE) {
        site_check(c, size, write, site, stub);
        return;
    }
    emit_tlb_check(c, size, tag_offset(c, write));
    stub.jump = jcc_forward(e, CC_A);
    op_gs_base(e, true, 0x8b, S1, S1, host_offset(c));
    stub.back = e->p;
    emit_stub(c, stub);
}

static uint64_t miss_tramp(const struct tctx *c, unsigned size, bool write) {
    return c->tramps->miss[(c->mode >> TBM_KIND_SHIFT) & 3][log2_ceil(size)][write];
}

void emit_check(struct tctx *c, unsigned size, bool write, enum place place) {
    flags_before_check(c);
    check(c, size, write, place, (struct stub){.kind = STUB_MISS, .tramp = miss_tramp(c, size, write)});
}

// The slot of a constant address is known: S1 = host page. S0 clobbered.
static void check_const(struct tctx *c, uint64_t address, bool write, struct stub stub) {
    struct emit *e = &c->e;
    uint32_t slot = tlb_index(address) * (uint32_t)sizeof(struct tlb_entry);
    uint64_t page = address & PAGE_MASK;
    s0_clobbered(c);
    if ((uint64_t)(int64_t)(int32_t)page == page) { // cmp qword gs:[tag], simm32
        put8(e, 0x65), put8(e, 0x48), put8(e, 0x81), put8(e, 0x3c), put8(e, 0x25);
        put32(e, tag_offset(c, write) + slot), put32(e, (uint32_t)page);
    } else {
        mov_imm(e, S0, page);
        op_gs(e, true, 0x3b, S0, tag_offset(c, write) + slot);
    }
    stub.jump = jcc_forward(e, CC_NE);
    op_gs(e, true, 0x8b, S1, host_offset(c) + slot);
    stub.back = e->p;
    stub.kind = STUB_CONST_MISS;
    stub.address = address;
    stub.tag = tag_offset(c, write);
    emit_stub(c, stub);
}

// ---- accesses ----

static bool checked(const struct taccess *a) {
    return !a->hoisted && (a->group == NOGROUP || a->leader);
}

bool has_check(const struct tinsn *t) {
    switch (t->cls) {
    case T_MEM:
    case T_MOFFS: return checked(&t->access[0]);
    case T_PUSH:
    case T_POP:
    case T_LEAVE:
    case T_CALL:
    case T_RET:
    case T_PUSHF: return checked(&t->access[1]);
    case T_PUSH_MEM: return checked(&t->access[0]) || checked(&t->access[1]);
    case T_CALL_IND: return (t->mem_size && checked(&t->access[0])) || checked(&t->access[1]);
    case T_JMP_IND: return t->mem_size && checked(&t->access[0]);
    case T_BT_MEM:
    case T_FLAG_SET:
    case T_FLAG_CLEAR:
    case T_STI:
    case T_RDTSC:
    case T_WRITE_BASE:
    case T_AC:
    case T_HELPER:
    case T_HELPER_END: return true;
    default: return false;
    }
}

struct hmem hmem_free_s1(struct tctx *c, struct hmem m) {
    if (m.base != S1)
        return m;
    s0_clobbered(c);
    lea(&c->e, true, S0, S1, m.index, m.scale, m.disp);
    return (struct hmem){.base = S0, .index = NOREG};
}

void op_hmem(struct tctx *c, bool w, unsigned opcode, int reg, struct hmem m) {
    op_mem(&c->e, w, opcode, reg, m.base, m.index, m.scale, m.disp);
}

static bool constant(const struct tinsn *t) {
    return t->mem_base == NOREG && t->mem_index == NOREG && t->mem_seg != X86_FS && t->mem_seg != X86_GS;
}

static uint64_t const_address(const struct tinsn *t, int64_t disp) {
    return t->mem_a32 ? (uint32_t)disp : (uint64_t)disp;
}

static uint64_t group_tramp(const struct tctx *c, bool write) {
    return c->tramps->group_miss[(c->mode >> TBM_KIND_SHIFT) & 3][write];
}

static struct hmem member(struct tctx *c, const struct taccess *a) {
    if (c->s0_group != a->group) {
        mov_load_gs(&c->e, S0, XOFF(group_host) + 8 * (uint32_t)a->group);
        c->s0_group = a->group;
    }
    return (struct hmem){.base = S0, .index = NOREG, .disp = a->delta};
}

// S1, and S0 unless it is NOREG, lead to the start of the group's range.
static struct hmem park(struct tctx *c, const struct taccess *a, int index, int32_t disp) {
    lea(&c->e, true, S0, S1, index, 0, disp);
    mov_store_gs(&c->e, XOFF(group_host) + 8 * (uint32_t)a->group, S0);
    c->s0_group = a->group;
    return (struct hmem){.base = S0, .index = NOREG, .disp = a->delta};
}

static struct stub group_stub(const struct tctx *c, const struct taccess *a) {
    const struct group *g = &c->groups[a->group];
    uint32_t range =
        (uint32_t)(g->end - g->start) | (g->write ? GROUP_WRITES : 0) | (g->first_writes ? GROUP_FIRST_WRITES : 0);
    return (struct stub){.kind = STUB_GROUP_MISS, .tramp = group_tramp(c, g->write), .range = range, .in_group = true};
}

struct hmem emit_operand_access(struct tctx *c, struct tinsn *t) {
    struct taccess *a = &t->access[0];
    struct tinsn first = *t;
    if (a->hoisted)
        return hoist_operand(c, t);
    if (a->group != NOGROUP && !a->leader)
        return member(c, a);
    flags_before_check(c);
    if (a->group == NOGROUP) {
        uint64_t address = const_address(t, t->mem_disp);
        if (constant(t) && (address & ~PAGE_MASK) + t->mem_size <= PAGE_SIZE) {
            check_const(c, address, t->mem_write, (struct stub){.tramp = miss_tramp(c, t->mem_size, t->mem_write)});
            return (struct hmem){.base = S1, .index = NOREG, .disp = (int32_t)(address & ~PAGE_MASK)};
        }
        emit_ea(c, t);
        emit_check(c, t->mem_size, t->mem_write, place_of(c, t));
        return (struct hmem){.base = S1, .index = S0};
    }
    const struct group *g = &c->groups[a->group];
    first.mem_disp -= a->delta;
    if (constant(t)) {
        uint64_t address = const_address(t, first.mem_disp);
        check_const(c, address, g->write, group_stub(c, a));
        return park(c, a, NOREG, (int32_t)(address & ~PAGE_MASK));
    }
    emit_ea(c, &first);
    check(c, (unsigned)(g->end - g->start), g->write, place_of(c, t), group_stub(c, a));
    return park(c, a, S0, 0);
}

struct hmem emit_stack_access(struct tctx *c, struct tinsn *t, int guest_reg, int32_t disp, bool write) {
    struct taccess *a = &t->access[1];
    unsigned size = c->is64 ? 8 : 4;
    if (a->group != NOGROUP && !a->leader)
        return member(c, a);
    flags_before_check(c);
    s0_clobbered(c);
    if (a->group == NOGROUP) {
        lea(&c->e, c->is64, S0, host_reg(guest_reg), NOREG, 0, disp);
        emit_check(c, size, write, stack_place(c));
        return (struct hmem){.base = S1, .index = S0};
    }
    const struct group *g = &c->groups[a->group];
    lea(&c->e, c->is64, S0, host_reg(guest_reg), NOREG, 0, disp - a->delta);
    check(c, (unsigned)(g->end - g->start), g->write, stack_place(c), group_stub(c, a));
    return park(c, a, S0, 0);
}
