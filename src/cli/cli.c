// SPDX-License-Identifier: Apache-2.0
// What all subcommands share.
#include "cli/cli.h"

#include <errno.h>
#include <string.h>

#include "vmm/run.h"

const struct cli_command *const cli_commands[] = {
    &cmd_run,   &cmd_ps,      &cmd_stop,    &cmd_stats,    &cmd_pause,      &cmd_resume,
    &cmd_reset, &cmd_migrate, &cmd_receive, &cmd_snapshot, &cmd_suspend,    &cmd_restore,
    &cmd_clone, &cmd_engine,  &cmd_version, &cmd_help,     &cmd_completion, NULL,
};

const struct cli_command *cli_find(const char *name) {
    for (unsigned i = 0; cli_commands[i]; i++)
        if (strcmp(cli_commands[i]->name, name) == 0)
            return cli_commands[i];
    return NULL;
}

void cli_print_help(const struct cli_command *cmd, FILE *out) {
    fprintf(out, "Usage: cicada %s%s%s\n%s.\n\n", cmd->name, *cmd->usage ? " " : "", cmd->usage, cmd->summary);
    option_print_help(cmd->options, out);
}

int cli_fail(const struct error *err, int code) {
    fprintf(stderr, "cicada: %s\n", err->text);
    return code;
}

int cli_finish_output(void) {
    if (fflush(stdout) == 0 && !ferror(stdout))
        return 0;
    fprintf(stderr, "cicada: write to standard output: %s\n", strerror(errno));
    return RUN_HOST;
}

int cli_parse(const struct cli_command *cmd, int argc, char *const *argv, void *target) {
    struct error err = {0};
    int ret = option_parse(cmd->options, argc - 1, argv + 1, target, &err);
    if (ret == 0)
        return CLI_GO_ON;
    if (ret == OPTION_HELP) {
        cli_print_help(cmd, stdout);
        return cli_finish_output();
    }
    return cli_fail(&err, RUN_CALLER);
}
