// SPDX-License-Identifier: Apache-2.0
// How fast bytes go, of late, and a limit on it.
#ifndef CICADA_STATE_MIGRATE_RATE_H
#define CICADA_STATE_MIGRATE_RATE_H

#include <stdbool.h>
#include <stdint.h>

struct rate {
    uint64_t limit;           // bytes per second, 0: none
    uint64_t begun_ns;        // of the present window
    uint64_t bytes;           // in it
    uint64_t measured;        // bytes per second, of the last full window; 0: none yet
    uint64_t allowed_from_ns; // with a limit: when the bytes so far are paid for
};

void rate_init(struct rate *r, uint64_t limit);
void rate_start(struct rate *r, uint64_t now_ns); // of the first window
void rate_add(struct rate *r, uint64_t bytes);
// May something be sent now? Closes a window that has lasted long enough.
bool rate_allows(struct rate *r, uint64_t now_ns);
uint64_t rate_bytes(const struct rate *r, uint64_t now_ns); // bytes per second; 0: nothing was sent yet

#endif
