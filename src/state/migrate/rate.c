// SPDX-License-Identifier: Apache-2.0
// Windows of time in which bytes are counted. A window is closed only when enough went through it: a socket's buffer
// that swallows a few pages at once says nothing of the connection behind it.
#include "state/migrate/rate.h"

#define WINDOW_NS    50000000u
#define WINDOW_BYTES (4u << 20)
#define SECOND_NS    1000000000.0

void rate_init(struct rate *r, uint64_t limit) {
    *r = (struct rate){.limit = limit};
}

void rate_start(struct rate *r, uint64_t now_ns) {
    r->begun_ns = r->allowed_from_ns = now_ns;
    r->bytes = 0;
}

void rate_add(struct rate *r, uint64_t bytes) {
    r->bytes += bytes;
    if (r->limit)
        r->allowed_from_ns += (uint64_t)((double)bytes * SECOND_NS / (double)r->limit);
}

static uint64_t per_second(uint64_t bytes, uint64_t ns) {
    return ns ? (uint64_t)((double)bytes * SECOND_NS / (double)ns) : 0;
}

bool rate_allows(struct rate *r, uint64_t now_ns) {
    uint64_t ns = now_ns - r->begun_ns;
    if (r->begun_ns && ns >= WINDOW_NS && r->bytes >= WINDOW_BYTES) {
        r->measured = per_second(r->bytes, ns);
        r->begun_ns = now_ns;
        r->bytes = 0;
    }
    if (!r->limit)
        return true;
    if (now_ns < r->allowed_from_ns)
        return false;
    // What was not used for a while is lost: no burst later.
    if (now_ns - r->allowed_from_ns > WINDOW_NS)
        r->allowed_from_ns = now_ns - WINDOW_NS;
    return true;
}

uint64_t rate_bytes(const struct rate *r, uint64_t now_ns) {
    uint64_t rate = r->measured ? r->measured : per_second(r->bytes, now_ns - r->begun_ns);
    return r->limit && r->limit < rate ? r->limit : rate;
}
