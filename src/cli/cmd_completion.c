// SPDX-License-Identifier: Apache-2.0
// `cicada completion bash|zsh|fish`: prints a completion script.
#include <errno.h>
#include <string.h>

#include "cli/cli.h"
#include "cli/completion.h"
#include "vmm/run.h"

typedef void (*completion_fn)(FILE *out);

struct completion_target {
    completion_fn print;
};

static int set_shell(void *t, const char *value, struct error *err) {
    static const struct {
        const char *name;
        completion_fn print;
    } shells[] = {{"bash", completion_bash}, {"zsh", completion_zsh}, {"fish", completion_fish}};
    for (unsigned i = 0; i < sizeof(shells) / sizeof(shells[0]); i++) {
        if (strcmp(value, shells[i].name) == 0) {
            ((struct completion_target *)t)->print = shells[i].print;
            return 0;
        }
    }
    return error_set(err, -EINVAL, "completion: '%.80s' is not one of bash, zsh or fish", value);
}

static const struct option_table options = {
    .positional = "SHELL", .positional_choices = "bash|zsh|fish", .set_positional = set_shell};

static int run(const struct cli_command *cmd, int argc, char *const *argv) {
    struct completion_target target = {0};
    int code = cli_parse(cmd, argc, argv, &target);
    if (code != CLI_GO_ON)
        return code;
    if (!target.print) {
        fprintf(stderr, "cicada: completion: the name of a shell is needed: bash, zsh or fish\n");
        return RUN_CALLER;
    }
    target.print(stdout);
    return cli_finish_output();
}

const struct cli_command cmd_completion = {
    .name = "completion",
    .summary = "Print a completion script for a shell",
    .usage = "bash|zsh|fish",
    .options = &options,
    .run = run,
};
