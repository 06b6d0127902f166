// SPDX-License-Identifier: Apache-2.0
// Translated blocks: the mode they are made for, and the translator's door.
//
// Register map, the same at every block boundary:
//   guest RAX RCX RDX RBX RBP RSI RDI R8..R12 live in the host register of the same name,
//   guest RSP lives in host R15, guest R13 R14 R15 in xcpu.s.gpr;
//   host R13 and R14 are scratch, host RSP is the engine's stack, host GS base is the xcpu.
// Arithmetic flags: in the host's RFLAGS or in xcpu.flags_mem (LAHF/SETO form); xcpu.s.rflags has only the other
// flags while translated code runs (arithmetic bits zero). DF is only in s.rflags: host DF is 0.
#ifndef CICADA_XLATE_TB_H
#define CICADA_XLATE_TB_H

#include "engine/xlate/cache.h"

#define TBM_64         1u    // 64-bit code
#define TBM_32         2u    // 32-bit code, CS/SS/DS/ES flat unless TBM_DSES_ODD
#define TBM_USER       4u    // CPL 3
#define TBM_KIND_SHIFT 3     // enum tlb_kind, 2 bits
#define TBM_NO_FPU     0x20u // x87/MMX fault: CR0.EM or TS
#define TBM_NO_SSE     0x40u
#define TBM_NO_AVX     0x80u
#define TBM_COUNT      0x100u // counts instructions against xcpu.budget
#define TBM_FS_ODD     0x200u // 32-bit: FS limit is not 4 GiB
#define TBM_GS_ODD     0x400u
#define TBM_DSES_ODD   0x800u
#define TBM_SMAP       0x1000u // CPL 0: CR4.SMAP, so STAC and CLAC matter
#define TBM_NO_TSC     0x2000u // RDTSC may fault: CR4.TSD at CPL 3
#define TBM_BASES      0x4000u // CR4.FSGSBASE

#define HOST_RSP_HOME 15 // guest RSP
#define S0            13
#define S1            14

// Translates the block at rip; cache lock held. Returns NULL if the first instruction must be emulated, or if the
// cache is full (*full).
struct tb *translate(struct xcpu *x, uint64_t rip, struct code_page *page, enum tb_variant variant, bool turns,
                     bool *full);

// The i-th range of bytes (offsets in a page of the block, inclusive) outside of the last block that its translation
// depends on: code looked at to learn which flags it needs. False when there are no more.
struct byte_range {
    uint16_t first, last;
    bool second; // in the block's second page
};
bool translator_peeked(const void *t, unsigned i, struct byte_range *r);
void *translator_create(void);
void translator_destroy(void *t);

void tramp_generate(struct engine *e, struct emit_space *s, struct trampolines *t);

// What left translated code; in RAX when `enter` returns.
enum leave_reason {
    LEAVE_DISPATCH, // s.rip is where to go on
    LEAVE_SLOW,     // a memory access at s.rip is one for the emulator
    LEAVE_FAULT,    // x->fault to be delivered at s.rip
    LEAVE_EXIT,     // x->exit is filled
};

// What stands behind the jump of a TLB-miss stub: the instruction it belongs to.
#define STUB_JUMP_BYTES 5
struct stub_note {
    uint32_t tb;  // cache_tb
    uint8_t insn; // index in the block
} __attribute__((packed));

// Code for s.rip in the current mode, through the jump cache; 0 and the reason as cache_get_tb.
uint64_t xl_find_code(struct xcpu *x, enum xres *r);

// C functions that the trampolines call.
uint64_t xl_tlb_miss(struct xcpu *x, uint64_t lin, uint32_t size_write, uint64_t ret_pc, uint32_t slot);
uint64_t xl_group_miss(struct xcpu *x, uint64_t lin, uint32_t kind, uint64_t ret_pc, uint32_t slot);
uint64_t xl_ungrouped(struct xcpu *x);
uint64_t xl_site_often(struct xcpu *x, uint64_t ret_pc);
uint64_t xl_hoist(struct xcpu *x, uint64_t rip);
uint64_t xl_link(struct xcpu *x, uint32_t exit_index);
uint64_t xl_indirect(struct xcpu *x, uint64_t rip);
uint64_t xl_helper(struct xcpu *x, uint32_t word);

// Helpers, in the order of the table in helpers.c.
enum helper_id {
    H_EMULATE, // any instruction, goes on in the block
    H_EMULATE_END,
    H_MOVS,
    H_STOS,
    H_LODS,
    H_SCAS,
    H_CMPS,
    H_SYSCALL,
    H_SYSRET,
    H_IRET,
    H_POPF,
    H_PUSHF,
    H_RDTSC,
    H_RDMSR,
    H_WRMSR,
    H_CPUID,
    H_TO_CR, // control register in bits 3:0 of the argument, general register above
    H_COUNT
};
// helper word: id in bits 7:0, length of the instruction in 15:8, arguments in 31:16.

// Flags between RFLAGS and the form of LAHF/SETO.
static inline uint64_t flags_from_mem(uint16_t m) {
    uint64_t f = (m >> 8) & (RFLAGS_CF | RFLAGS_PF | RFLAGS_AF | RFLAGS_ZF | RFLAGS_SF);
    return f | ((m & 1) ? RFLAGS_OF : 0);
}
static inline uint16_t flags_to_mem(uint64_t f) {
    return (uint16_t)(((f & 0xd5) | 2) << 8 | ((f & RFLAGS_OF) ? 1 : 0));
}
static inline void flags_merge(struct xcpu *x) {
    x->s.rflags = (x->s.rflags & ~RFLAGS_ARITH) | flags_from_mem(x->flags_mem);
}
static inline void flags_split(struct xcpu *x) {
    x->flags_mem = flags_to_mem(x->s.rflags);
    x->s.rflags &= ~RFLAGS_ARITH;
}

#endif
