// SPDX-License-Identifier: Apache-2.0
// Many VMs from one snapshot, in the background. This process is their template: it has opened and verified the
// snapshot once and has no threads; each clone is forked from it.
#ifndef CICADA_CLI_CLONES_H
#define CICADA_CLI_CLONES_H

#include <jansson.h>

#include "vmm/restore.h"

#define CLONES_MAX 1000

struct clones_options {
    const char *prefix; // clone i is called PREFIX-i
    unsigned count;     // 1 to CLONES_MAX
    bool json;          // print an array instead of a table
};

// Starts them one after the other, each as soon as the one before runs, and prints name, PID and the time from the fork
// to its first instruction. cfg is of restore_open and is changed for each: own name and with it MAC addresses, no host
// ports, its disks under private layers, serial console to nowhere unless it is a file or socket (then ".i" is added).
// Negative errno with the reason of the first that fails; those before it stay.
int clones_start(struct restore *r, struct vm_config *cfg, const struct clones_options *opt, struct error *err);

#endif
