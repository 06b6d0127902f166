// SPDX-License-Identifier: Apache-2.0
// Restoring; see the header.
#define LOG_UNIT "restore"
#include "vmm/restore.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "state/page_handler.h"
#include "state/snapshot.h"
#include "util/log.h"
#include "vmm/config_json.h"
#include "vmm/cpu_component.h"
#include "vmm/file_identity.h"
#include "vmm/migrate_manifest.h"

struct restore {
    struct restore_options opt;
    struct snapshot *snapshot;
    struct machine *machine;
    struct page_handler *handler; // NULL without --uffd
    struct error error;           // of the load
    void (*running)(void *ctx);   // may be NULL
    void *running_ctx;
};

static const json_t *machine_of(const struct restore *r) {
    return json_object_get(r->snapshot->manifest, "machine");
}

// ---- parse ----

// Disks that are in the snapshot: each VM restored from it has its own layer over them.
static int use_copies(const struct restore *r, struct vm_config *cfg, struct error *err) {
    const json_t *disks = json_object_get(machine_of(r), "disks");
    for (unsigned i = 0; i < cfg->ndisks; i++) {
        char *path = NULL;
        if (!json_is_true(json_object_get(json_array_get(disks, i), "copied")))
            continue;
        if (asprintf(&path, "%s/disk%u", r->snapshot->path, i) < 0)
            return error_set(err, -ENOMEM, "restore");
        free(cfg->disks[i].path);
        cfg->disks[i].path = path;
        cfg->disks[i].overlay = true;
    }
    return 0;
}

// A handler has one file with each page at its place.
static int check_handler(const struct restore *r, struct error *err) {
    if (r->opt.eager)
        return error_set(err, -EINVAL, "--eager reads all memory, --uffd has it read by a handler: choose one");
    if (r->snapshot->diff || r->snapshot->packed_fd >= 0)
        return error_set(
            err, -EINVAL,
            "--uffd needs a full snapshot that is not compressed, '%.200s' is %s (restore it without --uffd)",
            r->opt.path, r->snapshot->diff ? "a difference" : "compressed");
    return 0;
}

int restore_open(const struct restore_options *opt, struct vm_config *cfg, struct restore **out, struct error *err) {
    struct restore *r = calloc(1, sizeof(*r));
    if (!r)
        return error_set(err, -ENOMEM, "restore");
    r->opt = *opt;
    int ret = snapshot_open(opt->path, &r->snapshot, err);
    if (ret == 0 && opt->uffd)
        ret = check_handler(r, err);
    if (ret == 0 && (ret = migrate_manifest_config(json_object_get(machine_of(r), "manifest"), cfg, err)))
        error_prefix(err, "snapshot '%.200s'", opt->path);
    if (ret == 0)
        ret = use_copies(r, cfg, err);
    if (ret) {
        restore_close(r);
        return ret;
    }
    cfg->restored = true;
    json_int_t hz = json_integer_value(json_object_get(json_object_get(machine_of(r), "manifest"), "tsc_hz"));
    nondet_expect_tsc_hz(hz > 0 ? (uint64_t)hz : 0);
    *out = r;
    return 0;
}

void restore_close(struct restore *r) {
    if (!r)
        return;
    restore_stop(r);
    snapshot_close(r->snapshot);
    free(r);
}

// ---- open ----

int restore_check_disks(const struct restore *r, const struct vm_config *cfg, struct error *err) {
    const json_t *disks = json_object_get(machine_of(r), "disks");
    if (json_array_size(disks) != cfg->ndisks)
        return error_set(err, -EINVAL, "snapshot '%.200s': manifest.json does not identify each disk", r->opt.path);
    for (unsigned i = 0; i < cfg->ndisks; i++) {
        int ret = file_identity_check("disk", cfg->disks[i].path, json_array_get(disks, i), err);
        if (ret)
            return ret;
    }
    return 0;
}

static int load_memory(struct restore *r, struct machine *m, struct error *err) {
    if (!r->opt.uffd)
        return snapshot_load_memory(r->snapshot, m->mem, r->opt.eager ? RAM_READ : RAM_MAP, err);
    return page_handler_connect(r->opt.uffd, &r->snapshot->sections, m->mem, m->engine_ops->faults_in_kernel,
                                &r->handler, err);
}

int restore_prepare(struct restore *r, struct machine *m, struct snapshot_control *sc, struct error *err) {
    struct snapshot *s = r->snapshot;
    int ret = migrate_manifest_check(json_object_get(machine_of(r), "manifest"), m, err);
    if (ret == 0)
        ret = sections_check(&s->sections, &m->components, err);
    if (ret)
        return error_prefix(err, "snapshot '%.200s'", r->opt.path);
    ret = snapshot_check_memory(s, m->mem, err);
    if (ret == 0)
        ret = load_memory(r, m, err);
    if (ret)
        return ret;
    r->machine = m;
    snapshot_control_set_parent(sc, s->id, s->path);
    return 0;
}

int restore_start(struct restore *r, void (*lost)(void *ctx, const char *why), void *ctx, struct error *err) {
    return r->handler ? page_handler_watch(r->handler, lost, ctx, err) : 0;
}

void restore_stop(struct restore *r) {
    if (!r)
        return;
    page_handler_destroy(r->handler);
    r->handler = NULL;
}

// ---- run ----

// How far the clocks have to jump: the time since the snapshot was taken, by the host's clock.
static uint64_t time_passed(const struct restore *r) {
    json_int_t then = json_integer_value(json_object_get(machine_of(r), "realtime_ns"));
    uint64_t now = clock_realtime_ns(&r->machine->clock);
    return then > 0 && now > (uint64_t)then ? now - (uint64_t)then : 0;
}

static void load_on_loop(void *ctx) {
    struct restore *r = ctx;
    struct machine *m = r->machine;
    if (atomic_load(&m->end) != MACHINE_RUNNING)
        return;
    int ret = sections_load(&r->snapshot->sections, &m->components, &r->error);
    if (ret == 0 && r->opt.clock == RESTORE_CLOCK_JUMP)
        ret = cpu_component_advance(m, time_passed(r), &r->error);
    if (ret == 0)
        ret = board_new_generation(m->board, &r->error);
    if (ret) {
        error_prefix(&r->error, "snapshot '%.200s'", r->opt.path);
        machine_end(m, MACHINE_HOST_FAILURE);
        return;
    }
    log_info("restored from '%s'", r->opt.path);
    machine_resume(m);
    if (r->running)
        r->running(r->running_ctx);
}

void restore_when_running(struct restore *r, void (*fn)(void *ctx), void *ctx) {
    r->running = fn;
    r->running_ctx = ctx;
}

enum machine_end restore_run(struct restore *r, struct machine *m, struct error *err) {
    if (event_post(m->loop, load_on_loop, r)) {
        error_set(err, -ENOMEM, "restore");
        return MACHINE_HOST_FAILURE;
    }
    enum machine_end end = machine_run_incoming(m);
    if (r->error.code)
        *err = r->error;
    return end;
}
