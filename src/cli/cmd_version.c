// SPDX-License-Identifier: Apache-2.0
// `cicada version`.
#include "cicada.h"
#include "cli/cli.h"
#include "core/engine.h"

static int run(const struct cli_command *cmd, int argc, char *const *argv) {
    int code = cli_parse(cmd, argc, argv, NULL);
    if (code != CLI_GO_ON)
        return code;
    printf("cicada %s\nengines:%s%s\n", cicada_version(), engine_find("kvm") ? " kvm" : "",
           engine_find("xlate") ? " xlate" : "");
    return cli_finish_output();
}

static const struct option_table options = {0};

const struct cli_command cmd_version = {
    .name = "version",
    .summary = "Print the version and the engines that are built",
    .usage = "",
    .options = &options,
    .run = run,
};
