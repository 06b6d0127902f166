// SPDX-License-Identifier: Apache-2.0
// Debug-exit port: the first write wins, also among vCPUs that write at once.
#include "dev/debug_exit.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>

struct debug_exit {
    struct machine *machine;
    atomic_bool taken;
};

static void exit_write(void *ctx, const struct bus_access *a) {
    struct debug_exit *d = ctx;

    if (a->offset || atomic_exchange(&d->taken, true))
        return;
    d->machine->debug_exit = (int)(uint32_t)a->data;
    machine_end(d->machine, MACHINE_DEBUG_EXIT);
}

static void exit_read(void *ctx, struct bus_access *a) {
    a->data = UINT64_MAX;
}

// No state outlives the end of the machine: nothing to reset, save or load.
static const struct component_ops component_ops = {.name = "debug_exit", .version = 1, .destroy = free};
static const struct bus_ops port_ops = {.name = "debug-exit", .read = exit_read, .write = exit_write};

int debug_exit_create(struct dev_env *env, struct error *err) {
    const struct dev_range range = {env->pio, DEBUG_EXIT_PORT, 4, &port_ops};
    struct debug_exit *d = calloc(1, sizeof(*d));
    int ret;

    if (!d)
        return error_set(err, -ENOMEM, "create debug-exit port");
    d->machine = env->machine;
    ret = dev_attach(env, &component_ops, d, 0, &range, 1, err);
    if (ret)
        free(d);
    return ret;
}
