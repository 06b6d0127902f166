// SPDX-License-Identifier: Apache-2.0
// First stage of the translator: a guest instruction, decoded, classified and reduced to what emission needs.
#ifndef CICADA_XLATE_TDECODE_H
#define CICADA_XLATE_TDECODE_H

#include <Zydis/Zydis.h>

#include "engine/xlate/tb.h"

enum tclass {
    T_NOP,
    T_COPY, // registers only
    T_MEM,  // one memory operand, executed natively on the host address
    T_LEA,
    T_MOFFS,  // mov accumulator, moffs
    T_BT_MEM, // bt/bts/btr/btc memory, register
    T_PUSH,
    T_PUSH_MEM,
    T_POP,
    T_LEAVE,
    T_CALL,
    T_CALL_IND,
    T_JMP,
    T_JMP_IND,
    T_RET,
    T_JCC,
    T_LOOP,     // loop, loope, loopne, jrcxz
    T_FROM_SEG, // mov r, sreg
    // emit_sys.c
    T_FLAG_SET, // flags of imm
    T_FLAG_CLEAR,
    T_STI, // CPL 0
    T_SWAPGS,
    T_FROM_CR, // imm: number
    T_PUSHF,   // 64-bit
    T_RDTSC,
    T_READ_BASE, // RDFSBASE, RDGSBASE; mem_seg
    T_WRITE_BASE,
    T_AC,     // imm: set
    T_HELPER, // goes on in the block
    T_HELPER_END,
};

#define NOREG   (-1)
#define NOGROUP (-1)

// The encoding of an instruction, taken apart so that it can be put together with other registers.
struct tenc {
    uint8_t legacy[4], nlegacy; // 66 F2 F3 F0, in their order
    bool vex, has_modrm, rex_w, force_rex;
    uint8_t map; // 0: one byte, 1: 0F, 2: 0F38, 3: 0F3A
    uint8_t opcode;
    uint8_t vex_pp, vex_l;
    uint8_t reg, rm, vvvv;  // full numbers, as encoded; rm only for the register form
    uint8_t tail[8], ntail; // immediates
};

// A GPR that an operand names.
struct tgpr {
    int8_t num; // 0..15, NOREG when the field is no GPR
    bool read, write;
    bool high; // AH CH DH BH
    uint8_t bits;
};

struct tinsn {
    enum tclass cls;
    uint64_t rip;
    uint8_t len;
    uint8_t helper;    // enum helper_id
    bool helper_flags; // the helper reads or writes arithmetic flags
    uint16_t helper_arg;
    uint16_t flags_read;  // arithmetic flags in RFLAGS positions
    uint16_t flags_kill;  // written whatever happens
    uint16_t flags_write; // may be written
    uint8_t cc;           // T_JCC
    uint8_t op_bits;      // operand size of stack operations and the like
    uint64_t target;      // direct branches
    int64_t imm;
    struct tenc enc;
    struct tgpr r_reg, r_rm, r_vvvv, r_opc; // by encoding field
    // memory operand
    bool mem_read, mem_write;
    uint8_t mem_size; // bytes
    uint8_t mem_seg;  // enum x86_seg
    int8_t mem_base, mem_index;
    uint8_t mem_scale; // log2
    bool mem_rip;      // mem_disp is the absolute offset
    bool mem_a32;      // 32-bit address size
    int64_t mem_disp;
    uint16_t gpr_used;                           // general registers named, read or written, implicit ones too
    bool rm_or_memory;                           // a register in the rm field may be replaced by memory of its size
    uint16_t gpr_write;                          // general registers written, implicit ones too
    enum { ADJ_NONE, ADJ_ADD, ADJ_COPY } adjust; // the only effect on a register is reg += imm, or reg = src + imm
    bool adjust_narrow; // with 32 bits in 64-bit code: only where nothing is carried out, see hoist.c
    int8_t adjust_reg, adjust_src;
    int64_t adjust_imm;
    // Memory accesses in order: [0] the memory operand, [1] the stack. group NOGROUP: checked on its own. Filled later.
    struct taccess {
        int8_t group;
        bool leader;
        bool hoisted;
        int32_t delta; // from the start of the group's range
        int64_t at;    // of group.c
    } access[2];
    // liveness, filled later
    uint16_t live_in, live_out;
    uint16_t live_taken; // T_JCC, T_LOOP: at the branch target
    uint8_t bytes[16];
};

struct tdecoder {
    ZydisDecoder d64, d32;
    ZydisDecodedInstruction z;
    ZydisDecodedOperand op[ZYDIS_MAX_OPERAND_COUNT];
};

// Logic instructions clear AF, which the manual leaves undefined.
bool tdecode_clears_af(const ZydisDecodedInstruction *z);
void tdecode_init(struct tdecoder *d);
// Decodes bytes[0..avail) at t->rip. false: does not decode (or needs more bytes).
bool tdecode(struct tdecoder *d, struct xcpu *x, struct tinsn *t, unsigned avail);

#endif
