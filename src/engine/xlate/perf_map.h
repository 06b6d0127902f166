// SPDX-License-Identifier: Apache-2.0
// /tmp/perf-PID.map, by which perf names addresses in the code cache (tools/perf/Documentation/jit-interface.txt).
#ifndef CICADA_XLATE_PERF_MAP_H
#define CICADA_XLATE_PERF_MAP_H

#include "engine/xlate/cache.h"

// Creates the file anew; phase "open". Follows no link: -EEXIST where somebody else's file has the name.
int perf_map_open(struct engine *e, struct error *err);
void perf_map_close(struct engine *e);
// Adds a line for a block, if there is a file. Under the cache's lock, after fpu_save.
void perf_map_add(struct engine *e, const struct tb *tb);

#endif
