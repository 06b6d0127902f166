// SPDX-License-Identifier: Apache-2.0
// What running vCPUs ask about a debugger's points; see the header.
#include "engine/xlate/debugger.h"

// ---- breakpoints ----

static uint64_t linear_rip(const struct xcpu *x) {
    return x->code_bits == 64 ? x->s.rip : (uint32_t)(x->s.seg[X86_CS].base + x->s.rip);
}

static const struct debug_point *find_breakpoint(const struct engine *e, uint64_t lin) {
    const struct debugger *d = &e->debugger;

    for (unsigned i = 0; i < d->count; i++)
        if (debugger_is_breakpoint(&d->points[i]) && d->points[i].addr == lin)
            return &d->points[i];
    return NULL;
}

bool debugger_breaks_at(const struct engine *e, uint64_t lin) {
    return find_breakpoint(e, lin);
}

bool debugger_stops(struct xcpu *x) {
    const struct debug_point *p;

    if (__builtin_expect(!x->engine->debugger.breakpoints, 1) || !(p = find_breakpoint(x->engine, linear_rip(x))))
        return false;
    x->exit = (struct vm_exit){.reason = EXIT_DEBUG, .debug = {.kind = p->kind, .addr = p->addr}};
    return true;
}

// ---- watchpoints ----

static bool overlap(uint64_t a, uint64_t alen, uint64_t b, uint64_t blen) {
    return a - b < blen || b - a < alen;
}

bool debugger_watches_page(const struct engine *e, uint64_t lin) {
    const struct debugger *d = &e->debugger;

    for (unsigned i = 0; i < d->count; i++)
        if (!debugger_is_breakpoint(&d->points[i]) &&
            overlap(lin & PAGE_MASK, PAGE_SIZE, d->points[i].addr, d->points[i].len))
            return true;
    return false;
}

static bool concerns(const struct debug_point *p, bool write) {
    return p->kind == DEBUG_ACCESS || p->kind == (write ? DEBUG_WRITE : DEBUG_READ);
}

void debugger_access(struct xcpu *x, uint64_t lin, unsigned size, bool write) {
    const struct debugger *d = &x->engine->debugger;

    for (unsigned i = 0; i < d->count && !x->watch_hit; i++) {
        const struct debug_point *p = &d->points[i];

        if (!concerns(p, write) || !overlap(lin, size, p->addr, p->len))
            continue;
        x->watch_hit = p;
        request_exit_here(x);
    }
}

bool debugger_watch_hit(struct xcpu *x) {
    const struct debug_point *p = x->watch_hit;

    if (__builtin_expect(!p, 1))
        return false;
    x->watch_hit = NULL;
    x->exit = (struct vm_exit){.reason = EXIT_DEBUG, .debug = {.kind = p->kind, .addr = p->addr}};
    return true;
}
