// SPDX-License-Identifier: Apache-2.0
// What all chips share: attaching to buses and component list, conversion between ticks and nanoseconds.
#include "dev/dev.h"

#include <errno.h>

int dev_attach(struct dev_env *env, const struct component_ops *ops, void *ctx, unsigned instance,
               const struct dev_range *ranges, unsigned nranges, struct error *err) {
    int ret;
    unsigned i;

    for (i = 0; i < nranges; i++) {
        ret = bus_map(ranges[i].bus, ranges[i].base, ranges[i].len, ranges[i].ops, ctx);
        if (ret) {
            error_set(err, ret, "map %s at %#llx", ops->name, (unsigned long long)ranges[i].base);
            goto unmap;
        }
    }
    ret = component_add(env->components ? env->components : &env->machine->components, ops, ctx, instance);
    if (!ret)
        return 0;
    error_set(err, ret, "register %s", ops->name);
unmap:
    while (i--)
        bus_unmap(ranges[i].bus, ranges[i].base);
    return ret;
}

uint64_t dev_ns_to_ticks(uint64_t ns, uint64_t hz) {
    return (uint64_t)((unsigned __int128)ns * hz / 1000000000);
}

uint64_t dev_ticks_to_ns(uint64_t ticks, uint64_t hz) {
    unsigned __int128 ns = ((unsigned __int128)ticks * 1000000000 + hz - 1) / hz;
    return ns > INT64_MAX ? INT64_MAX : (uint64_t)ns;
}
