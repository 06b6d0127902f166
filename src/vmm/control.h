// SPDX-License-Identifier: Apache-2.0
// The actions on a running VM: one enum with parameter structs. Front ends (the control socket's JSON lines, later
// REST, OCI, libcicada) are parsers into it and nothing else.
//
// A request is one line, an object: {"action":"stop","id":7,"how":"now"}. "id" is optional and comes back as it
// is. The answer is one line: {"ok":true,"id":7,"result":{...}} or {"ok":false,"id":7,"error":"text","code":-22}.
#ifndef CICADA_VMM_CONTROL_H
#define CICADA_VMM_CONTROL_H

#include <jansson.h>
#include <stddef.h>

#include "core/machine.h"
#include "util/error.h"
#include "vmm/config.h"
#include "vmm/instance.h"
#include "vmm/migrate_control.h"
#include "vmm/snapshot_control.h"

enum control_verb {
    CONTROL_PING,
    CONTROL_INFO,
    CONTROL_STATS,
    CONTROL_STOP,
    CONTROL_PAUSE,
    CONTROL_RESUME,
    CONTROL_RESET,
    CONTROL_ENGINE,          // changes the engine; what it needs opened comes with the request
    CONTROL_SNAPSHOT,        // begins to save the machine into files that come with the request
    CONTROL_SNAPSHOT_STATUS, // how far it is
    CONTROL_SNAPSHOT_FINISH, // ends it
    CONTROL_MIGRATE,         // begins to move to where the socket leads that comes with the request
    CONTROL_MIGRATE_STATUS,  // how far it is
    CONTROL_MIGRATE_CANCEL,  // the guest goes on here
    CONTROL_VERB_COUNT
};

enum control_stop_how {
    CONTROL_STOP_NOW,  // ends the VM at once and cleanly; `cicada run` exits with 0
    CONTROL_STOP_ACPI, // presses the power button; the guest decides
};

struct control_action {
    enum control_verb verb;
    union {
        struct {
            enum control_stop_how how;
        } stop;
        struct {
            bool jump; // the guest's clocks go on at the present time, not from where they stood
        } resume;
        struct {
            const struct engine_ops *to;
        } engine;
        struct snapshot_params snapshot;
        struct snapshot_finish_params snapshot_finish;
        struct migrate_params migrate;
    };
};

#define CONTROL_FDS_MAX 16

// Who sent a request. Lives as long as the connection.
struct control_peer {
    int fds[CONTROL_FDS_MAX]; // sent along with the request (SCM_RIGHTS); an action that keeps one sets it to -1
    unsigned nfds;
};

// What the actions work on. Owned by vmm/run.c; lives as long as the server.
struct control_target {
    struct machine *machine;
    const struct vm_config *config;
    void (*power_button)(void *ctx); // may be NULL
    void *ctx;
    struct engine_switch *engine_switch; // NULL: cannot change its engine
    struct snapshot_control *snapshot;   // NULL: cannot be saved
    struct migrate_control *migrate;     // NULL: cannot be migrated
    // A client has gone; may be NULL. Loop thread.
    void (*peer_gone)(const struct control_target *target, const struct control_peer *peer);
};

// Parses a request of len bytes, which may hold anything. *id becomes a new reference to the request's "id", or
// NULL, also where the request is refused for another reason. 0 or -EINVAL with err set.
int control_parse(const char *line, size_t len, struct control_action *action, json_t **id, struct error *err);

// Does it. Loop thread. 0 and *result set to a new reference (NULL: nothing to tell), or negative errno.
// peer may be NULL (no descriptors come with the request).
int control_execute(const struct control_target *target, struct control_peer *peer, const struct control_action *action,
                    json_t **result, struct error *err);

// Parses, executes and gives the answer with its newline: a string to free(), NULL where memory ran out.
char *control_answer(const struct control_target *target, struct control_peer *peer, const char *line, size_t len);

// Opens what the JSON library would open late (its random seed). Before the seal.
void control_init(void);

// ---- the server on the VM's event loop (control_server.c) ----
#define CONTROL_LINE_MAX    65536
#define CONTROL_CLIENTS_MAX 16

struct control_server;
// Listens at inst->addr. Phase "open". target is borrowed.
int control_server_create(struct event_loop *loop, const struct instance *inst, const struct control_target *target,
                          struct control_server **server, struct error *err);
void control_server_destroy(struct control_server *server); // loop stopped; NULL is legal

// ---- the client side (control_client.c) ----
struct control_client {
    int fd;
};
// -ENOENT where no such VM runs.
int control_client_open(const struct instance *inst, struct control_client *c, struct error *err);
// Sends a request (borrowed) and waits for the answer, at most timeout_ms. 0 and *result (new reference, may be
// JSON null), or negative errno; a refusal by the VM comes back as its code and text.
int control_client_call(struct control_client *c, const json_t *request, int timeout_ms, json_t **result,
                        struct error *err);
// The same, with open files sent along (borrowed).
int control_client_call_fds(struct control_client *c, const json_t *request, const int *fds, unsigned nfds,
                            int timeout_ms, json_t **result, struct error *err);
// Waits until the VM has closed the connection: 0, or -ETIMEDOUT.
int control_client_wait_end(struct control_client *c, int timeout_ms);
void control_client_close(struct control_client *c);

#endif
