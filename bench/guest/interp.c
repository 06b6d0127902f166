// SPDX-License-Identifier: Apache-2.0
// A small byte-code machine, once with a switch in a loop and once with threaded code (a computed goto per operation):
// indirect jumps with many targets, which is what interpreters spend their time on.
#include "bench.h"

enum op { PUSH, ADD, SUB, MUL, XOR, SHR, DUP, SWAP, LOAD, STORE, JNZ, CALL, RET, HALT };

// A program that is run `work` times: an inner loop of 200 turns with a call, arithmetic and variables.
static const int16_t program[] = {
    PUSH, 200,  STORE, 1,                                             // vars[1] counts down
    LOAD, 0,    LOAD,  1,    CALL, 39,    STORE, 0,                   // 4: vars[0] = f(vars[0], vars[1])
    LOAD, 0,    DUP,   PUSH, 7,    SHR,   XOR,   STORE, 0,            // vars[0] ^= vars[0] >> 7
    LOAD, 2,    PUSH,  3,    ADD,  STORE, 2,                          // vars[2] += 3
    LOAD, 1,    PUSH,  -1,   ADD,  DUP,   STORE, 1,     JNZ, 4, HALT, // again until 0
    MUL,  LOAD, 2,     ADD,  RET,                                     // 39: f(a, b) = a * b + vars[2]
};

struct machine {
    uint64_t stack[32], vars[4];
    unsigned calls[32];
};

static uint64_t turn_switch(struct machine *m) {
    uint64_t *sp = m->stack;
    unsigned *csp = m->calls, pc = 0;
    for (;;) {
        switch ((enum op)program[pc++]) {
        case PUSH: *sp++ = (int64_t)program[pc++]; break;
        case ADD: sp--, sp[-1] += sp[0]; break;
        case SUB: sp--, sp[-1] -= sp[0]; break;
        case MUL: sp--, sp[-1] *= sp[0]; break;
        case XOR: sp--, sp[-1] ^= sp[0]; break;
        case SHR: sp--, sp[-1] >>= sp[0] & 63; break;
        case DUP: *sp = sp[-1], sp++; break;
        case SWAP: {
            uint64_t t = sp[-1];
            sp[-1] = sp[-2], sp[-2] = t;
            break;
        }
        case LOAD: *sp++ = m->vars[program[pc++]]; break;
        case STORE: m->vars[program[pc++]] = *--sp; break;
        case JNZ: pc = *--sp ? (unsigned)program[pc] : pc + 1; break;
        case CALL: *csp++ = pc + 1, pc = program[pc]; break;
        case RET: pc = *--csp; break;
        case HALT: return m->vars[0];
        }
    }
}

static uint64_t turn_threaded(struct machine *m) {
    static const void *const labels[] = {&&push, &&add,  &&sub,   &&mul, &&xor,  &&shr, &&dup,
                                         &&swap, &&load, &&store, &&jnz, &&call, &&ret, &&halt};
    uint64_t *sp = m->stack, t;
    unsigned *csp = m->calls, pc = 0;
#define NEXT goto *labels[program[pc++]]
    NEXT;
push:
    *sp++ = (int64_t)program[pc++];
    NEXT;
add:
    sp--, sp[-1] += sp[0];
    NEXT;
sub:
    sp--, sp[-1] -= sp[0];
    NEXT;
mul:
    sp--, sp[-1] *= sp[0];
    NEXT;
    xor : sp--, sp[-1] ^= sp[0];
    NEXT;
shr:
    sp--, sp[-1] >>= sp[0] & 63;
    NEXT;
dup:
    *sp = sp[-1], sp++;
    NEXT;
swap:
    t = sp[-1], sp[-1] = sp[-2], sp[-2] = t;
    NEXT;
load:
    *sp++ = m->vars[program[pc++]];
    NEXT;
store:
    m->vars[program[pc++]] = *--sp;
    NEXT;
jnz:
    pc = *--sp ? (unsigned)program[pc] : pc + 1;
    NEXT;
call:
    *csp++ = pc + 1, pc = program[pc];
    NEXT;
ret:
    pc = *--csp;
    NEXT;
halt:
    return m->vars[0];
#undef NEXT
}

static uint64_t repeat(uint64_t work, uint64_t (*turn)(struct machine *)) {
    struct machine m = {.vars = {12345, 0, 7, 0}};
    uint64_t sum = 0;
    for (uint64_t i = 0; i < work; i++)
        sum = bench_mix(sum, turn(&m));
    return sum;
}

static uint64_t bytecode_switch(uint64_t work) {
    return repeat(work, turn_switch);
}
static uint64_t bytecode_threaded(uint64_t work) {
    return repeat(work, turn_threaded);
}

const struct bench_case bench_interp[] = {
    {"bytecode-switch", bytecode_switch}, {"bytecode-threaded", bytecode_threaded}, {0}};
