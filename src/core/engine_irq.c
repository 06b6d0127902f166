// SPDX-License-Identifier: Apache-2.0
// From the interrupt router to the chips inside the engine. Devices exist before the engine and may set a line at once:
// lines are low after reset, so what comes before the engine exists is dropped.
#include "core/engine_irq.h"

static void set_line(void *ctx, unsigned gsi, bool level) {
    struct machine *m = ctx;

    if (m->engine)
        m->engine_ops->irq_line(m->engine, gsi, level);
}

static void send_msi(void *ctx, uint64_t addr, uint32_t data) {
    struct machine *m = ctx;

    if (m->engine)
        m->engine_ops->irq_msi(m->engine, addr, data);
}

int engine_irq_attach(struct machine *m, struct error *err) {
    int r = irq_add_sink(&m->irq, set_line, m);

    if (r)
        return error_set(err, r, "connect the engine's interrupt controllers");
    irq_set_msi_sink(&m->irq, send_msi, m);
    return 0;
}
