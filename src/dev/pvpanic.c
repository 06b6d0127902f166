// SPDX-License-Identifier: Apache-2.0
// pvpanic: one port, no state. Reads tell which events are understood.
#define LOG_UNIT "pvpanic"
#include "dev/pvpanic.h"

#include "util/log.h"

#define EVENT_PANICKED     0x01
#define EVENT_CRASH_LOADED 0x02 // a crash kernel takes over and will end the machine itself
#define EVENTS             (EVENT_PANICKED | EVENT_CRASH_LOADED)

static void pvpanic_read(void *ctx, struct bus_access *a) {
    a->data = EVENTS;
}

static void pvpanic_write(void *ctx, const struct bus_access *a) {
    if (a->data & EVENT_PANICKED) {
        log_error("guest panicked");
        machine_end(ctx, MACHINE_CRASH);
    } else if (a->data & EVENT_CRASH_LOADED) {
        log_warn("guest panicked and starts its crash kernel");
    }
}

static const struct component_ops component_ops = {.name = "pvpanic", .version = 1};
static const struct bus_ops port_ops = {.name = "pvpanic", .read = pvpanic_read, .write = pvpanic_write};

int pvpanic_create(struct dev_env *env, struct error *err) {
    const struct dev_range range = {env->pio, PVPANIC_PORT, 1, &port_ops};

    return dev_attach(env, &component_ops, env->machine, 0, &range, 1, err);
}
