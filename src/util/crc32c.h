// SPDX-License-Identifier: Apache-2.0
// CRC-32C (Castagnoli; RFC 3720 appendix B.4), the checksum of snapshots and migration streams.
#ifndef CICADA_UTIL_CRC32C_H
#define CICADA_UTIL_CRC32C_H

#include <stddef.h>
#include <stdint.h>

// The checksum of what `crc` is the checksum of (0: nothing), followed by len bytes at p. Any thread.
uint32_t crc32c(uint32_t crc, const void *p, size_t len);

#endif
