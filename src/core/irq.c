// SPDX-License-Identifier: Apache-2.0
// Interrupt routing. Sinks are registered while the board is built and fixed while vCPUs or devices run, so look-up
// takes no lock; the chips behind the sinks take their own.
#define LOG_UNIT "irq"
#include "core/irq.h"

#include <errno.h>
#include <stddef.h>

#include "util/log.h"

void irq_router_init(struct irq_router *r) {
    *r = (struct irq_router){0};
}

int irq_add_sink(struct irq_router *r, void (*set)(void *ctx, unsigned gsi, bool level), void *ctx) {
    if (r->nsinks == IRQ_MAX_SINKS)
        return -ENOSPC;
    r->sinks[r->nsinks].set = set;
    r->sinks[r->nsinks].ctx = ctx;
    r->nsinks++;
    return 0;
}

void irq_set_msi_sink(struct irq_router *r, void (*msi)(void *ctx, uint64_t addr, uint32_t data), void *ctx) {
    r->msi = msi;
    r->msi_ctx = ctx;
}

void irq_mute_sinks(struct irq_router *r, unsigned first, unsigned count, bool muted) {
    for (unsigned i = first; i < first + count && i < r->nsinks; i++)
        r->sinks[i].muted = muted;
}

void irq_set(struct irq_router *r, unsigned gsi, bool level) {
    if (gsi >= IRQ_GSI_COUNT) {
        log_debug("GSI %u does not exist", gsi);
        return;
    }
    for (unsigned i = 0; i < r->nsinks; i++)
        if (!r->sinks[i].muted)
            r->sinks[i].set(r->sinks[i].ctx, gsi, level);
}

void irq_msi(struct irq_router *r, uint64_t addr, uint32_t data) {
    if (r->msi)
        r->msi(r->msi_ctx, addr, data);
}

void irq_line_init(struct irq_line *l, struct irq_router *r, unsigned gsi) {
    *l = (struct irq_line){.router = r, .gsi = gsi, .lock = PTHREAD_MUTEX_INITIALIZER};
}

// The lock spans the call of the sinks: otherwise a release (1 to 0) that is overtaken by another user's assertion
// (0 to 1) would leave the line low while someone drives it.
void irq_line_set(struct irq_line *l, bool *held, bool level) {
    pthread_mutex_lock(&l->lock);
    if (*held != level) {
        *held = level;
        l->asserted += level ? 1u : -1u;
        if (l->asserted == (level ? 1u : 0u))
            irq_set(l->router, l->gsi, level);
    }
    pthread_mutex_unlock(&l->lock);
}
