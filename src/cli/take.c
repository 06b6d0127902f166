// SPDX-License-Identifier: Apache-2.0
// Taking a snapshot; see the header. Order: files under a temporary name; the VM fills them and says done; the
// directory gets its name; only then is the VM told, which for `suspend` ends it. Whoever dies in between leaves either
// a running VM without a snapshot, or a complete snapshot beside a VM that goes on.
#include "cli/take.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "cli/progress.h"
#include "cli/remote.h"
#include "state/snapshot.h"

#define POLL_NS 5000000

struct take {
    const struct take_options *opt;
    struct snapshot_draft draft;
    struct control_client client;
    struct progress progress;
    json_t *machine; // what the VM says of itself
    char parent[SNAPSHOT_ID_LENGTH + 1], parent_path[PATH_MAX];
    uint64_t pause_ns;
};

static int call(struct take *t, json_t *request, const int *fds, unsigned nfds, json_t **result, struct error *err) {
    int ret = control_client_call_fds(&t->client, request, fds, nfds, REMOTE_TIMEOUT_MS, result, err);
    json_decref(request);
    return ret;
}

// ---- the parent of a difference ----

static int check_parent(struct take *t, const json_t *begun, struct error *err) {
    const char *id = json_string_value(json_object_get(begun, "parent"));
    const char *path = json_string_value(json_object_get(begun, "parent_path"));
    json_t *manifest = NULL;
    if (!id || !path)
        return error_set(err, -EINVAL, "VM '%s' does not tell its last snapshot", t->opt->name);
    snprintf(t->parent, sizeof(t->parent), "%s", id);
    snprintf(t->parent_path, sizeof(t->parent_path), "%s", path);
    int ret = snapshot_manifest_read(path, &manifest, err);
    if (ret)
        return error_prefix(err, "the difference would be to a snapshot that is not there");
    const char *there = json_string_value(json_object_get(manifest, "id"));
    if (!there || strcmp(there, id) != 0)
        ret = error_set(err, -EINVAL, "'%s' is not the last snapshot of VM '%s' any more: take one without --diff",
                        path, t->opt->name);
    json_decref(manifest);
    return ret;
}

// As the child refers to it: relative where both are in one directory, so that they can be moved together.
static json_t *parent_reference(const struct take *t) {
    const char *slash = strrchr(t->parent_path, '/'), *mine = strrchr(t->draft.path, '/');
    size_t len = (size_t)(slash - t->parent_path);
    char relative[PATH_MAX + 4];
    bool sibling = len == (size_t)(mine - t->draft.path) && memcmp(t->parent_path, t->draft.path, len) == 0;
    snprintf(relative, sizeof(relative), "..%s", slash);
    return json_pack("{s:s, s:s}", "id", t->parent, "path", sibling ? relative : t->parent_path);
}

// ---- steps ----

// A file for each disk that the VM has to copy: see snapshot_control.c.
static int add_disks(struct take *t, int *fds, unsigned *nfds, struct error *err) {
    json_t *info = NULL, *disk;
    size_t i;
    int ret = call(t, json_pack("{s:s}", "action", "info"), NULL, 0, &info, err);
    json_array_foreach(json_object_get(info, "disks"), i, disk) {
        bool private = json_is_true(json_object_get(disk, "overlay"));
        if (ret || json_is_true(json_object_get(disk, "read_only")) || (t->opt->end && !private))
            continue;
        ret = snapshot_draft_add_disk(&t->draft, (unsigned)i, err);
        fds[(*nfds)++] = t->draft.disk_fds[i];
    }
    json_decref(info);
    return ret;
}

static int begin(struct take *t, struct error *err) {
    int fds[2 + SNAPSHOT_DISKS_MAX] = {t->draft.state_fd, t->draft.memory_fd};
    unsigned nfds = 2;
    json_t *result = NULL;
    int ret = add_disks(t, fds, &nfds, err);
    if (ret)
        return ret;
    ret = call(t, json_pack("{s:s, s:b, s:b}", "action", "snapshot", "live", !t->opt->end, "diff", t->opt->diff), fds,
               nfds, &result, err);
    if (ret == 0 && t->opt->diff)
        ret = check_parent(t, result, err);
    json_decref(result);
    return ret;
}

static unsigned long long number(const json_t *status, const char *key) {
    return (unsigned long long)json_integer_value(json_object_get(status, key));
}

// Asks until it is done.
static int wait_done(struct take *t, struct error *err) {
    for (;;) {
        json_t *status = NULL;
        int ret = call(t, json_pack("{s:s}", "action", "snapshot-status"), NULL, 0, &status, err);
        if (ret)
            return ret;
        const char *phase = json_string_value(json_object_get(status, "phase"));
        phase = phase ? phase : "?";
        bool done = strcmp(phase, "done") == 0;
        progress_show(&t->progress, number(status, "pages_done"), number(status, "pages_total"), "%s, %llu MiB", phase,
                      number(status, "pages_total") >> 8);
        if (done) {
            t->machine = json_incref(json_object_get(status, "machine"));
            t->pause_ns = number(status, "pause_ns");
        }
        json_decref(status);
        if (done)
            return t->machine ? 0 : error_set(err, -EPROTO, "VM '%s' does not describe itself", t->opt->name);
        nanosleep(&(struct timespec){.tv_nsec = POLL_NS}, NULL);
    }
}

static int publish(struct take *t, struct error *err) {
    char created[32];
    time_t now = time(NULL);
    struct tm tm;
    strftime(created, sizeof(created), "%Y-%m-%dT%H:%M:%SZ", gmtime_r(&now, &tm));
    json_t *manifest = json_pack("{s:s, s:s, s:s, s:O}", "created", created, "vm", t->opt->name, "compression",
                                 t->opt->zstd ? "zstd" : "none", "machine", t->machine);
    if (t->opt->diff)
        json_object_set_new(manifest, "parent", parent_reference(t));
    int ret = manifest ? snapshot_draft_publish(&t->draft, manifest, err) : error_set(err, -ENOMEM, "manifest");
    json_decref(manifest);
    return ret;
}

// The snapshot exists by now; a VM that does not hear of it any more has died or will go on.
static int finish(struct take *t, struct error *err) {
    json_t *result = NULL;
    int ret = call(t,
                   json_pack("{s:s, s:b, s:b, s:s, s:s}", "action", "snapshot-finish", "keep", 1, "end", t->opt->end,
                             "snapshot", t->draft.id, "path", t->draft.path),
                   NULL, 0, &result, err);
    json_decref(result);
    if (ret == 0 && t->opt->end)
        control_client_wait_end(&t->client, REMOTE_TIMEOUT_MS);
    return ret;
}

static int run_steps(struct take *t, struct error *err) {
    struct instance inst;
    pid_t pid;
    int ret = remote_open(t->opt->name, &inst, &pid, &t->client, err);
    if (ret == 0)
        ret = snapshot_draft_create(t->opt->to, &t->draft, err);
    if (ret == 0)
        ret = begin(t, err);
    if (ret == 0)
        ret = wait_done(t, err);
    if (ret == 0 && t->opt->zstd) {
        progress_show(&t->progress, 1, 1, "compressing");
        ret = snapshot_draft_compress(&t->draft, t->opt->zstd, err);
    }
    if (ret == 0)
        ret = publish(t, err);
    return ret;
}

int take_snapshot(const struct take_options *opt, struct take_result *result, struct error *err) {
    struct take t = {.opt = opt, .client.fd = -1};
    struct error ignored;
    progress_begin(&t.progress);
    int ret = run_steps(&t, err);
    progress_end(&t.progress);
    if (ret == 0) {
        snprintf(result->path, sizeof(result->path), "%s", t.draft.path);
        result->pause_ns = t.pause_ns;
        if (finish(&t, &ignored))
            fprintf(stderr, "cicada: the snapshot is complete, but VM '%s' %s\n", opt->name,
                    opt->end ? "may go on" : "did not hear of it");
    }
    snapshot_draft_discard(&t.draft);
    control_client_close(&t.client);
    json_decref(t.machine);
    return ret;
}
