// SPDX-License-Identifier: Apache-2.0
// The pages of a snapshot as one zstd stream (memory.zst): those that the maps of RAM name, in their order.
#ifndef CICADA_STATE_PACK_H
#define CICADA_STATE_PACK_H

#include "state/sections.h"

// From a file with each page at its place to a stream. level: of zstd, 1 to 19.
int pack_compress(const struct sections *s, int memory_fd, int out_fd, int level, struct error *err);

// From a stream to a memfd with each page at its place, which becomes the caller's. -EINVAL where the stream is damaged
// or of another length than the maps say.
int pack_expand(const struct sections *s, int packed_fd, int *memory_fd, struct error *err);

#endif
