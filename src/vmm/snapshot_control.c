// SPDX-License-Identifier: Apache-2.0
// Snapshots over the control socket; see the header. Loop thread only. Invariant: owner is set exactly while a job of
// state/save.h is not finished.
#define LOG_UNIT "snapshot"
#include "vmm/snapshot_control.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "backend/image_copy.h"
#include "state/disk_copy.h"
#include "state/save.h"
#include "util/log.h"
#include "vmm/config_json.h"
#include "vmm/control.h"
#include "vmm/file_identity.h"
#include "vmm/migrate_manifest.h"

struct snapshot_control {
    struct machine *machine;
    struct board *board;
    const struct vm_config *cfg;
    json_t *options; // of the configuration, made while files could still be looked at
    json_t *files;   // identity of kernel and initrd
    struct save *save;
    const struct control_peer *owner;
    json_t *disks;                   // identity of each at the moment of the snapshot
    int copies[CONFIG_MAX_DISKS];    // file for a copy of each disk, -1: it stays where it is; while a job runs
    struct disk_copies *disk_copies; // of a live snapshot that copies any, while its job runs; else NULL
    uint64_t realtime_ns;
    char parent_id[SNAPSHOT_ID_SIZE], parent_path[4096];
};

// ---- requests ----

static int parse_flag(const json_t *request, const char *name, bool *value, struct error *err) {
    const json_t *v = json_object_get(request, name);
    if (v && !json_is_boolean(v))
        return error_set(err, -EINVAL, "\"%s\" must be true or false", name);
    *value = json_is_true(v);
    return 0;
}

static int parse_text(const json_t *request, const char *name, char *buf, size_t size, struct error *err) {
    const json_t *v = json_object_get(request, name);
    const char *text = v ? json_string_value(v) : "";
    if (!text || strlen(text) >= size)
        return error_set(err, -EINVAL, "\"%s\" must be a string of less than %zu bytes", name, size);
    snprintf(buf, size, "%s", text);
    return 0;
}

int snapshot_params_parse(const json_t *request, struct snapshot_params *p, struct error *err) {
    *p = (struct snapshot_params){0};
    int ret = parse_flag(request, "live", &p->live, err);
    return ret ? ret : parse_flag(request, "diff", &p->diff, err);
}

int snapshot_finish_params_parse(const json_t *request, struct snapshot_finish_params *p, struct error *err) {
    *p = (struct snapshot_finish_params){0};
    int ret = parse_flag(request, "keep", &p->keep, err);
    if (ret == 0)
        ret = parse_flag(request, "end", &p->end, err);
    if (ret == 0)
        ret = parse_text(request, "snapshot", p->id, sizeof(p->id), err);
    if (ret == 0)
        ret = parse_text(request, "path", p->path, sizeof(p->path), err);
    if (ret == 0 && p->end && !p->keep)
        ret = error_set(err, -EINVAL, "\"end\" needs \"keep\"");
    return ret;
}

// ---- life ----

// Nobody copies any more.
static void job_over(void *ctx) {
    struct snapshot_control *sc = ctx;
    if (sc->disk_copies)
        disk_copies_end(sc->disk_copies);
    free(sc->disk_copies);
    sc->disk_copies = NULL;
    for (unsigned i = 0; i < sc->cfg->ndisks; i++) {
        if (sc->copies[i] >= 0)
            close(sc->copies[i]);
        sc->copies[i] = -1;
    }
}

static void stop_job(struct snapshot_control *sc) {
    sc->owner = NULL;
    if (sc->disk_copies)
        disk_copies_cancel(sc->disk_copies); // a job that is done does not mind
}

void snapshot_control_destroy(struct snapshot_control *sc) {
    if (!sc)
        return;
    stop_job(sc);
    save_destroy(sc->save);
    job_over(sc);
    json_decref(sc->options);
    json_decref(sc->files);
    json_decref(sc->disks);
    free(sc);
}

static bool note_file(json_t *files, const char *name, const char *path) {
    json_t *identity = path ? file_identity_of_path(path) : NULL;
    return !identity || json_object_set_new(files, name, identity) == 0;
}

int snapshot_control_create(struct board *board, const struct vm_config *cfg, struct snapshot_control **out,
                            struct error *err) {
    struct snapshot_control *sc = calloc(1, sizeof(*sc));
    if (!sc)
        return error_set(err, -ENOMEM, "prepare snapshots");
    sc->machine = board_machine(board);
    sc->board = board;
    sc->cfg = cfg;
    memset(sc->copies, 0xff, sizeof(sc->copies)); // -1
    sc->options = config_to_json(cfg); // NULL: a name that JSON cannot hold; told when a snapshot is asked for
    sc->files = json_object();
    if (!note_file(sc->files, "kernel", cfg->kernel) || !note_file(sc->files, "initrd", cfg->initrd)) {
        snapshot_control_destroy(sc);
        return error_set(err, -ENOMEM, "prepare snapshots");
    }
    int ret = save_create(sc->machine, &sc->save, err);
    if (ret) {
        snapshot_control_destroy(sc);
        return ret;
    }
    *out = sc;
    return 0;
}

int snapshot_control_start(struct snapshot_control *sc, struct error *err) {
    return save_start(sc->save, err);
}

void snapshot_control_set_parent(struct snapshot_control *sc, const char *id, const char *path) {
    snprintf(sc->parent_id, sizeof(sc->parent_id), "%s", id);
    snprintf(sc->parent_path, sizeof(sc->parent_path), "%s", path);
    save_set_parent(sc->save);
}

// ---- the moment of the snapshot ----

static int moment(void *ctx, struct error *err) {
    struct snapshot_control *sc = ctx;
    struct block_backend *disk;
    json_decref(sc->disks);
    sc->disks = json_array();
    sc->realtime_ns = clock_realtime_ns(&sc->machine->clock);
    if (sc->disk_copies && disk_copies_finish(sc->disk_copies, err))
        return err->code;
    for (unsigned i = 0; (disk = board_disk(sc->board, i)); i++) {
        int copy = sc->copies[i], ret = copy >= 0 && !sc->disk_copies ? block_copy_to(disk, copy) : 0;
        if (ret)
            return error_set(err, ret, "copy disk %u", i);
        json_t *identity = file_identity_of_fd(copy >= 0 ? copy : disk->fd);
        if (!identity || json_array_append_new(sc->disks, identity))
            return error_set(err, -EIO, "the identity of disk %u", i);
        json_object_set_new(identity, "copied", json_boolean(copy >= 0));
    }
    return 0;
}

// What the manifest says of the machine.
static json_t *describe(const struct snapshot_control *sc, const struct save_progress *p) {
    struct machine *m = sc->machine;
    return json_pack("{s:o, s:O, s:O, s:I, s:I, s:I, s:I}", "manifest",
                     migrate_manifest_make(m, sc->cfg->name, sc->options), "files", sc->files, "disks", sc->disks,
                     "clock_ns", (json_int_t)p->clock_ns, "realtime_ns", (json_int_t)sc->realtime_ns, "state_bytes",
                     (json_int_t)p->state_bytes, "state_crc32c", (json_int_t)p->state_crc);
}

// ---- actions ----

static int take_fd(struct control_peer *peer, unsigned index) {
    int fd = peer->fds[index];
    peer->fds[index] = -1;
    return fd;
}

// A disk that the guest goes on writing, or whose writes would be gone, is copied.
static bool needs_copy(const struct disk_config *d, bool live) {
    return !d->read_only && (live || d->overlay);
}

// Has the request a file for each disk that is to be copied?
static int check_copies(const struct snapshot_control *sc, const struct snapshot_params *p,
                        const struct control_peer *peer, struct error *err) {
    unsigned wanted = 2;
    for (unsigned i = 0; i < sc->cfg->ndisks; i++)
        wanted += needs_copy(&sc->cfg->disks[i], p->live);
    if (!peer || peer->nfds != wanted)
        return error_set(err, -EINVAL, "snapshot: %u open files must come with the request", wanted);
    return 0;
}

static int copy_beside_guest(void *ctx) {
    struct snapshot_control *sc = ctx;
    return disk_copies_rounds(sc->disk_copies);
}

static int begin_copies(struct snapshot_control *sc, struct error *err) {
    struct block_backend *disks[CONFIG_MAX_DISKS];
    for (unsigned i = 0; i < sc->cfg->ndisks; i++)
        disks[i] = board_disk(sc->board, i);
    sc->disk_copies = calloc(1, sizeof(*sc->disk_copies));
    if (!sc->disk_copies)
        return error_set(err, -ENOMEM, "copy the disks");
    return disk_copies_begin(sc->disk_copies, sc->machine, disks, sc->copies, sc->cfg->ndisks, err);
}

int snapshot_control_begin(struct snapshot_control *sc, struct control_peer *peer, const struct snapshot_params *p,
                           json_t **result, struct error *err) {
    if (!sc->options)
        return error_set(err, -EINVAL, "the name of a file of this VM is not valid UTF-8, which a manifest must be");
    if (sc->owner || save_busy(sc->save))
        return error_set(err, -EBUSY, "another snapshot of this VM is being taken");
    int copies = check_copies(sc, p, peer, err);
    if (copies < 0)
        return copies;
    struct save_options opt = {.live = p->live, .diff = p->diff, .moment = moment, .over = job_over, .ctx = sc};
    for (unsigned i = 0, next = 2; i < sc->cfg->ndisks; i++)
        sc->copies[i] = needs_copy(&sc->cfg->disks[i], p->live) ? take_fd(peer, next++) : -1;
    int ret = p->live && peer->nfds > 2 ? begin_copies(sc, err) : 0;
    if (ret == 0) {
        opt.background = sc->disk_copies ? copy_beside_guest : NULL;
        opt.state_fd = take_fd(peer, 0);
        opt.memory_fd = take_fd(peer, 1);
        ret = save_begin(sc->save, &opt, err);
    }
    if (ret) {
        job_over(sc);
        return ret;
    }
    sc->owner = peer;
    if (p->diff)
        *result = json_pack("{s:s, s:s}", "parent", sc->parent_id, "parent_path", sc->parent_path);
    return 0;
}

static int check_owner(const struct snapshot_control *sc, const struct control_peer *peer, struct error *err) {
    if (!sc->owner || sc->owner != peer)
        return error_set(err, -EINVAL, "this connection has begun no snapshot");
    return 0;
}

int snapshot_control_status(struct snapshot_control *sc, const struct control_peer *peer, json_t **result,
                            struct error *err) {
    static const char *const names[] = {"idle", "disks", "memory", "commit", "done", "failed"};
    struct save_progress p;
    int ret = check_owner(sc, peer, err);
    if (ret)
        return ret;
    save_progress(sc->save, &p);
    if (p.phase == SAVE_MORE) { // in pages, as the rest
        p.pages_done = atomic_load(&sc->disk_copies->done) >> PAGE_SHIFT;
        p.pages_total = atomic_load(&sc->disk_copies->total) >> PAGE_SHIFT;
    }
    if (p.phase == SAVE_FAILED) {
        *err = p.error;
        return p.error.code;
    }
    *result =
        json_pack("{s:s, s:I, s:I, s:i, s:I}", "phase", names[p.phase], "pages_done", (json_int_t)p.pages_done,
                  "pages_total", (json_int_t)p.pages_total, "round", (int)p.round, "pause_ns", (json_int_t)p.pause_ns);
    if (p.phase == SAVE_DONE)
        json_object_set_new(*result, "machine", describe(sc, &p));
    return *result ? 0 : error_set(err, -ENOMEM, "snapshot");
}

int snapshot_control_finish(struct snapshot_control *sc, const struct control_peer *peer,
                            const struct snapshot_finish_params *p, struct error *err) {
    int ret = check_owner(sc, peer, err);
    if (ret)
        return ret;
    stop_job(sc);
    ret = save_finish(sc->save, p->keep, p->end, err);
    if (ret || !p->keep)
        return ret;
    snapshot_control_set_parent(sc, p->id, p->path);
    if (p->end)
        machine_end(sc->machine, MACHINE_SUSPENDED);
    return 0;
}

bool snapshot_control_busy(const struct snapshot_control *sc) {
    return sc->owner || save_busy(sc->save);
}

void snapshot_control_peer_gone(struct snapshot_control *sc, const struct control_peer *peer) {
    struct error ignored;
    if (!sc || sc->owner != peer || !peer)
        return;
    log_info("the client of a snapshot has gone, the guest goes on");
    stop_job(sc);
    save_finish(sc->save, false, false, &ignored);
}
