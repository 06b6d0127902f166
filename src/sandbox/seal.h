// SPDX-License-Identifier: Apache-2.0
// The third phase of start-up: from here on the process can do nothing but run its guest. Whoever breaks out of the
// guest into this process gets no privileges, no files beyond those already open, no new programs and no system
// calls outside a short list. Steps, in order:
//   seal_note_inherited  first thing in the process: which descriptors came from the caller
//   seal_privileges      everything is open, vCPU threads do not exist yet (they inherit the result)
//   seal_syscalls        all threads exist; covers them all; nothing of the guest has run
#ifndef CICADA_SANDBOX_SEAL_H
#define CICADA_SANDBOX_SEAL_H

#include <stdbool.h>

#include "util/error.h"

struct seal_options {
    bool network; // the process itself makes sockets (user-mode network)
    bool kvm;     // the engine is KVM or may become it: its ioctls
};

// Remembers the open descriptors above standard error. Also opens /dev/null for any of 0, 1, 2 that is closed, so
// that no disk ever becomes "standard output". Single-threaded.
// Files named /dev/fd/N work: they are opened anew before the original is closed.
void seal_note_inherited(void);
// Closes what was inherited, sets no_new_privs, drops all capabilities in every thread. 0 or negative errno.
int seal_privileges(struct error *err);

// Installs the system call filter for all threads. Where the host has no seccomp: warns and returns 0.
int seal_syscalls(const struct seal_options *opt, struct error *err);

#endif
