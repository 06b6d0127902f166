// SPDX-License-Identifier: Apache-2.0
// Loops whose memory accesses move by constant steps: their checks are hoisted out of the loop.
//
// A block that ends with a conditional jump to its own start, whose accesses all are affine in registers that one turn
// of the loop leaves alone or changes by a constant, is translated a second time without any check (TB_HOISTED). C code
// (xl_hoist) looks up the page of every access, counts the turns until one of them leaves its page, and enters that
// variant with a bound for one of the registers; where the bound is reached it asks again. In simple cases code in
// front of the variant does the same without C (hoist_header.c). In the variant nothing calls C, so no safe point lies
// between the look-up and the accesses (see smc.c), and no right can be taken away meanwhile.
#ifndef CICADA_XLATE_HOIST_H
#define CICADA_XLATE_HOIST_H

#include "engine/xlate/xlate.h"

#define HOIST_TURNS_MAX 4096u // at most so many turns without a look at jump_mask
#define HOIST_TURNS_MIN 8u    // fewer are not worth the call
#define HOIST_STRIDES   256u  // bytes a turn of all accesses together: they leave their pages rarely
#define HOIST_WAIT      8     // turns of the checked loop before the first try
#define HOIST_WAIT_MISS 2     // where the TLB has not got a page: the checked loop will bring it
#define HOIST_PAGES     2u    // looked at beyond the first
#define HOIST_NO_STEP   INT64_MIN

// A register at some point of a turn: the value that `root` had when the turn began, plus `offset`.
struct hoist_value {
    int8_t root; // NOREG: not known
    int64_t offset;
};

struct hoist_access {
    struct hoist_value base, index; // root NOREG: none
    uint8_t scale, seg, size;
    bool write, has_seg;
    bool vary_base, vary_index; // added by the access itself; what is left is in hoist_host
    int64_t disp;               // not added by the access
    int64_t disp_access;        // added by it
    int64_t stride;             // a turn
    uint32_t inverse;           // 2^32 / |stride|, rounded up
    int8_t reg;                 // host register that holds hoist_host in the variant, NOREG: loaded for the access
    bool rebased;               // reg is the access's own base register
};

// What xl_hoist needs to know of a loop. Lives as long as its block.
struct hoist_plan {
    unsigned count;
    struct hoist_access access[HOIST_ACCESSES];
    // Registers: what one turn adds; for those computed with 32 bits (narrow), between which offsets they are.
    int64_t step[16], narrow_min[16], narrow_max[16];
    uint16_t narrow;
    uint16_t taken; // guest registers whose host registers hold something else in the variant; no turn changes them
    int8_t counter; // the register that is compared with hoist_bound
};

struct tb;
// tb: the loop's hoisted variant. Where it may be entered, and for how many turns (hoist_bound, hoist_host are filled);
// NULL: the checked loop must go on.
const uint8_t *hoist_enter(struct xcpu *x, const struct tb *tb);

#endif
