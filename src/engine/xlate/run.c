// SPDX-License-Identifier: Apache-2.0
// The dispatcher: runs a vCPU in translated code, steps through what must be emulated, delivers events.
#include "engine/xlate/run.h"

#include "engine/xlate/cache.h"
#include "engine/xlate/debugger.h"
#include "engine/xlate/emul.h"
#include "engine/xlate/profile.h"
#include "engine/xlate/stats.h"
#include "engine/xlate/tb.h"

// Looks at watchpoints, INIT, SIPI, NMI, interrupts; remembers an interrupt that cannot be taken yet.
static enum xres poll_events(struct xcpu *x) {
    if (debugger_watch_hit(x))
        return X_EXIT;
    TRY(intr_poll(x));
    x->irq_maybe = !(x->s.rflags & RFLAGS_IF) && x->irqchip->ops->pending(x->irqchip->ctx) >= 0;
    return X_OK;
}

static bool events_due(struct xcpu *x) {
    if (exit_requested(x) || x->s.activity != X86_ACTIVE || x->s.debug_pending)
        return true;
    return (x->s.rflags & RFLAGS_IF) && x->irqchip->ops->pending(x->irqchip->ctx) >= 0;
}

static enum xres deliver(struct xcpu *x) {
    x->stat[XS_FAULTS]++;
    if (x->counting)
        x->budget--;
    return intr_deliver_fault(x);
}

static enum xres step(struct xcpu *x) {
    if (debugger_stops(x))
        return X_EXIT;
    x->stat[XS_EMULATED]++;
    if (x->counting)
        x->budget--;
    uint8_t part = part_enter(x, PART_EMULATOR);
    enum xres r = emul_step(x);
    part_leave(x, part);
    return r;
}

// Enters translated code at s.rip. X_OK: go on at s.rip.
static enum xres run_translated(struct xcpu *x) {
    enum xres r;
    uint32_t gen = cache_generation(x->engine); // before the look-up: a flush since then makes its answer stale
    uint64_t code = xl_find_code(x, &r);
    if (!code)
        return r == X_FAULT ? deliver(x) : step(x);
    fpu_load(x);
    if (!cache_resume_code(x, gen))
        return X_OK;
    flags_split(x);
    enum leave_reason why = (enum leave_reason)cache_tramps(x->engine)->enter(x, (const void *)code);
    cache_pause_code(x);
    flags_merge(x);
    switch (why) {
    case LEAVE_SLOW: x->stat[XS_SLOW_EMULATE]++; return step(x);
    case LEAVE_FAULT: return deliver(x);
    case LEAVE_EXIT: return X_EXIT;
    default: return X_OK;
    }
}

// In counting mode a block runs only if the whole of it fits; the rest is stepped.
static bool block_fits(const struct xcpu *x) {
    return !x->counting || x->budget >= (int64_t)x->engine->opts.max_insns;
}

// A single step of the debugger. The guest's own, RFLAGS.TF, is not touched.
static enum xres step_debug(struct xcpu *x) {
    enum xres r = step(x);
    if (r == X_OK && !debugger_watch_hit(x))
        x->exit = (struct vm_exit){.reason = EXIT_DEBUG, .debug = {.kind = DEBUG_STEPPED}};
    return r == X_OK ? X_EXIT : r;
}

static enum xres run_some(struct xcpu *x) {
    if (__builtin_expect(x->debug_step, DEBUG_RUN) != DEBUG_RUN)
        return step_debug(x);
    return x->tb_mode && !x->s.intr_shadow && block_fits(x) ? run_translated(x) : step(x);
}

void run_vcpu(struct xcpu *x, uint64_t budget, struct vm_exit *exit) {
    bool counting = budget != BUDGET_UNLIMITED;
    enum xres r = X_OK;
    uint8_t part = part_enter(x, PART_HELPERS);
    x->exit.reason = EXIT_NONE;
    if (counting != x->counting) {
        x->counting = counting;
        mode_update(x);
    }
    x->budget = counting ? (int64_t)budget : INT64_MAX;
    while (r == X_OK) {
        if (counting && x->budget <= 0) {
            x->exit.reason = EXIT_BUDGET;
            break;
        }
        if (events_due(x) && (r = poll_events(x)) != X_OK)
            break;
        r = run_some(x);
    }
    fpu_save(x);
    part_leave(x, part);
    *exit = x->exit;
}
