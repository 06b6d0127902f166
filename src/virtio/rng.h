// SPDX-License-Identifier: Apache-2.0
// virtio-rng, the entropy device. VIRTIO 1.2, 5.4.
#ifndef CICADA_VIRTIO_RNG_H
#define CICADA_VIRTIO_RNG_H

#include "bus/pci.h"

// bytes_per_second: what a guest may draw on average; 0: 1 MiB.
int virtio_rng_create(struct pci_host *host, unsigned slot, uint64_t bytes_per_second, struct error *err);

#endif
