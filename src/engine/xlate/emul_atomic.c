// SPDX-License-Identifier: Apache-2.0
// Exchange instructions (SDM vol. 2: XCHG, XADD, CMPXCHG, CMPXCHG8B/16B).
#include "engine/xlate/emul_int.h"

ALU_BINARY(atomic_add, "add")
ALU_BINARY(atomic_cmp, "cmp")

static uint64_t atomic_swap(uint64_t dst, uint64_t src, unsigned size, uint64_t *rflags) {
    return src;
}

// With memory it is locked, with or without the prefix.
static enum xres emul_xchg(struct xcpu *x, struct insn *in) {
    unsigned mem = op_is_mem(in, 1) ? 1 : 0, reg = 1 - mem;
    uint64_t a, b;

    TRY(op_read(x, in, reg, &a));
    if (!op_is_mem(in, mem)) {
        TRY(op_read(x, in, mem, &b));
        TRY(op_write(x, in, mem, a));
        return op_write(x, in, reg, b);
    }
    const ZydisDecodedOperand *op = &in->op[mem];
    TRY(mem_modify(x, insn_seg(op), insn_ea(x, in, op), op_bytes(in, mem), true, atomic_swap, a, &b));
    return op_write(x, in, reg, b);
}

static enum xres emul_xadd(struct xcpu *x, struct insn *in) {
    uint64_t a, src;

    TRY(op_read(x, in, 1, &src));
    if (op_is_mem(in, 0)) {
        TRY(op_modify(x, in, 0, atomic_add, src, &a));
        return op_write(x, in, 1, a);
    }
    TRY(op_read(x, in, 0, &a));
    TRY(op_write(x, in, 1, a)); // before the destination: they may be the same register
    return op_write(x, in, 0, atomic_add(a, src, op_bytes(in, 0), &x->s.rflags));
}

struct cmpxchg {
    uint64_t expect, desired;
};
// src: address of a struct cmpxchg.
static uint64_t atomic_cmpxchg(uint64_t dst, uint64_t src, unsigned size, uint64_t *rflags) {
    const struct cmpxchg *c = (const void *)src;

    atomic_cmp(c->expect, dst, size, rflags);
    return *rflags & RFLAGS_ZF ? c->desired : dst;
}

static enum xres emul_cmpxchg(struct xcpu *x, struct insn *in) {
    unsigned size = op_bytes(in, 0);
    struct cmpxchg c = {.expect = gpr_read(x, X86_RAX, size)};
    uint64_t old;

    TRY(op_read(x, in, 1, &c.desired));
    if (op_is_mem(in, 0)) {
        TRY(op_modify(x, in, 0, atomic_cmpxchg, (uint64_t)&c, &old));
    } else {
        TRY(op_read(x, in, 0, &old));
        atomic_cmp(c.expect, old, size, &x->s.rflags);
        if (x->s.rflags & RFLAGS_ZF) // else it is not written at all: 32 bits would be zero-extended
            return op_write(x, in, 0, c.desired);
    }
    if (!(x->s.rflags & RFLAGS_ZF))
        gpr_write(x, X86_RAX, size, old);
    return X_OK;
}

struct pair {
    uint64_t lo, hi;
};

static bool host_cas_pair(void *host, unsigned size, struct pair *old, struct pair val) {
    bool ok;

    if (size == 4) {
        uint64_t was = old->hi << 32 | old->lo, now = val.hi << 32 | val.lo;

        ok = __atomic_compare_exchange_n((uint64_t *)host, &was, now, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
        *old = (struct pair){was & 0xffffffff, was >> 32};
        return ok;
    }
    __asm__ volatile("lock cmpxchg16b %[m]\n\tsete %[ok]"
                     : [m] "+m"(*(unsigned __int128 *)host), "+a"(old->lo), "+d"(old->hi), [ok] "=q"(ok)
                     : "b"(val.lo), "c"(val.hi)
                     : "cc", "memory");
    return ok;
}

// Without a host address: under the emulator's lock.
static enum xres slow_cas_pair(struct xcpu *x, uint64_t lin, unsigned size, struct pair *old, struct pair val,
                               bool *ok) {
    struct pair was = {0, 0};
    uint8_t buf[16];
    enum xres r = mmu_read(x, lin, buf, 2 * size, MMU_RMW);

    if (r != X_OK)
        return r;
    for (unsigned i = size; i-- > 0;) {
        was.lo = was.lo << 8 | buf[i];
        was.hi = was.hi << 8 | buf[size + i];
    }
    *ok = was.lo == old->lo && was.hi == old->hi;
    *old = was;
    if (!*ok)
        val = was;
    for (unsigned i = 0; i < size; i++) {
        buf[i] = (uint8_t)(val.lo >> (8 * i));
        buf[size + i] = (uint8_t)(val.hi >> (8 * i));
    }
    return mmu_write(x, lin, buf, 2 * size, MMU_WRITE);
}

static enum xres cas_pair(struct xcpu *x, uint64_t lin, unsigned size, struct pair *old, struct pair val, bool *ok) {
    void *host = NULL;
    enum xres r;

    smc_writer_enter(x);
    r = mmu_rmw_host(x, lin, 2 * size, &host);
    if (r == X_OK && host)
        *ok = host_cas_pair(host, size, old, val);
    smc_writer_leave(x);
    if (r != X_OK || host)
        return r;
    emul_lock(x);
    r = slow_cas_pair(x, lin, size, old, val, ok);
    emul_unlock(x);
    return r;
}

static enum xres emul_cmpxchg_pair(struct xcpu *x, struct insn *in) {
    unsigned size = op_bytes(in, 0) / 2;
    struct pair old = {gpr_read(x, X86_RAX, size), gpr_read(x, X86_RDX, size)};
    struct pair val = {gpr_read(x, X86_RBX, size), gpr_read(x, X86_RCX, size)};
    uint64_t lin, ea = insn_ea(x, in, &in->op[0]);
    bool ok = false;

    if (size == 8 && ((x->s.seg[insn_seg(&in->op[0])].base + ea) & 15))
        return gp0(x); // before #SS and #PF
    TRY(seg_access(x, insn_seg(&in->op[0]), ea, 2 * size, MMU_RMW, &lin));
    TRY(cas_pair(x, lin, size, &old, val, &ok));
    x->s.rflags = (x->s.rflags & ~RFLAGS_ZF) | (ok ? RFLAGS_ZF : 0);
    if (!ok) {
        gpr_write(x, X86_RAX, size, old.lo);
        gpr_write(x, X86_RDX, size, old.hi);
    }
    return X_OK;
}

EMUL_TABLE(emul_atomic_entries, E(XCHG, emul_xchg), E(XADD, emul_xadd), E(CMPXCHG, emul_cmpxchg),
           E(CMPXCHG8B, emul_cmpxchg_pair), E(CMPXCHG16B, emul_cmpxchg_pair));
