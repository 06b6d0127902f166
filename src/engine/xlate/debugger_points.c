// SPDX-License-Identifier: Apache-2.0
// Changing a debugger's points; see debugger.h.
#include <errno.h>
#include <stdlib.h>

#include "engine/xlate/cache.h"
#include "engine/xlate/debugger.h"
#include "engine/xlate/mmu.h"

// What was translated or looked up before must notice the points of the set.
static void take_effect(struct engine *e, const struct debugger *d) {
    for (unsigned i = 0; i < d->count; i++)
        if (debugger_is_breakpoint(&d->points[i]))
            cache_drop_linear_page(e, d->points[i].addr & PAGE_MASK);
    for (unsigned i = 0; i < e->ncpus; i++) {
        if (!e->cpus[i])
            continue;
        e->cpus[i]->watch_hit = NULL; // a point of the old set
        if (d->watchpoints)
            mmu_flush_all(e->cpus[i]);
    }
}

int debugger_set_points(struct engine *e, const struct debug_point *points, unsigned count) {
    struct debugger old = e->debugger, fresh = {.count = count};

    if (count) {
        fresh.points = calloc(count, sizeof(*points));
        if (!fresh.points)
            return -ENOMEM;
        for (unsigned i = 0; i < count; i++) {
            fresh.points[i] = points[i];
            *(debugger_is_breakpoint(&points[i]) ? &fresh.breakpoints : &fresh.watchpoints) += 1;
        }
    }
    e->debugger = fresh;
    take_effect(e, &old);
    take_effect(e, &fresh);
    free(old.points);
    return 0;
}

void debugger_destroy(struct engine *e) {
    free(e->debugger.points);
}
