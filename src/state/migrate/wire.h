// SPDX-License-Identifier: Apache-2.0
// The migration stream: framed, checksummed messages over a connected byte stream (a socket), both ways.
//
// A message is a header of 16 bytes, little-endian - u32 type, u32 length of the body, u32 CRC-32C of the body, u32
// CRC-32C of the 12 bytes before - and the body. The first message of either side is WIRE_HELLO: magic and version, by
// which a stranger on the other end is found out before anything of it is believed. docs/MIGRATION.md has the order.
//
// A wire never blocks: what the socket does not take stays in its buffer. Used by one thread at a time.
#ifndef CICADA_STATE_MIGRATE_WIRE_H
#define CICADA_STATE_MIGRATE_WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "util/error.h"

#define WIRE_VERSION  1u
#define WIRE_BODY_MAX ((size_t)64 << 20)

enum wire_type {
    WIRE_HELLO = 1, // both: magic "CICADAMG", u32 version
    // Source to target.
    WIRE_MANIFEST, // JSON, as vmm/manifest.h makes it
    WIRE_PAGES,    // u32 RAM block, u32 count, count u64 page numbers, count pages
    WIRE_ZEROES,   // u32 RAM block, u32 count, count pairs of u64: first page, number of pages
    WIRE_BLOCKS,   // u32 disk, u32 length, u64 offset, length bytes; none: zeroes
    WIRE_STATE,    // u8 paused, then the components (state/sections.h): the last of the source's state
    WIRE_COMMIT,   // the target may run: the source never will again
    // Target to source.
    WIRE_ACCEPT,  // the manifest will do: the machine is built; u8 1 where it asks for post-copy and can have it
    WIRE_REFUSE,  // text: it cannot go on; the source keeps its machine
    WIRE_LOADED,  // everything is loaded and verified; waits for WIRE_COMMIT
    WIRE_RUNNING, // the guest runs here
    // Post-copy.
    WIRE_PENDING,  // source: bitmaps of all RAM blocks, in u64 words: pages that come when asked for, or later
    WIRE_REQUEST,  // target: u32 RAM block, u64 page: somebody waits for it
    WIRE_COMPLETE, // target: every page is here
    WIRE_TYPE_END,
};

struct wire_message {
    enum wire_type type;
    const uint8_t *body; // in the wire's buffer, until the next wire_next
    size_t len;
};

struct wire_buffer {
    uint8_t *data;
    size_t begin, end, capacity;
};

struct wire {
    int fd; // owned
    struct wire_buffer out, in;
    size_t taken;            // bytes at in.begin that the last message occupies
    uint64_t sent, received; // bytes that went through the socket
    bool greeted;            // the other side's WIRE_HELLO has come
};

// Takes a connected socket over, makes it non-blocking and queues WIRE_HELLO. 0 or negative errno (fd stays the
// caller's then).
int wire_init(struct wire *w, int fd);
// Closes the socket; a zeroed wire with fd -1 is legal.
void wire_fini(struct wire *w);

// Queues a message: room for a body of `len` bytes, to be filled in before wire_end. NULL: out of memory.
uint8_t *wire_begin(struct wire *w, enum wire_type type, size_t len);
void wire_end(struct wire *w);
int wire_put(struct wire *w, enum wire_type type, const void *body, size_t len); // both in one; 0 or -ENOMEM
size_t wire_queued(const struct wire *w);                                        // bytes that the socket has not taken

// Gives the socket what it takes. 0: all is sent; -EAGAIN: some is left; or another negative errno.
int wire_flush(struct wire *w);
// Takes what the socket has, at most about 1 MiB beyond a whole message. 0, -EAGAIN where there was nothing,
// -ECONNRESET at the end of the stream, or another negative errno.
int wire_fill(struct wire *w);
// The next complete message. 1, 0 where it has not come in whole, or -EINVAL with the reason in err: the stream is
// damaged, or no stream of ours.
int wire_next(struct wire *w, struct wire_message *m, struct error *err);

// For use before there is an event loop: flush, and wait for a message, each at most timeout_ms. 0 or negative errno
// with err set; -ETIMEDOUT where it took too long.
int wire_flush_wait(struct wire *w, int timeout_ms, struct error *err);
int wire_next_wait(struct wire *w, struct wire_message *m, int timeout_ms, struct error *err);

// Little-endian fields of bodies.
static inline void wire_set32(uint8_t *p, uint32_t v) {
    for (unsigned i = 0; i < 4; i++)
        p[i] = (uint8_t)(v >> (8 * i));
}
static inline void wire_set64(uint8_t *p, uint64_t v) {
    for (unsigned i = 0; i < 8; i++)
        p[i] = (uint8_t)(v >> (8 * i));
}
static inline uint32_t wire_get32(const uint8_t *p) {
    uint32_t v = 0;
    for (unsigned i = 0; i < 4; i++)
        v |= (uint32_t)p[i] << (8 * i);
    return v;
}
static inline uint64_t wire_get64(const uint8_t *p) {
    return wire_get32(p) | (uint64_t)wire_get32(p + 4) << 32;
}

#endif
