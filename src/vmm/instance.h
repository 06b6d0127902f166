// SPDX-License-Identifier: Apache-2.0
// The run directory: one sub-directory per VM, named by it, with the control socket and a lock file that the VM
// keeps locked (flock) for as long as it lives. So a directory left behind by a VM that died is told from a live
// one without asking anybody, and is removed by whoever meets it.
//   ROOT/NAME/lock           flock held by the VM; holds its PID in decimal
//   ROOT/NAME/control.sock   JSON lines, see vmm/control.h
// ROOT is $XDG_RUNTIME_DIR/cicada; without the variable /run/cicada for root, else /tmp/cicada-UID (which must be
// ours and closed to others).
#ifndef CICADA_VMM_INSTANCE_H
#define CICADA_VMM_INSTANCE_H

#include <limits.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <sys/un.h>

#include "util/error.h"

struct instance {
    char root[PATH_MAX]; // the run directory
    char dir[PATH_MAX];  // of this VM
    char name[64];
    struct sockaddr_un addr; // of the control socket
    int lock_fd;             // -1 unless claimed
};

// Fills in the paths for a VM of that (valid) name; touches no file. -ENAMETOOLONG where the socket's path would
// not fit a socket address.
int instance_locate(const char *name, struct instance *inst, struct error *err);

// Makes the directory and takes the lock. -EEXIST with a clear text where a live VM has the name.
int instance_claim(const char *name, struct instance *inst, struct error *err);
// Removes the directory and gives the lock back. Needs no open(2), so it works after the seal.
void instance_release(struct instance *inst);

// Is there a live VM? Returns its PID (0 where it is not known yet), -ENOENT where there is none; what a dead one
// has left behind is removed.
pid_t instance_check(const struct instance *inst);

// Calls fn for each live VM, in order of name. 0, or negative errno with err set.
int instance_list(int (*fn)(void *ctx, const struct instance *inst, pid_t pid), void *ctx, struct error *err);

#endif
