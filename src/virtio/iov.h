// SPDX-License-Identifier: Apache-2.0
// Copies and cuts on iovec arrays. Lengths are checked by the copying functions, which return what they moved.
#ifndef CICADA_VIRTIO_IOV_H
#define CICADA_VIRTIO_IOV_H

#include <stddef.h>
#include <sys/uio.h>

size_t iov_to_buf(const struct iovec *iov, unsigned n, size_t offset, void *buf, size_t len);
size_t iov_from_buf(const struct iovec *iov, unsigned n, size_t offset, const void *buf, size_t len);
// Drops the first `bytes`; moves *iov and *n on and shortens the entry it stops in. The array is changed.
void iov_drop_front(struct iovec **iov, unsigned *n, size_t bytes);
// Drops the last `bytes`.
void iov_drop_back(struct iovec *iov, unsigned *n, size_t bytes);

#endif
