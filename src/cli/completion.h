// SPDX-License-Identifier: Apache-2.0
// Completion scripts for shells, made from the option tables of all subcommands.
#ifndef CICADA_CLI_COMPLETION_H
#define CICADA_CLI_COMPLETION_H

#include <stdio.h>

void completion_bash(FILE *out);
void completion_zsh(FILE *out);
void completion_fish(FILE *out);

#endif
