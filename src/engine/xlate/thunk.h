// SPDX-License-Identifier: Apache-2.0
// Host code that executes one guest instruction on the guest's register values. Private to emul_native.c, emul_thunk.c.
#ifndef CICADA_XLATE_THUNK_H
#define CICADA_XLATE_THUNK_H

#include "engine/xlate/emul_int.h"

// What a thunk works on; its address is the thunk's argument and stays in a register the instruction does not use.
struct thunk_frame {
    uint8_t bounce[64]; // the memory operand
    uint64_t rflags;
    uint64_t gpr[16]; // only those in thunk.regs are used
} __attribute__((aligned(64)));

#define THUNK_SIZE 256u // code bytes; the longest is under 200
struct thunk {
    uint8_t bytes[15], length; // the guest instruction; length 0: empty
    bool code64;
    bool host_mem;     // has a memory operand that was replaced
    uint16_t regs;     // general registers that are read or written
    uint16_t writes;   // and those that are written
    uint16_t exit_off; // where to go on after a signal
};

// Generates into code[THUNK_SIZE]. implicit_mem: the instruction addresses [RDI] without a ModRM memory operand
// (MASKMOVQ), so RDI is loaded from the frame. false if the encoding is not one this can rebuild.
bool thunk_generate(struct thunk *t, const struct insn *in, bool implicit_mem, uint8_t *code);

#endif
