// SPDX-License-Identifier: Apache-2.0
// `cicada clone NAME --count N`: running copies of a running VM. A live snapshot in memory (/dev/shm where there is
// one) is their common base; its files are removed when all have it mapped, and are gone with the last of them.
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/cli.h"
#include "cli/clones.h"
#include "cli/remote.h"
#include "cli/take.h"
#include "state/snapshot.h"
#include "vmm/config_value.h"
#include "vmm/run.h"

struct clone_target {
    const char *name;
    struct clones_options opt;
    const char *serial;
};

static int set_count(void *t, const char *value, int index, struct error *err) {
    uint64_t n;
    if (value_parse_u64(value, &n) != 0 || n < 1 || n > CLONES_MAX)
        return error_set(err, -EINVAL, "--count '%.40s': expected a number from 1 to %d", value, CLONES_MAX);
    ((struct clone_target *)t)->opt.count = (unsigned)n;
    return 0;
}

static int set_prefix(void *t, const char *value, int index, struct error *err) {
    if (!value_name_ok(value) || strlen(value) > CONFIG_MAX_NAME - 6)
        return error_set(err, -EINVAL, "--prefix '%.80s' cannot begin the name of a VM", value);
    ((struct clone_target *)t)->opt.prefix = value;
    return 0;
}

static int set_serial(void *t, const char *value, int index, struct error *err) {
    ((struct clone_target *)t)->serial = value;
    return 0;
}

static int set_json(void *t, const char *value, int index, struct error *err) {
    ((struct clone_target *)t)->opt.json = true;
    return 0;
}

static int set_name(void *t, const char *value, struct error *err) {
    return remote_set_name(&((struct clone_target *)t)->name, value, err);
}

static const struct option_def defs[] = {
    {"count", .metavar = "N", .set = set_count, .help = "how many (default 1)"},
    {"prefix", .metavar = "PREFIX", .set = set_prefix, .help = "they are called PREFIX-1, ... (default: NAME)"},
    {"serial", .metavar = "null|file:PATH|unix:PATH", .set = set_serial,
     .help = "where the serial consoles go (default null); .1, ... is\nadded to PATH"},
    {"json", .set = set_json, .help = "print a JSON array instead of a table"},
};
static const struct option_table options = {.defs = defs,
                                            .count = sizeof(defs) / sizeof(defs[0]),
                                            .positional = "NAME",
                                            .positional_complete = OPTION_COMPLETE_VM,
                                            .set_positional = set_name};

static const char *base_directory(void) {
    const char *tmp = getenv("TMPDIR");
    if (access("/dev/shm", W_OK | X_OK) == 0)
        return "/dev/shm";
    return tmp && *tmp ? tmp : "/tmp";
}

static int start(const struct clone_target *t, const char *path, struct error *err) {
    struct restore_options ro = {.path = path};
    struct restore *restore = NULL;
    struct vm_config cfg;
    config_init(&cfg);
    int ret = restore_open(&ro, &cfg, &restore, err);
    const struct option_def *serial = option_find(&config_options, "serial", 6);
    if (ret == 0 && t->serial)
        ret = serial->set(&cfg, t->serial, -1, err);
    if (ret == 0)
        ret = clones_start(restore, &cfg, &t->opt, err);
    restore_close(restore);
    config_destroy(&cfg);
    return ret;
}

static int clone_vm(struct clone_target *t, struct error *err) {
    char dir[PATH_MAX], to[PATH_MAX + 8];
    struct take_result result;
    if (!t->name)
        return error_set(err, -EINVAL, "clone: the NAME of a running VM is needed");
    if (!t->opt.prefix)
        t->opt.prefix = t->name;
    snprintf(dir, sizeof(dir), "%s/cicada-clone.XXXXXX", base_directory());
    if (!mkdtemp(dir))
        return error_set(err, -errno, "make a directory in '%s'", base_directory());
    snprintf(to, sizeof(to), "%s/base", dir);
    struct take_options take = {.name = t->name, .to = to};
    int ret = take_snapshot(&take, &result, err);
    if (ret == 0) {
        struct error ignored;
        ret = start(t, to, err);
        snapshot_remove(to, &ignored);
    }
    rmdir(dir);
    return ret;
}

static int run(const struct cli_command *cmd, int argc, char *const *argv) {
    struct clone_target t = {.opt.count = 1};
    struct error err = {0};
    int code = cli_parse(cmd, argc, argv, &t);
    if (code != CLI_GO_ON)
        return code;
    int ret = clone_vm(&t, &err);
    return ret ? cli_fail(&err, run_error_code(ret)) : cli_finish_output();
}

const struct cli_command cmd_clone = {
    .name = "clone",
    .summary = "Start copies of a running virtual machine",
    .usage = "NAME [--count N] [--prefix PREFIX]",
    .options = &options,
    .run = run,
};
