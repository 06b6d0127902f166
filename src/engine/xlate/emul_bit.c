// SPDX-License-Identifier: Apache-2.0
// Bit test and bit scan (SDM vol. 2: BT, BTC, BTR, BTS, BSF, BSR, LZCNT, TZCNT, POPCNT), CRC32.
#include "engine/xlate/emul_int.h"

#define BIT_CASE(n, text)                                                                                              \
    case n:                                                                                                            \
        __asm__ volatile(FLAGS_IN text FLAGS_OUT : [d] "+r"(dst), "+a"(ax) : [s] "r"(src) : "cc");                     \
        break
#define BIT_FN(name, op)                                                                                               \
    static uint64_t name(uint64_t dst, uint64_t src, unsigned size, uint64_t *rflags) {                                \
        unsigned ax = flags_pack(*rflags);                                                                             \
        switch (size) {                                                                                                \
            BIT_CASE(2, op "w %w[s], %w[d]");                                                                          \
            BIT_CASE(4, op "l %k[s], %k[d]");                                                                          \
            BIT_CASE(8, op "q %q[s], %q[d]");                                                                          \
        }                                                                                                              \
        *rflags = flags_unpack(*rflags, ax);                                                                           \
        return dst;                                                                                                    \
    }
BIT_FN(bit_bt, "bt")
BIT_FN(bit_btc, "btc")
BIT_FN(bit_btr, "btr")
BIT_FN(bit_bts, "bts")
BIT_FN(bit_bsf, "bsf")
BIT_FN(bit_bsr, "bsr")
BIT_FN(bit_lzcnt, "lzcnt")
BIT_FN(bit_tzcnt, "tzcnt")
BIT_FN(bit_popcnt, "popcnt")

// A register bit offset is signed and reaches beyond the memory operand (SDM vol. 2A BT).
static enum xres bit_test(struct xcpu *x, struct insn *in, alu_fn f) {
    unsigned size = op_bytes(in, 0);
    uint64_t bit, val = 0, ea;

    TRY(op_read(x, in, 1, &bit));
    if (!op_is_mem(in, 0)) {
        if (f != bit_bt)
            return op_modify(x, in, 0, f, bit, NULL);
        f(reg_read(x, in->op[0].reg.value), bit, size, &x->s.rflags); // writes nothing, not even zeroes above 32 bits
        return X_OK;
    }
    ea = insn_ea(x, in, &in->op[0]);
    if (in->op[1].type == ZYDIS_OPERAND_TYPE_REGISTER) {
        int64_t offset = (int64_t)sign_extend(bit, size);

        ea += (uint64_t)((offset >> 3) & -(int64_t)size);
        ea &= addr_mask(in->z.address_width);
    }
    if (f != bit_bt)
        return mem_modify(x, insn_seg(&in->op[0]), ea, size, in->lock, f, bit, NULL);
    TRY(seg_read(x, insn_seg(&in->op[0]), ea, &val, size, MMU_READ));
    f(val, bit, size, &x->s.rflags);
    return X_OK;
}

// The whole destination register goes in and comes out, so that what a zero source leaves there is the host's doing.
static enum xres bit_scan(struct xcpu *x, struct insn *in, alu_fn f) {
    unsigned dst = gpr_index(in->op[0].reg.value);
    uint64_t src;

    TRY(op_read(x, in, 1, &src));
    x->s.gpr[dst] = f(x->s.gpr[dst], src, op_bytes(in, 0), &x->s.rflags);
    return X_OK;
}

#define BIT_TEST(name)                                                                                                 \
    static enum xres emul_##name(struct xcpu *x, struct insn *in) {                                                    \
        return bit_test(x, in, bit_##name);                                                                            \
    }
#define BIT_SCAN(name)                                                                                                 \
    static enum xres emul_##name(struct xcpu *x, struct insn *in) {                                                    \
        return bit_scan(x, in, bit_##name);                                                                            \
    }
BIT_TEST(bt)
BIT_TEST(btc)
BIT_TEST(btr)
BIT_TEST(bts)
BIT_SCAN(bsf)
BIT_SCAN(bsr)
BIT_SCAN(lzcnt)
BIT_SCAN(tzcnt)
BIT_SCAN(popcnt)

static enum xres emul_crc32(struct xcpu *x, struct insn *in) {
    uint64_t src, dst;

    TRY(op_read(x, in, 0, &dst));
    TRY(op_read(x, in, 1, &src));
    switch (op_bytes(in, 1)) {
    case 1: __asm__("crc32b %b1, %k0" : "+r"(dst) : "r"(src)); break;
    case 2: __asm__("crc32w %w1, %k0" : "+r"(dst) : "r"(src)); break;
    case 4: __asm__("crc32l %k1, %k0" : "+r"(dst) : "r"(src)); break;
    case 8: __asm__("crc32q %q1, %q0" : "+r"(dst) : "r"(src)); break;
    }
    return op_write(x, in, 0, dst);
}

EMUL_TABLE(emul_bit_entries, E(BT, emul_bt), E(BTC, emul_btc), E(BTR, emul_btr), E(BTS, emul_bts), E(BSF, emul_bsf),
           E(BSR, emul_bsr), E(LZCNT, emul_lzcnt), E(TZCNT, emul_tzcnt), E(POPCNT, emul_popcnt), E(CRC32, emul_crc32));
