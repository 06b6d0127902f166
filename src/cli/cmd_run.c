// SPDX-License-Identifier: Apache-2.0
// `cicada run`: the options into a struct vm_config, the terminal into a struct run_terminal.
#include "cli/cli.h"
#include "cli/terminal.h"
#include "vmm/config.h"
#include "vmm/run.h"

static int run(const struct cli_command *cmd, int argc, char *const *argv) {
    struct vm_config cfg;
    struct error err = {0};
    config_init(&cfg);
    int code = cli_parse(cmd, argc, argv, &cfg);
    if (code == CLI_GO_ON) {
        struct run_terminal term = {.enter = terminal_enter, .leave = terminal_leave, .resumed = terminal_resumed};
        terminal_examine(&term.interactive, &term.input);
        code = run_vm(&cfg, &term, &err);
        if (err.code)
            cli_fail(&err, code);
    }
    config_destroy(&cfg);
    return code;
}

const struct cli_command cmd_run = {
    .name = "run",
    .summary = "Run a virtual machine in the foreground, until it ends",
    .usage = "--kernel FILE [OPTION]...",
    .options = &config_options,
    .run = run,
};
