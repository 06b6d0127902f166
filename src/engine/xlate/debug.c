// SPDX-License-Identifier: Apache-2.0
// Debug registers (SDM vol. 3B ch. 18.2, 18.3). Only called while DR7 enables something or TF is set.
#include "engine/xlate/debug.h"

enum { BP_EXEC, BP_WRITE, BP_IO, BP_ACCESS };

static inline unsigned bp_kind(uint64_t dr7, unsigned i) {
    return dr7 >> (16 + 4 * i) & 3;
}
static inline bool bp_enabled(uint64_t dr7, unsigned i) {
    return dr7 >> (2 * i) & 3;
}

// LEN: 00 one byte, 01 two, 10 eight, 11 four; the address is aligned to it (SDM vol. 3B 18.2.5).
static inline unsigned bp_len(uint64_t dr7, unsigned i) {
    static const uint8_t len[4] = {1, 2, 8, 4};

    return len[dr7 >> (18 + 4 * i) & 3];
}

enum xres debug_before(struct xcpu *x, uint64_t lin_rip) {
    uint64_t dr7 = x->s.dr7, hits = 0;

    // MOV SS suppresses instruction breakpoints on its successor, as RF does.
    if ((x->s.rflags & RFLAGS_RF) || (x->s.intr_shadow & 2) || !(dr7 & DR7_ENABLE_MASK))
        return X_OK;
    for (unsigned i = 0; i < 4; i++)
        if (bp_enabled(dr7, i) && bp_kind(dr7, i) == BP_EXEC && x->s.dr[i] == lin_rip)
            hits |= 1u << i;
    return hits ? fault_debug(x, hits) : X_OK;
}

void debug_step_now(struct xcpu *x) {
    x->s.debug_pending |= DEBUG_TRAP_PENDING;
    x->s.debug_pending_dr6 |= DR6_BS;
    request_exit_here(x);
}

void debug_after(struct xcpu *x, bool tf_was_set) {
    bool no_step = x->s.debug_pending & DEBUG_NO_STEP;

    x->s.debug_pending &= (uint8_t)~DEBUG_NO_STEP;
    // No single-step trap after MOV SS itself: the pair of instructions is stepped as one.
    if (tf_was_set && !no_step && !(x->s.intr_shadow & 2))
        debug_step_now(x);
    if (x->s.debug_pending & DEBUG_TRAP_PENDING)
        request_exit_here(x);
}

bool debug_data_active(const struct xcpu *x) {
    uint64_t dr7 = x->s.dr7;

    if (__builtin_expect(!(dr7 & DR7_ENABLE_MASK), 1))
        return false;
    for (unsigned i = 0; i < 4; i++)
        if (bp_enabled(dr7, i) && bp_kind(dr7, i) != BP_EXEC)
            return true;
    return false;
}

static void add_hits(struct xcpu *x, uint64_t hits) {
    if (!hits)
        return;
    x->s.debug_pending |= DEBUG_TRAP_PENDING;
    x->s.debug_pending_dr6 |= hits;
    request_exit_here(x);
}

static bool bp_overlaps(const struct xcpu *x, unsigned i, uint64_t addr, unsigned size) {
    unsigned len = bp_len(x->s.dr7, i);
    uint64_t start = x->s.dr[i] & ~(uint64_t)(len - 1);

    return addr - start < len || start - addr < size;
}

void debug_data_access(struct xcpu *x, uint64_t lin, unsigned size, bool write) {
    uint64_t dr7 = x->s.dr7, hits = 0;

    for (unsigned i = 0; i < 4; i++) {
        unsigned kind = bp_kind(dr7, i);

        if (bp_enabled(dr7, i) && (kind == BP_ACCESS || (kind == BP_WRITE && write)) && bp_overlaps(x, i, lin, size))
            hits |= 1u << i;
    }
    add_hits(x, hits);
}

void debug_io_access(struct xcpu *x, uint16_t port, unsigned size) {
    uint64_t dr7 = x->s.dr7, hits = 0;

    if (!(x->s.cr4 & CR4_DE))
        return;
    for (unsigned i = 0; i < 4; i++)
        if (bp_enabled(dr7, i) && bp_kind(dr7, i) == BP_IO && bp_overlaps(x, i, port, size))
            hits |= 1u << i;
    add_hits(x, hits);
}

// B0..B3 are replaced, the others stay until software clears them; GD is cleared so that the handler may look.
void debug_commit(struct xcpu *x, uint64_t dr6_bits) {
    if (dr6_bits)
        x->s.dr6 = (x->s.dr6 & ~15ull) | dr6_bits | DR6_FIXED;
    x->s.dr7 &= ~DR7_GD;
    x->s.debugctl &= ~1ull; // LBR
}
