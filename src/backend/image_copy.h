// SPDX-License-Identifier: Apache-2.0
// Copies of disk images.
#ifndef CICADA_BACKEND_IMAGE_COPY_H
#define CICADA_BACKEND_IMAGE_COPY_H

#include "backend/block.h"

// The first `size` bytes of one file into another, which is empty: by sharing its blocks where the file system can
// (btrfs, XFS), else by copying its data; holes stay holes. Blocks. 0 or negative errno.
int image_copy(int from, uint64_t size, int to);

// What the guest would read from this disk, into an empty file. The disk is drained and stays so meanwhile.
int block_copy_to(struct block_backend *b, int fd);

#endif
