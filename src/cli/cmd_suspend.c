// SPDX-License-Identifier: Apache-2.0
// `cicada suspend NAME --to DIR`: the whole machine into a snapshot, and the VM ends. `cicada restore` goes on with it.
#include <errno.h>

#include "cli/cli.h"
#include "cli/remote.h"
#include "cli/take.h"
#include "vmm/run.h"

static int set_to(void *t, const char *value, int index, struct error *err) {
    ((struct take_options *)t)->to = value;
    return 0;
}

static int set_zstd(void *t, const char *value, int index, struct error *err) {
    ((struct take_options *)t)->zstd = 3;
    return 0;
}

static int set_name(void *t, const char *value, struct error *err) {
    return remote_set_name(&((struct take_options *)t)->name, value, err);
}

static const struct option_def defs[] = {
    {"to", .metavar = "DIR", .complete = OPTION_COMPLETE_FILE, .set = set_to, .help = "directory to be made (needed)"},
    {"zstd", .set = set_zstd, .help = "compress the memory: smaller, and slower to restore"},
};
static const struct option_table options = {.defs = defs,
                                            .count = sizeof(defs) / sizeof(defs[0]),
                                            .positional = "NAME",
                                            .positional_complete = OPTION_COMPLETE_VM,
                                            .set_positional = set_name};

static int run(const struct cli_command *cmd, int argc, char *const *argv) {
    struct take_options opt = {.end = true};
    struct take_result result;
    struct error err = {0};
    int code = cli_parse(cmd, argc, argv, &opt);
    if (code != CLI_GO_ON)
        return code;
    if (!opt.to) {
        error_set(&err, -EINVAL, "suspend: --to DIR is needed");
        return cli_fail(&err, RUN_CALLER);
    }
    int ret = take_snapshot(&opt, &result, &err);
    return ret ? cli_fail(&err, run_error_code(ret)) : 0;
}

const struct cli_command cmd_suspend = {
    .name = "suspend",
    .summary = "Save a virtual machine to a directory and end it",
    .usage = "NAME --to DIR",
    .options = &options,
    .run = run,
};
