// SPDX-License-Identifier: Apache-2.0
// A small x86-64 assembler: just the forms that the translator and the trampolines emit.
// Registers are hardware numbers 0..15; `w` selects 64-bit operands. GS-relative operands address the xcpu.
#ifndef CICADA_XLATE_ASM_H
#define CICADA_XLATE_ASM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "engine/xlate/xlate.h"

struct emit {
    uint8_t *p, *end; // writable; emission stops (and overflow is set) near end
    int64_t delta;    // executable = writable + delta
    bool overflow;
};

static inline void put8(struct emit *e, unsigned v) {
    if (e->p >= e->end) {
        e->overflow = true;
        return;
    }
    *e->p++ = (uint8_t)v;
}
static inline void put16(struct emit *e, unsigned v) {
    put8(e, v), put8(e, v >> 8);
}
static inline void put32(struct emit *e, uint32_t v) {
    put16(e, v), put16(e, v >> 16);
}
static inline void put64(struct emit *e, uint64_t v) {
    put32(e, (uint32_t)v), put32(e, (uint32_t)(v >> 32));
}
static inline uint8_t *emit_xaddr(const struct emit *e) {
    return e->p + e->delta;
}

#define XOFF(field) ((uint32_t)offsetof(struct xcpu, field))
#define XGPR(n)     ((uint32_t)(offsetof(struct xcpu, s.gpr) + 8 * (n)))

static inline void rex(struct emit *e, bool w, int reg, int index, int base, bool force) {
    unsigned r = 0x40 | (w << 3) | ((reg >> 3) << 2) | ((index >> 3) << 1) | (base >> 3);
    if (r != 0x40 || force)
        put8(e, r);
}

// op reg, rm (register form)
static inline void op_rr(struct emit *e, bool w, unsigned opcode, int reg, int rm) {
    rex(e, w, reg, 0, rm, false);
    put8(e, opcode);
    put8(e, 0xc0 | (reg & 7) << 3 | (rm & 7));
}

// op reg, gs:[disp32]
static inline void op_gs(struct emit *e, bool w, unsigned opcode, int reg, uint32_t disp) {
    put8(e, 0x65);
    rex(e, w, reg, 0, 0, false);
    put8(e, opcode);
    put8(e, 0x04 | (reg & 7) << 3);
    put8(e, 0x25);
    put32(e, disp);
}

// op reg, gs:[base + disp32]; base is not RSP or R12
static inline void op_gs_base(struct emit *e, bool w, unsigned opcode, int reg, int base, uint32_t disp) {
    put8(e, 0x65);
    rex(e, w, reg, 0, base, false);
    put8(e, opcode);
    put8(e, 0x80 | (reg & 7) << 3 | (base & 7));
    put32(e, disp);
}

// op reg, gs:[index * 8 + disp32]
static inline void op_gs_index8(struct emit *e, bool w, unsigned opcode, int reg, int index, uint32_t disp) {
    put8(e, 0x65);
    rex(e, w, reg, index, 0, false);
    put8(e, opcode);
    put8(e, 0x04 | (reg & 7) << 3);
    put8(e, 0xc5 | (index & 7) << 3);
    put32(e, disp);
}

// op reg, [base + index * 2^scale + disp]; index -1: none. Any base and index but RSP as index.
static inline void modrm_mem(struct emit *e, int reg, int base, int index, unsigned scale, int32_t disp) {
    unsigned mod = disp == 0 && (base & 7) != 5 ? 0 : disp >= -128 && disp <= 127 ? 1 : 2;
    if (index >= 0 || (base & 7) == 4) {
        put8(e, mod << 6 | (reg & 7) << 3 | 4);
        put8(e, scale << 6 | ((index < 0 ? 4 : index) & 7) << 3 | (base & 7));
    } else {
        put8(e, mod << 6 | (reg & 7) << 3 | (base & 7));
    }
    if (mod == 1)
        put8(e, (unsigned)disp & 0xff);
    else if (mod == 2)
        put32(e, (uint32_t)disp);
}
static inline void op_mem(struct emit *e, bool w, unsigned opcode, int reg, int base, int index, unsigned scale,
                          int32_t disp) {
    rex(e, w, reg, index < 0 ? 0 : index, base, false);
    put8(e, opcode);
    modrm_mem(e, reg, base, index, scale, disp);
}

static inline void mov_rr(struct emit *e, bool w, int dst, int src) {
    op_rr(e, w, 0x8b, dst, src);
}
static inline void mov_load_gs(struct emit *e, int dst, uint32_t disp) {
    op_gs(e, true, 0x8b, dst, disp);
}
static inline void mov_store_gs(struct emit *e, uint32_t disp, int src) {
    op_gs(e, true, 0x89, src, disp);
}
static inline void lea(struct emit *e, bool w, int dst, int base, int index, unsigned scale, int32_t disp) {
    op_mem(e, w, 0x8d, dst, base, index, scale, disp);
}

// dst = imm in the shortest form
static inline void mov_imm(struct emit *e, int dst, uint64_t imm) {
    if (imm <= 0xffffffffu) {
        rex(e, false, 0, 0, dst, false);
        put8(e, 0xb8 | (dst & 7));
        put32(e, (uint32_t)imm);
    } else if ((uint64_t)(int64_t)(int32_t)imm == imm) {
        rex(e, true, 0, 0, dst, false);
        put8(e, 0xc7);
        put8(e, 0xc0 | (dst & 7));
        put32(e, (uint32_t)imm);
    } else {
        rex(e, true, 0, 0, dst, false);
        put8(e, 0xb8 | (dst & 7));
        put64(e, imm);
    }
}

// Group 1 arithmetic with an immediate: ext 0 add, 1 or, 4 and, 5 sub, 6 xor, 7 cmp
static inline void alu_imm(struct emit *e, bool w, unsigned ext, int rm, uint32_t imm) {
    rex(e, w, 0, 0, rm, false);
    put8(e, 0x81);
    put8(e, 0xc0 | ext << 3 | (rm & 7));
    put32(e, imm);
}

// cmp dword gs:[disp32], imm32
static inline void cmp_gs_imm32(struct emit *e, uint32_t disp, uint32_t imm) {
    put8(e, 0x65);
    put8(e, 0x81);
    put8(e, 0x3c);
    put8(e, 0x25);
    put32(e, disp);
    put32(e, imm);
}
static inline void cmp_gs_imm8(struct emit *e, uint32_t disp, uint8_t imm) {
    put8(e, 0x65);
    put8(e, 0x83);
    put8(e, 0x3c);
    put8(e, 0x25);
    put32(e, disp);
    put8(e, imm);
}

static inline void store_imm_gs(struct emit *e, uint32_t disp, uint32_t imm) { // mov dword gs:[disp], imm32
    put8(e, 0x65), put8(e, 0xc7), put8(e, 0x04), put8(e, 0x25);
    put32(e, disp);
    put32(e, imm);
}

extern bool asm_have_bmi2; // set at engine creation

// dst = src rotated right by count (32-bit); bits that a shift would not bring are garbage. Clobbers flags.
static inline void rorx32(struct emit *e, int dst, int src, unsigned count) {
    if (!asm_have_bmi2) {
        op_rr(e, false, 0x8b, dst, src);
        rex(e, false, 0, 0, dst, false), put8(e, 0xc1);
        put8(e, (count < 16 ? 0xe8 : 0xe0) | (dst & 7)), put8(e, count < 16 ? count : 32 - count); // shr or shl
        return;
    }
    put8(e, 0xc4);
    put8(e, (dst & 8 ? 0 : 0x80) | 0x40 | (src & 8 ? 0 : 0x20) | 3);
    put8(e, 0x7b);
    put8(e, 0xf0);
    put8(e, 0xc0 | (dst & 7) << 3 | (src & 7));
    put8(e, count);
}

// jcc/jmp/call to an executable address
static inline void rel32_to(struct emit *e, uint64_t target) {
    put32(e, (uint32_t)(target - (uint64_t)(e->p + e->delta + 4)));
}
static inline void jmp_to(struct emit *e, uint64_t target) {
    put8(e, 0xe9), rel32_to(e, target);
}
static inline void call_to(struct emit *e, uint64_t target) {
    put8(e, 0xe8), rel32_to(e, target);
}

// A forward jump whose rel32 is filled in later; returns the address of the rel32.
static inline uint8_t *jcc_forward(struct emit *e, unsigned cc) {
    put8(e, 0x0f), put8(e, 0x80 | cc), put32(e, 0);
    return e->p - 4;
}
static inline uint8_t *jmp_forward(struct emit *e) {
    put8(e, 0xe9), put32(e, 0);
    return e->p - 4;
}
static inline void patch_here(struct emit *e, uint8_t *rel) {
    if (!e->overflow)
        *(uint32_t *)rel = (uint32_t)(e->p - (rel + 4));
}
#define CC_NS 9
#define CC_B  2
#define CC_E  4
#define CC_NE 5
#define CC_A  7
#define CC_S  8

// Arithmetic flags -> xcpu.flags_mem; tmp is a free register, flags stay as they are.
static inline void flags_save_mem(struct emit *e, int tmp) {
    mov_rr(e, true, tmp, X86_RAX);
    put8(e, 0x9f);                               // lahf
    put8(e, 0x0f), put8(e, 0x90), put8(e, 0xc0); // seto al
    put8(e, 0x66), op_gs(e, false, 0x89, X86_RAX, XOFF(flags_mem));
    mov_rr(e, true, X86_RAX, tmp);
}
// xcpu.flags_mem -> arithmetic flags. tmp < 0: no register is free, RAX goes through a spill slot.
static inline void flags_load_mem(struct emit *e, int tmp) {
    if (tmp >= 0)
        mov_rr(e, true, tmp, X86_RAX);
    else
        mov_store_gs(e, XOFF(spill[0]), X86_RAX);
    put8(e, 0x65), put8(e, 0x0f), put8(e, 0xb7), put8(e, 0x04), put8(e, 0x25), put32(e, XOFF(flags_mem)); // movzx eax
    put8(e, 0x04), put8(e, 0x7f); // add al, 0x7f: OF
    put8(e, 0x9e);                // sahf
    if (tmp >= 0)
        mov_rr(e, true, X86_RAX, tmp);
    else
        mov_load_gs(e, X86_RAX, XOFF(spill[0]));
}

#endif
