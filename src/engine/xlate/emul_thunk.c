// SPDX-License-Identifier: Apache-2.0
// Generation of thunks: load the registers the instruction uses from the frame, run it with its memory operand
// replaced by the frame's bounce buffer, store the registers back.
//
// The instruction is encoded anew for 64-bit mode: address-size and segment prefixes go, VEX takes its long form,
// fields that 16 and 32-bit code ignores (VEX.W of integer forms, register numbers above 7) are cleared, and RSP as an
// operand becomes another register, because the host's stack pointer has to stay one (SDM vol. 2A ch. 2).
#include <stddef.h>

#include "engine/xlate/thunk.h"

struct emit {
    uint8_t *p;
};

static void put8(struct emit *e, unsigned v) {
    *e->p++ = (uint8_t)v;
}
static void put32(struct emit *e, uint32_t v) {
    for (unsigned i = 0; i < 4; i++)
        put8(e, v >> (8 * i));
}

static void emit_move(struct emit *e, unsigned opcode, unsigned reg, unsigned base, uint32_t disp) {
    put8(e, 0x48 | (reg >> 3) << 2);
    put8(e, opcode);
    put8(e, 0x80 | (reg & 7) << 3 | base);
    put32(e, disp);
}
static void emit_load(struct emit *e, unsigned reg, unsigned base, uint32_t disp) {
    emit_move(e, 0x8b, reg, base, disp);
}
static void emit_store(struct emit *e, unsigned reg, unsigned base, uint32_t disp) {
    emit_move(e, 0x89, reg, base, disp);
}

static uint32_t gpr_off(unsigned i) {
    return (uint32_t)(offsetof(struct thunk_frame, gpr) + 8 * i);
}

// ---- which registers ----

static bool is_gpr(const ZydisDecodedOperand *op, unsigned *n) {
    if (op->type != ZYDIS_OPERAND_TYPE_REGISTER)
        return false;
    switch (ZydisRegisterGetClass(op->reg.value)) {
    case ZYDIS_REGCLASS_GPR16:
    case ZYDIS_REGCLASS_GPR32:
    case ZYDIS_REGCLASS_GPR64: *n = gpr_index(op->reg.value); return true;
    case ZYDIS_REGCLASS_GPR8: *n = (unsigned)(op->reg.value - ZYDIS_REGISTER_AL) & 3; return true; // none in use
    default: return false;
    }
}

static void collect_regs(struct thunk *t, const struct insn *in) {
    unsigned n;

    for (unsigned i = 0; i < in->z.operand_count; i++) {
        if (!is_gpr(&in->op[i], &n))
            continue;
        t->regs |= (uint16_t)(1u << n);
        if (in->op[i].actions & ZYDIS_OPERAND_ACTION_MASK_WRITE)
            t->writes |= (uint16_t)(1u << n);
    }
}

// A register usable as [reg] without SIB or displacement and without REX, not in `busy`.
static unsigned free_reg(unsigned busy) {
    static const uint8_t pick[] = {7, 6, 3, 1, 2, 0};

    for (unsigned i = 0; i < sizeof(pick); i++)
        if (!(busy >> pick[i] & 1))
            return pick[i];
    return 7; // not reached: no instruction uses six registers
}

// ---- the instruction ----

struct recode {
    const struct insn *in;
    unsigned base;    // register that holds the frame's address
    unsigned rsp_sub; // register in place of RSP
    bool mem;         // ModRM addresses memory
    bool code64;
};

static bool operand_is_rsp(const struct insn *in, ZydisOperandEncoding enc) {
    unsigned n;

    for (unsigned i = 0; i < in->z.operand_count; i++)
        if (in->op[i].encoding == enc && is_gpr(&in->op[i], &n) && n == X86_RSP)
            return true;
    return false;
}

static unsigned new_modrm(const struct recode *r) {
    unsigned mod = r->in->z.raw.modrm.mod, reg = r->in->z.raw.modrm.reg, rm = r->in->z.raw.modrm.rm;

    if (operand_is_rsp(r->in, ZYDIS_OPERAND_ENCODING_MODRM_REG))
        reg = r->rsp_sub;
    if (r->mem)
        return reg << 3 | r->base;
    if (operand_is_rsp(r->in, ZYDIS_OPERAND_ENCODING_MODRM_RM))
        rm = r->rsp_sub;
    return mod << 6 | reg << 3 | rm;
}

// ModRM and immediates. raw.imm holds at most two; register specifiers in imm8[7:4] have bit 7 ignored in 32-bit code.
static void emit_tail(struct emit *e, const struct recode *r) {
    const struct insn *in = r->in;
    bool is4 = false;

    put8(e, new_modrm(r));
    for (unsigned i = 0; i < in->z.operand_count; i++)
        is4 |= in->op[i].encoding == ZYDIS_OPERAND_ENCODING_IS4;
    unsigned end = in->z.raw.modrm.offset + 1u;
    if (in->z.attributes & ZYDIS_ATTRIB_HAS_SIB)
        end++;
    end += in->z.raw.disp.size / 8u;
    for (unsigned i = end; i < in->z.length; i++) {
        uint8_t b = in->bytes[i];

        put8(e, is4 && !r->code64 && i == in->z.length - 1u ? b & 0x7f : b);
    }
}

static bool is_legacy_prefix(uint8_t b) {
    switch (b) {
    case 0x26:
    case 0x2e:
    case 0x36:
    case 0x3e:
    case 0x64:
    case 0x65:
    case 0x66:
    case 0x67:
    case 0xf0:
    case 0xf2:
    case 0xf3: return true;
    default: return false;
    }
}

static void emit_legacy(struct emit *e, const struct recode *r) {
    const struct insn *in = r->in;
    unsigned pos = 0, rex = 0, opcode_end;

    for (;; pos++) {
        uint8_t b = in->bytes[pos];

        if (is_legacy_prefix(b)) {
            if (b == 0x66 || b == 0xf2 || b == 0xf3)
                put8(e, b);
            rex = 0; // a REX that is not the last prefix is ignored
        } else if (r->code64 && (b & 0xf0) == 0x40) {
            rex = b;
        } else {
            break;
        }
    }
    if (rex)
        put8(e, r->mem ? rex & ~3u : rex);
    bool modrm = in->z.attributes & ZYDIS_ATTRIB_HAS_MODRM;
    opcode_end = modrm ? in->z.raw.modrm.offset : in->z.length;
    while (pos < opcode_end)
        put8(e, in->bytes[pos++]);
    if (modrm)
        emit_tail(e, r);
}

// 16 and 32-bit code ignores VEX.W in instructions on general registers.
static bool vex_w_ignored(const struct insn *in) {
    unsigned n;

    switch (in->z.mnemonic) {
    case ZYDIS_MNEMONIC_VCVTSI2SS:
    case ZYDIS_MNEMONIC_VCVTSI2SD:
    case ZYDIS_MNEMONIC_VPINSRD:
    case ZYDIS_MNEMONIC_VPINSRQ:
    case ZYDIS_MNEMONIC_VPEXTRD:
    case ZYDIS_MNEMONIC_VPEXTRQ:
    case ZYDIS_MNEMONIC_VMOVD: return true;
    default: break;
    }
    for (unsigned i = 0; i < in->z.operand_count; i++)
        if (is_gpr(&in->op[i], &n))
            return true;
    return false;
}

static void emit_vex(struct emit *e, const struct recode *r) {
    const struct insn *in = r->in;
    const uint8_t *v = in->bytes + in->z.raw.vex.offset;
    bool is_short = v[0] == 0xc5;
    unsigned b1 = is_short ? (v[1] & 0x80u) | 0x61u : v[1], b2 = is_short ? v[1] & 0x7fu : v[2];
    unsigned pos = in->z.raw.vex.offset + (is_short ? 2u : 3u);

    if (r->mem)
        b1 |= 0x60; // no X, no B
    if (!r->code64) {
        b1 |= 0xe0;
        b2 |= 0x40; // vvvv bit 3 (inverted)
        if (vex_w_ignored(in))
            b2 &= 0x7f;
    }
    if (operand_is_rsp(in, ZYDIS_OPERAND_ENCODING_NDSNDD))
        b2 = (b2 & ~0x78u) | (~r->rsp_sub & 15) << 3;
    put8(e, 0xc4);
    put8(e, b1);
    put8(e, b2);
    bool modrm = in->z.attributes & ZYDIS_ATTRIB_HAS_MODRM;
    unsigned opcode_end = modrm ? in->z.raw.modrm.offset : in->z.length;
    while (pos < opcode_end)
        put8(e, in->bytes[pos++]);
    if (modrm)
        emit_tail(e, r);
}

// ---- the frame around it ----

static const uint8_t callee_saved[] = {3, 5, 12, 13, 14, 15};

static void emit_push_pop(struct emit *e, bool push) {
    for (unsigned i = 0; i < sizeof(callee_saved); i++) {
        unsigned r = callee_saved[push ? i : sizeof(callee_saved) - 1 - i];

        if (r >= 8)
            put8(e, 0x41);
        put8(e, (push ? 0x50 : 0x58) | (r & 7));
    }
}

static bool uses_flags(const struct insn *in) {
    const ZydisAccessedFlags *f = in->z.cpu_flags;

    return f && (f->tested | f->modified | f->set_0 | f->set_1 | f->undefined);
}

bool thunk_generate(struct thunk *t, const struct insn *in, bool implicit_mem, uint8_t *code) {
    bool modrm = in->z.attributes & ZYDIS_ATTRIB_HAS_MODRM, flags = uses_flags(in);
    struct recode r = {.in = in, .mem = modrm && in->z.raw.modrm.mod != 3, .code64 = t->code64};
    struct emit e = {code};

    t->regs = t->writes = 0;
    collect_regs(t, in);
    if (implicit_mem)
        t->regs |= 1u << X86_RDI;
    unsigned busy = t->regs & ~(1u << X86_RSP);
    r.base = free_reg(busy);
    r.rsp_sub = free_reg(busy | 1u << r.base);
    t->host_mem = r.mem;

    emit_push_pop(&e, true);
    put8(&e, 0x48), put8(&e, 0x89), put8(&e, 0xc0 | 7 << 3 | r.base); // mov base, rdi
    if (flags) {
        put8(&e, 0xff), put8(&e, 0x40 | 6 << 3 | r.base), put8(&e, offsetof(struct thunk_frame, rflags)); // push
        put8(&e, 0x9d);                                                                                   // popfq
    }
    for (unsigned i = 0; i < 16; i++)
        if (t->regs >> i & 1)
            emit_load(&e, i == X86_RSP ? r.rsp_sub : i, r.base, gpr_off(i));
    if (in->z.encoding == ZYDIS_INSTRUCTION_ENCODING_LEGACY)
        emit_legacy(&e, &r);
    else if (in->z.encoding == ZYDIS_INSTRUCTION_ENCODING_VEX)
        emit_vex(&e, &r);
    else
        return false;
    if (flags) {
        put8(&e, 0x9c);                                                                          // pushfq
        put8(&e, 0x8f), put8(&e, 0x40 | r.base), put8(&e, offsetof(struct thunk_frame, rflags)); // pop
    }
    for (unsigned i = 0; i < 16; i++)
        if (t->writes >> i & 1)
            emit_store(&e, i == X86_RSP ? r.rsp_sub : i, r.base, gpr_off(i));
    t->exit_off = (uint16_t)(e.p - code);
    emit_push_pop(&e, false);
    put8(&e, 0xc3);
    return true;
}
