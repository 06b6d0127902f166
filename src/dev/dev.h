// SPDX-License-Identifier: Apache-2.0
// What a chip of the board is attached to. Each chip has its own header with
//   int NAME_create(struct dev_env *env, ...where it sits..., struct NAME **out, struct error *err);
// which maps its registers and registers its component (so destroy comes with the list's owner, the machine).
#ifndef CICADA_DEV_DEV_H
#define CICADA_DEV_DEV_H

#include "bus/bus.h"
#include "core/machine.h"

struct dev_env {
    struct machine *machine; // clock, irq, nondet, components, mem
    struct bus *pio;
    struct bus *mmio;
    struct component_list *components; // where the chips register, NULL: the machine's
};

// A periodic timer that a guest programs shorter than this fires no faster: it may not occupy the event loop.
#define DEV_MIN_PERIOD_NS UINT64_C(20000)

struct dev_range {
    struct bus *bus;
    uint64_t base, len;
    const struct bus_ops *ops;
};

// Last step of a create function: maps the ranges and registers the component. On failure nothing stays
// mapped or registered, err says what, and ctx stays the caller's. Returns 0 or a negative errno.
int dev_attach(struct dev_env *env, const struct component_ops *ops, void *ctx, unsigned instance,
               const struct dev_range *ranges, unsigned nranges, struct error *err);

// Ticks of `hz` in `ns` and back (rounded down, rounded up); no overflow for any ns.
uint64_t dev_ns_to_ticks(uint64_t ns, uint64_t hz);
uint64_t dev_ticks_to_ns(uint64_t ticks, uint64_t hz);

// A register value seen through an access of any size at `shift` bytes into it.
static inline uint64_t dev_lane(uint64_t value, unsigned shift) {
    return shift < 8 ? value >> (8 * shift) : 0;
}

#endif
