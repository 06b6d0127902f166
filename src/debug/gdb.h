// SPDX-License-Identifier: Apache-2.0
// One gdb talking to one machine: the remote serial protocol (gdb manual, appendix E) without its transport.
//
// All-stop. vCPU n is thread n + 1. Addresses are linear, in the address space of the thread that gdb has selected.
// Loop thread only. Whatever a client sends is answered or ignored; it may end the machine, and nothing worse.
#ifndef CICADA_DEBUG_GDB_H
#define CICADA_DEBUG_GDB_H

#include "core/machine.h"
#include "debug/gdb_packet.h"

struct gdb_session;

struct gdb_io {
    // Bytes for the client; between two packets from it at most one frame and two acknowledgements.
    void (*send)(void *ctx, const char *bytes, size_t len);
    // The client is done with us: close behind what was sent.
    void (*close)(void *ctx);
    void *ctx;
};

// Registers with the machine, whose vCPU threads do not run yet. -EOPNOTSUPP where the engine cannot be debugged.
int gdb_session_create(struct machine *m, const struct gdb_io *io, struct gdb_session **session, struct error *err);
void gdb_session_destroy(struct gdb_session *s); // after machine_run, before machine_destroy

void gdb_session_stop(struct gdb_session *s);  // somebody is coming, or is to be waited for
void gdb_session_begin(struct gdb_session *s); // a client is here: everything as at first, the machine stopped
void gdb_session_end(struct gdb_session *s);   // it is gone: the machine goes on without points
// One byte of the client.
void gdb_session_receive(struct gdb_session *s, uint8_t byte);
// The machine has ended: tells a client that waits for a stop.
void gdb_session_exited(struct gdb_session *s, int code);

#endif
