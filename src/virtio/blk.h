// SPDX-License-Identifier: Apache-2.0
// virtio-blk. VIRTIO 1.2, 5.2.
#ifndef CICADA_VIRTIO_BLK_H
#define CICADA_VIRTIO_BLK_H

#include "backend/block.h"
#include "bus/pci.h"

// `serial`: up to 20 bytes that the guest reads as the disk's identity, may be NULL.
// Takes the backend over on success; on failure it stays the caller's.
int virtio_blk_create(struct pci_host *host, unsigned slot, struct block_backend *backend, const char *serial,
                      struct error *err);

#endif
