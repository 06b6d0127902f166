// SPDX-License-Identifier: Apache-2.0
// virtio-net. VIRTIO 1.2, 5.1.
#ifndef CICADA_VIRTIO_NET_H
#define CICADA_VIRTIO_NET_H

#include "backend/net.h"
#include "bus/pci.h"

// Takes the backend over on success; on failure it stays the caller's.
int virtio_net_create(struct pci_host *host, unsigned slot, struct net_backend *backend, const uint8_t mac[6],
                      struct error *err);

#endif
