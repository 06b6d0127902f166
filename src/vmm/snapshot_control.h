// SPDX-License-Identifier: Apache-2.0
// Snapshots as the control socket offers them. The VM is sealed and opens nothing: the client brings the open files
// (`state`, `memory`, one for each disk that is to be copied), the VM fills them, the client names them. A snapshot
// belongs to its client's connection: when that closes, the snapshot is given up and the guest goes on.
#ifndef CICADA_VMM_SNAPSHOT_CONTROL_H
#define CICADA_VMM_SNAPSHOT_CONTROL_H

#include <jansson.h>
#include <stdbool.h>

#include "util/error.h"
#include "vmm/board.h"
#include "vmm/config.h"

#define SNAPSHOT_ID_SIZE 33 // 32 hexadecimal digits

struct control_peer;
struct snapshot_control;

struct snapshot_params {
    bool live; // the guest goes on; otherwise it stands until snapshot-finish
    bool diff;
};

struct snapshot_finish_params {
    bool keep;                 // the client has published it
    bool end;                  // the VM ends (suspended); otherwise it goes on
    char id[SNAPSHOT_ID_SIZE]; // of the snapshot, and where it is: what a later difference refers to
    char path[4096];
};

// Members of a request. -EINVAL with err set.
int snapshot_params_parse(const json_t *request, struct snapshot_params *p, struct error *err);
int snapshot_finish_params_parse(const json_t *request, struct snapshot_finish_params *p, struct error *err);

// Phase "open": notes the files of the configuration. cfg and board are borrowed.
int snapshot_control_create(struct board *board, const struct vm_config *cfg, struct snapshot_control **sc,
                            struct error *err);
// Starts the writer thread; privileges are dropped, the filter is not yet set.
int snapshot_control_start(struct snapshot_control *sc, struct error *err);
void snapshot_control_destroy(struct snapshot_control *sc); // before the board; NULL is legal
// After a restore: the snapshot that a difference refers to.
void snapshot_control_set_parent(struct snapshot_control *sc, const char *id, const char *path);

// Loop thread. Descriptors of the peer: state, memory, then disks. Results are new references.
int snapshot_control_begin(struct snapshot_control *sc, struct control_peer *peer, const struct snapshot_params *p,
                           json_t **result, struct error *err);
int snapshot_control_status(struct snapshot_control *sc, const struct control_peer *peer, json_t **result,
                            struct error *err);
int snapshot_control_finish(struct snapshot_control *sc, const struct control_peer *peer,
                            const struct snapshot_finish_params *p, struct error *err);
bool snapshot_control_busy(const struct snapshot_control *sc); // one is being taken
void snapshot_control_peer_gone(struct snapshot_control *sc, const struct control_peer *peer);

#endif
