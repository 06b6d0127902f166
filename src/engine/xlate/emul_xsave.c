// SPDX-License-Identifier: Apache-2.0
// XSAVE, XSAVEOPT, XSAVEC, XRSTOR (SDM vol. 1 13.7 to 13.12). XSAVES and XRSTORS are not offered to guests.
//
// Components 0 (x87), 1 (SSE) and 2 (AVX) exist, so AVX lies at 576 in the compacted format too.
#include "engine/xlate/fp_area.h"
#include "engine/xlate/xsave_native.h"

#define XCOMP_COMPACT (1ull << 63)

struct xsave_op {
    struct fp_area area;
    uint64_t rfbm; // requested-feature bitmap
    unsigned bytes;
    bool wide; // REX.W
};

static enum xres xsave_begin(struct xcpu *x, struct insn *in, struct xsave_op *o, bool write) {
    uint64_t request = gpr_read(x, X86_RDX, 4) << 32 | gpr_read(x, X86_RAX, 4);

    if (!(x->s.cr4 & CR4_OSXSAVE))
        return ud(x);
    if (x->s.cr0 & CR0_TS)
        return fault_raise(x, X86_NM);
    o->rfbm = request & x->s.xcr0 & X86_XCR0_SUPPORTED;
    o->wide = insn_rex_w(in);
    o->bytes = o->rfbm & XCR0_AVX ? XS_YMMH + 16 * vector_regs(x) : XS_YMMH;
    return area_open(x, in, &o->area, o->bytes, 64, write);
}

// Writes the components in `set`.
static enum xres put_components(struct xcpu *x, const struct xsave_op *o, uint64_t set) {
    unsigned vectors = 16 * vector_regs(x);
    uint8_t head[24];

    if (set & XCR0_X87) {
        x87_head_out(x, o->wide, head);
        TRY(area_write(x, &o->area, 0, head, sizeof(head)));
        TRY(area_write(x, &o->area, XS_ST, x->s.xsave + XS_ST, 128));
    }
    if (set & XCR0_SSE)
        TRY(area_write(x, &o->area, XS_XMM, x->s.xsave + XS_XMM, vectors));
    if (set & XCR0_AVX)
        TRY(area_write(x, &o->area, XS_YMMH, x->s.xsave + XS_YMMH, vectors));
    return X_OK;
}

static enum xres put_mxcsr(struct xcpu *x, const struct xsave_op *o) {
    uint32_t v[2] = {fp_get32(x, XS_MXCSR), fp_mxcsr_mask()};

    return area_write(x, &o->area, XS_MXCSR, v, sizeof(v));
}

// XSAVE writes every requested component; XSAVEOPT leaves out those in their initial configuration.
static enum xres emul_xsave(struct xcpu *x, struct insn *in) {
    bool opt = in->z.mnemonic == ZYDIS_MNEMONIC_XSAVEOPT || in->z.mnemonic == ZYDIS_MNEMONIC_XSAVEOPT64;
    struct xsave_op o;
    uint64_t bv, in_use;

    TRY(xsave_begin(x, in, &o, true));
    if (xsave_native(x, opt ? XSAVE_OPT : XSAVE_PLAIN, o.rfbm, o.area.lin, o.bytes))
        return X_OK;
    TRY(area_read(x, &o.area, XS_HEADER, &bv, sizeof(bv)));
    fp_to_memory(x);
    in_use = *fp_xstate_bv(x);
    TRY(put_components(x, &o, opt ? o.rfbm & in_use : o.rfbm));
    if (o.rfbm & (XCR0_SSE | XCR0_AVX))
        TRY(put_mxcsr(x, &o));
    bv = (bv & ~o.rfbm) | (in_use & o.rfbm);
    return area_write(x, &o.area, XS_HEADER, &bv, sizeof(bv));
}

static enum xres emul_xsavec(struct xcpu *x, struct insn *in) {
    struct xsave_op o;
    uint64_t header[2];

    TRY(xsave_begin(x, in, &o, true));
    if (xsave_native(x, XSAVE_COMPACT, o.rfbm, o.area.lin, o.bytes))
        return X_OK;
    fp_to_memory(x);
    header[0] = *fp_xstate_bv(x) & o.rfbm;
    // MXCSR belongs to SSE here (13.10).
    if ((o.rfbm & XCR0_SSE) && fp_get32(x, XS_MXCSR) != MXCSR_INIT)
        header[0] |= XCR0_SSE;
    header[1] = o.rfbm | XCOMP_COMPACT;
    TRY(put_components(x, &o, header[0]));
    if (header[0] & XCR0_SSE)
        TRY(put_mxcsr(x, &o));
    return area_write(x, &o.area, XS_HEADER, header, sizeof(header));
}

// ---- XRSTOR ----

// 13.8.1: what makes a header bad.
static bool header_bad(const struct xcpu *x, const uint64_t h[8]) {
    uint64_t xcr0 = x->s.xcr0;

    if (!(h[1] & XCOMP_COMPACT))
        return (h[0] & ~xcr0) || h[1] || h[2];
    for (unsigned i = 2; i < 8; i++)
        if (h[i])
            return true;
    return (h[1] & ~XCOMP_COMPACT & ~xcr0) || (h[0] & ~h[1]);
}

static void take_components(struct xcpu *x, const struct xsave_op *o, const uint8_t *area, uint64_t bv) {
    unsigned vectors = 16 * vector_regs(x);

    if (bv & XCR0_X87) {
        x87_head_in(x, o->wide, area);
        copy_bytes(x->s.xsave + XS_ST, area + XS_ST, 128);
    }
    if (bv & XCR0_SSE)
        copy_bytes(x->s.xsave + XS_XMM, area + XS_XMM, vectors);
    if (bv & XCR0_AVX)
        copy_bytes(x->s.xsave + XS_YMMH, area + XS_YMMH, vectors);
    fp_touched(x, bv);
}

// Outside 64-bit mode the upper eight registers stay; so a vector component is then never wholly initial.
static void init_components(struct xcpu *x, uint64_t set) {
    for (uint64_t c = XCR0_X87; c <= XCR0_AVX; c <<= 1) {
        if (!(set & c))
            continue;
        if (c == XCR0_X87 || cpu_64bit(x)) {
            fp_init_component(x, c);
            continue;
        }
        for (unsigned i = 0; i < 8 * 16; i++)
            x->s.xsave[(c == XCR0_SSE ? XS_XMM : XS_YMMH) + i] = 0;
        fp_touched(x, c);
    }
}

// Only what may be restored is read.
static enum xres take_image(struct xcpu *x, const struct xsave_op *o, struct xsave_image *m) {
    TRY(area_read(x, &o->area, XS_HEADER, m->b + XS_HEADER, 64));
    TRY(area_read(x, &o->area, 0, m->b, XS_XMM + 16 * vector_regs(x)));
    if (o->rfbm & XCR0_AVX)
        TRY(area_read(x, &o->area, XS_YMMH, m->b + XS_YMMH, 16 * vector_regs(x)));
    return X_OK;
}

static enum xres emul_xrstor(struct xcpu *x, struct insn *in) {
    struct xsave_image m;
    struct xsave_op o;
    const uint64_t *h = (const uint64_t *)(m.b + XS_HEADER);

    TRY(xsave_begin(x, in, &o, false));
    TRY(take_image(x, &o, &m));
    if (header_bad(x, h))
        return gp0(x);

    bool compact = h[1] & XCOMP_COMPACT;
    uint32_t mxcsr = *(const uint32_t *)(m.b + XS_MXCSR);
    // Standard format: MXCSR comes with SSE or AVX whatever XSTATE_BV says; compacted: as a part of SSE.
    bool load_mxcsr = compact ? o.rfbm & h[0] & XCR0_SSE : o.rfbm & (XCR0_SSE | XCR0_AVX);
    if (load_mxcsr && (mxcsr & ~fp_mxcsr_mask()))
        return gp0(x);
    if (xrstor_native(x, o.rfbm, &m))
        return X_OK;
    fp_to_memory(x);
    take_components(x, &o, m.b, o.rfbm & h[0]);
    init_components(x, o.rfbm & ~h[0]);
    if (load_mxcsr)
        fp_set32(x, XS_MXCSR, mxcsr);
    else if (compact && (o.rfbm & XCR0_SSE))
        fp_set32(x, XS_MXCSR, MXCSR_INIT);
    return X_OK;
}

EMUL_TABLE(emul_xsave_entries, E(XSAVE, emul_xsave), E(XSAVE64, emul_xsave), E(XSAVEOPT, emul_xsave),
           E(XSAVEOPT64, emul_xsave), E(XSAVEC, emul_xsavec), E(XSAVEC64, emul_xsavec), E(XRSTOR, emul_xrstor),
           E(XRSTOR64, emul_xrstor));
