// SPDX-License-Identifier: Apache-2.0
// The one-instruction emulator: everything rare, every mode, and the oracle for translated blocks.
#ifndef CICADA_XLATE_EMUL_H
#define CICADA_XLATE_EMUL_H

#include <Zydis/Zydis.h>

#include "engine/xlate/xlate.h"

struct insn {
    ZydisDecodedInstruction z;
    ZydisDecodedOperand op[ZYDIS_MAX_OPERAND_COUNT];
    uint8_t bytes[15];
    uint64_t rip;      // of this instruction
    uint64_t next_rip; // truncated to the code size
    bool lock;
};

// An instruction's implementation. It computes, then commits (registers, flags, RIP) only when nothing can fault any
// more. It sets x->s.rip itself only for control transfers and for string instructions that are to be repeated;
// otherwise the caller advances RIP to next_rip when X_OK is returned, unless x->s.rip was changed (rip_set).
typedef enum xres (*emul_fn)(struct xcpu *x, struct insn *in);

struct emul_entry {
    ZydisMnemonic mnemonic;
    emul_fn fn;
};

// Decodes at x->s.rip in the current mode. Raises #PF/#GP for the fetch, #UD for what does not decode, is not in the
// CPUID policy or has a wrong LOCK prefix, #GP for more than 15 bytes.
enum xres emul_decode(struct xcpu *x, struct insn *in);
// Executes a decoded instruction: dispatch by mnemonic, advances RIP, handles RF. Faults are returned, not delivered.
enum xres emul_exec(struct xcpu *x, struct insn *in);
// Decode + execute + deliver faults through the IDT + TF and data-breakpoint traps + end of interrupt shadows.
// X_OK or X_EXIT. Counts exactly one instruction or one delivered fault.
enum xres emul_step(struct xcpu *x);

// ---- operands and memory (emul_mem.c) ----
// Linear address of seg:off for an access of size bytes: limit, type, null and canonical checks; raises #SS for SS,
// else #GP(0). off is truncated to the address size by the caller.
enum xres seg_linear(struct xcpu *x, enum x86_seg seg, uint64_t off, unsigned size, unsigned mmu_flags, uint64_t *lin);
enum x86_seg insn_seg(const ZydisDecodedOperand *op);                             // segment of a memory operand
uint64_t insn_ea(struct xcpu *x, struct insn *in, const ZydisDecodedOperand *op); // offset in the segment, truncated
enum xres seg_read(struct xcpu *x, enum x86_seg seg, uint64_t off, void *buf, unsigned size, unsigned mmu_flags);
enum xres seg_write(struct xcpu *x, enum x86_seg seg, uint64_t off, const void *buf, unsigned size, unsigned mmu_flags);
// Explicit operand i as an integer (register, memory or immediate, zero-extended from its size).
enum xres op_read(struct xcpu *x, struct insn *in, unsigned i, uint64_t *val);
// Writes explicit operand i (32-bit registers zero-extend).
enum xres op_write(struct xcpu *x, struct insn *in, unsigned i, uint64_t val);
uint64_t reg_read(struct xcpu *x, ZydisRegister reg);            // any GPR of any width, zero-extended
void reg_write(struct xcpu *x, ZydisRegister reg, uint64_t val); // ditto

// Stack of the current stack size; size 2, 4 or 8. Push writes first, then moves RSP.
enum xres stack_push(struct xcpu *x, uint64_t val, unsigned size);
enum xres stack_pop(struct xcpu *x, uint64_t *val, unsigned size); // reads at RSP, then moves RSP
uint64_t stack_mask(const struct xcpu *x);                         // 0xffff, 0xffffffff or ~0

// ---- arithmetic flags ----
// While C code runs, x->s.rflags holds all flags.

// Instructions that are executed on the host as they are (x87, MMX, SSE, AVX, AES, ...), memory operand by way of a
// bounce buffer (emul_native.c). Raises #NM, #UD, #GP (alignment), #MF, #XM as the manual says.
enum xres emul_native(struct xcpu *x, struct insn *in);

// ---- system instructions (the second group of entries; sys_entries.c) ----
extern const struct emul_entry emul_sys_entries[];
extern const unsigned emul_sys_entry_count;

// ---- interrupts and exceptions (intr.c) ----
// Delivers x->fault (with #DF and triple-fault rules; triple fault gives X_EXIT with EXIT_SHUTDOWN).
enum xres intr_deliver_fault(struct xcpu *x);
enum xres intr_deliver_external(struct xcpu *x, uint8_t vector); // hardware interrupt or NMI (vector 2)
enum xres intr_software(struct xcpu *x, uint8_t vector, uint64_t next_rip, bool int3_or_into); // INT n, INT3, INTO
// At an instruction boundary: INIT, SIPI, NMI, external interrupts that may be taken now, pending debug traps.
// X_OK when the vCPU can execute, X_EXIT with EXIT_HALT / EXIT_WAIT_SIPI when it has nothing to do.
enum xres intr_poll(struct xcpu *x);

// ---- segments (seg.c) ----
enum xres seg_load(struct xcpu *x, enum x86_seg seg, uint16_t sel); // MOV/POP Sreg, LDS...: all checks of the SDM
enum xres seg_load_far_code(struct xcpu *x, uint16_t sel, uint64_t off, bool call, unsigned op_size, uint64_t next_rip);

// ---- fast forms for translated code: RIP of the instruction and of the next are given ----
enum xres sys_syscall(struct xcpu *x, uint64_t next_rip);
enum xres sys_sysret(struct xcpu *x, bool opsize64);
enum xres sys_iret(struct xcpu *x, unsigned op_size);
enum xres sys_swapgs(struct xcpu *x);
enum xres sys_cli(struct xcpu *x);
enum xres sys_sti(struct xcpu *x); // sets the shadow only if IF was 0
enum xres sys_popf(struct xcpu *x, unsigned op_size);
enum xres sys_pushf(struct xcpu *x, unsigned op_size);
enum xres sys_rdtsc(struct xcpu *x, bool with_aux);
enum xres sys_wrmsr(struct xcpu *x);
enum xres sys_rdmsr(struct xcpu *x);
enum xres sys_cpuid(struct xcpu *x);
enum xres sys_mov_to_cr(struct xcpu *x, unsigned cr, uint64_t val);
enum xres sys_mov_from_cr(struct xcpu *x, unsigned cr, uint64_t *val);
enum xres sys_invlpg(struct xcpu *x, uint64_t lin);

#endif
