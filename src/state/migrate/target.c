// SPDX-License-Identifier: Apache-2.0
// The receiving side; see the header.
#define LOG_UNIT "receive"
#include "state/migrate/target.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "state/migrate/blocks.h"
#include "state/migrate/postcopy.h"
#include "state/migrate/precopy.h"
#include "state/sections.h"
#include "util/log.h"

#define GREET_MS   10000
#define REFUSE_MS  2000
#define SYNC_BYTES ((size_t)32 << 20)
#define MESSAGES   16 // at one call of the loop, then its other work

struct target {
    struct machine *machine;
    const struct target_host *host;
    enum target_stage stage;
    struct wire wire;
    struct event_source *event;
    struct precopy_sink ram;
    bool lent;       // host->postcopy has the wire
    size_t unsynced; // bytes of disks that came since they were flushed
    bool paused;     // the guest was paused by its user
    struct error error;
};

const char *target_stage_name(enum target_stage stage) {
    static const char *const names[TARGET_STAGE_COUNT] = {
        [TARGET_COPY] = "receiving",  [TARGET_LOADED] = "received", [TARGET_POSTCOPY] = "post-copy",
        [TARGET_RUNNING] = "running", [TARGET_DOUBT] = "in doubt",  [TARGET_FAILED] = "failed",
    };
    return (unsigned)stage < TARGET_STAGE_COUNT ? names[stage] : "?";
}

// ---- before there is a machine ----

int target_greet(int fd, struct wire *w, char **manifest, struct error *err) {
    struct wire_message m;
    int ret = wire_init(w, fd);
    if (ret) {
        w->fd = fd;
        return error_set(err, ret, "connection of the source");
    }
    ret = wire_flush_wait(w, GREET_MS, err);
    if (ret == 0)
        ret = wire_next_wait(w, &m, GREET_MS, err);
    if (ret)
        return ret;
    if (m.type != WIRE_MANIFEST || memchr(m.body, 0, m.len))
        return error_set(err, -EINVAL, "damaged stream: no manifest");
    *manifest = strndup((const char *)m.body, m.len);
    return *manifest ? 0 : error_set(err, -ENOMEM, "read the manifest");
}

void target_refuse(struct wire *w, const char *text) {
    struct error ignored;
    if (w->fd >= 0 && wire_put(w, WIRE_REFUSE, text, strlen(text)) == 0)
        wire_flush_wait(w, REFUSE_MS, &ignored);
    wire_fini(w);
}

// ---- ends ----

static void take_wire_back(struct target *t) {
    if (t->lent)
        postcopy_end(t->host->postcopy, &t->wire);
    t->lent = false;
}

static void hang_up(struct target *t) {
    take_wire_back(t);
    event_remove(t->event);
    t->event = NULL;
    wire_fini(&t->wire);
}

static void end_as(struct target *t, enum target_stage stage) {
    t->stage = stage;
    t->host->ended(t->host->ctx);
}

// It has not run here and will not: the source may keep it, whatever it has said.
static void give_up(struct target *t) {
    take_wire_back(t);
    event_remove(t->event);
    t->event = NULL;
    target_refuse(&t->wire, t->error.text);
    end_as(t, TARGET_FAILED);
}

static void broken_connection(struct target *t, int ret) {
    bool gone = ret == -ECONNRESET || ret == -EPIPE;
    hang_up(t);
    if (gone)
        error_set(&t->error, -EINVAL, "the source has closed the connection");
    else
        error_set(&t->error, ret, "connection to the source");
    end_as(t, t->stage == TARGET_LOADED ? TARGET_DOUBT : TARGET_FAILED);
}

// ---- messages ----

// What the guest had on its disks must be on these before it can run here. Nobody runs here: the wait hurts only the
// last time, for what came since the one before.
static int sync_disks(struct target *t) {
    for (unsigned i = 0; t->unsynced && i < t->host->ndisks; i++)
        if (!t->host->disks[i]->read_only && fdatasync(t->host->disks[i]->fd) != 0)
            return error_set(&t->error, -errno, "write disk %u", i);
    t->unsynced = 0;
    return 0;
}

static int on_blocks(struct target *t, const struct wire_message *m) {
    int ret = blocks_receive(t->host->disks, t->host->ndisks, m, &t->error);
    t->unsynced += m->len;
    return ret == 0 && t->unsynced >= SYNC_BYTES ? sync_disks(t) : ret;
}

static int say(struct target *t, enum wire_type type) {
    if (!t->lent)
        return wire_put(&t->wire, type, NULL, 0);
    postcopy_say(t->host->postcopy, type);
    return 0;
}

static int on_state(struct target *t, const struct wire_message *m) {
    if (m->len < 1)
        return error_set(&t->error, -EINVAL, "damaged stream: no state");
    t->paused = m->body[0];
    int ret = sync_disks(t);
    if (ret)
        return ret;
    ret = sections_restore(m->body + 1, m->len - 1, &t->machine->components, &t->error);
    if (ret)
        return ret;
    t->stage = TARGET_LOADED;
    log_info("loaded: %" PRIu64 " pages came in", t->ram.pages);
    ret = say(t, WIRE_LOADED);
    return ret ? error_set(&t->error, ret, "answer the source") : 0;
}

static int guest_goes_on(struct target *t, struct error *err) {
    int ret = t->host->take(t->host->ctx, err);
    if (ret == 0 && t->lent)
        ret = postcopy_run(t->host->postcopy, err);
    if (ret)
        return ret;
    t->stage = t->lent ? TARGET_POSTCOPY : TARGET_RUNNING;
    if (t->paused)
        t->machine->paused = true; // the user's resume is the one that it waits for
    else
        machine_resume(t->machine);
    return 0;
}

// Running comes first: a source that does not hear of it is in doubt, two that run would be wrong.
static int on_commit(struct target *t) {
    struct error ignored;
    int ret = guest_goes_on(t, &t->error);
    if (ret)
        return ret;
    if (say(t, WIRE_RUNNING) == 0 && !t->lent)
        wire_flush_wait(&t->wire, REFUSE_MS, &ignored);
    if (t->lent)
        return 0; // on_complete follows
    hang_up(t);
    end_as(t, TARGET_RUNNING);
    return 0;
}

// ---- post-copy ----

static int on_message(struct target *t, const struct wire_message *m);

// The rest of the messages, behind WIRE_PENDING.
static void on_passed_on(void *ctx, const struct wire_message *m) {
    struct target *t = ctx;
    if (t->lent && on_message(t, m))
        give_up(t);
}

static void on_complete(void *ctx) {
    struct target *t = ctx;
    if (!t->lent)
        return;
    hang_up(t);
    log_info("all memory is here");
    end_as(t, TARGET_RUNNING);
}

static void on_broken(void *ctx, const struct error *why) {
    struct target *t = ctx;
    if (!t->lent)
        return;
    hang_up(t);
    error_set(&t->error, -EINVAL, "%s; the guest has not run here", why->text); // so the source may keep it
    end_as(t, TARGET_FAILED);
}

static int on_pending(struct target *t, const struct wire_message *m) {
    static const struct postcopy_host host = {.message = on_passed_on, .complete = on_complete, .broken = on_broken};
    int ret = sync_disks(t);
    if (ret)
        return ret;
    struct event_source *event = t->event;
    ret = postcopy_begin(t->host->postcopy, &t->wire, m, &host, t, &t->error);
    if (ret)
        return ret;
    t->lent = true;
    t->event = NULL;
    event_remove(event);
    return 0;
}

static int on_message(struct target *t, const struct wire_message *m) {
    bool copy = t->stage == TARGET_COPY;
    if (copy && !t->lent && (m->type == WIRE_PAGES || m->type == WIRE_ZEROES))
        return precopy_receive(&t->ram, m, &t->error);
    if (copy && m->type == WIRE_PENDING && t->host->postcopy && !t->lent)
        return on_pending(t, m);
    if (copy && m->type == WIRE_BLOCKS)
        return on_blocks(t, m);
    if (copy && m->type == WIRE_STATE)
        return on_state(t, m);
    if (m->type == WIRE_COMMIT && t->stage == TARGET_LOADED)
        return on_commit(t);
    return error_set(&t->error, -EINVAL, "damaged stream: message %u out of turn", m->type);
}

static bool connected(const struct target *t) {
    return t->wire.fd >= 0;
}

// What has come in is looked at before the end of the connection is: a WIRE_COMMIT may be the last that it brought.
static void take_messages(struct target *t) {
    struct wire_message m;
    int ret = 0;
    while (connected(t) && (ret = wire_next(&t->wire, &m, &t->error)) == 1) {
        ret = on_message(t, &m);
        if (ret)
            break;
    }
    if (connected(t) && ret < 0)
        give_up(t);
}

static void ready(void *ctx, uint32_t events) {
    struct target *t = ctx;
    int ret = 0;
    for (unsigned i = 0; i < MESSAGES && connected(t) && ret == 0; i++) {
        ret = wire_fill(&t->wire);
        take_messages(t);
    }
    if (connected(t) && (ret == 0 || ret == -EAGAIN))
        ret = wire_flush(&t->wire);
    if (connected(t) && ret && ret != -EAGAIN)
        broken_connection(t, ret);
    else if (connected(t))
        event_modify(t->event, EPOLLIN | (wire_queued(&t->wire) ? (uint32_t)EPOLLOUT : 0));
}

// ---- life ----

int target_create(struct machine *m, struct wire *w, const struct target_host *host, struct target **out,
                  struct error *err) {
    struct target *t = calloc(1, sizeof(*t));
    const uint8_t ready_for_postcopy = 1;
    int ret = t ? wire_put(w, WIRE_ACCEPT, &ready_for_postcopy, host->postcopy ? 1 : 0) : -ENOMEM;
    if (ret) {
        free(t);
        return error_set(err, ret, "receive");
    }
    *t = (struct target){.machine = m, .host = host, .wire = {.fd = -1}};
    ret = precopy_sink_create(m, &t->ram, err);
    if (ret == 0 && (ret = event_add(m->loop, w->fd, EPOLLIN | EPOLLOUT, ready, t, &t->event)))
        error_set(err, ret, "watch the connection of the source");
    if (ret) {
        target_destroy(t);
        return ret;
    }
    t->wire = *w;
    *w = (struct wire){.fd = -1};
    *out = t;
    return 0;
}

void target_destroy(struct target *t) {
    if (!t)
        return;
    hang_up(t);
    precopy_sink_destroy(&t->ram);
    free(t);
}

enum target_stage target_stage(const struct target *t) {
    return t->stage;
}

const char *target_error(const struct target *t) {
    return t->error.text;
}

int target_resume(struct target *t, struct error *err) {
    if (t->stage != TARGET_DOUBT)
        return error_set(err, -EINVAL, "the machine is %s", target_stage_name(t->stage));
    return guest_goes_on(t, err);
}
