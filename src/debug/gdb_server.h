// SPDX-License-Identifier: Apache-2.0
// The socket that gdb connects to: one client at a time, the next one waits in the backlog. The machine stops when one
// comes and goes on when it leaves.
#ifndef CICADA_DEBUG_GDB_SERVER_H
#define CICADA_DEBUG_GDB_SERVER_H

#include "core/machine.h"

struct gdb_server;

struct gdb_options {
    const char *path; // of a unix socket; NULL: TCP at 127.0.0.1
    uint16_t port;
    bool wait; // the machine stands before its first instruction until a client lets it go
};

// Phase "open", before machine_start_threads.
int gdb_server_create(struct machine *m, const struct gdb_options *opt, struct gdb_server **server, struct error *err);
// The machine has ended with this exit code: a client that waits for a stop is told.
void gdb_server_exited(struct gdb_server *g, int code);
void gdb_server_destroy(struct gdb_server *g); // after machine_run, before machine_destroy; NULL is legal

#endif
