// SPDX-License-Identifier: Apache-2.0
// Writes guest RAM to a snapshot's file on a thread of its own, while the guest runs or stands. The thread is started
// in phase "seal", with the vCPUs' (after it none can start), and sleeps without a job.
//
// Pages are read as they are: a page that the guest changes meanwhile is wrong in the file, but in the dirty log, and
// is given to a later ram_writer_write. All functions on the loop thread; one job at a time.
#ifndef CICADA_STATE_RAM_WRITER_H
#define CICADA_STATE_RAM_WRITER_H

#include "core/event.h"
#include "state/ram.h"

struct ram_writer;

int ram_writer_create(struct event_loop *loop, struct ram_writer **w, struct error *err);
// Starts the thread. Privileges are dropped by then: it inherits the rest.
int ram_writer_start(struct ram_writer *w, struct error *err);
void ram_writer_destroy(struct ram_writer *w); // waits for the job under way; NULL is legal

// Writes the pages whose bit is set in todo[i] (a bitmap for each block of map) to fd and notes them in map, then calls
// done(ctx, 0 or negative errno) on the loop thread. All borrowed until then; fd < 0 only notes.
void ram_writer_write(struct ram_writer *w, struct ram_map *map, unsigned long *const *todo, int fd,
                      void (*done)(void *ctx, int result), void *ctx);

// The same from a copy taken now, so that the guest may go on at once. -ENOMEM where there is no room for the copy:
// nothing has begun then.
int ram_writer_write_copy(struct ram_writer *w, struct ram_map *map, unsigned long *const *todo, int fd,
                          void (*done)(void *ctx, int result), void *ctx);

// Makes room for a later ram_writer_write_copy of so many pages, so that it does not have to while the guest stands;
// then done(ctx, 0). Without it, or with less, it works as well.
void ram_writer_prepare_copy(struct ram_writer *w, uint64_t pages, void (*done)(void *ctx, int result), void *ctx);

// Runs fn(arg) on the thread, for work that may block (fsync), then done(ctx, its result) on the loop thread.
void ram_writer_run(struct ram_writer *w, int (*fn)(void *arg), void *arg, void (*done)(void *ctx, int result),
                    void *ctx);

// Makes a write under way end early, with -ECANCELED. Any thread.
void ram_writer_cancel(struct ram_writer *w);
uint64_t ram_writer_pages_done(const struct ram_writer *w); // of the present or last job; any thread

#endif
