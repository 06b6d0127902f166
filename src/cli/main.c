// SPDX-License-Identifier: Apache-2.0
// Entry: finds the subcommand in the table and runs it.
#include <stdio.h>
#include <string.h>

#include "cli/cli.h"
#include "cli/crash.h"
#include "sandbox/seal.h"
#include "vmm/run.h"

static int unknown_command(const char *name) {
    const char *names[32];
    unsigned n = 0;
    for (; cli_commands[n] && n + 1 < sizeof(names) / sizeof(names[0]); n++)
        names[n] = cli_commands[n]->name;
    names[n] = NULL;
    const char *near = option_nearest(name, names);
    if (near)
        fprintf(stderr, "cicada: unknown command '%.80s': did you mean '%s'?\n", name, near);
    else
        fprintf(stderr, "cicada: unknown command '%.80s' ('cicada help' lists all)\n", name);
    return RUN_CALLER;
}

int main(int argc, char **argv) {
    seal_note_inherited();
    crash_install();
    if (argc < 2) {
        char *const help[] = {"help", NULL};
        cmd_help.run(&cmd_help, 1, help);
        return RUN_CALLER;
    }
    const char *name = argv[1];
    if (strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0)
        name = "help";
    else if (strcmp(name, "--version") == 0 || strcmp(name, "-V") == 0)
        name = "version";
    const struct cli_command *cmd = cli_find(name);
    return cmd ? cmd->run(cmd, argc - 1, argv + 1) : unknown_command(name);
}
