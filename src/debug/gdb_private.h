// SPDX-License-Identifier: Apache-2.0
// What the parts of a gdb session share: gdb.c (packets in and out, registers, memory, points), gdb_resume.c (stop and
// go), gdb_query.c (q and Q), gdb_monitor.c (the monitor command).
#ifndef CICADA_DEBUG_GDB_PRIVATE_H
#define CICADA_DEBUG_GDB_PRIVATE_H

#include "debug/gdb.h"
#include "debug/target.h"

struct gdb_session {
    struct gdb_io io;
    struct machine *machine;
    struct debug_target *target; // owned
    char *xml;                   // owned: the target description
    unsigned regs;               // how many there are
    bool no_ack;                 // QStartNoAckMode
    bool waiting;                // gdb waits for a stop reply
    bool tells_breaks;           // gdb knows swbreak and hwbreak
    bool physical;               // addresses are guest-physical
    unsigned cpu;                // Hg: of registers and memory
    int resume_cpu;              // Hc: of c and s; -1: all
    struct debug_event event;    // last stop
    uint8_t signal;              // the same
    struct gdb_reader reader;
    struct gdb_text out; // the reply being composed
    bool silent;         // there will be no reply now
};

#define GDB_SIGINT  2
#define GDB_SIGTRAP 5

// Replies; one for each packet.
static inline void gdb_ok(struct gdb_session *s) {
    gdb_put(&s->out, "OK");
}
void gdb_error(struct gdb_session *s, int negative_errno);

// A thread id: 0 (any) gives `any`; -1 (all) gives -1 where `all` is allowed. False for what is none.
bool gdb_get_thread(struct gdb_session *s, const char **p, bool all, int any, int *cpu);
// Of the selected thread; NULL: an error was replied.
const struct cpu_state *gdb_state(struct gdb_session *s);

// ---- gdb_resume.c: each takes the packet behind its first letter ----
void gdb_stop_reply(struct gdb_session *s);
void gdb_on_event(void *ctx, const struct debug_event *event); // debug_client.stopped
void gdb_interrupt(struct gdb_session *s);                     // 0x03
void gdb_cmd_continue(struct gdb_session *s, const char *p);
void gdb_cmd_continue_signal(struct gdb_session *s, const char *p);
void gdb_cmd_step(struct gdb_session *s, const char *p);
void gdb_cmd_step_signal(struct gdb_session *s, const char *p);
void gdb_cmd_vcont(struct gdb_session *s, const char *p); // behind "vCont"

// ---- gdb_query.c ----
void gdb_cmd_query(struct gdb_session *s, const char *p); // q
void gdb_cmd_set(struct gdb_session *s, const char *p);   // Q

// ---- gdb_monitor.c ----
void gdb_monitor(struct gdb_session *s, char *command); // text in, reply out

#endif
