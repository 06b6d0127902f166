// SPDX-License-Identifier: Apache-2.0
// Native instructions: the guest's own, put together again with the host's registers and memory operand.
#include "engine/xlate/tctx.h"

int host_reg(int guest) {
    if (guest == X86_RSP)
        return HOST_RSP_HOME;
    return guest < 13 ? guest : NOREG;
}

void emit_read_gpr(struct tctx *c, int host_dst, int guest, bool w) {
    int h = host_reg(guest);
    if (h != NOREG)
        mov_rr(&c->e, w, host_dst, h);
    else
        op_gs(&c->e, w, 0x8b, host_dst, XGPR(guest));
}

// ---- putting an encoding together ----

struct operands {
    int reg, rm, vvvv; // host numbers; rm only in register form
    bool mem;
    struct hmem m; // of the memory form; base NOREG: gs:[disp], a displaced guest register
};

static void put_vex(struct emit *e, const struct tenc *n, const struct operands *o) {
    unsigned r = (unsigned)o->reg >> 3, b, x = 0;
    b = o->mem && o->m.base == NOREG ? 0 : (unsigned)(o->mem ? o->m.base : o->rm) >> 3;
    if (o->mem && o->m.index != NOREG)
        x = (unsigned)o->m.index >> 3;
    put8(e, 0xc4);
    put8(e, (!r) << 7 | (!x) << 6 | (!b) << 5 | n->map);
    put8(e, (unsigned)n->rex_w << 7 | (~(unsigned)o->vvvv & 15) << 3 | n->vex_l << 2 | n->vex_pp);
}

static void put_legacy(struct emit *e, const struct tenc *n, const struct operands *o) {
    for (unsigned i = 0; i < n->nlegacy; i++)
        put8(e, n->legacy[i]);
    int b = o->mem ? (o->m.base == NOREG ? 0 : o->m.base) : o->rm, x = o->mem && o->m.index != NOREG ? o->m.index : 0;
    rex(e, n->rex_w, n->has_modrm ? o->reg : 0, x, b, n->force_rex);
    if (n->map)
        put8(e, 0x0f);
    if (n->map == 2)
        put8(e, 0x38);
    if (n->map == 3)
        put8(e, 0x3a);
}

static void put_insn(struct emit *e, const struct tenc *n, const struct operands *o) {
    bool slot = o->mem && o->m.base == NOREG;
    if (slot)
        put8(e, 0x65);
    if (n->vex)
        put_vex(e, n, o);
    else
        put_legacy(e, n, o);
    if (!n->has_modrm) {
        put8(e, (n->opcode & ~7u) | (o->rm & 7));
    } else {
        put8(e, n->opcode);
        if (slot)
            put8(e, 0x04 | (o->reg & 7) << 3), put8(e, 0x25), put32(e, (uint32_t)o->m.disp);
        else if (o->mem)
            modrm_mem(e, o->reg, o->m.base, o->m.index, o->m.scale, o->m.disp);
        else
            put8(e, 0xc0 | (o->reg & 7) << 3 | (o->rm & 7));
    }
    for (unsigned i = 0; i < n->ntail; i++)
        put8(e, n->tail[i]);
}

// ---- operands ----

static bool is_displaced(const struct tgpr *g) {
    return g->num >= 13;
}

static void store_displaced(struct emit *e, const struct tgpr *g, int scratch) {
    if (g->bits == 8)
        op_gs(e, false, 0x88, scratch, XGPR(g->num));
    else if (g->bits == 16)
        put8(e, 0x66), op_gs(e, false, 0x89, scratch, XGPR(g->num));
    else
        mov_store_gs(e, XGPR(g->num), scratch);
}

static bool must_load(const struct tgpr *g) {
    return g->read || g->bits < 32;
}

// xchg al, ah and the like: brings AH..BH to AL..BL and back.
static void swap_halves(struct emit *e, int low) {
    put8(e, 0x86), put8(e, 0xc0 | low << 3 | (low + 4));
}

// Flags an instruction leaves alone must be in place before it runs.
static void flags_for_insn(struct tctx *c, const struct tinsn *t, bool scratch_free) {
    c->insn_flags_in_host = c->flags == FL_HOST;
    if (c->flags == FL_MEM && (t->flags_read || (t->flags_write && (t->live_out & ~t->flags_kill))))
        flags_need_host(c, scratch_free);
    if (t->flags_write)
        c->flags = FL_HOST;
}

// ---- displaced registers ----

// Host registers that stand in for displaced ones during one instruction: scratch, then registers that the instruction
// does not use, whose values are put aside.
struct loans {
    int guest[4], host[4];
    bool borrowed[4];
    unsigned n, lent;
};

static int borrow(struct tctx *c, const struct tinsn *t, const struct loans *l) {
    static const int8_t candidates[] = {X86_R12, X86_R11, X86_R10, X86_R9, X86_R8, X86_RBP, X86_RBX};
    for (unsigned i = 0; i < ARRAY_LEN(candidates); i++) {
        bool taken = t->gpr_used & (1u << candidates[i]);
        for (unsigned k = 0; k < l->n; k++)
            taken |= l->host[k] == candidates[i];
        if (!taken)
            return candidates[i];
    }
    c->e.overflow = true; // no instruction names so many registers
    return X86_R12;
}

// The host register for a displaced guest register. scratch: those that are free, in order, NOREG-terminated.
static int lend(struct tctx *c, const struct tinsn *t, struct loans *l, int guest, const int *scratch, bool load) {
    unsigned k = 0;
    while (k < l->n && l->guest[k] != guest)
        k++;
    if (k == l->n) {
        l->guest[k] = guest;
        l->borrowed[k] = scratch[l->n - l->lent] == NOREG;
        l->host[k] = l->borrowed[k] ? borrow(c, t, l) : scratch[l->n];
        if (l->borrowed[k])
            mov_store_gs(&c->e, XOFF(spill[6]) + 8 * l->lent++, l->host[k]);
        l->n++;
    }
    if (load)
        mov_load_gs(&c->e, l->host[k], XGPR(guest));
    return l->host[k];
}

static void give_back(struct tctx *c, const struct loans *l) {
    unsigned lent = 0;
    for (unsigned k = 0; k < l->n; k++)
        if (l->borrowed[k])
            mov_load_gs(&c->e, l->host[k], XOFF(spill[6]) + 8 * lent++);
}

// ---- register form ----

// Opcodes with a twin that has the operands the other way round: ALU and MOV; TEST is its own.
static bool has_twin(const struct tenc *n, uint8_t *twin) {
    bool alu = n->opcode < 0x40 && (n->opcode & 7) < 4, mov = (n->opcode & 0xfc) == 0x88;
    bool test = (n->opcode & 0xfe) == 0x84;
    if (n->vex || n->map || !(alu || mov || test))
        return false;
    *twin = test ? n->opcode : n->opcode ^ 2;
    return true;
}

// An instruction whose only displaced register can be the memory operand that it is.
static bool emit_slot_form(struct tctx *c, struct tinsn *t) {
    struct tenc n = t->enc;
    const struct tgpr *slot = &t->r_rm, *other = &t->r_reg;
    uint8_t twin;
    if (is_displaced(&t->r_vvvv) || t->r_opc.num != NOREG || t->r_rm.high || t->r_reg.high || !t->rm_or_memory)
        return false;
    if (is_displaced(&t->r_reg) && !is_displaced(&t->r_rm) && t->r_rm.num != NOREG && has_twin(&n, &twin)) {
        n.opcode = twin;
        slot = &t->r_reg;
        other = &t->r_rm;
    }
    if (!is_displaced(slot) || is_displaced(other) || (slot->write && slot->bits == 32))
        return false;
    flags_for_insn(c, t, true);
    struct operands o = {.mem = true,
                         .reg = other->num != NOREG ? host_reg(other->num) : n.reg,
                         .vvvv = t->r_vvvv.num != NOREG ? host_reg(t->r_vvvv.num) : n.vvvv,
                         .m = {.base = NOREG, .index = NOREG, .disp = (int32_t)XGPR(slot->num)}};
    put_insn(&c->e, &n, &o);
    return true;
}

static void emit_copy(struct tctx *c, struct tinsn *t) {
    static const int scratch[] = {S0, S1, NOREG};
    struct emit *e = &c->e;
    struct tgpr *g[] = {&t->r_reg, &t->r_rm, &t->r_vvvv, &t->r_opc};
    struct loans loans = {0};
    int host[4];
    bool same = c->is64 || (t->enc.map != 0 && !t->enc.vex); // 32-bit code ignores some bits of VEX
    if (emit_slot_form(c, t))
        return;
    for (unsigned i = 0; i < 4; i++) {
        host[i] = NOREG;
        if (g[i]->num == NOREG)
            continue;
        if (!is_displaced(g[i])) {
            host[i] = g[i]->high ? g[i]->num + 4 : host_reg(g[i]->num);
            same &= g[i]->num != X86_RSP || g[i]->high;
            continue;
        }
        same = false;
        s0_clobbered(c);
        host[i] = lend(c, t, &loans, g[i]->num, scratch, must_load(g[i]));
    }
    flags_for_insn(c, t, loans.n < 2);
    if (same) {
        for (unsigned i = 0; i < t->len; i++)
            put8(e, t->bytes[i]);
        return;
    }
    // An AH..BH operand beside one that now needs REX: exchange halves for the time of the instruction.
    int low = NOREG;
    for (unsigned i = 0; i < 2; i++) {
        bool other_ext = host[1 - i] != NOREG && host[1 - i] >= 8;
        if (g[i]->num != NOREG && g[i]->high && other_ext) {
            low = g[i]->num;
            host[i] = low;
        }
    }
    struct operands o = {.reg = host[0] != NOREG ? host[0] : t->enc.reg,
                         .rm = host[1] != NOREG   ? host[1]
                               : host[3] != NOREG ? host[3]
                                                  : t->enc.rm,
                         .vvvv = host[2] != NOREG ? host[2] : t->enc.vvvv};
    if (low != NOREG)
        swap_halves(e, low);
    put_insn(e, &t->enc, &o);
    if (low != NOREG)
        swap_halves(e, low);
    for (unsigned i = 0; i < 4; i++)
        if (is_displaced(g[i]) && g[i]->write)
            store_displaced(e, g[i], host[i]);
    give_back(c, &loans);
}

// ---- memory form ----

static void emit_mem_op(struct tctx *c, struct tinsn *t, struct hmem m) {
    static const int scratch[] = {S1, NOREG};
    struct emit *e = &c->e;
    struct tgpr *g[] = {&t->r_reg, &t->r_vvvv};
    struct loans loans = {0};
    int host[2], low = NOREG;
    bool one = is_displaced(g[0]) != is_displaced(g[1]);
    // An access through a site may fault on the host (SITE_INVALID). The handler takes the registers as they are, so it
    // must not come while some are exchanged or lent: a load before finds out.
    if (c->any_site && ((t->r_reg.num != NOREG && t->r_reg.high) || (is_displaced(g[0]) && is_displaced(g[1])))) {
        m = hmem_free_s1(c, m);
        op_hmem(c, false, 0x8a, S1, m);
    }
    for (unsigned i = 0; i < 2; i++) // a lone result may go to S1 while the address is still in it
        if (is_displaced(g[i]) && (must_load(g[i]) || !one))
            m = hmem_free_s1(c, m);
    for (unsigned i = 0; i < 2; i++) {
        host[i] = NOREG;
        if (is_displaced(g[i]))
            host[i] = lend(c, t, &loans, g[i]->num, scratch, must_load(g[i]));
        else if (g[i]->num != NOREG)
            host[i] = host_reg(g[i]->num);
    }
    if (t->r_reg.num != NOREG && t->r_reg.high)
        host[0] = low = t->r_reg.num;
    struct operands o = {.mem = true,
                         .reg = host[0] != NOREG ? host[0] : t->enc.reg,
                         .vvvv = host[1] != NOREG ? host[1] : t->enc.vvvv,
                         .m = m};
    flags_for_insn(c, t, false);
    if (low != NOREG)
        swap_halves(e, low);
    put_insn(e, &t->enc, &o);
    if (low != NOREG)
        swap_halves(e, low);
    for (unsigned i = 0; i < 2; i++)
        if (is_displaced(g[i]) && g[i]->write)
            store_displaced(e, g[i], host[i]);
    give_back(c, &loans);
}

static void emit_memory(struct tctx *c, struct tinsn *t) {
    emit_mem_op(c, t, emit_operand_access(c, t));
}

// mov al/ax/eax/rax, [offset] and back: opcodes A0..A3 become 8A, 8B, 88, 89 with RAX.
static void emit_moffs(struct tctx *c, struct tinsn *t) {
    static const uint8_t opcode[] = {0x8a, 0x8b, 0x88, 0x89};
    struct hmem m = emit_operand_access(c, t);
    struct tenc n = t->enc;
    n.opcode = opcode[n.opcode & 3];
    n.has_modrm = true;
    n.ntail = 0;
    put_insn(&c->e, &n, &(struct operands){.mem = true, .reg = X86_RAX, .m = m});
}

// Bit string instructions address memory by the bit offset in the register (SDM vol. 2A, BT).
static void emit_bt(struct tctx *c, struct tinsn *t) {
    struct emit *e = &c->e;
    bool w = t->op_bits == 64;
    unsigned shift = w ? 6 : 5;
    flags_before_check(c);
    emit_ea(c, t);
    int h = host_reg(t->r_reg.num);
    // S1 = sign-extended bit offset >> shift
    if (h != NOREG)
        w ? mov_rr(e, true, S1, h) : op_rr(e, true, 0x63, S1, h);
    else
        op_gs(e, true, w ? 0x8b : 0x63, S1, XGPR(t->r_reg.num));
    rex(e, true, 0, 0, S1, false), put8(e, 0xc1), put8(e, 0xf8 | (S1 & 7)), put8(e, shift); // sar
    lea(e, !t->mem_a32, S0, S0, S1, w ? 3 : 2, 0);
    emit_check(c, w ? 8 : 4, t->mem_write, PLACE_ANY);
    lea(e, true, S0, S1, S0, 0, 0);
    emit_read_gpr(c, S1, t->r_reg.num, w);
    alu_imm(e, false, 4, S1, w ? 63 : 31);
    flags_for_insn(c, t, false);
    put_insn(e, &t->enc, &(struct operands){.mem = true, .reg = S1, .m = {.base = S0, .index = NOREG}});
}

// ---- lea ----

static void emit_lea(struct tctx *c, struct tinsn *t) {
    struct emit *e = &c->e;
    struct tinsn flat = *t;
    int dst = host_reg(t->r_reg.num);
    bool direct = dst != NOREG && t->op_bits >= 32 && t->mem_base != NOREG && host_reg(t->mem_base) != NOREG &&
                  (t->mem_index == NOREG || host_reg(t->mem_index) != NOREG);
    if (direct) {
        int index = t->mem_index == NOREG ? NOREG : host_reg(t->mem_index);
        bool w = t->op_bits == 64 && !t->mem_a32;
        lea(e, w, dst, host_reg(t->mem_base), index, t->mem_scale, (int32_t)t->mem_disp);
        return;
    }
    flat.mem_seg = X86_DS; // no segment base
    emit_ea(c, &flat);
    if (t->op_bits == 16) {
        if (dst != NOREG)
            put8(e, 0x66), mov_rr(e, false, dst, S0);
        else
            put8(e, 0x66), op_gs(e, false, 0x89, S0, XGPR(t->r_reg.num));
        return;
    }
    if (t->op_bits == 32)
        mov_rr(e, false, S0, S0);
    if (dst != NOREG)
        mov_rr(e, true, dst, S0);
    else
        mov_store_gs(e, XGPR(t->r_reg.num), S0);
}

// mov r, sreg: 32- and 64-bit destinations get the selector zero-extended.
static void emit_from_seg(struct tctx *c, const struct tinsn *t) {
    struct emit *e = &c->e;
    s0_clobbered(c);
    int h = host_reg(t->r_rm.num);
    put8(e, 0x65), rex(e, false, S0, 0, 0, false); // movzx S0d, word gs:[selector]
    put8(e, 0x0f), put8(e, 0xb7), put8(e, 0x04 | (S0 & 7) << 3), put8(e, 0x25);
    put32(e, XOFF(s.seg[0].sel) + t->mem_seg * (uint32_t)sizeof(struct x86_segment));
    if (t->r_rm.bits == 16)
        put8(e, 0x66);
    if (h != NOREG)
        op_rr(e, false, 0x89, S0, h);
    else
        op_gs(e, t->r_rm.bits != 16, 0x89, S0, XGPR(t->r_rm.num));
}

void emit_insn(struct tctx *c, struct tinsn *t) {
    switch (t->cls) {
    case T_NOP: break;
    case T_COPY: emit_copy(c, t); break;
    case T_MEM: emit_memory(c, t); break;
    case T_LEA: emit_lea(c, t); break;
    case T_MOFFS: emit_moffs(c, t); break;
    case T_BT_MEM: emit_bt(c, t); break;
    case T_FROM_SEG: emit_from_seg(c, t); break;
    default: emit_flow(c, t); break;
    }
}
