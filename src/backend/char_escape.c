// SPDX-License-Identifier: Apache-2.0
// The Ctrl-A key filter; see the header. A command may span two reads, so the state is kept.
#include "backend/char_escape.h"

size_t char_escape_filter(struct char_escape *e, uint8_t *buf, size_t n) {
    size_t out = 0;
    for (size_t i = 0; i < n; i++) {
        uint8_t c = buf[i];
        if (!e->pending && c == CHAR_ESCAPE_KEY) {
            e->pending = true;
        } else if (e->pending && c != CHAR_ESCAPE_KEY) {
            e->pending = false;
            e->command(e->ctx, c);
        } else {
            e->pending = false;
            buf[out++] = c;
        }
    }
    return out;
}
