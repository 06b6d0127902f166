// SPDX-License-Identifier: Apache-2.0
// Debug registers: instruction, data and I/O breakpoints, single step (SDM vol. 3B ch. 18).
//
// Faults (instruction breakpoints, general detect) are returned before the instruction; traps (data and I/O
// breakpoints, TF) are collected in cpu_state.debug_pending and delivered by intr_poll at the next boundary at
// which no MOV SS shadow is open.
#ifndef CICADA_XLATE_DEBUG_H
#define CICADA_XLATE_DEBUG_H

#include "engine/xlate/xlate.h"

#define DR6_BS          (1ull << 14) // single step
#define DR6_BD          (1ull << 13) // debug register access with DR7.GD
#define DR6_BT          (1ull << 15) // task switch with TSS.T
#define DR6_FIXED       0xffff0ff0ull
#define DR6_WRITABLE    0xe00full
#define DR7_FIXED       0x400ull
#define DR7_WRITABLE    0xffff2bffull // with GD (13); bits 12, 14, 15 read 0; bit 11 (RTM) masked on write
#define DR7_GD          (1ull << 13)
#define DR7_ENABLE_MASK 0xffull

// cpu_state.debug_pending
#define DEBUG_TRAP_PENDING 1u
#define DEBUG_NO_STEP      0x80u // this instruction delivered an interrupt: no single-step trap after it

// Before an instruction at linear address lin_rip, when DR7 enables anything: X_FAULT (#DB) on a breakpoint.
enum xres debug_before(struct xcpu *x, uint64_t lin_rip);
// After an instruction that completed; tf_was_set: RFLAGS.TF when it began. Makes traps pending and asks for intr_poll.
void debug_after(struct xcpu *x, bool tf_was_set);
// Makes a single-step trap pending at the next boundary, whatever RFLAGS.TF was before.
void debug_step_now(struct xcpu *x);
// DR7 enables a data or I/O breakpoint: accesses have to be reported with the functions below.
bool debug_data_active(const struct xcpu *x);
void debug_data_access(struct xcpu *x, uint64_t lin, unsigned size, bool write);
void debug_io_access(struct xcpu *x, uint16_t port, unsigned size);
// Applies the DR6/DR7 side of delivering #DB with these DR6 bits.
void debug_commit(struct xcpu *x, uint64_t dr6_bits);

#endif
