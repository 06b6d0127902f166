// SPDX-License-Identifier: Apache-2.0
// A VM whose state comes from a snapshot, in the phases of vmm/run.c: parse (restore_open), open (restore_prepare),
// run (restore_run). Everything that can be refused is refused in the first two.
#ifndef CICADA_VMM_RESTORE_H
#define CICADA_VMM_RESTORE_H

#include <stdbool.h>

#include "core/machine.h"
#include "util/error.h"
#include "vmm/config.h"
#include "vmm/snapshot_control.h"

enum restore_clock {
    RESTORE_CLOCK_CONTINUE, // the guest does not notice that time has passed
    RESTORE_CLOCK_JUMP,     // its clocks go on from the present
};

struct restore_options {
    const char *path;
    bool eager;       // all memory is read, and verified, before the guest goes on
    const char *uffd; // socket of a handler that serves the memory (state/page_handler.h); NULL: the snapshot's file
    enum restore_clock clock;
};

struct restore;

// Opens and verifies the snapshot and sets cfg (initialised) to its machine. Negative errno with the reason in err.
int restore_open(const struct restore_options *opt, struct vm_config *cfg, struct restore **r, struct error *err);
void restore_close(struct restore *r); // NULL is legal
// Are the disks those of the snapshot? Before they are opened.
int restore_check_disks(const struct restore *r, const struct vm_config *cfg, struct error *err);
// Does the snapshot fit the machine that was built? Then gives it the memory. Phase "open".
int restore_prepare(struct restore *r, struct machine *m, struct snapshot_control *sc, struct error *err);
// fn(ctx) is called when the guest goes on; loop thread, sealed.
void restore_when_running(struct restore *r, void (*fn)(void *ctx), void *ctx);
// Starts what it needs of threads, with the vCPUs'. lost(ctx, why), on any thread: the memory will not come any more;
// it must end the process.
int restore_start(struct restore *r, void (*lost)(void *ctx, const char *why), void *ctx, struct error *err);
// Behind the last of the guest, while the machine still exists: nothing calls lost any more. NULL is legal.
void restore_stop(struct restore *r);
// Loads the state and runs, as machine_run. After the seal. err is set where the state was refused.
enum machine_end restore_run(struct restore *r, struct machine *m, struct error *err);

#endif
