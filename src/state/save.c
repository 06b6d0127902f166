// SPDX-License-Identifier: Apache-2.0
// Saving a machine: see the header.
//
// Invariants: `held` says that this job has paused the machine once and has to resume it; a job that ends in any way
// passes end_job exactly once, which closes the files. The writer thread works only between a start and its done
// callback; save_finish during that time sets `finishing` and the callback ends the job.
#define LOG_UNIT "state"
#include "state/save.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "util/crc32c.h"
#include "util/io.h"
#include "util/log.h"

#define MAX_ROUNDS   6
#define ENOUGH_PAGES 4096  // so little left (16 MiB) that another round does not pay
#define COPY_PAGES   65536 // more than this (256 MiB) is not copied: the guest waits for the file

struct save {
    struct machine *machine;
    struct ram_writer *writer;
    struct save_options opt;
    struct save_progress progress;
    struct ram_map map;
    unsigned long **todo, **since; // a bitmap for each block
    struct state_writer state;
    uint64_t paused_at; // host time, while held
    bool held, writing, checkpointed, has_parent;
    bool finishing; // save_finish came while the writer was at work
};

static void go_on(struct save *s);

// ---- memory and files of a job ----

static void bitmaps_free(unsigned long **maps, unsigned count) {
    for (unsigned i = 0; maps && i < count; i++)
        free(maps[i]);
    free(maps);
}

static unsigned long **bitmaps_new(const struct ram_map *map) {
    unsigned long **maps = calloc(map->count + 1, sizeof(*maps));
    for (unsigned i = 0; maps && i < map->count; i++) {
        maps[i] = calloc(mem_bitmap_words(map->blocks[i].slot), sizeof(**maps));
        if (!maps[i]) {
            bitmaps_free(maps, map->count);
            return NULL;
        }
    }
    return maps;
}

static void close_fd(int *fd) {
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

static void job_free(struct save *s) {
    bitmaps_free(s->todo, s->map.count);
    bitmaps_free(s->since, s->map.count);
    s->todo = s->since = NULL;
    ram_map_free(&s->map);
    state_writer_free(&s->state);
    close_fd(&s->opt.state_fd);
    close_fd(&s->opt.memory_fd);
}

// ---- stopping and going on ----

static void hold(struct save *s) {
    if (s->held)
        return;
    s->paused_at = event_now_ns();
    machine_pause(s->machine);
    s->held = true;
}

static void let_go(struct save *s) {
    if (!s->held)
        return;
    s->held = false;
    machine_resume(s->machine);
    uint64_t stood = event_now_ns() - s->paused_at;
    if (stood > s->progress.pause_ns)
        s->progress.pause_ns = stood;
}

static void fail(struct save *s, int ret, const char *what) {
    if (what)
        error_set(&s->progress.error, ret, "%s", what);
    log_info("snapshot: %s", s->progress.error.text);
    s->progress.phase = SAVE_FAILED;
    if (s->opt.live)
        let_go(s);
}

static void end_job(struct save *s, bool keep, bool stay_stopped) {
    unsigned n = s->map.count;
    for (unsigned i = 0; s->checkpointed && !keep && i < n; i++)
        mem_checkpoint_undo(s->machine->mem, s->map.blocks[i].slot, s->since[i]);
    s->has_parent |= keep;
    if (!stay_stopped)
        let_go(s);
    job_free(s);
    s->progress.phase = SAVE_IDLE;
    s->finishing = false;
    if (s->opt.over)
        s->opt.over(s->opt.ctx);
}

// ---- which pages ----

static uint64_t count_todo(const struct save *s) {
    uint64_t n = 0;
    for (unsigned i = 0; i < s->map.count; i++)
        for (uint64_t k = 0; k < mem_bitmap_words(s->map.blocks[i].slot); k++)
            n += (unsigned)__builtin_popcountl(s->todo[i][k]);
    return n;
}

// Adds to todo what the dirty log names; vCPUs stopped. The log begins anew.
static void fetch_dirty(struct save *s) {
    struct machine *m = s->machine;
    m->engine_ops->dirty_sync(m->engine);
    for (unsigned i = 0; i < s->map.count; i++) {
        mem_dirty_fetch(m->mem, s->map.blocks[i].slot, s->since[i]); // which serves as a buffer here
        for (uint64_t k = 0; k < mem_bitmap_words(s->map.blocks[i].slot); k++)
            s->todo[i][k] |= s->since[i][k];
    }
}

static void clear_todo(struct save *s) {
    for (unsigned i = 0; i < s->map.count; i++)
        memset(s->todo[i], 0, mem_bitmap_words(s->map.blocks[i].slot) * sizeof(*s->todo[i]));
}

// All that the first round writes, machine stopped. The fetch is for the log only: present and since have those pages.
static int choose_first(struct save *s) {
    struct mem *mem = s->machine->mem;
    int ret = 0;
    fetch_dirty(s);
    for (unsigned i = 0; ret == 0 && i < s->map.count; i++) {
        const struct mem_slot *slot = s->map.blocks[i].slot;
        if (s->opt.diff)
            mem_since_checkpoint(mem, slot, s->todo[i]);
        else
            ret = mem_present(mem, slot, s->todo[i]);
    }
    return ret;
}

// The log is empty, machine stopped: what was written until now is in this snapshot.
static void checkpoint(struct save *s) {
    struct mem *mem = s->machine->mem;
    for (unsigned i = 0; i < s->map.count; i++) {
        mem_since_checkpoint(mem, s->map.blocks[i].slot, s->since[i]);
        mem_checkpoint(mem, s->map.blocks[i].slot);
    }
    s->checkpointed = true;
}

// ---- the last step, on the writer thread ----

static int complete_files(void *arg) {
    struct save *s = arg;
    struct error err = {0};
    ram_map_put(&s->map, &s->state);
    int ret = sections_end(&s->state, &err);
    if (ret == 0)
        ret = io_write_at(s->opt.state_fd, s->state.buf, s->state.len, 0);
    if (ret == 0 && (fsync(s->opt.state_fd) || fsync(s->opt.memory_fd)) && errno != EINVAL && errno != EROFS)
        ret = -errno; // EINVAL: a memfd, which is nowhere
    s->progress.state_bytes = s->state.len;
    s->progress.state_crc = ret ? 0 : crc32c(0, s->state.buf, s->state.len);
    return ret;
}

// ---- steps, each the end of the one before ----

// True where the job is over.
static bool step_failed(struct save *s, int result, const char *what) {
    s->writing = false;
    if (result)
        fail(s, result, what);
    if (s->finishing)
        end_job(s, false, false);
    return result || s->progress.phase == SAVE_IDLE;
}

static void on_files(void *ctx, int result) {
    struct save *s = ctx;
    if (!step_failed(s, result, "write the snapshot"))
        s->progress.phase = SAVE_DONE;
}

static void on_last_pages(void *ctx, int result) {
    struct save *s = ctx;
    if (step_failed(s, result, "write the memory"))
        return;
    if (s->opt.live)
        let_go(s); // unless it went on with the copy
    s->writing = true;
    ram_writer_run(s->writer, complete_files, s, on_files, s);
}

// The moment of the snapshot: machine stopped, todo is what is left.
static void take(struct save *s) {
    struct machine *m = s->machine;
    struct error *err = &s->progress.error;
    sections_begin(&s->state);
    int ret = sections_save(&s->state, &m->components, err);
    s->progress.clock_ns = clock_now_ns(&m->clock);
    if (ret == 0 && s->opt.moment)
        ret = s->opt.moment(s->opt.ctx, err);
    if (ret) {
        fail(s, ret, NULL);
        return;
    }
    checkpoint(s);
    s->progress.phase = SAVE_COMMIT;
    s->progress.pages_total = count_todo(s);
    s->writing = true;
    bool copy = s->opt.live && s->progress.pages_total <= COPY_PAGES;
    if (copy && ram_writer_write_copy(s->writer, &s->map, s->todo, s->opt.memory_fd, on_last_pages, s) == 0)
        let_go(s);
    else // the guest stands until they are written
        ram_writer_write(s->writer, &s->map, s->todo, s->opt.memory_fd, on_last_pages, s);
}

static void on_round(void *ctx, int result) {
    struct save *s = ctx;
    if (!step_failed(s, result, "write the memory"))
        go_on(s);
}

// Rounds that do not become smaller lead nowhere.
static bool enough(const struct save *s, uint64_t left) {
    return left <= ENOUGH_PAGES || s->progress.round == MAX_ROUNDS ||
           (s->progress.round > 1 && left > s->progress.pages_total / 2);
}

// The last round. todo has what was left when the rounds ended; what came since is added. The devices stand from here
// on: what they wrote until then is in the log.
static void on_ready(void *ctx, int result) {
    struct save *s = ctx;
    if (step_failed(s, result, s->opt.background ? "copy the disks" : "prepare the copy"))
        return;
    hold(s);
    fetch_dirty(s);
    take(s);
}

// The rest of what is copied beside the guest, as late as can be.
static void on_prepared(void *ctx, int result) {
    struct save *s = ctx;
    if (!s->opt.background) {
        on_ready(s, result);
    } else if (!step_failed(s, result, "prepare the copy")) {
        s->writing = true;
        ram_writer_run(s->writer, s->opt.background, s->opt.ctx, on_ready, s);
    }
}

// Another round, or the end of them.
static void go_on(struct save *s) {
    struct machine *m = s->machine;
    machine_stop_vcpus(m);
    clear_todo(s);
    fetch_dirty(s);
    machine_resume(m);
    uint64_t left = count_todo(s);
    s->progress.round++;
    bool last = enough(s, left);
    s->progress.pages_total = left;
    s->writing = true;
    if (last) // room for a quarter more than what there is now
        ram_writer_prepare_copy(s->writer, left < COPY_PAGES ? left + left / 4 + ENOUGH_PAGES / 4 : 0, on_prepared, s);
    else
        ram_writer_write(s->writer, &s->map, s->todo, s->opt.memory_fd, on_round, s);
}

static void on_background(void *ctx, int result) {
    struct save *s = ctx;
    if (step_failed(s, result, "copy the disks"))
        return;
    s->writing = true;
    s->progress.phase = SAVE_RAM;
    ram_writer_write(s->writer, &s->map, s->todo, s->opt.memory_fd, on_round, s);
}

static int first_round(struct save *s, struct error *err) {
    hold(s);
    int ret = choose_first(s);
    if (ret)
        return error_set(err, ret, "find the pages of the memory");
    s->progress.phase = SAVE_RAM;
    s->progress.pages_total = count_todo(s);
    if (!s->opt.live) {
        take(s);
        return 0;
    }
    let_go(s);
    s->writing = true;
    s->progress.phase = s->opt.background ? SAVE_MORE : SAVE_RAM;
    if (s->opt.background)
        ram_writer_run(s->writer, s->opt.background, s->opt.ctx, on_background, s);
    else
        ram_writer_write(s->writer, &s->map, s->todo, s->opt.memory_fd, on_round, s);
    return 0;
}

// ---- outside ----

int save_begin(struct save *s, const struct save_options *opt, struct error *err) {
    struct save_options mine = *opt;
    int ret = 0;
    if (s->progress.phase != SAVE_IDLE)
        ret = error_set(err, -EBUSY, "another snapshot is being taken");
    else if (opt->diff && !s->has_parent)
        ret = error_set(err, -EINVAL, "no snapshot that the difference could be to: take one without --diff first");
    if (ret) {
        close_fd(&mine.state_fd);
        close_fd(&mine.memory_fd);
        return ret;
    }
    s->opt = mine;
    s->progress = (struct save_progress){0};
    s->checkpointed = s->finishing = false;
    ret = ram_map_create(s->machine->mem, opt->diff, &s->map);
    if (ret == 0) {
        s->todo = bitmaps_new(&s->map);
        s->since = bitmaps_new(&s->map);
        ret = s->todo && s->since ? 0 : -ENOMEM;
    }
    if (ret == 0 && ftruncate(s->opt.memory_fd, (off_t)s->map.bytes))
        ret = -errno;
    if (ret)
        error_set(err, ret, "begin the snapshot");
    else
        ret = first_round(s, err);
    if (ret)
        end_job(s, false, false);
    return ret;
}

void save_progress(const struct save *s, struct save_progress *p) {
    *p = s->progress;
    p->pages_done = s->writing ? ram_writer_pages_done(s->writer) : 0;
}

int save_finish(struct save *s, bool keep, bool stay_stopped, struct error *err) {
    bool done = s->progress.phase == SAVE_DONE;
    if (s->progress.phase == SAVE_IDLE)
        return keep ? error_set(err, -EINVAL, "no snapshot is being taken") : 0;
    if (s->writing) {
        ram_writer_cancel(s->writer);
        s->finishing = true;
        if (s->opt.live)
            let_go(s);
    } else {
        end_job(s, keep && done, stay_stopped && done);
    }
    return keep && !done ? error_set(err, -EINVAL, "the snapshot is not complete") : 0;
}

bool save_busy(const struct save *s) {
    return s->progress.phase != SAVE_IDLE;
}

bool save_has_parent(const struct save *s) {
    return s->has_parent;
}

void save_set_parent(struct save *s) {
    s->has_parent = true;
}

int save_create(struct machine *m, struct save **out, struct error *err) {
    struct save *s = calloc(1, sizeof(*s));
    if (!s)
        return error_set(err, -ENOMEM, "prepare snapshots");
    s->machine = m;
    s->opt.state_fd = s->opt.memory_fd = -1;
    int ret = ram_writer_create(m->loop, &s->writer, err);
    if (ret) {
        free(s);
        return ret;
    }
    *out = s;
    return 0;
}

int save_start(struct save *s, struct error *err) {
    return ram_writer_start(s->writer, err);
}

void save_destroy(struct save *s) {
    if (!s)
        return;
    ram_writer_destroy(s->writer);
    job_free(s);
    free(s);
}
