// SPDX-License-Identifier: Apache-2.0
// `cicada help [COMMAND]`.
#include "cli/cli.h"
#include "vmm/run.h"

struct help_target {
    const char *topic;
};

static int set_topic(void *t, const char *value, struct error *err) {
    ((struct help_target *)t)->topic = value;
    return 0;
}

static const struct option_table options = {.positional = "COMMAND", .set_positional = set_topic};

static void print_overview(void) {
    printf("Usage: cicada COMMAND [OPTION]...\n"
           "Run virtual machines, with or without hardware virtualization.\n\nCommands:\n");
    for (unsigned i = 0; cli_commands[i]; i++)
        printf("  %-12s%s\n", cli_commands[i]->name, cli_commands[i]->summary);
    printf("\n'cicada help COMMAND' and 'man cicada' tell more.\n"
           "Example: cicada run --kernel vmlinuz --initrd initrd.img --cmdline console=ttyS0\n");
}

static int run(const struct cli_command *cmd, int argc, char *const *argv) {
    struct help_target target = {0};
    int code = cli_parse(cmd, argc, argv, &target);
    if (code != CLI_GO_ON)
        return code;
    const struct cli_command *topic = target.topic ? cli_find(target.topic) : NULL;
    if (target.topic && !topic) {
        fprintf(stderr, "cicada: help: no command '%.80s' ('cicada help' lists all)\n", target.topic);
        return RUN_CALLER;
    }
    if (topic)
        cli_print_help(topic, stdout);
    else
        print_overview();
    return cli_finish_output();
}

const struct cli_command cmd_help = {
    .name = "help",
    .summary = "Show this list, or the options of one command",
    .usage = "[COMMAND]",
    .options = &options,
    .run = run,
};
