// SPDX-License-Identifier: Apache-2.0
// FXSAVE and FXRSTOR (SDM vol. 2A), VZEROALL and VZEROUPPER outside 64-bit mode, and access to save areas.
#include "engine/xlate/fp_area.h"

#include "engine/xlate/debugger.h"

#define AREA_PIECE 64u

enum xres area_read(struct xcpu *x, const struct fp_area *a, unsigned off, void *buf, unsigned len) {
    if (a->host) {
        copy_bytes(buf, a->host + off, len);
        return X_OK;
    }
    for (unsigned done = 0; done < len;) {
        unsigned n = len - done < AREA_PIECE ? len - done : AREA_PIECE;

        TRY(seg_read(x, a->seg, (a->ea + off + done) & addr_mask(a->addr_bits), (uint8_t *)buf + done, n, MMU_READ));
        done += n;
    }
    return X_OK;
}

enum xres area_write(struct xcpu *x, const struct fp_area *a, unsigned off, const void *buf, unsigned len) {
    for (unsigned done = 0; done < len;) {
        unsigned n = len - done < AREA_PIECE ? len - done : AREA_PIECE;

        TRY(seg_write(x, a->seg, (a->ea + off + done) & addr_mask(a->addr_bits), (const uint8_t *)buf + done, n,
                      MMU_WRITE));
        done += n;
    }
    return X_OK;
}

static enum xres open_pieces(struct xcpu *x, struct fp_area *a, unsigned bytes, unsigned align, unsigned flags) {
    uint64_t lin;

    for (unsigned done = 0; done < bytes; done += AREA_PIECE) {
        unsigned n = bytes - done < AREA_PIECE ? bytes - done : AREA_PIECE;

        TRY(seg_linear(x, a->seg, (a->ea + done) & addr_mask(a->addr_bits), n, flags, &lin));
        if (!done && (lin & (align - 1)))
            return gp0(x);
        if (!done)
            a->lin = lin;
        TRY(mmu_probe(x, lin, n, flags));
    }
    return X_OK;
}

// 64-bit code, one page: the usual case, with one look at the TLB.
static enum xres open_page(struct xcpu *x, struct fp_area *a, unsigned bytes, unsigned align, unsigned flags) {
    TRY(seg_linear(x, a->seg, a->ea, bytes, flags, &a->lin));
    if (a->lin & (align - 1))
        return gp0(x);
    TRY(mmu_probe(x, a->lin, bytes, flags));
    if (!(flags & MMU_WRITE) && !debugger_watches(x->engine, a->lin))
        a->host = mmu_page_ptr(x, a->lin, flags);
    return X_OK;
}

enum xres area_open(struct xcpu *x, struct insn *in, struct fp_area *a, unsigned bytes, unsigned align, bool write) {
    unsigned flags = write ? MMU_WRITE : MMU_READ;

    a->seg = insn_seg(&in->op[0]);
    a->ea = insn_ea(x, in, &in->op[0]);
    a->addr_bits = in->z.address_width;
    a->host = NULL;
    bool flat = cpu_64bit(x) && a->addr_bits == 64 && a->seg != X86_FS && a->seg != X86_GS;
    if (flat && (a->ea & ~PAGE_MASK) + bytes <= PAGE_SIZE)
        return open_page(x, a, bytes, align, flags);
    return open_pieces(x, a, bytes, align, flags);
}

void x87_head_out(const struct xcpu *x, bool wide, uint8_t head[24]) {
    copy_bytes(head, x->s.xsave, 24);
    if (!wide)
        for (unsigned i = 12; i < 24; i++)
            if (i < 16 || i >= 20)
                head[i] = 0;
}

void x87_head_in(struct xcpu *x, bool wide, const uint8_t head[24]) {
    copy_bytes(x->s.xsave, head, 24);
    if (!wide) {
        fp_set32(x, XS_FIP + 4, 0);
        fp_set32(x, XS_FDP + 4, 0);
    }
}

// ---- FXSAVE, FXRSTOR: x87 and SSE without a header ----

static enum xres emul_fxsave(struct xcpu *x, struct insn *in) {
    unsigned used = XS_XMM + 16 * vector_regs(x);
    uint8_t image[XS_XMM + 256];
    struct fp_area a;

    TRY(fp_check(x, FP_X87));
    TRY(area_open(x, in, &a, 512, 16, true));
    fp_to_memory(x);
    copy_bytes(image, x->s.xsave, used);
    x87_head_out(x, insn_rex_w(in), image);
    *(uint32_t *)(image + XS_MXCSR_MASK) = fp_mxcsr_mask();
    return area_write(x, &a, 0, image, used);
}

static enum xres emul_fxrstor(struct xcpu *x, struct insn *in) {
    unsigned used = XS_XMM + 16 * vector_regs(x);
    uint8_t image[XS_XMM + 256];
    struct fp_area a;

    TRY(fp_check(x, FP_X87));
    TRY(area_open(x, in, &a, 512, 16, false));
    TRY(area_read(x, &a, 0, image, used));
    if (*(uint32_t *)(image + XS_MXCSR) & ~fp_mxcsr_mask())
        return gp0(x);
    fp_to_memory(x);
    x87_head_in(x, insn_rex_w(in), image);
    fp_set32(x, XS_MXCSR, *(uint32_t *)(image + XS_MXCSR));
    copy_bytes(x->s.xsave + XS_ST, image + XS_ST, used - XS_ST);
    fp_touched(x, XCR0_X87 | XCR0_SSE);
    return X_OK;
}

// ---- VZEROALL, VZEROUPPER ----

// The host would clear 16 registers, but only 8 exist outside 64-bit mode.
static enum xres emul_vzero(struct xcpu *x, struct insn *in) {
    if (cpu_64bit(x))
        return emul_native(x, in);
    TRY(fp_check(x, FP_AVX));
    fp_to_memory(x);
    for (unsigned i = 0; i < 8 * 16; i++) {
        x->s.xsave[XS_YMMH + i] = 0;
        if (in->z.mnemonic == ZYDIS_MNEMONIC_VZEROALL)
            x->s.xsave[XS_XMM + i] = 0;
    }
    fp_touched(x, XCR0_SSE | XCR0_AVX);
    return X_OK;
}

EMUL_TABLE(emul_fpstate_entries, E(FXSAVE, emul_fxsave), E(FXSAVE64, emul_fxsave), E(FXRSTOR, emul_fxrstor),
           E(FXRSTOR64, emul_fxrstor), E(VZEROALL, emul_vzero), E(VZEROUPPER, emul_vzero));
