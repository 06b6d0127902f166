// SPDX-License-Identifier: Apache-2.0
// Framing, escaping and hexadecimal of gdb's protocol; see the header.
#include "debug/gdb_packet.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static int hex_digit(uint8_t c) {
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

// ---- reading ----

static void reader_begin(struct gdb_reader *r) {
    r->state = GDB_READ_DATA;
    r->len = 0;
    r->sum = 0;
    r->overflow = false;
}

static enum gdb_token idle_byte(struct gdb_reader *r, uint8_t byte) {
    switch (byte) {
    case '$': reader_begin(r); return GDB_NOTHING;
    case '+': return GDB_ACK;
    case '-': return GDB_NAK;
    case 3: return GDB_INTERRUPT;
    default: return GDB_NOTHING; // noise
    }
}

static void keep(struct gdb_reader *r, uint8_t byte) {
    if (r->len < GDB_PACKET_MAX)
        r->data[r->len++] = (char)byte;
    else
        r->overflow = true;
}

static void data_byte(struct gdb_reader *r, uint8_t byte) {
    if (byte == '#') {
        r->state = GDB_READ_SUM1;
        return;
    }
    if (byte == '$') { // the end of the last one was lost
        reader_begin(r);
        return;
    }
    r->sum += byte;
    if (byte == '}')
        r->state = GDB_READ_ESCAPED;
    else
        keep(r, byte);
}

static enum gdb_token reader_end(struct gdb_reader *r, uint8_t byte) {
    bool good = hex_digit(r->given) >= 0 && hex_digit(byte) >= 0 &&
                (hex_digit(r->given) << 4 | hex_digit(byte)) == r->sum && !r->overflow;
    r->state = GDB_READ_IDLE;
    r->data[r->len] = 0;
    return good ? GDB_PACKET : GDB_BROKEN;
}

enum gdb_token gdb_read_byte(struct gdb_reader *r, uint8_t byte) {
    switch (r->state) {
    case GDB_READ_IDLE: return idle_byte(r, byte);
    case GDB_READ_DATA: data_byte(r, byte); break;
    case GDB_READ_ESCAPED:
        r->sum += byte;
        keep(r, byte ^ 0x20);
        r->state = GDB_READ_DATA;
        break;
    case GDB_READ_SUM1:
        r->given = byte;
        r->state = GDB_READ_SUM2;
        break;
    case GDB_READ_SUM2: return reader_end(r, byte);
    }
    return GDB_NOTHING;
}

// ---- composing ----

void gdb_put(struct gdb_text *t, const char *fmt, ...) {
    size_t room = sizeof(t->data) - t->len;
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(t->data + t->len, room, fmt, ap);
    va_end(ap);
    if (n < 0 || (size_t)n >= room)
        t->overflow = true;
    else
        t->len += (size_t)n;
}

void gdb_put_hex(struct gdb_text *t, const void *bytes, size_t n) {
    static const char digits[] = "0123456789abcdef";
    const uint8_t *b = bytes;
    if (2 * n > sizeof(t->data) - t->len) {
        t->overflow = true;
        return;
    }
    for (size_t i = 0; i < n; i++) {
        t->data[t->len++] = digits[b[i] >> 4];
        t->data[t->len++] = digits[b[i] & 15];
    }
}

void gdb_put_binary(struct gdb_text *t, const void *bytes, size_t n) {
    const uint8_t *b = bytes;
    for (size_t i = 0; i < n; i++) {
        bool special = b[i] == '$' || b[i] == '#' || b[i] == '}' || b[i] == '*';
        if (sizeof(t->data) - t->len < 1u + special) {
            t->overflow = true;
            return;
        }
        if (special)
            t->data[t->len++] = '}';
        t->data[t->len++] = (char)(special ? b[i] ^ 0x20 : b[i]);
    }
}

size_t gdb_frame(const struct gdb_text *t, char *out) {
    uint8_t sum = 0;
    out[0] = '$';
    memcpy(out + 1, t->data, t->len);
    for (size_t i = 0; i < t->len; i++)
        sum += (uint8_t)t->data[i];
    char end[4];
    snprintf(end, sizeof(end), "#%02x", sum);
    memcpy(out + 1 + t->len, end, 3);
    return t->len + 4;
}

// ---- parsing ----

bool gdb_get_char(const char **p, char c) {
    if (**p != c || !c)
        return false;
    ++*p;
    return true;
}

bool gdb_get_hex(const char **p, uint64_t *value) {
    const char *s = *p;
    uint64_t v = 0;
    while (hex_digit((uint8_t)*s) >= 0) {
        if (v >> 60)
            return false;
        v = v << 4 | (uint64_t)hex_digit((uint8_t)*s++);
    }
    if (s == *p)
        return false;
    *p = s;
    *value = v;
    return true;
}

bool gdb_get_bytes(const char **p, void *buf, size_t n) {
    uint8_t *out = buf;
    const char *s = *p;
    for (size_t i = 0; i < n; i++, s += 2) {
        int hi = hex_digit((uint8_t)s[0]), lo = hi < 0 ? -1 : hex_digit((uint8_t)s[1]);
        if (lo < 0)
            return false;
        out[i] = (uint8_t)(hi << 4 | lo);
    }
    *p = s;
    return true;
}
