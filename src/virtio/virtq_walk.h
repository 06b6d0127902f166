// SPDX-License-Identifier: Apache-2.0
// Between virtq.c and virtq_walk.c.
#ifndef CICADA_VIRTIO_VIRTQ_WALK_H
#define CICADA_VIRTIO_VIRTQ_WALK_H

#include "virtio/virtq.h"

// Follows the chain from head and fills vq->segs and vq->nsegs. -EINVAL with the reason in *why.
int virtq_walk(struct virtq *vq, uint16_t head, const char **why);

#endif
