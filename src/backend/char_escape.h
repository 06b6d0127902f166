// SPDX-License-Identifier: Apache-2.0
// The Ctrl-A key filter of an interactive console: Ctrl-A is taken out of the stream, the key after it is a
// command; Ctrl-A Ctrl-A sends one Ctrl-A.
#ifndef CICADA_BACKEND_CHAR_ESCAPE_H
#define CICADA_BACKEND_CHAR_ESCAPE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define CHAR_ESCAPE_KEY 1 // Ctrl-A

struct char_escape {
    bool pending; // Ctrl-A was the last byte seen
    void (*command)(void *ctx, uint8_t key);
    void *ctx;
};

// Filters buf[0..n) in place and calls command for each command key. Returns how many bytes are left.
size_t char_escape_filter(struct char_escape *e, uint8_t *buf, size_t n);

#endif
