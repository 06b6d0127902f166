// SPDX-License-Identifier: Apache-2.0
// Typed little-endian reader and writer in which components save and load their state.
// The writer grows its own buffer and remembers a failed allocation (check state_writer_error at the end);
// the reader remembers an overrun and then returns zeroes, so load functions check once at their end.
#ifndef CICADA_CORE_STATEIO_H
#define CICADA_CORE_STATEIO_H

#include <stddef.h>
#include <stdint.h>

struct state_writer {
    uint8_t *buf; // owned; free with state_writer_free
    size_t len, cap;
    int error; // 0 or -ENOMEM; a component that cannot tell its state sets another one
};

struct state_reader {
    const uint8_t *buf; // borrowed
    size_t len, pos;
    int error;        // 0 or -EINVAL after an overrun
    uint32_t version; // version of the section being read
};

void state_writer_free(struct state_writer *w);
int state_writer_error(const struct state_writer *w); // 0 or a negative errno
void state_put_u8(struct state_writer *w, uint8_t v);
void state_put_u16(struct state_writer *w, uint16_t v);
void state_put_u32(struct state_writer *w, uint32_t v);
void state_put_u64(struct state_writer *w, uint64_t v);
void state_put_bytes(struct state_writer *w, const void *p, size_t n);

uint8_t state_get_u8(struct state_reader *r);
uint16_t state_get_u16(struct state_reader *r);
uint32_t state_get_u32(struct state_reader *r);
uint64_t state_get_u64(struct state_reader *r);
void state_get_bytes(struct state_reader *r, void *p, size_t n);

#endif
