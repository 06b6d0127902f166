// SPDX-License-Identifier: Apache-2.0
// The sending side; see the header. Everything happens in two callbacks of the loop: the socket is ready, and a tick
// that looks for a connection that does not move.
#define LOG_UNIT "migrate"
#include "state/migrate/source.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>

#include "state/migrate/blocks.h"
#include "state/migrate/precopy.h"
#include "state/migrate/rate.h"
#include "state/migrate/throttle.h"
#include "state/sections.h"
#include "util/log.h"

#define MS             ((uint64_t)1000000)
#define TICK_NS        (100 * MS)
#define STALL_NS       (10000 * MS)      // nothing moves for so long: the connection counts as broken
#define CONNECT_NS     (60000 * MS)      // the target may take its time over opening its files
#define QUEUE_MAX      ((size_t)1 << 20) // bytes beyond what the socket takes
#define MESSAGES       8                 // at one call, then the loop's other work
#define STOP_COST_NS   (3 * MS)          // of stopping, saving and loading, beside the transfer
#define THROTTLE_FIRST 20u               // percent
#define THROTTLE_STEP  15u
#define THROTTLE_MAX   95u

struct source {
    struct machine *machine;
    struct source_options opt;
    const struct source_host *host;
    enum source_stage stage;
    struct wire wire;
    struct event_source *event;
    uint32_t events; // that we wait for
    struct event_timer tick;
    struct precopy ram;
    struct blocks blocks; // of the disks that are copied, none: of no disks
    struct throttle throttle;
    struct rate rate;
    unsigned round;
    uint64_t round_bytes;                    // that the last round had to send
    uint64_t begun_ns, stopped_ns, moved_ns; // event_now_ns at: creation, stop of the guest, last byte either way
    uint64_t bytes_seen;                     // at moved_ns
    uint64_t downtime_ns;
    uint64_t total; // bytes of the first round
    uint64_t sent;  // bytes, once the wire is closed
    bool standing;  // we stopped the guest
    bool state_queued, given;
    struct error error;
};

const char *source_stage_name(enum source_stage stage) {
    static const char *const names[SOURCE_STAGE_COUNT] = {
        [SOURCE_CONNECT] = "connecting",  [SOURCE_COPY] = "copying",       [SOURCE_STOP] = "stopped",
        [SOURCE_COMMIT] = "handing over", [SOURCE_POSTCOPY] = "post-copy", [SOURCE_MOVED] = "moved",
        [SOURCE_DOUBT] = "in doubt",      [SOURCE_LOST] = "lost",          [SOURCE_FAILED] = "failed",
    };
    return (unsigned)stage < SOURCE_STAGE_COUNT ? names[stage] : "?";
}

// ---- ends ----

static bool ended(const struct source *s) {
    return s->stage >= SOURCE_MOVED;
}

static uint64_t bytes_sent(const struct source *s) {
    return s->wire.fd >= 0 ? s->wire.sent : s->sent;
}

static void hang_up(struct source *s) {
    s->sent = bytes_sent(s);
    event_timer_cancel(&s->tick);
    event_remove(s->event);
    s->event = NULL;
    wire_fini(&s->wire);
    throttle_stop(&s->throttle);
    blocks_end(&s->blocks);
}

static void guest_goes_on(struct source *s) {
    if (s->standing)
        machine_resume(s->machine);
    s->standing = false;
}

static void stays_here(struct source *s) {
    s->stage = SOURCE_FAILED;
    precopy_give_up(&s->ram);
    guest_goes_on(s);
}

static void end_as(struct source *s, enum source_stage stage) {
    hang_up(s);
    s->stage = stage;
    if (stage == SOURCE_FAILED)
        stays_here(s);
    s->host->ended(s->host->ctx);
}

// In COMMIT nobody here can know whether the target has begun to run.
static void broken(struct source *s) {
    enum source_stage stage = s->stage == SOURCE_COMMIT     ? SOURCE_DOUBT
                              : s->stage == SOURCE_POSTCOPY ? SOURCE_LOST
                                                            : SOURCE_FAILED;
    log_warn("%s: %s", source_stage_name(stage), s->error.text);
    end_as(s, stage);
}

static void broken_connection(struct source *s, int ret) {
    if (ret == -ECONNRESET || ret == -EPIPE)
        error_set(&s->error, -EINVAL, "the target has closed the connection");
    else
        error_set(&s->error, ret, "connection to the target");
    s->error.code = -EIO;
    broken(s);
}

// ---- the last part: the guest stands ----

static int queue_state(struct source *s) {
    struct state_writer w = {0};
    state_put_u8(&w, s->machine->paused);
    struct state_writer run = {0};
    sections_begin(&run);
    int ret = sections_save(&run, &s->machine->components, &s->error);
    if (ret == 0)
        ret = sections_end(&run, &s->error);
    if (ret == 0) {
        state_put_bytes(&w, run.buf, run.len);
        ret = state_writer_error(&w) ? -ENOMEM : wire_put(&s->wire, WIRE_STATE, w.buf, w.len);
        if (ret)
            error_set(&s->error, ret, "send the state of the machine");
    }
    state_writer_free(&run);
    state_writer_free(&w);
    s->state_queued = ret == 0;
    return ret;
}

static uint64_t bytes_left(const struct source *s) {
    return (s->ram.left << PAGE_SHIFT) + s->blocks.left;
}

static void sync_logs(struct source *s) {
    blocks_sync(&s->blocks);
    precopy_sync(&s->ram);
}

// Pages that are not here yet do not hold post-copy up.
static uint64_t bytes_to_stop_for(const struct source *s) {
    return s->opt.postcopy ? s->blocks.left : bytes_left(s);
}

static int stop_guest(struct source *s) {
    throttle_stop(&s->throttle);
    s->stopped_ns = event_now_ns();
    machine_pause(s->machine);
    s->standing = true;
    s->stage = SOURCE_STOP;
    sync_logs(s);
    log_info("guest stopped: %" PRIu64 " KiB left", bytes_left(s) >> 10);
    if (s->opt.postcopy && precopy_send_pending(&s->ram, &s->wire))
        return error_set(&s->error, -ENOMEM, "send the lists of pages");
    return s->host->flush(s->host->ctx, &s->error);
}

static int commit(struct source *s) {
    s->host->give(s->host->ctx);
    s->given = true;
    s->stage = SOURCE_COMMIT; // from here on the guest does not run here
    int ret = wire_put(&s->wire, WIRE_COMMIT, NULL, 0);
    return ret ? error_set(&s->error, ret, "tell the target to go on") : 0;
}

// ---- rounds ----

static uint64_t estimate_ns(const struct source *s, uint64_t bytes) {
    uint64_t rate = rate_bytes(&s->rate, event_now_ns());
    uint64_t ns = rate ? (uint64_t)((double)bytes * 1e9 / (double)rate) : UINT64_MAX / 2;
    return ns + STOP_COST_NS;
}

// The guest writes about as fast as we send: it gets less time, step by step.
static void slow_down(struct source *s, uint64_t left) {
    if (!s->opt.throttle || s->round < 2 || left * 2 < s->round_bytes)
        return;
    unsigned percent = s->throttle.percent ? s->throttle.percent + THROTTLE_STEP : THROTTLE_FIRST;
    throttle_set(&s->throttle, percent < THROTTLE_MAX ? percent : THROTTLE_MAX);
}

static int end_of_round(struct source *s) {
    // A reset that is under way, or the end, is not to be cut in two: another look at the next tick.
    if (atomic_load(&s->machine->reset_pending) || atomic_load(&s->machine->end) != MACHINE_RUNNING)
        return 0;
    sync_logs(s);
    uint64_t left = bytes_left(s);
    s->downtime_ns = estimate_ns(s, bytes_to_stop_for(s));
    log_debug("round %u: %" PRIu64 " KiB written meanwhile, would stand for %" PRIu64 " ms", s->round, left >> 10,
              s->downtime_ns / MS);
    bool little = s->downtime_ns <= s->opt.downtime_ns || (s->opt.postcopy && bytes_to_stop_for(s) == 0);
    if (little || (s->round >= s->opt.rounds && s->opt.force))
        return stop_guest(s);
    if (s->round >= s->opt.rounds)
        return error_set(&s->error, -EINVAL,
                         "the guest writes faster than can be sent: after %u rounds it would stand for %" PRIu64
                         " ms (a longer --downtime, more --rounds, or --force)",
                         s->round, s->downtime_ns / MS);
    slow_down(s, left);
    s->round++;
    s->round_bytes = left;
    return 0;
}

// What nobody has asked for, and only when the socket has all that somebody has.
static int push_rest(struct source *s, bool *more) {
    int ret = 0;
    *more = wire_queued(&s->wire) || precopy_send_rest(&s->ram, &s->wire, &ret);
    return ret ? error_set(&s->error, ret, "send pages") : 0;
}

static bool sends_pages(const struct source *s) {
    return s->stage == SOURCE_COPY ? s->opt.postcopy != SOURCE_POSTCOPY_NOW : !s->opt.postcopy;
}

// Queues what comes next. *more: there is something to send at once.
static int produce(struct source *s, bool *more) {
    int ret = 0;
    *more = false;
    if (s->stage == SOURCE_POSTCOPY)
        return push_rest(s, more);
    if (s->stage != SOURCE_COPY && s->stage != SOURCE_STOP)
        return 0;
    if (blocks_send(&s->blocks, &s->wire, &ret, &s->error)) {
        *more = true;
        return ret;
    }
    if (sends_pages(s) && precopy_send(&s->ram, &s->wire, &ret)) {
        *more = true;
        return ret ? error_set(&s->error, ret, "send pages") : 0;
    }
    if (s->stage == SOURCE_STOP) {
        *more = !s->state_queued;
        return s->state_queued ? 0 : queue_state(s);
    }
    *more = wire_queued(&s->wire) != 0; // a round ends when the socket has all of it
    if (*more)
        return 0;
    ret = end_of_round(s);
    *more = ret == 0 && (bytes_left(s) || s->stage == SOURCE_STOP);
    return ret;
}

static void wait_for(struct source *s, uint32_t events) {
    if (events != s->events)
        event_modify(s->event, events);
    s->events = events;
}

static bool may_send(struct source *s) {
    return rate_allows(&s->rate, event_now_ns()) || s->stage == SOURCE_COMMIT;
}

// Sends until the socket is full, the rate is used up, or for long enough.
static void send_some(struct source *s) {
    bool more = true;
    int ret = 0;
    for (unsigned i = 0; i < MESSAGES && more && may_send(s); i++) {
        if (wire_queued(&s->wire) < QUEUE_MAX && produce(s, &more)) {
            broken(s);
            return;
        }
        uint64_t before = s->wire.sent;
        ret = wire_flush(&s->wire);
        rate_add(&s->rate, s->wire.sent - before);
        if (ret)
            break;
    }
    if (ret && ret != -EAGAIN) {
        broken_connection(s, ret);
        return;
    }
    bool out = (more || wire_queued(&s->wire)) && may_send(s); // else the tick goes on
    wait_for(s, EPOLLIN | (out ? (uint32_t)EPOLLOUT : 0));
}

// ---- what the target says ----

static int on_accept(struct source *s, const struct wire_message *m) {
    if (s->opt.postcopy && (m->len != 1 || !m->body[0]))
        return error_set(&s->error, -EINVAL, "the target knows no post-copy");
    s->stage = SOURCE_COPY;
    s->round = 1;
    int ret = blocks_begin(&s->blocks, s->machine, s->host->disks, s->host->ndisks, &s->error);
    if (ret == 0)
        ret = precopy_begin(&s->ram, &s->error);
    s->total = bytes_left(s);
    s->round_bytes = s->total;
    rate_start(&s->rate, event_now_ns());
    return ret;
}

static int on_refuse(struct source *s, const struct wire_message *m) {
    int len = m->len < 300 ? (int)m->len : 300;
    if (s->given && s->host->take(s->host->ctx, &s->error))
        return s->error.code; // in doubt: somebody else has the disks
    s->given = false;
    s->stage = s->stage == SOURCE_COMMIT ? SOURCE_STOP : s->stage; // it says that it has not run and will not
    return error_set(&s->error, -EINVAL, "the target says: %.*s", len, (const char *)m->body);
}

// Not even a limit of the rate is in the way of it: a vCPU waits.
static int on_request(struct source *s, const struct wire_message *m) {
    int ret = precopy_request(&s->ram, &s->wire, m);
    if (ret)
        return error_set(&s->error, ret, ret == -EINVAL ? "damaged stream: no such page" : "send a page");
    uint64_t before = s->wire.sent;
    wire_flush(&s->wire); // an error comes up again where we wait for it
    rate_add(&s->rate, s->wire.sent - before);
    return 0;
}

static int on_running(struct source *s) {
    s->downtime_ns = event_now_ns() - s->stopped_ns;
    log_info("the guest runs there, it stood for %" PRIu64 " us", s->downtime_ns / 1000);
    if (s->opt.postcopy)
        s->stage = SOURCE_POSTCOPY;
    else
        end_as(s, SOURCE_MOVED);
    return 0;
}

static int on_complete(struct source *s) {
    log_info("moved");
    end_as(s, SOURCE_MOVED);
    return 0;
}

static int on_message(struct source *s, const struct wire_message *m) {
    if (m->type == WIRE_REFUSE)
        return on_refuse(s, m);
    if (m->type == WIRE_ACCEPT && s->stage == SOURCE_CONNECT)
        return on_accept(s, m);
    bool all_sent = s->state_queued && (s->opt.postcopy || !wire_queued(&s->wire)); // pages that are asked for go on
    if (m->type == WIRE_LOADED && s->stage == SOURCE_STOP && all_sent)
        return commit(s);
    if (m->type == WIRE_REQUEST && s->opt.postcopy && s->stage >= SOURCE_STOP)
        return on_request(s, m);
    if (m->type == WIRE_COMPLETE && s->stage == SOURCE_POSTCOPY)
        return on_complete(s);
    if (m->type == WIRE_RUNNING && s->stage == SOURCE_COMMIT)
        return on_running(s);
    return error_set(&s->error, -EINVAL, "damaged stream: message %u out of turn", m->type);
}

static void receive(struct source *s) {
    struct wire_message m;
    int closed = wire_fill(&s->wire), ret = 0;
    while (!ended(s) && (ret = wire_next(&s->wire, &m, &s->error)) == 1) {
        ret = on_message(s, &m);
        if (ret)
            break;
    }
    if (ended(s))
        return;
    if (ret < 0)
        broken(s);
    else if (closed && closed != -EAGAIN)
        broken_connection(s, closed);
}

static void ready(void *ctx, uint32_t events) {
    struct source *s = ctx;
    if (events & (EPOLLIN | EPOLLHUP | EPOLLERR))
        receive(s);
    if (!ended(s))
        send_some(s);
}

static void tick(void *ctx) {
    struct source *s = ctx;
    uint64_t now = event_now_ns(), bytes = s->wire.sent + s->wire.received;
    if (bytes != s->bytes_seen) {
        s->bytes_seen = bytes;
        s->moved_ns = now;
    }
    if (now - s->moved_ns > (s->stage == SOURCE_CONNECT ? CONNECT_NS : STALL_NS)) {
        error_set(&s->error, -ETIMEDOUT, "the target does not answer");
        broken(s);
        return;
    }
    event_timer_arm(&s->tick, now + (s->opt.bandwidth ? TICK_NS / 10 : TICK_NS));
    send_some(s);
}

// ---- life ----

static int begin(struct source *s, int fd, const char *manifest, struct error *err) {
    int ret = wire_init(&s->wire, fd);
    if (ret)
        return error_set(err, ret, "connection to the target");
    ret = wire_put(&s->wire, WIRE_MANIFEST, manifest, strlen(manifest));
    if (ret == 0)
        ret = event_add(s->machine->loop, fd, EPOLLIN | EPOLLOUT, ready, s, &s->event);
    s->events = EPOLLIN | EPOLLOUT;
    if (ret) {
        s->wire.fd = -1; // stays the caller's
        return error_set(err, ret, "watch the connection to the target");
    }
    return 0;
}

int source_create(struct machine *m, int fd, const char *manifest, const struct source_options *opt,
                  const struct source_host *host, struct source **out, struct error *err) {
    struct source *s = calloc(1, sizeof(*s));
    if (!s)
        return error_set(err, -ENOMEM, "migrate");
    *s = (struct source){.machine = m, .opt = *opt, .host = host, .wire = {.fd = -1}};
    s->begun_ns = s->moved_ns = event_now_ns();
    throttle_init(&s->throttle, m);
    rate_init(&s->rate, opt->bandwidth);
    event_timer_init(&s->tick, m->loop, tick, s);
    int ret = precopy_create(m, &s->ram, err);
    if (ret == 0)
        ret = begin(s, fd, manifest, err);
    if (ret) {
        s->stage = SOURCE_FAILED;
        source_destroy(s);
        return ret;
    }
    event_timer_arm(&s->tick, event_now_ns() + TICK_NS);
    *out = s;
    return 0;
}

void source_destroy(struct source *s) {
    if (!s)
        return;
    hang_up(s);
    if (s->stage < SOURCE_COMMIT)
        guest_goes_on(s);
    precopy_destroy(&s->ram);
    free(s);
}

void source_progress(const struct source *s, struct source_progress *p) {
    *p = (struct source_progress){
        .stage = s->stage,
        .round = s->round,
        .total_bytes = s->total,
        .left_bytes = bytes_left(s),
        .sent_bytes = bytes_sent(s),
        .pages = s->ram.pages,
        .zeroes = s->ram.zeroes,
        .rate = rate_bytes(&s->rate, event_now_ns()),
        .throttle = s->throttle.percent,
        .downtime_ns = s->downtime_ns,
        .time_ns = event_now_ns() - s->begun_ns,
        .code = s->error.code,
        .error = s->error.text,
    };
}

int source_cancel(struct source *s, struct error *err) {
    if (s->stage >= SOURCE_COMMIT)
        return error_set(err, -EBUSY, "the migration is %s", source_stage_name(s->stage));
    error_set(&s->error, -EINVAL, "cancelled");
    broken(s);
    return 0;
}

int source_resume(struct source *s, struct error *err) {
    if (s->stage != SOURCE_DOUBT)
        return error_set(err, -EINVAL, "the migration is %s", source_stage_name(s->stage));
    int ret = s->given ? s->host->take(s->host->ctx, err) : 0;
    if (ret)
        return ret;
    s->given = false;
    stays_here(s);
    return 0;
}
