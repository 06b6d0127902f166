// SPDX-License-Identifier: Apache-2.0
// Pages that come while the guest runs; see the header.
//
// Invariants: the wire and the lists of pages belong to the thread from postcopy_begin to postcopy_end. A page is in
// `pending` until it was put; what is missing and not pending is zero. Under lock: running and broken, of which only
// one is ever set, begun, quit, and what the loop thread wants to be said. The thread waits in poll(2) or for `begun`
// only, so postcopy_end can join it.
#define LOG_UNIT "postcopy"
#include "state/migrate/postcopy.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "core/mem_lazy.h"
#include "util/log.h"
#include "util/thread.h"

#define BITS     (8 * sizeof(unsigned long))
#define LOOK_MS  1000             // at the least, for a connection that stands still
#define STALL_NS (15000000000ull) // nothing has come for so long: the source has given up before that

struct pages {
    unsigned long *pending, *asked; // a bit a page
};

struct postcopy {
    struct machine *machine;
    void (*lost)(void *ctx, const char *why);
    void *lost_ctx;
    const struct postcopy_host *host;
    void *host_ctx;
    pthread_t thread;
    bool started;
    int wake; // eventfd: quit or something to say
    struct wire wire;
    struct pages *blocks; // one for each of mem_slots
    unsigned count;
    uint64_t left, asked;    // pages pending; requests made
    uint64_t seen, moved_ns; // bytes received, and when the last one was
    bool told;               // the source knows that all pages are here
    struct error error;      // the thread's
    pthread_mutex_t lock;
    pthread_cond_t begin;
    bool begun, quit, running, broken;
    bool say[WIRE_TYPE_END], said_running;
};

static bool test_bit(const unsigned long *map, uint64_t page) {
    return map[page / BITS] >> (page % BITS) & 1;
}

static void set_bit(unsigned long *map, uint64_t page, bool value) {
    unsigned long mask = 1ul << (page % BITS);
    map[page / BITS] = value ? map[page / BITS] | mask : map[page / BITS] & ~mask;
}

// ---- what the loop thread is told ----

struct notice {
    struct postcopy *p;
    void (*fn)(struct notice *n);
    struct wire_message message; // its body lies behind
};

static void deliver(void *ctx) {
    struct notice *n = ctx;
    n->fn(n);
    free(n);
}

static void tell_message(struct notice *n) {
    n->p->host->message(n->p->host_ctx, &n->message);
}

static void tell_complete(struct notice *n) {
    n->p->host->complete(n->p->host_ctx);
}

static void tell_broken(struct notice *n) {
    n->p->host->broken(n->p->host_ctx, &n->p->error);
}

static int post(struct postcopy *p, void (*fn)(struct notice *n), const struct wire_message *m) {
    struct notice *n = malloc(sizeof(*n) + (m ? m->len : 0));
    if (!n)
        return -ENOMEM;
    *n = (struct notice){.p = p, .fn = fn};
    if (m) {
        n->message = (struct wire_message){.type = m->type, .body = (uint8_t *)(n + 1), .len = m->len};
        memcpy(n + 1, m->body, m->len);
    }
    int ret = event_post(p->machine->loop, deliver, n);
    if (ret)
        free(n);
    return ret;
}

// ---- pages that come ----

static int bad_pages(struct postcopy *p) {
    return error_set(&p->error, -EINVAL, "damaged stream: pages that are not pending");
}

static const struct mem_slot *slot_of(const struct postcopy *p, unsigned block) {
    unsigned count;
    return &mem_slots(p->machine->mem, &count)[block];
}

static int take_page(struct postcopy *p, unsigned block, uint64_t page, const uint8_t *data) {
    const struct mem_slot *s = slot_of(p, block);
    struct mem *mem = p->machine->mem;
    if (page >= s->size >> PAGE_SHIFT || !test_bit(p->blocks[block].pending, page))
        return bad_pages(p);
    int ret = data ? mem_lazy_put(mem, s, page, data) : mem_lazy_zero(mem, s, page, 1);
    if (ret)
        return error_set(&p->error, ret, "put a page into guest memory");
    set_bit(p->blocks[block].pending, page, false);
    p->left--;
    return 0;
}

static int take_zeroes(struct postcopy *p, unsigned block, uint64_t first, uint64_t count) {
    int ret = count > slot_of(p, block)->size >> PAGE_SHIFT ? bad_pages(p) : 0;
    for (uint64_t i = 0; ret == 0 && i < count; i++)
        ret = take_page(p, block, first + i, NULL);
    return ret;
}

static int take_pages(struct postcopy *p, const struct wire_message *m) {
    bool zeroes = m->type == WIRE_ZEROES;
    size_t item = zeroes ? 16 : 8 + PAGE_SIZE;
    uint32_t block = m->len >= 8 ? wire_get32(m->body) : UINT32_MAX;
    uint32_t n = m->len >= 8 ? wire_get32(m->body + 4) : 0;
    const uint8_t *list = m->body + 8, *data = list + 8 * (size_t)n;
    int ret = block >= p->count || m->len != 8 + item * (size_t)n ? bad_pages(p) : 0;
    for (uint32_t i = 0; ret == 0 && i < n; i++)
        ret = zeroes ? take_zeroes(p, block, wire_get64(list + 16 * i), wire_get64(list + 16 * i + 8))
                     : take_page(p, block, wire_get64(list + 8 * i), data + PAGE_SIZE * (size_t)i);
    return ret;
}

static int take_message(struct postcopy *p, const struct wire_message *m) {
    switch (m->type) {
    case WIRE_PAGES:
    case WIRE_ZEROES: return take_pages(p, m);
    case WIRE_STATE:
    case WIRE_BLOCKS:
    case WIRE_COMMIT: return post(p, tell_message, m) ? error_set(&p->error, -ENOMEM, "receive") : 0;
    default: return error_set(&p->error, -EINVAL, "damaged stream: message %u out of turn", m->type);
    }
}

// ---- pages that somebody waits for ----

static int ask(struct postcopy *p, unsigned block, uint64_t page) {
    uint8_t body[12];
    if (test_bit(p->blocks[block].asked, page))
        return 0;
    set_bit(p->blocks[block].asked, page, true);
    p->asked++;
    wire_set32(body, block);
    wire_set64(body + 4, page);
    int ret = wire_put(&p->wire, WIRE_REQUEST, body, sizeof(body));
    return ret ? error_set(&p->error, ret, "ask for a page") : 0;
}

static int serve_faults(struct postcopy *p) {
    struct mem *mem = p->machine->mem;
    const struct mem_slot *slot;
    uint64_t page;
    unsigned count;
    int ret;
    while ((ret = mem_lazy_fault(mem, &slot, &page)) == 1) {
        unsigned block = (unsigned)(slot - mem_slots(mem, &count));
        ret = test_bit(p->blocks[block].pending, page) ? ask(p, block, page) : mem_lazy_zero(mem, slot, page, 1);
        if (ret)
            break;
    }
    return ret && !p->error.code ? error_set(&p->error, ret, "serve the faults of guest memory") : ret;
}

// ---- the thread ----

static int say_what_is_wanted(struct postcopy *p) {
    static const enum wire_type types[] = {WIRE_LOADED, WIRE_RUNNING};
    int ret = 0;
    pthread_mutex_lock(&p->lock);
    for (unsigned i = 0; i < ARRAY_LEN(types); i++) {
        if (p->say[types[i]])
            ret |= wire_put(&p->wire, types[i], NULL, 0);
        p->said_running |= p->say[types[i]] && types[i] == WIRE_RUNNING;
        p->say[types[i]] = false;
    }
    bool all = p->left == 0 && p->said_running && !p->told;
    pthread_mutex_unlock(&p->lock);
    if (all) {
        mem_lazy_end(p->machine->mem);
        ret |= wire_put(&p->wire, WIRE_COMPLETE, NULL, 0);
        p->told = true;
    }
    return ret ? error_set(&p->error, -ENOMEM, "answer the source") : 0;
}

static bool is_running(struct postcopy *p) {
    pthread_mutex_lock(&p->lock);
    bool running = p->running;
    pthread_mutex_unlock(&p->lock);
    return running;
}

// The source sends all the time once the guest runs here, until it has nothing left.
static bool stalled(struct postcopy *p) {
    uint64_t now = event_now_ns();
    if (p->wire.received != p->seen || p->left == 0 || !is_running(p)) {
        p->seen = p->wire.received;
        p->moved_ns = now;
    }
    return now - p->moved_ns > STALL_NS;
}

// All that can be done without waiting. 1 where that was the last; or a negative errno.
static int work(struct postcopy *p) {
    struct wire_message m;
    int ret = wire_fill(&p->wire), closed = ret == -EAGAIN ? 0 : ret;
    while ((ret = wire_next(&p->wire, &m, &p->error)) == 1 && (ret = take_message(p, &m)) == 0) {
    }
    if (ret == 0)
        ret = serve_faults(p);
    if (ret == 0)
        ret = say_what_is_wanted(p);
    if (ret == 0 && (ret = wire_flush(&p->wire)) == -EAGAIN)
        ret = 0;
    if (ret == 0 && p->told && !wire_queued(&p->wire))
        return 1;
    if (ret == 0 && !closed && stalled(p))
        ret = error_set(&p->error, -ETIMEDOUT, "the source does not answer");
    return ret ? ret : closed;
}

// True: something is to be done; false: the thread is to end.
static bool wait_for_work(struct postcopy *p) {
    uint64_t count;
    struct pollfd fds[] = {
        {.fd = p->wake, .events = POLLIN},
        {.fd = p->wire.fd, .events = (short)(POLLIN | (wire_queued(&p->wire) ? POLLOUT : 0))},
        {.fd = mem_lazy_fd(p->machine->mem), .events = POLLIN},
    };
    if (poll(fds, ARRAY_LEN(fds), LOOK_MS) > 0 && fds[0].revents && read(p->wake, &count, sizeof(count)) < 0)
        log_debug("read eventfd: %s", strerror(errno));
    pthread_mutex_lock(&p->lock);
    bool go = !p->quit;
    pthread_mutex_unlock(&p->lock);
    return go;
}

static void tell(struct postcopy *p, void (*fn)(struct notice *n)) {
    if (post(p, fn, NULL))
        log_error("out of memory");
}

static void break_off(struct postcopy *p, int ret) {
    if (p->left == 0 && is_running(p)) { // whatever the source has heard: it is not needed any more
        mem_lazy_end(p->machine->mem);
        tell(p, tell_complete);
        return;
    }
    if (!p->error.code && (ret == -ECONNRESET || ret == -EPIPE))
        error_set(&p->error, -EINVAL, "the source has closed the connection");
    else if (!p->error.code)
        error_set(&p->error, ret, "connection to the source");
    pthread_mutex_lock(&p->lock);
    bool running = p->running;
    p->broken = !running;
    pthread_mutex_unlock(&p->lock);
    if (running) {
        p->lost(p->lost_ctx, p->error.text);
        return;
    }
    mem_lazy_end(p->machine->mem); // the loop thread may wait for a page
    tell(p, tell_broken);
}

static bool wait_for_begin(struct postcopy *p) {
    pthread_mutex_lock(&p->lock);
    while (!p->begun && !p->quit)
        pthread_cond_wait(&p->begin, &p->lock);
    bool go = !p->quit;
    pthread_mutex_unlock(&p->lock);
    return go;
}

static void *thread_main(void *arg) {
    struct postcopy *p = arg;
    int ret = 0;
    pthread_setname_np(pthread_self(), "post-copy");
    if (!wait_for_begin(p))
        return NULL;
    while ((ret = work(p)) == 0)
        if (!wait_for_work(p))
            return NULL;
    if (ret < 0)
        break_off(p, ret);
    else
        tell(p, tell_complete);
    return NULL;
}

// ---- the loop thread's side ----

// Pages that are pending may be here already, in an old version.
static int drop_pending(struct postcopy *p, unsigned block) {
    const struct mem_slot *s = slot_of(p, block);
    const unsigned long *map = p->blocks[block].pending;
    uint64_t pages = s->size >> PAGE_SHIFT;
    int ret = 0;
    for (uint64_t page = 0, n; ret == 0 && page < pages; page += n ? n : 1) {
        for (n = 0; page + n < pages && test_bit(map, page + n); n++) {
        }
        ret = n ? mem_lazy_drop(p->machine->mem, s, page, n) : 0;
        p->left += n;
    }
    return ret;
}

static int read_pending(struct postcopy *p, const struct wire_message *m, struct error *err) {
    const uint8_t *at = m->body;
    size_t words = 0;
    for (unsigned i = 0; i < p->count; i++)
        words += mem_bitmap_words(slot_of(p, i));
    if (m->len != 8 * words)
        return error_set(err, -EINVAL, "damaged stream: lists of pending pages");
    for (unsigned i = 0; i < p->count; i++) {
        for (uint64_t w = 0; w < mem_bitmap_words(slot_of(p, i)); w++, at += 8)
            p->blocks[i].pending[w] = wire_get64(at);
        int ret = drop_pending(p, i);
        if (ret)
            return error_set(err, ret, "make room for pending pages");
    }
    return 0;
}

int postcopy_begin(struct postcopy *p, struct wire *w, const struct wire_message *m, const struct postcopy_host *host,
                   void *ctx, struct error *err) {
    int ret = read_pending(p, m, err);
    if (ret == 0)
        ret = mem_lazy_begin(p->machine->mem, err);
    if (ret)
        return ret;
    log_info("%" PRIu64 " pages are still at the source", p->left);
    p->host = host;
    p->host_ctx = ctx;
    p->moved_ns = event_now_ns();
    p->wire = *w;
    *w = (struct wire){.fd = -1};
    pthread_mutex_lock(&p->lock);
    p->begun = true;
    pthread_cond_signal(&p->begin);
    pthread_mutex_unlock(&p->lock);
    return 0;
}

static void wake(struct postcopy *p) {
    const uint64_t one = 1;
    if (write(p->wake, &one, sizeof(one)) < 0)
        log_warn("write eventfd: %s", strerror(errno));
}

void postcopy_say(struct postcopy *p, enum wire_type type) {
    pthread_mutex_lock(&p->lock);
    p->say[type] = true;
    pthread_mutex_unlock(&p->lock);
    wake(p);
}

int postcopy_run(struct postcopy *p, struct error *err) {
    pthread_mutex_lock(&p->lock);
    p->running = !p->broken;
    pthread_mutex_unlock(&p->lock);
    return p->running ? 0 : error_set(err, -EIO, "the connection to the source broke");
}

static void join(struct postcopy *p) {
    if (!p->started)
        return;
    pthread_mutex_lock(&p->lock);
    p->quit = true;
    pthread_cond_signal(&p->begin);
    pthread_mutex_unlock(&p->lock);
    wake(p);
    pthread_join(p->thread, NULL);
    p->started = false;
}

void postcopy_end(struct postcopy *p, struct wire *w) {
    join(p);
    log_info("%" PRIu64 " pages were asked for, %" PRIu64 " have not come", p->asked, p->left);
    mem_lazy_end(p->machine->mem);
    *w = p->wire;
    p->wire = (struct wire){.fd = -1};
}

// ---- life ----

static int blocks_new(struct postcopy *p) {
    const struct mem_slot *slots = mem_slots(p->machine->mem, &p->count);
    p->blocks = calloc(p->count ? p->count : 1, sizeof(*p->blocks));
    bool ok = p->blocks;
    for (unsigned i = 0; ok && i < p->count; i++) {
        p->blocks[i].pending = calloc(mem_bitmap_words(&slots[i]), sizeof(unsigned long));
        p->blocks[i].asked = calloc(mem_bitmap_words(&slots[i]), sizeof(unsigned long));
        ok = p->blocks[i].pending && p->blocks[i].asked;
    }
    return ok ? 0 : -ENOMEM;
}

int postcopy_create(struct machine *m, void (*lost)(void *ctx, const char *why), void *ctx, struct postcopy **out,
                    struct error *err) {
    struct postcopy *p = calloc(1, sizeof(*p));
    if (!p)
        return error_set(err, -ENOMEM, "prepare post-copy");
    *p = (struct postcopy){.machine = m, .lost = lost, .lost_ctx = ctx, .wire = {.fd = -1}};
    pthread_mutex_init(&p->lock, NULL);
    pthread_cond_init(&p->begin, NULL);
    p->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    int ret = p->wake < 0 ? -errno : blocks_new(p);
    if (ret)
        error_set(err, ret, "prepare post-copy");
    else if ((ret = mem_lazy_open(m->mem, m->engine_ops->faults_in_kernel, err)))
        error_prefix(err, "post-copy");
    if (ret)
        postcopy_destroy(p);
    else
        *out = p;
    return ret;
}

int postcopy_start(struct postcopy *p, struct error *err) {
    int ret = thread_start(&p->thread, thread_main, p);
    p->started = ret == 0;
    return ret ? error_set(err, ret, "start the thread of post-copy") : 0;
}

void postcopy_destroy(struct postcopy *p) {
    if (!p)
        return;
    join(p);
    wire_fini(&p->wire);
    for (unsigned i = 0; p->blocks && i < p->count; i++) {
        free(p->blocks[i].pending);
        free(p->blocks[i].asked);
    }
    free(p->blocks);
    if (p->wake >= 0)
        close(p->wake);
    pthread_cond_destroy(&p->begin);
    pthread_mutex_destroy(&p->lock);
    free(p);
}
