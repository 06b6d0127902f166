// SPDX-License-Identifier: Apache-2.0
// The debugger outside of the machine: breakpoints and watchpoints that the guest cannot see.
//
// A breakpoint ends the block before it: no block begins or goes on at one, so its instruction always comes to the
// dispatcher (run.c), which asks debugger_stops. A page with a watchpoint never gets a TLB entry, so every access to it
// comes to the emulator, which reports it. Without points all of this costs two comparisons on slow paths.
// Points change while the vCPUs stand; vCPUs only read them.
#ifndef CICADA_XLATE_DEBUGGER_H
#define CICADA_XLATE_DEBUGGER_H

#include "engine/xlate/engine.h"

// engine_ops.debug_points.
int debugger_set_points(struct engine *e, const struct debug_point *points, unsigned count);
void debugger_destroy(struct engine *e);

static inline bool debugger_is_breakpoint(const struct debug_point *p) {
    return p->kind == DEBUG_SOFT || p->kind == DEBUG_EXEC;
}

// Is there a breakpoint at this linear address?
bool debugger_breaks_at(const struct engine *e, uint64_t lin);
static inline bool debugger_breaks(const struct engine *e, uint64_t lin) {
    return __builtin_expect(e->debugger.breakpoints, 0) && debugger_breaks_at(e, lin);
}
// Fills x->exit and returns true where a breakpoint stops the vCPU in front of the instruction at s.rip.
bool debugger_stops(struct xcpu *x);

// Does the page of lin hold a watched byte?
bool debugger_watches_page(const struct engine *e, uint64_t lin);
static inline bool debugger_watches(const struct engine *e, uint64_t lin) {
    return __builtin_expect(e->debugger.watchpoints, 0) && debugger_watches_page(e, lin);
}
// An access of the guest, before it or behind it. Where it is watched, the vCPU stops at the next boundary.
void debugger_access(struct xcpu *x, uint64_t lin, unsigned size, bool write);
// At an instruction boundary: fills x->exit and returns true if a watched access was seen since the last one.
bool debugger_watch_hit(struct xcpu *x);

#endif
