// SPDX-License-Identifier: Apache-2.0
// Port 0x92. A20 is always open; its bit is remembered. The register is one atomic byte.
#include "dev/port92.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>

enum { PORT92_RESET = 0x01, PORT92_A20 = 0x02 };

struct port92 {
    struct machine *machine;
    _Atomic uint8_t value;
};

static void port92_read(void *ctx, struct bus_access *a) {
    struct port92 *p = ctx;

    a->data = atomic_load(&p->value);
}

static void port92_write(void *ctx, const struct bus_access *a) {
    struct port92 *p = ctx;
    uint8_t val = a->data & 0xff, old = atomic_exchange(&p->value, val);

    if (val & ~old & PORT92_RESET)
        machine_reset_request(p->machine);
}

static void port92_reset(void *ctx) {
    struct port92 *p = ctx;

    atomic_store(&p->value, PORT92_A20);
}

static void port92_save(void *ctx, struct state_writer *w) {
    struct port92 *p = ctx;

    state_put_u8(w, atomic_load(&p->value));
}

static int port92_load(void *ctx, struct state_reader *r, struct error *err) {
    struct port92 *p = ctx;

    atomic_store(&p->value, state_get_u8(r));
    return r->error ? error_set(err, r->error, "saved state of port 92h is damaged") : 0;
}

static const struct component_ops component_ops = {
    .name = "port92",
    .version = 1,
    .reset = port92_reset,
    .save = port92_save,
    .load = port92_load,
    .destroy = free,
};

static const struct bus_ops port_ops = {.name = "port92", .read = port92_read, .write = port92_write};

int port92_create(struct dev_env *env, struct error *err) {
    const struct dev_range range = {env->pio, 0x92, 1, &port_ops};
    struct port92 *p = calloc(1, sizeof(*p));
    int ret;

    if (!p)
        return error_set(err, -ENOMEM, "create port 92h");
    p->machine = env->machine;
    port92_reset(p);
    ret = dev_attach(env, &component_ops, p, 0, &range, 1, err);
    if (ret)
        free(p);
    return ret;
}
