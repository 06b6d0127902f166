// SPDX-License-Identifier: Apache-2.0
// A save area in guest memory, accessed piece by piece. Private to the state instructions (emul_fpstate.c, ...).
#ifndef CICADA_XLATE_FP_AREA_H
#define CICADA_XLATE_FP_AREA_H

#include "engine/xlate/emul_int.h"

struct fp_area {
    enum x86_seg seg;
    uint64_t ea;
    unsigned addr_bits;
    uint64_t lin;        // of the first byte
    const uint8_t *host; // of the whole area, where it can be read there
};

// From explicit operand 0. Checks alignment (#GP(0), by linear address) and that all `bytes` can be accessed.
enum xres area_open(struct xcpu *x, struct insn *in, struct fp_area *a, unsigned bytes, unsigned align, bool write);
enum xres area_read(struct xcpu *x, const struct fp_area *a, unsigned off, void *buf, unsigned len);
enum xres area_write(struct xcpu *x, const struct fp_area *a, unsigned off, const void *buf, unsigned len);

// XMM registers that the mode has.
static inline unsigned vector_regs(const struct xcpu *x) {
    return cpu_64bit(x) ? 16 : 8;
}
static inline void copy_bytes(void *dst, const void *src, unsigned n) {
    __asm__ volatile("rep movsb" : "+D"(dst), "+S"(src), "+c"((uint64_t){n})::"memory");
}
static inline bool insn_rex_w(const struct insn *in) {
    return (in->z.attributes & ZYDIS_ATTRIB_HAS_REX) && in->z.raw.rex.W;
}
// The 24 bytes FCW .. FDP as FXSAVE and XSAVE write them: 64-bit pointers with REX.W, else 32 bits and a selector,
// which processors without FCS/FDS store as 0.
void x87_head_out(const struct xcpu *x, bool wide, uint8_t head[24]);
void x87_head_in(struct xcpu *x, bool wide, const uint8_t head[24]);

#endif
