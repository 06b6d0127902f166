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

#define CONTROL_COMMAND(command, text)                                                                                 \
    const struct cli_command cmd_##command = {                                                                         \
        .name = #command, .summary = text, .usage = "NAME", .options = &options, .run = run}

CONTROL_COMMAND(stats, "Print counters of a running virtual machine as JSON");
CONTROL_COMMAND(pause, "Stop the virtual CPUs and the clock of a virtual machine");
CONTROL_COMMAND(resume, "Let a paused virtual machine go on");
CONTROL_COMMAND(reset, "Reset a virtual machine, as its reset button would");
