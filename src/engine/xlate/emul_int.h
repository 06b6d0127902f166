// SPDX-License-Identifier: Apache-2.0
// What the integer, string and native parts of the emulator share. Private to emul*.c and fp*.c.
//
// Undefined flags (SDM vol. 1 app. A) are what the host's CPU makes of them: each arithmetic operation is executed on
// the host with the guest's flags loaded. The flags travel in AX in the form of LAHF (AH) and SETO (AL), because
// inline assembly must not push into the red zone and a POPFQ is slow.
#ifndef CICADA_XLATE_EMUL_INT_H
#define CICADA_XLATE_EMUL_INT_H

#include "engine/xlate/cache.h"
#include "engine/xlate/debug.h"
#include "engine/xlate/emul.h"
#include "engine/xlate/fp.h"
#include "engine/xlate/strings.h"
#include "engine/xlate/sys.h"

// ---- sizes ----
static inline uint64_t mask_bytes(unsigned bytes) {
    return bytes >= 8 ? ~0ull : (1ull << (8 * bytes)) - 1;
}
static inline unsigned op_bytes(const struct insn *in, unsigned i) {
    return in->op[i].size / 8u;
}
static inline bool op_is_mem(const struct insn *in, unsigned i) {
    return in->op[i].type == ZYDIS_OPERAND_TYPE_MEMORY;
}
static inline uint64_t sign_extend(uint64_t v, unsigned bytes) {
    unsigned shift = 64 - 8 * bytes;

    return (uint64_t)((int64_t)(v << shift) >> shift);
}

// ---- flags ----
static inline unsigned flags_pack(uint64_t rflags) {
    return (((unsigned)rflags & 0xd5) | 2) << 8 | (rflags & RFLAGS_OF ? 1 : 0);
}
static inline uint64_t flags_unpack(uint64_t rflags, unsigned ax) {
    return (rflags & ~RFLAGS_ARITH) | (ax >> 8 & 0xd5) | (ax & 1 ? RFLAGS_OF : 0);
}
// AX -> host flags and back.
#define FLAGS_IN  "addb $0x7f, %%al\n\tsahf\n\t"
#define FLAGS_OUT "\n\tlahf\n\tseto %%al"

// The arithmetic core of an instruction: (old destination, source, bytes, flags in and out) -> new destination.
// `src` may be the address of more operands where the implementation says so.
typedef uint64_t (*alu_fn)(uint64_t dst, uint64_t src, unsigned size, uint64_t *rflags);

// Defines an alu_fn that runs `op` (AT&T, without suffix) on the host.
#define ALU_CASE(n, op, c, reg)                                                                                        \
    case n:                                                                                                            \
        __asm__ volatile(FLAGS_IN op c FLAGS_OUT : [d] "+r"(dst), "+a"(ax) : [s] reg(src) : "cc");                     \
        break
#define ALU_FN(name, op, args_b, args_w, args_l, args_q, reg)                                                          \
    static uint64_t name(uint64_t dst, uint64_t src, unsigned size, uint64_t *rflags) {                                \
        unsigned ax = flags_pack(*rflags);                                                                             \
        switch (size) {                                                                                                \
            ALU_CASE(1, op, args_b, reg);                                                                              \
            ALU_CASE(2, op, args_w, reg);                                                                              \
            ALU_CASE(4, op, args_l, reg);                                                                              \
            ALU_CASE(8, op, args_q, reg);                                                                              \
        }                                                                                                              \
        *rflags = flags_unpack(*rflags, ax);                                                                           \
        return dst;                                                                                                    \
    }
#define ALU_BINARY(name, op)                                                                                           \
    ALU_FN(name, op, "b %b[s], %b[d]", "w %w[s], %w[d]", "l %k[s], %k[d]", "q %q[s], %q[d]", "r")
#define ALU_UNARY(name, op)    ALU_FN(name, op, "b %b[d]", "w %w[d]", "l %k[d]", "q %q[d]", "r")
#define ALU_COUNT_CL(name, op) ALU_FN(name, op, "b %%cl, %b[d]", "w %%cl, %w[d]", "l %%cl, %k[d]", "q %%cl, %q[d]", "c")

// ---- emul.c ----
// As emul_decode, but gives the instruction's place in the decode cache: valid until the next decode.
enum xres emul_decode_ref(struct xcpu *x, struct insn **in);

// ---- emul_mem.c ----
// seg_linear plus #AC and data breakpoints: for accesses that do not go through seg_read or seg_write.
enum xres seg_access(struct xcpu *x, enum x86_seg seg, uint64_t off, unsigned size, unsigned flags, uint64_t *lin);
// Bytes from off upwards that the segment's limit allows, at most PAGE_SIZE; 0 when seg_linear would fault or wrap.
unsigned seg_room(struct xcpu *x, enum x86_seg seg, uint64_t off, unsigned addr_bits, bool write);
// Read-modify-write of memory, atomic when locked; commits the flags. old may be NULL.
enum xres mem_modify(struct xcpu *x, enum x86_seg seg, uint64_t off, unsigned size, bool locked, alu_fn f, uint64_t src,
                     uint64_t *old);
// Ditto for explicit operand i, register or memory.
enum xres op_modify(struct xcpu *x, struct insn *in, unsigned i, alu_fn f, uint64_t src, uint64_t *old);
// Number 0..15 of a general register of 16 bits and more.
unsigned gpr_index(ZydisRegister reg);
uint64_t gpr_read(const struct xcpu *x, unsigned reg, unsigned bytes);
void gpr_write(struct xcpu *x, unsigned reg, unsigned bytes, uint64_t val); // 4 bytes zero-extend
// Value of size bytes at offset sp of the stack segment, and back.
enum xres stack_get(struct xcpu *x, uint64_t sp, uint64_t *val, unsigned size);
enum xres stack_put(struct xcpu *x, uint64_t sp, uint64_t val, unsigned size);
void stack_set(struct xcpu *x, uint64_t sp); // RSP within the stack's mask

static inline uint64_t addr_mask(unsigned bits) {
    return bits == 64 ? ~0ull : (1ull << bits) - 1;
}

// Condition cc of Jcc, SETcc, CMOVcc (low opcode nibble, SDM vol. 1 app. B).
bool flags_test(uint64_t rflags, unsigned cc);

// ---- tables of the files (emul_table.c joins them) ----
emul_fn emul_lookup(const struct insn *in); // never NULL: what nobody implements raises #UD
void emul_table_init(void);                 // idempotent

#define EMUL_ENTRIES(name)                                                                                             \
    extern const struct emul_entry name[];                                                                             \
    extern const unsigned name##_count
EMUL_ENTRIES(emul_alu_entries);
EMUL_ENTRIES(emul_shift_entries);
EMUL_ENTRIES(emul_muldiv_entries);
EMUL_ENTRIES(emul_bit_entries);
EMUL_ENTRIES(emul_bcd_entries);
EMUL_ENTRIES(emul_string_entries);
EMUL_ENTRIES(emul_flow_entries);
EMUL_ENTRIES(emul_move_entries);
EMUL_ENTRIES(emul_stack_entries);
EMUL_ENTRIES(emul_misc_entries);
EMUL_ENTRIES(emul_atomic_entries);
EMUL_ENTRIES(emul_fpstate_entries);
EMUL_ENTRIES(emul_xsave_entries);
EMUL_ENTRIES(emul_x87env_entries);
EMUL_ENTRIES(emul_masked_entries);
#define EMUL_TABLE(name, ...)                                                                                          \
    const struct emul_entry name[] = {__VA_ARGS__};                                                                    \
    const unsigned name##_count = ARRAY_LEN(name)
#define E(m, f)                                                                                                        \
    { ZYDIS_MNEMONIC_##m, f }

// ---- isa.c ----
// Which Zydis ISA sets the CPUID policy offers.
void isa_fill(const struct cpuid_policy *p, bool allowed[ZYDIS_ISA_SET_MAX_VALUE + 1]);

#endif
