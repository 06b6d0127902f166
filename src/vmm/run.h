// SPDX-License-Identifier: Apache-2.0
// `cicada run` without its syntax: parse is done, then open everything, seal, run.
#ifndef CICADA_VMM_RUN_H
#define CICADA_VMM_RUN_H

#include <jansson.h>
#include <stdbool.h>

#include "core/machine.h"
#include "state/migrate/wire.h"
#include "util/error.h"
#include "vmm/config.h"

// Exit codes of `cicada run`; cicada(1) documents them.
enum {
    RUN_POWEROFF = 0,
    RUN_CALLER = 1, // usage, configuration, any file that the caller can correct
    RUN_HOST = 2,
    RUN_CRASH = 3,
    RUN_RESET = 4,
    RUN_INTERNAL = 5,
    RUN_SUSPENDED = 6, // its state is in a snapshot, or runs elsewhere
    RUN_KILLED = 130,  // Ctrl-A x; also 128 + SIGINT
};

// The terminal of the person in front of it, where there is one.
struct run_terminal {
    bool interactive;      // standard input is a terminal in whose foreground we are
    bool input;            // standard input may be read at all
    void (*enter)(void);   // raw mode; called when nothing can go wrong any more but the guest
    void (*leave)(void);   // back to the mode before
    void (*resumed)(void); // after SIGCONT
};

// Runs the VM to its end. cfg is parsed and not yet validated. Returns the exit code; err is set (err->code != 0)
// where a message is to be printed. On the main thread, once per process.
int run_vm(struct vm_config *cfg, const struct run_terminal *term, struct error *err);

// A VM that comes in by a migration: its source waits at the other end of the wire.
struct run_incoming {
    struct wire *wire; // taken over
    const json_t *manifest;
};
// The same for such a VM; cfg is of the manifest. Where it cannot be built, the source is told why.
int run_vm_incoming(struct vm_config *cfg, const struct run_terminal *term, const struct run_incoming *in,
                    struct error *err);

// A VM from a snapshot; cfg is of restore_open, with what the caller chose of the host's side. restore is borrowed.
struct restore;
int run_vm_restored(struct vm_config *cfg, const struct run_terminal *term, struct restore *restore, struct error *err);

// The exit code for an end of the machine. debug_exit is the V written to the debug-exit port:
// 64 + (V & 63), or 127 where V is not 0 and V & 63 is 0.
int run_exit_code(enum machine_end end, int debug_exit, int end_signal);

// Whose fault is it: RUN_CALLER for what the caller can correct, RUN_HOST for what the host lacks.
int run_error_code(int negative_errno);

#endif
