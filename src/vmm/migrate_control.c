// SPDX-License-Identifier: Apache-2.0
// Live migration over the control socket; see the header. This file joins three things that do not know of each other:
// the state machines of state/migrate, the board's disks, and the end of the process.
#define LOG_UNIT "migrate"
#include "vmm/migrate_control.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "state/migrate/postcopy.h"
#include "state/migrate/target.h"
#include "util/log.h"
#include "vmm/config_json.h"
#include "vmm/control.h"
#include "vmm/migrate_manifest.h"

#define MS              ((uint64_t)1000000)
#define FAREWELL_NS     (1000 * MS) // after the move: for the client to ask how it went
#define ROUNDS_MAX      10000
#define DOWNTIME_MS_MAX 3600000

struct migrate_control {
    struct machine *machine;
    const struct vm_config *cfg;
    json_t *options;       // of the configuration, made while files could be looked at; NULL: not valid UTF-8
    struct source *source; // the last migration out, kept for its figures
    struct source_host source_host;
    struct target *target; // the way in, kept for `info`
    struct target_host target_host;
    struct postcopy *postcopy; // on the way in, where the source asked for it
    struct event_timer farewell;
    enum machine_end farewell_end;
    bool same_host;
    struct block_backend *disks[CONFIG_MAX_DISKS];
    unsigned ndisks;
};

// ---- requests ----

static int parse_number(const json_t *request, const char *name, uint64_t max, uint64_t *value, struct error *err) {
    const json_t *v = json_object_get(request, name);
    if (!v)
        return 0;
    if (!json_is_integer(v) || json_integer_value(v) < 0 || (uint64_t)json_integer_value(v) > max)
        return error_set(err, -EINVAL, "\"%s\" must be an integer from 0 to %llu", name, (unsigned long long)max);
    *value = (uint64_t)json_integer_value(v);
    return 0;
}

static int parse_flag(const json_t *request, const char *name, bool *value, struct error *err) {
    const json_t *v = json_object_get(request, name);
    if (v && !json_is_boolean(v))
        return error_set(err, -EINVAL, "\"%s\" must be true or false", name);
    if (v)
        *value = json_is_true(v);
    return 0;
}

static int parse_postcopy(const json_t *request, enum source_postcopy *value, struct error *err) {
    const json_t *v = json_object_get(request, "postcopy");
    const char *text = json_string_value(v);
    if (text && strcmp(text, "now") == 0)
        *value = SOURCE_POSTCOPY_NOW;
    else if (text && strcmp(text, "later") == 0)
        *value = SOURCE_POSTCOPY_LATER;
    else if (v)
        return error_set(err, -EINVAL, "\"postcopy\" must be \"later\" or \"now\"");
    return 0;
}

int migrate_params_parse(const json_t *request, struct migrate_params *p, struct error *err) {
    uint64_t downtime_ms = MIGRATE_DOWNTIME_MS, rounds = MIGRATE_ROUNDS;
    *p = (struct migrate_params){.opt = {.throttle = true}};
    int ret = parse_number(request, "downtime_ms", DOWNTIME_MS_MAX, &downtime_ms, err);
    if (ret == 0)
        ret = parse_number(request, "rounds", ROUNDS_MAX, &rounds, err);
    if (ret == 0)
        ret = parse_number(request, "bandwidth", INT64_MAX, &p->opt.bandwidth, err);
    if (ret == 0)
        ret = parse_flag(request, "force", &p->opt.force, err);
    if (ret == 0)
        ret = parse_flag(request, "throttle", &p->opt.throttle, err);
    if (ret == 0)
        ret = parse_flag(request, "copy_disks", &p->copy_disks, err);
    if (ret == 0)
        ret = parse_flag(request, "same_host", &p->same_host, err);
    if (ret == 0)
        ret = parse_postcopy(request, &p->opt.postcopy, err);
    p->opt.downtime_ns = downtime_ms * MS;
    p->opt.rounds = (unsigned)rounds;
    return ret;
}

// ---- disks ----

static int flush_disks(void *ctx, struct error *err) {
    struct migrate_control *mc = ctx;
    for (unsigned i = 0; !mc->same_host && i < mc->ndisks; i++)
        if (!mc->disks[i]->read_only && mc->disks[i]->fd >= 0 && fdatasync(mc->disks[i]->fd) != 0)
            return error_set(err, -errno, "flush disk %u", i);
    return 0;
}

static void give_disks(void *ctx) {
    struct migrate_control *mc = ctx;
    for (unsigned i = 0; i < mc->ndisks; i++)
        raw_unlock(mc->disks[i]);
}

static int take_disks(void *ctx, struct error *err) {
    struct migrate_control *mc = ctx;
    for (unsigned i = 0; i < mc->ndisks; i++) {
        int ret = raw_lock(mc->disks[i]);
        if (ret) {
            give_disks(mc);
            return error_set(err, ret, "disk %u: another process has it", i);
        }
    }
    return 0;
}

// ---- out ----

static void farewell(void *ctx) {
    struct migrate_control *mc = ctx;
    machine_end(mc->machine, mc->farewell_end);
}

static void source_ended(void *ctx) {
    struct migrate_control *mc = ctx;
    struct source_progress p;
    source_progress(mc->source, &p);
    mc->farewell_end = p.stage == SOURCE_LOST ? MACHINE_HOST_FAILURE : MACHINE_SUSPENDED;
    if (p.stage == SOURCE_MOVED || p.stage == SOURCE_LOST)
        event_timer_arm(&mc->farewell, event_now_ns() + FAREWELL_NS);
}

static bool going_out(const struct migrate_control *mc) {
    struct source_progress p;
    if (!mc->source)
        return false;
    source_progress(mc->source, &p);
    return p.stage != SOURCE_FAILED;
}

static bool coming_in(const struct migrate_control *mc) {
    return mc->target && target_stage(mc->target) != TARGET_RUNNING && target_stage(mc->target) != TARGET_POSTCOPY;
}

int migrate_control_idle(const struct migrate_control *mc, struct error *err) {
    struct source_progress p = {.stage = SOURCE_FAILED};
    if (coming_in(mc))
        return error_set(err, -EBUSY, "the VM is coming in (%s)", target_stage_name(target_stage(mc->target)));
    if (mc->source)
        source_progress(mc->source, &p);
    return p.stage == SOURCE_FAILED
               ? 0
               : error_set(err, -EBUSY, "the VM is being migrated (%s)", source_stage_name(p.stage));
}

// What the guest has written must be where the target finds it.
static int check_disks(const struct migrate_control *mc, struct error *err) {
    for (unsigned i = 0; i < mc->ndisks; i++)
        if (!mc->disks[i]->read_only && mc->disks[i]->ops->own)
            return error_set(err, -EINVAL, "disk %u has a private layer of this process, which cannot be migrated", i);
    return 0;
}

static json_t *list_sizes(const struct migrate_control *mc) {
    json_t *list = json_array();
    for (unsigned i = 0; i < mc->ndisks; i++)
        json_array_append_new(list, json_integer(mc->disks[i]->read_only ? 0 : (json_int_t)mc->disks[i]->size));
    return list;
}

int migrate_control_begin(struct migrate_control *mc, struct control_peer *peer, const struct migrate_params *p,
                          struct error *err) {
    if (!mc->options)
        return error_set(err, -EINVAL, "the name of a file of this VM is not valid UTF-8, which a manifest must be");
    if (peer->nfds != 1)
        return error_set(err, -EINVAL, "migrate: a connected socket must come with the request");
    int ret = migrate_control_idle(mc, err);
    if (ret)
        return ret;
    ret = check_disks(mc, err);
    if (ret)
        return ret;
    json_t *manifest = migrate_manifest_make(mc->machine, mc->cfg->name, mc->options);
    if (p->copy_disks)
        json_object_set_new(manifest, "copy_disks", list_sizes(mc));
    if (p->opt.postcopy)
        json_object_set_new(manifest, "postcopy", json_true());
    char *text = manifest ? json_dumps(manifest, JSON_COMPACT) : NULL;
    json_decref(manifest);
    if (!text)
        return error_set(err, -ENOMEM, "migrate");
    source_destroy(mc->source); // of an earlier one
    mc->source = NULL;
    mc->same_host = p->same_host;
    mc->source_host.disks = mc->disks;
    mc->source_host.ndisks = p->copy_disks ? mc->ndisks : 0;
    ret = source_create(mc->machine, peer->fds[0], text, &p->opt, &mc->source_host, &mc->source, err);
    free(text);
    if (ret == 0)
        peer->fds[0] = -1;
    return ret;
}

int migrate_control_status(struct migrate_control *mc, json_t **result, struct error *err) {
    struct source_progress p;
    if (!mc->source)
        return error_set(err, -EINVAL, "this VM has not been migrated");
    source_progress(mc->source, &p);
    *result = json_pack("{s:s, s:i, s:I, s:I, s:I, s:I, s:I, s:I, s:i, s:i, s:I, s:I, s:s}", "stage",
                        source_stage_name(p.stage), "round", (int)p.round, "total_bytes", (json_int_t)p.total_bytes,
                        "left_bytes", (json_int_t)p.left_bytes, "sent_bytes", (json_int_t)p.sent_bytes, "pages",
                        (json_int_t)p.pages, "zero_pages", (json_int_t)p.zeroes, "rate", (json_int_t)p.rate, "throttle",
                        (int)p.throttle, "code", p.code, "downtime_us", (json_int_t)(p.downtime_ns / 1000), "time_ms",
                        (json_int_t)(p.time_ns / MS), "error", p.error);
    if (p.stage == SOURCE_MOVED || p.stage == SOURCE_LOST)
        farewell(mc);
    return *result ? 0 : error_set(err, -ENOMEM, "migrate");
}

int migrate_control_cancel(struct migrate_control *mc, struct error *err) {
    if (!going_out(mc))
        return error_set(err, -EINVAL, "this VM is not being migrated");
    return source_cancel(mc->source, err);
}

// ---- in ----

static void target_ended(void *ctx) {
    struct migrate_control *mc = ctx;
    enum target_stage stage = target_stage(mc->target);
    if (stage == TARGET_FAILED)
        machine_end(mc->machine, MACHINE_HOST_FAILURE);
    else if (stage == TARGET_DOUBT)
        log_error("%s before it gave the VM up: look whether '%s' still runs there; if not, 'cicada resume %s'",
                  target_error(mc->target), mc->cfg->name, mc->cfg->name);
}

int migrate_control_prepare(struct migrate_control *mc, const json_t *manifest,
                            void (*lost)(void *ctx, const char *why), void *ctx, struct error *err) {
    if (!migrate_manifest_postcopy(manifest))
        return 0;
    int ret = postcopy_create(mc->machine, lost, ctx, &mc->postcopy, err);
    mc->target_host.postcopy = mc->postcopy;
    return ret;
}

int migrate_control_start(struct migrate_control *mc, struct error *err) {
    return mc->postcopy ? postcopy_start(mc->postcopy, err) : 0;
}

int migrate_control_receive(struct migrate_control *mc, struct wire *w, struct error *err) {
    return target_create(mc->machine, w, &mc->target_host, &mc->target, err);
}

const char *migrate_control_failure(const struct migrate_control *mc) {
    return coming_in(mc) ? target_error(mc->target) : "";
}

// ---- both ----

int migrate_control_resume(struct migrate_control *mc, struct error *err) {
    struct source_progress p = {.stage = SOURCE_FAILED};
    if (mc->source)
        source_progress(mc->source, &p);
    if (p.stage == SOURCE_DOUBT)
        return source_resume(mc->source, err);
    if (mc->target && target_stage(mc->target) == TARGET_DOUBT)
        return target_resume(mc->target, err);
    return 1;
}

const char *migrate_control_state(const struct migrate_control *mc) {
    static const char *const names[SOURCE_STAGE_COUNT] = {
        [SOURCE_STOP] = "handing-over", [SOURCE_COMMIT] = "handing-over", [SOURCE_POSTCOPY] = "post-copy",
        [SOURCE_MOVED] = "moved",       [SOURCE_DOUBT] = "in-doubt",      [SOURCE_LOST] = "lost",
    };
    struct source_progress p = {.stage = SOURCE_FAILED};
    if (mc->source)
        source_progress(mc->source, &p);
    if (p.stage >= SOURCE_STOP && p.stage <= SOURCE_LOST)
        return names[p.stage];
    if (coming_in(mc))
        return target_stage(mc->target) == TARGET_DOUBT ? "in-doubt" : "receiving";
    return NULL;
}

// ---- life ----

int migrate_control_create(struct board *board, const struct vm_config *cfg, struct migrate_control **out,
                           struct error *err) {
    struct migrate_control *mc = calloc(1, sizeof(*mc));
    if (!mc)
        return error_set(err, -ENOMEM, "prepare migrations");
    *mc = (struct migrate_control){.machine = board_machine(board), .cfg = cfg};
    mc->options = config_to_json(cfg);
    mc->source_host = (struct source_host){
        .flush = flush_disks, .give = give_disks, .take = take_disks, .ended = source_ended, .ctx = mc};
    while (mc->ndisks < CONFIG_MAX_DISKS && (mc->disks[mc->ndisks] = board_disk(board, mc->ndisks)))
        mc->ndisks++;
    mc->target_host = (struct target_host){
        .take = take_disks, .disks = mc->disks, .ndisks = mc->ndisks, .ended = target_ended, .ctx = mc};
    event_timer_init(&mc->farewell, mc->machine->loop, farewell, mc);
    *out = mc;
    return 0;
}

void migrate_control_destroy(struct migrate_control *mc) {
    if (!mc)
        return;
    event_timer_cancel(&mc->farewell);
    source_destroy(mc->source);
    target_destroy(mc->target);
    postcopy_destroy(mc->postcopy);
    json_decref(mc->options);
    free(mc);
}
