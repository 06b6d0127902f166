// SPDX-License-Identifier: Apache-2.0
// Requests of the control socket: from JSON to an action, and what each action does. A request may hold anything;
// whatever is wrong with it ends in an error object and leaves the VM alone.
#define LOG_UNIT "control"
#include "vmm/control.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "cicada.h"
#include "core/mem_lazy.h"
#include "core/types.h"
#include "util/log.h"
#include "vmm/cpu_component.h"
#include "vmm/engine_switch.h"

#define STATS_MAX 64

// ---- parsing ----

static const char *const verb_names[CONTROL_VERB_COUNT + 1] = {
    [CONTROL_PING] = "ping",
    [CONTROL_INFO] = "info",
    [CONTROL_STATS] = "stats",
    [CONTROL_STOP] = "stop",
    [CONTROL_PAUSE] = "pause",
    [CONTROL_RESUME] = "resume",
    [CONTROL_RESET] = "reset",
    [CONTROL_ENGINE] = "engine",
    [CONTROL_SNAPSHOT] = "snapshot",
    [CONTROL_SNAPSHOT_STATUS] = "snapshot-status",
    [CONTROL_SNAPSHOT_FINISH] = "snapshot-finish",
    [CONTROL_MIGRATE] = "migrate",
    [CONTROL_MIGRATE_STATUS] = "migrate-status",
    [CONTROL_MIGRATE_CANCEL] = "migrate-cancel",
};

// Parameters of each action, beside "action" and "id".
static const char *const verb_members[CONTROL_VERB_COUNT][9] = {
    [CONTROL_STOP] = {"how"},
    [CONTROL_RESUME] = {"clock"},
    [CONTROL_ENGINE] = {"engine"},
    [CONTROL_SNAPSHOT] = {"live", "diff"},
    [CONTROL_SNAPSHOT_FINISH] = {"keep", "end", "snapshot", "path"},
    [CONTROL_MIGRATE] = {"downtime_ms", "rounds", "bandwidth", "force", "throttle", "same_host", "copy_disks",
                         "postcopy"},
};

static bool has_member(enum control_verb verb, const char *name) {
    for (const char *const *m = verb_members[verb]; *m; m++)
        if (strcmp(*m, name) == 0)
            return true;
    return false;
}

static int parse_verb(const char *name, enum control_verb *verb, struct error *err) {
    for (unsigned i = 0; i < CONTROL_VERB_COUNT; i++) {
        if (strcmp(name, verb_names[i]) == 0) {
            *verb = (enum control_verb)i;
            return 0;
        }
    }
    const char *near = option_nearest(name, verb_names);
    return error_set(err, -EINVAL, near ? "unknown action '%.40s': did you mean '%s'?" : "unknown action '%.40s'", name,
                     near);
}

static int parse_stop(json_t *how, struct control_action *a, struct error *err) {
    const char *text = json_string_value(how);
    a->stop.how = CONTROL_STOP_NOW;
    if (!how || (text && strcmp(text, "now") == 0))
        return 0;
    if (!text || strcmp(text, "acpi") != 0)
        return error_set(err, -EINVAL, "stop: 'how' must be \"now\" or \"acpi\"");
    a->stop.how = CONTROL_STOP_ACPI;
    return 0;
}

static int parse_resume(json_t *clock, struct control_action *a, struct error *err) {
    const char *text = json_string_value(clock);
    a->resume.jump = text && strcmp(text, "jump") == 0;
    if (!clock || a->resume.jump || (text && strcmp(text, "continue") == 0))
        return 0;
    return error_set(err, -EINVAL, "resume: 'clock' must be \"continue\" or \"jump\"");
}

static int parse_engine(json_t *engine, struct control_action *a, struct error *err) {
    const char *text = json_string_value(engine);
    if (!text)
        return error_set(err, -EINVAL, "engine: 'engine' must be \"kvm\" or \"xlate\"");
    a->engine.to = engine_find(text);
    return a->engine.to ? 0 : error_set(err, -EINVAL, "engine: there is no engine '%.40s'", text);
}

// Refuses members that the action does not have, so that a slip is not silently a different request.
static int check_members(json_t *root, enum control_verb verb, struct error *err) {
    const char *key;
    json_t *value;
    json_object_foreach(root, key, value) {
        if (strcmp(key, "action") != 0 && strcmp(key, "id") != 0 && !has_member(verb, key))
            return error_set(err, -EINVAL, "%s has no parameter '%.40s'", verb_names[verb], key);
    }
    return 0;
}

static int parse_object(json_t *root, struct control_action *a, struct error *err) {
    const char *name = json_string_value(json_object_get(root, "action"));
    if (!name)
        return error_set(err, -EINVAL, "expected an object with a string \"action\"");
    int ret = parse_verb(name, &a->verb, err);
    if (ret == 0)
        ret = check_members(root, a->verb, err);
    if (ret == 0 && a->verb == CONTROL_STOP)
        ret = parse_stop(json_object_get(root, "how"), a, err);
    if (ret == 0 && a->verb == CONTROL_RESUME)
        ret = parse_resume(json_object_get(root, "clock"), a, err);
    if (ret == 0 && a->verb == CONTROL_ENGINE)
        ret = parse_engine(json_object_get(root, "engine"), a, err);
    if (ret == 0 && a->verb == CONTROL_SNAPSHOT)
        ret = snapshot_params_parse(root, &a->snapshot, err);
    if (ret == 0 && a->verb == CONTROL_SNAPSHOT_FINISH)
        ret = snapshot_finish_params_parse(root, &a->snapshot_finish, err);
    if (ret == 0 && a->verb == CONTROL_MIGRATE)
        ret = migrate_params_parse(root, &a->migrate, err);
    return ret;
}

int control_parse(const char *line, size_t len, struct control_action *action, json_t **id, struct error *err) {
    json_error_t where;
    *id = NULL;
    *action = (struct control_action){.verb = CONTROL_PING};
    json_t *root = json_loadb(line, len, JSON_REJECT_DUPLICATES, &where);
    if (!root)
        return error_set(err, -EINVAL, "not a JSON object: %.100s at column %d", where.text, where.column);
    json_t *given = json_object_get(root, "id");
    int ret = 0;
    if (given && !json_is_string(given) && !json_is_integer(given))
        ret = error_set(err, -EINVAL, "\"id\" must be a string or an integer");
    else
        *id = json_incref(given);
    if (ret == 0)
        ret = parse_object(root, action, err);
    json_decref(root);
    return ret;
}

// ---- the actions ----

static const char *state_name(const struct control_target *t) {
    struct machine *m = t->machine;
    const char *moving = t->migrate ? migrate_control_state(t->migrate) : NULL;
    if (moving && atomic_load(&m->end) == MACHINE_RUNNING)
        return moving;
    return atomic_load(&m->end) != MACHINE_RUNNING ? "ending" : m->paused ? "paused" : "running";
}

static json_t *vcpu_phases(struct machine *m) {
    static const char *const names[] = {
        [VCPU_STOPPED] = "stopped", [VCPU_RUNNING] = "running", [VCPU_HALTED] = "halted"};
    json_t *list = json_array();
    for (unsigned i = 0; m->vcpus && i < m->host.vcpus; i++) {
        int phase = atomic_load(&m->vcpus[i].phase);
        bool known = phase >= 0 && (size_t)phase < ARRAY_LEN(names);
        json_array_append_new(list, json_string(known ? names[phase] : "?"));
    }
    return list;
}

static int do_ping(const struct control_target *t, const struct control_action *a, json_t **result, struct error *err) {
    return 0;
}

static int do_info(const struct control_target *t, const struct control_action *a, json_t **result, struct error *err) {
    const struct vm_config *cfg = t->config;
    struct machine *m = t->machine;
    *result = json_pack("{s:s, s:i, s:s, s:s, s:s, s:s, s:i, s:I, s:s, s:I, s:s, s:o}", "name", cfg->name, "pid",
                        (int)getpid(), "state", state_name(t), "engine", m->engine_ops ? m->engine_ops->name : "none",
                        "board", config_board_name(cfg->board), "cpu", config_cpu_name(cfg->cpu), "cpus",
                        (int)cfg->cpus, "memory", (json_int_t)cfg->memory, "kernel", cfg->kernel, "uptime_ns",
                        (json_int_t)clock_now_ns(&m->clock), "version", cicada_version(), "vcpus", vcpu_phases(m));
    for (unsigned i = 0; *result && i < cfg->ndisks; i++) {
        const struct disk_config *d = &cfg->disks[i];
        json_t *disk = json_pack("{s:s, s:b, s:b}", "path", d->path, "read_only", d->read_only, "overlay", d->overlay);
        if (!json_object_get(*result, "disks"))
            json_object_set_new(*result, "disks", json_array());
        json_array_append_new(json_object_get(*result, "disks"), disk);
    }
    // A name of a file need not be UTF-8, JSON must.
    return *result ? 0 : error_set(err, -EINVAL, "info: a string of this VM is not valid UTF-8");
}

static json_int_t usec(struct timeval tv) {
    return (json_int_t)tv.tv_sec * 1000000 + tv.tv_usec;
}

static int do_stats(const struct control_target *t, const struct control_action *a, json_t **result,
                    struct error *err) {
    struct machine *m = t->machine;
    struct engine_stat stats[STATS_MAX];
    struct rusage ru = {0};
    unsigned n = m->engine_ops && m->engine_ops->stats ? m->engine_ops->stats(m->engine, stats, STATS_MAX) : 0;
    json_t *engine = json_object();
    for (unsigned i = 0; i < n && i < STATS_MAX; i++)
        json_object_set_new(engine, stats[i].name, json_integer((json_int_t)stats[i].value));
    getrusage(RUSAGE_SELF, &ru);
    *result = json_pack("{s:I, s:I, s:I, s:I, s:o, s:o}", "uptime_ns", (json_int_t)clock_now_ns(&m->clock), "user_us",
                        usec(ru.ru_utime), "system_us", usec(ru.ru_stime), "max_rss_kib", (json_int_t)ru.ru_maxrss,
                        "vcpus", vcpu_phases(m), "engine", engine);
    return *result ? 0 : error_set(err, -ENOMEM, "stats");
}

static int do_stop(const struct control_target *t, const struct control_action *a, json_t **result, struct error *err) {
    if (a->stop.how == CONTROL_STOP_NOW) {
        machine_end(t->machine, MACHINE_STOPPED);
        return 0;
    }
    if (!t->power_button)
        return error_set(err, -EINVAL, "stop: this board has no power button");
    t->power_button(t->ctx);
    return 0;
}

// A guest on its way from one process to another is nobody's to stop or start.
static int check_settled(const struct control_target *t, struct error *err) {
    const char *moving = t->migrate ? migrate_control_state(t->migrate) : NULL;
    return moving ? error_set(err, -EBUSY, "the VM is %s", moving) : 0;
}

static int do_pause(const struct control_target *t, const struct control_action *a, json_t **result,
                    struct error *err) {
    int ret = check_settled(t, err);
    if (ret == 0 && !t->machine->paused) { // pausing nests in core; for a person it is a switch
        t->machine->paused = true;
        machine_pause(t->machine);
    }
    return ret;
}

static int do_resume(const struct control_target *t, const struct control_action *a, json_t **result,
                     struct error *err) {
    int ret = t->migrate ? migrate_control_resume(t->migrate, err) : 1;
    if (ret <= 0)
        return ret;
    ret = check_settled(t, err);
    if (ret == 0 && t->machine->paused) {
        t->machine->paused = false;
        cpu_component_set_clock(t->machine, a->resume.jump);
        machine_resume(t->machine);
    }
    return ret;
}

static int do_reset(const struct control_target *t, const struct control_action *a, json_t **result,
                    struct error *err) {
    int ret = check_settled(t, err);
    if (ret == 0)
        machine_reset_request(t->machine);
    return ret;
}

static int take_device(struct control_peer *peer) {
    if (!peer || peer->nfds != 1)
        return -1;
    int device = peer->fds[0];
    peer->fds[0] = -1;
    return device;
}

// Nobody else may be reading the engine's dirty log.
static int do_engine(const struct control_target *t, struct control_peer *peer, const struct control_action *a,
                     json_t **result, struct error *err) {
    struct engine_switched done;
    if (!t->engine_switch)
        return error_set(err, -EINVAL, "this VM cannot change its engine");
    int ret = t->migrate ? migrate_control_idle(t->migrate, err) : 0;
    if (ret == 0 && t->snapshot && snapshot_control_busy(t->snapshot))
        ret = error_set(err, -EBUSY, "a snapshot of this VM is being taken");
    if (ret == 0 && mem_lazy(t->machine->mem)) // KVM's guest could meet a page that only faults of user mode bring
        ret = error_set(err, -EBUSY, "pages of this VM's memory are still to come");
    if (ret == 0)
        ret = engine_switch_to(t->engine_switch, a->engine.to, take_device(peer), &done, err);
    if (ret)
        return ret;
    *result = json_pack("{s:s, s:I}", "from", done.from, "pause_us", (json_int_t)(done.pause_ns / 1000));
    return *result ? 0 : error_set(err, -ENOMEM, "engine");
}

static int do_snapshot(const struct control_target *t, struct control_peer *peer, const struct control_action *a,
                       json_t **result, struct error *err) {
    if (!t->snapshot)
        return error_set(err, -EINVAL, "this VM cannot be saved");
    int ret = a->verb == CONTROL_SNAPSHOT && t->migrate ? migrate_control_idle(t->migrate, err) : 0;
    if (ret)
        return ret;
    switch (a->verb) {
    case CONTROL_SNAPSHOT: return snapshot_control_begin(t->snapshot, peer, &a->snapshot, result, err);
    case CONTROL_SNAPSHOT_FINISH: return snapshot_control_finish(t->snapshot, peer, &a->snapshot_finish, err);
    default: return snapshot_control_status(t->snapshot, peer, result, err);
    }
}

static int do_migrate(const struct control_target *t, struct control_peer *peer, const struct control_action *a,
                      json_t **result, struct error *err) {
    if (!t->migrate || !peer)
        return error_set(err, -EINVAL, "this VM cannot be migrated");
    if (a->verb == CONTROL_MIGRATE_STATUS)
        return migrate_control_status(t->migrate, result, err);
    if (a->verb == CONTROL_MIGRATE_CANCEL)
        return migrate_control_cancel(t->migrate, err);
    if (t->snapshot && snapshot_control_busy(t->snapshot))
        return error_set(err, -EBUSY, "a snapshot of this VM is being taken");
    return migrate_control_begin(t->migrate, peer, &a->migrate, err);
}

int control_execute(const struct control_target *target, struct control_peer *peer, const struct control_action *action,
                    json_t **result, struct error *err) {
    static int (*const table[CONTROL_VERB_COUNT])(const struct control_target *, const struct control_action *,
                                                  json_t **, struct error *) = {
        [CONTROL_PING] = do_ping,   [CONTROL_INFO] = do_info,     [CONTROL_STATS] = do_stats, [CONTROL_STOP] = do_stop,
        [CONTROL_PAUSE] = do_pause, [CONTROL_RESUME] = do_resume, [CONTROL_RESET] = do_reset,
    };
    *result = NULL;
    if (action->verb != CONTROL_SNAPSHOT_STATUS && action->verb != CONTROL_MIGRATE_STATUS) // asked many times
        log_info("action %s", verb_names[action->verb]);
    if (action->verb >= CONTROL_MIGRATE && action->verb <= CONTROL_MIGRATE_CANCEL)
        return do_migrate(target, peer, action, result, err);
    if (action->verb == CONTROL_ENGINE)
        return do_engine(target, peer, action, result, err);
    if (!table[action->verb])
        return do_snapshot(target, peer, action, result, err);
    return table[action->verb](target, action, result, err);
}

// ---- the answer ----

static char *format_answer(int ret, json_t *id, json_t *result, const struct error *err) {
    json_t *root = json_object();
    json_object_set_new(root, "ok", json_boolean(ret == 0));
    if (id)
        json_object_set(root, "id", id);
    if (result)
        json_object_set(root, "result", result);
    if (ret) {
        // The text may quote the request, cut in the middle of a character.
        json_t *text = json_string(err->text);
        json_object_set_new(root, "error", text ? text : json_string("the request is not valid"));
        json_object_set_new(root, "code", json_integer(ret));
    }
    char *line = json_dumps(root, JSON_COMPACT | JSON_ENSURE_ASCII);
    json_decref(root);
    size_t n = line ? strlen(line) : 0;
    char *full = line ? realloc(line, n + 2) : NULL;
    if (!full) {
        free(line);
        return NULL;
    }
    memcpy(full + n, "\n", 2);
    return full;
}

char *control_answer(const struct control_target *target, struct control_peer *peer, const char *line, size_t len) {
    struct control_action action;
    struct error err = {0};
    json_t *id = NULL, *result = NULL;
    int ret = control_parse(line, len, &action, &id, &err);
    if (ret == 0)
        ret = control_execute(target, peer, &action, &result, &err);
    char *answer = format_answer(ret, id, result, &err);
    json_decref(id);
    json_decref(result);
    return answer;
}

void control_init(void) {
    json_object_seed(0);
}
