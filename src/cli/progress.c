// SPDX-License-Identifier: Apache-2.0
// Progress bar; see the header.
#include "cli/progress.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define WIDTH 24u

void progress_begin(struct progress *p) {
    *p = (struct progress){.terminal = isatty(STDERR_FILENO)};
}

void progress_show(struct progress *p, uint64_t done, uint64_t total, const char *fmt, ...) {
    char bar[WIDTH + 1], text[120];
    unsigned percent = total ? (unsigned)((unsigned __int128)(done < total ? done : total) * 100 / total) : 0;
    va_list ap;
    if (!p->terminal)
        return;
    va_start(ap, fmt);
    vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    memset(bar, '.', WIDTH);
    memset(bar, '#', percent * WIDTH / 100);
    bar[WIDTH] = 0;
    fprintf(stderr, "\r[%s] %3u%% %s\033[K", bar, percent, text);
    fflush(stderr);
    p->shown = true;
}

void progress_end(struct progress *p) {
    if (p->shown)
        fprintf(stderr, "\r\033[K");
    p->shown = false;
}
