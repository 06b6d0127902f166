// SPDX-License-Identifier: Apache-2.0
// FNSAVE, FRSTOR, FNSTENV, FLDENV: the x87 environment in its four layouts (SDM vol. 1 8.1.10, figures 8-9 to 8-12).
// Waiting forms come as FWAIT and the instruction.
#include "engine/xlate/fp_area.h"

#define FSW_ES   0x80u
#define FSW_BUSY 0x8000u

struct x87_env {
    uint16_t cw, sw, tag; // tag: full, two bits a register
    uint16_t fop;
    uint64_t ip, dp;
};

static unsigned top_of(uint16_t sw) {
    return sw >> 11 & 7;
}
static uint8_t *st_reg(struct xcpu *x, unsigned i) {
    return x->s.xsave + XS_ST + 16 * i;
}

// Tag of the value in an 80-bit register: valid 0, zero 1, special 2.
static unsigned value_tag(const uint8_t *st) {
    uint16_t exp = *(const uint16_t *)(st + 8) & 0x7fff;
    uint64_t man = *(const uint64_t *)st;

    if (exp == 0x7fff || (exp && !(man >> 63)))
        return 2;
    if (!exp)
        return man ? 2 : 1;
    return 0;
}

// FXSAVE keeps one bit a physical register (1: not empty); the values are in stack order.
static uint16_t full_tag(struct xcpu *x) {
    unsigned top = top_of(fp_get16(x, XS_FSW)), valid = x->s.xsave[XS_FTW], tag = 0;

    for (unsigned r = 0; r < 8; r++)
        tag |= (valid >> r & 1 ? value_tag(st_reg(x, (r - top) & 7)) : 3u) << (2 * r);
    return (uint16_t)tag;
}

static uint8_t abridged_tag(uint16_t tag) {
    unsigned valid = 0;

    for (unsigned r = 0; r < 8; r++)
        valid |= (tag >> (2 * r) & 3) != 3 ? 1u << r : 0;
    return (uint8_t)valid;
}

static struct x87_env env_get(struct xcpu *x) {
    return (struct x87_env){.cw = fp_get16(x, XS_FCW),
                            .sw = fp_get16(x, XS_FSW),
                            .tag = full_tag(x),
                            .fop = fp_get16(x, XS_FOP) & 0x7ff,
                            .ip = *(const uint64_t *)(x->s.xsave + XS_FIP),
                            .dp = *(const uint64_t *)(x->s.xsave + XS_FDP)};
}

static void env_set(struct xcpu *x, const struct x87_env *e) {
    uint16_t sw = e->sw & (uint16_t) ~(FSW_ES | FSW_BUSY);

    if (sw & ~e->cw & 0x3f)
        sw |= FSW_ES | FSW_BUSY;
    fp_set16(x, XS_FCW, (e->cw & 0x1f3f) | 0x40);
    fp_set16(x, XS_FSW, sw);
    x->s.xsave[XS_FTW] = abridged_tag(e->tag);
    x->s.xsave[XS_FTW + 1] = 0;
    fp_set16(x, XS_FOP, e->fop & 0x7ff);
    *(uint64_t *)(x->s.xsave + XS_FIP) = e->ip;
    *(uint64_t *)(x->s.xsave + XS_FDP) = e->dp;
    fp_touched(x, XCR0_X87);
}

// ---- layouts ----

static bool env_real(const struct xcpu *x) {
    return !cpu_protected(x) || cpu_vm86(x);
}
static bool env_is16(const struct insn *in) {
    return in->z.operand_width == 16;
}
static unsigned env_size(const struct insn *in) {
    return env_is16(in) ? 14 : 28;
}

static void env_pack16(const struct xcpu *x, const struct x87_env *e, uint16_t w[7]) {
    w[0] = e->cw, w[1] = e->sw, w[2] = e->tag;
    w[3] = (uint16_t)e->ip;
    w[4] = 0; // FCS, which newer processors do not keep
    w[5] = (uint16_t)e->dp;
    w[6] = 0;
    if (env_real(x)) {
        w[4] = (uint16_t)((e->ip >> 16 & 15) << 12 | e->fop);
        w[6] = (uint16_t)((e->dp >> 16 & 15) << 12);
    }
}

static void env_unpack16(const struct xcpu *x, struct x87_env *e, const uint16_t w[7]) {
    *e = (struct x87_env){.cw = w[0], .sw = w[1], .tag = w[2], .ip = w[3], .dp = w[5]};
    if (env_real(x)) {
        e->ip |= (uint64_t)(w[4] >> 12) << 16;
        e->fop = w[4] & 0x7ff;
        e->dp |= (uint64_t)(w[6] >> 12) << 16;
    }
}

static void env_pack32(const struct xcpu *x, const struct x87_env *e, uint32_t d[7]) {
    d[0] = 0xffff0000 | e->cw, d[1] = 0xffff0000 | e->sw, d[2] = 0xffff0000 | e->tag;
    if (env_real(x)) {
        d[3] = 0xffff0000 | (e->ip & 0xffff);
        d[4] = (uint32_t)(e->ip >> 16 & 0xffff) << 12 | e->fop;
        d[5] = 0xffff0000 | (e->dp & 0xffff);
        d[6] = (uint32_t)(e->dp >> 16 & 0xffff) << 12;
        return;
    }
    d[3] = (uint32_t)e->ip;
    d[4] = (uint32_t)e->fop << 16;
    d[5] = (uint32_t)e->dp;
    d[6] = 0xffff0000;
}

static void env_unpack32(const struct xcpu *x, struct x87_env *e, const uint32_t d[7]) {
    *e = (struct x87_env){.cw = (uint16_t)d[0], .sw = (uint16_t)d[1], .tag = (uint16_t)d[2]};
    if (env_real(x)) {
        e->ip = (d[3] & 0xffff) | (uint64_t)(d[4] >> 12 & 0xffff) << 16;
        e->fop = d[4] & 0x7ff;
        e->dp = (d[5] & 0xffff) | (uint64_t)(d[6] >> 12 & 0xffff) << 16;
        return;
    }
    e->ip = d[3];
    e->fop = d[4] >> 16 & 0x7ff;
    e->dp = d[5];
}

union env_image {
    uint16_t w[7];
    uint32_t d[7];
};

static void env_pack(const struct xcpu *x, const struct insn *in, const struct x87_env *e, union env_image *m) {
    if (env_is16(in))
        env_pack16(x, e, m->w);
    else
        env_pack32(x, e, m->d);
}

static void env_unpack(const struct xcpu *x, const struct insn *in, struct x87_env *e, const union env_image *m) {
    if (env_is16(in))
        env_unpack16(x, e, m->w);
    else
        env_unpack32(x, e, m->d);
}

// ---- instructions ----

// A pending unmasked exception stops the loading forms, which are waiting instructions (SDM vol. 1 8.6).
static enum xres wait_for_x87(struct xcpu *x) {
    return fp_get16(x, XS_FSW) & FSW_ES ? fault_raise(x, X86_MF) : X_OK;
}

static enum xres emul_fnstenv(struct xcpu *x, struct insn *in) {
    union env_image m;
    struct fp_area a;

    TRY(fp_check(x, FP_X87));
    TRY(area_open(x, in, &a, env_size(in), 1, true));
    fp_to_memory(x);
    struct x87_env e = env_get(x);
    env_pack(x, in, &e, &m);
    TRY(area_write(x, &a, 0, &m, env_size(in)));
    e.cw |= 0x3f; // all exceptions masked afterwards
    env_set(x, &e);
    return X_OK;
}

// The registers keep their physical places while TOP changes: rotates the stack-ordered image.
static void env_replace(struct xcpu *x, const struct x87_env *e) {
    unsigned from = top_of(fp_get16(x, XS_FSW)), to = top_of(e->sw);
    uint8_t old[128];

    copy_bytes(old, x->s.xsave + XS_ST, 128);
    for (unsigned r = 0; r < 8; r++)
        copy_bytes(st_reg(x, (r - to) & 7), old + 16 * ((r - from) & 7), 16);
    env_set(x, e);
}

static enum xres emul_fldenv(struct xcpu *x, struct insn *in) {
    union env_image m;
    struct x87_env e;
    struct fp_area a;

    TRY(fp_check(x, FP_X87));
    fp_to_memory(x);
    TRY(wait_for_x87(x));
    TRY(area_open(x, in, &a, env_size(in), 1, false));
    TRY(area_read(x, &a, 0, &m, env_size(in)));
    env_unpack(x, in, &e, &m);
    env_replace(x, &e);
    return X_OK;
}

static enum xres emul_fnsave(struct xcpu *x, struct insn *in) {
    unsigned head = env_size(in);
    union env_image m;
    struct fp_area a;

    TRY(fp_check(x, FP_X87));
    TRY(area_open(x, in, &a, head + 80, 1, true));
    fp_to_memory(x);
    struct x87_env e = env_get(x);
    env_pack(x, in, &e, &m);
    TRY(area_write(x, &a, 0, &m, head));
    for (unsigned i = 0; i < 8; i++)
        TRY(area_write(x, &a, head + 10 * i, st_reg(x, i), 10));
    // As FNINIT: the registers' contents stay, all tagged empty.
    env_replace(x, &(struct x87_env){.cw = FCW_INIT, .tag = 0xffff});
    return X_OK;
}

static enum xres emul_frstor(struct xcpu *x, struct insn *in) {
    unsigned head = env_size(in);
    union env_image m;
    struct x87_env e;
    struct fp_area a;
    uint8_t regs[80];

    TRY(fp_check(x, FP_X87));
    fp_to_memory(x);
    TRY(wait_for_x87(x));
    TRY(area_open(x, in, &a, head + 80, 1, false));
    TRY(area_read(x, &a, 0, &m, head));
    TRY(area_read(x, &a, head, regs, sizeof(regs)));
    env_unpack(x, in, &e, &m);
    for (unsigned i = 0; i < 8; i++)
        copy_bytes(st_reg(x, i), regs + 10 * i, 10);
    env_set(x, &e);
    return X_OK;
}

EMUL_TABLE(emul_x87env_entries, E(FNSTENV, emul_fnstenv), E(FLDENV, emul_fldenv), E(FNSAVE, emul_fnsave),
           E(FRSTOR, emul_frstor));
