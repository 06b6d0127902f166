// SPDX-License-Identifier: Apache-2.0
// Taking a snapshot of a running VM: what `snapshot`, `suspend` and `clone` have in common. This process makes and
// names the files, the VM fills them (vmm/snapshot_control.h).
#ifndef CICADA_CLI_TAKE_H
#define CICADA_CLI_TAKE_H

#include <limits.h>
#include <stdbool.h>
#include <stdint.h>

#include "util/error.h"

struct take_options {
    const char *name; // of the VM
    const char *to;   // directory to be made
    bool diff;
    int zstd; // level, 0: not compressed
    bool end; // the guest stands from the beginning, and the VM ends (suspend)
};

struct take_result {
    char path[PATH_MAX]; // absolute
    uint64_t pause_ns;   // for which the guest stood (0 with end)
};

// 0, or negative errno with err set; then the VM goes on as if nothing had been, and there is no directory.
int take_snapshot(const struct take_options *opt, struct take_result *result, struct error *err);

#endif
