// SPDX-License-Identifier: Apache-2.0
// Live migration as the control socket offers it, and the VM that came in by one. The VM is sealed and makes no
// connection: the client connects and hands the socket over with the request.
//
// At most one migration at a time, out or in. Loop thread, but for create.
#ifndef CICADA_VMM_MIGRATE_CONTROL_H
#define CICADA_VMM_MIGRATE_CONTROL_H

#include <jansson.h>

#include "state/migrate/source.h"
#include "state/migrate/wire.h"
#include "util/error.h"
#include "vmm/board.h"
#include "vmm/config.h"

struct control_peer;
struct migrate_control;

#define MIGRATE_DOWNTIME_MS 50 // defaults
#define MIGRATE_ROUNDS      30

struct migrate_params {
    struct source_options opt;
    bool copy_disks;
    bool same_host; // both sides see the same page cache: nothing to flush
};

// Members of a request. -EINVAL with err set.
int migrate_params_parse(const json_t *request, struct migrate_params *p, struct error *err);

// Phase "open": notes the files of the configuration, which the sealed process cannot look at. cfg and board are
// borrowed.
int migrate_control_create(struct board *board, const struct vm_config *cfg, struct migrate_control **mc,
                           struct error *err);
void migrate_control_destroy(struct migrate_control *mc); // before the board; NULL is legal

// What a VM that comes in will need, by its manifest: post-copy makes its userfaultfd in phase "open" and starts its
// thread with the vCPUs'. lost(ctx, why), on any thread: its memory will not come any more; it must end the process.
int migrate_control_prepare(struct migrate_control *mc, const json_t *manifest,
                            void (*lost)(void *ctx, const char *why), void *ctx, struct error *err);
int migrate_control_start(struct migrate_control *mc, struct error *err);
// The VM comes in over w, which is taken over on success; the machine is in its reset state (machine_run_incoming).
int migrate_control_receive(struct migrate_control *mc, struct wire *w, struct error *err);

// Begins, with the connected socket as the only descriptor of the peer.
int migrate_control_begin(struct migrate_control *mc, struct control_peer *peer, const struct migrate_params *p,
                          struct error *err);
// A new reference. A client that learns so that the guest has moved ends the VM by it.
int migrate_control_status(struct migrate_control *mc, json_t **result, struct error *err);
int migrate_control_cancel(struct migrate_control *mc, struct error *err);
// May the user's actions pause, resume, reset or save the machine now? 0, or -EBUSY with err set.
int migrate_control_idle(const struct migrate_control *mc, struct error *err);
// A person decides that a machine in doubt goes on here. 1 where there is no doubt; 0 or negative errno.
int migrate_control_resume(struct migrate_control *mc, struct error *err);
// What `info` calls the machine's state, NULL where it is not about a migration.
const char *migrate_control_state(const struct migrate_control *mc);
// Why a VM that came in never ran, "" otherwise.
const char *migrate_control_failure(const struct migrate_control *mc);

#endif
