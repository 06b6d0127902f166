// SPDX-License-Identifier: Apache-2.0
// Parsers of single values: sizes, numbers, names, addresses, comma lists. All check the whole string and
// give 0 or -EINVAL (-ERANGE where the value does not fit); no locale, no white space, no trailing text.
#ifndef CICADA_VMM_CONFIG_VALUE_H
#define CICADA_VMM_CONFIG_VALUE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// Decimal digits only.
int value_parse_u64(const char *s, uint64_t *out);
// Decimal bytes with an optional binary suffix K, M, G or T (either case, also KiB...): "512M".
int value_parse_size(const char *s, uint64_t *out);
// The same size as people write it, in the largest suffix that loses nothing.
void value_format_size(uint64_t bytes, char *buf, size_t size);
// 1 to 65535.
int value_parse_port(const char *s, uint16_t *out);
// "52:54:00:12:34:56"; a multicast or all-zero address is -EADDRNOTAVAIL.
int value_parse_mac(const char *s, uint8_t mac[6]);
// 1 to CONFIG_MAX_NAME of A-Z a-z 0-9 . _ - with a letter or digit first: safe as a file name.
bool value_name_ok(const char *s);
// Cuts the next item off a comma list; ",," stands for one comma in it. Returns a string that the caller frees
// and moves *list on (NULL at the end); NULL when out of memory.
char *value_next_item(const char **list);

#endif
