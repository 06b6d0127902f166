// SPDX-License-Identifier: Apache-2.0
// String instructions for translated code and the emulator (SDM vol. 1 7.3.9).
//
// Each function executes the instruction from the current RCX, RSI, RDI: without REP one element; with REP as many as
// it can, page by page on host pointers where both sides are RAM, looking at exit_requested after each page.
// It never touches RIP. On X_OK string_done() tells whether the instruction is complete; if not, execute it again
// (RIP unchanged) after looking at events. On X_FAULT the registers show the elements done, as the SDM demands.
// Arithmetic flags must be merged in x->s.rflags for SCAS and CMPS. With RFLAGS.TF or data breakpoints armed, one
// element is done per call.
#ifndef CICADA_XLATE_STRINGS_H
#define CICADA_XLATE_STRINGS_H

#include "engine/xlate/xlate.h"

enum string_rep { STR_ONCE, STR_REP, STR_REPE = STR_REP, STR_REPNE };

// elem: bytes 1, 2, 4, 8; addr_bits: 16, 32, 64; src_seg: DS or its override.
enum xres string_movs(struct xcpu *x, unsigned elem, unsigned addr_bits, enum x86_seg src_seg, bool rep);
enum xres string_stos(struct xcpu *x, unsigned elem, unsigned addr_bits, bool rep);
enum xres string_lods(struct xcpu *x, unsigned elem, unsigned addr_bits, enum x86_seg src_seg, bool rep);
enum xres string_scas(struct xcpu *x, unsigned elem, unsigned addr_bits, enum string_rep rep);
enum xres string_cmps(struct xcpu *x, unsigned elem, unsigned addr_bits, enum x86_seg src_seg, enum string_rep rep);
enum xres string_ins(struct xcpu *x, unsigned elem, unsigned addr_bits, bool rep);
enum xres string_outs(struct xcpu *x, unsigned elem, unsigned addr_bits, enum x86_seg src_seg, bool rep);

// After X_OK. `compares`: SCAS or CMPS, which also end on ZF.
bool string_done(const struct xcpu *x, unsigned addr_bits, enum string_rep rep, bool compares);

#endif
