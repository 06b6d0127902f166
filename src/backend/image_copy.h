// SPDX-License-Identifier: Apache-2.0
// Copies of disk images.
#ifndef CICADA_BACKEND_IMAGE_COPY_H
#define CICADA_BACKEND_IMAGE_COPY_H

#include "backend/block.h"

// The first `size` bytes of one file into another, which is empty: by sharing its blocks where the file system can
// (btrfs, XFS), else by copying its data; holes stay holes. Blocks. 0 or negative errno.
int image_copy(int from, uint64_t size, int to);

// Makes `to` a copy of `from` that shares its blocks: 0, or negative errno where the file system cannot.
int image_share(int from, int to);
// Zeroes into a file, as a hole where that can be. 0 or negative errno.
int image_write_zeroes(int fd, uint64_t bytes, uint64_t offset);
bool image_is_zero(const uint8_t *p, uint64_t bytes);

// What the guest would read from this disk at the moment; any thread, also while requests are under way.
int block_peek(struct block_backend *b, uint8_t *buf, uint64_t bytes, uint64_t offset);
// The same of all of it, into an empty file. The disk is drained and stays so meanwhile.
int block_copy_to(struct block_backend *b, int fd);

#endif
