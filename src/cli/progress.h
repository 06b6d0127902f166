// SPDX-License-Identifier: Apache-2.0
// A progress bar on standard error, where that is a terminal; nothing elsewhere.
#ifndef CICADA_CLI_PROGRESS_H
#define CICADA_CLI_PROGRESS_H

#include <stdbool.h>
#include <stdint.h>

struct progress {
    bool terminal; // is there anybody to look at it?
    bool shown;    // something stands on the line
};

void progress_begin(struct progress *p);
// done of total in any unit, then the text in a printf format.
void progress_show(struct progress *p, uint64_t done, uint64_t total, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));
// Clears the line. Before anything else is written.
void progress_end(struct progress *p);

#endif
