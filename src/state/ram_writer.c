// SPDX-License-Identifier: Apache-2.0
// The thread that writes guest RAM.
//
// Invariants: a job's fields belong to the loop thread while `busy` is false and to the writer while it is true; busy
// changes under lock. The copy of ram_writer_write_copy holds the pages in the order of the bitmaps.
#define LOG_UNIT "state"
#include "state/ram_writer.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "util/crc32c.h"
#include "util/io.h"
#include "util/log.h"
#include "util/thread.h"

#define BITS_PER_WORD (8 * sizeof(unsigned long))
#define RUN_PAGES     256 // in one system call

struct job {
    struct ram_map *map;
    unsigned long *const *todo;
    const uint8_t *copy; // pages of todo in order; NULL: from guest memory
    int fd;
    int (*fn)(void *arg); // instead of all above
    void *arg;
    void (*done)(void *ctx, int result);
    void *ctx;
    int result;
};

struct ram_writer {
    struct event_loop *loop;
    pthread_t thread;
    bool started;
    pthread_mutex_t lock;
    pthread_cond_t work;
    bool busy, quit; // under lock
    struct job job;
    uint8_t *copy; // kept mapped until the job that uses it is done
    size_t copy_bytes;
    atomic_bool cancel;
    atomic_uint_fast64_t pages_done;
};

static bool bit(const unsigned long *map, uint64_t page) {
    return map[page / BITS_PER_WORD] >> (page % BITS_PER_WORD) & 1;
}

static void set_bit(unsigned long *map, uint64_t page, bool value) {
    unsigned long mask = 1ul << (page % BITS_PER_WORD);
    map[page / BITS_PER_WORD] = value ? map[page / BITS_PER_WORD] | mask : map[page / BITS_PER_WORD] & ~mask;
}

static bool is_zero(const uint8_t *page) {
    const uint64_t *p = (const uint64_t *)page;
    for (unsigned i = 0; i < PAGE_SIZE / sizeof(*p); i += 8)
        if (p[i] | p[i + 1] | p[i + 2] | p[i + 3] | p[i + 4] | p[i + 5] | p[i + 6] | p[i + 7])
            return false;
    return true;
}

// Notes one page. Must its bytes go to the file?
static bool note_page(const struct job *j, struct ram_block *b, uint64_t page, const uint8_t *bytes) {
    bool zero = is_zero(bytes), stored = bit(b->stored, page);
    set_bit(b->pages, page, j->map->diff || !zero);
    b->crc[page] = crc32c(0, bytes, PAGE_SIZE);
    set_bit(b->stored, page, !zero || stored); // a zero over something is written too, and stays so
    return !zero || stored;
}

// Pages [page, page + n) of one block, all to do and contiguous at bytes.
static int write_run(const struct job *j, struct ram_block *b, uint64_t page, unsigned n, const uint8_t *bytes) {
    unsigned from = 0;
    for (unsigned i = 0; i <= n; i++) {
        if (i < n && note_page(j, b, page + i, bytes + i * PAGE_SIZE))
            continue;
        int ret = i > from && j->fd >= 0 ? io_write_at(j->fd, bytes + from * PAGE_SIZE, (i - from) * PAGE_SIZE,
                                                       b->offset + ((page + from) << PAGE_SHIFT))
                                         : 0;
        if (ret)
            return ret;
        from = i + 1;
    }
    return 0;
}

// Length of the run of pages to do at `page`.
static unsigned run_length(const unsigned long *todo, uint64_t page, uint64_t pages) {
    unsigned n = 0;
    while (n < RUN_PAGES && page + n < pages && bit(todo, page + n))
        n++;
    return n;
}

static int write_block(struct ram_writer *w, struct ram_block *b, const unsigned long *todo, const uint8_t **copy) {
    const struct job *j = &w->job;
    uint64_t pages = b->slot->size >> PAGE_SHIFT;
    int ret = 0;
    for (uint64_t page = 0; ret == 0 && page < pages;) {
        unsigned n = run_length(todo, page, pages);
        if (!todo[page / BITS_PER_WORD]) {
            page = (page / BITS_PER_WORD + 1) * BITS_PER_WORD;
            continue;
        }
        if (n) {
            ret = write_run(j, b, page, n, *copy ? *copy : b->slot->hva + (page << PAGE_SHIFT));
            *copy = *copy ? *copy + n * PAGE_SIZE : NULL;
            atomic_fetch_add(&w->pages_done, n);
        }
        if (atomic_load(&w->cancel))
            return -ECANCELED;
        page += n ? n : 1;
    }
    return ret;
}

static int job_run(struct ram_writer *w) {
    const struct job *j = &w->job;
    const uint8_t *copy = j->copy;
    int ret = 0;
    if (j->fn)
        return j->fn(j->arg);
    for (unsigned i = 0; ret == 0 && i < j->map->count; i++)
        ret = write_block(w, &j->map->blocks[i], j->todo[i], &copy);
    return ret;
}

static void copy_free(struct ram_writer *w) {
    if (w->copy)
        munmap(w->copy, w->copy_bytes);
    w->copy = NULL;
}

static void report(void *ctx) {
    struct ram_writer *w = ctx;
    if (w->job.copy)
        copy_free(w);
    w->job.done(w->job.ctx, w->job.result);
}

static void *writer_thread(void *arg) {
    struct ram_writer *w = arg;
    pthread_setname_np(pthread_self(), "snapshot");
    pthread_mutex_lock(&w->lock);
    for (;;) {
        while (!w->busy && !w->quit)
            pthread_cond_wait(&w->work, &w->lock);
        if (!w->busy)
            break;
        pthread_mutex_unlock(&w->lock);
        w->job.result = job_run(w);
        pthread_mutex_lock(&w->lock);
        w->busy = false;
        if (event_post(w->loop, report, w))
            log_error("snapshot: out of memory"); // whoever waits sees no progress and gives up
    }
    pthread_mutex_unlock(&w->lock);
    return NULL;
}

static void start(struct ram_writer *w, const struct job *j) {
    w->job = *j;
    atomic_store(&w->cancel, false);
    atomic_store(&w->pages_done, 0);
    pthread_mutex_lock(&w->lock);
    w->busy = true;
    pthread_cond_signal(&w->work);
    pthread_mutex_unlock(&w->lock);
}

void ram_writer_write(struct ram_writer *w, struct ram_map *map, unsigned long *const *todo, int fd,
                      void (*done)(void *ctx, int result), void *ctx) {
    start(w, &(struct job){.map = map, .todo = todo, .fd = fd, .done = done, .ctx = ctx});
}

void ram_writer_run(struct ram_writer *w, int (*fn)(void *arg), void *arg, void (*done)(void *ctx, int result),
                    void *ctx) {
    start(w, &(struct job){.fn = fn, .arg = arg, .done = done, .ctx = ctx});
}

static size_t count_pages(const struct ram_map *map, unsigned long *const *todo) {
    size_t n = 0;
    for (unsigned i = 0; i < map->count; i++)
        for (uint64_t k = 0; k < mem_bitmap_words(map->blocks[i].slot); k++)
            n += (unsigned)__builtin_popcountl(todo[i][k]);
    return n;
}

static void copy_block(const struct ram_block *b, const unsigned long *todo, uint8_t **at) {
    uint64_t pages = b->slot->size >> PAGE_SHIFT;
    for (uint64_t page = 0; page < pages;) {
        unsigned n = run_length(todo, page, pages);
        memcpy(*at, b->slot->hva + (page << PAGE_SHIFT), n * PAGE_SIZE);
        *at += n * PAGE_SIZE;
        page += n ? n : todo[page / BITS_PER_WORD] ? 1 : BITS_PER_WORD - page % BITS_PER_WORD;
    }
}

static int copy_alloc(struct ram_writer *w, size_t bytes) {
    copy_free(w);
    w->copy_bytes = bytes ? bytes : PAGE_SIZE;
    void *copy = mmap(NULL, w->copy_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (copy == MAP_FAILED)
        return -ENOMEM;
    if (madvise(copy, w->copy_bytes, MADV_HUGEPAGE) < 0) // a wish: fewer faults
        log_debug("madvise: %s", strerror(errno));
    w->copy = copy;
    return 0;
}

static int touch(void *arg) {
    struct ram_writer *w = arg;
    for (size_t at = 0; at < w->copy_bytes; at += PAGE_SIZE)
        ((volatile uint8_t *)w->copy)[at] = 0;
    return 0;
}

void ram_writer_prepare_copy(struct ram_writer *w, uint64_t pages, void (*done)(void *ctx, int result), void *ctx) {
    if (copy_alloc(w, pages * PAGE_SIZE))
        w->copy_bytes = 0; // nothing to touch
    ram_writer_run(w, touch, w, done, ctx);
}

int ram_writer_write_copy(struct ram_writer *w, struct ram_map *map, unsigned long *const *todo, int fd,
                          void (*done)(void *ctx, int result), void *ctx) {
    size_t bytes = count_pages(map, todo) * PAGE_SIZE;
    if ((!w->copy || w->copy_bytes < bytes) && copy_alloc(w, bytes))
        return -ENOMEM;
    uint8_t *at = w->copy;
    for (unsigned i = 0; i < map->count; i++)
        copy_block(&map->blocks[i], todo[i], &at);
    start(w, &(struct job){.map = map, .todo = todo, .copy = w->copy, .fd = fd, .done = done, .ctx = ctx});
    return 0;
}

void ram_writer_cancel(struct ram_writer *w) {
    atomic_store(&w->cancel, true);
}

uint64_t ram_writer_pages_done(const struct ram_writer *w) {
    return atomic_load(&w->pages_done);
}

int ram_writer_create(struct event_loop *loop, struct ram_writer **out, struct error *err) {
    struct ram_writer *w = calloc(1, sizeof(*w));
    if (!w)
        return error_set(err, -ENOMEM, "prepare snapshots");
    w->loop = loop;
    pthread_mutex_init(&w->lock, NULL);
    pthread_cond_init(&w->work, NULL);
    *out = w;
    return 0;
}

int ram_writer_start(struct ram_writer *w, struct error *err) {
    int ret = thread_start(&w->thread, writer_thread, w);
    w->started = ret == 0;
    return ret ? error_set(err, ret, "start the snapshot thread") : 0;
}

void ram_writer_destroy(struct ram_writer *w) {
    if (!w)
        return;
    ram_writer_cancel(w);
    pthread_mutex_lock(&w->lock);
    w->quit = true;
    pthread_cond_signal(&w->work);
    pthread_mutex_unlock(&w->lock);
    if (w->started)
        pthread_join(w->thread, NULL);
    copy_free(w);
    pthread_cond_destroy(&w->work);
    pthread_mutex_destroy(&w->lock);
    free(w);
}
