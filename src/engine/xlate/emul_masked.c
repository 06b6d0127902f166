// SPDX-License-Identifier: Apache-2.0
// Vector accesses in which masked elements must not fault: VMASKMOVPS/PD, VPMASKMOVD/Q, gathers (SDM vol. 2), on the
// state in memory. MASKMOVQ and MASKMOVDQU are in emul_native.c.
#include "engine/xlate/fp_area.h"

union vec {
    uint8_t b[32];
    uint32_t d[8];
    uint64_t q[4];
};

static unsigned vec_index(ZydisRegister reg) {
    return (unsigned)(reg >= ZYDIS_REGISTER_YMM0 ? reg - ZYDIS_REGISTER_YMM0 : reg - ZYDIS_REGISTER_XMM0);
}

static union vec vec_read(struct xcpu *x, ZydisRegister reg) {
    unsigned i = vec_index(reg);
    union vec v;

    copy_bytes(v.b, x->s.xsave + XS_XMM + 16 * i, 16);
    copy_bytes(v.b + 16, x->s.xsave + XS_YMMH + 16 * i, 16);
    return v;
}

static void vec_write(struct xcpu *x, ZydisRegister reg, const union vec *v) {
    unsigned i = vec_index(reg);

    copy_bytes(x->s.xsave + XS_XMM + 16 * i, v->b, 16);
    copy_bytes(x->s.xsave + XS_YMMH + 16 * i, v->b + 16, 16);
    fp_touched(x, XCR0_SSE | XCR0_AVX);
}

static bool vec_selected(const union vec *mask, unsigned i, unsigned bytes) {
    return bytes == 4 ? mask->d[i] >> 31 : mask->q[i] >> 63;
}

// ---- VMASKMOV, VPMASKMOV ----

struct masked {
    enum x86_seg seg;
    uint64_t ea, addr_mask;
    unsigned bytes, count;
};

static struct masked masked_of(struct xcpu *x, struct insn *in, unsigned mem) {
    unsigned bytes = in->z.mnemonic == ZYDIS_MNEMONIC_VMASKMOVPD || in->z.mnemonic == ZYDIS_MNEMONIC_VPMASKMOVQ ? 8 : 4;

    return (struct masked){.seg = insn_seg(&in->op[mem]),
                           .ea = insn_ea(x, in, &in->op[mem]),
                           .addr_mask = addr_mask(in->z.address_width),
                           .bytes = bytes,
                           .count = op_bytes(in, mem) / bytes};
}

static enum xres masked_load(struct xcpu *x, struct insn *in) {
    struct masked m = masked_of(x, in, 2);
    union vec mask = vec_read(x, in->op[1].reg.value), v = {.q = {0, 0, 0, 0}};

    for (unsigned i = 0; i < m.count; i++)
        if (vec_selected(&mask, i, m.bytes))
            TRY(seg_read(x, m.seg, (m.ea + i * m.bytes) & m.addr_mask, v.b + i * m.bytes, m.bytes, MMU_READ));
    vec_write(x, in->op[0].reg.value, &v);
    return X_OK;
}

static enum xres masked_store(struct xcpu *x, struct insn *in) {
    struct masked m = masked_of(x, in, 0);
    union vec mask = vec_read(x, in->op[1].reg.value), v = vec_read(x, in->op[2].reg.value);
    uint64_t lin;

    for (unsigned i = 0; i < m.count; i++)
        if (vec_selected(&mask, i, m.bytes)) {
            TRY(seg_linear(x, m.seg, (m.ea + i * m.bytes) & m.addr_mask, m.bytes, MMU_WRITE, &lin));
            TRY(mmu_probe(x, lin, m.bytes, MMU_WRITE));
        }
    for (unsigned i = 0; i < m.count; i++)
        if (vec_selected(&mask, i, m.bytes))
            TRY(seg_write(x, m.seg, (m.ea + i * m.bytes) & m.addr_mask, v.b + i * m.bytes, m.bytes, MMU_WRITE));
    return X_OK;
}

static enum xres emul_maskmov(struct xcpu *x, struct insn *in) {
    TRY(fp_check(x, FP_AVX));
    fp_to_memory(x);
    return op_is_mem(in, 0) ? masked_store(x, in) : masked_load(x, in);
}

// ---- gathers ----

struct gather {
    unsigned idx_bytes, bytes, count;
};

static struct gather gather_of(const struct insn *in) {
    unsigned vl = in->z.raw.vex.L ? 32 : 16;
    struct gather g = {.idx_bytes = 4, .bytes = 4};

    switch (in->z.mnemonic) {
    case ZYDIS_MNEMONIC_VPGATHERQQ:
    case ZYDIS_MNEMONIC_VGATHERQPD: g.idx_bytes = g.bytes = 8; break;
    case ZYDIS_MNEMONIC_VPGATHERDQ:
    case ZYDIS_MNEMONIC_VGATHERDPD: g.bytes = 8; break;
    case ZYDIS_MNEMONIC_VPGATHERQD:
    case ZYDIS_MNEMONIC_VGATHERQPS: g.idx_bytes = 8; break;
    default: break;
    }
    g.count = vl / (g.idx_bytes > g.bytes ? g.idx_bytes : g.bytes);
    return g;
}

static uint64_t gather_address(struct xcpu *x, struct insn *in, const struct gather *g, const union vec *idx,
                               unsigned i) {
    const ZydisDecodedOperandMem *m = &in->op[1].mem;
    uint64_t index = g->idx_bytes == 4 ? (uint64_t)(int64_t)(int32_t)idx->d[i] : idx->q[i];
    uint64_t ea = index * m->scale + (uint64_t)m->disp.value;

    if (m->base != ZYDIS_REGISTER_NONE)
        ea += reg_read(x, m->base);
    return ea & addr_mask(in->z.address_width);
}

// Mask elements become all ones or zeros and what is beyond the vector length zero, before anything can fault. The
// sign of an element is in its last byte, so in place is fine.
static void gather_start(const struct gather *g, unsigned vl, union vec *v, union vec *mask) {
    for (unsigned i = 0; i < 32; i++)
        mask->b[i] = i < vl && vec_selected(mask, i / g->bytes, g->bytes) ? 0xff : 0;
    for (unsigned i = vl; i < 32; i++)
        v->b[i] = 0;
}

static void gather_finish(struct gather *g, union vec *v, union vec *mask) {
    for (unsigned i = g->count * g->bytes; i < 32; i++)
        v->b[i] = 0;
    *mask = (union vec){.q = {0, 0, 0, 0}};
}

// A fault leaves the elements gathered so far in place and their masks cleared (SDM vol. 2 VPGATHERDD).
static enum xres emul_gather(struct xcpu *x, struct insn *in) {
    ZydisRegister dst = in->op[0].reg.value, mreg = in->op[2].reg.value, ireg = in->op[1].mem.index;
    struct gather g = gather_of(in);
    enum xres r = X_OK;

    TRY(fp_check(x, FP_AVX));
    if (vec_index(dst) == vec_index(mreg) || vec_index(dst) == vec_index(ireg) || vec_index(mreg) == vec_index(ireg))
        return ud(x);
    fp_to_memory(x);
    union vec v = vec_read(x, dst), mask = vec_read(x, mreg), idx = vec_read(x, ireg);
    gather_start(&g, in->z.raw.vex.L ? 32 : 16, &v, &mask);
    for (unsigned i = 0; i < g.count && r == X_OK; i++) {
        if (!vec_selected(&mask, i, g.bytes))
            continue;
        r = seg_read(x, insn_seg(&in->op[1]), gather_address(x, in, &g, &idx, i), v.b + i * g.bytes, g.bytes, MMU_READ);
        for (unsigned j = 0; r == X_OK && j < g.bytes; j++)
            mask.b[i * g.bytes + j] = 0;
    }
    if (r == X_OK)
        gather_finish(&g, &v, &mask);
    vec_write(x, dst, &v);
    vec_write(x, mreg, &mask);
    return r;
}

EMUL_TABLE(emul_masked_entries, E(VMASKMOVPS, emul_maskmov), E(VMASKMOVPD, emul_maskmov), E(VPMASKMOVD, emul_maskmov),
           E(VPMASKMOVQ, emul_maskmov), E(MASKMOVQ, native_maskmov), E(MASKMOVDQU, native_maskmov),
           E(VMASKMOVDQU, native_maskmov), E(VPGATHERDD, emul_gather), E(VPGATHERQD, emul_gather),
           E(VPGATHERDQ, emul_gather), E(VPGATHERQQ, emul_gather), E(VGATHERDPS, emul_gather),
           E(VGATHERQPS, emul_gather), E(VGATHERDPD, emul_gather), E(VGATHERQPD, emul_gather));
