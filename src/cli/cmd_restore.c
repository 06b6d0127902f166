// SPDX-License-Identifier: Apache-2.0
// `cicada restore DIR`: a VM from a snapshot. What the guest sees comes from the snapshot; what is of the host's side
// only can be chosen anew, by the same options as of `cicada run`.
#include <errno.h>
#include <string.h>

#include "cli/cli.h"
#include "cli/clones.h"
#include "cli/terminal.h"
#include "vmm/config_value.h"
#include "vmm/restore.h"
#include "vmm/run.h"

struct restore_target {
    struct restore_options opt;
    struct vm_config cfg;
    struct clones_options clones; // count 0: one VM, in the foreground
};

// ---- options of `cicada run` that are taken over ----

static int pass_on(const char *name, void *t, const char *value, int index, struct error *err) {
    const struct option_def *o = option_find(&config_options, name, strlen(name));
    return o->set(&((struct restore_target *)t)->cfg, value, index, err);
}

#define PASS_ON(function, name)                                                                                        \
    static int function(void *t, const char *value, int index, struct error *err) {                                    \
        return pass_on(name, t, value, index, err);                                                                    \
    }

PASS_ON(set_engine, "engine")
PASS_ON(set_serial, "serial")
PASS_ON(set_console, "console")
PASS_ON(set_name, "name")
PASS_ON(set_log, "log")
PASS_ON(set_verbose, "verbose")
PASS_ON(set_xlate_opts, "xlate-opts")
PASS_ON(set_kvm_opts, "kvm-opts")
PASS_ON(set_code_cache, "code-cache")

// ---- its own ----

static int set_eager(void *t, const char *value, int index, struct error *err) {
    ((struct restore_target *)t)->opt.eager = true;
    return 0;
}

static int set_uffd(void *t, const char *value, int index, struct error *err) {
    ((struct restore_target *)t)->opt.uffd = value;
    return 0;
}

static int set_clock(void *t, const char *value, int index, struct error *err) {
    ((struct restore_target *)t)->opt.clock = index ? RESTORE_CLOCK_JUMP : RESTORE_CLOCK_CONTINUE;
    return 0;
}

static int set_count(void *t, const char *value, int index, struct error *err) {
    uint64_t n;
    if (value_parse_u64(value, &n) != 0 || n < 1 || n > CLONES_MAX)
        return error_set(err, -EINVAL, "--count '%.40s': expected a number from 1 to %d", value, CLONES_MAX);
    ((struct restore_target *)t)->clones.count = (unsigned)n;
    return 0;
}

static int set_json(void *t, const char *value, int index, struct error *err) {
    ((struct restore_target *)t)->clones.json = true;
    return 0;
}

static int set_dir(void *t, const char *value, struct error *err) {
    struct restore_target *target = t;
    if (target->opt.path)
        return error_set(err, -EINVAL, "unexpected argument '%.80s': one DIR is enough", value);
    target->opt.path = value;
    return 0;
}

static const struct option_def defs[] = {
    {"name", .metavar = "NAME", .set = set_name, .help = "name of the VM (default: as it was)"},
    {"clock", .metavar = "POLICY", .choices = "continue|jump", .set = set_clock,
     .help = "the guest's clocks go on where they stood: continue\n(default), or at the present time: jump"},
    {"eager", .set = set_eager, .help = "read and verify all memory before the guest goes on"},
    {"uffd", .metavar = "PATH", .complete = OPTION_COMPLETE_FILE, .set = set_uffd,
     .help = "memory comes from the handler that listens on this\nsocket, by userfaultfd (Firecracker's protocol)"},
    {"count", .metavar = "N", .set = set_count,
     .help = "start N VMs in the background, called NAME-1, ...,\neach with its own MAC addresses and layers over the "
             "disks"},
    {"json", .set = set_json, .help = "with --count: print a JSON array instead of a table"},
    {"engine", .metavar = "ENGINE", .choices = "auto|kvm|xlate", .set = set_engine,
     .help = "what executes guest code: auto (default), kvm, xlate"},
    {"serial", .metavar = "stdio|null|file:PATH|unix:PATH", .set = set_serial,
     .help = "where the serial console goes (default stdio)"},
    {"console", .metavar = "stdio|null|file:PATH|unix:PATH", .set = set_console,
     .help = "where the virtio console goes, if there is one\n(default null)"},
    {"log", .metavar = "LEVEL", .choices = "error|warn|info|debug|trace", .set = set_log, .help = "log to stderr"},
    {"verbose", 'v', .set = set_verbose, .help = "log more: -v is info, -v -v is debug"},
    {"xlate-opts", .metavar = "LIST", .set = set_xlate_opts, .help = "switches of the xlate engine, by commas"},
    {"kvm-opts", .metavar = "LIST", .set = set_kvm_opts, .help = "switches of the kvm engine, by commas"},
    {"code-cache", .metavar = "SIZE", .set = set_code_cache, .help = "translated code of the xlate engine, 1M to 1G"},
};
static const struct option_table options = {.defs = defs,
                                            .count = sizeof(defs) / sizeof(defs[0]),
                                            .positional = "DIR",
                                            .positional_complete = OPTION_COMPLETE_FILE,
                                            .set_positional = set_dir};

// ---- command ----

// The snapshot gives the machine, the command line the host's side: so the latter is parsed once for DIR and for
// mistakes, and once more over what the snapshot has set.
static int configure(const struct cli_command *cmd, int argc, char *const *argv, struct restore_target *t,
                     struct restore **restore, struct error *err) {
    if (!t->opt.path)
        return error_set(err, -EINVAL, "restore: the DIR of a snapshot is needed");
    struct restore_options opt = t->opt;
    bool console = t->cfg.console.kind != CONFIG_CHAR_NONE;
    config_destroy(&t->cfg);
    int ret = restore_open(&opt, &t->cfg, restore, err);
    if (ret)
        return ret;
    if (console && t->cfg.console.kind == CONFIG_CHAR_NONE)
        return error_set(err, -EINVAL, "--console: the saved machine has no virtio console");
    t->opt.path = NULL;
    return option_parse(cmd->options, argc - 1, argv + 1, t, err);
}

static int start_clones(struct restore_target *t, struct restore *restore, struct error *err) {
    char prefix[CONFIG_MAX_NAME + 1];
    snprintf(prefix, sizeof(prefix), "%s", t->cfg.name);
    t->clones.prefix = prefix;
    if (strlen(prefix) > CONFIG_MAX_NAME - 6)
        return error_set(err, -EINVAL, "--name '%s' is too long to add a number to it", prefix);
    return clones_start(restore, &t->cfg, &t->clones, err);
}

static int run(const struct cli_command *cmd, int argc, char *const *argv) {
    struct restore_target t = {0};
    struct restore *restore = NULL;
    struct error err = {0};
    config_init(&t.cfg);
    int code = cli_parse(cmd, argc, argv, &t);
    if (code == CLI_GO_ON) {
        struct run_terminal term = {.enter = terminal_enter, .leave = terminal_leave, .resumed = terminal_resumed};
        int ret = configure(cmd, argc, argv, &t, &restore, &err);
        terminal_examine(&term.interactive, &term.input);
        bool many = ret == 0 && t.clones.count;
        if (many)
            ret = start_clones(&t, restore, &err);
        code = many && ret == 0 ? cli_finish_output()
               : ret            ? run_error_code(ret)
                                : run_vm_restored(&t.cfg, &term, restore, &err);
        if (err.code)
            cli_fail(&err, code);
    }
    restore_close(restore);
    config_destroy(&t.cfg);
    return code;
}

const struct cli_command cmd_restore = {
    .name = "restore",
    .summary = "Run a virtual machine from a snapshot",
    .usage = "DIR [OPTION]...",
    .options = &options,
    .run = run,
};
