// SPDX-License-Identifier: Apache-2.0
// Parsers of single values; see the header.
#include "vmm/config_value.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "vmm/config.h"

// Digits at *s, at least one; moves *s behind them.
static int parse_digits(const char **s, uint64_t *out) {
    uint64_t v = 0;
    const char *p = *s;
    if (*p < '0' || *p > '9')
        return -EINVAL;
    for (; *p >= '0' && *p <= '9'; p++)
        if (__builtin_mul_overflow(v, 10u, &v) || __builtin_add_overflow(v, (uint64_t)(*p - '0'), &v))
            return -ERANGE;
    *s = p;
    *out = v;
    return 0;
}

int value_parse_u64(const char *s, uint64_t *out) {
    int ret = parse_digits(&s, out);
    return ret ? ret : *s ? -EINVAL : 0;
}

static int suffix_shift(const char *s) {
    static const char units[] = "KMGT";
    if (!*s)
        return 0;
    const char *unit = strchr(units, toupper((unsigned char)*s));
    if (!unit || (s[1] && strcasecmp(s + 1, "iB") != 0))
        return -EINVAL;
    return 10 * (int)(unit - units + 1);
}

int value_parse_size(const char *s, uint64_t *out) {
    uint64_t v;
    int ret = parse_digits(&s, &v);
    if (ret)
        return ret;
    int shift = suffix_shift(s);
    if (shift < 0)
        return shift;
    if (shift && v >> (64 - shift))
        return -ERANGE;
    *out = v << shift;
    return 0;
}

void value_format_size(uint64_t bytes, char *buf, size_t size) {
    static const char units[] = {0, 'K', 'M', 'G', 'T'};
    unsigned u = 0;
    for (; bytes && u < 4 && bytes % 1024 == 0; u++)
        bytes /= 1024;
    snprintf(buf, size, units[u] ? "%llu%c" : "%llu", (unsigned long long)bytes, units[u]);
}

int value_parse_port(const char *s, uint16_t *out) {
    uint64_t v;
    int ret = value_parse_u64(s, &v);
    if (ret)
        return ret;
    if (v < 1 || v > 65535)
        return -ERANGE;
    *out = (uint16_t)v;
    return 0;
}

static int hex_digit(char c) {
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                  : -1;
}

int value_parse_mac(const char *s, uint8_t mac[6]) {
    uint8_t any = 0;
    if (strlen(s) != 17)
        return -EINVAL;
    for (unsigned i = 0; i < 6; i++) {
        int hi = hex_digit(s[3 * i]), lo = hex_digit(s[3 * i + 1]);
        if (hi < 0 || lo < 0 || (i < 5 && s[3 * i + 2] != ':'))
            return -EINVAL;
        mac[i] = (uint8_t)(hi << 4 | lo);
        any |= mac[i];
    }
    return !any || mac[0] & 1 ? -EADDRNOTAVAIL : 0; // IEEE 802: bit 0 of the first octet marks a group address
}

static bool is_word(char c) {
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

bool value_name_ok(const char *s) {
    size_t n = strlen(s);
    if (n < 1 || n > CONFIG_MAX_NAME || !is_word(s[0]))
        return false;
    for (size_t i = 1; i < n; i++)
        if (!is_word(s[i]) && s[i] != '.' && s[i] != '_' && s[i] != '-')
            return false;
    return true;
}

char *value_next_item(const char **list) {
    const char *p = *list;
    char *item = malloc(strlen(p) + 1);
    if (!item)
        return NULL;
    size_t n = 0;
    for (; *p && (*p != ',' || p[1] == ','); p++) {
        item[n++] = *p;
        p += *p == ',';
    }
    item[n] = 0;
    *list = *p ? p + 1 : NULL;
    return item;
}
