// SPDX-License-Identifier: Apache-2.0
// One const table of options drives everything that knows about options: parsing, --help, shell completion and
// the hints in error messages. A table belongs to one command; `set` writes into the command's own struct.
#ifndef CICADA_VMM_OPTION_H
#define CICADA_VMM_OPTION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

#include "util/error.h"

// What a shell offers as the value.
enum option_complete { OPTION_COMPLETE_WORD, OPTION_COMPLETE_FILE, OPTION_COMPLETE_VM };

struct option_def {
    const char *name;    // without the dashes
    char short_name;     // 0: none
    bool repeat;         // may be given more than once; otherwise the last one wins
    const char *metavar; // NULL: a switch without a value
    bool optional;       // the value may be left out: it comes behind "=" or not at all, as NULL
    const char *choices; // "auto|kvm|xlate": the only values allowed; NULL: `set` decides
    enum option_complete complete;
    const char *help;
    // value is NULL for a switch. index is the place of the value in `choices`, -1 without choices.
    int (*set)(void *target, const char *value, int index, struct error *err);
};

struct option_table {
    const struct option_def *defs;
    unsigned count;
    const char *positional; // metavar of the arguments that are no options; NULL: there are none
    enum option_complete positional_complete;
    const char *positional_choices; // "kvm|xlate": words for completion, behind what positional_complete gives; or NULL
    int (*set_positional)(void *target, const char *value, struct error *err);
};

#define OPTION_HELP 1 // option_parse found --help or -h

// Parses argv[0..argc) ("--name value", "--name=value", "-n value", "--" ends the options) into target.
// Returns 0, OPTION_HELP, or a negative errno with err set; err names the option, the value and what is allowed.
int option_parse(const struct option_table *t, int argc, char *const *argv, void *target, struct error *err);

// The option of that long name, or NULL.
const struct option_def *option_find(const struct option_table *t, const char *name, size_t len);

// The table as the option part of a help text.
void option_print_help(const struct option_table *t, FILE *out);

// The nearest of the words to `word`, or NULL where none is near enough to be meant. Words end with NULL.
const char *option_nearest(const char *word, const char *const *words);

// "a|b|c" as "a, b or c", cut to size.
void option_choices_text(const char *choices, char *buf, size_t size);

#endif
