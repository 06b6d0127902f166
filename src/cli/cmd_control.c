// SPDX-License-Identifier: Apache-2.0
// The subcommands that are one action on one VM: stats, pause, resume, reset.
#include "cli/cli.h"
#include "cli/remote.h"
#include "vmm/run.h"

static int set_name(void *t, const char *value, struct error *err) {
    return remote_set_name(t, value, err);
}

static const struct option_table options = {
    .positional = "NAME", .positional_complete = OPTION_COMPLETE_VM, .set_positional = set_name};

// The command's name is the action's. A result is printed as JSON.
static int run(const struct cli_command *cmd, int argc, char *const *argv) {
    const char *name = NULL;
    struct error err = {0};
    json_t *result = NULL;
    int code = cli_parse(cmd, argc, argv, &name);
    if (code != CLI_GO_ON)
        return code;
    int ret = remote_call(name, cmd->name, &result, &err);
    if (ret)
        return cli_fail(&err, run_error_code(ret));
    if (!json_is_null(result)) {
        json_dumpf(result, stdout, JSON_INDENT(2));
        putchar('\n');
    }
    json_decref(result);
    return cli_finish_output();
}

// ---- resume has an option ----

struct resume_target {
    const char *name;
    const char *clock;
};

static int set_resume_name(void *t, const char *value, struct error *err) {
    return remote_set_name(&((struct resume_target *)t)->name, value, err);
}

static int set_clock(void *t, const char *value, int index, struct error *err) {
    ((struct resume_target *)t)->clock = value;
    return 0;
}

static const struct option_def resume_defs[] = {
    {"clock", .metavar = "POLICY", .choices = "continue|jump", .set = set_clock,
     .help = "the guest's clocks go on where they stood: continue\n(default), or at the present time: jump"},
};
static const struct option_table resume_options = {.defs = resume_defs,
                                                   .count = 1,
                                                   .positional = "NAME",
                                                   .positional_complete = OPTION_COMPLETE_VM,
                                                   .set_positional = set_resume_name};

static int run_resume(const struct cli_command *cmd, int argc, char *const *argv) {
    struct resume_target t = {.clock = "continue"};
    struct error err = {0};
    json_t *result = NULL;
    int code = cli_parse(cmd, argc, argv, &t);
    if (code != CLI_GO_ON)
        return code;
    int ret = remote_request(t.name, json_pack("{s:s, s:s}", "action", "resume", "clock", t.clock), &result, &err);
    json_decref(result);
    return ret ? cli_fail(&err, run_error_code(ret)) : 0;
}

const struct cli_command cmd_resume = {.name = "resume",
                                       .summary = "Let a paused virtual machine go on",
                                       .usage = "NAME [--clock continue|jump]",
                                       .options = &resume_options,
                                       .run = run_resume};

#define CONTROL_COMMAND(command, text)                                                                                 \
    const struct cli_command cmd_##command = {                                                                         \
        .name = #command, .summary = text, .usage = "NAME", .options = &options, .run = run}

CONTROL_COMMAND(stats, "Print counters of a running virtual machine as JSON");
CONTROL_COMMAND(pause, "Stop the virtual CPUs and the clock of a virtual machine");
CONTROL_COMMAND(reset, "Reset a virtual machine, as its reset button would");
