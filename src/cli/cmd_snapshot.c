// SPDX-License-Identifier: Apache-2.0
// `cicada snapshot NAME --to DIR` takes a snapshot of a running VM; `cicada snapshot info|verify|list|tree|rm` look at
// those on the disk (cli/snapshots.h).
#include <errno.h>
#include <string.h>

#include "cli/cli.h"
#include "cli/snapshots.h"
#include "cli/take.h"
#include "vmm/config_value.h"
#include "vmm/run.h"

struct snapshot_target {
    struct take_options take;
    const char *words[2]; // arguments
    unsigned count;
    bool json;
};

static int set_to(void *t, const char *value, int index, struct error *err) {
    ((struct snapshot_target *)t)->take.to = value;
    return 0;
}

static int set_diff(void *t, const char *value, int index, struct error *err) {
    ((struct snapshot_target *)t)->take.diff = true;
    return 0;
}

static int set_zstd(void *t, const char *value, int index, struct error *err) {
    ((struct snapshot_target *)t)->take.zstd = 3;
    return 0;
}

static int set_json(void *t, const char *value, int index, struct error *err) {
    ((struct snapshot_target *)t)->json = true;
    return 0;
}

static int set_word(void *t, const char *value, struct error *err) {
    struct snapshot_target *target = t;
    if (target->count == 2)
        return error_set(err, -EINVAL, "unexpected argument '%.80s'", value);
    target->words[target->count++] = value;
    return 0;
}

static const struct option_def defs[] = {
    {"to", .metavar = "DIR", .complete = OPTION_COMPLETE_FILE, .set = set_to, .help = "directory to be made"},
    {"diff", .set = set_diff, .help = "only the memory written since the VM's last snapshot,\nor since its restore"},
    {"zstd", .set = set_zstd, .help = "compress the memory: smaller, and slower to restore"},
    {"json", .set = set_json, .help = "info and list: print JSON"},
};
static const struct option_table options = {.defs = defs,
                                            .count = sizeof(defs) / sizeof(defs[0]),
                                            .positional = "NAME",
                                            .positional_complete = OPTION_COMPLETE_VM,
                                            .set_positional = set_word};

static int take(struct snapshot_target *t, struct error *err) {
    struct take_result result;
    if (t->count != 1)
        return error_set(err, -EINVAL, "snapshot: the NAME of a VM and --to DIR, or info, verify, list, tree or rm");
    t->take.name = t->words[0];
    int ret = take_snapshot(&t->take, &result, err);
    if (ret == 0)
        printf("%s: the guest stood for %.1f ms\n", result.path, (double)result.pause_ns / 1e6);
    return ret;
}

static int look(const struct snapshot_target *t, struct error *err) {
    const char *verb = t->count ? t->words[0] : "";
    // The directory of list and tree may be left out.
    const char *path = t->count == 2 ? t->words[1] : ".";
    if (strcmp(verb, "list") == 0)
        return snapshots_list(path, t->json, err);
    if (strcmp(verb, "tree") == 0)
        return snapshots_tree(path, err);
    bool known = strcmp(verb, "info") == 0 || strcmp(verb, "verify") == 0 || strcmp(verb, "rm") == 0;
    if (!known)
        return error_set(err, -EINVAL,
                         t->count == 2 ? "snapshot: '%.40s' is not one of info, verify, list, tree or rm"
                                       : "snapshot '%.40s': --to DIR is needed",
                         verb);
    if (t->count != 2)
        return error_set(err, -EINVAL, "snapshot %s: the DIR of a snapshot is needed", verb);
    return verb[0] == 'i'   ? snapshots_info(path, t->json, err)
           : verb[0] == 'v' ? snapshots_verify(path, err)
                            : snapshots_rm(path, err);
}

static int run(const struct cli_command *cmd, int argc, char *const *argv) {
    struct snapshot_target t = {0};
    struct error err = {0};
    int code = cli_parse(cmd, argc, argv, &t);
    if (code != CLI_GO_ON)
        return code;
    int ret = t.take.to ? take(&t, &err) : look(&t, &err);
    return ret ? cli_fail(&err, run_error_code(ret)) : cli_finish_output();
}

const struct cli_command cmd_snapshot = {
    .name = "snapshot",
    .summary = "Save a running virtual machine, or look at what was saved",
    .usage = "NAME --to DIR [--diff] | info|verify|rm DIR | list|tree [DIR]",
    .options = &options,
    .run = run,
};
