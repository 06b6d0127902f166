// SPDX-License-Identifier: Apache-2.0
// Packets of gdb's remote serial protocol (gdb manual, appendix E.1): $DATA#CHECKSUM, acknowledged by + or -, with a
// bare 0x03 for "stop". Bytes come from whoever can connect; everything here is bounded by GDB_PACKET_MAX.
#ifndef CICADA_DEBUG_GDB_PACKET_H
#define CICADA_DEBUG_GDB_PACKET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define GDB_PACKET_MAX 16384 // bytes of DATA, as sent

enum gdb_token {
    GDB_NOTHING,   // more bytes are needed
    GDB_PACKET,    // reader.data holds one
    GDB_BROKEN,    // a packet with a wrong checksum, or too long
    GDB_ACK,       // +
    GDB_NAK,       // -
    GDB_INTERRUPT, // 0x03
};

struct gdb_reader {
    enum { GDB_READ_IDLE, GDB_READ_DATA, GDB_READ_ESCAPED, GDB_READ_SUM1, GDB_READ_SUM2 } state;
    uint8_t sum, given;
    bool overflow;
    size_t len;
    char data[GDB_PACKET_MAX + 1]; // unescaped, len bytes and a 0 behind them
};

// Takes one byte.
enum gdb_token gdb_read_byte(struct gdb_reader *r, uint8_t byte);

// DATA being composed. What does not fit is dropped and noted.
struct gdb_text {
    size_t len;
    bool overflow;
    char data[GDB_PACKET_MAX];
};

void gdb_put(struct gdb_text *t, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void gdb_put_hex(struct gdb_text *t, const void *bytes, size_t n);    // two digits a byte
void gdb_put_binary(struct gdb_text *t, const void *bytes, size_t n); // escaped where it must be

// The frame around t: "$...#xx", at most GDB_FRAME_MAX bytes to out. Returns their number.
#define GDB_FRAME_MAX (GDB_PACKET_MAX + 4)
size_t gdb_frame(const struct gdb_text *t, char *out);

// ---- parsing; *p moves on behind what was taken ----
bool gdb_get_char(const char **p, char c);               // the next one is c
bool gdb_get_hex(const char **p, uint64_t *value);       // 1 to 16 digits
bool gdb_get_bytes(const char **p, void *buf, size_t n); // exactly 2n digits

#endif
