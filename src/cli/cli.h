// SPDX-License-Identifier: Apache-2.0
// The command line: a const table of subcommands, each of which turns its arguments into calls of vmm/ and nothing
// else. Results go to standard output, messages for people to standard error.
#ifndef CICADA_CLI_CLI_H
#define CICADA_CLI_CLI_H

#include "util/error.h"
#include "vmm/option.h"

struct cli_command {
    const char *name;
    const char *summary; // one line
    const char *usage;   // arguments in a usage line
    const struct option_table *options;
    // argv[0] is the command's name. Returns the exit code of the process.
    int (*run)(const struct cli_command *cmd, int argc, char *const *argv);
};

extern const struct cli_command cmd_run, cmd_ps, cmd_stop, cmd_stats, cmd_pause, cmd_resume, cmd_reset, cmd_version,
    cmd_help, cmd_completion, cmd_migrate, cmd_receive, cmd_snapshot, cmd_suspend, cmd_restore, cmd_clone, cmd_engine;
extern const struct cli_command *const cli_commands[]; // ends with NULL

const struct cli_command *cli_find(const char *name);

#define CLI_GO_ON (-1)
// Parses the command's options into target. CLI_GO_ON, or the exit code where there is nothing more to do: help was
// asked for and printed, or an error was.
int cli_parse(const struct cli_command *cmd, int argc, char *const *argv, void *target);
void cli_print_help(const struct cli_command *cmd, FILE *out);
// "cicada: text" on standard error; returns code.
int cli_fail(const struct error *err, int code);
// Is everything printed really written? Otherwise a message and exit code 2.
int cli_finish_output(void);

#endif
